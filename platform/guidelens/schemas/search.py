"""Request and reply of `POST /v1/search` and `GET /v1/suggest` (docs/search.md)."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from guidelens.schemas.base import Frozen
from guidelens.schemas.catalog import ProductId
from guidelens.schemas.guide import Degraded, Recognized, ShopperRequest

MAX_RESULTS, MAX_OFFSET = 100, 10_000
MAX_FILTER_VALUES = 50
Value = Annotated[str, Field(min_length=1, max_length=200)]
Values = Annotated[tuple[Value, ...], Field(max_length=MAX_FILTER_VALUES)]
Price = Annotated[int, Field(ge=0, le=10**10)]
Matched = Literal["title", "words", "synonym", "meaning", "recognized", "image", "kind"]


class SearchFilters(Frozen):
    """What results must be; several values of one filter are alternatives.

    `category` is a path or any part of one (`furniture`, `furniture/chairs`, `chairs`); prices are in minor units; `attributes` by
    canonical keys. A filter of another name is refused. A product whose price is not known passes no price filter; one whose stock is not known counts as in stock.
    """

    category: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    brand: Values = ()
    price_min_minor: Price | None = None
    price_max_minor: Price | None = None
    in_stock: bool = False
    attributes: Annotated[dict[str, Values], Field(max_length=20)] = {}

    @field_validator("brand", mode="before")
    @classmethod
    def _one_or_several(cls, given: object) -> object:
        return (given,) if isinstance(given, str) else given

    @field_validator("attributes", mode="before")
    @classmethod
    def _each_one_or_several(cls, given: object) -> object:
        return {key: (value,) if isinstance(value, str) else value for key, value in given.items()} if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.price_min_minor is not None and self.price_max_minor is not None and self.price_min_minor > self.price_max_minor:
            raise ValueError(f"price_min_minor must not exceed price_max_minor ({self.price_max_minor}), got {self.price_min_minor}")
        return self

    @property
    def is_empty(self) -> bool:
        return self == SearchFilters()


class SearchRequest(ShopperRequest):
    """What a shopper looks for: words, a photo (the part `frame`, or `image_embedding`), or both; or filters alone."""

    filters: SearchFilters = SearchFilters()
    num: Annotated[int, Field(ge=1, le=MAX_RESULTS)] = 10
    offset: Annotated[int, Field(ge=0, le=MAX_OFFSET)] = 0


class SearchResult(Frozen):
    """One product found. `score` orders results of one reply and means nothing across replies. `matched` says by what it was found; empty:
    it passes the filters and fills the page, but nothing of the query speaks for it. `why`: the same for people, in the locale."""

    position: Annotated[int, Field(ge=1)]
    product_id: ProductId
    title: str
    score: float
    matched: tuple[Matched, ...]
    why: tuple[str, ...]
    price_minor: int | None = None
    currency: str | None = None
    in_stock: bool | None = None


class FacetValue(Frozen):
    value: str
    count: int


class Facet(Frozen):
    """A way to narrow down: `category`, `brand`, `in_stock` or `attributes.KEY`, with how many of the products found have each value."""

    name: str
    values: tuple[FacetValue, ...]


class PriceRange(Frozen):
    lowest_minor: int
    highest_minor: int


class SearchReply(Frozen):
    """The answer. `answered` is false, and `results` empty, where the shop has nothing that is meant. `corrected`: the text that was
    searched for in place of the given one, null where they are the same. `total`: products that match query and filters; a page may hold
    more, which pass the filters alone (`matched` is empty). `missing`: as in GuideReply."""

    request_id: str
    release: str
    degraded: Degraded | None
    missing: tuple[str, ...]
    answered: bool
    corrected: str | None
    total: int
    results: tuple[SearchResult, ...]
    recognized: tuple[Recognized, ...]
    in_catalogue: bool | None
    facets: tuple[Facet, ...]
    prices: PriceRange | None
    suggestions: tuple[str, ...]
    timings_ms: dict[str, float]


class SuggestReply(Frozen):
    """What may be meant by what was typed so far; `corrected` as in SearchReply."""

    release: str
    suggestions: tuple[str, ...]
    corrected: str | None
