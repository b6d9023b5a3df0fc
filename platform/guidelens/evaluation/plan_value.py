"""What plans are worth in the simulated shop: the model beside the guide that wrote the log, its script, the best fixed plan,
the reference and the oracle, all on the same sessions and the same luck."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guidelens.data.examples import Examples
from guidelens.evaluation.bootstrap import Interval
from guidelens.evaluation.guide import Draws
from guidelens.inference.scorer import GuideScorer
from guidelens.world import ArSessions, Observed, World

# Letters: B = AR sessions of the test split.

PEERS = ("logging", "script", "fixed", "single_task", "reference", "oracle")


@dataclass(frozen=True)
class GreedyGuide:
    """A fitted model as a guide: its likeliest allowed step, given what a guide may see. `planned`: one row a session, in their order."""

    scorer: GuideScorer
    planned: Examples

    def act(self, observed: Observed) -> NDArray[np.int64]:
        past = (observed.steps, observed.outcomes, observed.view_ms, observed.gestures)
        chances = self.scorer.step_probabilities(self.planned, observed.session_rows, *past, observed.length, observed.allowed)
        return np.asarray(np.where(observed.allowed, chances, -1.0).argmax(axis=1), dtype=np.int64)


@dataclass(frozen=True)
class PlanValues:
    """Minor units a session: mean and interval by policy, and the paired gains of the model over its peers."""

    intervals: dict[str, Interval]
    gain_over: dict[str, Interval]
    sessions: int

    @property
    def gap_closed(self) -> float | None:
        """(model - logging) / (reference - logging); None where the reference is no better than the log."""
        model, logging, reference = (self.intervals[name].value for name in ("model", "logging", "reference"))
        return (model - logging) / (reference - logging) if reference > logging else None


def measure_values(world: World, scorer: GuideScorer, single_task: GuideScorer | None, planned: Examples, *, rollouts: int, draws: Draws) -> PlanValues | None:
    """Values on those planned rows that are AR sessions of the world; None where there is none."""
    known = set(world.ar_session_ids)
    rows = np.flatnonzero([session in known for session in planned.session_id])
    if len(rows) == 0:
        return None
    part = planned.take(rows)
    sessions = world.ar_sessions(part.session_id.tolist())
    values = _values(world, scorer, single_task, part, sessions, rollouts, draws.seed)
    return PlanValues(
        intervals={name: draws.over(value_B, part.shopper_key) for name, value_B in values.items()},
        gain_over={name: draws.gain(values["model"], values[name], part.shopper_key) for name in PEERS if name in values},
        sessions=len(part),
    )


def _values(
    world: World, scorer: GuideScorer, single_task: GuideScorer | None, part: Examples, sessions: ArSessions, rollouts: int, seed: int
) -> dict[str, NDArray[np.float64]]:
    """(B,) of each policy. The oracle's is an expectation, the others' means of simulated runs with common random numbers."""
    guide = GreedyGuide(scorer, part)
    values = {
        "model": world.value(guide, sessions, seed, rollouts),
        "open_loop": world.value(guide, sessions, seed, rollouts, closed_loop=False),
        "logging": world.logging_value(sessions, seed, rollouts),
        "script": world.value(world.script_policy(sessions), sessions, seed, rollouts),
        "fixed": world.value(world.fixed_plan_policy(sessions), sessions, seed, rollouts),
        "reference": world.reference_value(sessions, seed, rollouts),
        "oracle": world.oracle_value(sessions),
    }
    if single_task is not None:
        values["single_task"] = world.value(GreedyGuide(single_task, part), sessions, seed, rollouts)
    return values
