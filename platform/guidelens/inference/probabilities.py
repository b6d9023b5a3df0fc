"""From what a head says to a chance one may count on: a map fitted on validation rows, kept in the model's header.

A monotone map, so that it changes what a number means and not the order of products.
"""

# Letters: M = impressions, F = folds, J = knots.

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from guidelens.errors import ShapeError
from guidelens.evaluation.calibration import calibration
from guidelens.schemas.base import Frozen

Floats = NDArray[np.float64]
Method = Literal["none", "platt", "isotonic"]
MIN_POSITIVES = 20
"""With fewer clicks, or purchases, in the validation rows than this, a map would be fitted to chance."""
NUM_FOLDS = 5
_EDGE = 1e-7
_MIN_SLOPE = 1e-3


class ProbabilityMap(Frozen):
    """`platt`: a logistic of intercept + slope x logit. `isotonic`: linear between knots, logit to probability, flat beyond them.

    ece_before, ece_after: expected calibration errors on the validation rows, each row's map fitted without its shopper; None where
    there was too little to fit one on.
    """

    method: Method = "none"
    slope: float = 1.0
    intercept: float = 0.0
    logits: tuple[float, ...] = ()
    chances: tuple[float, ...] = ()
    ece_before: float | None = None
    ece_after: float | None = None

    def __call__(self, chances: NDArray[np.floating]) -> Floats:
        """Calibrated probabilities of any shape; NaN stays NaN."""
        given = np.asarray(chances, dtype=np.float64)
        if self.method == "none":
            return given
        logits = logit(given)
        if self.method == "platt":
            return logistic(self.intercept + self.slope * logits)
        return np.where(np.isnan(given), np.nan, np.interp(logits, self.logits, self.chances))


class Probabilities(Frozen):
    """The maps of a model's two chances, both of all that is shown."""

    click: ProbabilityMap = ProbabilityMap()
    purchase: ProbabilityMap = ProbabilityMap()

    def of(self, click: NDArray[np.floating], purchase: NDArray[np.floating]) -> tuple[Floats, Floats]:
        """Calibrated chances; none buys what they did not click."""
        clicks = self.click(click)
        return clicks, np.minimum(self.purchase(purchase), clicks)

    def metrics(self) -> dict[str, float]:
        """Calibration errors on validation as metrics of the run."""
        named = {
            f"calibration/{name}_ece_{when}": getattr(one, f"ece_{when}")
            for name, one in (("click", self.click), ("purchase", self.purchase))
            for when in ("before", "after")
        }
        return {name: value for name, value in named.items() if value is not None}


def logit(chances: Floats) -> Floats:
    clipped = np.clip(chances, _EDGE, 1 - _EDGE)
    found: Floats = np.log(clipped / (1 - clipped))
    return found


def logistic(logits: Floats) -> Floats:
    chances: Floats = 0.5 * (1 + np.tanh(0.5 * logits))
    return chances


def fit_platt(chances_M: Floats, happened_M: NDArray[np.bool_]) -> ProbabilityMap:
    """Logistic regression on the logit, with Platt's softened targets (1999); the slope stays above 0."""
    from scipy.optimize import minimize

    x, positives = logit(chances_M), int(happened_M.sum())
    target = np.where(happened_M, (positives + 1) / (positives + 2), 1 / (len(x) - positives + 2))
    design = np.stack([np.ones_like(x), x], axis=1)

    def loss(weights: Floats) -> tuple[float, Floats]:
        logits = design @ weights
        return float(np.mean(np.logaddexp(0, logits) - target * logits)), design.T @ (logistic(logits) - target) / len(x)

    intercept, slope = minimize(loss, np.array([0.0, 1.0]), jac=True, method="L-BFGS-B", bounds=[(None, None), (_MIN_SLOPE, None)]).x
    return ProbabilityMap(method="platt", intercept=float(intercept), slope=float(slope))


def fit_isotonic(chances_M: Floats, happened_M: NDArray[np.bool_]) -> ProbabilityMap:
    """Isotonic regression whose steps are joined at their centres, so that what differed still differs; ends hold half a count more."""
    from sklearn.isotonic import IsotonicRegression

    x = logit(chances_M)
    level_M = IsotonicRegression().fit_transform(x, happened_M.astype(np.float64))
    _, block_M = np.unique(level_M, return_inverse=True)
    count_J, got_J = np.bincount(block_M), np.bincount(block_M, weights=happened_M)
    center_J = np.bincount(block_M, weights=x) / count_J
    chance_J = np.maximum.accumulate((got_J + 0.5) / (count_J + 1.0))
    return ProbabilityMap(method="isotonic", logits=tuple(center_J.tolist()), chances=tuple(np.clip(chance_J, _EDGE, 1 - _EDGE).tolist()))


def log_losses(chances_M: Floats, happened_M: NDArray[np.bool_]) -> Floats:
    """(M,) negative log-likelihoods, nats."""
    clipped = np.clip(chances_M, _EDGE, 1 - _EDGE)
    losses: Floats = -np.log(np.where(happened_M, clipped, 1 - clipped))
    return losses


_FITS: dict[Method, Callable[[Floats, NDArray[np.bool_]], ProbabilityMap]] = {
    "none": lambda _chances, _happened: ProbabilityMap(),
    "platt": fit_platt,
    "isotonic": fit_isotonic,
}


def choose_map(chances_M: NDArray[np.floating], happened_M: NDArray[np.bool_], shoppers_M: NDArray[np.generic]) -> ProbabilityMap:
    """The map whose folds' held-out shoppers are likeliest under it, fitted again on all rows.

    None where that gains less than its own standard error: a head that is calibrated already is left alone.

    Raises:
        ShapeError: lengths differ.
    """
    if not len(chances_M) == len(happened_M) == len(shoppers_M):
        raise ShapeError(f"chances, outcomes and shoppers must have one length, got {len(chances_M)}, {len(happened_M)} and {len(shoppers_M)}")
    given = chances_M.astype(np.float64)
    if min(int(happened_M.sum()), int((~happened_M).sum())) < MIN_POSITIVES:
        return ProbabilityMap()
    held_out = {name: _held_out(name, given, happened_M, shoppers_M) for name in _FITS}
    gains = {name: log_losses(given, happened_M) - log_losses(values, happened_M) for name, values in held_out.items()}
    best = max(gains, key=lambda name: float(gains[name].mean()))
    if gains[best].mean() <= gains[best].std() / len(given) ** 0.5:
        best = "none"
    before, after = (calibration(values, happened_M).ece for values in (given, held_out[best]))
    return _FITS[best](given, happened_M).model_copy(update={"ece_before": before, "ece_after": after})


def _held_out(name: Method, chances_M: Floats, happened_M: NDArray[np.bool_], shoppers_M: NDArray[np.generic]) -> Floats:
    """(M,) each row's chance by the map of the folds that do not hold its shopper."""
    fold_M = np.unique(shoppers_M.astype(str), return_inverse=True)[1] % NUM_FOLDS
    out_M = np.empty_like(chances_M)
    for fold in range(NUM_FOLDS):
        mine_M = fold_M == fold
        out_M[mine_M] = _FITS[name](chances_M[~mine_M], happened_M[~mine_M])(chances_M[mine_M])
    return out_M
