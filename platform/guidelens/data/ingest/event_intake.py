"""An ingest of events in three passes of tasks: stage the chunks, judge the ids, write stretches of time. The driver only plans.

It holds one bit and some two bytes an event (which rows are dropped, where the staged parts lie), never an event.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from itertools import pairwise
from math import ceil
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from guidelens.config import IngestConfig, S3Options
from guidelens.crash_points import reach
from guidelens.data.ingest.event_parts import Bits, PartIndex, kept_of
from guidelens.data.ingest.event_tasks import DAY_US, IdSlice, Judge, Judgement, RefusedBatch, SegmentSlice, Stager, Stretch, Writer
from guidelens.data.lake.event_ids import FIRST_BYTES, IdReader, live_ids, merged
from guidelens.data.lake.lake import DataFile, IdFile, Lake, Manifest
from guidelens.data.records.settling import FileCounts, KindReport
from guidelens.data.records.sources import Chunk
from guidelens.data.records.validation import Checker
from guidelens.schemas.tables import Table

Task = TypeVar("Task")
Result = TypeVar("Result")
Note = Callable[[str, int], None]
"""Told what is being done and how many rows more of it are done; 0 where it begins."""
_LARGEST_FILE = 1.25
"""Times `file_rows`: a day with a little more than a file's worth is not cut in two for it."""
_REFUSED_BATCH_BYTES = 32 * 1024 * 1024
_CHECK, _JUDGE, _WRITE, _COMMIT = "events: check", "events: find duplicates", "events: write", "events: commit"
_JUDGED = (Table.EVENTS, Table.QUARANTINE)


class Run(Protocol):
    """Runs a function over tasks, here or on workers; yields each task's number and result as they are done, in any order."""

    def __call__(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]: ...


class EventSource(NamedTuple):
    """What one ingest brings. uris: what counts call each source. prefix: of its staging. offsets: up to where it reads streams."""

    chunks: Sequence[Chunk]
    uris: Sequence[str]
    checker: Checker
    s3: S3Options
    prefix: str
    offsets: Mapping[str, int] = {}


class EventChange(NamedTuple):
    """What the events change in the lake. files: new ones. ids: the live id files by table, new ones among them. products: how many
    of the new events name each product."""

    files: list[DataFile]
    ids: dict[Table, list[IdFile]]
    queries: list[str]
    report: KindReport
    products: Mapping[str, int]


def _silent(_what: str, _rows: int) -> None:
    pass


class EventIntake:
    """Takes one source's events in: `stage` once, `settle` on each manifest that may be committed on.

    `reader` lets a process that ingests again and again keep the id files in memory; only where `run` runs tasks in that process.
    """

    def __init__(self, lake: Lake, source: EventSource, config: IngestConfig, run: Run, note: Note = _silent, reader: IdReader | None = None) -> None:
        self._lake, self._source, self._config, self._run, self._note = lake, source, config, run, note
        self._reader = reader
        self._parts: list[PartIndex] = []
        self._staged_without: frozenset[str] | None = None
        self._staged_from: date | None = None
        self._restaged = False

    @property
    def offsets(self) -> Mapping[str, int]:
        """Where the next ingest of its streams goes on, once this one is committed."""
        return self._source.offsets

    def stage(self, forgotten: frozenset[str], events_from: date | None = None) -> None:
        """Checks and stages all chunks, unless they are staged and nobody was forgotten and nothing expired since."""
        if self._staged_without is not None and forgotten <= self._staged_without and self._staged_from == events_from:
            return
        stager = Stager(self._lake, self._source.prefix, self._source.checker, self._source.s3, forgotten, events_from)
        found: dict[int, list[PartIndex]] = {}
        self._note(_CHECK, 0)
        for number, parts in self._run(stager.stage, list(enumerate(self._source.chunks))):
            found[number] = parts
            self._note(_CHECK, sum(part.rows + part.refused for part in parts))
        self._parts = [part for number in sorted(found) for part in found[number]]
        self._staged_without, self._staged_from = forgotten, events_from
        reach("staging.done")

    def restage(self) -> bool:
        """Makes the next `stage` begin anew, because forgetting a shopper removed what was staged; false where that was tried before."""
        first, self._restaged, self._staged_without = not self._restaged, True, None
        return first

    def settle(self, base: Manifest) -> EventChange:
        """Writes what is new on top of `base`.

        Raises:
            NotFoundError: the staging was removed.
        """
        ids = {table: live_ids(self._lake, base, table) for table in _JUDGED}
        if self._reader is not None:
            self._reader.keep_only(file for files in ids.values() for file in files)
        dropped = {table: [Bits(part.ids_of(table)[0]) for part in self._parts] for table in _JUDGED}
        self._note(_JUDGE, 0)
        for judged in self._results(Judge(self._lake, self._reader).judge, self._judgements(ids)):
            for part, rows in judged.seen:
                dropped[judged.table][part].set(rows)
            ids[judged.table] += judged.ids
            self._note(_JUDGE, judged.num_ids)
        files: list[DataFile] = []
        queries: set[str] = set()
        products: Counter[str] = Counter()
        to_write: list[Stretch | RefusedBatch] = [*self._stretches(dropped[Table.EVENTS]), *self._refused(dropped[Table.QUARANTINE])]
        self._note(_WRITE, 0)
        for written in self._results(Writer(self._lake).write, to_write):
            files += written.files
            queries.update(written.queries)
            products.update(written.products)
            self._note(_WRITE, written.rows)
        self._note(_COMMIT, 0)
        live = {table: merged(self._lake.store, found) for table, found in ids.items()}
        return EventChange(files, live, sorted(queries), self._report(dropped[Table.EVENTS]), products)

    def _results(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        return (result for _, result in self._run(function, tasks)) if tasks else iter(())

    def _judgements(self, ids: dict[Table, list[IdFile]]) -> list[Judgement]:
        tasks = []
        for table in _JUDGED:
            sections = [part.ids_of(table) for part in self._parts]
            brought = sum(rows for rows, _ in sections)
            if not brought:
                continue
            known = tuple(ids[table])
            total = brought + sum(file.num_ids for file in known)
            edges = np.linspace(0, FIRST_BYTES, min(FIRST_BYTES, -(-total // self._config.event_ids_per_task)) + 1).round().astype(int).tolist()
            for first, stop in pairwise(edges):
                slices = [IdSlice(number, self._parts[number].key, *ids.bytes_of(first, stop)) for number, (_, ids) in enumerate(sections)]
                tasks.append(Judgement(table, first, stop, tuple(found for found in slices if found.start < found.stop), known))
        return tasks

    def _stretches(self, dropped: Sequence[Bits]) -> list[Stretch]:
        kept = [bits.kept_by_step() for bits in dropped]
        plan = plan_files([part.times_us for part in self._parts], kept, self._config.event_file_rows)
        spans = [part.segments_us for part in self._parts]
        return [Stretch(start, stop, cuts, tuple(self._slices(start, stop, dropped, spans))) for start, stop, cuts in plan]

    def _slices(self, start_us: int, stop_us: int, dropped: Sequence[Bits], spans_us: Sequence[NDArray[np.int64]]) -> Iterator[SegmentSlice]:
        for part, bits, spans in zip(self._parts, dropped, spans_us, strict=True):
            first = int(np.searchsorted(spans[:, 1], start_us, side="left"))
            stop = int(np.searchsorted(spans[:, 0], stop_us, side="left"))
            rows, packed = bits.of_segments(first, stop)
            if first < stop and kept_of(packed, rows).any():
                yield SegmentSlice(part.key, part.segments_at[first : stop + 1], rows, packed)

    def _refused(self, dropped: Sequence[Bits]) -> list[RefusedBatch]:
        batches: list[list[tuple[PartIndex, NDArray[np.uint8]]]] = []
        held = 0
        for part, bits in zip(self._parts, dropped, strict=True):
            if bits.dropped < part.refused:
                size = part.event_ids.at - part.refused_at
                if not batches or held + size > _REFUSED_BATCH_BYTES:
                    batches.append([])
                    held = 0
                batches[-1].append((part, bits.packed))
                held += size
        return [RefusedBatch(tuple(batch)) for batch in batches]

    def _report(self, dropped: Sequence[Bits]) -> KindReport:
        files = {uri: FileCounts() for uri in self._source.uris}
        rules: Counter[str] = Counter()
        remarks: Counter[str] = Counter()
        for part, bits in zip(self._parts, dropped, strict=True):
            duplicate = bits.dropped
            files[self._source.uris[part.source]] += FileCounts(
                read=part.rows + part.refused, accepted=part.rows - duplicate, quarantined=part.refused, duplicate=duplicate
            )
            rules.update(part.rules)
            remarks.update(part.remarks)
        ordered = sorted(rules.items(), key=lambda pair: (-pair[1], pair[0]))
        return KindReport(total=sum(files.values(), FileCounts()), files=files, rules=dict(ordered), remarks=dict(remarks))


def plan_files(times_us: Sequence[NDArray[np.int64]], kept: Sequence[NDArray[np.int64]], file_rows: int) -> list[tuple[int, int, tuple[int, ...]]]:
    """Stretches of time with about `file_rows` events each, as (start, stop, where to cut inside besides at midnight).

    Where a day has more, it is cut where the counts, taken as even within a step, say that as many events lie before as behind.

    Args:
        times_us: of each part, event_ts of the first and last row of each step (`PartIndex.times_us`).
        kept: of each part, the rows of each step to be written.
    """
    spans = np.concatenate([np.zeros((0, 2), np.int64), *times_us])
    weights = np.concatenate([np.zeros(0, np.int64), *kept])
    spans, weights = spans[weights > 0], weights[weights > 0]
    if not len(weights):
        return []
    knots, below = _rows_before(spans[:, 0], spans[:, 1] + 1, weights)
    stretches: list[tuple[int, int, tuple[int, ...]]] = []
    start, held, cuts = 0, 0.0, []  # type: int, float, list[int]
    for day in _days(spans):
        before, after = np.interp([day * DAY_US, (day + 1) * DAY_US], knots, below)
        number = max(1, ceil((after - before) / (_LARGEST_FILE * file_rows)))
        cut_at = np.interp(np.linspace(before, after, number + 1)[1:-1], below, knots).astype(np.int64)
        edges = np.maximum.accumulate(np.clip(cut_at, day * DAY_US, (day + 1) * DAY_US)).tolist()
        for piece_start, _piece_stop in zip([day * DAY_US, *edges], [*edges, (day + 1) * DAY_US], strict=True):
            size = (after - before) / number
            if held and held + size > file_rows:
                stretches.append((start, piece_start, tuple(cuts)))
                held, cuts = 0.0, []
            elif piece_start % DAY_US and held:
                cuts.append(piece_start)
            start = piece_start if not held else start
            held += max(size, 1e-9)
        last = (day + 1) * DAY_US
    return [*stretches, (start, last, tuple(cuts))]


def _rows_before(starts: NDArray[np.int64], stops: NDArray[np.int64], weights: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Points of time and how many rows lie before each, with the rows of each span spread evenly over it."""
    slopes = weights / (stops - starts)
    points = np.concatenate([starts, stops])
    order = np.argsort(points, kind="stable")
    knots, changes = points[order], np.concatenate([slopes, -slopes])[order]
    return knots, np.concatenate([[0.0], np.cumsum(np.cumsum(changes)[:-1] * np.diff(knots))])


def _days(spans: NDArray[np.int64]) -> Iterator[int]:
    """The days that some span touches, in order, each once."""
    behind = None
    for first, last in sorted((spans // DAY_US).tolist()):
        yield from range(first if behind is None else max(first, behind), last + 1)
        behind = last + 1 if behind is None else max(behind, last + 1)
