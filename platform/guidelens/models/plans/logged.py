"""The log's guide steps one after another: what was seen before each, what it brought, and which step of the same plan came next."""

# Letters: R = rows, S = MAX_STEPS, A = NUM_STEPS, M = logged steps, F = state features.

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guidelens.config import PlanCosts
from guidelens.data.examples import Examples
from guidelens.models.inputs import plan_inputs
from guidelens.models.items import Catalogue
from guidelens.models.plans.history import Surroundings, history_features
from guidelens.models.strategist import allowed_at_each
from guidelens.schemas.steps import MAX_STEPS, OUTCOME_INDEX, STEP_INDEX

Floats = NDArray[np.float64]
KEPT, RETURNED, LEFT, ON = range(4)
NUM_RESULTS = 4


@dataclass(frozen=True)
class LoggedSteps:
    """The steps of plans one after another, by plan and place.

    state (M, F) float32; result: KEPT, RETURNED, LEFT or ON; after (M,): place of the next step of the same plan, -1 for none. coupons: shown
    before this step. ended: a purchase, a walk-out or a hand-over. allowed (M, A) before the step; legal: the logged step was allowed.
    propensity: of the logged step, NaN where unknown.
    """

    state_MF: NDArray[np.float32]
    action_M: NDArray[np.int64]
    result_M: NDArray[np.int64]
    ended_M: NDArray[np.bool_]
    after_M: NDArray[np.int64]
    coupons_M: NDArray[np.int64]
    index_M: NDArray[np.int64]
    allowed_MA: NDArray[np.bool_]
    row_M: NDArray[np.int64]
    propensity_M: Floats

    def __len__(self) -> int:
        return len(self.action_M)

    @property
    def is_legal(self) -> NDArray[np.bool_]:
        """(M,): the grammar allowed the logged step."""
        legal: NDArray[np.bool_] = self.allowed_MA[np.arange(len(self)), self.action_M]
        return legal

    def earned(self, costs: PlanCosts) -> Floats:
        """(M,) what each step brought at once, in shares of the margin."""
        coupons_M = self.coupons_M + (self.action_M == STEP_INDEX["offer_coupon"])
        kept_M = np.where(self.result_M == KEPT, np.maximum(1 - costs.coupon * coupons_M, 0), 0)
        human_M = costs.human * (self.action_M == STEP_INDEX["hand_to_human"])
        earned_M: Floats = kept_M - costs.taken_back * (self.result_M == RETURNED) - costs.walkout * (self.result_M == LEFT) - human_M
        return earned_M

    def to_come(self, costs: PlanCosts) -> Floats:
        """(M,) what each step and those after it of the same plan brought."""
        total_M = self.earned(costs)
        for place in range(MAX_STEPS - 2, -1, -1):
            here = np.flatnonzero((self.index_M == place) & (self.after_M >= 0))
            total_M[here] += total_M[self.after_M[here]]
        return total_M


def logged_steps(examples: Examples, catalogue: Catalogue, num_profile_buckets: int) -> LoggedSteps:
    """Every logged step of every row, with what could be seen before it; how profiles are read is chosen on the training rows."""
    rows = np.flatnonzero(examples.steps[:, 0] >= 0)
    part = examples.take(rows)
    there_RS = part.steps >= 0
    row_M, index_M = np.nonzero(there_RS)
    place_RS = np.full((len(part), MAX_STEPS + 1), -1, dtype=np.int64)
    place_RS[row_M, index_M] = np.arange(len(row_M))
    action_M, outcome_M = part.steps[row_M, index_M].astype(np.int64), part.outcomes[row_M, index_M]
    bought, left = outcome_M == OUTCOME_INDEX["purchase"], outcome_M == OUTCOME_INDEX["left"]
    coupon_RS = part.steps == STEP_INDEX["offer_coupon"]
    around = Surroundings.of(examples.of("train"), catalogue, num_profile_buckets).features(part, catalogue)
    dynamic = history_features(part.steps, part.outcomes, part.view_ms, part.gestures)
    return LoggedSteps(
        state_MF=np.concatenate([dynamic[row_M, index_M], around[row_M]], axis=1),
        action_M=action_M,
        result_M=np.where(bought, np.where(part.kept[row_M], KEPT, RETURNED), np.where(left, LEFT, ON)),
        ended_M=bought | left | (action_M == STEP_INDEX["hand_to_human"]),
        after_M=place_RS[row_M, index_M + 1],
        coupons_M=(np.cumsum(coupon_RS, axis=1) - coupon_RS)[row_M, index_M],
        index_M=index_M,
        allowed_MA=allowed_at_each(plan_inputs(part, catalogue)).numpy()[row_M, index_M],
        row_M=rows[row_M],
        propensity_M=part.step_propensity[row_M, index_M].astype(np.float64),
    )
