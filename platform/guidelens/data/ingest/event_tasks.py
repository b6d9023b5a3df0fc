"""What the tasks of an ingest of events do, each bounded in memory: stage some chunks, judge a range of ids, write a stretch of time.

Each is a function of what it is given and of immutable objects in the lake, and writes under names that only depend on that: a task that
is run twice writes the same bytes to the same places. Knows nothing of Ray or of commits.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from itertools import groupby, pairwise
from operator import itemgetter
from typing import NamedTuple, TypeVar

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from guidelens.config import S3Options
from guidelens.crash_points import reach
from guidelens.data.ingest.event_parts import ID_RECORD_BYTES, SEGMENT_ROWS, Origins, PartIndex, kept_of, pack, read_refused, read_segments, unpack_segments
from guidelens.data.lake.event_ids import U64, IdReader, Ids, in_order, places_of, write_ids
from guidelens.data.lake.lake import DataFile, IdFile, Lake
from guidelens.data.lake.staging import PARTS
from guidelens.data.lake.tables import to_table
from guidelens.data.records.remarks import count_remarks
from guidelens.data.records.settling import quarantine_rows, refuse_expired, refuse_forgotten
from guidelens.data.records.sources import Chunk, Kind
from guidelens.data.records.validation import Checker, checked_tables
from guidelens.schemas.tables import SCHEMAS, Table

Item = TypeVar("Item")
Found = TypeVar("Found")
_PART_ROWS = 65_536
_PART_BYTES = 64 * 1024 * 1024
_ROWS_READ = 32_768
DAY_US = 86_400_000_000
_EPOCH = date(1970, 1, 1)


def _give_back() -> None:
    """Memory that Arrow does not use any more, else it keeps more with every task, in pieces too small for what comes next."""
    pa.default_memory_pool().release_unused()


class Stager(NamedTuple):
    """What staging a group of chunks needs beside it. Refused without being kept are events of `forgotten` (pseudonyms) and from before `events_from`."""

    lake: Lake
    prefix: str
    checker: Checker
    s3: S3Options
    forgotten: frozenset[str]
    events_from: date | None = None

    def stage(self, numbered: tuple[int, Sequence[Chunk]]) -> list[PartIndex]:
        """Checks the chunks' records and writes them as parts, small chunks together; a chunk that cannot be split gives several."""
        number, chunks = numbered
        uris = {chunk.source: chunk.uri for chunk in chunks}
        parts = []
        for piece, staged in enumerate(_together(table for chunk in chunks for table in checked_tables(chunk, self.checker, self.s3))):
            key = f"{self.prefix}{PARTS}{number:06d}-{piece:04d}"
            index, data = self._packed(key, uris, staged)
            self.lake.store.write_bytes(key, data, durable=False)
            reach("staging.part_written")
            parts.append(index)
            del staged, data
            _give_back()
        return parts

    def _packed(self, key: str, uris: Mapping[int, str], staged: pa.Table) -> tuple[PartIndex, bytes]:
        staged = _as_read(staged)
        if self.forgotten or self.events_from:
            frame = pl.from_arrow(staged)
            assert isinstance(frame, pl.DataFrame)
            staged = refuse_expired(refuse_forgotten(frame, self.forgotten), self.events_from).to_arrow().cast(staged.schema)
        is_fine = pc.is_null(staged["rule"])
        good = staged.filter(is_fine)
        bad = pl.from_arrow(staged.filter(pc.invert(is_fine)))
        assert isinstance(bad, pl.DataFrame)
        refused = to_table(Table.QUARANTINE, quarantine_rows(Kind.EVENTS, bad, uris))
        rules = dict(bad.group_by("rule").len().iter_rows())
        origins = Origins(good["source"].to_numpy(), bad["source"].to_numpy())
        return pack(key, origins, good.select(SCHEMAS[Table.EVENTS].names), refused, rules, count_remarks(staged["remarks"]))


def _together(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The tables in their order, joined to about the size of a part."""
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if sum(one.num_rows for one in held) >= _PART_ROWS or sum(one.nbytes for one in held) >= _PART_BYTES:
            whole, held = pa.concat_tables(held), []
            yield whole
    if held:
        yield pa.concat_tables(held)


def _as_read(staged: pa.Table) -> pa.Table:
    """The records in the order of the files and, of each, in that of the file."""
    order = np.lexsort((staged["offset"].to_numpy(), staged["source"].to_numpy()))
    return staged if np.all(order[1:] > order[:-1]) else staged.take(pa.array(order))


class IdSlice(NamedTuple):
    """A part's ids of one range: bytes [start, stop) of object `key`. part: its number in the run."""

    part: int
    key: str
    start: int
    stop: int


class Judgement(NamedTuple):
    """Ids with a first byte in [first, stop): the run's, by part in the order they were read, and the files of those known."""

    table: Table
    first: int
    stop: int
    slices: tuple[IdSlice, ...]
    known: tuple[IdFile, ...]


class Judged(NamedTuple):
    """seen: by part, the rows whose id came before, as `rows_and_places` reads them. ids: files of those that are new."""

    table: Table
    seen: list[tuple[int, U64]]
    ids: list[IdFile]
    num_ids: int


class Judge(NamedTuple):
    """Decides who was first. keeps: of a reader that holds id files in memory; tasks in other processes read theirs anew."""

    lake: Lake
    reader: IdReader | None = None

    def judge(self, asked: Judgement) -> Judged:
        """An id counts where it is read first, unless the lake knows it."""
        reader = self.reader or IdReader(self.lake.store)
        at_once = self.lake.store.reads_at_once
        ids, told, starts = self._brought(asked, at_once)
        order = in_order(ids)
        ids = ids.take(order)
        again = np.zeros(len(order), dtype=np.bool_)
        again[1:] = (ids.high[1:] == ids.high[:-1]) & (ids.low[1:] == ids.low[:-1])
        for start in range(0, len(asked.known), at_once):
            for known in side_by_side(lambda file: reader.known(file, asked.first, asked.stop), asked.known[start : start + at_once], at_once):
                again[places_of(known, ids)] = True
        places = order[again]
        owners = np.searchsorted(starts, places, side="right") - 1
        seen = [(asked.slices[owner].part, told[places[owners == owner]]) for owner in np.unique(owners)]
        del told, order
        judged = Judged(asked.table, seen, write_ids(self.lake.store, asked.table, ids.take(~again) if len(places) else ids), len(again))
        del ids
        _give_back()
        return judged

    def _brought(self, asked: Judgement, at_once: int) -> tuple[Ids, U64, NDArray[np.int64]]:
        """The ids of all slices, what else their records say, and where each slice begins. A few slices' records are held beside them."""
        edges = np.cumsum([0, *((where.stop - where.start) // ID_RECORD_BYTES for where in asked.slices)])
        high, low, told = (np.empty(edges[-1], np.uint64) for _ in range(3))
        for begun in range(0, len(asked.slices), at_once):
            stored = side_by_side(self._read, asked.slices[begun : begun + at_once], at_once)
            for number, data in enumerate(stored, begun):
                place = slice(edges[number], edges[number + 1])
                high[place], low[place], told[place] = np.frombuffer(data, dtype="<u8").reshape(-1, 3).T
        return Ids(high, low), told, edges[:-1]

    def _read(self, where: IdSlice) -> bytes:
        return self.lake.store.read_range(where.key, where.start, where.stop)


class SegmentSlice(NamedTuple):
    """Consecutive segments of a part: they begin and end at `positions` of object `key`. times_us: (S, 2) event_ts of the first and the
    last row of each. dropped: the bits of their dropped rows."""

    key: str
    positions: NDArray[np.int64]
    times_us: NDArray[np.int64]
    rows: int
    dropped: NDArray[np.uint8]

    @property
    def keeps(self) -> bool:
        """Some of its rows are to be written: where none is, nothing need be read."""
        return bool(kept_of(self.dropped, self.rows).any())

    def between(self, start_us: int, stop_us: int) -> "SegmentSlice":
        """The segments that hold rows of [start_us, stop_us)."""
        first = int(np.searchsorted(self.times_us[:, 1], start_us, side="left"))
        stop = max(first, int(np.searchsorted(self.times_us[:, 0], stop_us, side="left")))
        at, end = first * SEGMENT_ROWS, min(stop * SEGMENT_ROWS, self.rows)
        dropped = self.dropped[at // 8 : (end + 7) // 8]
        return SegmentSlice(self.key, self.positions[first : stop + 1], self.times_us[first:stop], max(0, end - at), dropped)


class Stretch(NamedTuple):
    """Events to write, those between two of `edges_us` sorted together; a file ends at each midnight and at each of `cuts_us`."""

    edges_us: tuple[int, ...]
    cuts_us: tuple[int, ...]
    slices: tuple[SegmentSlice, ...]


class RefusedBatch(NamedTuple):
    """Refused records to write: parts, and of each the bits of its dropped rows."""

    parts: tuple[tuple[PartIndex, NDArray[np.uint8]], ...]


class Written(NamedTuple):
    """files: not yet live. queries: the distinct search texts of their events. products: how many of the events name each product."""

    files: list[DataFile]
    queries: list[str]
    rows: int
    products: dict[str, int]


class Writer(NamedTuple):
    lake: Lake

    def write(self, asked: Stretch | RefusedBatch) -> Written:
        return self._events(asked) if isinstance(asked, Stretch) else self._refused(asked)

    def _events(self, asked: Stretch) -> Written:
        """Final files, each sorted by (event_ts, created_ts, event_id). One span's events are in memory at a time, and a file's bytes."""
        files: list[DataFile] = []
        told = _Told()
        for (day, _), pieces in groupby(self._pieces(asked, told), key=itemgetter(0)):
            reach("data.before_file")
            files.append(self.lake.write_pieces(Table.EVENTS, (rows for _, rows in pieces), (_EPOCH + timedelta(day)).isoformat()))
            reach("data.after_file")
        return Written(files, sorted(told.queries), sum(file.rows for file in files), dict(told.products))

    def _pieces(self, asked: Stretch, told: "_Told") -> Iterator[tuple[tuple[int, int], pa.Table]]:
        """Sorted rows, each piece of one file: which that is as (day since the epoch, number of the cut)."""
        for span in pairwise(asked.edges_us):
            rows = _sorted(pa.concat_tables([SCHEMAS[Table.EVENTS].empty_table(), *self._kept(asked, *span)]), ("event_ts", "created_ts", "event_id"))
            told.add(rows)
            times = pc.cast(rows["event_ts"], pa.int64()).to_numpy()
            days, piece = times // DAY_US, np.searchsorted(np.array(asked.cuts_us, np.int64), times, side="right")
            edges = [0, *(np.flatnonzero((days[1:] != days[:-1]) | (piece[1:] != piece[:-1])) + 1).tolist(), rows.num_rows]
            for start, stop in pairwise(edges):
                if start < stop:
                    yield (int(days[start]), int(piece[start])), rows.slice(start, stop - start)
            del rows
            _give_back()

    def _kept(self, asked: Stretch, start_us: int, stop_us: int) -> Iterator[pa.Table]:
        """Some rows are read at a time: of parts that all span the whole log, much of what is read belongs to other spans."""
        found = [part for part in (whole.between(start_us, stop_us) for whole in asked.slices) if part.keeps]
        for slices in _by_rows(found, _ROWS_READ):
            stored = side_by_side(lambda where: read_segments(self.lake.store, where.key, where.positions), slices, self.lake.store.reads_at_once)
            read = unpack_segments([(data, where.positions) for data, where in zip(stored, slices, strict=True)])
            times = pc.cast(read["event_ts"], pa.int64()).to_numpy()
            kept = (times >= start_us) & (times < stop_us) & np.concatenate([kept_of(where.dropped, where.rows) for where in slices])
            yield read.combine_chunks().filter(pa.array(kept))

    def _refused(self, asked: RefusedBatch) -> Written:
        read = [read_refused(self.lake.store, part).filter(pa.array(kept_of(dropped, part.refused))) for part, dropped in asked.parts]
        rows = pa.concat_tables(read)
        if not rows.num_rows:
            return Written([], [], 0, {})
        reach("quarantine.before_file")
        file = self.lake.write_file(Table.QUARANTINE, rows, None)
        reach("quarantine.after_file")
        return Written([file], [], rows.num_rows, {})


class _Told:
    """What is told of the events written."""

    def __init__(self) -> None:
        self.queries: set[str] = set()
        self.products: Counter[str] = Counter()

    def add(self, rows: pa.Table) -> None:
        self.queries.update(text for text in pc.unique(rows["query"]).to_pylist() if text and text.strip())
        for one in rows["product_id"].drop_null().value_counts().to_pylist():
            self.products[one["values"]] += one["counts"]


def _by_rows(slices: Sequence[SegmentSlice], rows: int) -> Iterator[Sequence[SegmentSlice]]:
    """Consecutive slices of about so many rows, or one."""
    before = np.cumsum([0, *(part.rows for part in slices)])
    start = 0
    while start < len(slices):
        stop = max(start + 1, int(np.searchsorted(before, before[start] + rows, side="right")) - 1)
        yield slices[start:stop]
        start = stop


def _sorted(rows: pa.Table, names: Sequence[str]) -> pa.Table:
    """The rows in order of these columns, in one chunk. A column of `rows` is let go as soon as it is sorted: only one is held twice."""
    schema, order = rows.schema, pc.sort_indices(rows, [(name, "ascending") for name in names])
    columns = rows.columns
    del rows
    return pa.table([columns.pop(0).combine_chunks().take(order) for _ in range(len(columns))], schema=schema)


def side_by_side(read: Callable[[Item], Found], items: Sequence[Item], at_once: int) -> list[Found]:
    """Reads in threads, because an object store takes its time for each. For waiting only: a task has one core."""
    if len(items) < 2 or at_once < 2:
        return [read(item) for item in items]
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(read, items))
