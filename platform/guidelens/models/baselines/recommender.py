"""The one interface of the classic recommenders, and the shape most of them share: a history times a product x product matrix."""

# Letters: R = histories asked for, N = products, K = neighbours kept of each product.

from collections.abc import Mapping
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
        num = min(num, self.weights.shape[1])
        if isinstance(self.weights, csr_matrix):
            return Neighbours(*_largest(self.weights, num), self.decay)
        top_NK = np.argpartition(-self.weights, num - 1, axis=1)[:, :num].astype(np.int32)
        return Neighbours(top_NK, np.take_along_axis(self.weights, top_NK, axis=1), self.decay)


def _largest(weights: csr_matrix, num: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Columns and values of the `num` largest entries of each row; where a row has fewer, product 0 with weight 0, which says nothing."""
    num_rows = weights.shape[0]
    row = np.repeat(np.arange(num_rows), np.diff(weights.indptr))
    order = np.lexsort((-weights.data, row))
    place = np.arange(len(order)) - weights.indptr[row[order]]
    kept = place < num
    columns, values = np.zeros((num_rows, num), dtype=np.int32), np.zeros((num_rows, num), dtype=np.float32)
    columns[row[order][kept], place[kept]] = weights.indices[order][kept]
    values[row[order][kept], place[kept]] = weights.data[order][kept]
    return columns, values


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
        """Costs K additions an event, however large the catalogue, and the zeros of the rest."""
        num_products = len(self.products_NK)
        weights_T = np.power(self.decay, histories.ages).astype(np.float32)
        cells_TK = histories.rows[:, None] * num_products + self.products_NK[histories.products]
        spoken_TK = weights_T[:, None] * self.weights_NK[histories.products]
        found = np.bincount(cells_TK.reshape(-1), spoken_TK.reshape(-1), minlength=len(histories) * num_products)
        return found.astype(np.float32).reshape(len(histories), num_products)

    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """What a file keeps of it."""
        return {"products": self.products_NK, "weights": self.weights_NK, "decay": np.array([self.decay])}

    @classmethod
    def of_tensors(cls, found: Mapping[str, NDArray[np.generic]], num_products: int, file_name: str) -> Self:
        """From what `tensors` gave.

        Raises:
            BundleError: it is not of a catalogue of `num_products`.
        """
        products_NK = np.asarray(found["products"], dtype=np.int32)
        if len(products_NK) != num_products or products_NK.max(initial=-1) >= num_products or products_NK.min(initial=0) < 0:
            raise BundleError(f"{file_name} must name neighbours of {num_products} products, got {len(products_NK)}; build the release again")
        return cls(products_NK, np.asarray(found["weights"], dtype=np.float32), float(found["decay"][0]))

    def save(self, file: Path) -> None:
        """One safetensors file."""
        save_file(self.tensors(), file)

    @classmethod
    def load(cls, file: Path, num_products: int) -> Self:
        """Reads what `save` wrote.

        Raises:
            BundleError: it is not of a catalogue of `num_products`.
        """
        return cls.of_tensors(load_file(file), num_products, file.name)
