"""Do predicted numbers mean what they say? Equal-mass bins for probabilities and for T2's regression alike."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from guidelens.errors import ShapeError
from guidelens.schemas.base import Frozen

NUM_BINS = 10


class CalibrationBin(Frozen):
    """One bin: mean prediction, mean of what happened, rows."""

    predicted: float
    observed: float
    n: int


class Calibration(Frozen):
    """ece: expected calibration error, the row-weighted mean over bins of |predicted - observed|, in the target's unit."""

    ece: float
    n: int
    bins: tuple[CalibrationBin, ...]


class Regression(Frozen):
    """T2's quality. `constant_mse`: of predicting the training mean everywhere; `spearman` is None where a side is constant."""

    mse: float
    constant_mse: float
    spearman: float | None
    calibration: Calibration


def calibration(predicted: NDArray[np.floating], observed: NDArray[np.floating] | NDArray[np.bool_], num_bins: int = NUM_BINS) -> Calibration:
    """Bins of (nearly) equal mass by the prediction; equal predictions share a bin, so a constant has one.

    Raises:
        ShapeError: lengths differ or there are no rows.
    """
    if predicted.shape != observed.shape or predicted.ndim != 1 or len(predicted) == 0:
        raise ShapeError(f"predictions and observations must be equally long and not empty, got {predicted.shape} and {observed.shape}")
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, num_bins + 1)[1:-1]))
    bin_of = np.searchsorted(edges, predicted, side="right")
    bins = [_bin(predicted[bin_of == b], observed[bin_of == b]) for b in np.unique(bin_of)]
    return Calibration(ece=_weighted_gap(bins), n=len(predicted), bins=tuple(bins))


def _bin(predicted: NDArray[np.floating], observed: NDArray[np.floating] | NDArray[np.bool_]) -> CalibrationBin:
    return CalibrationBin(predicted=float(predicted.mean()), observed=float(observed.mean()), n=len(predicted))


def _weighted_gap(bins: Sequence[CalibrationBin]) -> float:
    return sum(b.n * abs(b.predicted - b.observed) for b in bins) / sum(b.n for b in bins)


def regression(predicted: NDArray[np.floating], observed: NDArray[np.floating], training_mean: float) -> Regression:
    """T2's metrics over the (request, product) pairs whose interest was observed."""
    from scipy.stats import spearmanr

    varied = len(predicted) > 1 and np.ptp(predicted) > 0 and np.ptp(observed) > 0
    return Regression(
        mse=float(np.mean((predicted - observed) ** 2)),
        constant_mse=float(np.mean((training_mean - observed) ** 2)),
        spearman=float(spearmanr(predicted, observed).statistic) if varied else None,
        calibration=calibration(predicted, observed),
    )
