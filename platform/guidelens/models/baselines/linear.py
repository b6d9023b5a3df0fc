"""Linear recommenders: EASE, its sequential kin, and ALS for implicit feedback."""

# Letters: M = shoppers fitted on, R = histories asked for, N = products, D = factors.

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from guidelens.models.baselines.recommender import ItemToItem, Scores
from guidelens.models.histories import Histories

_MIRROR_ROWS = 1024


def ease(histories: Histories, *, l2: float = 300.0) -> ItemToItem:
    """The item x item weights, 0 on the diagonal, that rebuild the shopper x product matrix best (EASE, arXiv:1905.03375).

    Cubic in the products, exact in float32 and in place: 4 N^2 bytes, 0.6 GB for 12,000 products and 1.3 GB for 18,000.
    """
    taken_MN = histories.matrix(dtype=np.float32)
    taken_MN.data[:] = 1.0
    gram_NN = np.asarray((taken_MN.T @ taken_MN).todense(), dtype=np.float32)
    gram_NN[np.diag_indices_from(gram_NN)] += l2
    weights_NN = inverted(gram_NN)
    weights_NN /= -np.diag(weights_NN)[None, :].copy()
    np.fill_diagonal(weights_NN, 0.0)
    return ItemToItem(weights_NN)


def inverted(positive_NN: NDArray[np.float32]) -> NDArray[np.float32]:
    """The inverse of a symmetric positive definite matrix, which is overwritten, by its Cholesky factor."""
    from scipy.linalg.lapack import spotrf, spotri  # serving reads what was fitted and needs none of it

    factor_NN, failed = spotrf(positive_NN.T, lower=0, clean=0, overwrite_a=1)
    upper_NN, failed_again = spotri(factor_NN, lower=0, overwrite_c=1) if failed == 0 else (factor_NN, 0)
    assert failed == failed_again == 0, f"a positive definite matrix has a Cholesky factor; spotrf said {failed}, spotri {failed_again}"
    found_NN: NDArray[np.float32] = upper_NN.T
    for start in range(0, len(found_NN), _MIRROR_ROWS):
        stop = start + _MIRROR_ROWS
        found_NN[start:stop, stop:] = found_NN[stop:, start:stop].T
        square = found_NN[start:stop, start:stop]
        square[:] = np.tril(square) + np.tril(square, -1).T
    return found_NN


@dataclass(frozen=True)
class Als:
    """Matrix factorization of implicit feedback by alternating least squares (Hu, Koren, Volinsky, ICDM 2008), solved exactly.

    A shopper's vector is a function of the history and the product vectors, so any history is scored, fitted on or not.

    Attributes:
        products_ND: product vectors.
        alpha: confidence of an event beside 1 for its absence.
        l2: ridge on all vectors.
    """

    products_ND: NDArray[np.float64]
    alpha: float
    l2: float

    @classmethod
    def fit(cls, histories: Histories, *, num_factors: int = 64, alpha: float = 10.0, l2: float = 1.0, sweeps: int = 15, seed: int = 0) -> Self:
        taken_MN = histories.matrix()
        taken_MN.data[:] = 1.0
        by_product_NM = taken_MN.T.tocsr()
        rng = np.random.Generator(np.random.Philox(key=seed))
        products_ND = rng.normal(0, 0.1, (histories.num_products, num_factors))
        for _ in range(sweeps):
            shoppers_MD = solved(taken_MN, products_ND, alpha, common_of(products_ND, l2))
            products_ND = solved(by_product_NM, shoppers_MD, alpha, common_of(shoppers_MD, l2))
        return cls(products_ND, alpha, l2)

    @cached_property
    def _common(self) -> NDArray[np.float64]:
        return common_of(self.products_ND, self.l2)

    def scores(self, histories: Histories) -> Scores:
        """Costs a history one linear system of the factors, and its product with every product's vector."""
        taken_RN = histories.matrix()
        taken_RN.data[:] = 1.0
        return (solved(taken_RN, self.products_ND, self.alpha, self._common) @ self.products_ND.T).astype(np.float32)

    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """What a file keeps of it."""
        return {"vectors": self.products_ND.astype(np.float32), "settings": np.array([self.alpha, self.l2])}

    @classmethod
    def of_tensors(cls, found: Mapping[str, NDArray[np.generic]]) -> Self:
        """From what `tensors` gave."""
        return cls(np.asarray(found["vectors"], dtype=np.float64), *map(float, found["settings"]))


def common_of(others: NDArray[np.float64], l2: float) -> NDArray[np.float64]:
    """What the systems of all rows have in common: the weights of absence, and the ridge."""
    found: NDArray[np.float64] = others.T @ others + l2 * np.eye(others.shape[1])
    return found


def solved(taken: csr_matrix, others: NDArray[np.float64], alpha: float, common: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each row's vector x that minimizes sum_j c_j (p_j - x.y_j)^2 + l2 |x|^2, with p = 1, c = 1 + alpha where taken, else p = 0, c = 1.

    Args:
        common: as of `common_of`.
    """
    found = np.zeros((taken.shape[0], others.shape[1]))
    for row in np.flatnonzero(np.diff(taken.indptr)):
        mine = others[taken.indices[taken.indptr[row] : taken.indptr[row + 1]]]
        found[row] = np.linalg.solve(common + alpha * mine.T @ mine, (1 + alpha) * mine.sum(axis=0))
    return found
