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


def turns(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(NUM_TURNS, side, side, 3): a square image turned left by one, two and three quarters."""
    return np.stack([np.ascontiguousarray(np.rot90(pixels, quarters)) for quarters in range(1, NUM_TURNS + 1)])


def is_unsure(found: Recognition) -> bool:
    return len(found.confidences) > 0 and float(found.confidences[0]) < UNSURE_BELOW


def surest(looks: Sequence[Recognition]) -> tuple[int, Recognition]:
    """Which look is surest of its first product, and its answer. Whether that is of the catalogue is decided by the mean of all looks' evidence:
    the best of four would let in what is not."""
    place = int(np.argmax([look.confidences[0] for look in looks]))
    margin = float(np.mean([look.margin for look in looks]))
    return place, dataclasses.replace(looks[place], in_catalogue=margin >= 0, margin=margin)
