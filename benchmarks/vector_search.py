"""Does the vector index find what a brute-force search finds, and how do building and searching grow?

    python -m benchmarks.vector_search [--sizes 20000,80000,320000] [--queries 500] [--out benchmarks/results]

Vectors like those of the joint model's tower (D + 1 wide: product vector and bias), drawn in clusters, as categories are, with biases as unequal as
popularity; queries lie near them, as intents do. The index is tried on other queries than those that it is measured with. The peer is a matrix product over all vectors with a partial sort, in the same run, one thread.
"""

import time
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks._results import keep, machine, today
from guidelens.retrieval import VectorIndex
from guidelens.schemas.base import Frozen
from pipelines.entry import progress, run_command

WIDTH, TOP, PER_CLUSTER = 65, 100, 200
Floats = NDArray[np.float32]


class Size(Frozen):
    """One number of vectors. recall: mean share of the brute force's best 100 that the index has among its own. walk: how it is searched."""

    vectors: int
    walk: str
    recall_at_100: float
    build_s: float
    index_ms: float
    index_p99_ms: float
    brute_ms: float


class Measured(Frozen):
    machine: str
    date: str
    command: str
    sizes: tuple[Size, ...]


def drawn(num: int, num_queries: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    centres = rng.normal(size=(max(1, num // PER_CLUSTER), WIDTH - 1))
    vectors = centres[rng.integers(0, len(centres), num)] + 0.5 * rng.normal(size=(num, WIDTH - 1))
    biases = -np.log(rng.zipf(1.5, (num, 1)).clip(1, 10_000))
    queries = centres[rng.integers(0, len(centres), num_queries)] + 0.7 * rng.normal(size=(num_queries, WIDTH - 1))
    ones = np.ones((num_queries, 1))
    return np.concatenate([vectors, biases], axis=1).astype(np.float32), np.concatenate([queries, ones], axis=1).astype(np.float32)


def measured(num: int, num_queries: int) -> Size:
    vectors, queries = drawn(num, 2 * num_queries, np.random.default_rng(num))
    tried, queries = queries[:num_queries], queries[num_queries:]
    start = time.perf_counter()
    index = VectorIndex.build(vectors, tried)
    build_s = time.perf_counter() - start
    shares, took, brute = [], [], []
    for query in queries:
        start = time.perf_counter()
        found, _ = index.search(query, TOP)
        took.append(time.perf_counter() - start)
        start = time.perf_counter()
        scores = vectors @ query
        best = np.argpartition(-scores, TOP)[:TOP]
        brute.append(time.perf_counter() - start)
        shares.append(len(np.intersect1d(found, best)) / TOP)
    progress(f"{num:,} vectors: recall {np.mean(shares):.4f}, built in {build_s:.1f} s")
    return Size(
        vectors=num,
        walk=index.facts.walk,
        recall_at_100=float(np.mean(shares)),
        build_s=build_s,
        index_ms=1000 * float(np.mean(took)),
        index_p99_ms=1000 * float(np.quantile(took, 0.99)),
        brute_ms=1000 * float(np.mean(brute)),
    )


def as_markdown(found: Measured) -> str:
    lines = [
        "# Vector search",
        "",
        f"`{found.command}`, {found.machine}, {found.date}. {WIDTH} wide, inner product, best {TOP}, one thread.",
        "",
        "| vectors | searched by | recall@100 | build, s | a search, ms | p99, ms | brute force, ms | times as fast |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for size in found.sizes:
        lines.append(
            f"| {size.vectors:,} | {size.walk} | {size.recall_at_100:.4f} | {size.build_s:.1f} | {size.index_ms:.2f} | {size.index_p99_ms:.2f} "
            f"| {size.brute_ms:.2f} | {size.brute_ms / size.index_ms:.1f} |"
        )
    return "\n".join([*lines, ""])


@click.command()
@click.option("--sizes", default="20000,80000,320000", show_default=True)
@click.option("--queries", default=500, show_default=True, type=click.IntRange(min=1))
@click.option("--out", default=Path("benchmarks/results"), type=click.Path(file_okay=False, path_type=Path))
def command(sizes: str, queries: int, out: Path) -> None:
    """Compare the index with brute force and write benchmarks/results/vector_search.{json,md}."""
    with threadpool_limits(1):
        found = tuple(measured(int(size), queries) for size in sizes.split(","))
    shown = f"python -m benchmarks.vector_search --sizes {sizes} --queries {queries}"
    kept = Measured(machine=machine(), date=today(), command=shown, sizes=found)
    keep(kept, as_markdown(kept), out, "vector_search")


if __name__ == "__main__":
    run_command(command)
