"""What the strategist is taught: target weights of each next step, from the outcomes of logged steps.

The log was written by a script with noise; imitating it would give the script again. Here the value of every allowed step
is estimated from the log alone, by fitted Q iteration over what a guide can see (the plan so far, its outcomes, AR view
times and gestures, product, device, shopper), with the shop's own account of margin and costs (config: PlanCosts). Rewards
are expected ones, from predicted chances of a purchase and of a walk-out, so that few purchases do not decide by luck. The
decoder then learns, by sequence cross-entropy, the policy that prefers steps of high value.
"""

# Letters: R = rows, S = MAX_STEPS, A = NUM_STEPS, M = logged steps, F = state features.

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from guidelens.config import Config, PlanCosts
from guidelens.data.examples import Examples
from guidelens.models.inputs import context_inputs, plan_inputs
from guidelens.models.items import CATEGORICAL, Catalogue
from guidelens.models.strategist import allowed_at_each, plan_state
from guidelens.schemas.ids import sub_seed
from guidelens.schemas.steps import MAX_STEPS, NUM_STEPS, OUTCOME_INDEX, STEP_INDEX

Floats = NDArray[np.float64]
_KEPT, _RETURNED, _LEFT, _ON = range(4)


@dataclass(frozen=True)
class LoggedSteps:
    """The steps of plans one after another. state (M, F); after (M,): place of the next step of the same plan, -1 for none.

    coupons: shown before this step. ended: a purchase, a walk-out or a hand-over; `allowed` (M, A) before the step.
    """

    state_MF: Floats
    action_M: NDArray[np.int64]
    result_M: NDArray[np.int64]
    ended_M: NDArray[np.bool_]
    after_M: NDArray[np.int64]
    coupons_M: NDArray[np.int64]
    index_M: NDArray[np.int64]
    allowed_MA: NDArray[np.bool_]
    row_M: NDArray[np.int64]


def logged_steps(examples: Examples, catalogue: Catalogue, num_profile_buckets: int) -> LoggedSteps:
    """Every logged step of every row, with what could be seen before it."""
    plans = plan_inputs(examples, catalogue)
    dynamic_RSF = plan_state(plans).numpy()
    fixed_RF = _fixed(examples, catalogue, num_profile_buckets)
    there_RS = examples.steps >= 0
    row_M, index_M = np.nonzero(there_RS)
    place_RS = np.full(there_RS.shape, -1, dtype=np.int64)
    place_RS[row_M, index_M] = np.arange(len(row_M))
    action_M = examples.steps[row_M, index_M].astype(np.int64)
    outcome_M = examples.outcomes[row_M, index_M]
    bought, left = outcome_M == OUTCOME_INDEX["purchase"], outcome_M == OUTCOME_INDEX["left"]
    kept = examples.kept[row_M]
    coupon_RS = examples.steps == STEP_INDEX["offer_coupon"]
    return LoggedSteps(
        state_MF=np.concatenate([dynamic_RSF[row_M, index_M], fixed_RF[row_M]], axis=1).astype(np.float64),
        action_M=action_M,
        result_M=np.where(bought, np.where(kept, _KEPT, _RETURNED), np.where(left, _LEFT, _ON)),
        ended_M=bought | left | (action_M == STEP_INDEX["hand_to_human"]),
        after_M=np.concatenate([place_RS, np.full((len(place_RS), 1), -1)], axis=1)[row_M, index_M + 1],
        coupons_M=(np.cumsum(coupon_RS, axis=1) - coupon_RS)[row_M, index_M],
        index_M=index_M,
        allowed_MA=allowed_at_each(plans).numpy()[row_M, index_M],
        row_M=row_M,
    )


def _fixed(examples: Examples, catalogue: Catalogue, num_profile_buckets: int) -> Floats:
    """(R, F) what does not change within a session: product, device, and sums of the shopper's past."""
    context = context_inputs(examples, catalogue, num_profile_buckets)
    row = np.maximum(examples.plan_row, 0)
    kinds = sorted(set(catalogue.try_on))
    kind = np.array([[catalogue.try_on[i] == name for name in kinds] for i in row], dtype=np.float64)
    top = catalogue.fields_NC[:, CATEGORICAL.index("category_0")]
    category = (top[row][:, None] == np.unique(top)[:32]).astype(np.float64)
    price = np.log10(1 + np.nan_to_num(catalogue.price_N))[row][:, None]
    return np.concatenate(
        [kind, catalogue.has_3d_N[row][:, None], category, price, context.moment_RF.numpy(), context.profile_RF.numpy(), context.profile_ids_RP.numpy() % 16],
        axis=1,
    )


SWEEPS = 3
"""Rounds of fitted Q iteration: how many steps ahead a value looks beyond the step itself."""
MIN_PURCHASES = 20
TEMPERATURE = 0.005
"""Of the target policy's softmax over step values, in shares of a margin."""
_TREES = {"max_iter": 60, "learning_rate": 0.08, "min_samples_leaf": 100, "max_leaf_nodes": 15, "l2_regularization": 5.0, "early_stopping": False}


def step_values(steps: LoggedSteps, is_train_M: NDArray[np.bool_], costs: PlanCosts, seed: int) -> Floats:
    """(M, A) value of each allowed step in each state, in shares of the margin, -inf where not allowed.

    Q(s, a) = expected reward of a + chance that the session goes on x value of what follows, where the value of a state is
    that of its best allowed step (Ernst et al., JMLR 2005). Chances come from one classifier of a step's result, what
    follows from a regression on the next states' values; both see the step as a categorical feature.

    Args:
        is_train_M: the steps that the estimates are fitted to; the others only get values.
    """
    trees = {**_TREES, "categorical_features": [steps.state_MF.shape[1]], "random_state": seed % 2**31}
    taken = np.concatenate([steps.state_MF, steps.action_M[:, None]], axis=1)
    result = HistGradientBoostingClassifier(**trees).fit(taken[is_train_M], steps.result_M[is_train_M])
    reward_MA, goes_on_MA = _rewards(steps, _of_allowed(result.predict_proba, steps), result.classes_, costs)
    q_MA = np.where(steps.allowed_MA, reward_MA, -np.inf)
    learned_M = np.flatnonzero(is_train_M & (steps.after_M >= 0) & ~steps.ended_M)
    for _ in range(SWEEPS if len(learned_M) else 0):
        follows = HistGradientBoostingRegressor(**trees).fit(taken[learned_M], q_MA.max(axis=1)[steps.after_M[learned_M]])
        q_MA = np.where(steps.allowed_MA, reward_MA + goes_on_MA * _of_allowed(follows.predict, steps), -np.inf)
    return q_MA


def _rewards(steps: LoggedSteps, found_MAC: Floats, classes: NDArray[np.int64], costs: PlanCosts) -> tuple[Floats, Floats]:
    """(M, A) expected reward of each step, and the chance that the session goes on after it."""
    chances_MAC = np.zeros((*found_MAC.shape[:2], _ON + 1))
    chances_MAC[:, :, classes] = found_MAC
    coupons_MA = steps.coupons_M[:, None] + (np.arange(NUM_STEPS) == STEP_INDEX["offer_coupon"])
    is_human_A = np.arange(NUM_STEPS) == STEP_INDEX["hand_to_human"]
    earned_MA = chances_MAC[:, :, _KEPT] * np.maximum(1 - costs.coupon * coupons_MA, 0) - costs.taken_back * chances_MAC[:, :, _RETURNED]
    reward_MA = earned_MA - costs.walkout * chances_MAC[:, :, _LEFT] - costs.human * is_human_A
    is_last_M1 = (steps.index_M == MAX_STEPS - 1)[:, None]
    return reward_MA, chances_MAC[:, :, _ON] * ~is_human_A * ~is_last_M1


def _of_allowed(predict: Callable[[Floats], Floats], steps: LoggedSteps) -> Floats:
    """(M, A, ...) of a prediction made for every allowed step in every state; 0 elsewhere."""
    out: Floats | None = None
    for action in range(NUM_STEPS):
        rows = np.flatnonzero(steps.allowed_MA[:, action])
        if len(rows) == 0:
            continue
        found = predict(np.concatenate([steps.state_MF[rows], np.full((len(rows), 1), action)], axis=1))
        if out is None:
            out = np.zeros((len(steps.action_M), NUM_STEPS, *found.shape[1:]))
        out[rows, action] = found
    assert out is not None, "a logged step was allowed"
    return out


def with_targets(examples: Examples, catalogue: Catalogue, config: Config) -> Examples:
    """The examples with the strategist's target weights: at each logged step, softmax(Q / TEMPERATURE) over the allowed steps.

    Values are fitted to the training part alone. With fewer than MIN_PURCHASES kept purchases in it steps cannot be told
    apart by what they earn, and the targets are the logged steps. A logged step that the grammar forbids teaches nothing.
    """
    steps = logged_steps(examples, catalogue, config.train.model.num_profile_buckets)
    is_train_M = examples.split[steps.row_M] == "train"
    if (steps.result_M[is_train_M] == _KEPT).sum() < MIN_PURCHASES:
        weights_MA = (steps.action_M[:, None] == np.arange(NUM_STEPS)).astype(np.float64)
    else:
        q_MA = step_values(steps, is_train_M, config.train.plan_costs, sub_seed(config.seed, "outcomes"))
        weights_MA = np.exp((q_MA - q_MA.max(axis=1, keepdims=True, initial=-1e9)) / TEMPERATURE)
    weights_MA = weights_MA * steps.allowed_MA
    targets = np.zeros_like(examples.targets)
    targets[steps.row_M, steps.index_M] = weights_MA / np.maximum(weights_MA.sum(axis=1, keepdims=True), 1e-12)
    return dataclasses.replace(examples, targets=targets)
