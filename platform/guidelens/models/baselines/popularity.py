"""How often each product was taken: the floor of every comparison, and the answer where nothing is known."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from guidelens.models.baselines.recommender import Scores
from guidelens.models.histories import Histories


@dataclass(frozen=True)
class Popularity:
    """(N,) counts of events, the same for everybody."""

    counts_N: NDArray[np.float32]

    @classmethod
    def fit(cls, histories: Histories) -> Self:
        return cls(np.bincount(histories.products, minlength=histories.num_products).astype(np.float32))

    def scores(self, histories: Histories) -> Scores:
        return np.broadcast_to(self.counts_N, (len(histories), len(self.counts_N)))
