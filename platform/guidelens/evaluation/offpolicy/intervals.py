"""Intervals for means of importance-weighted scores, a few of which are far heavier than the rest.

Student's t with the degrees of freedom that the scores have in effect: Kish's number of their squared residuals, which is a third of the
clusters for normal scores and near 1 where a single session decides. Where a model expects scores to vary more than they do, its word is
pooled with theirs: purchases are rare, and a few heavy sessions without one look alike, so that scores alone show too little variance
just where the estimate is too low. Chosen on development seeds of the simulated shop (docs/adr/0120, 0175).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from guidelens.evaluation.bootstrap import LEVEL, ClusterSums, Interval

# Letters: B = logged sessions or choices, C = clusters.


class Spread(NamedTuple):
    """A mean's variance, and the degrees of freedom it is known with."""

    variance: float
    freedom: float

    @classmethod
    def of(cls, scores_B: NDArray[np.floating], clusters_B: NDArray[np.generic] | None) -> "Spread":
        """As the scores themselves show it."""
        left_C = ClusterSums.of(scores_B, clusters_B).residuals
        num = len(left_C)
        return cls(float((left_C**2).sum()) * num / max(1, num - 1), _kish(left_C**2))

    @classmethod
    def expected(cls, noise_B: NDArray[np.floating], clusters_B: NDArray[np.generic] | None) -> "Spread":
        """As it follows from the variance of each score."""
        part_C = ClusterSums.of(noise_B, clusters_B).sums / len(noise_B) ** 2
        return cls(float(part_C.sum()), _kish(part_C))

    def informed(self, expected: "Spread") -> "Spread":
        """Itself, or where more is expected the two pooled, each as good as its degrees of freedom (the moderated variance of Smyth, SAGMB 2004)."""
        if expected.variance <= self.variance:
            return self
        freedom = self.freedom + expected.freedom
        return Spread((self.variance * self.freedom + expected.variance * expected.freedom) / freedom, freedom)

    def plus(self, other: "Spread") -> "Spread":
        """Of a sum of both; degrees of freedom by Welch and Satterthwaite."""
        parts = [part for part in (self, other) if part.variance > 0]
        if len(parts) < 2:
            return parts[0] if parts else self
        variance = self.variance + other.variance
        return Spread(variance, variance**2 / sum(part.variance**2 / part.freedom for part in parts))


class Scores(NamedTuple):
    """(B,) scores whose mean is an estimate. noise_B: the variance that a model expects of each, None where none says."""

    value_B: NDArray[np.float64]
    noise_B: NDArray[np.float64] | None = None

    def spread(self, clusters_B: NDArray[np.generic] | None) -> Spread:
        seen = Spread.of(self.value_B, clusters_B)
        return seen if self.noise_B is None else seen.informed(Spread.expected(self.noise_B, clusters_B))


def t_interval(scores_B: NDArray[np.floating], clusters_B: NDArray[np.generic] | None, spread: Spread | None = None) -> Interval:
    """The mean of scores with its 95 % interval, clusters independent.

    Args:
        spread: of what is not known of the mean; that of the scores themselves where None.

    Raises:
        ShapeError: no rows, or lengths differ.
    """
    found, spread = ClusterSums.of(scores_B, clusters_B), spread or Spread.of(scores_B, clusters_B)
    half = float(stats.t.ppf((1 + LEVEL) / 2, spread.freedom)) * float(np.sqrt(spread.variance))
    return Interval(value=found.mean, low=found.mean - half, high=found.mean + half, n=len(scores_B), clusters=len(found.sums))


def _kish(parts_C: NDArray[np.floating]) -> float:
    """How many equal parts these are worth, at least 1."""
    squares = float((parts_C**2).sum())
    return max(1.0, float(parts_C.sum()) ** 2 / squares) if squares > 0 else float(max(1, len(parts_C) - 1))
