"""What predicted click and purchase chances of shown products are worth as forecasts and as yes or no. docs/evaluation.md has the formulae.

One row is one impression: a product shown at a place of a slate. Intervals are over shoppers. Knows nothing of models.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from guidelens.evaluation.bootstrap import Draws, Interval
from guidelens.evaluation.calibration import Calibration, calibration
from guidelens.evaluation.ranking import auc
from guidelens.schemas.base import Frozen

# Letters: M = impressions.

_SMALLEST = 1e-7
_GAINS_AT = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Impressions(NamedTuple):
    """(M,) each. click, purchase: whether it came to it; p_click, p_purchase: predicted before; shopper: number of whose it was."""

    click: Flags
    purchase: Flags
    p_click: Floats
    p_purchase: Floats
    shopper: NDArray[np.integer]


class Gain(Frozen):
    """Of all clicks, `captured` lie in the `shown` share of impressions with the highest predicted chances."""

    shown: float
    captured: float


class Decision(Frozen):
    """Clicks called by a threshold on the predicted chance, the one with the best F1 on the validation part."""

    threshold: float
    accuracy: Interval
    precision: Interval | None
    recall: Interval
    f1: Interval
    accuracy_of_never: float
    """Of calling no click at all: what accuracy has to be held against where clicks are rare."""


class Forecast(Frozen):
    """Clicks and purchases on the slates shown, predicted beside observed.

    ctr: clicks an impression; cvr: purchases a click; *_predicted: what the mean predicted chances say. log_loss in nats an
    impression; constant_log_loss: of the training part's rate everywhere. gauc_by_shopper: AUC within a shopper's impressions, weighted
    by their number. Null where there is nothing to tell from.
    """

    impressions: int
    ctr: Interval
    ctr_predicted: float
    cvr: float | None
    cvr_predicted: float | None
    log_loss: Interval
    constant_log_loss: float
    purchase_log_loss: Interval
    gauc_by_shopper: Interval | None
    decision: Decision | None
    purchase_calibration: Calibration
    gains: tuple[Gain, ...] = ()


def forecast(test: Impressions, val: Impressions, training_ctr: float, draws: Draws) -> Forecast | None:
    """None where nothing was shown. `training_ctr`: clicks an impression in the training part."""
    if len(test.click) == 0:
        return None
    losses, clicks = log_losses(test.p_click, test.click), int(test.click.sum())
    return Forecast(
        impressions=len(test.click),
        ctr=draws.over(test.click.astype(np.float64), test.shopper),
        ctr_predicted=float(test.p_click.mean()),
        cvr=float(test.purchase.sum()) / clicks if clicks else None,
        cvr_predicted=float(test.p_purchase.sum() / test.p_click.sum()) if test.p_click.sum() > 0 else None,
        log_loss=draws.over(losses, test.shopper),
        constant_log_loss=float(log_losses(np.full(len(test.click), training_ctr), test.click).mean()),
        purchase_log_loss=draws.over(log_losses(test.p_purchase, test.purchase), test.shopper),
        gauc_by_shopper=_by_shopper(test, draws),
        decision=_decision(test, val, draws),
        purchase_calibration=calibration(test.p_purchase, test.purchase),
        gains=gains(test.p_click, test.click),
    )


def log_losses(p_M: Floats, label_M: Flags) -> Floats:
    """(M,) -log of the chance given to what happened; chances kept off 0 and 1 by 1e-7."""
    safe = p_M.clip(_SMALLEST, 1 - _SMALLEST)
    return np.asarray(-np.where(label_M, np.log(safe), np.log1p(-safe)))


def best_threshold(p_M: Floats, label_M: Flags) -> float | None:
    """The chance from which on a click is called so that F1 is highest; None without a click."""
    if not label_M.any():
        return None
    order = np.argsort(-p_M, kind="stable")
    hits = np.cumsum(label_M[order])
    f1 = 2 * hits / (np.arange(1, len(p_M) + 1) + label_M.sum())
    last_of_ties = np.append(p_M[order][1:] < p_M[order][:-1], True)
    return float(p_M[order][np.where(last_of_ties, f1, -1.0).argmax()])


def gains(p_M: Floats, label_M: Flags) -> tuple[Gain, ...]:
    """The cumulative gain (lift) curve; ties share their clicks evenly. Empty without a click."""
    if not label_M.any():
        return ()
    chances, place_M = np.unique(-p_M, return_inverse=True)
    counts, hits = np.bincount(place_M, minlength=len(chances)), np.bincount(place_M, weights=label_M, minlength=len(chances))
    shown, captured = (np.concatenate([[0.0], np.cumsum(column)]) / column.sum() for column in (counts, hits))
    return tuple(Gain(shown=at, captured=float(np.interp(at, shown, captured))) for at in _GAINS_AT)


def _decision(test: Impressions, val: Impressions, draws: Draws) -> Decision | None:
    threshold = best_threshold(val.p_click, val.click)
    if threshold is None or not test.click.any():
        return None
    called, truth = test.p_click >= threshold, test.click
    hit, either = (called & truth).astype(np.float64), called.astype(np.float64) + truth
    return Decision(
        threshold=threshold,
        accuracy=draws.over((called == truth).astype(np.float64), test.shopper),
        precision=draws.over(hit, test.shopper, called.astype(np.float64)) if called.any() else None,
        recall=draws.over(hit, test.shopper, truth.astype(np.float64)),
        f1=draws.over(np.divide(2 * hit, either, out=np.zeros_like(hit), where=either > 0), test.shopper, either),
        accuracy_of_never=1 - float(truth.mean()),
    )


def _by_shopper(test: Impressions, draws: Draws) -> Interval | None:
    """AUC of each shopper that has both clicks and others, weighted by impressions (Zhu et al., KDD 2018, equation 7)."""
    order = np.argsort(test.shopper, kind="stable")
    starts = np.unique(test.shopper[order], return_index=True)[1]
    found = [(auc(test.p_click[rows], test.click[rows]), len(rows)) for rows in np.split(order, starts[1:])]
    known = [(value, num) for value, num in found if value is not None]
    if not known:
        return None
    values, nums = np.array(known).T
    return draws.over(values, np.arange(len(values)), nums)
