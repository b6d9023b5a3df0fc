"""What a fitted model answers: the one code that evaluation and serving run. Knows nothing of Ray, MLflow or Feast."""

from guidelens.inference.fusion import FusionModel
from guidelens.inference.messages import FusionInput, FusionOutput, RankInput, RankOutput, SessionState, Source
from guidelens.inference.ranker import RankerModel
from guidelens.inference.scorer import GuideScorer, SlateScores

__all__ = [
    "FusionInput",
    "FusionModel",
    "FusionOutput",
    "GuideScorer",
    "RankInput",
    "RankOutput",
    "RankerModel",
    "SessionState",
    "SlateScores",
    "Source",
]
