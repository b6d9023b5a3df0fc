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


class StepValues:
    """Value of each step in each state, in shares of the margin, estimated from logged steps.

    Q(s, a) = expected reward of a + chance that the session goes on x value of what follows, where the value of a state is
    that of its best allowed step (Ernst et al., JMLR 2005). Chances come from one classifier of a step's result, what
    follows from a regression on the next states' values; both see the step as a categorical feature.
    """

    def __init__(self, steps: LoggedSteps, costs: PlanCosts, seed: int) -> None:
        self.costs = costs
        trees = {**_TREES, "categorical_features": [steps.state_MF.shape[1]], "random_state": seed % 2**31}
        taken = _with_action(steps.state_MF, steps.action_M)
        self.result = HistGradientBoostingClassifier(**trees).fit(taken, steps.result_M)
        self.follows: HistGradientBoostingRegressor | None = None
        reward_MA, goes_on_MA = self._rewards(steps)
        has_next = (steps.after_M >= 0) & ~steps.ended_M
        for _ in range(SWEEPS if has_next.any() else 0):
            value_M = np.where(steps.allowed_MA, self._q(steps, reward_MA, goes_on_MA), -np.inf).max(axis=1)
            self.follows = HistGradientBoostingRegressor(**trees).fit(taken[has_next], value_M[steps.after_M[has_next]])

    def of(self, steps: LoggedSteps) -> Floats:
        """(M, A) estimated value of every step in every state, allowed or not."""
        return self._q(steps, *self._rewards(steps))

    def _q(self, steps: LoggedSteps, reward_MA: Floats, goes_on_MA: Floats) -> Floats:
        if self.follows is None:
            return reward_MA
        return reward_MA + goes_on_MA * _for_each_action(self.follows.predict, steps.state_MF)

    def _rewards(self, steps: LoggedSteps) -> tuple[Floats, Floats]:
        """(M, A) expected reward of each step, and the chance that the session goes on after it."""
        found_MAC = _for_each_action(self.result.predict_proba, steps.state_MF)
        chances_MAC = np.zeros((*found_MAC.shape[:2], _ON + 1))
        chances_MAC[:, :, self.result.classes_] = found_MAC
        coupons_MA = steps.coupons_M[:, None] + (np.arange(NUM_STEPS) == STEP_INDEX["offer_coupon"])
        is_human_A = np.arange(NUM_STEPS) == STEP_INDEX["hand_to_human"]
        earned = chances_MAC[:, :, _KEPT] * np.maximum(1 - self.costs.coupon * coupons_MA, 0) - self.costs.taken_back * chances_MAC[:, :, _RETURNED]
        reward_MA = earned - self.costs.walkout * chances_MAC[:, :, _LEFT] - self.costs.human * is_human_A
        is_last_M1 = (steps.index_M == MAX_STEPS - 1)[:, None]
        return reward_MA, chances_MAC[:, :, _ON] * ~is_human_A * ~is_last_M1


def _with_action(state_MF: Floats, action_M: NDArray[np.int64]) -> Floats:
    return np.concatenate([state_MF, action_M[:, None]], axis=1)


def _for_each_action(predict: Callable[[Floats], Floats], state_MF: Floats) -> Floats:
    """(M, A, ...) of a prediction made for every action in every state."""
    return np.stack([predict(_with_action(state_MF, np.full(len(state_MF), action))) for action in range(NUM_STEPS)], axis=1)


def with_targets(examples: Examples, catalogue: Catalogue, config: Config) -> Examples:
    """The examples with the strategist's target weights: at each logged step, softmax(Q / TEMPERATURE) over the allowed steps.

    Values are fitted to the training part alone. With fewer than MIN_PURCHASES kept purchases in it steps cannot be told
    apart by what they earn, and the targets are the logged steps.
    """
    num_buckets = config.train.model.num_profile_buckets
    learned = logged_steps(examples.of("train"), catalogue, num_buckets)
    if (learned.result_M == _KEPT).sum() < MIN_PURCHASES:
        return dataclasses.replace(examples, targets=_one_hot(examples.steps))
    values = StepValues(learned, config.train.plan_costs, sub_seed(config.seed, "outcomes"))
    steps = logged_steps(examples, catalogue, num_buckets)
    q_MA = np.where(steps.allowed_MA, values.of(steps), -np.inf)
    weights_MA = np.exp((q_MA - q_MA.max(axis=1, keepdims=True)) / TEMPERATURE)
    targets = np.zeros_like(examples.targets)
    targets[steps.row_M, steps.index_M] = weights_MA / weights_MA.sum(axis=1, keepdims=True)
    return dataclasses.replace(examples, targets=targets)


def _one_hot(steps_RS: NDArray[np.int8]) -> NDArray[np.float32]:
    """(R, S, A), zeros past a plan's end."""
    taken: NDArray[np.float32] = (steps_RS[:, :, None] == np.arange(NUM_STEPS)).astype(np.float32)
    return taken
