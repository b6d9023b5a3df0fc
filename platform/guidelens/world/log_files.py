"""Writes the log of a world and the truth beside it, a part of the shoppers at a time: memory does not grow with the number of events.

A part is SHOPPERS_A_PART shoppers; a file holds one part, or several where there would be more than MAX_FILES. Workers take
files in any order: each file's bytes depend on the seed only. The truth of the sessions is gathered from the parts' own files.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray

from guidelens.world.blueprint import Job, build
from guidelens.world.event_rows import Log, Words, json_lines, log_of, session_names, typed_events
from guidelens.world.latents import Ints
from guidelens.world.sessions import Chunk, Shop, session_counts, simulate

EventsFormat = Literal["jsonl", "parquet"]
SHOPPERS_A_PART = 48
MAX_FILES = 512
_FEW_SESSIONS = 4000
"""Below this a second process costs more than it brings."""
_AR = "ar_"
Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class LogCounts:
    """What was written. faults: by name."""

    num_events: int
    faults: dict[str, int]


@dataclass(frozen=True)
class _Writer:
    """Draws any file of the log."""

    job: Job
    shop: Shop
    words: Words
    counts: Ints
    events_format: EventsFormat

    def write(self, file: int) -> LogCounts:
        """Writes the `file`-th file of events and of truth; where files hold several parts, one after the other."""
        each = _parts_a_file(self.shop.shoppers.num)
        parts = range(file * each, min((file + 1) * each, _num_parts(self.shop.shoppers.num)))
        truths, logs = [], []
        num_events = 0
        with _events_sink(self.job.out / "events", file, self.events_format) as put:
            for part in parts:
                chunk = self._chunk(part)
                log = log_of(self.shop, chunk, self.words, part)
                put(log.events)
                truths.append(_session_truth(self.shop, chunk))
                logs.append(log)
                num_events += log.events.height
        gathered: dict[str, Any] = {name: np.concatenate([truth[name] for truth in truths]) for name in truths[0]}
        np.savez(_gathered(self.job.out) / f"{file:05d}.npz", **gathered)
        return LogCounts(num_events, self._write_truth(file, logs))

    def _chunk(self, part: int) -> Chunk:
        start = part * SHOPPERS_A_PART
        rows = [row for row in range(start, min(start + SHOPPERS_A_PART, self.shop.shoppers.num)) if self.counts[row] > 0]
        return simulate(self.shop, rows or [start], self.counts)

    def _write_truth(self, file: int, logs: list[Log]) -> dict[str, int]:
        for name in logs[0].truth:
            folder = self.job.out / "truth" / name
            folder.mkdir(exist_ok=True)
            pl.concat([log.truth[name] for log in logs]).write_parquet(folder / f"part-{file:05d}.parquet")
        return dict(pl.concat([log.truth["trouble"] for log in logs]).group_by("fault").len().iter_rows())


def write_log(
    job: Job, shop: Shop, words: Words, num_workers: int, events_format: EventsFormat = "jsonl", tell: Callable[[str], None] | None = None
) -> LogCounts:
    """All events of the world under `job.out`, and the truth of its sessions."""
    counts = session_counts(shop.shoppers, job.size.num_sessions, job.seed)
    files = range(-(-_num_parts(shop.shoppers.num) // _parts_a_file(shop.shoppers.num)))
    _gathered(job.out).mkdir(parents=True, exist_ok=True)
    if num_workers == 1 or job.size.num_sessions < _FEW_SESSIONS:
        writer = _Writer(job, shop, words, counts, events_format)
        written = _told(map(writer.write, files), len(files), tell)
    else:
        with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn"), initializer=_start, initargs=(job, counts, events_format)) as pool:
            written = _told(pool.map(_write, files), len(files), tell)
    _gather_sessions(job.out, len(files))
    return written


_worker: list[_Writer] = []
"""A worker process's own writer: the shop is drawn again once a process, not once a file."""


def _start(job: Job, counts: Ints, events_format: EventsFormat) -> None:
    _worker[:] = [_Writer(job, *build(job), counts, events_format)]


def _write(file: int) -> LogCounts:
    return _worker[0].write(file)


def _told(each: Iterable[LogCounts], num_files: int, tell: Callable[[str], None] | None) -> LogCounts:
    total, faults = 0, Counter[str]()
    for done, counts in enumerate(each, start=1):
        total += counts.num_events
        faults.update(counts.faults)
        if tell and (done == num_files or done % max(1, num_files // 10) == 0):
            tell(f"events: {total} in {done} of {num_files} files")
    return LogCounts(total, dict(sorted(faults.items())))


def _num_parts(num_shoppers: int) -> int:
    return -(-num_shoppers // SHOPPERS_A_PART)


def _parts_a_file(num_shoppers: int) -> int:
    return -(-_num_parts(num_shoppers) // MAX_FILES)


@contextmanager
def _events_sink(folder: Path, file: int, events_format: EventsFormat) -> Iterator[Callable[[pl.DataFrame], None]]:
    path = folder / f"part-{file:05d}.{events_format}"
    if events_format == "jsonl":
        with path.open("wb") as sink:
            yield lambda frame: _discard(sink.write(json_lines(frame)))
        return
    writers: list[pq.ParquetWriter] = []

    def put(frame: pl.DataFrame) -> None:
        table = typed_events(frame).to_arrow()
        if not writers:
            writers.append(pq.ParquetWriter(path, table.schema, compression="zstd"))
        writers[0].write_table(table)

    try:
        yield put
    finally:
        for writer in writers:
            writer.close()


def _discard(_value: object) -> None:
    pass


def _session_truth(shop: Shop, chunk: Chunk) -> Columns:
    names = session_names(shop, chunk).to_numpy().astype(str)
    ar = chunk.ar
    return {
        "session_id": names,
        "shopper": chunk.moments.shopper,
        "day": chunk.moments.day,
        "is_second": chunk.moments.is_second,
        "kind": chunk.contexts.kind,
        "target": chunk.contexts.target,
        "with_colour": chunk.contexts.with_colour,
        "with_material": chunk.contexts.with_material,
        f"{_AR}session_id": names[ar.session],
        f"{_AR}shopper": chunk.moments.shopper[ar.session],
        f"{_AR}product": ar.product,
        f"{_AR}start": ar.hidden.start.astype(np.int8),
        f"{_AR}logged_value": ar.log.value,
    }


def _gathered(out: Path) -> Path:
    return out / "truth" / "gathered"


def _gather_sessions(out: Path, num_files: int) -> None:
    """truth/sessions and truth/ar_sessions, one .npy a column, a column and a file at a time."""
    files = [_gathered(out) / f"{file:05d}.npz" for file in range(num_files)]
    with np.load(files[0]) as first:
        names = list(first.files)
    for name in names:
        folder = out / "truth" / ("ar_sessions" if name.startswith(_AR) else "sessions")
        folder.mkdir(exist_ok=True)
        _concatenate(files, name, folder / f"{name.removeprefix(_AR)}.npy")
    shutil.rmtree(_gathered(out))


def _concatenate(files: list[Path], name: str, path: Path) -> None:
    shapes = [(values.dtype, values.shape) for values in _columns(files, name)]
    dtype = np.result_type(*(dtype for dtype, _ in shapes))
    shape = (sum(shape[0] for _, shape in shapes), *shapes[0][1][1:])
    with path.open("wb") as sink:
        np.lib.format.write_array_header_1_0(sink, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape})
        for values in _columns(files, name):
            sink.write(np.ascontiguousarray(values, dtype).tobytes())


def _columns(files: list[Path], name: str) -> Iterator[NDArray[np.generic]]:
    for file in files:
        with np.load(file, allow_pickle=False) as opened:
            yield opened[name]
