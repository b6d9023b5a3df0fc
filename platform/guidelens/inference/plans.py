"""The next guide steps: the policy's best one, or now and then a uniformly drawn one, always legal, with its exact propensity."""

# Letters: A = NUM_STEPS, S = MAX_STEPS, B = sessions, L = plans of a beam search, R = steps of RULE_PLAN.

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from guidelens.inference.beam import beam_search
from guidelens.inference.messages import SessionState
from guidelens.schemas.steps import MAX_STEPS, NUM_STEPS, OUTCOME_INDEX, STEP_INDEX, STEPS, UNKNOWN_OUTCOME, allowed_next

MAX_PLANNED = 4
RULE_PLAN = ("show_info", "try_on", "place_in_room", "show_3d", "show_reviews", "compare_similar", "call_to_checkout", "stay_quiet")
"""Without a model that learned to plan: the first of these that the grammar allows, again and again."""
_ENDING = (OUTCOME_INDEX["purchase"], OUTCOME_INDEX["left"])
Policy = Callable[[SessionState, NDArray[np.bool_]], NDArray[np.floating]]
"""Sessions of one length, each column (B, S) of which the first L steps count, and (B, A) what is allowed: weights (B, A) of the next step."""


def rule_policy(sessions: SessionState, allowed_BA: NDArray[np.bool_]) -> NDArray[np.floating]:
    """(B, A) all weight on the next step of RULE_PLAN, else on the first allowed one."""
    wanted = [STEP_INDEX[step] for step in RULE_PLAN]
    by_rule_BR = allowed_BA[:, wanted]
    chosen_B = np.where(by_rule_BR.any(axis=1), np.array(wanted)[by_rule_BR.argmax(axis=1)], allowed_BA.argmax(axis=1))
    weights_BA: NDArray[np.floating] = np.eye(NUM_STEPS)[chosen_B]
    return weights_BA


def next_steps(
    policy: Policy, session: SessionState, base_A: NDArray[np.bool_], explore_share: float, rng: np.random.Generator, beam: int = 1
) -> list[tuple[str, float]]:
    """Up to MAX_PLANNED steps from here on, each with the probability of it given those before; none once a session has ended.

    The best plan is the policy's by beam search (`beam` 1: greedy); where a step is drawn instead, the rest is planned anew from it. So the best
    step is one of the steps before alone, and propensities are exact. Outcomes of steps not shown yet are unknown to the policy.
    """
    if len(session.outcomes) and int(session.outcomes[-1]) in _ENDING:
        return []
    length = min(len(session.steps), MAX_STEPS)
    steps_1S = np.full((1, MAX_STEPS), -1, dtype=np.int8)
    steps_1S[0, :length] = session.steps[:length]
    until = min(length + MAX_PLANNED, MAX_STEPS)
    planned_1S = _planned(policy, session, base_A, steps_1S, length, until, beam)
    chosen: list[tuple[str, float]] = []
    for place in range(length, until):
        allowed_A = allowed_next(base_A[None], steps_1S, place)[0]
        if not allowed_A.any():
            break
        best = int(planned_1S[0, place])
        step = int(rng.choice(np.flatnonzero(allowed_A))) if rng.random() < explore_share else best
        steps_1S[0, place] = step
        chosen.append((STEPS[step].value, (1 - explore_share) * (step == best) + explore_share / int(allowed_A.sum())))
        if step != best:
            planned_1S = _planned(policy, session, base_A, steps_1S, place + 1, until, beam)
    return chosen


def _planned(
    policy: Policy, session: SessionState, base_A: NDArray[np.bool_], steps_1S: NDArray[np.int8], length: int, until: int, beam: int
) -> NDArray[np.int8]:
    """(1, S) the best plan that begins with the first `length` of `steps`, up to place `until`; only those of the session have outcomes."""

    def chances(plans_L: NDArray[np.int64], steps_LS: NDArray[np.int8], place: int, allowed_LA: NDArray[np.bool_]) -> NDArray[np.floating]:
        num = len(plans_L)
        outcomes_LS = np.where(steps_LS >= 0, UNKNOWN_OUTCOME, -1).astype(np.int8)
        view_LS, gestures_LS = np.zeros((num, MAX_STEPS), np.float32), np.zeros((num, MAX_STEPS), np.int16)
        shown = len(session.steps)
        outcomes_LS[:, :shown], view_LS[:, :shown], gestures_LS[:, :shown] = session.outcomes, session.view_ms, session.gestures
        past = SessionState(steps_LS[:, :place], outcomes_LS[:, :place], view_LS[:, :place], gestures_LS[:, :place])
        return policy(past, allowed_LA)

    return beam_search(chances, base_A[None], steps_1S, length, width=beam, horizon=until - length)
