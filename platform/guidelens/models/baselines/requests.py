"""The classic recommenders on slate requests: fitted on the clicks of training rows, asked what the shopper visited and has in focus.

At request time they see what the model sees of a shopper's past: the visits in the packed row, oldest first, and the product in focus as
the newest. Each comes as a few candidates with other settings: the caller keeps the one that ranks its validation rows best, so that no
baseline is a straw man.
"""

# Letters: R = requests, N = products, K = places of the slate, T = events, V = recent visits of a packed row.

import itertools
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from guidelens.data.examples import Examples
from guidelens.models.baselines.hybrid import Hybrid
from guidelens.models.baselines.linear import Als, ease
from guidelens.models.baselines.neighbours import UserKnn, content, item_knn
from guidelens.models.baselines.popularity import Popularity
from guidelens.models.baselines.recommender import Recommender
from guidelens.models.baselines.transitions import transitions
from guidelens.models.histories import Histories
from guidelens.schemas.ids import stable_hash, sub_seed
from guidelens.schemas.packed import RECENT_VALUES, decode

DAY_US = 86_400_000_000
_CLICKS = [RECENT_VALUES.index(name) for name in ("clicks", "carts", "purchases")]
TIE_BREAK = 1e-4
"""How loud popularity is beside scores whose highest is about 1."""


@dataclass(frozen=True)
class RecentPopularity:
    """Clicks of the last `window_days` before the training rows end (all of them where None)."""

    counts_N: NDArray[np.float64]
    window_days: int | None

    @classmethod
    def candidates(cls, train: Examples, num_products: int) -> list[Self]:
        """Windows of 1, 3, 7 and 14 days, and all."""
        windows: tuple[int | None, ...] = (1, 3, 7, 14, None)
        return [cls(_recent_clicks(train, num_products, days), days) for days in windows]

    def product_scores(self, examples: Examples) -> NDArray[np.float64]:
        return np.broadcast_to(self.counts_N, (len(examples), len(self.counts_N)))


def _recent_clicks(train: Examples, num_products: int, days: int | None) -> NDArray[np.float64]:
    newest = train.ts_us.max(initial=0)
    recent = train if days is None else train.take(train.ts_us > newest - days * DAY_US)
    clicked = recent.slate_rows[(recent.click > 0) & (recent.slate_rows >= 0)]
    return np.bincount(clicked, minlength=num_products).astype(np.float64)


def clicked_histories(train: Examples, num_products: int) -> Histories:
    """What each shopper clicked in the training rows, in time order (places of one slate in their order)."""
    shopper_R = np.unique(train.shopper_key.astype(str), return_inverse=True)[1]
    r, k = np.nonzero((train.click > 0) & (train.slate_rows >= 0))
    order = np.lexsort((k, train.ts_us[r], shopper_R[r]))
    counts = np.bincount(shopper_R[r], minlength=int(shopper_R.max(initial=-1)) + 1)
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])
    return Histories(offsets, train.slate_rows[r, k][order].astype(np.int64), num_products)


@dataclass(frozen=True)
class RequestReader:
    """Turns requests into histories: visits that the reader's rule keeps, oldest first, then the product in focus.

    Attributes:
        product_of_hash: row of a product by the `stable_hash` of its id.
        clicked_only: leaves out visits without a click.
        focus_repeats: how many of the newest events the product in focus stands for; 0 leaves it out.
    """

    product_of_hash: Mapping[int, int]
    clicked_only: bool = True
    focus_repeats: int = 1

    @classmethod
    def of(cls, item_ids: list[str], *, clicked_only: bool = True, focus_repeats: int = 1) -> Self:
        return cls({stable_hash(product_id): row for row, product_id in enumerate(item_ids)}, clicked_only, focus_repeats)

    def histories(self, examples: Examples) -> Histories:
        """(R,) one history a request; empty where nothing is known."""
        packed, _ = decode(list(examples.packed))
        rows_RV = np.array([[self.product_of_hash.get(value, -1) for value in line] for line in packed["recent_products"].tolist()], dtype=np.int64)
        rows_RV = rows_RV.reshape(len(examples), -1)
        if self.clicked_only:
            rows_RV = np.where(packed["recent_values"][:, :, _CLICKS].sum(axis=2) > 0, rows_RV, -1)
        focus_RV = np.repeat(examples.focus_row.astype(np.int64)[:, None], self.focus_repeats, axis=1)
        all_RV = np.concatenate([rows_RV[:, ::-1], focus_RV], axis=1)
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum((all_RV >= 0).sum(axis=1))])
        return Histories(offsets, all_RV[all_RV >= 0], len(self.product_of_hash))


@dataclass(frozen=True)
class OnRequests:
    """A recommender of histories as a scorer of requests; popularity breaks ties and answers where nothing is known."""

    recommender: Recommender
    reader: RequestReader
    popularity_N: NDArray[np.float32]

    def product_scores(self, examples: Examples) -> NDArray[np.float32]:
        scores_RN = self.recommender.scores(self.reader.histories(examples))
        highest_R1 = np.maximum(np.abs(scores_RN).max(axis=1, keepdims=True, initial=0), 1e-9)
        found: NDArray[np.float32] = scores_RN / highest_R1 + TIE_BREAK * self.popularity_N
        return found


class Classics:
    """The classic recommenders of one fit's training rows, by name, each as candidates."""

    def __init__(self, train: Examples, item_ids: list[str]) -> None:
        self.item_ids = item_ids
        self.clicks = clicked_histories(train, len(item_ids))
        counts_N = Popularity.fit(self.clicks).counts_N
        self.popularity_N = counts_N / max(1.0, float(counts_N.max(initial=0)))

    def of_some_shoppers(self, num: int, seed: int) -> "Classics":
        """The same, knowing at most `num` shoppers, drawn evenly and in the order drawn, of those who took two products or more: one product speaks for no other."""
        found = copy(self)
        many = np.flatnonzero(self.clicks.lengths > 1)
        found.clicks = self.clicks.take(np.random.default_rng(sub_seed(seed, "some shoppers")).permutation(many)[:num])
        return found

    def item_knn(self) -> list[OnRequests]:
        """The cosine with a small grid of shrinkages, with and without visits that had no click, and more or less focus."""
        return self._read([item_knn(self.clicks, shrinkage=shrinkage) for shrinkage in (0.0, 5.0, 25.0)])

    def item_knn_pearson(self) -> list[OnRequests]:
        """As `item_knn`, by correlation."""
        return self._read([item_knn(self.clicks, similarity="pearson", shrinkage=shrinkage) for shrinkage in (0.0, 5.0, 25.0)])

    def content(self, content_NX: NDArray[np.floating]) -> list[OnRequests]:
        """Likeness of what products are: unit vectors of image and text together."""
        return self._read([content(content_NX)])

    def user_knn(self) -> list[OnRequests]:
        """Few neighbours, or many."""
        return self._read([UserKnn.fit(self.clicks, num_neighbours=num) for num in (50, 200)])

    def als(self, seed: int) -> list[OnRequests]:
        """Few factors, or many."""
        return self._read([Als.fit(self.clicks, num_factors=num, seed=seed) for num in (16, 64)])

    def ncf(self, seed: int) -> list[OnRequests]:
        """One network: what it reads of a request is what is chosen."""
        from guidelens.models.baselines.neural import Ncf

        return self._read([Ncf.fit(self.clicks, seed=seed)])

    def ease(self) -> list[OnRequests]:
        """Three strengths of its ridge."""
        return self._read([ease(self.clicks, l2=l2) for l2 in (10.0, 100.0, 1000.0)])

    def transitions(self) -> list[OnRequests]:
        """Forward only, or both ways; rows damped more or less."""
        shapes = itertools.product((0.0, 1.0), (0.5, 1.0))
        return self._read([transitions(self.clicks, backward=backward, damping=damping) for backward, damping in shapes])

    def _read(self, fitted: Sequence[Recommender]) -> list[OnRequests]:
        readers = [
            RequestReader.of(self.item_ids, clicked_only=clicked_only, focus_repeats=repeats)
            for clicked_only, repeats in itertools.product((True, False), (1, 4))
        ]
        return [OnRequests(one, reader, self.popularity_N) for one in fitted for reader in readers]

    def hybrid(self, chosen: Mapping[str, OnRequests], val: Examples) -> OnRequests | None:
        """The chosen ones together, weighed by what validation requests clicked; None where they clicked nothing.

        All parts read visits with and without a click, and the focus once, so that they can share one history.
        """
        reader = RequestReader.of(self.item_ids, clicked_only=False)
        parts: dict[str, Recommender] = {"popularity": Popularity.fit(self.clicks)} | {name: one.recommender for name, one in chosen.items()}
        r, k = np.nonzero((val.click > 0) & (val.slate_rows >= 0))
        if len(r) == 0:
            return None
        asked = val.take(np.unique(r))
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(np.unique(r, return_counts=True)[1])])
        targets = Histories(offsets, val.slate_rows[r, k].astype(np.int64), len(self.item_ids))
        return OnRequests(Hybrid.fit(parts, reader.histories(asked), targets, keep_taken=True), reader, self.popularity_N)
