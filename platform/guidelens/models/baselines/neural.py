"""Neural collaborative filtering (NeuMF, arXiv:1708.05031) on histories: a shopper is the mean of what was taken, so that new ones are scored too.

Asked without torch; `neural_fit` learns it.
"""

# Letters: R = histories, N = products, D = width of a path.

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from guidelens.models.baselines.recommender import Scores
from guidelens.models.histories import Histories

_SCORE_CELLS = 1 << 24
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Ncf:
    """A fitted NeuMF: the product of two vectors, weighed, plus a layer on both; each path has vectors of its own. Scores are logits.

    Attributes:
        weights: `taken` and `offered` (N, 2 D), `product` (D), `bias` (1), `shopper` (D, D), `shopper_bias` (D), `offer` (D, D), `layer` (D).
    """

    weights: Mapping[str, Floats]

    @classmethod
    def fit(
        cls, histories: Histories, *, width: int = 16, epochs: int = 10, num_drawn: int = 4, learning_rate: float = 5e-3, l2: float = 1e-5, seed: int = 0
    ) -> Self:
        """Each event against `num_drawn` others drawn evenly, by binary cross-entropy; the event itself is taken out of its shopper's mean."""
        from guidelens.models.baselines.neural_fit import fitted

        return cls(fitted(histories, width=width, epochs=epochs, num_drawn=num_drawn, learning_rate=learning_rate, l2=l2, seed=seed))

    @cached_property
    def _of_offers(self) -> tuple[Floats, Floats]:
        """(N, D) each: what a product brings to the weighed product, and to the layer."""
        one_ND, two_ND = np.split(self.weights["offered"], 2, axis=1)
        return one_ND * self.weights["product"], two_ND @ self.weights["offer"].T

    def scores(self, histories: Histories) -> Scores:
        """Costs a history 2 D multiplications a product."""
        weighed_ND, hidden_ND = self._of_offers
        means_R = histories.matrix(dtype=np.float32) @ self.weights["taken"] / np.maximum(histories.lengths, 1)[:, None].astype(np.float32)
        one_RD, two_RD = np.split(means_R, 2, axis=1)
        from_shopper_RD = two_RD @ self.weights["shopper"].T + self.weights["shopper_bias"]
        found = one_RD @ weighed_ND.T + self.weights["bias"]
        size = max(1, _SCORE_CELLS // hidden_ND.size)
        for start in range(0, len(histories), size):
            part = slice(start, start + size)
            found[part] += np.maximum(from_shopper_RD[part, None] + hidden_ND, 0) @ self.weights["layer"]
        return np.asarray(found, dtype=np.float32)

    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """What a file keeps of it."""
        return dict(self.weights)

    @classmethod
    def of_tensors(cls, found: Mapping[str, NDArray[np.generic]]) -> Self:
        """From what `tensors` gave."""
        return cls({name: np.asarray(tensor, dtype=np.float32) for name, tensor in found.items()})
