"""What each guide step does, by product kind, shopper type and product quality: the numbers of the AR decision process as arrays.

Letters: C = combos (kind x good quality x type), A = steps, G = 3 flags of a step: nothing to settle, failed, settled.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from guidelens.schemas.steps import NUM_STEPS, STEP_INDEX
from guidelens.world.latents import KINDS

Floats = NDArray[np.float64]

NUM_TYPES = 8
NUM_COMBOS = len(KINDS) * 2 * NUM_TYPES
LOOK, FIT, QUALITY, VALUE = range(4)
NOTHING, FAILED, SETTLED = range(3)
QUIET, CHECKOUT, HUMAN, COUPON, ASK = (STEP_INDEX[name] for name in ("stay_quiet", "call_to_checkout", "hand_to_human", "offer_coupon", "ask_preference"))

# The doubt a step works on, by kind (room, front, worn, solid, plain); -1: none.
_TARGETS: dict[str, tuple[int, int, int, int, int]] = {
    "show_info": (QUALITY, QUALITY, FIT, QUALITY, QUALITY),
    "show_3d": (LOOK, LOOK, LOOK, LOOK, LOOK),
    "place_in_room": (FIT, FIT, FIT, FIT, FIT),
    "try_on": (LOOK, LOOK, LOOK, LOOK, LOOK),
    "compare_similar": (VALUE, LOOK, VALUE, VALUE, VALUE),
    "show_reviews": (QUALITY, QUALITY, QUALITY, QUALITY, QUALITY),
    "show_bundle": (LOOK, VALUE, LOOK, FIT, VALUE),
    "offer_coupon": (VALUE, VALUE, VALUE, VALUE, VALUE),
    "ask_preference": (FIT, FIT, FIT, FIT, LOOK),
    "call_to_checkout": (-1, -1, -1, -1, -1),
    "hand_to_human": (-1, -1, -1, -1, -1),
    "stay_quiet": (-1, -1, -1, -1, -1),
}
# Chance to settle a mild and a strong doubt.
_SETTLE: dict[str, tuple[float, float]] = {
    "show_info": (0.75, 0.25), "show_3d": (0.75, 0.35), "place_in_room": (0.9, 0.8), "try_on": (0.9, 0.8), "compare_similar": (0.7, 0.35), "show_reviews": (0.75, 0.5),
    "show_bundle": (0.45, 0.2), "offer_coupon": (0.7, 0.45), "ask_preference": (0.25, 0.1), "call_to_checkout": (0, 0), "hand_to_human": (0, 0), "stay_quiet": (0, 0),
}  # fmt: skip
# Chance that a step costs one level of patience when it had nothing to settle, failed, or settled something.
_DRAIN: dict[str, tuple[float, float, float]] = {
    "show_info": (0.65, 0.5, 0.12), "show_3d": (0.6, 0.45, 0.1), "place_in_room": (0.6, 0.5, 0.1), "try_on": (0.6, 0.5, 0.1), "compare_similar": (0.7, 0.55, 0.15),
    "show_reviews": (0.65, 0.5, 0.12), "show_bundle": (0.7, 0.6, 0.2), "offer_coupon": (0.4, 0.35, 0.1), "ask_preference": (0.35, 0.35, 0.3),
    "call_to_checkout": (0.8, 0.8, 0.8), "hand_to_human": (0, 0, 0), "stay_quiet": (0.15, 0.15, 0.15),
}  # fmt: skip
# Chance that interest falls by one, the same three cases.
_COOL: dict[str, tuple[float, float, float]] = {
    "show_info": (0.2, 0.12, 0.02), "show_3d": (0.2, 0.12, 0.02), "place_in_room": (0.22, 0.16, 0.02), "try_on": (0.22, 0.16, 0.02), "compare_similar": (0.35, 0.25, 0.05),
    "show_reviews": (0.25, 0.16, 0.03), "show_bundle": (0.33, 0.28, 0.05), "offer_coupon": (0.12, 0.1, 0.0), "ask_preference": (0.08, 0.08, 0.04),
    "call_to_checkout": (0.35, 0.35, 0.35), "hand_to_human": (0, 0, 0), "stay_quiet": (0.1, 0.1, 0.1),
}  # fmt: skip
SECOND_COUPON = 0.4
"""What a second coupon is worth of the first."""
_WARM: dict[str, float] = {"try_on": 0.6, "place_in_room": 0.55, "show_3d": 0.5, "show_bundle": 0.5}


@dataclass(frozen=True)
class StepTables:
    """targets (kinds, A) in -1..3; settle (C, A, 3) by level of the doubt; drain, second_drain, cool, warm (C, A, G); rest (C, A)."""

    targets: NDArray[np.int64]
    settle: Floats
    drain: Floats
    second_drain: Floats
    cool: Floats
    warm: Floats
    rest: Floats
    distraction: Floats
    doubt_weights: Floats
    """(C, 4): what a level of each doubt takes from the readiness to buy."""
    return_rate: Floats
    """(C, 3, 3): chance that a purchase comes back, by quality and fit doubt left."""


def combo_of(kind: NDArray[np.int64], good: NDArray[np.bool_], guide_type: NDArray[np.int64]) -> NDArray[np.int64]:
    """(B,) row of the tables' C axis."""
    rows: NDArray[np.int64] = (kind * 2 + good) * NUM_TYPES + guide_type
    return rows


@cache
def step_tables() -> StepTables:
    """The tables; they hold no seed and no money."""
    combos = np.arange(NUM_COMBOS)
    kind, good, kind_type = combos // (2 * NUM_TYPES), combos // NUM_TYPES % 2, combos % NUM_TYPES
    expert, frugal, careful = kind_type & 1, kind_type >> 1 & 1, kind_type >> 2 & 1
    names = list(STEP_INDEX)
    settle = np.zeros((NUM_COMBOS, NUM_STEPS, 3))
    settle[:, :, 1:] = np.array([_SETTLE[name] for name in names])
    drain = np.broadcast_to(np.array([_DRAIN[name] for name in names]), (NUM_COMBOS, NUM_STEPS, 3)).copy()
    cool = np.broadcast_to(np.array([_COOL[name] for name in names]), (NUM_COMBOS, NUM_STEPS, 3)).copy()
    warm = np.zeros((NUM_COMBOS, NUM_STEPS, 3))
    warm[:, :, SETTLED] = [_WARM.get(name, 0.35) for name in names]
    second = np.zeros((NUM_COMBOS, NUM_STEPS, 3))
    rest = np.zeros((NUM_COMBOS, NUM_STEPS))
    distraction = np.zeros((NUM_COMBOS, NUM_STEPS))

    step = STEP_INDEX
    settle[:, step["show_reviews"]] *= (np.where(good == 1, 1.0, 0.25) * np.where(careful == 1, 1.15, 0.8))[:, None].clip(0, 1)
    cool[:, step["show_reviews"], NOTHING] += 0.25 * (good == 0)
    settle[:, COUPON] *= np.where(frugal == 1, 1.3, 0.35)[:, None]
    settle[:, step["show_bundle"]] *= np.where(kind == 4, 1.6, np.where(kind == 1, 1.3, 1.0))[:, None]
    settle[:, step["compare_similar"]] *= np.where(kind == 3, 1.25, 1.0)[:, None]
    settle[:, step["show_info"]] *= np.where(expert == 1, 0.9, 1.1)[:, None] * np.where(kind == 4, 1.2, 1.0)[:, None]
    settle[:, step["show_3d"]] *= np.where(kind == 3, 1.2, np.where(kind == 4, 0.4, 1.0))[:, None]
    settle = settle.clip(0, 0.97)
    for name in ("show_info", "ask_preference", "show_bundle"):
        second[:, step[name], :] = 0.45 * expert[:, None]
    drain[:, step["ask_preference"]] += 0.3 * expert[:, None]
    second[:, CHECKOUT, :] = 0.35
    distraction[:, step["compare_similar"]] = 0.45
    distraction[:, step["show_bundle"]] = 0.3
    rest[:, QUIET] = np.where(expert == 1, 0.5, 0.15)
    cool[:, QUIET] += 0.3 * (1 - expert)[:, None]
    weights = np.stack(
        [np.where((kind == 1) | (kind == 2), 0.9, 0.6), np.where((kind == 0) | (kind == 2), 0.9, 0.5), 0.55 + 0.35 * careful, 0.5 + 0.45 * frugal], axis=1
    )
    base = np.where(good == 1, 0.04, 0.16)
    returns = base[:, None, None] + 0.12 * np.arange(3)[None, :, None] + 0.14 * np.arange(3)[None, None, :]
    return StepTables(
        targets=np.array([_TARGETS[name] for name in names]).T.copy(),
        settle=settle,
        drain=drain,
        second_drain=second,
        cool=cool,
        warm=warm,
        rest=rest,
        distraction=distraction,
        doubt_weights=weights,
        return_rate=returns,
    )
