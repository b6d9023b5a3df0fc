"""From a chunk of a file to raw records: bytes or cells, each with the place it was found at. Knows no contract.

Records come in blocks, which can also be taken apart at once as columns. Nothing in a file can stop the reading: what is no
record comes out as a record with a problem.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from guidelens.config import S3Options
from guidelens.data.records.csv_rows import read_csv
from guidelens.data.records.raw_records import MAX_RECORD_BYTES, Problem, RawRecord, as_record, too_long
from guidelens.data.records.sources import Chunk
from guidelens.storage import arrow_filesystem

_BLOCK_BYTES = 8 * 1024 * 1024
_UNPACKED_STEP_BYTES = 64 * 1024
"""How much of a damaged packed file may be lost before the damage."""
_READ_AHEAD_BYTES = 1024 * 1024
_BATCH_ROWS = 20_000
_UNREADABLE = (ValueError, OverflowError, LookupError, pa.ArrowException)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Lines(NamedTuple):
    """Whole lines of JSONL as they lie in the file from `offset` on; the last one may lack its line feed."""

    offset: int
    data: bytes

    def record(self, _number: int, start: int, stop: int) -> RawRecord | None:
        """The line at [start, stop) of `data`; None where it is blank."""
        line, offset = self.data[start:stop], self.offset + start
        if len(line) > MAX_RECORD_BYTES:
            return too_long(offset, line)
        raw = (line.removeprefix(_BYTE_ORDER_MARK) if offset == 0 else line).rstrip(b"\r\n")
        return RawRecord(offset, raw) if raw.strip() else None

    def records(self) -> list[RawRecord]:
        found: list[RawRecord | None] = []
        start = 0
        while start < len(self.data):
            stop = self.data.find(b"\n", start) + 1 or len(self.data)
            found.append(self.record(len(found), start, stop))
            start = stop
        return [record for record in found if record is not None]


class Messages(NamedTuple):
    """Values of Kafka messages, none of which holds a line feed, each followed by one; and the offset of each."""

    offsets: NDArray[np.int64]
    data: bytes

    def record(self, number: int, start: int, stop: int) -> RawRecord:
        """The message whose value is the line at [start, stop) of `data`."""
        return as_record(int(self.offsets[number]), self.data[start:stop].rstrip(b"\n"))

    def records(self) -> list[RawRecord]:
        values = self.data.split(b"\n")[:-1]
        return [as_record(offset, value) for offset, value in zip(self.offsets.tolist(), values, strict=True)]


class Rows(NamedTuple):
    """Rows of Parquet; the first one has the number `offset` in its file."""

    offset: int
    batch: pa.RecordBatch

    def records(self, wanted: Iterable[int] | None = None) -> list[RawRecord]:
        """All rows, or those asked for. Times are cut to microseconds, as in the lake."""
        numbers = range(self.batch.num_rows) if wanted is None else list(wanted)
        if not numbers:
            return []
        rows = _cut_to_microseconds(self.batch)
        rows = rows if len(numbers) == rows.num_rows else _as_strings(rows).take(pa.array(numbers, pa.int64()))
        names = self.batch.schema.names
        problem = None if len(set(names)) == len(names) else Problem("parquet.columns", f"columns must have different names, got {names}"[:300])
        try:
            return [RawRecord(self.offset + number, b"", cells, problem) for number, cells in zip(numbers, rows.to_pylist(), strict=True)]
        except _UNREADABLE:  # one value that Python cannot hold: find whose it is
            return [self._record(number, rows.slice(place, 1)) for place, number in enumerate(numbers)]

    def _record(self, number: int, row: pa.RecordBatch) -> RawRecord:
        try:
            return RawRecord(self.offset + number, b"", row.to_pylist()[0])
        except _UNREADABLE as error:
            cells = {name: _readable(column) for name, column in zip(row.schema.names, row.columns, strict=True)}
            return RawRecord(self.offset + number, b"", cells, Problem("parquet.value", f"a row must hold readable values, got {str(error)[:200]}"))


def _readable(column: pa.Array) -> Any:
    """A column's one value; where Python cannot hold it, what is stored."""
    try:
        return column[0].as_py()
    except _UNREADABLE:
        return str(column.cast(pa.int64())[0]) if pa.types.is_temporal(column.type) else str(column.type)


Block = Lines | Messages | Rows | list[RawRecord]


def read_blocks(chunk: Chunk, s3: S3Options) -> Iterator[Block]:
    """The chunk's records in blocks of bounded size."""
    if chunk.format == "kafka":
        from guidelens.data.records.kafka_source import read_messages

        yield from read_messages(chunk)
    elif chunk.format == "parquet":
        yield from _parquet(chunk, s3)
    elif chunk.format == "csv":
        with _open(chunk, s3) as opened:
            yield from read_csv(opened)
    else:
        yield from _jsonl(chunk, s3)


def read_chunk(chunk: Chunk, s3: S3Options) -> Iterator[list[RawRecord]]:
    """The chunk's records in batches of bounded size; blank lines are no records."""
    for block in read_blocks(chunk, s3):
        found = block if isinstance(block, list) else block.records()
        if found:
            yield found


def _open(chunk: Chunk, s3: S3Options) -> pa.NativeFile:
    filesystem, path = arrow_filesystem(chunk.uri, s3)
    if chunk.compression:
        return filesystem.open_input_stream(path, compression=chunk.compression, buffer_size=_READ_AHEAD_BYTES)
    return filesystem.open_input_file(path)


def _jsonl(chunk: Chunk, s3: S3Options) -> Iterator[Block]:
    """A line belongs to the chunk in which it begins."""
    with _open(chunk, s3) as opened:
        start = chunk.start
        if start:
            opened.seek(start - 1)
            start += _skip_started_line(opened)
        stop = None if chunk.compression else chunk.stop
        if stop is not None and start >= stop:
            return
        if start:
            opened.seek(start)
        yield from _lines(opened, start, stop, _UNPACKED_STEP_BYTES if chunk.compression else _BLOCK_BYTES)


def _skip_started_line(opened: pa.NativeFile) -> int:
    """Bytes from the second one read on up to and with the next line feed; 0 where the line before ended exactly here."""
    read = 0
    while block := opened.read(_BLOCK_BYTES):
        found = block.find(b"\n")
        if found >= 0:
            return int(read + found)
        read += len(block)
    return read


def _lines(opened: pa.NativeFile, offset: int, stop: int | None, step_bytes: int) -> Iterator[Block]:
    """Complete lines from `offset` on that begin before `stop`; the last one may lack its line feed."""
    carry, skipping = b"", False
    while True:
        block, problem = _next_block(opened, step_bytes)
        ended = not block or problem is not None
        data = carry + block
        if skipping:  # the rest of a line that was too long already
            rest = data.find(b"\n") + 1 or len(data)
            skipping, offset, data = not data[:rest].endswith(b"\n"), offset + rest, data[rest:]
            if stop is not None and offset >= stop:  # the next line is the next chunk's
                return
        cut = len(data) if ended and not problem else data.rfind(b"\n") + 1
        if cut == 0 and len(data) > MAX_RECORD_BYTES:
            yield [too_long(offset, data)]
            carry, offset, skipping = b"", offset + len(data), True
            continue
        last = cut if stop is None else _end_of_line(data, stop - offset - 1, cut)
        if last:
            yield Lines(offset, data[:last])
        if problem:
            yield [RawRecord(offset + cut, b"", problem=problem)]
        if ended or last < cut:
            return
        carry, offset = data[cut:], offset + cut
        if stop is not None and offset >= stop:
            return


def _end_of_line(data: bytes, at: int, cut: int) -> int:
    """Where the line ends that holds the byte `at`, or `cut` where that is before it."""
    return cut if at >= cut else data.find(b"\n", max(at, 0)) + 1 or cut


def _next_block(opened: pa.NativeFile, step_bytes: int) -> tuple[bytes, Problem | None]:
    parts: list[bytes] = []
    try:
        while sum(map(len, parts)) < _BLOCK_BYTES and (part := opened.read(step_bytes)):
            parts.append(part)
    except OSError as error:
        return b"".join(parts), Problem("file.damaged", f"the file must be readable to its end, got {error}; send it again")
    return parts[0] if len(parts) == 1 else b"".join(parts), None


def _parquet(chunk: Chunk, s3: S3Options) -> Iterator[Block]:
    filesystem, path = arrow_filesystem(chunk.uri, s3)
    number = 0
    try:
        with filesystem.open_input_file(path) as opened:
            file = pq.ParquetFile(opened)
            number = sum(file.metadata.row_group(group).num_rows for group in range(chunk.start))
            for rows in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=list(range(chunk.start, chunk.stop))):
                yield Rows(number, rows)
                number += rows.num_rows
    except (OSError, pa.ArrowException, ValueError) as error:
        yield [RawRecord(number, b"", problem=Problem("file.damaged", f"the file must be Parquet to its end, got {str(error)[:200]}; send it again"))]


def _as_strings(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Arrow cannot take rows of string views."""
    for number, field in enumerate(rows.schema):
        if pa.types.is_string_view(field.type):
            rows = rows.set_column(number, field.name, rows.column(number).cast(pa.large_string()))
    return rows


def _cut_to_microseconds(rows: pa.RecordBatch) -> pa.RecordBatch:
    for number, field in enumerate(rows.schema):
        if pa.types.is_timestamp(field.type) and field.type.unit == "ns":
            cut = rows.column(number).cast(pa.timestamp("us", field.type.tz), safe=False)
            rows = rows.set_column(number, field.name, cut)
    return rows
