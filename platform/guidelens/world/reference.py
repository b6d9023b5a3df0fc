"""V_ref: the best guide policy found that sees only what a real guide sees, by fitted Q iteration on many simulated sessions.

Linear Q functions over a summary of the session so far, one a product kind and step, fitted backwards in rounds: each round
rolls out the policy of the rounds before with some noise. A lower bound on the best such policy, and called so.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from guidelens.schemas.ids import sub_seed
from guidelens.schemas.steps import MAX_STEPS, NUM_STEPS, allowed_next
from guidelens.world.guide_process import CART, ENGAGED, NONE, NUM_UNIFORMS, HiddenState, advance_lasting
from guidelens.world.guide_tables import ASK
from guidelens.world.latents import KINDS, Floats, Ints
from guidelens.world.parameters import GuideParameters
from guidelens.world.policy import Observed
from guidelens.world.rollout import GuideSessions

_RIDGE = 3.0
_CHUNK = 25_000
_BLOCKS = (MAX_STEPS, 2 * NUM_STEPS, 6, 12, NUM_STEPS, MAX_STEPS, MAX_STEPS)
"""Widths of the parts of a summary, but the last one: what is known of who asks."""
_EXPLORE = (1.0, 0.35, 0.25, 0.2)
_LEAST_WEIGHT = 0.15


@dataclass(frozen=True)
class Visible:
    """What a guide may know of a session before its first step: (B, V) float32 numbers and (B,) product kind."""

    numbers: NDArray[np.float32]
    kind: Ints


def features(visible: Visible, observed: Observed) -> NDArray[np.float32]:
    """(B, D) summary of sessions at one length: which step met which response, view times, gestures, the answer to a question, who asks."""
    rows, length, num = observed.session_rows, observed.length, len(observed.session_rows)
    who = visible.numbers[rows]
    x = np.zeros((num, sum(_BLOCKS) + who.shape[1]), np.float32)
    at, met, answer, mood, met_in_cart, at_in_cart, at_engaged, asks = np.split(x, np.cumsum(_BLOCKS), axis=1)
    asks[:] = who
    at[:, length] = 1
    if length == 0:
        return x
    index = np.arange(num)
    engaged, in_cart = np.zeros(num, np.float32), np.zeros(num, np.float32)
    for place in range(length):
        step, outcome = observed.steps[:, place].astype(np.int64), observed.outcomes[:, place]
        carted = outcome == CART
        liked = carted | (outcome == ENGAGED)
        met[index, 2 * step + liked] = 1
        engaged += liked
        in_cart[carted] = 1
        asked = np.flatnonzero(step == ASK)
        answer[asked, np.minimum(observed.gestures[asked, place], 5)] = 1
    seen = observed.view_ms[:, :length]
    times = (seen > 0).sum(axis=1)
    view = np.where(times > 0, np.log1p(seen).sum(axis=1) / np.maximum(times, 1) - 8.2, 0).astype(np.float32)
    taps = observed.gestures[:, :length].sum(axis=1).astype(np.float32) / length
    left = np.float32(1 - length / MAX_STEPS)
    last = (observed.outcomes[:, length - 1] == ENGAGED).astype(np.float32)
    quiet = (observed.outcomes[:, length - 1] == NONE).astype(np.float32)
    columns = (in_cart, engaged / MAX_STEPS, view, taps, last, quiet, in_cart * view, in_cart * taps, view * view, taps * taps, view * left, taps * left)
    for place, column in enumerate(columns):
        mood[:, place] = column
    met_in_cart[:] = in_cart[:, None] * met[:, 1::2]
    at_in_cart[:, length] = in_cart
    at_engaged[:, length] = last
    return x


@dataclass(frozen=True)
class QPolicy:
    """Takes the allowed step of the highest Q, but an even draw in `explore` of the steps. weights: (kinds, NUM_STEPS, D)."""

    visible: Visible
    weights: Floats
    explore: float
    draws: Floats

    def act(self, observed: Observed) -> NDArray[np.int64]:
        chosen = np.zeros(len(observed.allowed), dtype=np.int64)
        if self.explore < 1:
            chosen = best_step(features(self.visible, observed), self.visible.kind[observed.session_rows], self.weights, observed.allowed)[0]
        if self.explore == 0:
            return chosen
        draws = self.draws[observed.session_rows, observed.length]
        counts = observed.allowed.sum(axis=1)
        place = np.minimum((draws[:, 1] * counts).astype(np.int64), counts - 1)
        uniform = (observed.allowed.cumsum(axis=1) > place[:, None]).argmax(axis=1)
        return np.where(draws[:, 0] < self.explore, uniform, chosen)


def best_step(x: NDArray[np.float32], kind: Ints, weights: Floats, allowed: NDArray[np.bool_]) -> tuple[Ints, Floats]:
    """(B,) the best allowed steps and their Q; Q is 0 where none is allowed."""
    q = np.empty((len(x), NUM_STEPS))
    for one in np.unique(kind):
        mine = kind == one
        q[mine] = x[mine] @ weights[one].T.astype(np.float32)
    q[~allowed] = -np.inf
    best = q.argmax(axis=1)
    value = q[np.arange(len(x)), best]
    return best, np.where(np.isfinite(value), value, 0.0)


@dataclass(frozen=True)
class _Logs:
    """Simulated sessions made to last, (B, 8) each but length (B,) and rows (B,): the sessions they are runs of.

    value: expected at once at each step; go_on: chance that the session would have lasted; weight: product of the earlier go_on.
    """

    rows: Ints
    steps: NDArray[np.int8]
    outcomes: NDArray[np.int8]
    view_ms: NDArray[np.float32]
    gestures: NDArray[np.int16]
    value: NDArray[np.float32]
    go_on: NDArray[np.float32]
    weight: NDArray[np.float32]
    length: Ints


class ReferenceFit:
    """Fits the reference on the sessions of a world, drawn again and again until `num_sessions` were simulated.

    The simulator makes sessions last and weighs them by the chance that they do, and hands out expected values in place of drawn
    ones: far less noise from as many sessions. Values are shares of the margin, so that dear products do not outshout the rest.
    """

    def __init__(self, sessions: GuideSessions, visible: Visible, parameters: GuideParameters, seed: int) -> None:
        self.sessions, self.visible, self.parameters, self.seed = sessions, visible, parameters, seed

    def fit(self, num_sessions: int, num_rounds: int = 4) -> Floats:
        """(kinds, NUM_STEPS, D) weights."""
        width = features(self.visible, _empty(self.sessions)).shape[1]
        weights = np.zeros((len(KINDS), NUM_STEPS, width))
        a_round = num_sessions // num_rounds
        with threadpool_limits(1):
            for number in range(num_rounds):
                logs = [self._roll(weights, number, start, min(_CHUNK, a_round - start)) for start in range(0, a_round, _CHUNK)]
                weights = self._backward(logs)
        return weights

    def _roll(self, weights: Floats, number: int, start: int, num: int) -> _Logs:
        """Sessions under the policy of the round before, with noise; in round 0 all noise."""
        rng = np.random.Generator(np.random.Philox(key=sub_seed(self.seed, f"reference/{number}/{start}")))
        rows = rng.integers(0, self.sessions.num, num)
        sessions = self.sessions.take(rows)
        policy = QPolicy(Visible(self.visible.numbers[rows], self.visible.kind[rows]), weights, _EXPLORE[min(number, 3)], rng.random((num, MAX_STEPS, 2)))
        draws = rng.random((num, MAX_STEPS, NUM_UNIFORMS))
        logs = _Logs(
            rows,
            np.full((num, MAX_STEPS), -1, np.int8),
            np.full((num, MAX_STEPS), -1, np.int8),
            np.zeros((num, MAX_STEPS), np.float32),
            np.zeros((num, MAX_STEPS), np.int16),
            np.zeros((num, MAX_STEPS), np.float32),
            np.zeros((num, MAX_STEPS), np.float32),
            np.zeros((num, MAX_STEPS), np.float32),
            np.zeros(num, np.int64),
        )
        state, live, weight = HiddenState.from_columns(sessions.start), np.arange(num), np.ones(num, np.float32)
        for place in range(MAX_STEPS):
            allowed = allowed_next(sessions.base[live], logs.steps[live], place)
            step = policy.act(Observed(live, logs.steps[live], logs.outcomes[live], logs.view_ms[live], logs.gestures[live], place, allowed))
            result = advance_lasting(sessions.combo[live], sessions.kind[live], sessions.sees_ar[live], state, step, draws[live, place], self.parameters)
            logs.steps[live, place], logs.outcomes[live, place] = step, result.outcome
            logs.view_ms[live, place], logs.gestures[live, place] = result.view_ms, result.gestures
            logs.value[live, place], logs.go_on[live, place], logs.weight[live, place] = result.value, result.go_on, weight
            logs.length[live] = place + 1
            weight = weight * result.go_on.astype(np.float32)
            stays = np.flatnonzero(weight > _LEAST_WEIGHT)
            live, state, weight = live[stays], result.state.take(stays), weight[stays]
        return logs

    def _backward(self, chunks: list[_Logs]) -> Floats:
        """One backward pass: a step is worth what it brings at once, and the best Q of the moment after it."""
        logs = _Logs(*(np.concatenate([getattr(chunk, item.name) for chunk in chunks]) for item in fields(_Logs)))
        kind, base = self.visible.kind[logs.rows], self.sessions.base[logs.rows]
        visible = Visible(self.visible.numbers[logs.rows], kind)
        width = features(self.visible, _empty(self.sessions)).shape[1]
        gram, cross = np.zeros((len(KINDS), NUM_STEPS, width, width), np.float32), np.zeros((len(KINDS), NUM_STEPS, width))
        fitted = np.zeros(cross.shape)
        starts = range(0, len(logs.rows), _CHUNK)
        after: dict[int, NDArray[np.float32]] = {}
        for place in range(MAX_STEPS - 1, -1, -1):
            for start in starts:
                live = start + np.flatnonzero(logs.length[start : start + _CHUNK] > place)
                worth = self._best_after(after.get(start), base, logs, live, place + 1, fitted)
                # Of all sessions that came this far, those too that end here: the step before looks at them.
                came = live if place == 0 else start + np.flatnonzero(logs.length[start : start + _CHUNK] >= place)
                after[start] = features(visible, self._seen(logs, came, place))
                x = after[start][logs.length[came] > place]
                target = logs.value[live, place] + logs.go_on[live, place] * worth
                _accumulate(gram, cross, x, kind[live], logs.steps[live, place].astype(np.int64), target, logs.weight[live, place])
            fitted = _solve(gram, cross)
        return fitted

    def _best_after(self, x: NDArray[np.float32] | None, base: NDArray[np.bool_], logs: _Logs, live: Ints, place: int, fitted: Floats) -> Floats:
        """(B,) best Q once `place` steps were taken, of summaries x; 0 where the plan is at its end."""
        if x is None:
            return np.zeros(len(live))
        allowed = allowed_next(base[live], logs.steps[live], place)
        return best_step(x, self.visible.kind[logs.rows[live]], fitted, allowed)[1]

    def _seen(self, logs: _Logs, live: Ints, place: int) -> Observed:
        return Observed(live, logs.steps[live], logs.outcomes[live], logs.view_ms[live], logs.gestures[live], place, np.ones((len(live), NUM_STEPS), np.bool_))


def _accumulate(gram: NDArray[np.float32], cross: Floats, x: NDArray[np.float32], kind: Ints, step: Ints, target: Floats, weight: NDArray[np.float32]) -> None:
    """Adds weighted samples to the normal equations of each kind and step."""
    order = np.argsort(kind * NUM_STEPS + step, kind="stable")
    groups, starts = np.unique((kind * NUM_STEPS + step)[order], return_index=True)
    for group, part in zip(groups, np.split(order, starts[1:]), strict=True):
        mine = x[part]
        weighted = mine * weight[part, None]
        gram[group // NUM_STEPS, group % NUM_STEPS] += weighted.T @ mine
        cross[group // NUM_STEPS, group % NUM_STEPS] += weighted.T @ target[part]


def _solve(gram: NDArray[np.float32], cross: Floats) -> Floats:
    width = gram.shape[-1]
    weights = np.zeros(cross.shape)
    for one in range(gram.shape[0]):
        for action in range(NUM_STEPS):
            if gram[one, action].any():
                weights[one, action] = np.linalg.solve(gram[one, action].astype(np.float64) + _RIDGE * np.eye(width), cross[one, action])
            else:
                weights[one, action, :MAX_STEPS] = -1.0
    return weights


def _empty(sessions: GuideSessions) -> Observed:
    one = np.zeros(1, np.int64)
    return Observed(
        one, np.full((1, 8), -1, np.int8), np.full((1, 8), -1, np.int8), np.zeros((1, 8), np.float32), np.zeros((1, 8), np.int16), 0, sessions.base[:1]
    )
