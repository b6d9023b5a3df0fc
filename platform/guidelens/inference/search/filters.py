"""Which products a search may show, decided before it looks: category, brand, price, stock and attributes; and how many each choice has."""

# Letters: N = products.

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from guidelens.inference.search.words import normalized
from guidelens.schemas.search import Facet, FacetValue, SearchFilters

Bools = NDArray[np.bool_]
MAX_FACET_VALUES = 20


@dataclass(frozen=True)
class _Choice:
    """One way to choose products: (N,) the number of each one's value, -1 without one; values as shown."""

    codes_N: NDArray[np.int32]
    values: tuple[str, ...]

    @classmethod
    def of(cls, given: Sequence[str | None]) -> "_Choice":
        values = tuple(sorted({each for each in given if each}))
        number = {value: at for at, value in enumerate(values)}
        return cls(np.array([number.get(each or "", -1) for each in given], np.int32), values)

    def mask(self, wanted: Iterable[str]) -> Bools:
        names = {normalized(each) for each in wanted}
        codes = [at for at, value in enumerate(self.values) if normalized(value) in names]
        return np.isin(self.codes_N, codes)

    def counts(self, rows: NDArray[np.int64]) -> tuple[FacetValue, ...]:
        codes = self.codes_N[rows]
        counted = np.bincount(codes[codes >= 0], minlength=len(self.values))
        best = np.argsort(-counted, kind="stable")[:MAX_FACET_VALUES]
        return tuple(FacetValue(value=self.values[at], count=int(counted[at])) for at in best if counted[at])


class FilterTable:
    """What the item table says of each product that may be filtered by; stock and prices are the release's unless given anew."""

    def __init__(self, items: pl.DataFrame) -> None:
        self._category = _Choice.of(_column(items, "category"))
        self._levels = [tuple(normalized(level) for level in path.split("/") if level) for path in self._category.values]
        self._brand = _Choice.of(_column(items, "brand"))
        self._prices_N = np.array([np.nan if each is None else each for each in _column(items, "price_minor")], np.float64)
        self._stock_N = np.array([-1 if each is None else each for each in _column(items, "stock")], np.int64)
        attributes = [_attributes(text) for text in _column(items, "attributes_json")]
        keys = sorted({key for each in attributes for key in each})
        self._attributes = {key: _Choice.of([each.get(key) for each in attributes]) for key in keys}

    def __len__(self) -> int:
        return len(self._category.codes_N)

    @property
    def attribute_keys(self) -> tuple[str, ...]:
        return tuple(self._attributes)

    def mask(self, filters: SearchFilters, sold_out: NDArray[np.int32] | None = None, excluded: NDArray[np.int32] | None = None) -> Bools:
        """(N,) what may be shown. sold_out: rows without stock by now; excluded: rows not to show for any other reason."""
        kept_N: Bools = np.ones(len(self), np.bool_)
        if filters.category is not None:
            kept_N &= self._in_category(filters.category)
        if filters.brand:
            kept_N &= self._brand.mask(filters.brand)
        if filters.price_min_minor is not None:
            kept_N &= self._prices_N >= filters.price_min_minor
        if filters.price_max_minor is not None:
            kept_N &= self._prices_N <= filters.price_max_minor
        if filters.in_stock:
            kept_N &= self._stock_N != 0
            if sold_out is not None:
                kept_N[sold_out] = False
        for key, values in filters.attributes.items():
            kept_N &= self._attributes[key].mask(values) if key in self._attributes else False
        if excluded is not None:
            kept_N[excluded] = False
        return kept_N

    def _in_category(self, wanted: str) -> Bools:
        """A path or a part of one: `furniture`, `furniture/chairs` and `chairs` all hold furniture/chairs."""
        levels = tuple(normalized(level) for level in wanted.split("/") if level)
        holds = [any(path[at : at + len(levels)] == levels for at in range(len(path))) for path in self._levels]
        return np.array([*holds, False], np.bool_)[self._category.codes_N]

    def same_kind(self, row: int) -> NDArray[np.float32]:
        """(N,) share of the category's levels that each product has in common with one."""
        own = self._levels[self._category.codes_N[row]] if self._category.codes_N[row] >= 0 else ()
        shared = [sum(1 for a, b in zip(path, own, strict=False) if a == b) / max(1, len(own), len(path)) for path in self._levels]
        return np.array([*shared, 0.0], np.float32)[self._category.codes_N]

    def facets(self, rows: NDArray[np.int64]) -> tuple[Facet, ...]:
        """How many of these products have each category, brand and attribute; a choice of one value only is none and left out, categories are always there."""
        found = [Facet(name="category", values=self._category.counts(rows)), Facet(name="brand", values=self._brand.counts(rows))]
        found += [Facet(name=f"attributes.{key}", values=choice.counts(rows)) for key, choice in self._attributes.items()]
        stock = self._stock_N[rows]
        kinds = {"true": int((stock != 0).sum()), "false": int((stock == 0).sum())}
        found.append(Facet(name="in_stock", values=tuple(FacetValue(value=value, count=count) for value, count in kinds.items() if count)))
        return tuple(facet for facet in found if len(facet.values) > (0 if facet.name == "category" else 1))

    def price_range(self, rows: NDArray[np.int64]) -> tuple[int, int] | None:
        prices = self._prices_N[rows]
        known = prices[~np.isnan(prices)]
        return (int(known.min()), int(known.max())) if len(known) else None


def _column(items: pl.DataFrame, name: str) -> list:  # type: ignore[type-arg]
    return items[name].to_list() if name in items.columns else [None] * len(items)


def _attributes(text: str | None) -> Mapping[str, str]:
    found = json.loads(text) if text else {}
    return {key: str(value) for key, value in found.items() if isinstance(value, str | int | float)} if isinstance(found, dict) else {}
