"""Percentile bootstrap over clusters: how sure a mean, or a difference of means on the same rows, is.

Rows of one cluster (a shopper, a session) are drawn together, because they are not independent. Knows nothing of models.
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from guidelens.errors import ShapeError
from guidelens.schemas.base import Frozen
from guidelens.schemas.ids import sub_seed

# Letters: R = rows, C = clusters.

LEVEL = 0.95
FEW_CLUSTERS = 30
"""With fewer, a percentile interval is too narrow: of models that do not differ, as many as 17 % of comparisons over five shoppers and 10 % over
twenty had p below .05, Student's t 4 % (400 draws each, development seeds; Cameron, Gelbach and Miller, Rev. Econ. Stat. 2008)."""
_TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
_MAX_CELLS = 20_000_000


class Interval(Frozen):
    """A mean with its 95 % interval. `n` counts rows, `clusters` what was resampled."""

    value: float
    low: float
    high: float
    n: int
    clusters: int


class ClusterSums(NamedTuple):
    """(C,) each: sum of (weighted) values and mass of every cluster, in the order in which they appear."""

    sums: NDArray[np.float64]
    mass: NDArray[np.float64]

    @classmethod
    def of(cls, values_R: NDArray[np.floating], clusters_R: NDArray[np.generic] | None, weights_R: NDArray[np.floating] | None = None) -> Self:
        """Raises ShapeError where there are no rows or lengths differ."""
        rows = len(values_R)
        if rows == 0 or (clusters_R is not None and len(clusters_R) != rows) or (weights_R is not None and len(weights_R) != rows):
            raise ShapeError(f"values, clusters and weights must have one length of at least 1, got {rows} values")
        weights = np.ones(rows) if weights_R is None else weights_R.astype(np.float64)
        labels = np.arange(rows) if clusters_R is None else in_order_of_appearance(clusters_R)
        return cls(_sums(labels, values_R.astype(np.float64) * weights), _sums(labels, weights))

    @property
    def mean(self) -> float:
        return float(self.sums.sum() / self.mass.sum())

    @property
    def residuals(self) -> NDArray[np.float64]:
        """(C,) what each cluster adds to the mean: their sum is 0, that of their squares its variance but for (C / (C - 1))."""
        return np.asarray((self.sums - self.mean * self.mass) / self.mass.sum())


def mean_interval(
    values_R: NDArray[np.floating],
    *,
    num_bootstrap: int,
    seed: int,
    clusters_R: NDArray[np.generic] | None = None,
    weights_R: NDArray[np.floating] | None = None,
) -> Interval:
    """The (weighted) mean of values and its interval; low == high == value where num_bootstrap is 0.

    Args:
        values_R: (R,) finite, R >= 1.
        clusters_R: (R,) labels of what is drawn together; each row by itself where None.
        weights_R: (R,) non-negative, 1 where None.

    Raises:
        ShapeError: no rows, or lengths differ.
    """
    found = ClusterSums.of(values_R, clusters_R, weights_R)
    means = resampled_means(found, num_bootstrap, seed)
    low, high = (found.mean, found.mean) if len(means) == 0 else (float(q) for q in np.quantile(means, _TAILS))
    return Interval(value=found.mean, low=low, high=high, n=len(values_R), clusters=len(found.sums))


def paired_difference(
    ours_R: NDArray[np.floating], theirs_R: NDArray[np.floating], *, num_bootstrap: int, seed: int, clusters_R: NDArray[np.generic] | None = None
) -> Interval:
    """The mean of ours minus theirs on the same rows, with its interval."""
    if len(ours_R) != len(theirs_R):
        raise ShapeError(f"a paired difference needs the same rows twice, got {len(ours_R)} and {len(theirs_R)}")
    return mean_interval(ours_R - theirs_R, num_bootstrap=num_bootstrap, seed=seed, clusters_R=clusters_R)


@dataclass(frozen=True)
class Draws:
    """How intervals are drawn, wherever a report has some."""

    num_bootstrap: int
    seed: int

    def over(self, values_R: NDArray[np.floating], clusters_R: NDArray[np.generic], weights_R: NDArray[np.floating] | None = None) -> Interval:
        return mean_interval(values_R, num_bootstrap=self.num_bootstrap, seed=self.seed, clusters_R=_comparable(clusters_R), weights_R=weights_R)

    def gain(self, ours_R: NDArray[np.floating], theirs_R: NDArray[np.floating], clusters_R: NDArray[np.generic]) -> Interval:
        return paired_difference(ours_R, theirs_R, num_bootstrap=self.num_bootstrap, seed=self.seed, clusters_R=_comparable(clusters_R))


def _comparable(clusters_R: NDArray[np.generic]) -> NDArray[np.generic]:
    """Labels that sort: objects as text."""
    return clusters_R.astype(str) if clusters_R.dtype == object else clusters_R


def in_order_of_appearance(clusters_R: NDArray[np.generic]) -> NDArray[np.int64]:
    """(R,) number of each row's cluster. What the clusters are called must not matter: shoppers bear other pseudonyms in every home."""
    _, first_C, label_R = np.unique(clusters_R, return_index=True, return_inverse=True)
    rank_C = np.empty(len(first_C), dtype=np.int64)
    rank_C[np.argsort(first_C)] = np.arange(len(first_C))
    numbers: NDArray[np.int64] = rank_C[label_R]
    return numbers


def _sums(labels_R: NDArray[np.integer], values_R: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.bincount(labels_R, weights=values_R), dtype=np.float64)


def resampled_means(found: ClusterSums, num_bootstrap: int, seed: int) -> NDArray[np.float64]:
    """(num_bootstrap,) means over clusters drawn with replacement; draws without any mass are left out."""
    rng = np.random.Generator(np.random.Philox(key=sub_seed(seed, "bootstrap")))
    num_clusters = len(found.sums)
    parts = []
    step = max(1, _MAX_CELLS // num_clusters)
    for start in range(0, num_bootstrap, step):
        drawn = rng.integers(0, num_clusters, size=(min(step, num_bootstrap - start), num_clusters))
        mass = found.mass[drawn].sum(axis=1)
        parts.append(found.sums[drawn].sum(axis=1)[mass > 0] / mass[mass > 0])
    return np.concatenate(parts) if parts else np.empty(0)
