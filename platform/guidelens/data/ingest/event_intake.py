"""An ingest of events in three passes of tasks: stage the chunks, small ones together, judge the ids, write stretches of time. The driver only plans.

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
from guidelens.data.ingest.event_parts import Bits, PartIndex, rows_and_places
from guidelens.data.ingest.event_tasks import DAY_US, IdSlice, Judge, Judgement, RefusedBatch, SegmentSlice, Stager, Stretch, Writer
from guidelens.data.lake.event_ids import FIRST_BYTES, IdReader, live_ids, merged
from guidelens.data.lake.lake import DataFile, IdFile, Lake, Manifest
from guidelens.data.records.settling import FileCounts, KindReport
from guidelens.data.records.sources import Chunk, grouped
from guidelens.data.records.validation import Checker
from guidelens.schemas.tables import Table

Task = TypeVar("Task")
Result = TypeVar("Result")
Note = Callable[[str, int], None]
"""Told what is being done and how many rows more of it are done; 0 where it begins."""
_LARGEST_FILE = 1.25
"""Times `file_rows`: a day with a little more than a file's worth is not cut in two for it."""
_SORTED_ROWS = 65_536
"""About how many events are sorted at a time; a file has several such pieces one behind the other."""
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
        for number, parts in self._run(stager.stage, list(enumerate(grouped(self._source.chunks, self._config.event_chunk_bytes)))):
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
        duplicates = [np.zeros(len(part.sources), np.int64) for part in self._parts]
        self._note(_JUDGE, 0)
        for judged in self._results(Judge(self._lake, self._reader).judge, self._judgements(ids)):
            for part, told in judged.seen:
                rows, places = rows_and_places(told)
                dropped[judged.table][part].set(rows)
                if judged.table is Table.EVENTS:
                    np.add.at(duplicates[part], places, 1)
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
        return EventChange(files, live, sorted(queries), self._report(duplicates), products)

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
        slices = [SegmentSlice(part.key, part.segments_at, part.segments_us, part.rows, bits.packed) for part, bits in zip(self._parts, dropped, strict=True)]
        return [Stretch(edges, cuts, tuple(part for part in (whole.between(edges[0], edges[-1]) for whole in slices) if part.keeps)) for edges, cuts in plan]

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

    def _report(self, duplicates: Sequence[NDArray[np.int64]]) -> KindReport:
        """duplicates: of each part, by its sources."""
        files = {uri: FileCounts() for uri in self._source.uris}
        rules: Counter[str] = Counter()
        remarks: Counter[str] = Counter()
        for part, counts in zip(self._parts, duplicates, strict=True):
            for (source, rows, refused), duplicate in zip(part.sources, counts.tolist(), strict=True):
                files[self._source.uris[source]] += FileCounts(read=rows + refused, accepted=rows - duplicate, quarantined=refused, duplicate=duplicate)
            rules.update(part.rules)
            remarks.update(part.remarks)
        ordered = sorted(rules.items(), key=lambda pair: (-pair[1], pair[0]))
        return KindReport(total=sum(files.values(), FileCounts()), files=files, rules=dict(ordered), remarks=dict(remarks))


class Planned(NamedTuple):
    """A stretch of time. edges_us: where it begins, where it is cut to be sorted piece by piece, where it ends. cuts_us: where files end
    inside of it, besides at midnight."""

    edges_us: tuple[int, ...]
    cuts_us: tuple[int, ...]


def plan_files(times_us: Sequence[NDArray[np.int64]], kept: Sequence[NDArray[np.int64]], file_rows: int) -> list[Planned]:
    """Stretches of time with about `file_rows` events each, in order and without gaps.

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
    planned: list[Planned] = []
    start, held, cuts = 0, 0.0, []  # type: int, float, list[int]

    def plan(stop: int) -> None:
        before, after = np.interp([start, stop], knots, below)
        number = max(1, ceil((after - before) / _SORTED_ROWS))
        inside = np.interp(np.linspace(before, after, number + 1)[1:-1], below, knots).astype(np.int64)
        planned.append(Planned((start, *np.maximum.accumulate(np.clip(inside, start, stop)).tolist(), stop), tuple(cuts)))

    for day in _days(spans):
        before, after = np.interp([day * DAY_US, (day + 1) * DAY_US], knots, below)
        number = max(1, ceil((after - before) / (_LARGEST_FILE * file_rows)))
        cut_at = np.interp(np.linspace(before, after, number + 1)[1:-1], below, knots).astype(np.int64)
        edges = np.maximum.accumulate(np.clip(cut_at, day * DAY_US, (day + 1) * DAY_US)).tolist()
        for piece_start, _piece_stop in zip([day * DAY_US, *edges], [*edges, (day + 1) * DAY_US], strict=True):
            size = (after - before) / number
            if held and held + size > file_rows:
                plan(piece_start)
                held, cuts = 0.0, []
            elif piece_start % DAY_US and held:
                cuts.append(piece_start)
            start = piece_start if not held else start
            held += max(size, 1e-9)
    plan((day + 1) * DAY_US)
    return planned


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
