"""Frames taken in the dark, made as bright as photos are. Serving alone does this: what a shop brings is taken as it is."""

import cv2
import numpy as np

from guidelens.data.images.decoding import Pixels

DARK_BELOW = 150
"""A frame is dark whose brightest hundredth of gray values begins below this."""
_AIM, _LEAST_POWER, _MOST_POWER = 0.45, 0.5, 1.5
"""The mean that a brightened frame gets, as far as powers within these bounds bring it there."""


def brightened(pixels: Pixels) -> Pixels | None:
    """(height, width, 3) stretched to the whole range and bent to a middling mean; None where the frame is not dark, or flat."""
    low, high = np.percentile(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), [1, 99])
    if high >= DARK_BELOW or high - low < 1:
        return None
    stretched = ((pixels.astype(np.float32) - low) / (high - low)).clip(0, 1)
    power = float(np.clip(np.log(_AIM) / np.log(min(max(float(stretched.mean()), 1e-3), 0.999)), _LEAST_POWER, _MOST_POWER))
    return np.asarray(stretched**power * 255, dtype=np.uint8)
