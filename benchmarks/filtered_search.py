"""Do filtered searches find what brute force finds, and how do build, search and memory grow from ten thousand vectors to a million?

    python -m benchmarks.filtered_search [--sizes 10000,100000,1000000] [--queries 200] [--seed 1001] [--out benchmarks/results]

Unit vectors in clusters, as categories are; filters let a random share through, or one cluster's side of the space alone (`far`: the half that is
farthest from the query). Times are of the CPU, one thread: the median and the 99th percentile over the queries. The peers, in the same run: a
matrix product with a partial sort over what the filter leaves, and faiss' flat index (without a filter) where faiss is installed.
"""

import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks._results import keep, machine, today
from guidelens.retrieval.filtered import FilteredIndex
from guidelens.schemas.base import Frozen
from pipelines.entry import progress, run_command

WIDTH, TOP, PER_CLUSTER = 64, 100, 500
SHARES = (1.0, 0.5, 0.1, 0.01, 0.001)
_BRUTE = 30
Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]


class Filter(Frozen):
    """One filter on one number of vectors. recall: mean share of the true best 100 (or all, of fewer) found; full: every page was as long as it could be.
    CPU milliseconds a search; brute: of the matrix product."""

    passes: str
    recall_at_100: float
    full: bool
    median_ms: float
    p99_ms: float
    brute_ms: float


class Size(Frozen):
    """build_s: CPU seconds. bytes_per_item: of vectors and graph in memory, of which 4 x WIDTH are the vector itself. faiss_flat_ms: None where it is not installed."""

    vectors: int
    build_s: float
    bytes_per_item: float
    filters: tuple[Filter, ...]
    after_removal_recall: float
    faiss_flat_ms: float | None


class Measured(Frozen):
    """build_growth, p99_growth: by how much a vector's build time, and an unfiltered search's 99th percentile, grew for each tenfold of vectors."""

    machine: str
    date: str
    command: str
    sizes: tuple[Size, ...]
    build_growth: tuple[float, ...]
    p99_growth: tuple[float, ...]


def drawn(num: int, num_queries: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    centres = rng.normal(size=(max(1, num // PER_CLUSTER), WIDTH)).astype(np.float32)
    vectors = centres[rng.integers(0, len(centres), num)] + 0.6 * rng.standard_normal((num, WIDTH), np.float32)
    queries = centres[rng.integers(0, len(centres), num_queries)] + 0.6 * rng.standard_normal((num_queries, WIDTH), np.float32)
    return _unit(vectors), _unit(queries)


def _unit(x: Floats) -> Floats:
    unit: Floats = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    return unit


def measured(num: int, num_queries: int, seed: int) -> Size:
    rng = np.random.default_rng([seed, num])
    vectors, queries = drawn(num, num_queries, rng)
    start = time.process_time()
    index = FilteredIndex.build(vectors)
    build_s = time.process_time() - start
    progress(f"{num:,} vectors built in {build_s:.1f} CPU s")
    filters = [
        _filter(index, vectors, queries, f"{share:.1%}", (lambda mask: lambda _query: mask)(rng.random(num) < share if share < 1 else None)) for share in SHARES
    ]
    filters.append(_filter(index, vectors, queries, "far", lambda query: (vectors @ query) < np.float32(0)))
    bytes_per_item = index.num_bytes / num
    gone = rng.choice(num, num // 5, replace=False)
    index.remove(gone)
    left = np.ones(num, np.bool_)
    left[gone] = False
    after = _filter(index, vectors, queries, "after removal", lambda _query: left).recall_at_100
    return Size(
        vectors=num,
        build_s=build_s,
        bytes_per_item=bytes_per_item,
        filters=tuple(filters),
        after_removal_recall=after,
        faiss_flat_ms=_faiss_ms(vectors, queries),
    )


def _filter(index: FilteredIndex, vectors: Floats, queries: Floats, name: str, mask_of: Callable[[Floats], Bools | None]) -> Filter:
    took, brute, shares, full = list[float](), list[float](), list[float](), True
    for number, query in enumerate(queries):
        mask = mask_of(query)
        start = time.thread_time()
        found, _ = index.search(query, TOP, mask)
        took.append(1000 * (time.thread_time() - start))
        if number >= _BRUTE:
            continue
        start = time.thread_time()
        rows = np.arange(len(vectors)) if mask is None else np.flatnonzero(mask)
        scores = (vectors if mask is None else vectors[rows]) @ query
        best = rows[np.argpartition(-scores, min(TOP, len(rows)) - 1)[:TOP]] if len(rows) else rows
        brute.append(1000 * (time.thread_time() - start))
        shares.append(len(np.intersect1d(found, best)) / max(1, len(best)))
        full = full and len(found) == min(TOP, len(rows))
    median, p99 = np.quantile(took, (0.5, 0.99))
    return Filter(passes=name, recall_at_100=float(np.mean(shares)), full=full, median_ms=float(median), p99_ms=float(p99), brute_ms=float(np.median(brute)))


def _faiss_ms(vectors: Floats, queries: Floats) -> float | None:
    try:
        import faiss  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return None
    faiss.omp_set_num_threads(1)
    flat = faiss.IndexFlatIP(WIDTH)
    flat.add(vectors)
    took = []
    for query in queries[:_BRUTE]:
        start = time.thread_time()
        flat.search(query[None], TOP)
        took.append(1000 * (time.thread_time() - start))
    return float(np.median(took))


def as_markdown(found: Measured) -> str:
    lines = [
        "# Filtered search",
        "",
        f"`{found.command}`, {found.machine}, {found.date}. {WIDTH} wide, cosine, best {TOP}; CPU time, one thread.",
        "",
        "| vectors | passes the filter | recall@100 | page full | a search, ms | p99, ms | brute force, ms | times as fast |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {size.vectors:,} | {each.passes} | {each.recall_at_100:.4f} | {'yes' if each.full else 'no'} | {each.median_ms:.2f} | {each.p99_ms:.2f} | {each.brute_ms:.2f} | {each.brute_ms / each.median_ms:.1f} |"
        for size in found.sizes
        for each in size.filters
    ]
    lines += [
        "",
        "| vectors | build, s | build, us a vector | bytes a vector | recall@100 after a fifth was removed | faiss flat, ms |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {size.vectors:,} | {size.build_s:.1f} | {1e6 * size.build_s / size.vectors:.0f} | {size.bytes_per_item:.0f} | {size.after_removal_recall:.4f} "
        f"| {'-' if size.faiss_flat_ms is None else f'{size.faiss_flat_ms:.2f}'} |"
        for size in found.sizes
    ]
    growth = "; ".join(
        f"{name}: {', '.join(f'{each:.2f}' for each in values)}" for name, values in (("build a vector", found.build_growth), ("p99", found.p99_growth))
    )
    return "\n".join([*lines, "", f"Times as much from each size to the next: {growth}.", ""])


def _growth(values: list[float]) -> tuple[float, ...]:
    return tuple(after / max(before, 1e-9) for before, after in pairwise(values))


@click.command()
@click.option("--sizes", default="10000,100000,1000000", show_default=True)
@click.option("--queries", default=200, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=1001, show_default=True)
@click.option("--out", default=Path("benchmarks/results"), type=click.Path(file_okay=False, path_type=Path))
def command(sizes: str, queries: int, seed: int, out: Path) -> None:
    """Compare filtered searches with brute force and write benchmarks/results/filtered_search.{json,md}."""
    with threadpool_limits(1):
        found = tuple(measured(int(size), queries, seed) for size in sizes.split(","))
    kept = Measured(
        machine=machine(),
        date=today(),
        command=f"python -m benchmarks.filtered_search --sizes {sizes} --queries {queries} --seed {seed}",
        sizes=found,
        build_growth=_growth([size.build_s / size.vectors for size in found]),
        p99_growth=_growth([size.filters[0].p99_ms for size in found]),
    )
    keep(kept, as_markdown(kept), out, "filtered_search")


if __name__ == "__main__":
    run_command(command)
