"""What off-policy evaluation reads: logged plans of several steps, or logged choices of one, with the propensity of what was done.

Knows nothing of models or the world: the new policy comes as its probabilities at the logged histories.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from guidelens.errors import ShapeError
from guidelens.schemas.steps import NUM_STEPS

# Letters: B = logged sessions or choices, S = places of a plan, A = actions (NUM_STEPS for plans), D = numbers of the context, P = positions.


class LoggedPlans(NamedTuple):
    """Sessions as logged, and what the new policy would do at each of their histories.

    (B, S): `steps` indices, -1 after the end; `outcomes` after each step; `propensity` of the logged step, in (0, 1]; `reward`
    earned after each step, in minor units, 0 after the end. `target` (B, S, A): the new policy's probability of each step.
    `context` (B, D): what is known before the first step, for the value model only. `clusters` (B,): whose sessions are not
    independent of each other, such as shoppers; each by itself where None. `scale` (B,): positive, what rewards are in proportion
    to, such as the price in view; the value model learns shares of it. 1 where None.
    """

    steps: NDArray[np.integer]
    outcomes: NDArray[np.integer]
    propensity: NDArray[np.floating]
    reward: NDArray[np.floating]
    target: NDArray[np.floating]
    context: NDArray[np.floating]
    clusters: NDArray[np.generic] | None = None
    scale: NDArray[np.floating] | None = None

    def check(self) -> None:
        """Raises ShapeError where arrays do not agree, a scale is not positive, or a logged step has no propensity."""
        shape = self.steps.shape
        if any(part.shape != shape for part in (self.outcomes, self.propensity, self.reward)) or self.target.shape != (*shape, NUM_STEPS):
            raise ShapeError(
                f"a log of {shape} needs outcomes, propensities and rewards of that shape and targets (B, S, {NUM_STEPS}), got {self.target.shape}"
            )
        if self.scale is not None and not bool(np.all(self.scale > 0)):
            raise ShapeError("scales of rewards must be positive; leave sessions without one out, or give them the mean")
        _check_propensities(self.propensity[self.steps >= 0])


class LoggedChoices(NamedTuple):
    """Single choices as logged: an item shown at a position, and what it earned (a click, say).

    (B,): `actions` in [0, A), `positions` in [0, P), `propensity` of the action at its position, `reward`. `target` (B, A): the
    new policy's probability of each action there. `context` (B, D) and `clusters` as in LoggedPlans.
    """

    actions: NDArray[np.integer]
    positions: NDArray[np.integer]
    propensity: NDArray[np.floating]
    reward: NDArray[np.floating]
    target: NDArray[np.floating]
    context: NDArray[np.floating]
    clusters: NDArray[np.generic] | None = None

    def check(self) -> None:
        """Raises ShapeError where arrays do not agree, an action is out of range, or a choice has no propensity."""
        shape = self.actions.shape
        if any(part.shape != shape for part in (self.positions, self.propensity, self.reward)) or self.target.shape[:1] != shape or self.target.ndim != 2:
            raise ShapeError(f"a log of {shape} choices needs positions, propensities and rewards of that shape and targets (B, A), got {self.target.shape}")
        if len(self.actions) and not (self.actions.min() >= 0 and self.actions.max() < self.target.shape[1]):
            raise ShapeError(f"logged actions must lie in [0, {self.target.shape[1]}), got {self.actions.min()} to {self.actions.max()}")
        _check_propensities(self.propensity)


def _check_propensities(known: NDArray[np.floating]) -> None:
    if not bool(np.all((known > 0) & (known <= 1))):
        raise ShapeError("every logged step needs a propensity in (0, 1]; sessions without them must be left out")
