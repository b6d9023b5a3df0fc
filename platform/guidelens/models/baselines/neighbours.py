"""Neighbourhood recommenders: item-kNN (cosine, Pearson), user-kNN, and content-based (items alike by what they are)."""

# Letters: M = shoppers fitted on, R = histories asked for, N = products, F = features of a product, K = neighbours kept.

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags

from guidelens.models.baselines.recommender import ItemToItem, Scores
from guidelens.models.histories import Histories

Similarity = Literal["cosine", "pearson"]


def item_knn(
    histories: Histories, *, similarity: Similarity = "cosine", shrinkage: float = 0.0, num_neighbours: int | None = None, decay: float = 1.0
) -> ItemToItem:
    """Products taken by the same shoppers (Sarwar et al., WWW 2001).

    Args:
        shrinkage: added to the product of the two norms; pulls similarities with little evidence to 0.
        num_neighbours: entries kept of each product's row; all where None.
        decay: see `ItemToItem`.
    """
    taken_MN = _taken(histories)
    near_NN = cosine(taken_MN, shrinkage) if similarity == "cosine" else pearson(taken_MN, shrinkage)
    return ItemToItem(near_NN if num_neighbours is None else largest_in_rows(near_NN, num_neighbours), decay)


def _taken(histories: Histories) -> csr_matrix:
    """(M, N) float32, 1 where a shopper took a product."""
    taken_MN = histories.matrix(dtype=np.float32)
    taken_MN.sum_duplicates()
    taken_MN.data[:] = 1.0
    return taken_MN


def cosine(counts_MN: csr_matrix, shrinkage: float) -> csr_matrix:
    """(N, N) x_i . x_j / (|x_i| |x_j| + shrinkage) of the columns; no diagonal, and nothing for columns of zeros."""
    common_NN = (counts_MN.T @ counts_MN).tocoo()
    norms_N = np.sqrt(common_NN.tocsr().diagonal())
    i, j = common_NN.row, common_NN.col
    found_NN = csr_matrix((common_NN.data / (norms_N[i] * norms_N[j] + shrinkage), (i, j)), shape=common_NN.shape)
    return _without_diagonal(found_NN)


def pearson(taken_MN: csr_matrix, shrinkage: float) -> csr_matrix:
    """(N, N) correlation of the columns over all shoppers, its positive part, where two products share a shopper; no diagonal.

    A pair that shares nobody correlates below 0 and is no neighbour.
    """
    num_shoppers = taken_MN.shape[0]
    mean_N = np.asarray(taken_MN.mean(axis=0)).ravel()
    deviation_N = np.sqrt(np.maximum(np.asarray(taken_MN.multiply(taken_MN).mean(axis=0)).ravel() - mean_N**2, 0) * num_shoppers)
    common_NN = (taken_MN.T @ taken_MN).tocoo()
    i, j = common_NN.row, common_NN.col
    scale = deviation_N[i] * deviation_N[j] + shrinkage
    covariance = common_NN.data - num_shoppers * mean_N[i] * mean_N[j]
    found = np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 0)
    return _without_diagonal(csr_matrix((np.maximum(found, 0).astype(np.float32), (i, j)), shape=common_NN.shape))


def _without_diagonal(matrix_NN: csr_matrix) -> csr_matrix:
    matrix_NN.setdiag(0)
    matrix_NN.eliminate_zeros()
    return matrix_NN


def largest_in_rows(matrix: csr_matrix, num: int) -> csr_matrix:
    """The `num` largest entries of each row (the rest become zero)."""
    matrix = matrix.tocsr()
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((-matrix.data, row))
    place = np.arange(len(order)) - matrix.indptr[row[order]]
    kept = order[place < num]
    return csr_matrix((matrix.data[kept], (row[kept], matrix.indices[kept])), shape=matrix.shape)


@dataclass(frozen=True)
class UserKnn:
    """What shoppers with similar histories took (Herlocker et al., SIGIR 1999); with a decay it is a session-kNN.

    Attributes:
        taken_MN: the shoppers it was fitted on, each event decayed by its age.
        profiles_NM: the same with shoppers of length 1, by product.
        num_neighbours: the most similar shoppers that speak.
        rarity_N: weight of a shared product in likeness.
    """

    taken_MN: csr_matrix
    profiles_NM: csr_matrix
    rarity_N: NDArray[np.float32]
    num_neighbours: int
    decay: float

    @classmethod
    def fit(cls, histories: Histories, *, num_neighbours: int = 200, decay: float = 1.0, rarity: float = 0.5) -> Self:
        """rarity: a product taken by c shoppers counts c ** -rarity in likeness: 0 is the plain cosine."""
        counts_N = np.maximum(1, np.bincount(histories.products, minlength=histories.num_products))
        rarity_N = np.power(counts_N, -rarity).astype(np.float32)
        taken_MN = histories.matrix(decay, np.float32)
        return cls.of_taken(taken_MN, rarity_N, num_neighbours, decay)

    @classmethod
    def of_taken(cls, taken_MN: csr_matrix, rarity_N: NDArray[np.float32], num_neighbours: int, decay: float) -> Self:
        """Of shoppers' decayed events."""
        return cls(taken_MN, _unit_rows(taken_MN @ diags(rarity_N)).T.tocsr(), rarity_N, num_neighbours, decay)

    def scores(self, histories: Histories) -> Scores:
        """A history that was fitted on is its own neighbour, which speaks for nothing that it has not taken."""
        asked_RN = _unit_rows(histories.matrix(self.decay, np.float32) @ diags(self.rarity_N))
        near_RM = largest_in_rows((asked_RN @ self.profiles_NM).tocsr(), self.num_neighbours)
        return np.asarray((near_RM @ self.taken_MN).todense(), dtype=np.float32)

    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """What a file keeps of it: entry by entry which shopper took which product, shoppers being numbers that mean nothing else."""
        taken = self.taken_MN.tocoo()
        return {
            "rows": taken.row.astype(np.int32),
            "columns": taken.col.astype(np.int32),
            "weights": taken.data.astype(np.float32),
            "rarity": self.rarity_N,
            "settings": np.array([self.taken_MN.shape[0], self.num_neighbours, self.decay]),
        }

    @classmethod
    def of_tensors(cls, found: Mapping[str, NDArray[np.generic]]) -> Self:
        """From what `tensors` gave."""
        num_shoppers, num_neighbours, decay = map(float, found["settings"])
        rarity_N = np.asarray(found["rarity"], dtype=np.float32)
        cells = (np.asarray(found["rows"]), np.asarray(found["columns"]))
        taken_MN = csr_matrix((np.asarray(found["weights"], dtype=np.float32), cells), shape=(int(num_shoppers), len(rarity_N)))
        return cls.of_taken(taken_MN, rarity_N, int(num_neighbours), decay)


def content(features_NF: csr_matrix | NDArray[np.floating], *, rare_counts_more: bool = False, decay: float = 1.0) -> ItemToItem:
    """Products alike by their own features: attributes (0/1) or embeddings, compared by the cosine's positive part.

    Args:
        rare_counts_more: weighs each column by the logarithm of N over the products that have it.
    """
    features_NF = csr_matrix(features_NF, dtype=np.float32)
    if rare_counts_more:
        having_F = np.maximum(1, features_NF.getnnz(axis=0))
        features_NF = features_NF @ diags(np.log(features_NF.shape[0] / having_F).astype(np.float32))
        features_NF.eliminate_zeros()
    unit_NF = _unit_rows(features_NF)
    return ItemToItem(_without_diagonal((unit_NF @ unit_NF.T).tocsr().maximum(0)), decay)


def _unit_rows(matrix: csr_matrix) -> csr_matrix:
    """Rows divided by their Euclidean length; rows of zeros stay."""
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    scale = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0).astype(np.float32)
    return csr_matrix(diags(scale) @ matrix)
