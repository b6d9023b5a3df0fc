"""Models of the reward to come, for the direct method and the doubly robust family. Cross-fitted: no row is predicted by a model that saw it.

Both are additive ridge regressions, since a model with more freedom than a log's few purchases can fill adds more noise to a doubly
robust estimate than it takes away. Plans: fitted Q evaluation of the target policy (Jiang & Li 2016, arXiv:1511.03722; Le et al., ICML
2019), one regression for all places, swept as often as a plan has places. Choices: action, position and context.
"""

import numpy as np
from numpy.typing import NDArray

from guidelens.evaluation.bootstrap import in_order_of_appearance
from guidelens.evaluation.offpolicy.logs import LoggedChoices, LoggedPlans
from guidelens.schemas.ids import sub_seed
from guidelens.schemas.steps import NUM_STEPS, OUTCOME_INDEX, OUTCOMES

# Letters: B = logged sessions or choices, S = places, A = actions, O = outcomes, F = features, M = rows fitted to, C = clusters.

NUM_FOLDS = 5
RIDGE = 100.0
_FREE = 1e-6
"""Penalty of the constant feature: the mean is not shrunk."""
Floats = NDArray[np.float64]


def plan_values(log: LoggedPlans, seed: int) -> Floats:
    """(B, S, A) value to come of each step under the target policy, at the logged histories; 0 past a plan's end."""
    present_BS = log.steps >= 0
    scale_B = np.ones(len(log.steps)) if log.scale is None else log.scale.astype(np.float64)
    fold_B = _folds(len(log.steps), log.clusters, seed)
    state_BSF, in_cart_BS = _histories(log)
    value_BSA = np.zeros(log.target.shape)
    for fold in range(NUM_FOLDS):
        mine_B = fold_B == fold
        weights_F = _q_evaluation(log, log.reward / scale_B[:, None], state_BSF, in_cart_BS, present_BS & ~mine_B[:, None])
        value_BSA[mine_B] = _step_values(weights_F, state_BSF[mine_B], in_cart_BS[mine_B])
    return value_BSA * scale_B[:, None, None] * present_BS[:, :, None]


def choice_values(log: LoggedChoices, seed: int) -> Floats:
    """(B, A) expected reward of each action at the logged positions and contexts."""
    num_actions, num_positions = log.target.shape[1], int(log.positions.max(initial=0)) + 1
    around = np.concatenate([np.eye(num_positions)[log.positions], log.context], axis=1)
    x_BF = np.concatenate([np.eye(num_actions)[log.actions], around], axis=1)
    fold_B = _folds(len(log.actions), log.clusters, seed)
    value_BA = np.zeros(log.target.shape)
    for fold in range(NUM_FOLDS):
        fitted, mine = fold_B != fold, fold_B == fold
        centre = float(log.reward[fitted].mean()) if fitted.any() else 0.0
        x_MF, left_M = x_BF[fitted], log.reward[fitted] - centre
        weights_F = np.linalg.solve(x_MF.T @ x_MF + RIDGE * np.eye(x_MF.shape[1]), x_MF.T @ left_M)
        value_BA[mine] = centre + weights_F[:num_actions] + (around[mine] @ weights_F[num_actions:])[:, None]
    return value_BA


def _folds(num_rows: int, clusters_B: NDArray[np.generic] | None, seed: int) -> NDArray[np.int64]:
    """(B,) fold of each row; rows of one cluster share it. What clusters are called does not matter, only the order they appear in."""
    number_B = np.arange(num_rows) if clusters_B is None else in_order_of_appearance(clusters_B)
    shuffled_C = np.random.Generator(np.random.Philox(key=sub_seed(seed, "folds"))).permutation(int(number_B.max(initial=-1)) + 1)
    return np.asarray(shuffled_C[number_B] % NUM_FOLDS)


def _q_evaluation(log: LoggedPlans, reward_BS: Floats, state_BSF: Floats, in_cart_BS: Floats, fitted_BS: NDArray[np.bool_]) -> Floats:
    """(F,) weights of state, step and step x in cart, fitted to the steps of fitted_BS. The value to come is that of the sweep before."""
    taken_MA = np.eye(NUM_STEPS)[log.steps[fitted_BS]]
    x_MF = np.concatenate([state_BSF[fitted_BS], taken_MA, taken_MA * in_cart_BS[fitted_BS][:, None]], axis=1)
    penalty_F = np.full(x_MF.shape[1], RIDGE)
    penalty_F[0] = _FREE
    inverse_FF = np.linalg.inv(x_MF.T @ x_MF + np.diag(penalty_F))
    to_come_BS = np.zeros(fitted_BS.shape)
    for _ in range(fitted_BS.shape[1]):
        weights_F = inverse_FF @ (x_MF.T @ (reward_BS + to_come_BS)[fitted_BS])
        value_BS = (log.target * _step_values(weights_F, state_BSF, in_cart_BS)).sum(axis=2)
        to_come_BS[:, :-1] = np.where(fitted_BS[:, 1:], value_BS[:, 1:], 0.0)
    return np.asarray(weights_F)


def _step_values(weights_F: Floats, state_BSF: Floats, in_cart_BS: Floats) -> Floats:
    """(B, S, A)."""
    num = state_BSF.shape[2]
    base_BS, of_step_A, in_cart_A = state_BSF @ weights_F[:num], weights_F[num : num + NUM_STEPS], weights_F[num + NUM_STEPS :]
    return np.asarray(base_BS[:, :, None] + of_step_A + in_cart_BS[:, :, None] * in_cart_A)


def _histories(log: LoggedPlans) -> tuple[Floats, Floats]:
    """(B, S, F) what is known before each step: 1, the place, context, counts of steps and outcomes so far, the last outcome; and
    (B, S) whether the product is in the cart by then."""
    num_sessions, num_places = log.steps.shape
    taken_BSA = (log.steps[:, :, None] == np.arange(NUM_STEPS)).astype(np.float64)
    outcome_BSO = (log.outcomes[:, :, None] == np.arange(len(OUTCOMES))).astype(np.float64)
    steps, outcomes, last = (_before(x) for x in (taken_BSA.cumsum(axis=1), outcome_BSO.cumsum(axis=1), outcome_BSO))
    place = np.broadcast_to(np.eye(num_places), (num_sessions, num_places, num_places))
    context = np.broadcast_to(log.context[:, None], (num_sessions, num_places, log.context.shape[1]))
    state_BSF = np.concatenate([np.ones((num_sessions, num_places, 1)), place, context, steps, outcomes, last], axis=2)
    return state_BSF, (outcomes[:, :, OUTCOME_INDEX["cart"]] > 0).astype(np.float64)


def _before(x_BSF: Floats) -> Floats:
    """What stood one place earlier, 0 at the first."""
    return np.concatenate([np.zeros((len(x_BSF), 1, x_BSF.shape[2])), x_BSF[:, :-1]], axis=1)
