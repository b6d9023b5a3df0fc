"""All estimators on one log, each with its interval."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from guidelens.evaluation.offpolicy import estimators as of
from guidelens.evaluation.offpolicy.estimators import Terms, choice_terms, plan_terms
from guidelens.evaluation.offpolicy.intervals import Scores, Spread, t_interval
from guidelens.evaluation.offpolicy.logs import LoggedChoices, LoggedPlans
from guidelens.evaluation.offpolicy.tuning import LIMITS, SHRINKAGE, Split, tuned
from guidelens.evaluation.offpolicy.weights import effective_number
from guidelens.schemas.base import Frozen

# Letters: B = logged sessions or choices.

RECOMMENDED = "dros"
"""What decisions go by: weights shrunk as far as the log says it pays, with an interval as wide as not knowing what that leaves out demands. `dr`, unbiased
whatever the model, errs many times more where weights are heavy: there a single purchase outweighs the rest of the log (docs/adr/0176)."""
LOGGING = "logging"
Floats = NDArray[np.float64]


class OffPolicyEstimate(Frozen):
    """One estimator's value per session (or choice), with its 95 % interval, in the reward's unit.

    `ess`: effective number of sessions, of `sessions` logged ones. `setting`: the clip, switch or shrinkage that was chosen on the log;
    null where there is none to choose, or the weights were best left as they are.
    """

    estimator: str
    value: float
    low: float
    high: float
    ess: float
    sessions: int
    setting: float | None = None


class Scored(NamedTuple):
    """One estimator: the scores whose mean it is, and what they leave of the unbiased estimate, None of those that leave nothing."""

    name: str
    scores: Scores
    left: Scores | None = None
    setting: float | None = None

    def spread(self, clusters_B: NDArray[np.generic] | None) -> Spread:
        return self.scores.spread(clusters_B) if self.left is None else Split(self.scores, self.left).spread(clusters_B)


def estimates(log: LoggedPlans | LoggedChoices, *, seed: int) -> list[OffPolicyEstimate]:
    """The log's own mean and every estimator of the target policy, each with its interval (intervals.py); the first alone where no
    logged session does what the target policy would.

    The interval of an estimator that is biased by design (direct, clipped, switched, shrunk) counts what it leaves of the doubly
    robust estimate. `seed` deals the folds of the value model.

    Raises:
        ShapeError: arrays do not agree, or a logged step has no propensity.
    """
    log.check()
    terms = plan_terms(log, seed) if isinstance(log, LoggedPlans) else choice_terms(log, seed)
    return estimates_of(terms, log.clusters)


def estimates_of(terms: Terms, clusters_B: NDArray[np.generic] | None) -> list[OffPolicyEstimate]:
    """`estimates` of terms already made."""
    ess, num = effective_number(terms.weight[:, -1]), len(terms.weight)
    found = []
    for one in _scored(terms, clusters_B):
        interval = t_interval(one.scores.value_B, clusters_B, one.spread(clusters_B))
        found.append(
            OffPolicyEstimate(
                estimator=one.name,
                value=interval.value,
                low=interval.low,
                high=interval.high,
                ess=float(num) if one.name == LOGGING else ess,
                sessions=num,
                setting=one.setting,
            )
        )
    return found


def _scored(terms: Terms, clusters_B: NDArray[np.generic] | None) -> Iterator[Scored]:
    """Per decision and whole are one where there is one step. Where no weight is left at all nothing but the log's own mean is known:
    the others would be 0, or the model's word, with an interval that says nothing of it."""
    weight = terms.weight

    def chosen(name: str, split: Callable[[float], Split], settings: Sequence[float]) -> Scored:
        setting, (kept, left) = tuned(split, settings, clusters_B)
        return Scored(name, kept, left, setting if np.isfinite(setting) else None)

    yield Scored(LOGGING, Scores(terms.total))
    if weight[:, -1].sum() == 0:
        return
    unbiased, nothing = of.split_dr(terms, weight).kept, np.zeros_like(weight)
    yield Scored("ips", Scores(of.trajectory_ips(terms)))
    if weight.shape[1] > 1:
        yield Scored("per_decision_ips", Scores(of.per_decision_ips(terms)))
    clipped = chosen("clipped_ips", lambda limit: of.split_ips(terms, of.clipped(weight, limit)), LIMITS)
    yield clipped._replace(left=Scores(unbiased.value_B - clipped.scores.value_B))
    yield Scored("snips", Scores(of.snips(terms)))
    yield Scored("dm", *of.split_dr(terms, nothing))
    yield Scored("dr", unbiased)
    yield Scored("sndr", Scores(of.self_normalized_dr(terms)))
    yield chosen("switch_dr", lambda limit: of.split_dr(terms, of.switched(weight, limit)), LIMITS)
    yield chosen("dros", lambda strength: of.split_dr(terms, of.shrunk(weight, strength)), SHRINKAGE)
