"""What the tasks of an ingest of events do, each bounded in memory: stage a chunk, judge a range of ids, write a stretch of time.

Each is a function of what it is given and of immutable objects in the lake, and writes under names that only depend on that: a task that
is run twice writes the same bytes to the same places. Knows nothing of Ray or of commits.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from guidelens.config import S3Options
from guidelens.crash_points import reach
from guidelens.data.ingest.event_parts import PartIndex, kept_of, pack, read_refused, read_segments, unpack_segments
from guidelens.data.lake.event_ids import NO_IDS, U64, IdReader, Ids, in_order, places_of, write_ids
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
_SLICES_READ = 8
DAY_US = 86_400_000_000


class Stager(NamedTuple):
    """What staging a chunk needs beside it. Refused without being kept are events of `forgotten` (pseudonyms) and from before `events_from`."""

    lake: Lake
    prefix: str
    checker: Checker
    s3: S3Options
    forgotten: frozenset[str]
    events_from: date | None = None

    def stage(self, numbered: tuple[int, Chunk]) -> list[PartIndex]:
        """Checks the chunk's records and writes them as parts; a chunk that cannot be split gives several."""
        number, chunk = numbered
        parts = []
        for piece, staged in enumerate(_together(checked_tables(chunk, self.checker, self.s3))):
            key = f"{self.prefix}{PARTS}{number:06d}-{piece:04d}"
            index, data = self._packed(key, chunk, staged)
            self.lake.store.write_bytes(key, data, durable=False)
            reach("staging.part_written")
            parts.append(index)
        return parts

    def _packed(self, key: str, chunk: Chunk, staged: pa.Table) -> tuple[PartIndex, bytes]:
        staged = _as_read(staged)
        if self.forgotten or self.events_from:
            frame = pl.from_arrow(staged)
            assert isinstance(frame, pl.DataFrame)
            staged = refuse_expired(refuse_forgotten(frame, self.forgotten), self.events_from).to_arrow().cast(staged.schema)
        is_fine = pc.is_null(staged["rule"])
        good = staged.filter(is_fine).select(SCHEMAS[Table.EVENTS].names)
        bad = pl.from_arrow(staged.filter(pc.invert(is_fine)))
        assert isinstance(bad, pl.DataFrame)
        refused = to_table(Table.QUARANTINE, quarantine_rows(Kind.EVENTS, bad, {chunk.source: chunk.uri}))
        rules = dict(bad.group_by("rule").len().iter_rows())
        return pack(key, chunk.source, good, refused, rules, count_remarks(staged["remarks"]))


def _together(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The tables in their order, joined to about the size of a part."""
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if sum(one.num_rows for one in held) >= _PART_ROWS or sum(one.nbytes for one in held) >= _PART_BYTES:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)


def _as_read(staged: pa.Table) -> pa.Table:
    """The records in the order of the file."""
    offsets = staged["offset"].to_numpy()
    return staged if np.all(offsets[1:] >= offsets[:-1]) else staged.take(pa.array(np.argsort(offsets, kind="stable")))


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
    """seen: by part, the rows whose id came before. ids: files of those that are new."""

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
        read = side_by_side(self._read, asked.slices, at_once)
        owners = np.repeat(np.arange(len(read), dtype=np.int32), [len(rows) for _, rows in read])
        ids = Ids(*(np.concatenate([part[half] for part in [NO_IDS, *(found for found, _ in read)]]) for half in (0, 1)))
        rows = np.concatenate([np.zeros(0, np.uint64), *(rows for _, rows in read)])
        del read
        order = in_order(ids)
        ids, rows, owners = ids.take(order), rows[order], owners[order]
        del order
        again = np.zeros(len(rows), dtype=np.bool_)
        again[1:] = (ids.high[1:] == ids.high[:-1]) & (ids.low[1:] == ids.low[:-1])
        for start in range(0, len(asked.known), at_once):
            for known in side_by_side(lambda file: reader.known(file, asked.first, asked.stop), asked.known[start : start + at_once], at_once):
                again[places_of(known, ids)] = True
        seen = [(asked.slices[owner].part, rows[again & (owners == owner)]) for owner in np.unique(owners[again])]
        return Judged(asked.table, seen, write_ids(self.lake.store, asked.table, ids.take(~again)), len(rows))

    def _read(self, where: IdSlice) -> tuple[Ids, U64]:
        records = np.frombuffer(self.lake.store.read_range(where.key, where.start, where.stop), dtype="<u8").reshape(-1, 3)
        return Ids(records[:, 0], records[:, 1]), records[:, 2]


class SegmentSlice(NamedTuple):
    """Consecutive segments of a part (they begin and end at `positions` of object `key`), and the bits of their dropped rows."""

    key: str
    positions: NDArray[np.int64]
    rows: int
    dropped: NDArray[np.uint8]


class Stretch(NamedTuple):
    """Events of [start_us, stop_us) to write; a file ends at each midnight and at each of `cuts_us`."""

    start_us: int
    stop_us: int
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
        written = self._events(asked) if isinstance(asked, Stretch) else self._refused(asked)
        pa.default_memory_pool().release_unused()  # else it keeps more with every task, in pieces too small for the next
        return written

    def _events(self, asked: Stretch) -> Written:
        """Final files, each sorted by (event_ts, created_ts, event_id)."""
        schema = SCHEMAS[Table.EVENTS]
        rows = _sorted(pa.concat_tables([schema.empty_table(), *self._kept(asked)]), ("event_ts", "created_ts", "event_id"))
        times = pc.cast(rows["event_ts"], pa.int64()).to_numpy()
        days, piece = times // DAY_US, np.searchsorted(np.array(asked.cuts_us, np.int64), times, side="right")
        edges = [0, *(np.flatnonzero((days[1:] != days[:-1]) | (piece[1:] != piece[:-1])) + 1).tolist(), rows.num_rows]
        files, epoch = [], date(1970, 1, 1)
        for start, stop in pairwise(edges):
            if start < stop:
                day = (epoch + timedelta(int(days[start]))).isoformat()
                reach("data.before_file")
                files.append(self.lake.write_file(Table.EVENTS, rows.slice(start, stop - start), day))
                reach("data.after_file")
        texts = sorted(text for text in pc.unique(rows["query"]).to_pylist() if text and text.strip())
        products = rows["product_id"].drop_null().value_counts().to_pylist()
        return Written(files, texts, rows.num_rows, {one["values"]: one["counts"] for one in products})

    def _kept(self, asked: Stretch) -> Iterator[pa.Table]:
        """A few slices are read at a time: of parts that all span the whole log, most of what is read belongs to other stretches."""
        for start in range(0, len(asked.slices), _SLICES_READ):
            slices = asked.slices[start : start + _SLICES_READ]
            stored = side_by_side(lambda where: read_segments(self.lake.store, where.key, where.positions), slices, self.lake.store.reads_at_once)
            yield pa.concat_tables([_kept(data, where, asked) for data, where in zip(stored, slices, strict=True)]).combine_chunks()
            pa.default_memory_pool().release_unused()

    def _refused(self, asked: RefusedBatch) -> Written:
        read = [read_refused(self.lake.store, part).filter(pa.array(kept_of(dropped, part.refused))) for part, dropped in asked.parts]
        rows = pa.concat_tables(read)
        if not rows.num_rows:
            return Written([], [], 0, {})
        reach("quarantine.before_file")
        file = self.lake.write_file(Table.QUARANTINE, rows, None)
        reach("quarantine.after_file")
        return Written([file], [], rows.num_rows, {})


def _kept(data: bytes, where: SegmentSlice, asked: Stretch) -> pa.Table:
    read = unpack_segments(data, where.positions)
    times = pc.cast(read["event_ts"], pa.int64()).to_numpy()
    kept = kept_of(where.dropped, where.rows) & (times >= asked.start_us) & (times < asked.stop_us)
    return read if kept.all() else read.filter(pa.array(kept))


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
