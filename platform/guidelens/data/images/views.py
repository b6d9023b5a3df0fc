"""Views of one photo as other hands, shelves and lights would have given it: crops, tilts, mirror images, brightness, colour and blur.

For training alone; whatever is asked about is seen as `encoder_input` cuts it.
"""

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from guidelens.data.images.decoding import INPUT_SIZE_PX, Pixels

_AREA = (0.25, 1.0)
_ASPECT = (3 / 4, 4 / 3)
_TILT_DEGREES = 10.0
_BRIGHTNESS = (0.6, 1.4)
_CHANNEL_SIGMA = 0.06
_CONTRAST = (0.7, 1.3)
_SATURATION = (0.6, 1.4)
_BLURRED_SHARE, _BLUR_PX = 0.2, (0.5, 1.8)
_BRIGHTEST = 255


def random_view(pixels: Pixels, random: Generator) -> Pixels:
    """(INPUT_SIZE_PX, INPUT_SIZE_PX, 3): one view of (height, width, 3) uint8 RGB."""
    cut = cv2.warpAffine(pixels, _cut(pixels.shape[0], pixels.shape[1], random), (INPUT_SIZE_PX, INPUT_SIZE_PX), borderMode=cv2.BORDER_REFLECT_101)
    lit = _relit(cut.astype(np.float32), random)
    if random.random() < _BLURRED_SHARE:
        lit = np.asarray(cv2.GaussianBlur(lit, (0, 0), random.uniform(*_BLUR_PX)), np.float32)
    return lit.astype(np.uint8)


def _cut(height: int, width: int, random: Generator) -> NDArray[np.float64]:
    """(2, 3) affine map of a tilted rectangle of the photo, mirrored half of the time, onto the encoder's square."""
    area = random.uniform(*_AREA) * height * width
    aspect = np.exp(random.uniform(*np.log(_ASPECT)))
    cut_width, cut_height = min(width, np.sqrt(area * aspect)), min(height, np.sqrt(area / aspect))
    centre = np.array([random.uniform(cut_width / 2, width - cut_width / 2), random.uniform(cut_height / 2, height - cut_height / 2)])
    tilt = np.deg2rad(random.normal(0, _TILT_DEGREES))
    mirrored = -1.0 if random.random() < 0.5 else 1.0
    scale = np.diag([mirrored * INPUT_SIZE_PX / cut_width, INPUT_SIZE_PX / cut_height])
    linear = scale @ np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
    return np.column_stack([linear, INPUT_SIZE_PX / 2 - linear @ centre])


def _relit(pixels: NDArray[np.float32], random: Generator) -> NDArray[np.float32]:
    """Other brightness, white balance, contrast and saturation."""
    gain = random.uniform(*_BRIGHTNESS) * np.exp(random.normal(0, _CHANNEL_SIGMA, 3))
    lit = pixels * gain.astype(np.float32)
    mean = lit.mean()
    lit = mean + (lit - mean) * np.float32(random.uniform(*_CONTRAST))
    grey = lit.mean(2, keepdims=True)
    lit = grey + (lit - grey) * np.float32(random.uniform(*_SATURATION))
    return np.asarray(lit.clip(0, _BRIGHTEST), np.float32)
