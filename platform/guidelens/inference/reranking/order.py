"""The order of a slate, drawn place by place from a softmax over what may stand there, with the exact chance of each draw.

Whatever rules and diversity do, they act on the weights before a place is drawn, so the logged propensity is the chance of the
product at its place given those before it: what off-policy evaluation divides by.
"""

# Letters: C = candidates, K = places.

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from guidelens.inference.reranking.diversity import Diversity

Floats = NDArray[np.float32]
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Constraints:
    """left_C: who may be shown. pinned: candidate by place, from 0. caps: (groups (C,), limit): at most `limit` of each group >= 0."""

    left_C: NDArray[np.bool_]
    pinned: dict[int, int] = field(default_factory=dict)
    caps: tuple[tuple[NDArray[np.int64], int], ...] = ()


class Order(NamedTuple):
    """(K,) candidates in their places, and the chance of each at its place given those before it; 1 for a pinned one."""

    chosen: NDArray[np.int64]
    propensities: Floats


def draw_order(
    scores_C: NDArray[np.float64], constraints: Constraints, diversity: Diversity | None, temperature: float, num: int, rng: np.random.Generator
) -> Order:
    """A slate of at most `num` candidates; fewer where rules leave fewer.

    A pinned candidate stands at its place and nowhere else, or last in a slate that ends before it. Temperature 0 is greedy: the
    highest score and diversity gain at each place, with chance 1.
    """
    if not constraints.pinned and not constraints.caps and diversity is None:
        left = np.flatnonzero(constraints.left_C)
        chosen, propensities = plackett_luce(scores_C[left], temperature, num, rng)
        return Order(left[chosen], propensities)
    slate = _Slate(scores_C, constraints, diversity)
    waiting = dict(sorted((place, index) for place, index in constraints.pinned.items() if place < num))
    chosen_K: list[int] = []
    chances: list[float] = []
    while len(chosen_K) < num:
        free = np.flatnonzero(slate.free_C)
        place = len(chosen_K)
        if place in waiting or (waiting and not len(free)):
            index, chance = waiting.pop(place if place in waiting else next(iter(waiting))), 1.0
        elif len(free):
            index, chance = _draw(slate.weights(free), free, temperature, rng)
        else:
            break
        slate.choose(index)
        chosen_K.append(index)
        chances.append(chance)
    return Order(np.array(chosen_K, dtype=np.int64), np.maximum(np.array(chances, dtype=np.float32), _TINY))


class _Slate:
    """Who may still be drawn, while places are filled. Places of pinned candidates count against caps from the start."""

    def __init__(self, scores_C: NDArray[np.float64], constraints: Constraints, diversity: Diversity | None) -> None:
        self._scores_C, self._diversity = scores_C, diversity
        self.free_C = constraints.left_C.copy()
        pinned = list(constraints.pinned.values())
        self.free_C[pinned] = False
        self._pinned = set(pinned)
        self._caps = [(groups_C, np.full(int(groups_C.max(initial=-1)) + 1, limit)) for groups_C, limit in constraints.caps]
        for index in pinned:
            self._count(index)

    def weights(self, free: NDArray[np.int64]) -> NDArray[np.float64]:
        """Scores of the free candidates with what diversity takes off them."""
        return self._scores_C[free] if self._diversity is None else self._scores_C[free] + self._diversity.gains()[free]

    def choose(self, index: int) -> None:
        self.free_C[index] = False
        if self._diversity is not None:
            self._diversity.choose(index)
        if index not in self._pinned:
            self._count(index)

    def _count(self, index: int) -> None:
        for groups_C, room_G in self._caps:
            group = groups_C[index]
            if group >= 0:
                room_G[group] -= 1
                if room_G[group] <= 0:
                    self.free_C[groups_C == group] = False


def _draw(weights: NDArray[np.float64], free: NDArray[np.int64], temperature: float, rng: np.random.Generator) -> tuple[int, float]:
    if temperature == 0:
        return int(free[np.argmax(weights)]), 1.0
    chances = np.exp((weights - weights.max()) / temperature)
    chances /= chances.sum()
    place = min(int(np.searchsorted(np.cumsum(chances), rng.random(), side="right")), len(free) - 1)
    return int(free[place]), float(chances[place])


def plackett_luce(scores: NDArray[np.float64], temperature: float, num: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], Floats]:
    """Draws `num` candidates without replacement with chances exp(score / temperature), by Gumbel noise: all places at once.

    Returns:
        Their indices in drawn order, and the exact probability of each at its place given those before it. Temperature 0 is
        the order of the scores, with probability 1.
    """
    num = min(num, len(scores))
    if temperature == 0 or num == 0:
        return np.argsort(-scores, kind="stable")[:num], np.ones(num, np.float32)
    utility = (scores - scores.max()) / temperature
    order = np.argsort(-(utility + rng.gumbel(size=len(scores))), kind="stable")
    tail = np.logaddexp.accumulate(utility[order][::-1])[::-1]
    propensities = np.exp(utility[order] - tail)[:num].astype(np.float32)
    return order[:num], np.maximum(propensities, _TINY)
