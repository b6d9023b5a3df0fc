"""The next guide steps: the policy's best one, or now and then a uniformly drawn one, always legal, with its exact propensity."""

# Letters: A = NUM_STEPS.

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from guidelens.inference.messages import SessionState
from guidelens.schemas.steps import MAX_STEPS, NUM_STEPS, OUTCOME_INDEX, STEP_INDEX, STEPS, UNKNOWN_OUTCOME, allowed_next

MAX_PLANNED = 4
RULE_PLAN = ("show_info", "try_on", "place_in_room", "show_3d", "show_reviews", "compare_similar", "call_to_checkout", "stay_quiet")
"""Without a model that learned to plan: the first of these that the grammar allows, again and again."""
_ENDING = (OUTCOME_INDEX["purchase"], OUTCOME_INDEX["left"])
Policy = Callable[[SessionState, NDArray[np.bool_]], NDArray[np.floating]]


def rule_policy(session: SessionState, allowed_A: NDArray[np.bool_]) -> NDArray[np.floating]:
    """(A,) all weight on the next step of RULE_PLAN, else on the first allowed one."""
    chosen = next((STEP_INDEX[step] for step in RULE_PLAN if allowed_A[STEP_INDEX[step]]), int(np.argmax(allowed_A)))
    weights_A: NDArray[np.floating] = (np.arange(NUM_STEPS) == chosen).astype(np.float64)
    return weights_A


def next_steps(policy: Policy, session: SessionState, base_A: NDArray[np.bool_], explore_share: float, rng: np.random.Generator) -> list[tuple[str, float]]:
    """Up to MAX_PLANNED steps from here on, each with the probability of it given those before; none once a session has ended.

    Outcomes of steps not shown yet are unknown to the policy.
    """
    if len(session.outcomes) and int(session.outcomes[-1]) in _ENDING:
        return []
    chosen: list[tuple[str, float]] = []
    while len(chosen) < MAX_PLANNED and len(session.steps) < MAX_STEPS:
        allowed_A = allowed_next(base_A[None], session.steps[None].astype(np.int64), len(session.steps))[0]
        if not allowed_A.any():
            break
        weights_A = np.where(allowed_A, policy(session, allowed_A), -1.0)
        best = int(np.argmax(weights_A))
        step = int(rng.choice(np.flatnonzero(allowed_A))) if rng.random() < explore_share else best
        chosen.append((STEPS[step].value, (1 - explore_share) * (step == best) + explore_share / int(allowed_A.sum())))
        session = SessionState(
            np.append(session.steps, step), np.append(session.outcomes, UNKNOWN_OUTCOME), np.append(session.view_ms, 0.0), np.append(session.gestures, 0)
        )
    return chosen
