"""Explicit feedback as arrays: who rated what, when and how high, and what is known of shoppers and products. Knows no model."""

# Letters: R = ratings, S = shoppers, P = products, F = features.

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from guidelens.data.adapters.source import AdaptedLog
from guidelens.errors import ConfigError, InputError
from guidelens.schemas.catalog import Product

MAX_VALUES = 64
"""Of one attribute, how many of its most frequent values are features."""
_SECONDS_PER_DAY = 86_400.0


@dataclass(frozen=True)
class Ratings:
    """One line a rating, in the order of the source; `shopper_R` and `product_R` are lines of the two feature tables.

    Attributes:
        time_R: float64, days since 1970.
        shopper_SF, product_PF: float32; a value nobody knows is 0 in every column it could be in.
    """

    shopper_R: NDArray[np.int64]
    product_R: NDArray[np.int64]
    rating_R: NDArray[np.float32]
    time_R: NDArray[np.float64]
    shopper_SF: NDArray[np.float32]
    product_PF: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.rating_R)

    def take(self, rows: NDArray[np.integer]) -> Self:
        """Some of the ratings, over the same shoppers and products."""
        kept = (self.shopper_R[rows], self.product_R[rows], self.rating_R[rows], self.time_R[rows])
        return type(self)(*kept, self.shopper_SF, self.product_PF)

    @classmethod
    def of_log(cls, log: AdaptedLog) -> Self:
        """The events of `log` that hold a rating.

        Raises:
            InputError: there is none.
        """
        frames = [frame.select("shopper_id", "product_id", "rating", "event_ts").drop_nulls("rating") for frame in log.events() if "rating" in frame.columns]
        rated = pl.concat(frames) if frames else pl.DataFrame()
        if rated.is_empty():
            raise InputError("a log for the rating model must hold events with a rating, got none; use the adapter movielens, or events with `rating`")
        people = _ids(rated["shopper_id"], None if log.shoppers is None else log.shoppers["shopper_id"])
        things = _ids(rated["product_id"], pl.Series([product.product_id for product in log.products]))
        return cls(
            shopper_R=_places(rated["shopper_id"], people),
            product_R=_places(rated["product_id"], things),
            rating_R=rated["rating"].to_numpy().astype(np.float32),
            time_R=rated["event_ts"].dt.epoch("us").to_numpy() / (1e6 * _SECONDS_PER_DAY),
            shopper_SF=_shopper_features(log.shoppers, people),
            product_PF=_product_features(log.products, things),
        )


def random_split(num_rows: int, parts: Sequence[int], seed: int) -> list[NDArray[np.int64]]:
    """Rows dealt at random in the proportion of `parts`, e.g. (8, 1, 1); each row is in exactly one part.

    Raises:
        ConfigError: a part would be empty.
    """
    order = np.random.default_rng(seed).permutation(num_rows)
    edges = np.cumsum(parts)[:-1] * num_rows // sum(parts)
    dealt = np.split(order, edges)
    if any(len(part) == 0 for part in dealt):
        raise ConfigError(f"a split {':'.join(map(str, parts))} must leave a row for each part, got {num_rows} rows; bring more ratings")
    return dealt


def _ids(used: pl.Series, described: pl.Series | None) -> pl.Series:
    """All ids, described ones first, in an order that does not depend on the ratings' order."""
    described = pl.Series([], dtype=pl.String) if described is None else described
    extra = used.unique().sort()
    return pl.concat([described, extra.filter(~extra.is_in(described.implode()))])


def _places(ids: pl.Series, known: pl.Series) -> NDArray[np.int64]:
    place_of = pl.DataFrame({"id": known, "place": np.arange(len(known))})
    return pl.DataFrame({"id": ids}).join(place_of, on="id", how="left", maintain_order="left")["place"].to_numpy().astype(np.int64)


def _shopper_features(shoppers: pl.DataFrame | None, people: pl.Series) -> NDArray[np.float32]:
    if shoppers is None:
        return np.zeros((len(people), 1), np.float32)
    known = [{name: [value] for name, value in row.items() if name != "shopper_id" and value is not None} for row in shoppers.iter_rows(named=True)]
    return _features(known, len(people))


def _product_features(products: Sequence[Product], things: pl.Series) -> NDArray[np.float32]:
    return _features([product.attributes for product in products], len(things))


def _features(described: Sequence[Mapping[str, object]], num_rows: int) -> NDArray[np.float32]:
    """(num_rows, F): words as 0 and 1, a column each of the most frequent; numbers with mean 0 and variance 1, and whether known."""
    features = np.zeros((num_rows, 0), np.float32)
    for name in sorted({name for attributes in described for name in attributes}):
        values = [attributes.get(name) for attributes in described]
        block = _numbers(values) if all(_is_number(value) for value in values if value is not None) else _words(values)
        padded = np.zeros((num_rows, block.shape[1]), np.float32)
        padded[: len(block)] = block
        features = np.concatenate([features, padded], axis=1)
    return features if features.shape[1] else np.zeros((num_rows, 1), np.float32)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(values: Sequence[object]) -> NDArray[np.float32]:
    numbers = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    known = np.isfinite(numbers)
    scaled = (numbers - numbers[known].mean()) / max(float(numbers[known].std()), 1e-9)
    return np.stack([np.where(known, scaled, 0), known], axis=1).astype(np.float32)


def _words(values: Sequence[object]) -> NDArray[np.float32]:
    listed = [value if isinstance(value, list | tuple) else [] if value is None else [value] for value in values]
    counts = Counter(str(word) for words in listed for word in words)
    column_of = {word: column for column, (word, _) in enumerate(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:MAX_VALUES])}
    found = np.zeros((len(values), len(column_of)), np.float32)
    for row, words in enumerate(listed):
        for word in words:
            if str(word) in column_of:
                found[row, column_of[str(word)]] = 1
    return found
