"""What plans are worth in the simulated shop: the model beside the guide that wrote the log, its script, the best fixed plan,
the reference and the oracle, all on the same sessions and the same luck."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guidelens.data.examples import Examples
from guidelens.errors import InputError
from guidelens.evaluation.bootstrap import Interval
from guidelens.evaluation.guide import Draws
from guidelens.evaluation.plan_policies import FollowedPlans, GreedyGuide
from guidelens.evaluation.plans import open_loop
from guidelens.models.plans.asked import StepPolicy
from guidelens.world import ArSessions, World
from guidelens.world.policy import GuidePolicy

# Letters: B = AR sessions of the test split.

NOT_PEERS = ("model", "open_loop", "beam")
"""The model itself, and its plans carried out without seeing how the shopper responds."""


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


def require_its_world(world: World, planned: Examples, product_ids: Sequence[str]) -> None:
    """Shops of other seeds have sessions of the same names; what these are about tells them apart.

    Raises:
        InputError: this is not the simulated shop that the log came from.
    """
    known = set(world.ar_session_ids)
    part = planned.take(np.flatnonzero([session in known for session in planned.session_id]))
    there = world.ar_sessions(part.session_id.tolist()).product_ids if len(part) else ()
    alike = sum(product_ids[row] == product_id for row, product_id in zip(part.plan_row.tolist(), there, strict=True))
    if 2 * alike < max(1, len(part)):
        raise InputError(
            f"--world must be the folder that the log came from, got {world.root}: of {len(planned)} AR sessions of the log it has {len(part)} by name "
            f"and {alike} about the same product; give the log's own, or leave --world out"
        )


def measure_values(
    world: World, model: StepPolicy, peers: Mapping[str, StepPolicy], planned: Examples, *, rollouts: int, draws: Draws, beam: int = 1
) -> PlanValues | None:
    """Values on those planned rows that are AR sessions of the world; None where there is none.

    Args:
        peers: other policies by name, valued closed loop.
        beam: above 1, the model's open-loop plans are found by a beam of this width too.
    """
    known = set(world.ar_session_ids)
    rows = np.flatnonzero([session in known for session in planned.session_id])
    if len(rows) == 0:
        return None
    part = planned.take(rows)
    sessions = world.ar_sessions(part.session_id.tolist())

    def value(guide: GuidePolicy, *, closed_loop: bool = True) -> NDArray[np.float64]:
        return world.value(guide, sessions, draws.seed, rollouts, closed_loop=closed_loop)

    values = {"model": value(GreedyGuide(model, part)), "open_loop": value(GreedyGuide(model, part), closed_loop=False)}
    if beam > 1:
        values["beam"] = value(FollowedPlans(open_loop(model, part, beam, sessions.base)), closed_loop=False)
    values |= _of_the_world(world, sessions, rollouts, draws.seed)
    values |= {name: value(GreedyGuide(policy, part)) for name, policy in peers.items()}
    return PlanValues(
        intervals={name: draws.over(value_B, part.shopper_key) for name, value_B in values.items()},
        gain_over={name: draws.gain(values["model"], value_B, part.shopper_key) for name, value_B in values.items() if name not in NOT_PEERS},
        sessions=len(part),
    )


def _of_the_world(world: World, sessions: ArSessions, rollouts: int, seed: int) -> dict[str, NDArray[np.float64]]:
    """(B,) of the world's own policies. The oracle's is an expectation, the others' means of simulated runs with common random numbers."""
    return {
        "logging": world.logging_value(sessions, seed, rollouts),
        "script": world.value(world.script_policy(sessions), sessions, seed, rollouts),
        "fixed": world.value(world.fixed_plan_policy(sessions), sessions, seed, rollouts),
        "reference": world.reference_value(sessions, seed, rollouts),
        "oracle": world.oracle_value(sessions),
    }
