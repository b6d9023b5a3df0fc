"""The full-information oracle: dynamic programming over the true hidden state of an AR session.

It knows everything the shopper thinks, and it forgets the grammar's "once" rules except for the checkout, so its value is an
upper bound on what any guide can earn. Values are shares of the margin.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guidelens.schemas.steps import MAX_STEPS
from guidelens.world.guide_process import DIMS, NUM_STATES, HiddenState, hazards, purchase_value
from guidelens.world.guide_tables import CHECKOUT, COUPON, FAILED, HUMAN, NOTHING, QUIET, SECOND_COUPON, SETTLED, step_tables
from guidelens.world.latents import Floats
from guidelens.world.parameters import GuideParameters

_NUM_KINDS_TYPES = 16


@dataclass(frozen=True)
class _Endings:
    """For one class of step, over all states after it moved, DIMS each: what comes at once, and the chances of a cart and of going on."""

    reward: Floats
    cart: Floats
    on: Floats


def oracle_values(combo: int, base: NDArray[np.bool_], parameters: GuideParameters) -> Floats:
    """(NUM_STATES,) expected value of a session that starts in each state, under the best steps that `base` (NUM_STEPS,) allows."""
    states = HiddenState.from_columns(np.stack(np.unravel_index(np.arange(NUM_STATES), DIMS), axis=1).astype(np.int64))
    classes = {step: _endings(combo, states, step, parameters) for step in (-1, CHECKOUT, QUIET, HUMAN)}
    steps = [int(step) for step in np.flatnonzero(base)]
    drifts = {step: _drift(combo, step) for step in steps}
    value = np.zeros(DIMS)
    for _ in range(MAX_STEPS):
        after = {step: _after(ending, value) for step, ending in classes.items()}
        best = np.full(DIMS, -np.inf)
        for step in steps:
            np.maximum(best, _before(combo, step, after[step if step in after else -1], drifts[step]), out=best)
        value = best
    return value.ravel()


def _endings(combo: int, states: HiddenState, step: int, parameters: GuideParameters) -> _Endings:
    combos = np.full(NUM_STATES, combo)
    flags = [np.full(NUM_STATES, step == kind) for kind in (CHECKOUT, QUIET, HUMAN)]
    buy, leave, cart = hazards(combos, states, flags[0], flags[1], flags[2], parameters)
    keeps, earns = purchase_value(combos, states, flags[2], parameters)
    reward = buy * (keeps * earns - (1 - keeps) * parameters.return_cost) - leave * np.asarray(parameters.annoyance)[states.patience]
    if step == HUMAN:
        return _Endings((reward - parameters.human_cost).reshape(DIMS), np.zeros(DIMS), np.zeros(DIMS))
    return _Endings(reward.reshape(DIMS), cart.reshape(DIMS), (1 - buy - leave - cart).reshape(DIMS))


def _after(ending: _Endings, value: Floats) -> Floats:
    """DIMS-shaped value once a step has moved the state and the shopper is about to decide."""
    return ending.reward + ending.cart * value[..., 1:2, :, :] + ending.on * value


def _before(combo: int, step: int, after: Floats, drift: Floats) -> Floats:
    """DIMS-shaped value of taking a step, given the value after it moved the state."""
    tables = step_tables()
    target = int(tables.targets[combo // _NUM_KINDS_TYPES, step])
    if step == COUPON:
        after = np.concatenate([after[..., 1:2, :], after[..., 2:3, :], after[..., 2:3, :]], axis=-2)
    if step == CHECKOUT:
        after = np.repeat(after[..., 1:2], 2, axis=-1)
    moved = (drift @ after.reshape(len(drift[0]), -1)).reshape(3, *DIMS)
    value: Floats = moved[NOTHING]
    if target >= 0:
        level = (slice(None),) * (2 + target)
        for doubt in (1, 2):
            chance = np.full((3, 1), tables.settle[combo, step, doubt])
            if step == COUPON:
                chance[1:] *= SECOND_COUPON
            value[(*level, doubt)] = chance * moved[SETTLED][(*level, 0)] + (1 - chance) * moved[FAILED][(*level, doubt)]
    if step == CHECKOUT:
        value[..., 1] = -np.inf  # it is called once
    return value


def _drift(combo: int, step: int) -> Floats:
    """(3 * 25, 25): for each flag the joint moves of interest and patience that the step brings."""
    tables = step_tables()
    blocks = []
    for flag in range(3):
        drop = float(tables.drain[combo, step, flag])
        twice = drop * float(tables.second_drain[combo, step, flag])
        rest = min(float(tables.rest[combo, step]), 1 - drop)
        down = np.minimum(tables.cool[combo, step, flag] + (np.arange(5) >= 3) * tables.distraction[combo, step], 0.95)
        up = np.minimum(tables.warm[combo, step, flag], 1 - down)
        interest = _kernel({-1: down, 1: up})
        patience = _kernel({-2: np.full(5, twice), -1: np.full(5, drop - twice), 1: np.full(5, rest)})
        blocks.append(np.kron(interest, patience))
    return np.concatenate(blocks)


def _kernel(moves: dict[int, Floats]) -> Floats:
    """(5, 5) transition matrix of one level, clipped at the ends; chances (5,) by the level one is at."""
    matrix = np.diag(1 - np.sum(list(moves.values()), axis=0))
    for move, chance in moves.items():
        for level in range(5):
            matrix[level, min(max(level + move, 0), 4)] += chance[level]
    return matrix
