"""Rows of CSV, each with its original text. What is no row costs its own line and nothing behind it."""

import csv
import io
import re
from collections.abc import Iterator

import pyarrow as pa

from guidelens.data.records.raw_records import KEPT_RAW_BYTES, MAX_RECORD_BYTES, TOO_LONG, Problem, RawRecord, too_long

_BATCH_ROWS = 20_000
_NO_UTF8 = re.compile("[\udc80-\udcff]")
"""Bytes that are no UTF-8, as `surrogateescape` reads them."""
_OTHER_SEPARATORS = {";", "\t", "|"}
_PIECES = re.compile(r'[^,;|\t"\r\n]+')


class _EndlessLineError(Exception):
    """A line has more than MAX_RECORD_BYTES characters."""


class _Text:
    """Physical lines, which can be given back to be read again. taken: those since it was last cleared. number: of the last one, from 1."""

    def __init__(self, opened: pa.NativeFile) -> None:
        self._text: io.TextIOBase = io.TextIOWrapper(opened, encoding="utf-8-sig", errors="surrogateescape", newline="")
        self._given_back: list[str] = []
        self.taken: list[str] = []
        self.number = 0

    def __iter__(self) -> "_Text":
        return self

    def __next__(self) -> str:
        line = self._given_back.pop() if self._given_back else self._text.readline(MAX_RECORD_BYTES)
        if not line:
            raise StopIteration
        self.taken.append(line)
        self.number += 1
        if len(line) == MAX_RECORD_BYTES and not line.endswith(("\n", "\r")):
            raise _EndlessLineError
        return line

    @property
    def first(self) -> int:
        """Number of the first line taken."""
        return self.number - len(self.taken) + 1

    def give_back_all_but_first(self) -> None:
        self.number -= len(self.taken) - 1
        self._given_back += reversed(self.taken[1:])
        del self.taken[1:]

    def end(self) -> None:
        """Nothing more can be read, and what was begun is no row."""
        self._given_back.clear()
        self.taken.clear()
        self._text = io.StringIO()

    def skip_line(self) -> None:
        """To the end of the line of which a part was read."""
        while (part := self._text.readline(MAX_RECORD_BYTES)) and not part.endswith(("\n", "\r")):
            pass


def read_csv(opened: pa.NativeFile) -> Iterator[list[RawRecord]]:
    """The rows of RFC 4180 CSV with a header line, in batches of bounded size; blank lines are no rows.

    A quote that nothing closes would swallow what stands behind it: where lines together are no row, the first one alone is refused, and
    reading goes on with the second.
    """
    batch = []
    for record in _records(_Text(opened)):
        batch.append(record)
        if len(batch) >= _BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def _records(text: _Text) -> Iterator[RawRecord]:
    csv.field_size_limit(MAX_RECORD_BYTES)
    rows = csv.reader(text, strict=True)
    names = _header(text, rows)
    if isinstance(names, Problem):
        yield RawRecord(0, b"", problem=names)
    if not isinstance(names, list):
        return
    number = 0
    while (found := _next_row(text, rows)) is not None:
        if not found:
            continue
        if len(text.taken) > 1 and (isinstance(found, Problem) or len(found) != len(names)):
            found = Problem("csv.invalid", f"line {text.first}: a quote must be closed within its row; this one opens lines that are no row together")
            text.give_back_all_but_first()
        yield _record(number, names, found, text)
        number += 1


def _header(text: _Text, rows: Iterator[list[str]]) -> list[str] | Problem | None:
    """The columns' names, or why no row of the file can be read; None of an empty file."""
    found = _next_row(text, rows)
    if isinstance(found, Problem):
        return Problem("csv.header", f"the first line must name the columns; {found.message}; mend it and ingest the file again")
    if found is not None and _NO_UTF8.search("".join(found)):
        return Problem("csv.header", "the first line must be UTF-8, got other bytes; export the file as UTF-8 and ingest it again")
    if found is not None and len(found) == 1 and (separators := set(found[0]) & _OTHER_SEPARATORS):
        return Problem("csv.header", f"columns must be separated by commas, got {min(separators)!r}; export the file with commas and ingest it again")
    return found if found is None else [name.strip() for name in found]


def _next_row(text: _Text, rows: Iterator[list[str]]) -> list[str] | Problem | None:
    """The next row's cells, or why there are none; None at the end. `text.taken` holds its lines."""
    text.taken.clear()
    try:
        return next(rows)
    except StopIteration:
        return None
    except _EndlessLineError:
        if len(text.taken) == 1:  # else it comes again, behind lines that are given back
            text.skip_line()
        return TOO_LONG
    except csv.Error as error:
        return Problem("csv.invalid", f"line {text.first}: a row must be RFC 4180 CSV, got {error}")
    except OSError as error:
        text.end()
        return Problem("file.damaged", f"the file must be readable to its end, got {error}; send it again")


def _record(number: int, header: list[str], found: list[str] | Problem, text: _Text) -> RawRecord:
    taken = "".join(text.taken)
    raw = taken.rstrip("\r\n").encode("utf-8", "surrogateescape")
    if isinstance(found, Problem):
        return RawRecord(number, raw[:KEPT_RAW_BYTES], problem=found, torn=tuple(_PIECES.findall(taken[:KEPT_RAW_BYTES])))
    if len(raw) > MAX_RECORD_BYTES:
        return too_long(number, raw)._replace(torn=tuple(found))
    if len(set(header)) != len(header):
        return RawRecord(number, raw, problem=Problem("csv.columns", f"columns must have different names, got {header}"[:300]), torn=tuple(found))
    if len(found) != len(header):
        problem = Problem("csv.columns", f"line {text.first}: a row must have the header's {len(header)} cells, got {len(found)}")
        return RawRecord(number, raw, problem=problem, torn=tuple(found))
    named = {name: cell.strip() or None for name, cell in zip(header, found, strict=True)}
    if not taken.isascii() and _NO_UTF8.search(taken):
        return RawRecord(number, raw, named, Problem("csv.encoding", "a row must be UTF-8, got other bytes; export it as UTF-8"))
    return RawRecord(number, raw, named)
