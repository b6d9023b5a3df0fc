"""Guide steps, their outcomes, and the grammar of plans.

The grammar is a mask over the next step, given the product, the device and the steps so far. Decoding is constrained by it
(illegal plans cannot be written), the logging guide of the world obeys it, and evaluation counts violations of it.
"""

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from guidelens.schemas.base import Frozen

MAX_STEPS = 8


class GuideStep(StrEnum):
    """One action of the AR guide. The order is part of the contract: indices are stored."""

    SHOW_INFO = "show_info"
    SHOW_3D = "show_3d"
    PLACE_IN_ROOM = "place_in_room"
    TRY_ON = "try_on"
    COMPARE_SIMILAR = "compare_similar"
    SHOW_REVIEWS = "show_reviews"
    SHOW_BUNDLE = "show_bundle"
    OFFER_COUPON = "offer_coupon"
    ASK_PREFERENCE = "ask_preference"
    CALL_TO_CHECKOUT = "call_to_checkout"
    HAND_TO_HUMAN = "hand_to_human"
    STAY_QUIET = "stay_quiet"


class Outcome(StrEnum):
    """What the shopper did after a step. The order is part of the contract; UNKNOWN is our own, for steps not yet shown."""

    NONE = "none"
    ENGAGED = "engaged"
    CART = "cart"
    PURCHASE = "purchase"
    LEFT = "left"


STEPS: tuple[GuideStep, ...] = tuple(GuideStep)
OUTCOMES: tuple[Outcome, ...] = tuple(Outcome)
NUM_STEPS = len(STEPS)
STEP_INDEX: dict[str, int] = {step.value: i for i, step in enumerate(STEPS)}
OUTCOME_INDEX: dict[str, int] = {outcome.value: i for i, outcome in enumerate(OUTCOMES)}
UNKNOWN_OUTCOME = len(OUTCOMES)

_WEARABLE = frozenset({"face", "eyes", "hand", "wrist", "foot", "body"})
_FRONT_CAMERA = frozenset({"face", "eyes"})
_MOST_TIMES = {GuideStep.OFFER_COUPON: 2, GuideStep.ASK_PREFERENCE: 2, GuideStep.COMPARE_SIMILAR: 2, GuideStep.STAY_QUIET: 3}
_LAST = frozenset({GuideStep.HAND_TO_HUMAN})


class DeviceCapabilities(Frozen):
    """What the shopper's device can do; a missing device is taken to be a phone with AR."""

    ar: bool = True
    front_camera: bool = True


class PlanContext(Frozen):
    """What the grammar needs to know of the product in view and of the device.

    try_on: the product's try-on kind (`room` for things to place). has_3d: dimensions or a model are known.
    """

    try_on: str = "none"
    has_3d: bool = False
    device: DeviceCapabilities = DeviceCapabilities()


def base_mask(context: PlanContext) -> NDArray[np.bool_]:
    """(NUM_STEPS,) bool: the steps that product and device allow at all."""
    mask = np.ones(NUM_STEPS, dtype=np.bool_)
    device = context.device
    can_wear = context.try_on in _WEARABLE and device.ar and (device.front_camera or context.try_on not in _FRONT_CAMERA)
    mask[STEP_INDEX["try_on"]] = can_wear
    mask[STEP_INDEX["place_in_room"]] = context.try_on == "room" and device.ar
    mask[STEP_INDEX["show_3d"]] = context.has_3d
    return mask


def allowed_next(base: NDArray[np.bool_], steps: NDArray[np.integer], length: int) -> NDArray[np.bool_]:
    """The grammar's mask over the next step, for a batch of plans of one length.

    A step may come once, but offer_coupon, ask_preference and compare_similar twice and stay_quiet three times; no step
    follows itself but stay_quiet; nothing follows hand_to_human; a plan has at most MAX_STEPS steps.

    Args:
        base: (B, NUM_STEPS) bool, `base_mask` of each row.
        steps: (B, >= length) step indices; what lies past `length` is not read.
        length: steps already taken, the same for each row.

    Returns:
        (B, NUM_STEPS) bool; a row of False means that the plan has ended.
    """
    mask = base.copy()
    if length >= MAX_STEPS:
        mask[:] = False
        return mask
    if length == 0:
        return mask
    taken = steps[:, :length]
    counts = (taken[:, :, None] == np.arange(NUM_STEPS)).sum(axis=1)
    limits = np.array([_MOST_TIMES.get(step, 1) for step in STEPS])
    mask &= counts < limits
    quiet = STEP_INDEX["stay_quiet"]
    last = taken[:, -1]
    rows = np.arange(len(mask))
    mask[rows, last] &= last == quiet
    ended = np.isin(taken, [STEP_INDEX[step] for step in _LAST]).any(axis=1)
    mask[ended] = False
    return mask


def violations(context: PlanContext, plan: Sequence[str]) -> list[str]:
    """The rules a plan breaks, as sentences; empty for a legal plan."""
    base = base_mask(context)[None]
    indices = np.array([[STEP_INDEX[step] for step in plan]], dtype=np.int64)
    return [
        f"step {k} ({step}) is not allowed after {list(plan[:k])} for try_on={context.try_on}"
        for k, step in enumerate(plan)
        if not allowed_next(base, indices, k)[0, STEP_INDEX[step]]
    ]
