"""A frame that the recognizer is not sure of, looked at again turned by quarters: phones are held every way, and not every app says which.

Knows nothing of pixels' origin, deadlines or requests.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from guidelens.models.recognizer import Recognition

UNSURE_BELOW = 0.5
"""Confidence of the first product below which a second look is worth its time (ADR 0201)."""
NUM_TURNS = 3
AS_TAKEN = 2.0
"""Weight of the frame as it was taken beside each turn of it."""


def turns(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(NUM_TURNS, side, side, 3): a square image turned left by one, two and three quarters."""
    return np.stack([np.ascontiguousarray(np.rot90(pixels, quarters)) for quarters in range(1, NUM_TURNS + 1)])


def is_unsure(found: Recognition) -> bool:
    return len(found.confidences) > 0 and float(found.confidences[0]) < UNSURE_BELOW


def together(looks: Sequence[Recognition]) -> Recognition:
    """The answer of all looks, the first of them the frame as taken: their mean chances, and their mean evidence of the catalogue.

    The surest look alone is right less often, and the best evidence of four would let in what is of no catalogue.
    """
    weights = np.array([AS_TAKEN, *(1.0 for _ in looks[1:])])
    weights /= weights.sum()
    chances: dict[int, float] = {}
    for weight, look in zip(weights.tolist(), looks, strict=True):
        for row, chance in zip(look.product_rows.tolist(), look.confidences.tolist(), strict=True):
            chances[row] = chances.get(row, 0.0) + weight * chance
    best = sorted(chances.items(), key=lambda pair: (-pair[1], pair[0]))[: len(looks[0].product_rows)]
    margin = float(weights @ np.array([look.margin for look in looks]))
    agreeing = next((look for look in looks if int(look.product_rows[0]) == best[0][0]), looks[0])
    return dataclasses.replace(
        agreeing,
        in_catalogue=margin >= 0,
        product_rows=np.array([row for row, _ in best], dtype=np.int64),
        confidences=np.array([chance for _, chance in best], dtype=np.float32),
        margin=margin,
    )
