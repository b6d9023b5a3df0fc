"""Large text tables of data sets, read a block at a time with the line each row stood on. Knows no data set.

For tables without quoting, which logs of numbers are; a row that is not as it should be stops the reading by name and line.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import polars as pl

from guidelens.errors import InputError

_BLOCK_BYTES = 8 * 1024 * 1024


def read_delimited(file: Path, separator: str, columns: Sequence[str], header_lines: int = 0, block_bytes: int = _BLOCK_BYTES) -> Iterator[pl.DataFrame]:
    """Rows as text columns and `line` (int64, from 1); blank lines are passed over.

    Raises:
        InputError: the file cannot be read, or a line has another number of fields.
    """
    before = 0
    for block in _blocks(file, block_bytes):
        lines = pl.DataFrame({"text": block.decode("utf-8-sig", "replace").splitlines()}, schema={"text": pl.String}).with_row_index("line", before + 1)
        before += lines.height
        rows = lines.filter((pl.col("line") > header_lines) & (pl.col("text").str.strip_chars() != ""))
        wrong = rows.filter(pl.col("text").str.count_matches(separator, literal=True) != len(columns) - 1)
        if wrong.height:
            line, text = wrong.row(0)
            raise InputError(f"{file}, line {line}: must hold {len(columns)} fields split by {separator!r} ({', '.join(columns)}), got {text[:80]!r}")
        fields = pl.col("text").str.split_exact(separator, len(columns) - 1).struct.rename_fields(list(columns)).alias("fields")
        yield rows.select(pl.col("line").cast(pl.Int64), fields).unnest("fields")


def header_of(file: Path, separator: str, needed: Sequence[str]) -> list[str]:
    """The names in the first line.

    Raises:
        InputError: the file cannot be read, or a needed name is not there.
    """
    try:
        with file.open(encoding="utf-8-sig", errors="replace") as lines:
            names = lines.readline().rstrip("\r\n").split(separator)
    except OSError as error:
        raise _unreadable(file, error) from error
    missing = [name for name in needed if name not in names]
    if missing:
        raise InputError(f"{file}: the first line must name {', '.join(needed)}, got {','.join(names)[:80]!r} without {missing[0]}")
    return names


def typed(rows: pl.DataFrame, file: Path, types: Mapping[str, type[pl.DataType]]) -> pl.DataFrame:
    """`rows` with text columns as numbers.

    Raises:
        InputError: a value is no such number; the message names the line.
    """
    cast = rows.with_columns(pl.col(name).str.strip_chars().cast(dtype, strict=False) for name, dtype in types.items())
    for name, dtype in types.items():
        wrong = rows.filter(cast[name].is_null())
        if wrong.height:
            kind = "a whole number" if dtype.is_integer() else "a number"
            raise InputError(f"{file}, line {wrong['line'][0]}: {name} must be {kind}, got {wrong[name][0]!r}; fetch the data set again")
    return cast


def must(rows: pl.DataFrame, file: Path, name: str, holds: pl.Expr, rule: str) -> None:
    """Raises InputError with the first line whose column `name` breaks `rule`."""
    wrong = rows.filter(~holds.fill_null(False))
    if wrong.height:
        raise InputError(f"{file}, line {wrong['line'][0]}: {name} must be {rule}, got {wrong[name][0]!r}; fetch the data set again")


def _blocks(file: Path, block_bytes: int) -> Iterator[bytes]:
    """Whole lines, about block_bytes at a time."""
    try:
        with file.open("rb") as opened:
            carry = b""
            while block := opened.read(block_bytes):
                cut = block.rfind(b"\n") + 1
                if cut:
                    yield carry + block[:cut]
                    carry = block[cut:]
                else:
                    carry += block
            if carry:
                yield carry
    except OSError as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: OSError) -> InputError:
    return InputError(f"{file} must be readable, got {error.strerror}; give --path the data set's folder")
