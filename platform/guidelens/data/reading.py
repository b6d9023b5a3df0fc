"""From a chunk of a file to raw records: bytes or cells, each with the place it was found at. Knows no contract.

Nothing in a file can stop the reading: what is no record comes out as a record with a problem.
"""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from guidelens.config import S3Options
from guidelens.data.sources import Chunk
from guidelens.storage import arrow_filesystem

MAX_RECORD_BYTES = 1024 * 1024
KEPT_RAW_BYTES = 64 * 1024
"""How much of a record above MAX_RECORD_BYTES quarantine keeps."""
_BLOCK_BYTES = 4 * 1024 * 1024
_BATCH_ROWS = 20_000
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Problem(NamedTuple):
    """Why a record is refused: the rule's short name, and a sentence."""

    rule: str
    message: str


class RawRecord(NamedTuple):
    """One record. offset: byte offset of its line in JSONL (after decompression), else its row number from 0.

    `raw` is the original line; `cells` (CSV, Parquet) the values by column, with None for empty ones.
    """

    offset: int
    raw: bytes
    cells: dict[str, Any] | None = None
    problem: Problem | None = None


def read_chunk(chunk: Chunk, s3: S3Options) -> Iterator[list[RawRecord]]:
    """The chunk's records in batches of bounded size; blank lines are no records."""
    if chunk.format == "parquet":
        yield from _parquet(chunk, s3)
    elif chunk.format == "csv":
        yield from _csv(chunk, s3)
    else:
        yield from _jsonl(chunk, s3)


def _open(chunk: Chunk, s3: S3Options) -> pa.NativeFile:
    filesystem, path = arrow_filesystem(chunk.uri, s3)
    if chunk.compression:
        return filesystem.open_input_stream(path, compression=chunk.compression)
    return filesystem.open_input_file(path)


def _jsonl(chunk: Chunk, s3: S3Options) -> Iterator[list[RawRecord]]:
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
        for batch in _lines(opened, start, stop):
            kept = [record for record in batch if record.problem or not record.raw.isspace()]
            if kept:
                yield kept


def _skip_started_line(opened: pa.NativeFile) -> int:
    """Bytes from the second one read on up to and with the next line feed; 0 where the line before ended exactly here."""
    read = 0
    while block := opened.read(_BLOCK_BYTES):
        found = block.find(b"\n")
        if found >= 0:
            return int(read + found)
        read += len(block)
    return read


def _lines(opened: pa.NativeFile, offset: int, stop: int | None) -> Iterator[list[RawRecord]]:
    """Complete lines from `offset` on that begin before `stop`; the last one may lack its line feed."""
    carry, skipping = b"", False
    while True:
        block, problem = _next_block(opened)
        ended = not block
        data = carry + block
        cut = len(data) if ended else data.rfind(b"\n") + 1
        if cut == 0 and len(data) > MAX_RECORD_BYTES:
            if not skipping:
                yield [_too_long(offset, data)]
            carry, offset, skipping = b"", offset + len(data), True
            continue
        batch = []
        for line in _split(data[:cut]):
            if stop is not None and offset >= stop:
                break
            if skipping:
                skipping = False
            elif len(line) > MAX_RECORD_BYTES:
                batch.append(_too_long(offset, line))
            elif line.strip():
                batch.append(RawRecord(offset, line.removeprefix(_BYTE_ORDER_MARK).rstrip(b"\r\n") if offset == 0 else line.rstrip(b"\r\n")))
            offset += len(line)
        if problem:
            batch.append(RawRecord(offset, b"", problem=problem))
        if batch:
            yield batch
        if ended or (stop is not None and offset >= stop):
            return
        carry = data[cut:]


def _split(data: bytes) -> list[bytes]:
    """Splits at line feeds only: a lone carriage return is white space of the record."""
    parts = data.split(b"\n")
    lines = [part + b"\n" for part in parts[:-1]]
    return [*lines, parts[-1]] if parts[-1] else lines


def _next_block(opened: pa.NativeFile) -> tuple[bytes, Problem | None]:
    try:
        return opened.read(_BLOCK_BYTES), None
    except OSError as error:
        return b"", Problem("file.damaged", f"the file must be readable to its end, got {error}; send it again")


def _too_long(offset: int, data: bytes) -> RawRecord:
    problem = Problem("record.too_long", f"a record may have {MAX_RECORD_BYTES} bytes, got more; {KEPT_RAW_BYTES} are kept")
    return RawRecord(offset, data[:KEPT_RAW_BYTES], problem=problem)


def _csv(chunk: Chunk, s3: S3Options) -> Iterator[list[RawRecord]]:
    """RFC 4180 with a header line. The original text of each row is kept beside its cells."""
    taken: list[str] = []
    with _open(chunk, s3) as opened:
        text = io.TextIOWrapper(opened, encoding="utf-8-sig", errors="surrogateescape", newline="")
        rows = csv.reader(_noting(text, taken), strict=True)
        header: list[str] | None = None
        number, batch = 0, []
        while True:
            taken.clear()
            try:
                cells = next(rows)
            except StopIteration:
                break
            except (csv.Error, OSError) as error:
                raw = "".join(taken).encode("utf-8", "surrogateescape")
                batch.append(RawRecord(number, raw[:KEPT_RAW_BYTES], problem=Problem("csv.invalid", f"a row must be RFC 4180 CSV, got {error}")))
                number += 1
                if isinstance(error, OSError):
                    break
                continue
            if header is None:
                header = [name.strip() for name in cells]
            elif cells:
                batch.append(_csv_row(number, header, cells, "".join(taken)))
                number += 1
            if len(batch) >= _BATCH_ROWS:
                yield batch
                batch = []
        if batch:
            yield batch


def _noting(lines: Iterator[str], taken: list[str]) -> Iterator[str]:
    for line in lines:
        taken.append(line)
        yield line


def _csv_row(number: int, header: list[str], cells: list[str], text: str) -> RawRecord:
    raw = text.rstrip("\r\n").encode("utf-8", "surrogateescape")
    named = {name: cell or None for name, cell in zip(header, cells, strict=False)}
    problem = None
    if len(cells) != len(header):
        problem = Problem("csv.columns", f"a row must have the header's {len(header)} cells, got {len(cells)}")
    elif any("\udc80" <= character <= "\udcff" for character in text):
        problem = Problem("csv.encoding", "a row must be UTF-8, got other bytes; export it as UTF-8")
    return RawRecord(number, raw, named, problem)


def _parquet(chunk: Chunk, s3: S3Options) -> Iterator[list[RawRecord]]:
    filesystem, path = arrow_filesystem(chunk.uri, s3)
    number = 0
    try:
        with filesystem.open_input_file(path) as opened:
            file = pq.ParquetFile(opened)
            number = sum(file.metadata.row_group(group).num_rows for group in range(chunk.start))
            for rows in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=list(range(chunk.start, chunk.stop))):
                yield [RawRecord(number + row, b"", cells) for row, cells in enumerate(rows.to_pylist())]
                number += rows.num_rows
    except (OSError, pa.ArrowException, ValueError) as error:
        yield [RawRecord(number, b"", problem=Problem("file.damaged", f"the file must be Parquet to its end, got {str(error)[:200]}; send it again"))]


def as_json(cells: dict[str, Any]) -> bytes:
    """A row's cells as one JSON object: the original of a Parquet row."""
    return json.dumps(cells, ensure_ascii=False, default=str).encode("utf-8", "surrogateescape")
