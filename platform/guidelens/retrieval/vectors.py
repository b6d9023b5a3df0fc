"""Finding vectors of highest inner product: by comparing all, or by walking a graph that was tried on queries when it was built."""

# Letters: N = vectors, D = width, Q = queries.

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from guidelens.errors import BundleError, ShapeError
from guidelens.retrieval.graphs import Index
from guidelens.schemas.base import Frozen

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Walk = Literal["all", "product", "angle"]
EXACT_BELOW = 20_000
"""Vectors up to which every one is compared."""
TARGET_RECALL, TRIED_TOP, TRIED_QUERIES = 0.99, 100, 200
EXPANSIONS = (256, 1024)
"""Vertices that a walk of the graph keeps: recall for time."""
_CONNECTIVITY, _EXPANSION_ADD = 24, 192
_TINY = 1e-12


class IndexFacts(Frozen):
    """How an index is searched. recall: mean share of the true best TRIED_TOP that the walk found of `queries` queries; None where all are compared."""

    schema_version: int = 2
    walk: Walk
    expansion: int = 0
    recall: float | None = None
    queries: int = 0


class VectorIndex:
    """Highest inner products. Rows are numbered as they were given.

    An inner product is no distance, and a graph walked by it misses what it should find on some vectors (with biases, above all); by
    angle, after one more coordinate has brought all vectors to one length (Bachrach et al., RecSys 2014), it does so on others. Which one
    it is cannot be told ahead, so `build` tries them on queries.
    """

    def __init__(self, index: Index, facts: IndexFacts) -> None:
        self._index, self.facts = index, facts
        self._is_angle = facts.walk == "angle"
        self._length = float(np.linalg.norm(index.get(0))) if len(index) else 0.0
        if facts.expansion:
            index.expansion_search = facts.expansion

    @classmethod
    def build(cls, vectors: Floats, queries: Floats | None = None) -> "VectorIndex":
        """(N, D) float32 vectors. Above EXACT_BELOW of them, the cheapest walk whose recall reaches TARGET_RECALL; all are compared where none does.

        Args:
            queries: (Q, D) like those that will be asked; some of the vectors themselves by default.

        Raises:
            ShapeError: not two-dimensional, not finite, or queries of another width.
        """
        if vectors.ndim != 2 or not np.isfinite(vectors).all():
            raise ShapeError(f"vectors must be (N, D) and finite, got {vectors.shape}")
        if queries is not None and queries.shape[1:] != vectors.shape[1:]:
            raise ShapeError(f"queries must be as wide as the vectors ({vectors.shape[1]}), got {queries.shape}")
        if len(vectors) < EXACT_BELOW:
            return cls(_graph(vectors, "product"), IndexFacts(walk="all"))
        asked = _sample(vectors if queries is None or len(queries) == 0 else queries)
        built: dict[Walk, Index] = {}
        for expansion in EXPANSIONS:
            for walk in ("product", "angle"):
                if walk not in built:
                    built[walk] = _graph(vectors, walk)
                tried = cls(built[walk], IndexFacts(walk=walk, expansion=expansion))
                recall = tried._recall(vectors, asked)
                if recall >= TARGET_RECALL:
                    return cls(built[walk], IndexFacts(walk=walk, expansion=expansion, recall=recall, queries=len(asked)))
        return cls(built["product"], IndexFacts(walk="all"))

    def __len__(self) -> int:
        return len(self._index)

    @property
    def width(self) -> int:
        """D: how wide vectors and queries are."""
        return int(self._index.ndim) - self._is_angle

    def search(self, query: Floats, k: int) -> tuple[Rows, Floats]:
        """The `k` best rows of a (D,) query, best first, and their inner products; fewer if there are fewer vectors."""
        if query.shape != (self.width,):
            raise ShapeError(f"query must be ({self.width},), got {query.shape}")
        wanted = min(k, len(self))
        if wanted <= 0:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        asked = np.append(query, 0) if self._is_angle else query
        found = self._index.search(np.ascontiguousarray(asked, np.float32), wanted, exact=self.facts.walk == "all", threads=1)
        products = 1 - np.asarray(found.distances, np.float32)
        scale = self._length * float(np.linalg.norm(query)) if self._is_angle else 1.0
        return np.asarray(found.keys, np.int64), (products * np.float32(scale)).astype(np.float32)

    def _recall(self, vectors: Floats, queries: Floats) -> float:
        top = min(TRIED_TOP, len(vectors))
        shares = []
        for query in queries:
            best = np.argpartition(-(vectors @ query), top - 1)[:top]
            shares.append(len(np.intersect1d(self.search(query, top)[0], best)) / top)
        return float(np.mean(shares))

    def save(self, path: Path) -> None:
        """Writes `path` and, beside it, how it is searched (.json)."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._index.save(str(path))
        path.with_suffix(".json").write_text(self.facts.model_dump_json(indent=1))

    @classmethod
    def load(cls, path: Path) -> "VectorIndex":
        """What `save` wrote.

        Raises:
            BundleError: no index there, a damaged one, or one of an earlier GuideLens, which does not say how it is searched.
        """
        index = Index.restore(str(path)) if path.is_file() else None
        if index is None:
            raise BundleError(f"{path} must hold a vector index, got none; release again")
        try:
            facts = IndexFacts.model_validate_json(path.with_suffix(".json").read_bytes())
        except (OSError, ValidationError) as error:
            raise BundleError(f"{path.with_suffix('.json')} must say how the index is searched: {error}; release again") from error
        return cls(index, facts)


def _graph(vectors: Floats, walk: Walk) -> Index:
    """A graph over the vectors: by inner product, or by angle once all have one length."""
    stored = _of_one_length(vectors) if walk == "angle" else vectors
    metric = "cos" if walk == "angle" else "ip"
    index = Index(ndim=max(1, stored.shape[1]), metric=metric, dtype="f32", connectivity=_CONNECTIVITY, expansion_add=_EXPANSION_ADD)
    if len(stored):
        index.add(np.arange(len(stored), dtype=np.uint64), np.ascontiguousarray(stored, np.float32), threads=1)
    return index


def _of_one_length(vectors: Floats) -> Floats:
    """(N, D + 1): what the longest vector has more of squared length goes to a new coordinate."""
    squares_N = np.square(vectors, dtype=np.float64).sum(axis=1)
    missing_N = np.sqrt(np.maximum(max(float(squares_N.max()), _TINY) - squares_N, 0.0))
    return np.concatenate([vectors, missing_N[:, None].astype(np.float32)], axis=1)


def _sample(queries: Floats) -> Floats:
    rows = np.random.Generator(np.random.Philox(key=0)).permutation(len(queries))[:TRIED_QUERIES]
    return np.ascontiguousarray(queries[np.sort(rows)], np.float32)
