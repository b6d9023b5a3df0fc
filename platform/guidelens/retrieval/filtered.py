"""Nearest vectors among those that a filter leaves, as the vectors come and go: cosines, exact where few are left, else by walking a graph.

A walk knows nothing of the filter: it is asked for as many more as the filter lets through fewer, and what it misses is compared one by one.
So a filter that leaves a few of a million costs a few comparisons, and one that leaves nearly all costs a walk.

A graph that outgrows the processor's caches costs more a vector to build, so rows are dealt out to segments, each with a graph of its own: a search walks them all, each
for its share of what is asked, and one further where all that it gave is among the best.
"""

# Letters: N = rows, D = width, K = wanted, S = segments.

import json
import threading
from pathlib import Path
from typing import Literal

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
Segments = NDArray[np.int16]
SCAN_BELOW = 50_000
"""Vectors up to which every one that is left is compared, filtered or not."""
MAX_WALK = 512
"""Neighbours that a walk is asked for at most; a filter that would need more leaves few enough to compare them all."""
SEGMENT_ROWS = 100_000
"""Rows of a segment; a graph of so many is built at the same time a vector as a smaller one."""
_SPARE, _EXPANSION = 1.4, 2
_EXPANSION_OF_ALL, _MIN_EXPANSION = 256, 64
"""Candidates that a walk keeps at least: over all segments, and in one of them."""
_MIN_SHARE = 16
"""Asked of a segment at least, and beyond its even share."""
_NOWHERE = -1
_CONNECTIVITY, _EXPANSION_ADD = 16, 96
_TINY = 1e-12


class _Facts(Frozen):
    """segments: graphs beside the vectors; none where every row is compared."""

    schema_version: Literal[2] = 2
    width: int
    segments: int


class FilteredIndex:
    """Rows are numbers of the caller's own, from 0; vectors are brought to unit length."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._vectors: Floats = np.zeros((0, width), np.float32)
        self._live: Bools = np.zeros(0, np.bool_)
        self._segment_of: Segments = np.zeros(0, np.int16)
        self._segments: list[Index] = []
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
        self._unlink(rows[self._live[rows]])
        self._vectors[rows] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _TINY)
        self._live[rows] = True
        if self._segments:
            self._link(rows)
        elif len(self) > SCAN_BELOW:
            self._link(np.flatnonzero(self._live))

    def _link(self, rows: Rows) -> None:
        """Into the last segment as far as it has room, the rest dealt out evenly to new ones: each of them holds some of every kind, however the rows are sorted."""
        room = max(0, SEGMENT_ROWS - len(self._segments[-1])) if self._segments else 0
        if room:
            self._put(len(self._segments) - 1, rows[:room])
        rest = rows[room:]
        num_new = -(-len(rest) // SEGMENT_ROWS)
        for start in range(num_new):
            self._segments.append(_new_graph(self.width))
            self._put(len(self._segments) - 1, rest[start::num_new])

    def _put(self, segment: int, rows: Rows) -> None:
        self._segments[segment].add(rows.astype(np.uint64), self._vectors[rows], threads=1)
        self._segment_of[rows] = segment

    def _unlink(self, rows: Rows) -> None:
        for segment in np.unique(self._segment_of[rows]):
            if segment != _NOWHERE:
                self._segments[segment].remove(rows[self._segment_of[rows] == segment].astype(np.uint64), threads=1)
        self._segment_of[rows] = _NOWHERE

    def remove(self, rows: Rows) -> None:
        """Rows that are not there are no mistake."""
        known = np.unique(rows[(rows >= 0) & (rows < len(self._live))])
        known = known[self._live[known]]
        self._live[known] = False
        self._unlink(known)

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
        if not self._segments or num <= SCAN_BELOW:
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
        """Of the `asked` nearest in all segments, those that are left."""
        with self._walking:
            rows, cosines = self._nearest(unit, asked)
        passed = left_N[rows]
        rows, cosines = rows[passed], cosines[passed]
        order = np.lexsort((rows, -cosines))[:wanted]
        return rows[order], cosines[order]

    def _nearest(self, unit: Floats, asked: int) -> tuple[Rows, Floats]:
        """The `asked` rows of highest cosine, in no order. A segment whose every answer is one of them may hold more, and is asked for twice as many."""
        found: dict[int, tuple[Rows, Floats]] = {}
        shares = {number: min(asked, _MIN_SHARE + -(-asked // len(self._segments))) for number in range(len(self._segments))}
        while shares:
            for number, share in shares.items():
                rows = self._of_segment(number, unit, share)
                found[number] = rows, (self._vectors[rows] @ unit).astype(np.float32)
            every = np.concatenate([cosines for _, cosines in found.values()])
            least = np.partition(every, len(every) - asked)[len(every) - asked] if len(every) > asked else -np.inf
            shares = {
                number: min(asked, 2 * share)
                for number, share in shares.items()
                if share < asked and len(found[number][0]) == share and found[number][1].min(initial=np.inf) >= least
            }
        return np.concatenate([rows for rows, _ in found.values()]), np.concatenate([cosines for _, cosines in found.values()])

    def _of_segment(self, number: int, unit: Floats, asked: int) -> Rows:
        graph = self._segments[number]
        if not len(graph):
            return np.zeros(0, np.int64)
        graph.expansion_search = max(_EXPANSION_OF_ALL // len(self._segments), _MIN_EXPANSION, _EXPANSION * asked)
        return np.asarray(graph.search(unit, min(asked, len(graph)), threads=1).keys, np.int64)

    def _grow(self, size: int) -> None:
        if size <= len(self._live):
            return
        capacity = max(size, len(self._live) + len(self._live) // 2) if len(self._live) else size
        vectors, live, segment_of = np.zeros((capacity, self.width), np.float32), np.zeros(capacity, np.bool_), np.full(capacity, _NOWHERE, np.int16)
        old = slice(len(self._live))
        vectors[old], live[old], segment_of[old] = self._vectors, self._live, self._segment_of
        self._vectors, self._live, self._segment_of = vectors, live, segment_of

    @property
    def num_bytes(self) -> int:
        """Of vectors and graphs in memory."""
        return self._vectors.nbytes + self._live.nbytes + self._segment_of.nbytes + sum(int(graph.memory_usage) for graph in self._segments)

    def save(self, path: Path) -> None:
        """Writes `path` (.safetensors) and beside it .json and a graph a segment (.0.usearch, ...)."""
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"vectors": self._vectors, "live": self._live, "segment_of": self._segment_of}, path)
        path.with_suffix(".json").write_text(json.dumps(_Facts(width=self.width, segments=len(self._segments)).model_dump()) + "\n")
        for number, graph in enumerate(self._segments):
            graph.save(str(_graph_file(path, number)))

    @classmethod
    def load(cls, path: Path) -> "FilteredIndex":
        """What `save` wrote.

        Raises:
            BundleError: a file is missing or damaged, or of an earlier form.
        """
        try:
            facts, tensors = _Facts.model_validate_json(path.with_suffix(".json").read_bytes()), load_file(path)
            found = cls(facts.width)
            found._vectors, found._live, found._segment_of = tensors["vectors"], tensors["live"], tensors["segment_of"]
        except (OSError, ValidationError, SafetensorError, KeyError) as error:
            raise BundleError(f"{path} must hold an index of vectors, got {error}; release again") from error
        for graph in (_graph_file(path, number) for number in range(facts.segments)):
            restored = Index.restore(str(graph)) if graph.is_file() else None
            if restored is None:
                raise BundleError(f"{graph} must hold a graph of an index, got none; release again")
            found._segments.append(restored)
        return found


def _graph_file(path: Path, number: int) -> Path:
    return path.with_suffix(f".{number}.usearch")


def _new_graph(width: int) -> Index:
    return Index(ndim=width, metric="cos", dtype="f16", connectivity=_CONNECTIVITY, expansion_add=_EXPANSION_ADD)
