"""The full-information oracle: dynamic programming over the true hidden state of an AR session.

It knows everything the shopper thinks, and it forgets the grammar's "once" rules except for the checkout, so its value is an
upper bound on what any guide can earn. Values are shares of the margin.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guidelens.schemas.steps import MAX_STEPS, NUM_STEPS
from guidelens.world.guide_process import DIMS, NUM_STATES, HiddenState, hazards, purchase_value
from guidelens.world.guide_tables import CHECKOUT, COUPON, FAILED, HUMAN, NOTHING, QUIET, SETTLED, StepTables, step_tables
from guidelens.world.latents import Floats
from guidelens.world.parameters import GuideParameters

_NUM_KINDS_TYPES = 16


@dataclass(frozen=True)
class _Endings:
    """For one class of step, over all states after it moved: what comes at once, and the chances to go on, (S,) each."""

    reward: Floats
    cart: Floats
    on: Floats


def oracle_values(combo: int, base: NDArray[np.bool_], parameters: GuideParameters) -> Floats:
    """(NUM_STATES,) expected value of a session that starts in each state, under the best steps that `base` (NUM_STEPS,) allows."""
    states = HiddenState.from_columns(np.stack(np.unravel_index(np.arange(NUM_STATES), DIMS), axis=1).astype(np.int64))
    classes = {step: _endings(combo, states, step, parameters) for step in (-1, CHECKOUT, QUIET, HUMAN)}
    value = np.zeros(DIMS)
    for _ in range(MAX_STEPS):
        after = {step: _after(ending, value) for step, ending in classes.items()}
        best = np.full(DIMS, -np.inf)
        for step in np.flatnonzero(base):
            earned = _before(combo, int(step), after[int(step) if int(step) in after else -1])
            best = np.maximum(best, earned)
        value = best
    return value.ravel()


def _endings(combo: int, states: HiddenState, step: int, parameters: GuideParameters) -> _Endings:
    combos = np.full(NUM_STATES, combo)
    flags = [np.full(NUM_STATES, step == kind) for kind in (CHECKOUT, QUIET, HUMAN)]
    buy, leave, cart = hazards(combos, states, flags[0], flags[1], flags[2], parameters)
    keeps, earns = purchase_value(combos, states, flags[2], parameters)
    reward = buy * (keeps * earns - (1 - keeps) * parameters.return_cost) - leave * np.asarray(parameters.annoyance)[states.patience]
    if step == HUMAN:
        return _Endings(reward - parameters.human_cost, np.zeros(NUM_STATES), np.zeros(NUM_STATES))
    return _Endings(reward, cart, 1 - buy - leave - cart)


def _after(ending: _Endings, value: Floats) -> Floats:
    """DIMS-shaped value once a step has moved the state and the shopper is about to decide."""
    carted = value[:, :, :, :, :, :, 1:2]
    return ending.reward.reshape(DIMS) + ending.cart.reshape(DIMS) * carted + ending.on.reshape(DIMS) * value


def _before(combo: int, step: int, after: Floats) -> Floats:
    """DIMS-shaped value of taking a step, given the value after it moved the state."""
    tables = step_tables()
    kind = combo // _NUM_KINDS_TYPES
    target = int(tables.targets[kind, step])
    if step == COUPON:
        after = np.concatenate([after[..., 1:2, :], after[..., 2:3, :], after[..., 2:3, :]], axis=-2)
    if step == CHECKOUT:
        after = np.repeat(after[..., 1:2], 2, axis=-1)
    nothing = _drift(tables, combo, step, NOTHING, after)
    if target < 0:
        return _once(step, nothing)
    failed, settled = _drift(tables, combo, step, FAILED, after), _drift(tables, combo, step, SETTLED, after)
    axis = 1 + target
    value = np.empty(DIMS)
    for level in range(3):
        place = (slice(None),) * axis + (level,)
        clear = (slice(None),) * axis + (0,)
        if level == 0:
            value[place] = nothing[clear]
            continue
        chance = np.full((3, 1), tables.settle[combo, step, level])
        if step == COUPON:
            chance[1:] *= 0.4
        value[place] = chance * settled[clear] + (1 - chance) * failed[place]
    return _once(step, value)


def _once(step: int, value: Floats) -> Floats:
    """The checkout is called once: the second time it is worth nothing that one would choose."""
    if step != CHECKOUT:
        return value
    return np.stack([value[..., 0], np.full(DIMS[:-1], -np.inf)], axis=-1)


def _drift(tables: StepTables, combo: int, step: int, flag: int, after: Floats) -> Floats:
    """Expectation over the moves of interest and patience that a step with this flag brings."""
    drop = float(tables.drain[combo, step, flag])
    twice = drop * float(tables.second_drain[combo, step, flag])
    rest = min(float(tables.rest[combo, step]), 1 - drop)
    patience = _kernel(5, {-2: twice, -1: drop - twice, 1: rest}, np.zeros(5))
    cool, warm = float(tables.cool[combo, step, flag]), float(tables.warm[combo, step, flag])
    decided = (np.arange(5) >= 3) * float(tables.distraction[combo, step])
    down = np.minimum(cool + decided, 0.95)
    interest = _kernel(5, {}, down) + _shift_up(np.minimum(warm, 1 - down))
    moved = np.tensordot(interest, after, axes=(1, 0))
    out: Floats = np.moveaxis(np.tensordot(patience, moved, axes=(1, 5)), 0, 5)
    return out


def _kernel(size: int, moves: dict[int, float], down: Floats) -> Floats:
    """(size, size) transition matrix, clipped at the ends; `down` (size,) are state-dependent steps down by one."""
    matrix = np.zeros((size, size))
    for row in range(size):
        matrix[row, row] += 1 - sum(moves.values()) - down[row]
        matrix[row, max(row - 1, 0)] += down[row]
        for move, chance in moves.items():
            matrix[row, min(max(row + move, 0), size - 1)] += chance
    return matrix


def _shift_up(chance: Floats) -> Floats:
    """What to add to a transition matrix so that each row moves up by one with its chance."""
    size = len(chance)
    matrix = np.zeros((size, size))
    for row in range(size):
        matrix[row, row] -= chance[row]
        matrix[row, min(row + 1, size - 1)] += chance[row]
    return matrix


assert NUM_STEPS == 12
