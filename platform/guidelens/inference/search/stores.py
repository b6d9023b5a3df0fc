"""Where the vectors of a large catalogue are kept and searched under the filters of a search: in the process, or in PostgreSQL (pgvector).

Both take and give product rows of the release; which one, the config says (`serve.search.vectors`).
"""

# Letters: D = width, K = wanted.

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from guidelens.inference.search.filters import FilterTable
from guidelens.retrieval.filtered import FilteredIndex
from guidelens.schemas.search import SearchFilters

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


class ProductVectors(Protocol):
    """Unit vectors by product row."""

    def add(self, rows: Rows, vectors: Floats) -> None:
        """Adds products, or replaces them."""
        ...

    def remove(self, rows: Rows) -> None: ...

    def search(self, query: Floats, k: int, filters: SearchFilters) -> tuple[Rows, Floats]:
        """The `k` nearest products that pass the filters, best first, and their cosines; fewer only where fewer pass."""
        ...


class EmbeddedVectors:
    """In this process: an index beside the table that the filters are looked up in."""

    def __init__(self, index: FilteredIndex, table: FilterTable) -> None:
        self._index, self._table = index, table

    def add(self, rows: Rows, vectors: Floats) -> None:
        self._index.add(rows, vectors)

    def remove(self, rows: Rows) -> None:
        self._index.remove(rows)

    def search(self, query: Floats, k: int, filters: SearchFilters) -> tuple[Rows, Floats]:
        return self._index.search(query, k, None if filters.is_empty else self._table.mask(filters))
