"""The AR session as a finite-horizon decision process on a discrete hidden state, simulated for many sessions at once.

State: interest 0-4, patience 0-4, doubts about look, fit, quality and value 0-2 each, in cart, coupons given 0-2, checkout called.
A step settles (or not) the doubt it works on, moves interest and patience, and then the shopper leaves, buys, puts into the
cart or goes on. Knows nothing of who chooses the steps.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from guidelens.schemas.steps import MAX_STEPS, OUTCOME_INDEX
from guidelens.world.guide_tables import ASK, CHECKOUT, COUPON, FAILED, FIT, HUMAN, NOTHING, NUM_TYPES, QUALITY, QUIET, SECOND_COUPON, SETTLED, step_tables
from guidelens.world.latents import Floats, Ints
from guidelens.world.parameters import GuideParameters

NUM_UNIFORMS = 8
"""Uniform draws a step: settle, interest, patience, hazard, engaged, view time, gestures, kept."""
DIMS = (5, 5, 3, 3, 3, 3, 2, 3, 2)
NUM_STATES = int(np.prod(DIMS))
_ENGAGED = (0.08, 0.25, 0.86)
"""Chance of an engaged outcome where a step had nothing to settle, failed, or settled."""
NONE, ENGAGED, CART, PURCHASE, LEFT = (OUTCOME_INDEX[name] for name in ("none", "engaged", "cart", "purchase", "left"))


@dataclass(frozen=True)
class HiddenState:
    """(B,) int64 columns, in the order of DIMS; doubts (B, 4): look, fit, quality, value."""

    interest: Ints
    doubts: Ints
    patience: Ints
    in_cart: Ints
    coupons: Ints
    called: Ints

    @classmethod
    def from_columns(cls, columns: NDArray[np.int64]) -> "HiddenState":
        return cls(columns[:, 0], columns[:, 2:6], columns[:, 1], columns[:, 6], columns[:, 7], columns[:, 8])

    @property
    def index(self) -> Ints:
        """(B,) row of the state among NUM_STATES."""
        columns = [self.interest, self.patience, *self.doubts.T, self.in_cart, self.coupons, self.called]
        rows: Ints = np.ravel_multi_index(columns, DIMS).astype(np.int64)
        return rows

    def take(self, rows: NDArray[np.int64]) -> "HiddenState":
        return HiddenState(self.interest[rows], self.doubts[rows], self.patience[rows], self.in_cart[rows], self.coupons[rows], self.called[rows])


@dataclass(frozen=True)
class StepResult:
    """What one step brought, (B,) each. value: shares of the margin, 0 while the session goes on; kept: a purchase that stays."""

    state: HiddenState
    outcome: Ints
    view_ms: Floats
    gestures: Ints
    value: Floats
    kept: NDArray[np.bool_]
    ended: NDArray[np.bool_]


def hazards(
    combo: Ints, state: HiddenState, is_checkout: NDArray[np.bool_], is_quiet: NDArray[np.bool_], is_human: NDArray[np.bool_], parameters: GuideParameters
) -> tuple[Floats, Floats, Floats]:
    """(B,) chances that the step ends in a purchase, that the shopper leaves instead, and that the product goes into the cart."""
    tables = step_tables()
    expert = combo % NUM_TYPES & 1
    doubts = np.where(is_human[:, None], 0.35, 1.0) * state.doubts
    readiness = state.interest - (tables.doubt_weights[combo] * doubts).sum(axis=1)
    buy = logistic(
        parameters.buy_bias
        + parameters.buy_readiness * readiness
        + parameters.buy_cart * state.in_cart
        + parameters.buy_checkout * (is_checkout | is_human)
        + parameters.buy_quiet_expert * is_quiet * expert
    )
    leave = np.asarray(parameters.leave)[state.patience] * np.where(is_quiet, 0.7, 1.0) * np.where(state.in_cart == 1, 0.8, 1.0)
    leave = np.where(is_human, 0.0, leave) * (1 - buy)
    cart = logistic(parameters.cart_bias + parameters.cart_readiness * readiness) * (1 - buy - leave)
    return buy, leave, np.where((state.in_cart == 1) | is_human, 0.0, cart)


def purchase_value(combo: Ints, state: HiddenState, is_human: NDArray[np.bool_], parameters: GuideParameters) -> tuple[Floats, Floats]:
    """(B,) chance that a purchase is kept, and what a kept one earns (shares of the margin)."""
    returned = step_tables().return_rate[combo, state.doubts[:, QUALITY], state.doubts[:, FIT]] * np.where(is_human, 0.6, 1.0)
    return 1 - returned, 1 - np.asarray(parameters.coupon_cost)[state.coupons]


def advance(combo: Ints, kind: Ints, sees_ar: NDArray[np.bool_], state: HiddenState, step: Ints, draws: Floats, parameters: GuideParameters) -> StepResult:
    """One guide step of B sessions.

    Args:
        combo, kind: (B,) rows of the tables.
        sees_ar: (B,) bool, whether the device shows AR; without it view time and gestures stay 0.
        step: (B,) step indices.
        draws: (B, NUM_UNIFORMS) uniforms.
    """
    moved, flag = _move(combo, kind, state, step, draws)
    is_human = step == HUMAN
    buy, leave, cart = hazards(combo, moved, step == CHECKOUT, step == QUIET, is_human, parameters)
    bought = draws[:, 3] < buy
    left = ~bought & (draws[:, 3] < buy + leave)
    carted = ~bought & ~left & (draws[:, 3] < buy + leave + cart)
    keeps, earns = purchase_value(combo, moved, is_human, parameters)
    kept = bought & (draws[:, 7] < keeps)
    value = np.where(kept, earns, np.where(bought, -parameters.return_cost, 0.0))
    value = value - np.where(left, np.asarray(parameters.annoyance)[moved.patience], 0.0) - parameters.human_cost * is_human
    outcome = np.where(bought, PURCHASE, np.where(left, LEFT, _lasting_outcome(moved, flag, carted, draws)))
    view_ms, gestures = _signals(moved, state, flag, step, draws, sees_ar)
    after = replace(moved, in_cart=np.where(carted, 1, moved.in_cart))
    return StepResult(after, outcome.astype(np.int64), view_ms, gestures, value, kept, bought | left | is_human)


@dataclass(frozen=True)
class LastingStep:
    """A step after which the session is made to go on. value: expected at once, shares of the margin; go_on: the chance that it would."""

    state: HiddenState
    outcome: Ints
    view_ms: Floats
    gestures: Ints
    value: Floats
    go_on: Floats


def advance_lasting(
    combo: Ints, kind: Ints, sees_ar: NDArray[np.bool_], state: HiddenState, step: Ints, draws: Floats, parameters: GuideParameters
) -> LastingStep:
    """As `advance`, but given that the shopper neither buys nor leaves; what these would have brought comes back as an expectation."""
    moved, flag = _move(combo, kind, state, step, draws)
    is_human = step == HUMAN
    buy, leave, cart = hazards(combo, moved, step == CHECKOUT, step == QUIET, is_human, parameters)
    keeps, earns = purchase_value(combo, moved, is_human, parameters)
    value = buy * (keeps * earns - (1 - keeps) * parameters.return_cost) - leave * np.asarray(parameters.annoyance)[moved.patience]
    go_on = 1 - buy - leave
    carted = draws[:, 3] * go_on < cart
    view_ms, gestures = _signals(moved, state, flag, step, draws, sees_ar)
    after = replace(moved, in_cart=np.where(carted, 1, moved.in_cart))
    outcome = _lasting_outcome(moved, flag, carted, draws)
    return LastingStep(after, outcome.astype(np.int64), view_ms, gestures, value - parameters.human_cost * is_human, np.where(is_human, 0.0, go_on))


def _lasting_outcome(moved: HiddenState, flag: Ints, carted: NDArray[np.bool_], draws: Floats) -> Ints:
    engaged = draws[:, 4] < np.array(_ENGAGED)[flag] + 0.03 * moved.interest
    return np.where(carted, CART, np.where(engaged, ENGAGED, NONE))


def _move(combo: Ints, kind: Ints, state: HiddenState, step: Ints, draws: Floats) -> tuple[HiddenState, Ints]:
    """The state after the step itself, before the shopper decides; and the step's flag."""
    tables, rows = step_tables(), np.arange(len(step))
    target = tables.targets[kind, step]
    level = np.where(target >= 0, state.doubts[rows, target], 0)
    chance = tables.settle[combo, step, level] * np.where((step == COUPON) & (state.coupons > 0), SECOND_COUPON, 1.0)
    settled = (level > 0) & (draws[:, 0] < chance)
    flag = np.where(settled, SETTLED, np.where(level > 0, FAILED, NOTHING))
    doubts = state.doubts.copy()
    doubts[rows[settled], target[settled]] = 0
    decided = state.interest >= 3
    down = np.minimum(tables.cool[combo, step, flag] + decided * tables.distraction[combo, step], 0.95)
    up = np.minimum(tables.warm[combo, step, flag], 1 - down)
    interest = state.interest + (draws[:, 1] < up) - (draws[:, 1] > 1 - down)
    drop = tables.drain[combo, step, flag]
    twice = drop * tables.second_drain[combo, step, flag]
    patience = state.patience - (draws[:, 2] < drop) - (draws[:, 2] < twice) + (draws[:, 2] > 1 - np.minimum(tables.rest[combo, step], 1 - drop))
    moved = HiddenState(
        np.clip(interest, 0, 4),
        doubts,
        np.clip(patience, 0, 4),
        state.in_cart,
        np.minimum(state.coupons + (step == COUPON), 2),
        np.maximum(state.called, step == CHECKOUT),
    )
    return moved, flag.astype(np.int64)


def _signals(moved: HiddenState, before: HiddenState, flag: Ints, step: Ints, draws: Floats, sees_ar: NDArray[np.bool_]) -> tuple[Floats, Ints]:
    """AR view time (ms) and gesture counts. After a question, the taps are the page of the answer sheet: 1 + the strongest doubt, 0 for none."""
    normal = np.log(draws[:, 5].clip(1e-9, 1 - 1e-9) / (1 - draws[:, 5].clip(1e-9, 1 - 1e-9))) / 1.702
    view_ms = 2200.0 * np.exp(0.22 * moved.interest + 0.35 * (flag == SETTLED) + 0.08 * moved.patience + 0.45 * normal)
    rate = 0.35 + 0.28 * moved.interest + 0.5 * (flag == SETTLED)
    gestures = np.minimum(np.floor(-np.log1p(-draws[:, 6].clip(0, 1 - 1e-9)) * rate), 9)
    strongest = np.where(before.doubts.max(axis=1) > 0, 1 + before.doubts.argmax(axis=1), 0)
    gestures = np.where((step == ASK) & (draws[:, 6] < 0.8), strongest, gestures)
    seen = sees_ar.astype(np.float64)
    return np.round(view_ms) * seen, (gestures * seen).astype(np.int64)


def logistic(values: Floats) -> Floats:
    squashed: Floats = 1 / (1 + np.exp(-values))
    return squashed


def initial_state(
    kind: Ints, guide_type: Ints, good: NDArray[np.bool_], appeal: Floats, patience: Floats, price_level: Floats, draws: Floats
) -> NDArray[np.int64]:
    """(B, 9) first hidden states, columns as DIMS.

    Args:
        appeal, patience, price_level: (B,) roughly standard normal latents of shopper and product.
        draws: (B, 6) uniforms.
    """
    normal = np.log(draws.clip(1e-9, 1 - 1e-9) / (1 - draws.clip(1e-9, 1 - 1e-9))) / 1.702
    frugal, careful = guide_type >> 1 & 1, guide_type >> 2 & 1
    interest = np.clip(np.floor(2.1 + 0.8 * appeal + 0.6 * normal[:, 0]), 0, 4)
    strength = np.stack(
        [
            np.array([0.1, 0.9, 0.7, 0.2, -1.0])[kind],
            np.array([0.9, -1.0, 0.7, -0.6, -1.4])[kind],
            -0.5 + 1.0 * careful - 0.4 * good,
            -0.6 + 1.2 * frugal + 0.9 * price_level,
        ],
        axis=1,
    )
    doubts = (strength + normal[:, 1:5] > 0).astype(np.int64) + (strength + normal[:, 1:5] > 0.9)
    start = np.zeros((len(kind), len(DIMS)), dtype=np.int64)
    start[:, 0] = interest
    start[:, 2:6] = doubts
    start[:, 1] = np.clip(np.floor(2.9 + 0.9 * patience + 0.5 * normal[:, 5]), 0, 4)
    return start


assert MAX_STEPS == 8 and FAILED == 1 and NOTHING == 0
