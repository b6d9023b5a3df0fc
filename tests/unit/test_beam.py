"""Beam search never leaves the grammar, is greedy at width 1 and exhaustive where it is wide enough; serving's propensities stay exact."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from guidelens.inference.beam import Chances, beam_search
from guidelens.inference.messages import SessionState
from guidelens.inference.plans import MAX_PLANNED, next_steps
from guidelens.schemas.steps import MAX_STEPS, NUM_STEPS, STEP_INDEX, STEPS, PlanContext, allowed_next, base_mask, violations

CONTEXTS = [PlanContext(try_on=kind, has_3d=has_3d) for kind in ("none", "room", "eyes") for has_3d in (False, True)]
BASES = np.stack([base_mask(context) for context in CONTEXTS])


def drawn_chances(seed: int) -> Chances:
    """A policy that depends on the plan and all its steps, drawn at random; sharper for some seeds."""
    table = np.random.default_rng(seed).normal(size=(MAX_STEPS, NUM_STEPS + 1, NUM_STEPS + 1, NUM_STEPS)) * (1 + seed % 4)

    def chances(plans: NDArray[np.int64], steps: NDArray[np.int8], length: int, allowed: NDArray[np.bool_]) -> NDArray[np.float64]:
        first, last = (steps[:, 0], steps[:, length - 1]) if length else (np.full(len(plans), -1), np.full(len(plans), -1))
        weights = np.exp(table[length, first, last] + 0.1 * plans[:, None]) * allowed
        return np.asarray(weights / weights.sum(axis=1, keepdims=True))

    return chances


def mean_log_p(chances: Chances, plan: int, steps: list[int]) -> float:
    """Of one whole plan, -inf where it breaks the grammar."""
    total, line = 0.0, np.full((1, MAX_STEPS), -1, dtype=np.int8)
    for place, step in enumerate(steps):
        allowed = allowed_next(BASES[plan : plan + 1], line, place)
        if not allowed[0, step]:
            return -np.inf
        total += float(np.log(chances(np.array([plan]), line, place, allowed)[0, step]))
        line[0, place] = step
    return total / len(steps)


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), width=st.integers(1, 9), length=st.integers(0, MAX_STEPS), horizon=st.integers(0, MAX_STEPS), draw=st.randoms())
def test_plans_of_a_beam_are_legal_and_begin_as_asked(seed: int, width: int, length: int, horizon: int, draw) -> None:
    start = np.full((len(BASES), MAX_STEPS), -1, dtype=np.int8)
    for place in range(length):
        for row, allowed in enumerate(allowed_next(BASES, start, place)):
            start[row, place] = draw.choice(np.flatnonzero(allowed).tolist()) if allowed.any() else -1
    whole = np.flatnonzero((start[:, :length] >= 0).all(axis=1))
    found = beam_search(drawn_chances(seed), BASES[whole], start[whole], length, width=width, horizon=horizon)
    for row, plan in zip(whole, found, strict=True):
        assert plan[:length].tolist() == start[row, :length].tolist()
        steps = [STEPS[step] for step in plan if step >= 0]
        assert violations(CONTEXTS[row], steps) == []
        assert plan[len(steps) :].max(initial=-1) == -1
        assert len(steps) == min(length + horizon, MAX_STEPS) or "hand_to_human" in steps


def test_width_one_takes_the_likeliest_step_each_time() -> None:
    chances = drawn_chances(3)
    found = beam_search(chances, BASES, np.full((len(BASES), MAX_STEPS), -1, dtype=np.int8), 0, width=1)
    steps = np.full_like(found, -1)
    for place in range(MAX_STEPS):
        allowed = allowed_next(BASES, steps, place)
        live = np.flatnonzero(allowed.any(axis=1))
        steps[live, place] = chances(live, steps[live], place, allowed[live]).argmax(axis=1)
    assert np.array_equal(found, steps)


@pytest.mark.parametrize("seed", range(6))
def test_a_beam_as_wide_as_all_plans_finds_the_likeliest(seed: int) -> None:
    chances, blank = drawn_chances(seed), np.full((len(BASES), MAX_STEPS), -1, dtype=np.int8)
    found = beam_search(chances, BASES, blank, 0, width=NUM_STEPS**2, horizon=3)
    greedy = beam_search(chances, BASES, blank, 0, width=1, horizon=3)
    human = STEP_INDEX["hand_to_human"]
    ways = [[human], *([step, human] for step in range(NUM_STEPS)), *map(list, itertools.product(range(NUM_STEPS), repeat=3))]
    for plan in range(len(BASES)):
        ours = mean_log_p(chances, plan, [int(step) for step in found[plan] if step >= 0])
        assert ours == pytest.approx(max(mean_log_p(chances, plan, way) for way in ways))
        assert ours >= mean_log_p(chances, plan, [int(step) for step in greedy[plan] if step >= 0]) - 1e-9


def test_propensities_of_served_steps_are_exact_with_a_beam() -> None:
    """Of many draws of the same reply: each second step, given the first, comes as often as its propensity says."""
    chances, share = drawn_chances(2), 0.5

    def policy(past: SessionState, allowed: NDArray[np.bool_]) -> NDArray[np.floating]:
        return chances(np.zeros(len(allowed), np.int64), np.asarray(past.steps, dtype=np.int8), past.steps.shape[1], allowed)

    rng = np.random.default_rng(0)
    replies = [next_steps(policy, SessionState(), BASES[1], share, rng, beam=4) for _ in range(4000)]
    assert all(len(reply) <= MAX_PLANNED for reply in replies)
    planned = max(replies, key=lambda reply: reply[0][1])[0][0]
    after = [reply[1] for reply in replies if reply[0][0] == planned]
    assert len(after) > 1500
    for step, propensity in set(after):
        assert [name for name, _ in after].count(step) / len(after) == pytest.approx(propensity, abs=0.04)
    assert sum(dict(after).values()) == pytest.approx(1.0)
