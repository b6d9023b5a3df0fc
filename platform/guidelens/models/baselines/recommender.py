"""The one interface of the classic recommenders, and the shape most of them share: a history times a product x product matrix."""

# Letters: R = histories asked for, N = products, K = neighbours kept of each product.

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_matrix

from guidelens.errors import BundleError
from guidelens.models.histories import Histories

Scores = NDArray[np.float32]


class Recommender(Protocol):
    """Fitted on histories; scores the whole catalogue for any histories, of shoppers it was fitted on or not."""

    def scores(self, histories: Histories) -> Scores:
        """(R, N) float32, higher is better; products already taken are scored as well."""
        ...


@dataclass(frozen=True)
class ItemToItem:
    """Each event of a history speaks for products, less the older it is: transitions, neighbours, EASE and content are all this.

    Attributes:
        weights: (N, N) sparse or dense; row i holds what an event on product i says of every product.
        decay: weight of an event beside the one after it, in (0, 1].
    """

    weights: csr_matrix | NDArray[np.float32]
    decay: float = 1.0

    def scores(self, histories: Histories) -> Scores:
        found = histories.matrix(self.decay, np.float32) @ self.weights
        return np.asarray(found.todense() if isinstance(found, csr_matrix) else found, dtype=np.float32)

    def neighbours(self, num: int) -> "Neighbours":
        """The `num` products each product speaks for most: what a bundle holds of this."""
        dense = np.asarray(self.weights.todense() if isinstance(self.weights, csr_matrix) else self.weights, dtype=np.float32)
        num = min(num, dense.shape[1])
        top_NK = np.argpartition(-dense, num - 1, axis=1)[:, :num].astype(np.int32)
        return Neighbours(top_NK, np.take_along_axis(dense, top_NK, axis=1), self.decay)


@dataclass(frozen=True)
class AtAge:
    """Another recommender, asked about one event of each history: the one `age` events before the newest. Shorter histories say nothing."""

    asked: Recommender
    age: int

    def scores(self, histories: Histories) -> Scores:
        return self.asked.scores(histories.of_ages(histories.ages == self.age))


@dataclass(frozen=True)
class Standing:
    """The same (N,) scores for everybody."""

    scores_N: NDArray[np.float32]

    def scores(self, histories: Histories) -> Scores:
        return np.broadcast_to(self.scores_N, (len(histories), len(self.scores_N)))


@dataclass(frozen=True)
class Neighbours:
    """An `ItemToItem` cut to K entries a product: a few hundred bytes each, answered without torch, fit for a fallback in serving.

    Attributes:
        products_NK: int32 rows of the catalogue.
        weights_NK: float32.
    """

    products_NK: NDArray[np.int32]
    weights_NK: NDArray[np.float32]
    decay: float

    def scores(self, histories: Histories) -> Scores:
        num_products, num_kept = self.products_NK.shape
        starts = np.arange(0, num_products * num_kept + 1, num_kept)
        weights = csr_matrix((self.weights_NK.reshape(-1), self.products_NK.reshape(-1), starts), shape=(num_products, num_products))
        return ItemToItem(weights, self.decay).scores(histories)

    def save(self, file: Path) -> None:
        """One safetensors file."""
        save_file({"products": self.products_NK, "weights": self.weights_NK, "decay": np.array([self.decay])}, file)

    @classmethod
    def load(cls, file: Path, num_products: int) -> Self:
        """Reads what `save` wrote.

        Raises:
            BundleError: it is not of a catalogue of `num_products`.
        """
        found = load_file(file)
        products_NK = found["products"]
        if len(products_NK) != num_products or products_NK.max(initial=-1) >= num_products:
            raise BundleError(f"{file.name} must name neighbours of {num_products} products, got {len(products_NK)}; build the release again")
        return cls(products_NK, found["weights"], float(found["decay"][0]))
