"""T3 of a fitted guide model: legal plans, likeness to the log, and what the log says its own plans would have earned."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guidelens.data.examples import Examples
from guidelens.evaluation.offpolicy import LoggedPlans
from guidelens.evaluation.sequence import illegal_plans, lengths, match_rows
from guidelens.inference.scorer import GuideScorer
from guidelens.schemas.steps import MAX_STEPS, NUM_STEPS, UNKNOWN_OUTCOME, allowed_next

# Letters: B = logged plans, S = MAX_STEPS, A = NUM_STEPS.


@dataclass(frozen=True)
class LogLikeness:
    """Beside B logged plans: shares in [0, 1]. `decoded` counts open-loop plans and plans completed on logged histories."""

    plans: int
    decoded: int
    illegal: float
    match: float
    step_accuracy: float
    exact_match: float


def with_plans(examples: Examples) -> Examples:
    """The rows whose session has a plan and a known product in view."""
    return examples.take(np.flatnonzero((examples.steps[:, 0] >= 0) & (examples.plan_row >= 0)))


def step_base(scorer: GuideScorer, planned: Examples) -> NDArray[np.bool_]:
    """(B, A) what product and device allow at all."""
    return scorer.catalogue.grammar_base(planned.plan_row, planned.device)


def open_loop(scorer: GuideScorer, planned: Examples) -> NDArray[np.int8]:
    """(B, S) greedy plans made before anything was shown: outcomes unknown, nothing viewed."""
    base_BA = step_base(scorer, planned)
    num = len(planned)
    steps_BS = np.full((num, MAX_STEPS), -1, dtype=np.int8)
    view_BS, gestures_BS = np.zeros((num, MAX_STEPS), dtype=np.float32), np.zeros((num, MAX_STEPS), dtype=np.int16)
    live = np.arange(num)
    for length in range(MAX_STEPS):
        allowed = allowed_next(base_BA[live], steps_BS[live], length)
        live, allowed = live[allowed.any(axis=1)], allowed[allowed.any(axis=1)]
        if len(live) == 0:
            break
        outcomes = np.where(steps_BS[live] >= 0, UNKNOWN_OUTCOME, -1)
        chances = scorer.step_probabilities(planned, live, steps_BS[live], outcomes, view_BS[live], gestures_BS[live], length, allowed)
        steps_BS[live, length] = chances.argmax(axis=1)
    return steps_BS


def on_logged_histories(scorer: GuideScorer, planned: Examples) -> NDArray[np.float32]:
    """(B, S, A) the model's probability of each next step, given what was logged so far; zeros past a plan's end."""
    base_BA, ends = step_base(scorer, planned), lengths(planned.steps)
    chances_BSA = np.zeros((len(planned), MAX_STEPS, NUM_STEPS), dtype=np.float32)
    for length in range(MAX_STEPS):
        rows = np.flatnonzero(ends > length)
        if len(rows) == 0:
            break
        allowed = allowed_next(base_BA[rows], planned.steps[rows], length)
        past = (planned.steps[rows], planned.outcomes[rows], planned.view_ms[rows], planned.gestures[rows])
        chances_BSA[rows, length] = scorer.step_probabilities(planned, rows, *past, length, allowed)
    return chances_BSA


def measure_likeness(scorer: GuideScorer, planned: Examples, chances_BSA: NDArray[np.float32]) -> LogLikeness:
    """Legality and likeness. Open-loop plans are cut to the logged plan's length before they are compared."""
    base_BA, ends = step_base(scorer, planned), lengths(planned.steps)
    opened_BS = open_loop(scorer, planned)
    there_BS = np.arange(MAX_STEPS) < ends[:, None]
    guessed_BS = np.where(there_BS, chances_BSA.argmax(axis=2), -1)
    cut_BS = np.where(there_BS, opened_BS, -1)
    matches_B = match_rows(cut_BS, planned.steps)
    broken = illegal_plans(base_BA, opened_BS).sum() + _illegal_continuations(base_BA, planned, guessed_BS)
    return LogLikeness(
        plans=len(planned),
        decoded=2 * len(planned),
        illegal=float(broken / (2 * len(planned))),
        match=float(matches_B.mean()),
        step_accuracy=float((guessed_BS == planned.steps)[there_BS].mean()),
        exact_match=float((cut_BS == planned.steps).all(axis=1).mean()),
    )


def _illegal_continuations(base_BA: NDArray[np.bool_], planned: Examples, guessed_BS: NDArray[np.integer]) -> int:
    """How many plans got a step proposed, after some logged history, that the grammar forbids there."""
    broken = np.zeros(len(planned), dtype=np.bool_)
    for length in range(MAX_STEPS):
        rows = np.flatnonzero(guessed_BS[:, length] >= 0)
        if len(rows):
            allowed = allowed_next(base_BA[rows], planned.steps[rows], length)
            broken[rows] |= ~allowed[np.arange(len(rows)), guessed_BS[rows, length]]
    return int(broken.sum())


def greedy(chances_BSA: NDArray[np.float32]) -> NDArray[np.float32]:
    """The policy that always takes the likeliest step; zeros stay zeros."""
    taken = np.eye(NUM_STEPS, dtype=np.float32)[chances_BSA.argmax(axis=2)]
    return np.where(chances_BSA.sum(axis=2, keepdims=True) > 0, taken, 0)


def logged_plans(scorer: GuideScorer, planned: Examples, target_BSA: NDArray[np.float32]) -> LoggedPlans | None:
    """The plans whose every step was logged with its propensity, and what a policy would do at their histories; None where there are none."""
    there_BS = planned.steps >= 0
    known_B = np.where(there_BS, np.isfinite(planned.step_propensity) & (planned.step_propensity > 0), True).all(axis=1)
    rows = np.flatnonzero(known_B)
    if len(rows) == 0:
        return None
    part = planned.take(rows)
    return LoggedPlans(
        steps=part.steps.astype(np.int64),
        outcomes=part.outcomes.astype(np.int64),
        propensity=part.step_propensity.astype(np.float64),
        reward=_rewards(part),
        target=target_BSA[rows].astype(np.float64),
        context=_context(scorer, part),
        clusters=part.shopper_key.astype(str),
        scale=_prices(scorer, part),
    )


def _rewards(planned: Examples) -> NDArray[np.float64]:
    """(B, S) what each step earned, from what it and those after it earned."""
    to_come = np.where(planned.steps >= 0, planned.returns, 0).astype(np.float64)
    to_come[:, :-1] -= to_come[:, 1:].copy()
    return to_come


def _context(scorer: GuideScorer, planned: Examples) -> NDArray[np.float64]:
    """(B, D) what the value model of the doubly robust estimate knows at the start: the grammar's base and the price."""
    return np.column_stack([step_base(scorer, planned).astype(np.float64), np.log(_prices(scorer, planned))])


def _prices(scorer: GuideScorer, planned: Examples) -> NDArray[np.float64]:
    """(B,) price in view over the mean price, which stands in where there is none."""
    price_N = scorer.catalogue.price_N
    known_N = np.isfinite(price_N) & (price_N > 0)
    mean = float(price_N[known_N].mean()) if known_N.any() else 1.0
    relative: NDArray[np.float64] = np.where(known_N, price_N, mean)[planned.plan_row] / mean
    return relative
