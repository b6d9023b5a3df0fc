"""How well ratings and likes were foretold, and how sure that, or a difference of models, is: shoppers are drawn anew, metrics computed anew.

A metric here is a function of the rows' weights, so that a root of a mean and an AUC, which are no means over rows, can be resampled.
"""

# Letters: R = rated pairs, L = levels of a score, C = shoppers.

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from guidelens.errors import ShapeError
from guidelens.evaluation.bootstrap import LEVEL, Interval
from guidelens.schemas.ids import sub_seed

Metric = Callable[[NDArray[np.float64]], float]
"""Of (R,) non-negative weights."""


def rmse(predicted_R: NDArray[np.floating], rating_R: NDArray[np.floating]) -> Metric:
    """Root of the weighted mean squared error."""
    squares_R = np.square(predicted_R.astype(np.float64) - rating_R)
    return lambda weight_R: float(np.sqrt(weight_R @ squares_R / weight_R.sum()))


def like_auc(scores_R: NDArray[np.floating], liked_R: NDArray[np.bool_]) -> Metric:
    """Area under the ROC curve, equal scores at one half.

    Raises:
        ShapeError: one of the classes is missing.
    """
    if not liked_R.any() or liked_R.all():
        raise ShapeError(f"an AUC needs rows of both classes, got {int(liked_R.sum())} likes among {len(liked_R)} rows")
    levels, level_R = np.unique(scores_R, return_inverse=True)

    def metric(weight_R: NDArray[np.float64]) -> float:
        likes_L = np.bincount(level_R, weight_R * liked_R, len(levels))
        others_L = np.bincount(level_R, weight_R * ~liked_R, len(levels))
        below_L = np.cumsum(others_L) - others_L / 2
        return float(likes_L @ below_L / (likes_L.sum() * others_L.sum()))

    return metric


def mean_of(metrics: Sequence[Metric]) -> Metric:
    """The mean over seeds: one model a seed, judged on the same drawn rows."""
    return lambda weight_R: float(np.mean([metric(weight_R) for metric in metrics]))


def within(metric: Metric, rows: slice) -> Metric:
    """The metric of a part of the rows."""
    return lambda weight_R: metric(weight_R[rows])


def difference(first: Metric, second: Metric) -> Metric:
    """first - second on the same drawn rows, which is what makes it paired."""
    return lambda weight_R: first(weight_R) - second(weight_R)


def interval(metric: Metric, shopper_R: NDArray[np.integer], *, num_bootstrap: int, seed: int) -> Interval:
    """The metric with its 95 % percentile interval over shoppers, whose rows are drawn together.

    It says how another draw of shoppers would change the figure of these fitted models; not how another seed would.
    """
    shoppers, label_R = np.unique(shopper_R, return_inverse=True)
    value = metric(np.ones(len(shopper_R)))
    rng = np.random.Generator(np.random.Philox(key=sub_seed(seed, "bootstrap")))
    values = []
    for _ in range(num_bootstrap):
        times_C = np.bincount(rng.integers(0, len(shoppers), len(shoppers)), minlength=len(shoppers)).astype(np.float64)
        values.append(metric(times_C[label_R]))
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if values else (value, value)
    return Interval(value=value, low=float(low), high=float(high), n=len(shopper_R), clusters=len(shoppers))
