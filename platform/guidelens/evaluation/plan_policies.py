"""From policies that answer with chances to guides that act in the simulated shop, and back."""

# Letters: B = plans asked about or sessions, S = MAX_STEPS, A = NUM_STEPS.

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guidelens.data.examples import Examples
from guidelens.models.items import Catalogue
from guidelens.models.plans.asked import Asked, StepPolicy
from guidelens.schemas.steps import NUM_STEPS
from guidelens.world import Observed
from guidelens.world.policy import GuidePolicy


class ActedSteps:
    """A policy of the simulated shop (script, fixed plans): all weight on the step it takes. Rows of `Asked` must be the sessions it was made for."""

    def __init__(self, policy: GuidePolicy, catalogue: Catalogue) -> None:
        self.policy, self.catalogue = policy, catalogue

    def step_chances(self, asked: Asked) -> NDArray[np.float32]:
        seen = Observed(
            asked.rows.astype(np.int64),
            asked.steps.astype(np.int8),
            asked.outcomes.astype(np.int8),
            asked.view_ms.astype(np.float32),
            asked.gestures.astype(np.int16),
            asked.length,
            asked.allowed,
        )
        return np.eye(NUM_STEPS, dtype=np.float32)[self.policy.act(seen)]


@dataclass(frozen=True)
class GreedyGuide:
    """A policy as a guide: its likeliest allowed step, given what a guide may see. `planned`: one row a session, in their order."""

    policy: StepPolicy
    planned: Examples

    def act(self, observed: Observed) -> NDArray[np.int64]:
        past = (observed.steps, observed.outcomes, observed.view_ms, observed.gestures)
        chances = self.policy.step_chances(Asked(self.planned, observed.session_rows, *past, observed.length, observed.allowed))
        return np.asarray(np.where(observed.allowed, chances, -1.0).argmax(axis=1), dtype=np.int64)


@dataclass(frozen=True)
class FollowedPlans:
    """Plans made beforehand, one a session, carried out whatever happens."""

    steps_BS: NDArray[np.int8]

    def act(self, observed: Observed) -> NDArray[np.int64]:
        steps: NDArray[np.int64] = self.steps_BS[observed.session_rows, observed.length].astype(np.int64)
        return steps
