"""Intervals for means of importance-weighted scores, a few of which are far heavier than the rest.

Student's t with the degrees of freedom that the scores have in effect: Kish's number of their squared residuals, which is a third of the
clusters for normal scores and near 1 where a single session decides. Chosen on development seeds of the simulated shop, where percentile,
studentized and BCa bootstraps and normal intervals covered the truth too rarely with few effective sessions (docs/evaluation.md).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from guidelens.evaluation.bootstrap import LEVEL, ClusterSums, Interval

# Letters: B = logged sessions or choices.


class Spread(NamedTuple):
    """A mean's variance, and the degrees of freedom it is known with."""

    variance: float
    freedom: float

    @classmethod
    def of(cls, scores_B: NDArray[np.floating], clusters_B: NDArray[np.generic] | None) -> "Spread":
        left_C = ClusterSums.of(scores_B, clusters_B).residuals
        num, squares = len(left_C), float((left_C**2).sum())
        fourth = float((left_C**4).sum())
        return cls(squares * num / max(1, num - 1), max(1.0, squares**2 / fourth) if fourth > 0 else float(max(1, num - 1)))

    def plus(self, other: "Spread") -> "Spread":
        """Of a sum of both; degrees of freedom by Welch and Satterthwaite."""
        parts = [part for part in (self, other) if part.variance > 0]
        if len(parts) < 2:
            return parts[0] if parts else self
        variance = self.variance + other.variance
        return Spread(variance, variance**2 / sum(part.variance**2 / part.freedom for part in parts))


def t_interval(scores_B: NDArray[np.floating], clusters_B: NDArray[np.generic] | None, left_out_B: NDArray[np.floating] | None = None) -> Interval:
    """The mean of scores with its 95 % interval, clusters independent.

    Args:
        left_out_B: what an unbiased estimator's scores have beyond these, where these are of a shrunk one: the interval is as wide as
            not knowing it demands.

    Raises:
        ShapeError: no rows, or lengths differ.
    """
    found, spread = ClusterSums.of(scores_B, clusters_B), Spread.of(scores_B, clusters_B)
    if left_out_B is not None:
        spread = spread.plus(Spread.of(left_out_B, clusters_B))
    half = float(stats.t.ppf((1 + LEVEL) / 2, spread.freedom)) * float(np.sqrt(spread.variance))
    return Interval(value=found.mean, low=found.mean - half, high=found.mean + half, n=len(scores_B), clusters=len(found.sums))
