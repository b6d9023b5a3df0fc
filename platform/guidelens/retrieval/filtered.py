"""Nearest vectors among those that a filter leaves, as the vectors come and go: cosines, exact where few are left, else by walking a graph.

A walk knows nothing of the filter: it is asked for as many more as the filter lets through fewer, and what it misses is compared one by one.
So a filter that leaves a few of a million costs a few comparisons, and one that leaves nearly all costs a walk.
"""

# Letters: N = rows, D = width, K = wanted.

import json
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from guidelens.errors import BundleError, ShapeError
from guidelens.retrieval.graphs import Index
from guidelens.schemas.base import Frozen

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Bools = NDArray[np.bool_]
SCAN_BELOW = 50_000
"""Vectors up to which every one that is left is compared, filtered or not."""
MAX_WALK = 512
"""Neighbours that a walk is asked for at most; a filter that would need more leaves few enough to compare them all."""
_SPARE, _EXPANSION = 1.4, 2
_MIN_EXPANSION = 256
_CONNECTIVITY, _EXPANSION_ADD = 16, 96
_TINY = 1e-12


class _Facts(Frozen):
    schema_version: int = 1
    width: int
    walks: bool


class FilteredIndex:
    """Rows are numbers of the caller's own, from 0; vectors are brought to unit length."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._vectors: Floats = np.zeros((0, width), np.float32)
        self._live: Bools = np.zeros(0, np.bool_)
        self._graph: Index | None = None
        self._walking = threading.Lock()  # how far a walk looks is the graph's, not the search's

    @classmethod
    def build(cls, vectors: Floats) -> "FilteredIndex":
        """Of (N, D) vectors, numbered as they are."""
        found = cls(vectors.shape[1])
        found.add(np.arange(len(vectors)), vectors)
        return found

    def __len__(self) -> int:
        return int(self._live.sum())

    def add(self, rows: Rows, vectors: Floats) -> None:
        """Adds rows, or replaces those that are there.

        Raises:
            ShapeError: not (N, width), not finite, or a row given twice.
        """
        if vectors.shape != (len(rows), self.width) or not np.isfinite(vectors).all():
            raise ShapeError(f"vectors must be finite and ({len(rows)}, {self.width}), got {vectors.shape}")
        if len(np.unique(rows)) != len(rows):
            raise ShapeError(f"a row may be given once, got {len(rows) - len(np.unique(rows))} of them again")
        if not len(rows):
            return
        self._grow(int(rows.max()) + 1)
        replaced = rows[self._live[rows]]
        self._vectors[rows] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _TINY)
        self._live[rows] = True
        if self._graph is not None:
            if len(replaced):
                self._graph.remove(replaced.astype(np.uint64), threads=1)
            self._graph.add(rows.astype(np.uint64), self._vectors[rows], threads=1)
        elif len(self) > SCAN_BELOW:
            self._graph = _new_graph(self.width)
            live = np.flatnonzero(self._live)
            self._graph.add(live.astype(np.uint64), self._vectors[live], threads=1)

    def remove(self, rows: Rows) -> None:
        """Rows that are not there are no mistake."""
        known = np.unique(rows[(rows >= 0) & (rows < len(self._live))])
        known = known[self._live[known]]
        self._live[known] = False
        if self._graph is not None and len(known):
            self._graph.remove(known.astype(np.uint64), threads=1)

    def search(self, query: Floats, k: int, allowed_N: Bools | None = None) -> tuple[Rows, Floats]:
        """The `k` rows of highest cosine among those allowed, best first, and their cosines; fewer only where fewer are there.

        Args:
            allowed_N: over row numbers; rows beyond its end are not allowed. None allows all.
        """
        if query.shape != (self.width,):
            raise ShapeError(f"query must be ({self.width},), got {query.shape}")
        unit = np.asarray(query / max(float(np.linalg.norm(query)), _TINY), np.float32)
        left_N = self._live if allowed_N is None else self._allowed(allowed_N)
        num = int(left_N.sum())
        wanted = min(k, num)
        if wanted <= 0:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        if self._graph is None or num <= SCAN_BELOW:
            return self._scan(unit, wanted, left_N, num)
        asked = int(np.ceil(_SPARE * wanted * len(self) / num))
        while asked <= MAX_WALK:
            found = self._walk(unit, min(asked, len(self)), left_N, wanted)
            if len(found[0]) == wanted:
                return found
            asked *= 2
        return self._scan(unit, wanted, left_N, num)

    def _allowed(self, allowed_N: Bools) -> Bools:
        left_N = np.zeros(len(self._live), np.bool_)
        num = min(len(allowed_N), len(self._live))
        left_N[:num] = allowed_N[:num] & self._live[:num]
        return left_N

    def _scan(self, unit: Floats, wanted: int, left_N: Bools, num: int) -> tuple[Rows, Floats]:
        rows = np.flatnonzero(left_N)
        cosines = (self._vectors[: len(left_N)] @ unit)[rows] if 2 * num > len(left_N) else self._vectors[rows] @ unit
        best = np.argpartition(-cosines, wanted - 1)[:wanted]
        best = best[np.lexsort((rows[best], -cosines[best]))]
        return rows[best].astype(np.int64), cosines[best].astype(np.float32)

    def _walk(self, unit: Floats, asked: int, left_N: Bools, wanted: int) -> tuple[Rows, Floats]:
        assert self._graph is not None
        with self._walking:
            self._graph.expansion_search = max(_MIN_EXPANSION, _EXPANSION * asked)
            rows = np.asarray(self._graph.search(unit, asked, threads=1).keys, np.int64)
        rows = rows[left_N[rows]]
        cosines = self._vectors[rows] @ unit
        order = np.lexsort((rows, -cosines))[:wanted]
        return rows[order], cosines[order].astype(np.float32)

    def _grow(self, size: int) -> None:
        if size <= len(self._live):
            return
        capacity = max(size, len(self._live) + len(self._live) // 2) if len(self._live) else size
        vectors, live = np.zeros((capacity, self.width), np.float32), np.zeros(capacity, np.bool_)
        vectors[: len(self._live)], live[: len(self._live)] = self._vectors, self._live
        self._vectors, self._live = vectors, live

    @property
    def num_bytes(self) -> int:
        """Of vectors and graph in memory."""
        return self._vectors.nbytes + self._live.nbytes + (0 if self._graph is None else int(self._graph.memory_usage))

    def save(self, path: Path) -> None:
        """Writes `path` (.safetensors) and beside it .json and, where there is one, the graph (.usearch)."""
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"vectors": self._vectors, "live": self._live}, path)
        path.with_suffix(".json").write_text(json.dumps(_Facts(width=self.width, walks=self._graph is not None).model_dump()) + "\n")
        if self._graph is not None:
            self._graph.save(str(path.with_suffix(".usearch")))

    @classmethod
    def load(cls, path: Path) -> "FilteredIndex":
        """What `save` wrote.

        Raises:
            BundleError: a file is missing or damaged.
        """
        try:
            facts, tensors = _Facts.model_validate_json(path.with_suffix(".json").read_bytes()), load_file(path)
            found = cls(facts.width)
            found._vectors, found._live = tensors["vectors"], tensors["live"]
        except (OSError, ValidationError, SafetensorError, KeyError) as error:
            raise BundleError(f"{path} must hold an index of vectors, got {error}; release again") from error
        if facts.walks:
            graph = path.with_suffix(".usearch")
            found._graph = Index.restore(str(graph)) if graph.is_file() else None
            if found._graph is None:
                raise BundleError(f"{graph} must hold the graph of an index, got none; release again")
        return found


def _new_graph(width: int) -> Index:
    return Index(ndim=width, metric="cos", dtype="f16", connectivity=_CONNECTIVITY, expansion_add=_EXPANSION_ADD)
