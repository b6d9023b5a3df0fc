"""The classic recommenders a joint model has to beat: recent popularity and item-kNN with the cosine.

Both read training rows only and score the whole catalogue for a request. Each comes as a few candidates with other settings:
the caller keeps the one that ranks its validation rows best, so that no baseline is a straw man.
"""

import itertools
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from guidelens.data.examples import Examples
from guidelens.schemas.ids import stable_hash
from guidelens.schemas.packed import RECENT_VALUES, decode

# Letters: R = requests, N = products, K = places of the slate, M = shoppers, V = recent visits of a packed row.

DAY_US = 86_400_000_000
_CLICKS = [RECENT_VALUES.index(name) for name in ("clicks", "carts", "purchases")]


class Baseline(Protocol):
    """Fitted on training rows; scores any rows."""

    def product_scores(self, examples: Examples) -> NDArray[np.float64]:
        """(R, N) higher is better."""
        ...


@dataclass(frozen=True)
class Popularity:
    """Clicks of the last `window_days` before the training rows end (all of them where None)."""

    scores: NDArray[np.float64]
    window_days: int | None

    @classmethod
    def candidates(cls, train: Examples, num_products: int) -> list[Self]:
        """Windows of 1, 3, 7 and 14 days, and all."""
        windows: tuple[int | None, ...] = (1, 3, 7, 14, None)
        return [cls(_recent_clicks(train, num_products, days), days) for days in windows]

    def product_scores(self, examples: Examples) -> NDArray[np.float64]:
        return np.broadcast_to(self.scores, (len(examples), len(self.scores)))


def _recent_clicks(train: Examples, num_products: int, days: int | None) -> NDArray[np.float64]:
    newest = train.ts_us.max(initial=0)
    recent = train if days is None else train.take(train.ts_us > newest - days * DAY_US)
    clicked = recent.slate_rows[(recent.click > 0) & (recent.slate_rows >= 0)]
    return np.bincount(clicked, minlength=num_products).astype(np.float64)


@dataclass(frozen=True)
class ItemKnn:
    """Products near what the shopper visited before and near the one in focus; near = clicked by the same shoppers.

    At request time it sees what the model sees of a shopper's past: the visits in the packed row. Popularity breaks ties and
    answers where nothing is known.

    Attributes:
        similarity: (N, N) cosine of the products' columns of the shopper x product click matrix, shrunk; diagonal 0.
        popularity: (N,) all training clicks, scaled to at most 1.
        product_of_hash: row of a product by the `stable_hash` of its id.
        visit_weight: of a visit without a click, beside 1 for one with.
        focus_weight: of the product in focus, beside the mean over the visits.
    """

    similarity: NDArray[np.float64]
    popularity: NDArray[np.float64]
    product_of_hash: dict[int, int]
    visit_weight: float
    focus_weight: float

    @classmethod
    def candidates(cls, train: Examples, item_ids: list[str]) -> list[Self]:
        """A small grid of shrinkages and weights."""
        popularity_N = _recent_clicks(train, len(item_ids), None)
        popularity_N /= max(1.0, float(popularity_N.max(initial=0)))
        product_of_hash = {stable_hash(product_id): row for row, product_id in enumerate(item_ids)}
        counts_MN = _shopper_clicks(train, len(item_ids))
        return [
            cls(similarity_NN, popularity_N, product_of_hash, visit_weight, focus_weight)
            for similarity_NN in (cosine(counts_MN, shrinkage) for shrinkage in (0.0, 5.0, 25.0))
            for visit_weight, focus_weight in itertools.product((0.0, 0.3), (1.0, 4.0))
        ]

    def product_scores(self, examples: Examples) -> NDArray[np.float64]:
        near_RN: NDArray[np.float64] = self._visited(examples) @ self.similarity
        focused = np.flatnonzero(examples.focus_row >= 0)
        near_RN[focused] += self.focus_weight * self.similarity[examples.focus_row[focused]]
        return near_RN + 1e-3 * self.popularity

    def _visited(self, examples: Examples) -> NDArray[np.float64]:
        """(R, N) weight of each product among a request's visits, summing to 1 (0 where there are none)."""
        packed, _ = decode(list(examples.packed))
        weights_RV = np.where(packed["recent_values"][:, :, _CLICKS].sum(axis=2) > 0, 1.0, self.visit_weight)
        rows_RV = np.array([[self.product_of_hash.get(value, -1) for value in line] for line in packed["recent_products"].tolist()], dtype=np.int64)
        visited_RN = np.zeros((len(examples), len(self.popularity)))
        r, v = np.nonzero(rows_RV.reshape(len(examples), -1) >= 0)
        np.add.at(visited_RN, (r, rows_RV[r, v]), weights_RV[r, v])
        visited_RN /= np.maximum(visited_RN.sum(axis=1, keepdims=True), 1e-9)
        return visited_RN


def _shopper_clicks(train: Examples, num_products: int) -> csr_matrix:
    """(M, N) 1 where a shopper clicked a product in the training rows."""
    shoppers = np.unique(train.shopper_key.astype(str), return_inverse=True)[1]
    r, k = np.nonzero((train.click > 0) & (train.slate_rows >= 0))
    counts = csr_matrix((np.ones(len(r)), (shoppers[r], train.slate_rows[r, k])), shape=(int(shoppers.max(initial=-1)) + 1, num_products))
    counts.data[:] = 1.0
    return counts


def cosine(counts_MN: csr_matrix, shrinkage: float) -> NDArray[np.float64]:
    """(N, N) common shoppers over sqrt(n_i n_j) + shrinkage, 0 on the diagonal and for products nobody clicked."""
    common_NN = np.asarray((counts_MN.T @ counts_MN).todense(), dtype=np.float64)
    norms_N = np.sqrt(np.diag(common_NN))
    scale_NN = np.outer(norms_N, norms_N) + shrinkage
    similarity_NN = np.divide(common_NN, scale_NN, out=np.zeros_like(common_NN), where=scale_NN > 0)
    np.fill_diagonal(similarity_NN, 0.0)
    return similarity_NN
