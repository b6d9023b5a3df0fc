"""What a fitted model answers: the one code that evaluation and serving run. Knows nothing of Ray, MLflow or Feast.

Names are imported from their modules: `reranking` is plain numpy, and whoever uses it alone need not load torch.
"""
