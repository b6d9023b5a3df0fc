"""What a fitted model answers: the one code that evaluation and serving run. Knows nothing of Ray, MLflow or Feast."""

from guidelens.inference.scorer import GuideScorer, SlateScores

__all__ = ["GuideScorer", "SlateScores"]
