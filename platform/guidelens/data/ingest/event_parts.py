"""A staged part: some ten thousand checked events of one or more chunks in one object, laid out so that later tasks read only their slice.

    segments   the good events in order of time, SEGMENT_ROWS in each
    refused    the refused records, as rows of the quarantine table, one segment
    ids        of each of the two, sorted: 24 bytes a row, its id, its row number in the part and which of the part's sources it is of

A segment is an Arrow record batch message without its schema, which any reader knows, packed as one behind its size unpacked:
Arrow's own compression, of each column's buffers apart, takes twice as long to read so few rows. `PartIndex` says where everything lies; it
stays with the driver (about two bytes an event), the part in the lake's staging.
"""

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from guidelens.data.lake.event_ids import U64, Ids, hashed, in_order, starts_of
from guidelens.schemas.tables import SCHEMAS, Table
from guidelens.storage import Store

SEGMENT_ROWS = 512
"""A multiple of eight: the bits that mark a segment's rows begin with a byte. Few, because of a part in no order of time, which holds some
rows of each stretch, all segments are read that hold one of them."""
STEP_ROWS = 256
"""How finely the driver knows when a segment's events happened; a segment of a log in no order may span days, with their nights."""
_STEPS = SEGMENT_ROWS // STEP_ROWS
ID_RECORD_BYTES = 24
_ROW_BITS = np.uint64(32)
_ROW_MASK = np.uint64((1 << 32) - 1)
_CODEC = pa.Codec("lz4_raw")
_SIZE_BYTES = 4


class IdSection(NamedTuple):
    """at: where in the object the ids begin. starts: (257,) positions in it by first byte of the id."""

    at: int
    starts: NDArray[np.int64]

    def bytes_of(self, first: int, stop: int) -> tuple[int, int]:
        """Where the ids with a first byte in [first, stop) lie in the object."""
        return self.at + ID_RECORD_BYTES * int(self.starts[first]), self.at + ID_RECORD_BYTES * int(self.starts[stop])


class SourceRows(NamedTuple):
    """What a part holds of one source. source: index of its file. rows, refused: good and refused records."""

    source: int
    rows: int
    refused: int


class PartIndex(NamedTuple):
    """One staged part.

    Attributes:
        key: of the object.
        sources: what it holds of each.
        rows, refused: good and refused records of all.
        segments_at: (S + 1,) where each segment begins, and where the last one ends.
        times_us: (M, 2) event_ts of the first and last of each STEP_ROWS rows, microseconds.
        refused_at: where the refused records begin; they end where `event_ids` begin.
        rules: refused records by rule.
        remarks: records by what is remarked on them.
    """

    key: str
    sources: tuple[SourceRows, ...]
    rows: int
    refused: int
    segments_at: NDArray[np.int64]
    times_us: NDArray[np.int64]
    refused_at: int
    event_ids: IdSection
    refused_ids: IdSection
    rules: dict[str, int]
    remarks: dict[str, int]

    @property
    def segments_us(self) -> NDArray[np.int64]:
        """(S, 2) event_ts of the first and last row of each segment."""
        lasts = np.minimum(np.arange(_STEPS, len(self.times_us) + _STEPS, _STEPS), len(self.times_us)) - 1
        return np.stack([self.times_us[::_STEPS, 0], self.times_us[lasts, 1]], axis=1)

    def ids_of(self, table: Table) -> tuple[int, IdSection]:
        """Number of rows and ids of the staged rows of a table."""
        return (self.rows, self.event_ids) if table is Table.EVENTS else (self.refused, self.refused_ids)


class Origins(NamedTuple):
    """Of each good and of each refused record, the index of its source. In ascending order: as they were read."""

    good: NDArray[np.int32]
    refused: NDArray[np.int32]

    def counted(self) -> tuple[SourceRows, ...]:
        sources, good, refused = np.union1d(self.good, self.refused), Counter(self.good.tolist()), Counter(self.refused.tolist())
        return tuple(SourceRows(source, good[source], refused[source]) for source in sources.tolist())


def pack(key: str, origins: Origins, events: pa.Table, refused: pa.Table, rules: dict[str, int], remarks: dict[str, int]) -> tuple[PartIndex, bytes]:
    """A part and its index.

    Args:
        events: rows of the events table in the order they were read.
        refused: rows of the quarantine table in the order they were read.
    """
    sources = origins.counted()
    places = np.array([one.source for one in sources], np.int32)
    event_ids, refused_ids = hashed(events["event_id"]), hashed(refused["record_sha256"])
    times = pc.cast(events["event_ts"], pa.int64()).to_numpy()
    by_time = np.argsort(times, kind="stable")
    events, times = events.take(pa.array(by_time)), times[by_time]
    row_of = np.empty(len(by_time), np.uint64)
    row_of[by_time] = np.arange(len(by_time), dtype=np.uint64)

    parts = [_packed(events.slice(start, SEGMENT_ROWS)) for start in range(0, events.num_rows, SEGMENT_ROWS)]
    positions = np.cumsum([0, *map(len, parts)])
    firsts = np.arange(0, len(times), STEP_ROWS)
    lasts = np.minimum(firsts + STEP_ROWS, len(times)) - 1
    refused_at = int(positions[-1])
    parts.append(_packed(refused) if refused.num_rows else b"")
    at = refused_at + len(parts[-1])
    records, starts = _id_records(event_ids, row_of, np.searchsorted(places, origins.good))
    refused_records, refused_starts = _id_records(refused_ids, np.arange(refused.num_rows, dtype=np.uint64), np.searchsorted(places, origins.refused))
    index = PartIndex(
        key=key,
        sources=sources,
        rows=events.num_rows,
        refused=refused.num_rows,
        segments_at=positions.astype(np.int64),
        times_us=np.stack([times[firsts], times[lasts]], axis=1) if len(times) else np.zeros((0, 2), np.int64),
        refused_at=refused_at,
        event_ids=IdSection(at, starts),
        refused_ids=IdSection(at + len(records), refused_starts),
        rules=rules,
        remarks=remarks,
    )
    return index, b"".join([*parts, records, refused_records])


def _packed(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_batch(rows.combine_chunks().to_batches()[0])
        ended = sink.tell()
    message = sink.getvalue()[rows.schema.serialize().size : ended]
    return b"".join([message.size.to_bytes(_SIZE_BYTES, "little"), _CODEC.compress(message)])


def _unpacked(data: memoryview, schema: pa.Schema) -> pa.RecordBatch:
    size = int.from_bytes(data[:_SIZE_BYTES], "little")
    return pa.ipc.read_record_batch(_CODEC.decompress(data[_SIZE_BYTES:], size), schema)


def _id_records(ids: Ids, row_of: U64, place_of: NDArray[np.intp]) -> tuple[bytes, NDArray[np.int64]]:
    """place_of: of each record, that of its source among the part's."""
    order = in_order(ids)
    rows = row_of | (place_of.astype(np.uint64) << _ROW_BITS)
    records = np.stack([ids.high[order], ids.low[order], rows[order]], axis=1).astype("<u8")
    return records.tobytes(), starts_of(ids.high[order])


def rows_and_places(told: U64) -> tuple[U64, NDArray[np.intp]]:
    """What the last eight bytes of id records say: rows of the part, and of each the place of its source in `PartIndex.sources`."""
    return told & _ROW_MASK, (told >> _ROW_BITS).astype(np.intp)


def read_segments(store: Store, key: str, positions: NDArray[np.int64]) -> bytes:
    """Consecutive segments as they are stored."""
    return store.read_range(key, int(positions[0]), int(positions[-1]))


def unpack_segments(stored: Iterable[tuple[bytes, NDArray[np.int64]]]) -> pa.Table:
    """What `read_segments` read of some parts at their positions, as one table."""
    schema = SCHEMAS[Table.EVENTS]
    batches = []
    for data, positions in stored:
        edges, view = (positions - positions[0]).tolist(), memoryview(data)
        batches += [_unpacked(view[start:stop], schema) for start, stop in pairwise(edges)]
    return pa.Table.from_batches(batches, schema)


def read_refused(store: Store, part: PartIndex) -> pa.Table:
    data, schema = store.read_range(part.key, part.refused_at, part.event_ids.at), SCHEMAS[Table.QUARANTINE]
    return pa.Table.from_batches([_unpacked(memoryview(data), schema)] if data else [], schema)


class Bits:
    """One bit for each row of a part: whether it is dropped."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.packed = np.zeros((rows + 7) // 8, np.uint8)

    def set(self, rows: U64) -> None:
        np.bitwise_or.at(self.packed, (rows >> np.uint64(3)).astype(np.intp), np.uint8(128) >> (rows & np.uint64(7)).astype(np.uint8))

    def kept_by_step(self) -> NDArray[np.int64]:
        """Of each STEP_ROWS rows, those that are not dropped."""
        kept = 1 - np.unpackbits(self.packed, count=self.rows).astype(np.int64)
        return np.add.reduceat(kept, np.arange(0, self.rows, STEP_ROWS)) if self.rows else kept

    @property
    def dropped(self) -> int:
        return int(np.bitwise_count(self.packed).sum())


def kept_of(packed: NDArray[np.uint8], rows: int) -> NDArray[np.bool_]:
    """Of each row whether it is kept, from the bits of its dropping."""
    return ~np.unpackbits(packed, count=rows).astype(np.bool_)
