"""Texts on packages as further evidence of what a frame shows, where reading them fits into the time that is left. Knows nothing of shoppers."""

import threading
import time
from dataclasses import replace

import cv2
import numpy as np
import polars as pl

from guidelens.data.images.packaging_text import LONGER_SIDE_PX, TextReader
from guidelens.inference.packaging_text import PackageWords, TextWeights, with_text
from serve.messages import RecognizeReply, with_family_of_first

_SLOWER = 1.2
"""Reading may take so much longer than the slowest of late, and still has to fit."""
_FORGETS = 0.95
"""Share of the slowest time kept at each frame, so that one slow reading does not end all of it."""


class FrameTexts:
    """One reader for all calls of a replica, which read one after another."""

    def __init__(self, items: pl.DataFrame) -> None:
        """Raises:
        ConfigError: rapidocr is not installed.
        """
        self._words, self._weights = PackageWords.of_items(items), TextWeights()
        self._reader, self._one_at_a_time = TextReader(), threading.Lock()
        self._timed()
        self._slowest_s = self._timed()

    def _timed(self) -> float:
        """Seconds for a frame with a few lines; the first call loads the models."""
        label = np.full((LONGER_SIDE_PX, LONGER_SIDE_PX, 3), 255, np.uint8)
        for line in range(4):
            cv2.putText(label, "packaging", (40, 120 + 120 * line), cv2.FONT_HERSHEY_SIMPLEX, 2.5, (0, 0, 0), 6)
        begun = time.perf_counter()
        self._reader.lines(label)
        return time.perf_counter() - begun

    def read(self, seen: RecognizeReply, frame: bytes, budget_s: float) -> RecognizeReply:
        """The answer with the frame's texts in it; as it was where there is no time or no text that names a product.

        What is in view stays in the catalogue or out of it: a brand is seen on products that a shop does not have.
        """
        wait_s = budget_s - self._slowest_s * _SLOWER
        if wait_s < 0 or not self._one_at_a_time.acquire(timeout=min(wait_s, threading.TIMEOUT_MAX)):
            self._slowest_s *= _FORGETS
            return seen
        try:
            begun = time.perf_counter()
            texts = tuple(line.text for line in self._reader.read(frame))
            self._slowest_s = max(time.perf_counter() - begun, self._slowest_s * _FORGETS)
        finally:
            self._one_at_a_time.release()
        known = replace(seen, texts=texts)
        features_NF = self._words.features(texts)
        if not features_NF.any():
            return known
        rows, confidences = with_text(seen.rows, seen.confidences, features_NF, self._weights)
        return with_family_of_first(replace(known, rows=rows, confidences=confidences, evidence=(*seen.evidence, "text")))
