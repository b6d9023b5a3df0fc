"""Content similarity: what candidates come from beside the model's retrieval, and all there is without a guide model."""

# Letters: N = products.

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from guidelens.inference.popularity import read_popularity
from guidelens.models.items import Catalogue

Floats = NDArray[np.float32]


class Content:
    """Unit vectors of the catalogue's images and texts, and how popular each product is.

    Image embeddings are compared after subtracting the catalogue's mean: encoders of photos share a large common part.
    """

    def __init__(self, catalogue: Catalogue, popularity_N: Floats) -> None:
        self.has_image_N = catalogue.has_image_N
        self.center = catalogue.image_NE[self.has_image_N].mean(axis=0) if self.has_image_N.any() else np.zeros(catalogue.image_NE.shape[1], np.float32)
        self.image_NE = _unit(catalogue.image_NE - self.center) * self.has_image_N[:, None]
        self.text_NE = _unit(catalogue.text_NE)
        self.popularity_N = popularity_N

    @classmethod
    def load(cls, folder: Path, catalogue: Catalogue) -> "Content":
        """Popularity is the fit's own weighted count of clicks, carts and purchases by product row; zeros where there was no log."""
        return cls(catalogue, read_popularity(folder, len(catalogue)).weights_N)

    def like_frame(self, embedding: Floats) -> Floats:
        """(N,) cosine with an image embedding of the encoder, 0 where a product has no image."""
        cosine: Floats = self.image_NE @ _unit((embedding - self.center)[None])[0]
        return cosine

    def like_product(self, row: int) -> Floats:
        """(N,) mean of the image and text cosines with a product; 1 for itself."""
        cosine: Floats = (self.text_NE @ self.text_NE[row] + self.image_NE @ self.image_NE[row]) / (1 + float(self.has_image_N[row]))
        return cosine


def _unit(x: Floats) -> Floats:
    unit: Floats = x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-6)
    return unit
