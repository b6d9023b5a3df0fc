"""Ingest's work as Ray Data pipelines: records checked, photos embedded, texts embedded, tasks run. Knows nothing of the lake.

What `check_records` and the embedders return is held whole by the driver: products, shoppers, reviews and photos. Events go through
`OnRay`, whose tasks hand on their work through the lake and return only where it is.
"""

import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import polars as pl
import pyarrow as pa
import ray
import ray.data
from numpy.typing import NDArray
from ray.data import ActorPoolStrategy, TaskPoolStrategy

from guidelens.config import IngestConfig, S3Options
from guidelens.data.images.photos import EMBEDDED_SCHEMA, PhotoEmbedder
from guidelens.data.ingest.event_intake import Run
from guidelens.data.records.sources import Chunk
from guidelens.data.records.validation import Checker, checked_tables, staged_schema
from guidelens.errors import GuideLensError
from guidelens.schemas.tables import TEXT_DIM

Task = TypeVar("Task")
Result = TypeVar("Result")
Vector = NDArray[np.float32]
_DRIVERS_OWN_BYTES = 1024 * 1024
"""Sources up to this size, such as what a few seconds bring to the inbox, are done sooner than Ray would begin."""
_FEW_BYTES, _FEW_PHOTOS = 16 * 1024, 4
"""Of records and of photos: up to so many, this process is done before a worker would have loaded what it needs, and needs no Ray."""
_MOST_TASKS_AT_ONCE = 24
_FEWEST_ROUNDS = 2
"""How often a worker comes for tasks: each time costs it some 0.2 s, and all come equally often, so that they end at about the same time."""
_TEXTS_PER_BATCH = 128


def set_up_ray_data() -> None:
    """For the pipelines below: how many work at once is said by their pools alone, and callers print a line a stage themselves.

    Ray Data's own budgets are off: they are nothing for a pipeline's first second or two (its coordinator answers later), in which one
    task would run at a time. Its progress and plans are logged to its files only.
    """
    context = ray.data.DataContext.get_current()
    context.op_resource_reservation_enabled = False
    context.enable_progress_bars = False
    context.verbose_progress = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)


def in_driver(function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
    """Each task's number and result, one after another."""
    return ((number, function(task)) for number, task in enumerate(tasks))


def is_small(size_bytes: int) -> bool:
    """Whether an ingest of so much is done sooner by the driver alone."""
    return size_bytes <= _DRIVERS_OWN_BYTES


def run_for(size_bytes: int, config: IngestConfig) -> Run:
    """Where the tasks of an ingest of so much run."""
    return in_driver if is_small(size_bytes) else OnRay(config.num_workers)


class OnRay:
    """Runs tasks as a Ray Data pipeline, `num_workers` at a time; yields each task's number and result as they are done.

    Ray Data looks after finished work about ten times a second, so that a worker with short tasks waits as long as it works: of many
    tasks it gets several at once. A single one is done here.
    """

    def __init__(self, num_workers: int) -> None:
        self._num_workers = num_workers

    def __call__(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        """Raises what the function raised, where that is an error of ours."""

        def work(batch: pa.Table) -> Iterator[pa.Table]:
            for number, packed in zip(batch["number"].to_pylist(), batch["task"].to_pylist(), strict=True):
                try:
                    result: Result | GuideLensError = function(pickle.loads(packed))  # noqa: S301 - packed by the driver below
                except GuideLensError as error:
                    result = error
                yield pa.table({"number": [number], "result": pa.array([pickle.dumps(result)], pa.large_binary())})

        if len(tasks) < 2:
            yield from in_driver(function, tasks)
            return
        rounds = max(_FEWEST_ROUNDS, -(-len(tasks) // (self._num_workers * _MOST_TASKS_AT_ONCE)))
        size = -(-len(tasks) // (self._num_workers * rounds))
        packed = [(number, pickle.dumps(task)) for number, task in enumerate(tasks)]
        blocks = [_packed(packed[start : start + size]) for start in range(0, len(packed), size)]
        pool = TaskPoolStrategy(size=min(self._num_workers, len(blocks)))
        done = ray.data.from_arrow(blocks).map_batches(work, batch_size=None, batch_format="pyarrow", compute=pool)
        for batch in done.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for number, answer in zip(batch["number"].to_pylist(), batch["result"].to_pylist(), strict=True):
                result = pickle.loads(answer)  # noqa: S301 - packed by `work` above
                if isinstance(result, GuideLensError):
                    raise result
                yield number, result


def _packed(tasks: Sequence[tuple[int, bytes]]) -> pa.Table:
    return pa.table({"number": [number for number, _ in tasks], "task": pa.array([task for _, task in tasks], pa.large_binary())})


def check_records(chunks: Sequence[Chunk], checker: Checker, s3: S3Options, config: IngestConfig) -> pl.DataFrame:
    """All records of the chunks in `staged_schema(checker.kind)`, in no particular order."""

    def check(batch: pa.Table) -> Iterator[pa.Table]:
        for row in batch.to_pylist():
            yield from checked_tables(Chunk.model_validate(row), checker, s3)

    if not chunks:
        return _frame(staged_schema(checker.kind).empty_table())
    if all(chunk.size_bytes is not None for chunk in chunks) and sum(chunk.size_bytes or 0 for chunk in chunks) <= _FEW_BYTES:
        return _frame(pa.concat_tables(table for chunk in chunks for table in checked_tables(chunk, checker, s3)).cast(staged_schema(checker.kind)))
    dataset = ray.data.from_arrow([pa.Table.from_pylist([chunk.model_dump()]) for chunk in chunks])
    pool = TaskPoolStrategy(size=min(config.num_workers, len(chunks)))
    checked = dataset.map_batches(check, batch_size=1, batch_format="pyarrow", compute=pool)
    return _collected(checked, staged_schema(checker.kind))


def embed_photos(tasks: pa.Table, contents: pa.Table, root: str, s3: S3Options, config: IngestConfig) -> pl.DataFrame:
    """The photos' rows in EMBEDDED_SCHEMA, in no particular order. Batches do not depend on the number of workers.

    Args:
        tasks, contents: of a `PhotoPlan`.
    """
    size = config.photo_batch_size
    blocks = [tasks.slice(start, size) for start in range(0, tasks.num_rows, size)]
    if not blocks:
        return _frame(EMBEDDED_SCHEMA.empty_table())
    if tasks.num_rows <= _FEW_PHOTOS:
        return _frame(PhotoEmbedder(root, s3, config, contents)(tasks))
    embedded = ray.data.from_arrow(blocks).map_batches(
        PhotoEmbedder,
        fn_constructor_args=(root, s3, config, contents),
        batch_size=None,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=min(config.num_workers, len(blocks))),
    )
    return _collected(embedded, EMBEDDED_SCHEMA)


class TextEmbedder:
    """Embeds batches of texts; holds the encoder, so keep one a worker."""

    def __init__(self, encoder: str) -> None:
        from guidelens.encoders.backbones import load_text_backbone

        self._encoder = load_text_backbone(encoder)

    def __call__(self, texts: pa.Table) -> pa.Table:
        vectors = self._encoder.embed(texts["text"].to_pylist())
        values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel(), pa.float32()), TEXT_DIM)
        return texts.append_column("vector", values).append_column("encoder", pa.array([self._encoder.encoder_id] * len(vectors)))


def embed_texts(texts: Sequence[str], config: IngestConfig) -> tuple[dict[str, Vector], str]:
    """A (512,) float32 unit vector by text, and the encoder's id ("" where there was no text)."""
    blocks = _text_blocks(texts)
    if not blocks:
        return {}, ""
    pool = ActorPoolStrategy(size=min(config.num_workers, len(blocks)))
    embedded = ray.data.from_arrow(blocks).map_batches(
        TextEmbedder, fn_constructor_args=(config.encoders.text,), batch_size=None, batch_format="pyarrow", compute=pool
    )
    return _by_text(pa.concat_tables(_arrow_tables(embedded)))


class EmbedHere:
    """`embed_texts` in this process, which keeps the encoder: for one that embeds a few texts again and again."""

    def __init__(self, encoder: str) -> None:
        self._encoder = encoder
        self._embedder: TextEmbedder | None = None

    def __call__(self, texts: Sequence[str]) -> tuple[dict[str, Vector], str]:
        blocks = _text_blocks(texts)
        if not blocks:
            return {}, ""
        self._embedder = self._embedder or TextEmbedder(self._encoder)
        return _by_text(pa.concat_tables(self._embedder(block) for block in blocks))


def _text_blocks(texts: Sequence[str]) -> list[pa.Table]:
    distinct = pa.table({"text": pa.array(sorted(set(texts)), pa.string())})
    return [distinct.slice(start, _TEXTS_PER_BATCH) for start in range(0, distinct.num_rows, _TEXTS_PER_BATCH)]


def _by_text(rows: pa.Table) -> tuple[dict[str, Vector], str]:
    vectors = rows["vector"].combine_chunks().flatten().to_numpy().reshape(-1, TEXT_DIM)
    return dict(zip(rows["text"].to_pylist(), vectors, strict=True)), rows["encoder"][0].as_py()


def _arrow_tables(dataset: Any) -> list[pa.Table]:
    return [table for table in ray.get(dataset.to_arrow_refs()) if table.num_rows]


def _collected(dataset: Any, schema: pa.Schema) -> pl.DataFrame:
    tables = [table.select(schema.names).cast(schema) for table in _arrow_tables(dataset)]
    return _frame(pa.concat_tables([schema.empty_table(), *tables]))


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame
