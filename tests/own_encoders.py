"""Encoders of a shop's own, named by `ingest.encoders`, of other widths than the built-in encoders have."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.feature_extraction.text import HashingVectorizer
from torch.nn.functional import adaptive_avg_pool2d

from guidelens.encoders.image import load_image_encoder, network_input


class Places:
    """What the built-in network sees before its last blocks, by ninths of the picture, signed; wider than the lake's images are kept."""

    encoder_id = "places-1"
    dim = 192 * 9

    def __init__(self) -> None:
        self._blocks = load_image_encoder(runtime="torch").split(15)[0]

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            maps = [self._blocks(network_input(images[row : row + 1])) for row in range(len(images))]
            return np.concatenate([adaptive_avg_pool2d(one, 3).flatten(1).numpy() for one in maps])


class Grams:
    """Counts of letters side by side; narrower than the lake's texts are kept."""

    encoder_id = "grams-1"
    dim = 256

    def __init__(self) -> None:
        self._hashing = HashingVectorizer(analyzer="char_wb", ngram_range=(1, 3), n_features=self.dim, norm="l2")

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.asarray(self._hashing.transform(texts).toarray(), np.float32)
