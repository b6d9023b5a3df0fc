"""A raw record: what stands at one place of a file or stream, before any contract, and why it may be none."""

import json
import math
from datetime import date, datetime
from typing import Any, NamedTuple

MAX_RECORD_BYTES = 1024 * 1024
KEPT_RAW_BYTES = 64 * 1024
"""How much of a record above MAX_RECORD_BYTES quarantine keeps."""


class Problem(NamedTuple):
    """Why a record is refused: the rule's short name, and a sentence."""

    rule: str
    message: str


TOO_LONG = Problem("record.too_long", f"a record may have {MAX_RECORD_BYTES} bytes, got more; {KEPT_RAW_BYTES} are kept")


class RawRecord(NamedTuple):
    """One record. offset: byte offset of its line in JSONL (after decompression), a Kafka message's own, else its row number from 0.

    `raw` is the original line; `cells` (CSV, Parquet) the values by column, with None for empty ones. `torn`: of a line of CSV that is no row
    of its file, its text in pieces, which cannot be told to be this or that column.
    """

    offset: int
    raw: bytes
    cells: dict[str, Any] | None = None
    problem: Problem | None = None
    torn: tuple[str, ...] = ()


def as_record(offset: int, value: bytes) -> RawRecord:
    """A message's value as a record; one without a value is no JSON, and is refused for it."""
    return too_long(offset, value) if len(value) > MAX_RECORD_BYTES else RawRecord(offset, value)


def too_long(offset: int, data: bytes) -> RawRecord:
    return RawRecord(offset, data[:KEPT_RAW_BYTES], problem=TOO_LONG)


def as_json(cells: dict[str, Any]) -> bytes:
    """A row's cells as one JSON object, which reads as the same record: the original of a row of CSV or Parquet."""
    plain = {name: _plain(value) for name, value in cells.items()}
    return json.dumps(plain, ensure_ascii=False, default=_as_text).encode("utf-8", "surrogateescape")


def _plain(value: Any) -> Any:
    """Maps, which Parquet gives as pairs, as objects; numbers that JSON does not have as their names."""
    if isinstance(value, list) and value and all(isinstance(pair, tuple) for pair in value):
        return dict(value)
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _as_text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return value.isoformat() if isinstance(value, date | datetime) else str(value)
