"""Models of the reward to come, for the direct method and the doubly robust family. Cross-fitted: no row is predicted by a model that saw it.

All are additive ridge regressions, since a model with more freedom than a log's few purchases can fill adds more noise to a doubly
robust estimate than it takes away. Plans: fitted Q evaluation of the target policy (Jiang & Li 2016, arXiv:1511.03722; Le et al., ICML
2019), one regression for all places, swept as often as a plan has places. Choices: action, position and context. One more regression, of
squared errors on the same features, says how much what follows a step varies (Fan & Yao, Biometrika 1998).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from guidelens.evaluation.bootstrap import in_order_of_appearance
from guidelens.evaluation.offpolicy.logs import LoggedChoices, LoggedPlans
from guidelens.schemas.ids import sub_seed
from guidelens.schemas.steps import NUM_STEPS, OUTCOME_INDEX, OUTCOMES

# Letters: B = logged sessions or choices, S = places (1 for choices), A = actions, O = outcomes, F = features, C = clusters.

NUM_FOLDS = 5
RIDGE = 100.0
_FREE = 1e-6
"""Penalty of the constant feature: the mean is not shrunk."""
Floats = NDArray[np.float64]


class Values(NamedTuple):
    """(B, S) each, 0 past a plan's end.

    expected: the value to come under the target policy, before a step is taken. predicted: of the step that was. noise: expected square
    of what the step's reward and the value after it have beyond `predicted`.
    """

    expected: Floats
    predicted: Floats
    noise: Floats


class Design(NamedTuple):
    """(B, S, F) features of the steps that were taken, and their mean under the target policy; 0 past a plan's end. The first is a constant."""

    taken: Floats
    target: Floats


class Sums(NamedTuple):
    """What regressions on some rows need of them. squares (F, F): of x'x; onward (F, F): of x' (the next step's mean features); reward (F,): of x'r."""

    squares: Floats
    onward: Floats
    reward: Floats

    @classmethod
    def of(cls, design: Design, reward_BS: Floats) -> "Sums":
        x_MF = _flat(design.taken)
        return cls(x_MF.T @ x_MF, _flat(design.taken[:, :-1]).T @ _flat(design.target[:, 1:]), x_MF.T @ reward_BS.ravel())

    def without(self, part: "Sums") -> "Sums":
        return Sums(*(whole - one for whole, one in zip(self, part, strict=True)))

    def solve(self, to_F: Floats) -> Floats:
        penalty_F = np.full(len(to_F), RIDGE)
        penalty_F[0] = _FREE
        return np.asarray(np.linalg.solve(self.squares + np.diag(penalty_F), to_F))


def plan_values(log: LoggedPlans, seed: int) -> Values:
    present_BS = log.steps >= 0
    scale_B1 = np.ones((len(log.steps), 1)) if log.scale is None else log.scale.astype(np.float64)[:, None]
    found = _fitted(_plan_design(log), np.where(present_BS, log.reward, 0.0) / scale_B1, _folds(len(log.steps), log.clusters, seed))
    return Values(found.expected * scale_B1, found.predicted * scale_B1, found.noise * present_BS * scale_B1**2)


def choice_values(log: LoggedChoices, seed: int) -> Values:
    """Of the logged positions and contexts; a plan of one place."""
    at_BP = np.eye(int(log.positions.max(initial=0)) + 1)[log.positions]
    state_BSF = np.concatenate([np.ones((len(log.actions), 1)), at_BP, log.context], axis=1)[:, None]
    design = Design(*(_features(state_BSF, action_BA[:, None]) for action_BA in (np.eye(log.target.shape[1])[log.actions], log.target)))
    return _fitted(design, log.reward.astype(np.float64)[:, None], _folds(len(log.actions), log.clusters, seed))


def _fitted(design: Design, reward_BS: Floats, fold_B: NDArray[np.int64]) -> Values:
    """Each fold's values by regressions on the others. The value to come is that of the sweep before, so a sweep needs sums alone."""
    folds = [fold_B == fold for fold in range(NUM_FOLDS)]
    parts = [Sums.of(Design(design.taken[mine], design.target[mine]), reward_BS[mine]) for mine in folds]
    whole = Sums(*(np.sum(sums, axis=0) for sums in zip(*parts, strict=True)))
    found = Values(*(np.zeros(reward_BS.shape) for _ in Values._fields))
    to_come_BS = np.zeros(reward_BS.shape)
    for mine, part in zip(folds, parts, strict=True):
        others, weights_F = whole.without(part), np.zeros(len(whole.reward))
        for _ in range(reward_BS.shape[1]):
            weights_F = others.solve(others.reward + others.onward @ weights_F)
        found.expected[mine], found.predicted[mine] = design.target[mine] @ weights_F, design.taken[mine] @ weights_F
        to_come_BS[mine, :-1] = found.expected[mine, 1:]
    error_BS = (reward_BS + to_come_BS - found.predicted) ** 2
    squared = [_flat(design.taken[mine]).T @ error_BS[mine].ravel() for mine in folds]
    for mine, part, own_F in zip(folds, parts, squared, strict=True):
        weights_F = whole.without(part).solve(np.sum(squared, axis=0) - own_F)
        found.noise[mine] = np.maximum(design.taken[mine] @ weights_F, 0.0)
    return found


def _folds(num_rows: int, clusters_B: NDArray[np.generic] | None, seed: int) -> NDArray[np.int64]:
    """(B,) fold of each row; rows of one cluster share it. What clusters are called does not matter, only the order they appear in."""
    number_B = np.arange(num_rows) if clusters_B is None else in_order_of_appearance(clusters_B)
    shuffled_C = np.random.Generator(np.random.Philox(key=sub_seed(seed, "folds"))).permutation(int(number_B.max(initial=-1)) + 1)
    return np.asarray(shuffled_C[number_B] % NUM_FOLDS)


def _plan_design(log: LoggedPlans) -> Design:
    """State, step and step x in cart. State is what is known before each step: 1, the place, context, counts of steps and outcomes so far, the
    last outcome."""
    num_sessions, num_places = log.steps.shape
    taken_BSA = (log.steps[:, :, None] == np.arange(NUM_STEPS)).astype(np.float64)
    outcome_BSO = (log.outcomes[:, :, None] == np.arange(len(OUTCOMES))).astype(np.float64)
    steps, outcomes, last = (_before(x) for x in (taken_BSA.cumsum(axis=1), outcome_BSO.cumsum(axis=1), outcome_BSO))
    place = np.broadcast_to(np.eye(num_places), (num_sessions, num_places, num_places))
    context = np.broadcast_to(log.context[:, None], (num_sessions, num_places, log.context.shape[1]))
    state_BSF = np.concatenate([np.ones((num_sessions, num_places, 1)), place, context, steps, outcomes, last], axis=2)
    in_cart_BS1, present_BS1 = outcomes[:, :, [OUTCOME_INDEX["cart"]]] > 0, log.steps[:, :, None] >= 0
    return Design(*(_features(state_BSF, step_BSA, step_BSA * in_cart_BS1) for step_BSA in (taken_BSA, log.target * present_BS1)))


def _features(state_BSF: Floats, chance_BSA: NDArray[np.floating], *more: NDArray[np.floating]) -> Floats:
    """State counts as often as anything is done in it."""
    return np.concatenate([state_BSF * chance_BSA.sum(axis=2, keepdims=True), chance_BSA, *more], axis=2)


def _before(x_BSF: Floats) -> Floats:
    """What stood one place earlier, 0 at the first."""
    return np.concatenate([np.zeros((len(x_BSF), 1, x_BSF.shape[2])), x_BSF[:, :-1]], axis=1)


def _flat(x_BSF: Floats) -> Floats:
    return x_BSF.reshape(-1, x_BSF.shape[2])
