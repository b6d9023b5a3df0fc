"""A staged part: some ten thousand checked events of one chunk in one object, laid out so that later tasks read only their slice.

    segments   the good events in order of time, as Arrow streams of SEGMENT_ROWS each
    refused    the refused records, as rows of the quarantine table, one Arrow stream
    ids        of each of the two, sorted: 24 bytes a row, its id and its row number in the part

`PartIndex` says where everything lies; it stays with the driver (about two bytes an event), the part in the lake's staging.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from guidelens.data.lake.event_ids import U64, Ids, hashed, in_order, starts_of
from guidelens.schemas.tables import SCHEMAS, Table
from guidelens.storage import Store

SEGMENT_ROWS = 2048
"""A multiple of eight: the bits that mark a segment's rows begin with a byte."""
STEP_ROWS = 256
"""How finely the driver knows when a segment's events happened; a segment of a log in no order may span days, with their nights."""
_STEPS = SEGMENT_ROWS // STEP_ROWS
ID_RECORD_BYTES = 24
_COMPRESSED = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)


class IdSection(NamedTuple):
    """at: where in the object the ids begin. starts: (257,) positions in it by first byte of the id."""

    at: int
    starts: NDArray[np.int64]

    def bytes_of(self, first: int, stop: int) -> tuple[int, int]:
        """Where the ids with a first byte in [first, stop) lie in the object."""
        return self.at + ID_RECORD_BYTES * int(self.starts[first]), self.at + ID_RECORD_BYTES * int(self.starts[stop])


class PartIndex(NamedTuple):
    """One staged part.

    Attributes:
        key: of the object.
        source: index of the file it comes from.
        rows, refused: good and refused records.
        segments_at: (S + 1,) where each segment begins, and where the last one ends.
        times_us: (M, 2) event_ts of the first and last of each STEP_ROWS rows, microseconds.
        refused_at: where the refused records begin; they end where `event_ids` begin.
        rules: refused records by rule.
        remarks: records by what is remarked on them.
    """

    key: str
    source: int
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


def pack(key: str, source: int, events: pa.Table, refused: pa.Table, rules: dict[str, int], remarks: dict[str, int]) -> tuple[PartIndex, bytes]:
    """A part and its index.

    Args:
        events: rows of the events table in the order they were read.
        refused: rows of the quarantine table in the order they were read.
    """
    times = pc.cast(events["event_ts"], pa.int64()).to_numpy()
    event_ids, refused_ids = hashed(events["event_id"]), hashed(refused["record_sha256"])
    by_time = np.argsort(times, kind="stable")
    if not np.array_equal(by_time, np.arange(len(by_time))):
        events, times = events.take(pa.array(by_time)), times[by_time]
    row_of = np.empty(len(by_time), np.uint64)
    row_of[by_time] = np.arange(len(by_time), dtype=np.uint64)

    parts, positions = [], [0]
    for start in range(0, events.num_rows, SEGMENT_ROWS):
        parts.append(_stream(events.slice(start, SEGMENT_ROWS)))
        positions.append(positions[-1] + len(parts[-1]))
    firsts = np.arange(0, len(times), STEP_ROWS)
    lasts = np.minimum(firsts + STEP_ROWS, len(times)) - 1
    refused_at = positions[-1]
    parts.append(_stream(refused) if refused.num_rows else b"")
    at = refused_at + len(parts[-1])
    records, starts = _id_records(event_ids, row_of)
    refused_records, refused_starts = _id_records(refused_ids, np.arange(refused.num_rows, dtype=np.uint64))
    index = PartIndex(
        key=key,
        source=source,
        rows=events.num_rows,
        refused=refused.num_rows,
        segments_at=np.array(positions, np.int64),
        times_us=np.stack([times[firsts], times[lasts]], axis=1) if len(times) else np.zeros((0, 2), np.int64),
        refused_at=refused_at,
        event_ids=IdSection(at, starts),
        refused_ids=IdSection(at + len(records), refused_starts),
        rules=rules,
        remarks=remarks,
    )
    return index, b"".join([*parts, records, refused_records])


def _stream(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema, options=_COMPRESSED) as writer:
        writer.write_table(rows.combine_chunks())
    return bytes(sink.getvalue())


def _id_records(ids: Ids, row_of: U64) -> tuple[bytes, NDArray[np.int64]]:
    order = in_order(ids)
    records = np.stack([ids.high[order], ids.low[order], row_of[order]], axis=1).astype("<u8")
    return records.tobytes(), starts_of(ids.high[order])


def read_segments(store: Store, key: str, positions: NDArray[np.int64]) -> bytes:
    """Consecutive segments as they are stored."""
    return store.read_range(key, int(positions[0]), int(positions[-1]))


def unpack_segments(data: bytes, positions: NDArray[np.int64]) -> pa.Table:
    """What `read_segments` read, as one table."""
    stored = pa.py_buffer(data)
    return pa.concat_tables(pa.ipc.open_stream(stored[int(at - positions[0]) :]).read_all() for at in positions[:-1])


def read_refused(store: Store, part: PartIndex) -> pa.Table:
    data = store.read_range(part.key, part.refused_at, part.event_ids.at)
    return pa.ipc.open_stream(data).read_all() if data else SCHEMAS[Table.QUARANTINE].empty_table()


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

    def of_segments(self, first: int, stop: int) -> tuple[int, NDArray[np.uint8]]:
        """Number of rows of the segments [first, stop), and their bits."""
        start, end = first * SEGMENT_ROWS, min(stop * SEGMENT_ROWS, self.rows)
        return end - start, self.packed[start // 8 : (end + 7) // 8]

    @property
    def dropped(self) -> int:
        return int(np.bitwise_count(self.packed).sum())


def kept_of(packed: NDArray[np.uint8], rows: int) -> NDArray[np.bool_]:
    """Of each row whether it is kept, from the bits of its dropping."""
    return ~np.unpackbits(packed, count=rows).astype(np.bool_)
