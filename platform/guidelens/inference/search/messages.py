"""What a search of products takes and gives: small arrays and ids."""

# Letters: D = width, K = results.

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from guidelens.schemas.search import Facet, Matched, PriceRange, SearchFilters

Floats = NDArray[np.float32]
Rows = NDArray[np.int32]
NO_ROWS = np.zeros(0, np.int32)
NO_FLOATS = np.zeros(0, np.float32)


@dataclass(frozen=True, slots=True)
class SearchInput:
    """frame_embedding: (1280,) or None; in_catalogue: what the recognizer said of it, None without frame or recognizer.
    recognized_*: best first. packed: the shopper's packed row, None where none may be read. sold_out, excluded: rows not to show."""

    text: str | None
    filters: SearchFilters
    num: int
    offset: int
    frame_embedding: Floats | None = None
    in_catalogue: bool | None = None
    recognized_rows: Rows = field(default_factory=lambda: NO_ROWS)
    recognized_confidences: Floats = field(default_factory=lambda: NO_FLOATS)
    packed: bytes | None = None
    device: str = "none"
    channel: str = ""
    now_us: int = 0
    sold_out: Rows = field(default_factory=lambda: NO_ROWS)
    excluded: Rows = field(default_factory=lambda: NO_ROWS)


@dataclass(frozen=True, slots=True)
class SearchOutput:
    """rows, scores: (K,) from `offset` on. matched: of each. total: products under the filters that match; available: all under the filters."""

    answered: bool
    rows: Rows
    scores: Floats
    matched: tuple[tuple[Matched, ...], ...]
    total: int
    available: int
    facets: tuple[Facet, ...]
    prices: PriceRange | None
    suggestions: tuple[str, ...]
    corrected: str | None
