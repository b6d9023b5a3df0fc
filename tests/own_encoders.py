"""Encoders of a shop's own, named by `ingest.encoders`: classic descriptors, of other widths than the built-in encoders have."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import HashingVectorizer


class Gradients:
    """Gradients of a small grey picture beside a colour histogram, signed; wider than the lake's images are kept."""

    encoder_id = "gradients-1"
    dim = 2 * 32 * 32 + 512

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        found = np.empty((len(images), self.dim), np.float32)
        for row, image in enumerate(images):
            grey = cv2.cvtColor(cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
            shape = np.concatenate([cv2.Sobel(grey, cv2.CV_32F, *order).ravel() for order in ((1, 0), (0, 1))]) + 1e-3
            colour = cv2.calcHist([image], [0, 1, 2], None, [8, 8, 8], [0, 256] * 3).ravel()
            found[row] = np.concatenate([shape / np.linalg.norm(shape), 10 * colour / colour.sum()])
        return found


class Grams:
    """Counts of letters side by side; narrower than the lake's texts are kept."""

    encoder_id = "grams-1"
    dim = 256

    def __init__(self) -> None:
        self._hashing = HashingVectorizer(analyzer="char_wb", ngram_range=(1, 3), n_features=self.dim, norm="l2")

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.asarray(self._hashing.transform(texts).toarray(), np.float32)
