"""The best fixed order of guide steps for each kind of product: a baseline that learns from the simulator but not from the shopper in front of it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guidelens.schemas.ids import sub_seed
from guidelens.schemas.steps import MAX_STEPS, NUM_STEPS
from guidelens.world.guide_process import NUM_UNIFORMS
from guidelens.world.latents import KINDS, Ints
from guidelens.world.parameters import GuideParameters
from guidelens.world.policy import Observed, plan_step, script_plans
from guidelens.world.rollout import GuideSessions, run

_SESSIONS_A_KIND = 1500


@dataclass(frozen=True)
class _ManyPlans:
    """One plan a session: which lets many plans be tried in one rollout."""

    plans: NDArray[np.int64]

    def act(self, observed: Observed) -> NDArray[np.int64]:
        rows = observed.session_rows
        return plan_step(self.plans[rows], np.arange(len(rows)), observed.allowed)


def best_fixed_plans(sessions: GuideSessions, parameters: GuideParameters, seed: int) -> Ints:
    """(kinds, 8) orders of steps: coordinate search from the script, place by place, on common random numbers."""
    plans = script_plans(KINDS)
    for kind in range(len(KINDS)):
        rows = np.flatnonzero(sessions.kind == kind)
        if len(rows):
            plans[kind] = _search(sessions, rows, plans[kind], parameters, sub_seed(seed, f"kind/{kind}"))
    return plans


def _search(sessions: GuideSessions, rows: Ints, plan: Ints, parameters: GuideParameters, seed: int) -> Ints:
    rng = np.random.Generator(np.random.Philox(key=seed))
    picked = rows[rng.integers(0, len(rows), _SESSIONS_A_KIND)]
    draws = rng.random((_SESSIONS_A_KIND, MAX_STEPS, NUM_UNIFORMS))
    sample = sessions.take(np.tile(picked, NUM_STEPS))
    repeated = np.tile(draws, (NUM_STEPS, 1, 1))
    best = plan
    for _ in range(2):
        for place in range(MAX_STEPS):
            tried = np.stack([_with_step(best, place, step) for step in range(NUM_STEPS)])
            values = run(sample, _ManyPlans(np.repeat(tried, _SESSIONS_A_KIND, axis=0)), repeated, parameters).value
            best = tried[values.reshape(NUM_STEPS, -1).mean(axis=1).argmax()]
    return best


def _with_step(plan: Ints, place: int, step: int) -> Ints:
    """The plan with `step` put in at `place`; where it was elsewhere, the two change places."""
    changed = plan.copy()
    elsewhere = np.flatnonzero(plan == step)
    if len(elsewhere):
        changed[elsewhere[0]] = plan[place]
    changed[place] = step
    return changed
