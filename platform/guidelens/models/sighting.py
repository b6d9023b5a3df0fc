"""One steadier answer from the frames of a session: what was believed so far, carried on to the next frame as far as both show the same view.

A hidden-state filter over products. Between two frames the camera may have moved on to anything, with a chance that their likeness tells and what they
show corrects. While it has not, each frame's confidences weigh what is believed, tempered, because frames of one view err together. Whether the view is of
the catalogue at all is the mean of the frames' evidence over the same view. Knows nothing of sessions, clocks or requests.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guidelens.models.recognizer import Floats, Rows, rooted
from guidelens.schemas.base import Frozen

# Letters: D = embedding width, K = products answered.


class SightingConfig(Frozen):
    """Found on development folds of grocery-store (benchmarks/frames.py).

    Attributes:
        moved_at, moved_slope: two frames show different things with chance sigmoid(slope x (at - cosine of their rooted embeddings)).
        sharpness: how much surer frames of one view make each other: 0 takes them as one frame, 1 as independent.
        memory: frames of a view weigh as this many at most, so that what is put in its place is seen.
        least_moved: the chance stays above this, so that no belief is forever.
    """

    moved_at: float = 0.78
    moved_slope: float = 43.0
    sharpness: float = 0.1
    memory: float = 4.0
    least_moved: float = 0.05


@dataclass(frozen=True)
class Frame:
    """One frame's answer: embedding_D as the encoder makes it; rows_K, confidences_K best first; margin: evidence above what "in the catalogue" needs."""

    embedding_D: Floats
    rows_K: Rows
    confidences_K: Floats
    margin: float


@dataclass(frozen=True)
class Sighting:
    """What is believed after some frames. chances: by product row, the likeliest ones; the rest of 1 is spread over all others.

    margin: mean over the view, `weight` frames of it.
    """

    embedding_D: Floats
    chances: dict[int, float]
    num_products: int
    margin: float
    weight: float

    @property
    def in_catalogue(self) -> bool:
        return self.margin >= 0

    def answer(self, top: int) -> tuple[Rows, Floats]:
        """(K,) rows and chances, best first."""
        best = sorted(self.chances.items(), key=lambda pair: (-pair[1], pair[0]))[:top]
        return np.array([row for row, _ in best], dtype=np.int64), np.array([chance for _, chance in best], dtype=np.float32)


_KEPT = 32
"""Products whose chances are kept one by one."""


def first(frame: Frame, num_products: int) -> Sighting:
    """Nothing was seen before."""
    chances = dict(zip(frame.rows_K.tolist(), frame.confidences_K.tolist(), strict=True))
    return Sighting(frame.embedding_D, chances, num_products, frame.margin, 1.0)


def moved(before: Floats, now: Floats, config: SightingConfig) -> float:
    """The chance that two frames show different things."""
    cosine = float((rooted(before[None]) @ rooted(now[None]).T)[0, 0])
    return max(config.least_moved, 1 / (1 + float(np.exp(-config.moved_slope * (config.moved_at - cosine)))))


def then(before: Sighting, frame: Frame, config: SightingConfig) -> Sighting:
    """The belief after one more frame: of the same view, where its likeness and what it shows make that likely, and of a new one for the rest."""
    chance_moved, num_products = moved(before.embedding_D, frame.embedding_D, config), before.num_products
    seen = dict(zip(frame.rows_K.tolist(), frame.confidences_K.tolist(), strict=True))
    rows = [*seen, *(row for row in before.chances if row not in seen)]
    others = max(num_products - len(rows), 0)
    # The last entry is each of the products that neither names.
    prior = np.array([*(before.chances.get(row, _floor(before.chances, num_products)) for row in rows), _floor(before.chances, num_products)])
    likely = np.array([*(seen.get(row, _floor(seen, num_products)) for row in rows), _floor(seen, num_products)])
    times = np.array([*(1 for _ in rows), others])
    same = (1 - chance_moved) * float((times * prior * likely).sum())
    share_same = same / (same + chance_moved / num_products)
    weight = share_same * min(before.weight, config.memory)
    together = _together(prior, likely, weight, config.sharpness)
    belief = share_same * together / float((times * together).sum()) + (1 - share_same) * likely
    kept = np.argsort(-belief[:-1], kind="stable")[:_KEPT]
    margin = (weight * before.margin + frame.margin) / (weight + 1)
    return Sighting(frame.embedding_D, {rows[place]: float(belief[place]) for place in kept}, num_products, margin, weight + 1)


def _together(prior: NDArray[np.float64], likely: NDArray[np.float64], weight: float, sharpness: float) -> NDArray[np.float64]:
    """What `weight` frames believed and one more, unnormalized: the geometric mean of all their confidences, to the power of their number ** sharpness."""
    before, after = max(weight, 1.0), max(weight, 1.0) + 1
    logs: NDArray[np.float64] = after ** (sharpness - 1) * (before ** (1 - sharpness) * np.log(prior) + np.log(likely))
    together: NDArray[np.float64] = np.exp(logs - logs.max())
    return together


def _floor(chances: dict[int, float], num_products: int) -> float:
    """The chance of each product that is not named."""
    others = max(num_products - len(chances), 1)
    return max(1 - sum(chances.values()), 1e-6) / others
