"""Runs a guide policy through simulated AR sessions. The log and every value the world reports come out of this one loop."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guidelens.schemas.ids import sub_seed
from guidelens.schemas.steps import MAX_STEPS, UNKNOWN_OUTCOME, allowed_next
from guidelens.world.guide_process import NUM_UNIFORMS, HiddenState, advance
from guidelens.world.latents import Floats, Ints
from guidelens.world.parameters import GuideParameters
from guidelens.world.policy import GuidePolicy, LoggingPolicy, Observed

_BLOCK = 4096


@dataclass(frozen=True)
class GuideSessions:
    """The AR sessions a policy is run on, hidden truth included. (B,) each; start (B, 9) columns as DIMS; base (B, NUM_STEPS) bool.

    row: the session's number among all AR sessions of its world, which keys its random draws. margin: minor units.
    """

    row: Ints
    kind: Ints
    combo: Ints
    sees_ar: NDArray[np.bool_]
    start: NDArray[np.int64]
    base: NDArray[np.bool_]
    margin: Floats

    @property
    def num(self) -> int:
        return len(self.kind)

    def take(self, rows: NDArray[np.int64]) -> "GuideSessions":
        return GuideSessions(self.row[rows], self.kind[rows], self.combo[rows], self.sees_ar[rows], self.start[rows], self.base[rows], self.margin[rows])


@dataclass(frozen=True)
class Rollout:
    """What happened, (B, 8) each (-1 or 0 past a session's end) but value (B,): minor units, and kept (B,): bought and not returned."""

    steps: NDArray[np.int8]
    outcomes: NDArray[np.int8]
    view_ms: NDArray[np.float32]
    gestures: NDArray[np.int16]
    propensity: Floats
    coupons: Ints
    value: Floats
    kept: NDArray[np.bool_]


def run(sessions: GuideSessions, policy: GuidePolicy, draws: Floats, parameters: GuideParameters, *, closed_loop: bool = True) -> Rollout:
    """Simulates every session to its end.

    Args:
        draws: (B, 8, NUM_UNIFORMS) uniforms; the same draws for two policies are common random numbers.
        closed_loop: False hides outcomes, view times and gestures from the policy (outcomes read UNKNOWN_OUTCOME).
    """
    num = sessions.num
    steps, outcomes = np.full((num, MAX_STEPS), -1, np.int8), np.full((num, MAX_STEPS), -1, np.int8)
    view_ms, gestures = np.zeros((num, MAX_STEPS), np.float32), np.zeros((num, MAX_STEPS), np.int16)
    propensity, value, kept = np.zeros((num, MAX_STEPS)), np.zeros(num), np.zeros(num, dtype=np.bool_)
    coupons = np.zeros(num, dtype=np.int64)
    state, live = HiddenState.from_columns(sessions.start), np.arange(num)
    for length in range(MAX_STEPS):
        allowed = allowed_next(sessions.base[live], steps[live], length)
        keeps = allowed.any(axis=1)
        live, allowed, state = live[keeps], allowed[keeps], state.take(np.flatnonzero(keeps))
        if len(live) == 0:
            break
        seen = Observed(
            live,
            steps[live],
            outcomes[live] if closed_loop else np.where(outcomes[live] >= 0, UNKNOWN_OUTCOME, -1).astype(np.int8),
            view_ms[live] if closed_loop else np.zeros((len(live), MAX_STEPS), np.float32),
            gestures[live] if closed_loop else np.zeros((len(live), MAX_STEPS), np.int16),
            length,
            allowed,
        )
        if isinstance(policy, LoggingPolicy):
            chosen, propensity[live, length] = policy.act_with_propensity(seen)
        else:
            chosen = np.asarray(policy.act(seen), dtype=np.int64)
        assert allowed[np.arange(len(live)), chosen].all(), "a policy chose a step that the grammar forbids"
        result = advance(sessions.combo[live], sessions.kind[live], sessions.sees_ar[live], state, chosen, draws[live, length], parameters)
        steps[live, length], outcomes[live, length] = chosen, result.outcome
        view_ms[live, length], gestures[live, length] = result.view_ms, result.gestures
        value[live] += result.value * sessions.margin[live]
        kept[live] |= result.kept
        coupons[live] = result.state.coupons
        goes_on = ~result.ended
        live, state = live[goes_on], result.state.take(np.flatnonzero(goes_on))
    return Rollout(steps, outcomes, view_ms, gestures, propensity, coupons, value, kept)


def session_draws(rows: Ints, seed: int, name: str, width: int = NUM_UNIFORMS) -> Floats:
    """(B, 8, width) uniforms of sessions, keyed by (seed, name, session row): the same in whatever company a session comes."""
    draws = np.empty((len(rows), MAX_STEPS, width))
    blocks = rows // _BLOCK
    for block in np.unique(blocks):
        bits = np.random.Philox(key=sub_seed(seed, name), counter=[0, 0, 0, int(block)])
        whole = np.random.Generator(bits).random((_BLOCK, MAX_STEPS, width))
        inside = blocks == block
        draws[inside] = whole[rows[inside] % _BLOCK]
    return draws
