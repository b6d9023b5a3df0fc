"""The texts printed on packages in a photo, in Latin and Chinese letters, as lines with how surely each was read. Knows nothing of products.

The models (PP-OCRv6 small) lie in rapidocr's wheel; nothing is fetched. It is an optional package: `pip install guidelens[ocr]`.
"""

import importlib.util
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from guidelens.data.images.decoding import Pixels, upright_pixels
from guidelens.errors import ConfigError, UnreadableImageError

LONGER_SIDE_PX = 640
"""Photos are read at this size, smaller ones enlarged (ADR 0207)."""
_LEAST_READ = 0.5
"""Lines read less surely are left out."""
_MOST_LINES = 24
"""Of a shelf full of labels only so many are read, the largest, so that the time a frame takes has a bound."""


class TextLine(NamedTuple):
    text: str
    confidence: float


class TextReader:
    """Loaded once a process; one thread. Calls must not overlap."""

    def __init__(self) -> None:
        """Raises:
        ConfigError: rapidocr is not installed.
        """
        if importlib.util.find_spec("rapidocr") is None:
            raise ConfigError(
                "serve.read_text=unsure needs the package rapidocr, which is not installed; pip install guidelens[ocr], or set serve.read_text=off"
            )
        from rapidocr import RapidOCR

        settings = {
            "Global.log_level": "error",
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            "Det.limit_side_len": LONGER_SIDE_PX,
            "Det.limit_type": "max",
        }
        self._engine = RapidOCR(params=settings)

    def read(self, data: bytes) -> tuple[TextLine, ...]:
        """The lines in a JPEG, PNG or WebP that was decoded before, top to bottom; none where nothing can be read."""
        try:
            pixels = upright_pixels(data, min_side_px=LONGER_SIDE_PX)
        except UnreadableImageError:
            return ()
        return self.lines(pixels)

    def lines(self, pixels: Pixels) -> tuple[TextLine, ...]:
        """The lines in an image (height, width, 3), RGB."""
        image = _sized(pixels)
        boxes = self._engine(image, use_det=True, use_cls=False, use_rec=False).boxes
        if boxes is None:
            return ()
        sizes = [cv2.contourArea(np.asarray(box, np.float32)) for box in boxes]
        kept = sorted(np.argsort(np.negative(sizes), kind="stable")[:_MOST_LINES].tolist())
        lines = (self._line(_cut_out(image, np.asarray(boxes[place], np.float32))) for place in kept)
        return tuple(line for line in lines if line.text and line.confidence >= _LEAST_READ)

    def _line(self, pixels: Pixels) -> TextLine:
        found = self._engine(pixels, use_det=False, use_cls=False, use_rec=True)
        return TextLine(found.txts[0].strip(), float(found.scores[0])) if found.txts else TextLine("", 0.0)


def _cut_out(image: Pixels, corners: NDArray[np.float32]) -> Pixels:
    """The line within four corners, clockwise from its top left, upright; a tall one is taken for one that runs upwards."""
    width, height = (max(1, round(float(np.linalg.norm(corners[one] - corners[0])))) for one in (1, 3))
    flat = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    line = cv2.warpPerspective(image, cv2.getPerspectiveTransform(corners, flat), (width, height), borderMode=cv2.BORDER_REPLICATE, flags=cv2.INTER_CUBIC)
    return np.ascontiguousarray(np.rot90(line) if height > 1.5 * width else line, dtype=np.uint8)


def _sized(pixels: Pixels) -> Pixels:
    """Blue first, as the models take it."""
    share = LONGER_SIDE_PX / max(pixels.shape[:2])
    sized = cv2.resize(pixels, None, fx=share, fy=share, interpolation=cv2.INTER_AREA if share < 1 else cv2.INTER_CUBIC)
    return np.ascontiguousarray(sized[..., ::-1])
