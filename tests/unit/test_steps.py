"""The grammar of plans: what may follow what, and that its mask and its sentences agree."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidelens.schemas.steps import MAX_STEPS, NUM_STEPS, STEP_INDEX, STEPS, DeviceCapabilities, PlanContext, allowed_next, base_mask, violations

CHAIR = PlanContext(try_on="room", has_3d=True)
MILK = PlanContext(try_on="none", has_3d=False)
GLASSES = PlanContext(try_on="eyes", has_3d=True)


def test_milk_can_neither_be_tried_on_nor_placed_nor_turned() -> None:
    allowed = {step.value for step, may in zip(STEPS, base_mask(MILK), strict=True) if may}
    assert allowed.isdisjoint({"try_on", "place_in_room", "show_3d"})
    assert {"show_info", "call_to_checkout"} <= allowed


@pytest.mark.parametrize(
    ("device", "may"), [(DeviceCapabilities(), True), (DeviceCapabilities(front_camera=False), False), (DeviceCapabilities(ar=False), False)]
)
def test_glasses_are_tried_on_only_before_a_front_camera(device: DeviceCapabilities, may: bool) -> None:
    assert base_mask(GLASSES.model_copy(update={"device": device}))[STEP_INDEX["try_on"]] == may


def test_nothing_follows_a_human() -> None:
    assert violations(CHAIR, ["show_info", "hand_to_human", "show_3d"])
    assert not violations(CHAIR, ["show_info", "hand_to_human"])


def test_a_second_coupon_is_legal_and_a_third_is_not() -> None:
    twice = ["offer_coupon", "show_info", "offer_coupon"]
    assert not violations(CHAIR, twice)
    assert violations(CHAIR, [*twice, "stay_quiet", "offer_coupon"])


def test_only_silence_may_follow_itself() -> None:
    assert not violations(MILK, ["stay_quiet", "stay_quiet"])
    assert violations(MILK, ["ask_preference", "ask_preference"])


@given(st.lists(st.integers(0, NUM_STEPS - 1), max_size=MAX_STEPS), st.sampled_from([CHAIR, MILK, GLASSES]))
def test_a_plan_written_through_the_mask_breaks_no_rule(draws: list[int], context: PlanContext) -> None:
    base, steps, plan = base_mask(context)[None], np.zeros((1, MAX_STEPS), dtype=np.int8), []
    for length, draw in enumerate(draws):
        legal = np.flatnonzero(allowed_next(base, steps, length)[0])
        if not len(legal):
            break
        steps[0, length] = legal[draw % len(legal)]
        plan.append(STEPS[steps[0, length]].value)
    assert violations(context, plan) == []
