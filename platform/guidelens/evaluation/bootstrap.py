"""Percentile bootstrap over clusters: how sure a mean, or a difference of means on the same rows, is.

Rows of one cluster (a shopper, a session) are drawn together, because they are not independent. Knows nothing of models.
"""

import numpy as np
from numpy.typing import NDArray

from guidelens.errors import ShapeError
from guidelens.schemas.base import Frozen
from guidelens.schemas.ids import sub_seed

LEVEL = 0.95
_MAX_CELLS = 20_000_000


class Interval(Frozen):
    """A mean with its 95 % interval. `n` counts rows, `clusters` what was resampled."""

    value: float
    low: float
    high: float
    n: int
    clusters: int

    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


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
    rows = len(values_R)
    if rows == 0 or (clusters_R is not None and len(clusters_R) != rows) or (weights_R is not None and len(weights_R) != rows):
        raise ShapeError(f"values, clusters and weights must have one length of at least 1, got {rows} values")
    weights = np.ones(rows) if weights_R is None else weights_R.astype(np.float64)
    labels = np.arange(rows) if clusters_R is None else _in_order_of_appearance(clusters_R)
    sums_C = _sums(labels, values_R.astype(np.float64) * weights)
    mass_C = _sums(labels, weights)
    value = float(sums_C.sum() / mass_C.sum())
    means = _resampled(sums_C, mass_C, num_bootstrap, seed)
    low, high = (value, value) if len(means) == 0 else (float(q) for q in np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    return Interval(value=value, low=low, high=high, n=rows, clusters=len(sums_C))


def paired_difference(
    ours_R: NDArray[np.floating], theirs_R: NDArray[np.floating], *, num_bootstrap: int, seed: int, clusters_R: NDArray[np.generic] | None = None
) -> Interval:
    """The mean of ours minus theirs on the same rows, with its interval."""
    if len(ours_R) != len(theirs_R):
        raise ShapeError(f"a paired difference needs the same rows twice, got {len(ours_R)} and {len(theirs_R)}")
    return mean_interval(ours_R - theirs_R, num_bootstrap=num_bootstrap, seed=seed, clusters_R=clusters_R)


def _in_order_of_appearance(clusters_R: NDArray[np.generic]) -> NDArray[np.int64]:
    """(R,) number of each row's cluster. What the clusters are called must not matter: shoppers bear other pseudonyms in every home."""
    _, first_C, label_R = np.unique(clusters_R, return_index=True, return_inverse=True)
    rank_C = np.empty(len(first_C), dtype=np.int64)
    rank_C[np.argsort(first_C)] = np.arange(len(first_C))
    numbers: NDArray[np.int64] = rank_C[label_R]
    return numbers


def _sums(labels_R: NDArray[np.integer], values_R: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.bincount(labels_R, weights=values_R), dtype=np.float64)


def _resampled(sums_C: NDArray[np.floating], mass_C: NDArray[np.floating], num_bootstrap: int, seed: int) -> NDArray[np.floating]:
    """(num_bootstrap,) ratio of sums over clusters drawn with replacement; draws without any mass are left out."""
    rng = np.random.Generator(np.random.Philox(key=sub_seed(seed, "bootstrap")))
    num_clusters = len(sums_C)
    parts = []
    step = max(1, _MAX_CELLS // num_clusters)
    for start in range(0, num_bootstrap, step):
        drawn = rng.integers(0, num_clusters, size=(min(step, num_bootstrap - start), num_clusters))
        mass = mass_C[drawn].sum(axis=1)
        parts.append(sums_C[drawn].sum(axis=1)[mass > 0] / mass[mass > 0])
    return np.concatenate(parts) if parts else np.empty(0)
