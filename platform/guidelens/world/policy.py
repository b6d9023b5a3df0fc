"""What a guide policy sees and gives, when the world runs it; and the world's own: script, uniform, logging, fixed plans."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from guidelens.schemas.steps import NUM_STEPS, STEP_INDEX


@dataclass(frozen=True)
class Observed:
    """What a real guide knows before its next step, for B sessions that are at the same step.

    session_rows: (B,) rows of the sessions handed to `value`. steps, outcomes: (B, 8) int8, -1 past `length`. view_ms (B, 8) float32
    and gestures (B, 8) int16, 0 past `length`. allowed: (B, NUM_STEPS) bool, the grammar's mask; at least one True in each row.
    """

    session_rows: NDArray[np.int64]
    steps: NDArray[np.int8]
    outcomes: NDArray[np.int8]
    view_ms: NDArray[np.float32]
    gestures: NDArray[np.int16]
    length: int
    allowed: NDArray[np.bool_]


class GuidePolicy(Protocol):
    """Chooses the next step of each session. Must return allowed steps; randomness must come from the policy's own seed."""

    def act(self, observed: Observed) -> NDArray[np.int64]:
        """(B,) step indices."""
        ...


# A script is an order of preference: the first allowed step not yet taken comes next.
_SCRIPTS: dict[str, tuple[str, ...]] = {
    "room": ("show_info", "place_in_room", "show_3d", "show_reviews", "call_to_checkout", "compare_similar", "offer_coupon", "show_bundle"),
    "front": ("show_info", "try_on", "show_reviews", "show_bundle", "call_to_checkout", "offer_coupon", "compare_similar", "show_3d"),
    "worn": ("show_info", "try_on", "show_3d", "show_reviews", "call_to_checkout", "compare_similar", "offer_coupon", "show_bundle"),
    "solid": ("show_info", "show_3d", "show_reviews", "compare_similar", "call_to_checkout", "offer_coupon", "show_bundle", "stay_quiet"),
    "plain": ("show_info", "show_bundle", "show_reviews", "call_to_checkout", "offer_coupon", "compare_similar", "stay_quiet", "ask_preference"),
}
SCRIPTS: dict[str, tuple[int, ...]] = {kind: tuple(STEP_INDEX[step] for step in steps) for kind, steps in _SCRIPTS.items()}


def plan_step(plans: NDArray[np.int64], kind: NDArray[np.int64], allowed: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(B,) the first step of each kind's plan (kinds, L) that is allowed now; stay_quiet, else any allowed, where none is."""
    chosen = np.full(len(kind), -1, dtype=np.int64)
    rows = np.arange(len(kind))
    for place in range(plans.shape[1]):
        step = plans[kind, place]
        fits = (chosen < 0) & allowed[rows, step]
        chosen[fits] = step[fits]
    return np.where(chosen < 0, allowed[:, ::-1].argmax(axis=1) * -1 + NUM_STEPS - 1, chosen)


def script_plans(kinds: Sequence[str]) -> NDArray[np.int64]:
    """(kinds, 8) step indices."""
    return np.array([SCRIPTS[kind] for kind in kinds], dtype=np.int64)


@dataclass(frozen=True)
class PlanPolicy:
    """Follows one order of steps a kind, without noise. kind: (sessions,) of all sessions that `value` is given."""

    plans: NDArray[np.int64]
    kind: NDArray[np.int64]

    def act(self, observed: Observed) -> NDArray[np.int64]:
        return plan_step(self.plans, self.kind[observed.session_rows], observed.allowed)


@dataclass(frozen=True)
class LoggingPolicy:
    """The guide that wrote the log: the script, but a uniform draw over the allowed steps in a share of the steps.

    draws: (sessions, 8, 2) uniforms.
    """

    script: PlanPolicy
    script_share: float
    draws: NDArray[np.float64]

    def act(self, observed: Observed) -> NDArray[np.int64]:
        chosen, _ = self.act_with_propensity(observed)
        return chosen

    def act_with_propensity(self, observed: Observed) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """(B,) steps and the exact chance of each."""
        draws = self.draws[observed.session_rows, observed.length]
        scripted = self.script.act(observed)
        counts = observed.allowed.sum(axis=1)
        place = np.minimum((draws[:, 1] * counts).astype(np.int64), counts - 1)
        uniform = (observed.allowed.cumsum(axis=1) > place[:, None]).argmax(axis=1)
        chosen = np.where(draws[:, 0] < self.script_share, scripted, uniform)
        return chosen, (1 - self.script_share) / counts + self.script_share * (chosen == scripted)
