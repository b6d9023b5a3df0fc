"""The classic estimates of a rating that a rating model has to beat: shrunk biases, and neighbours on top of them (KNNBaseline).

Both as in Koren, "Factor in the neighbors", TKDD 2010, and the library Surprise: biases by alternating least squares; neighbours by the
shrunk correlation of what the biases leave. They read ratings only, no features and no times.
"""

# Letters: R = ratings, Q = asked pairs, K = keys of one side (shoppers or products), M = keys of the other, N = neighbours.

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from guidelens.data.ratings import Ratings
from guidelens.models.rating_history import Side

_SWEEPS = 10
_SHOPPER_DAMPING, _PRODUCT_DAMPING = 15.0, 10.0
_CORRELATION_SHRINKAGE = 100.0


@dataclass(frozen=True)
class Biases:
    """mean + shopper + product."""

    mean: float
    shopper_S: NDArray[np.float64]
    product_P: NDArray[np.float64]

    @classmethod
    def fit(cls, ratings: Ratings) -> Self:
        mean = float(ratings.rating_R.astype(np.float64).mean())
        left_R = ratings.rating_R - mean
        shopper_S, product_P = np.zeros(len(ratings.shopper_SF)), np.zeros(len(ratings.product_PF))
        for _ in range(_SWEEPS):
            product_P = _damped_mean(ratings.product_R, left_R - shopper_S[ratings.shopper_R], len(product_P), _PRODUCT_DAMPING)
            shopper_S = _damped_mean(ratings.shopper_R, left_R - product_P[ratings.product_R], len(shopper_S), _SHOPPER_DAMPING)
        return cls(mean, shopper_S, product_P)

    def predict(self, asked: Ratings) -> NDArray[np.float64]:
        return self.mean + self.shopper_S[asked.shopper_R] + self.product_P[asked.product_R]


def _damped_mean(key_R: NDArray[np.int64], value_R: NDArray[np.floating], num_keys: int, damping: float) -> NDArray[np.float64]:
    return np.asarray(np.bincount(key_R, value_R, num_keys) / (np.bincount(key_R, minlength=num_keys) + damping), dtype=np.float64)


@dataclass(frozen=True)
class RatingKnn:
    """Biases, and the mean of what they leave of the pair's most correlated neighbours, weighted by the correlation.

    side: what neighbours are, products the shopper rated or shoppers who rated the product. left_KM: what is left of each rating, 0 where
    there is none; rated_KM says where there is one. Dense: for as many shoppers and products as such a table may have cells.
    """

    biases: Biases
    side: Side
    num_neighbours: int
    left_KM: NDArray[np.float32]
    rated_KM: NDArray[np.bool_]
    correlation_KK: NDArray[np.float32]

    @classmethod
    def candidates(cls, ratings: Ratings) -> list[Self]:
        """Both sides, with 20, 40 and 80 neighbours."""
        biases = Biases.fit(ratings)
        left_SP = np.zeros((len(ratings.shopper_SF), len(ratings.product_PF)), np.float32)
        rated_SP = np.zeros(left_SP.shape, np.bool_)
        left_SP[ratings.shopper_R, ratings.product_R] = ratings.rating_R - biases.predict(ratings)
        rated_SP[ratings.shopper_R, ratings.product_R] = True
        sides: list[tuple[Side, NDArray[np.float32], NDArray[np.bool_]]] = [("shopper", left_SP, rated_SP), ("product", left_SP.T, rated_SP.T)]
        return [
            cls(biases, side, count, left_KM, rated_KM, correlation_KK)
            for side, left_KM, rated_KM in sides
            for correlation_KK in [correlations(left_KM, rated_KM)]
            for count in (20, 40, 80)
        ]

    def predict(self, asked: Ratings) -> NDArray[np.float64]:
        estimate_Q = self.biases.predict(asked)
        key_Q, other_Q = (asked.shopper_R, asked.product_R) if self.side == "shopper" else (asked.product_R, asked.shopper_R)
        for other in np.unique(other_Q):
            raters_N, rows = np.flatnonzero(self.rated_KM[:, other]), np.flatnonzero(other_Q == other)
            if len(raters_N):
                estimate_Q[rows] += self._of_neighbours(self.correlation_KK[np.ix_(key_Q[rows], raters_N)], self.left_KM[raters_N, other])
        return estimate_Q

    def _of_neighbours(self, weight_QN: NDArray[np.float32], left_N: NDArray[np.float32]) -> NDArray[np.float64]:
        kept = min(self.num_neighbours, len(left_N))
        nearest_QN = np.argpartition(-weight_QN, kept - 1, axis=1)[:, :kept]
        weight_QN = np.maximum(np.take_along_axis(weight_QN, nearest_QN, axis=1), 0)
        total_Q = weight_QN.sum(axis=1)
        return np.asarray(np.divide((weight_QN * left_N[nearest_QN]).sum(axis=1), total_Q, out=np.zeros(len(total_Q)), where=total_Q > 0))


def correlations(left_KM: NDArray[np.float32], rated_KM: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(K, K) correlation of what the biases leave over what both rated, shrunk by (n - 1) / (n - 1 + 100); 0 for a key with itself."""
    rated = rated_KM.astype(np.float32)
    squares_KK = np.square(left_KM) @ rated.T
    scale_KK = np.sqrt(squares_KK * squares_KK.T)
    common_KK = np.maximum(rated @ rated.T - 1, 0)
    found = np.divide(left_KM @ left_KM.T, scale_KK, out=np.zeros_like(scale_KK), where=scale_KK > 0) * (common_KK / (common_KK + _CORRELATION_SHRINKAGE))
    np.fill_diagonal(found, 0)
    return np.asarray(found, dtype=np.float32)
