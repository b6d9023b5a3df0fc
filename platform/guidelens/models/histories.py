"""Who took what, in time order: the one input of every recommender that reads no more than that."""

# Letters: R = shoppers (or requests), T = events of all of them, N = products, P = positions with a known next product.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from guidelens.errors import ShapeError


@dataclass(frozen=True)
class Histories:
    """R rows of products, oldest first, one after another.

    Attributes:
        offsets: (R + 1,) int64; row r holds `products[offsets[r] : offsets[r + 1]]`.
        products: (T,) int64 rows of the catalogue.
        num_products: N of the catalogue.
    """

    offsets: NDArray[np.int64]
    products: NDArray[np.int64]
    num_products: int

    def __post_init__(self) -> None:
        if len(self.offsets) == 0 or self.offsets[0] != 0 or self.offsets[-1] != len(self.products) or (np.diff(self.offsets) < 0).any():
            raise ShapeError(f"offsets must rise from 0 to the number of products ({len(self.products)}), got {self.offsets[:3]} … {self.offsets[-3:]}")
        if len(self.products) and not 0 <= self.products.min() <= self.products.max() < self.num_products:
            found = (int(self.products.min()), int(self.products.max()))
            raise ShapeError(f"products must be rows of a catalogue of {self.num_products}, got {found[0]} to {found[1]}; leave unknown ones out")

    @classmethod
    def of_lists(cls, rows: Sequence[Sequence[int]], num_products: int) -> Self:
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        flat = np.fromiter((product for row in rows for product in row), dtype=np.int64, count=int(lengths.sum()))
        return cls(np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)]), flat, num_products)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(R,) events of each row."""
        return np.diff(self.offsets)

    @property
    def rows(self) -> NDArray[np.int64]:
        """(T,) which row each event is of."""
        return np.repeat(np.arange(len(self)), self.lengths)

    @property
    def ages(self) -> NDArray[np.int64]:
        """(T,) how many events of its row came after each: 0 for the newest."""
        return np.repeat(self.offsets[1:], self.lengths) - 1 - np.arange(len(self.products))

    def take(self, rows_R: NDArray[np.integer]) -> Self:
        """The rows asked for, by index, in that order."""
        lengths = self.lengths[rows_R]
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        return type(self)(offsets, self.products[np.repeat(self.offsets[rows_R], lengths) + within], self.num_products)

    def of_ages(self, keep_T: NDArray[np.bool_]) -> Self:
        """Only the events marked; every row stays, if empty."""
        lengths = np.bincount(self.rows[keep_T], minlength=len(self))
        return type(self)(np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)]), self.products[keep_T], self.num_products)

    def newest(self, num: int) -> Self:
        """At most the newest `num` events of each row."""
        return self.of_ages(self.ages < num)

    def without_newest(self, num: int) -> Self:
        """Rows without their newest `num` events."""
        return self.of_ages(self.ages >= num)

    def at_age(self, age: int) -> NDArray[np.int64]:
        """(R,) the product `age` events before the newest, -1 where the row is shorter."""
        there = self.lengths > age
        found = np.full(len(self), -1, dtype=np.int64)
        found[there] = self.products[self.offsets[1:][there] - 1 - age]
        return found

    def matrix(self, decay: float = 1.0, dtype: type[np.floating] = np.float64) -> csr_matrix:
        """(R, N) sum over a row's events of decay ** age."""
        weights = np.power(decay, self.ages).astype(dtype)
        return csr_matrix((weights, (self.rows, self.products)), shape=(len(self), self.num_products))
