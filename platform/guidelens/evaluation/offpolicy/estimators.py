"""The estimators, as a score a session whose mean is the estimate; what a choice of one step needs is the same with one place.

Weights of a history are products of ratios (IPS of trajectories); the doubly robust ones add, to a model's value, what the log
shows beyond it. Shrunk weights trade bias for variance; tuning.py chooses by how much.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from guidelens.evaluation.offpolicy.intervals import Scores
from guidelens.evaluation.offpolicy.logs import LoggedChoices, LoggedPlans
from guidelens.evaluation.offpolicy.tuning import Split
from guidelens.evaluation.offpolicy.value_models import choice_values, plan_values
from guidelens.evaluation.offpolicy.weights import choice_weights, plan_weights

# Letters: B = logged sessions or choices, S = places (1 for choices), A = actions.

Floats = NDArray[np.float64]


class Terms(NamedTuple):
    """What every estimator is made of, (B, S) each, 0 past a plan's end except for `weight`, which stays.

    weight: of the history with the step. reward: after the step. expected, predicted, noise: of the models (Values in value_models.py),
    which never saw the row.
    """

    weight: Floats
    reward: Floats
    expected: Floats
    predicted: Floats
    noise: Floats

    @property
    def total(self) -> Floats:
        """(B,) what a session earned."""
        return np.asarray(self.reward.sum(axis=1))


def plan_terms(log: LoggedPlans, seed: int) -> Terms:
    return Terms(plan_weights(log), np.where(log.steps >= 0, log.reward, 0.0).astype(np.float64), *plan_values(log, seed))


def choice_terms(log: LoggedChoices, seed: int) -> Terms:
    return Terms(choice_weights(log), log.reward.astype(np.float64)[:, None], *choice_values(log, seed))


def trajectory_ips(terms: Terms) -> Floats:
    """(B,) weight of the whole session x what it earned (Horvitz & Thompson)."""
    return np.asarray(terms.weight[:, -1] * terms.total)


def per_decision_ips(terms: Terms, weight_BS: Floats | None = None) -> Floats:
    """(B,) each reward weighed by the steps that led to it only (Precup et al., ICML 2000)."""
    return np.asarray(((terms.weight if weight_BS is None else weight_BS) * terms.reward).sum(axis=1))


def snips(terms: Terms) -> Floats:
    """(B,) scores of the self-normalized estimator sum w G / sum w (Swaminathan & Joachims, NeurIPS 2015), linearized around it."""
    last_B = terms.weight[:, -1]
    return _ratio(last_B * terms.total, last_B)


def doubly_robust(terms: Terms, weight_BS: Floats | None = None) -> Floats:
    """(B,) sum over places of w_before x expected + w x (reward - predicted) (Dudik et al. 2011; Jiang & Li 2016); any weights."""
    weight = terms.weight if weight_BS is None else weight_BS
    return np.asarray((_before(weight) * terms.expected + weight * (terms.reward - terms.predicted)).sum(axis=1))


def split_dr(terms: Terms, weight_BS: Floats) -> Split:
    """Doubly robust with other weights, and what that leaves of it; with none at all the direct method: the model's value of the first step.

    A score is that value and, of each step, its weight times what followed beyond the model's word: a martingale, so variances add up
    (Jiang & Li 2016, theorem 1).
    """
    kept_B, first_B = doubly_robust(terms, weight_BS), terms.expected[:, 0]
    noise_B = (first_B - first_B.mean()) ** 2 + (weight_BS**2 * terms.noise).sum(axis=1)
    return Split(Scores(kept_B, noise_B), Scores(doubly_robust(terms) - kept_B, ((terms.weight - weight_BS) ** 2 * terms.noise).sum(axis=1)))


def split_ips(terms: Terms, weight_BS: Floats) -> Split:
    """Per-decision IPS with other weights, and what that leaves of it."""
    kept_B = per_decision_ips(terms, weight_BS)
    return Split(Scores(kept_B), Scores(per_decision_ips(terms) - kept_B))


def self_normalized_dr(terms: Terms) -> Floats:
    """(B,) scores of weighted doubly robust: weights of each place divided by their mean (Thomas & Brunskill, ICML 2016), linearized."""
    before_BS = _before(terms.weight)
    scores = np.zeros(len(terms.weight))
    for place in range(terms.weight.shape[1]):
        scores += _ratio(before_BS[:, place] * terms.expected[:, place], before_BS[:, place])
        weight_B = terms.weight[:, place]
        scores += _ratio(weight_B * (terms.reward[:, place] - terms.predicted[:, place]), weight_B)
    return scores


def switched(weight_BS: Floats, limit: float) -> Floats:
    """Weights that are 0 from the first one above `limit` on: there the model alone is believed (Wang et al., ICML 2017)."""
    return np.asarray(np.where(np.maximum.accumulate(weight_BS, axis=1) <= limit, weight_BS, 0.0))


def clipped(weight_BS: Floats, limit: float) -> Floats:
    return np.minimum(weight_BS, limit)


def shrunk(weight_BS: Floats, strength: float) -> Floats:
    """Optimistic shrinkage, lambda w / (w^2 + lambda) (Su et al., ICML 2020); infinite lambda leaves the weights."""
    if np.isinf(strength):
        return weight_BS
    if strength == 0:
        return np.zeros_like(weight_BS)
    return np.asarray(strength * weight_BS / (weight_BS**2 + strength))


def _before(weight_BS: Floats) -> Floats:
    return np.concatenate([np.ones((len(weight_BS), 1)), weight_BS[:, :-1]], axis=1)


def _ratio(numerator_B: Floats, denominator_B: Floats) -> Floats:
    """(B,) scores of mean(numerator) / mean(denominator): they have this mean, and its first-order variance (delta method). 0 without weight."""
    mass = float(denominator_B.mean())
    if mass <= 0:
        return np.zeros(len(numerator_B))
    value = float(numerator_B.mean()) / mass
    return value + (numerator_B - value * denominator_B) / mass
