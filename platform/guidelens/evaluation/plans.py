"""T3 of a fitted guide model: legal plans, likeness to the log, and what the log says its own plans would have earned."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guidelens.data.examples import Examples
from guidelens.evaluation.offpolicy import LoggedPlans
from guidelens.evaluation.report import PlanScores
from guidelens.evaluation.sequence import PlanLikeness, illegal_plans, lengths, likeness, step_distance
from guidelens.inference.beam import beam_search
from guidelens.models.plans.asked import Asked, StepPolicy
from guidelens.schemas.steps import MAX_STEPS, NUM_STEPS, UNKNOWN_OUTCOME, allowed_next

# Letters: B = logged plans, S = MAX_STEPS, A = NUM_STEPS.


@dataclass(frozen=True)
class LogLikeness:
    """Beside B logged plans. free: open-loop plans, made from nothing but the session's start, cut to the logged plans' lengths. forced: the
    likeliest next step after each logged history. `decoded` counts both; illegal: share of them that break the grammar.

    step_distance: of how often each step is taken in the free plans and in the log (total variation). length, logged_length: mean steps of a
    plan, carried out to its end, and of a logged one, which ends where the shopper buys or leaves.
    """

    plans: int
    decoded: int
    illegal: float
    free: PlanLikeness
    forced: PlanLikeness
    step_distance: float
    length: float
    logged_length: float


def with_plans(examples: Examples) -> Examples:
    """The rows whose session has a plan and a known product in view."""
    return examples.take(np.flatnonzero((examples.steps[:, 0] >= 0) & (examples.plan_row >= 0)))


def step_base(policy: StepPolicy, planned: Examples) -> NDArray[np.bool_]:
    """(B, A) what product and device allow at all."""
    return policy.catalogue.grammar_base(planned.plan_row, planned.device)


def open_loop(policy: StepPolicy, planned: Examples, width: int = 1, base_BA: NDArray[np.bool_] | None = None) -> NDArray[np.int8]:
    """(B, S) plans made before anything was shown, by beam search: outcomes unknown, nothing viewed. Width 1 is greedy.

    Args:
        base_BA: what product and device allow at all; by default as the policy's catalogue has it.
    """
    base_BA = step_base(policy, planned) if base_BA is None else base_BA

    def chances(plans_L: NDArray[np.int64], steps_LS: NDArray[np.int8], length: int, allowed_LA: NDArray[np.bool_]) -> NDArray[np.floating]:
        outcomes_LS = np.where(steps_LS >= 0, UNKNOWN_OUTCOME, -1).astype(np.int8)
        nothing = np.zeros(steps_LS.shape)
        return policy.step_chances(Asked(planned, plans_L, steps_LS, outcomes_LS, nothing.astype(np.float32), nothing.astype(np.int16), length, allowed_LA))

    return beam_search(chances, base_BA, np.full((len(planned), MAX_STEPS), -1, dtype=np.int8), 0, width=width)


def on_logged_histories(policy: StepPolicy, planned: Examples) -> NDArray[np.float32]:
    """(B, S, A) a policy's probability of each next step, given what was logged so far; zeros past a plan's end."""
    base_BA, ends = step_base(policy, planned), lengths(planned.steps)
    chances_BSA = np.zeros((len(planned), MAX_STEPS, NUM_STEPS), dtype=np.float32)
    for length in range(MAX_STEPS):
        rows = np.flatnonzero(ends > length)
        if len(rows) == 0:
            break
        allowed = allowed_next(base_BA[rows], planned.steps[rows], length)
        past = (planned.steps[rows], planned.outcomes[rows], planned.view_ms[rows], planned.gestures[rows])
        chances_BSA[rows, length] = policy.step_chances(Asked(planned, rows, *past, length, allowed))
    return chances_BSA


def measure_likeness(policy: StepPolicy, planned: Examples, chances_BSA: NDArray[np.float32], width: int = 1) -> LogLikeness:
    """Legality and likeness to the log.

    Args:
        chances_BSA: the policy's `on_logged_histories`.
        width: of the beam that finds the open-loop plans.
    """
    base_BA, ends = step_base(policy, planned), lengths(planned.steps)
    opened_BS = open_loop(policy, planned, width)
    guessed_BS = np.where(planned.steps >= 0, chances_BSA.argmax(axis=2), -1)
    broken = illegal_plans(base_BA, opened_BS).sum() + _illegal_continuations(base_BA, planned, guessed_BS)
    free_BS = np.where(planned.steps >= 0, opened_BS, -1)
    return LogLikeness(
        plans=len(planned),
        decoded=2 * len(planned),
        illegal=float(broken / (2 * len(planned))),
        free=likeness(free_BS, planned.steps),
        forced=likeness(guessed_BS, planned.steps),
        step_distance=step_distance(free_BS, planned.steps),
        length=float(lengths(opened_BS).mean()),
        logged_length=float(ends.mean()),
    )


def as_scores(found: LogLikeness) -> PlanScores:
    """As the report has it."""
    return PlanScores(
        illegal=found.illegal,
        **{f"free_{name}": value for name, value in vars(found.free).items()},
        **{f"forced_{name}": value for name, value in vars(found.forced).items()},
        step_distance=found.step_distance,
        length=found.length,
        logged_length=found.logged_length,
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


def logged_plans(policy: StepPolicy, planned: Examples, target_BSA: NDArray[np.float32]) -> LoggedPlans | None:
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
        context=_context(policy, part),
        clusters=part.shopper_key.astype(str),
        scale=_prices(policy, part),
    )


def _rewards(planned: Examples) -> NDArray[np.float64]:
    """(B, S) what each step earned, from what it and those after it earned."""
    to_come = np.where(planned.steps >= 0, planned.returns, 0).astype(np.float64)
    to_come[:, :-1] -= to_come[:, 1:].copy()
    return to_come


def _context(policy: StepPolicy, planned: Examples) -> NDArray[np.float64]:
    """(B, D) what the value model of the doubly robust estimate knows at the start: the grammar's base and the price."""
    return np.column_stack([step_base(policy, planned).astype(np.float64), np.log(_prices(policy, planned))])


def _prices(policy: StepPolicy, planned: Examples) -> NDArray[np.float64]:
    """(B,) price in view over the mean price, which stands in where there is none."""
    price_N = policy.catalogue.price_N
    known_N = np.isfinite(price_N) & (price_N > 0)
    mean = float(price_N[known_N].mean()) if known_N.any() else 1.0
    relative: NDArray[np.float64] = np.where(known_N, price_N, mean)[planned.plan_row] / mean
    return relative
