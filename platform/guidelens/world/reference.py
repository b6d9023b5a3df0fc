"""V_ref: the best guide policy found that sees only what a real guide sees, by fitted Q iteration on many simulated sessions.

Linear Q functions over a summary of the session so far, one a product kind and step, fitted backwards in rounds: each round
rolls out the policy of the rounds before with some noise. A lower bound on the best such policy, and called so.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guidelens.schemas.ids import sub_seed
from guidelens.schemas.steps import MAX_STEPS, NUM_STEPS, allowed_next
from guidelens.world.guide_process import CART, ENGAGED, LEFT, NONE, PURCHASE
from guidelens.world.guide_tables import ASK
from guidelens.world.latents import KINDS, Floats, Ints
from guidelens.world.parameters import GuideParameters
from guidelens.world.policy import Observed
from guidelens.world.rollout import GuideSessions, Rollout, run, session_draws

_RIDGE = 3.0
_CHUNK = 50_000


@dataclass(frozen=True)
class Visible:
    """What a guide may know of a session before its first step: (B, V) float32 numbers and (B,) product kind."""

    numbers: NDArray[np.float32]
    kind: Ints


def features(visible: Visible, observed: Observed) -> NDArray[np.float32]:
    """(B, D) summary of sessions at one length: which step met which response, view times, gestures, the answer to a question, who asks."""
    rows, length = observed.session_rows, observed.length
    num = len(rows)
    who = visible.numbers[rows]
    steps, outcomes = observed.steps[:, :length].astype(np.int64), observed.outcomes[:, :length].astype(np.int64)
    met = np.zeros((num, NUM_STEPS, 2), np.float32)
    index = np.arange(num)
    answer = np.zeros((num, 6), np.float32)
    engaged = np.zeros(num, np.float32)
    for place in range(length):
        liked = np.isin(outcomes[:, place], (ENGAGED, CART))
        met[index, steps[:, place], liked.astype(np.int64)] = 1
        engaged += liked
        asked = steps[:, place] == ASK
        answer[index[asked], np.minimum(observed.gestures[asked, place], 5)] = 1
    in_cart = (outcomes == CART).any(axis=1).astype(np.float32)
    seen = observed.view_ms[:, :length]
    view = (np.log1p(seen).sum(axis=1) / np.maximum((seen > 0).sum(axis=1), 1) - 8.2).astype(np.float32) * (seen > 0).any(axis=1)
    taps = observed.gestures[:, :length].sum(axis=1).astype(np.float32) / max(length, 1)
    last = (outcomes[:, -1] == ENGAGED).astype(np.float32) if length else np.zeros(num, np.float32)
    quiet = (outcomes[:, -1] == NONE).astype(np.float32) if length else np.zeros(num, np.float32)
    place_one_hot = np.zeros((num, MAX_STEPS), np.float32)
    place_one_hot[:, length] = 1
    mood = np.column_stack(
        [in_cart, engaged / MAX_STEPS, view, taps, last, quiet, in_cart * view, in_cart * taps, view * view, taps * taps, view * length / 8, taps * length / 8]
    )
    crossed = (mood[:, :4, None] * who[:, None, :]).reshape(num, -1)
    return np.concatenate(
        [place_one_hot, met.reshape(num, -1), answer, mood, who, crossed, in_cart[:, None] * met[:, :, 1], who[:, :1] * 0 + length * who / 8], axis=1
    ).astype(np.float32)


@dataclass(frozen=True)
class QPolicy:
    """Takes the allowed step of the highest Q, but an even draw in `explore` of the steps. weights: (kinds, NUM_STEPS, D)."""

    visible: Visible
    weights: Floats
    explore: float
    draws: Floats

    def act(self, observed: Observed) -> NDArray[np.int64]:
        x = features(self.visible, observed)
        chosen = best_step(x, self.visible.kind[observed.session_rows], self.weights, observed.allowed)[0]
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


class ReferenceFit:
    """Fits the reference on the sessions of a world, drawn again and again until `num_sessions` were simulated."""

    def __init__(self, sessions: GuideSessions, visible: Visible, parameters: GuideParameters, seed: int) -> None:
        self.sessions, self.visible, self.parameters, self.seed = sessions, visible, parameters, seed

    def fit(self, num_sessions: int, num_rounds: int = 4) -> Floats:
        """(kinds, NUM_STEPS, D) weights. The scale of the margin is divided out, so that dear products do not outshout the rest."""
        width = features(self.visible, _empty(self.sessions)).shape[1]
        weights = np.zeros((len(KINDS), NUM_STEPS, width))
        moments = np.zeros((MAX_STEPS, 0))
        del moments
        for round_number in range(num_rounds):
            chunks = []
            for start in range(0, num_sessions // num_rounds, _CHUNK):
                chunks.append(self._roll(weights, round_number, start, min(_CHUNK, num_sessions // num_rounds - start)))
            weights = self._backward(weights, chunks)
        return weights

    def _roll(self, weights: Floats, round_number: int, start: int, num: int) -> tuple[Ints, Rollout]:
        rng = np.random.Generator(np.random.Philox(key=sub_seed(self.seed, f"reference/{round_number}/{start}")))
        rows = rng.integers(0, self.sessions.num, num)
        explore = (1.0, 0.35, 0.25, 0.2)[min(round_number, 3)]
        visible = Visible(self.visible.numbers[rows], self.visible.kind[rows])
        policy = QPolicy(visible, weights, explore, rng.random((num, MAX_STEPS, 2)))
        return rows, run(self.sessions.take(rows), policy, rng.random((num, MAX_STEPS, 8)), self.parameters)

    def _backward(self, weights: Floats, chunks: list[tuple[Ints, Rollout]]) -> Floats:
        """One backward pass: the target of a step is what the session earned at it, or the best Q of the next moment."""
        rows = np.concatenate([one for one, _ in chunks])
        join = {name: np.concatenate([getattr(log, name) for _, log in chunks]) for name in ("steps", "outcomes", "view_ms", "gestures", "value")}
        kind, base = self.visible.kind[rows], self.sessions.base[rows]
        visible = Visible(self.visible.numbers[rows], kind)
        length = (join["steps"] >= 0).sum(axis=1)
        earned = join["value"] / self.sessions.margin[rows]
        fitted = weights.copy()
        gram = np.zeros((len(KINDS), NUM_STEPS, weights.shape[2], weights.shape[2]), np.float32)
        cross = np.zeros((len(KINDS), NUM_STEPS, weights.shape[2]))
        target = earned.copy()
        for place in range(MAX_STEPS - 1, -1, -1):
            live = np.flatnonzero(length > place)
            seen = Observed(
                live,
                join["steps"][live],
                join["outcomes"][live],
                join["view_ms"][live],
                join["gestures"][live],
                place,
                np.ones((len(live), NUM_STEPS), np.bool_),
            )
            x = features(visible, seen)
            step = join["steps"][live, place].astype(np.int64)
            self._accumulate(gram, cross, x, kind[live], step, target[live])
            fitted = _solve(gram, cross)
            if place == 0:
                break
            allowed = allowed_next(base[live], join["steps"][live], place)
            target[live] = best_step(x, kind[live], fitted, allowed)[1]
        return fitted

    def _accumulate(self, gram: NDArray[np.float32], cross: Floats, x: NDArray[np.float32], kind: Ints, step: Ints, target: Floats) -> None:
        for one in range(len(KINDS)):
            for action in range(NUM_STEPS):
                mine = (kind == one) & (step == action)
                if mine.any():
                    part = x[mine]
                    gram[one, action] += part.T @ part
                    cross[one, action] += part.T @ target[mine]


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


__all__ = ["LEFT", "PURCHASE", "QPolicy", "ReferenceFit", "Visible", "session_draws"]
