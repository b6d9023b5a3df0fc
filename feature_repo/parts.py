"""A feature table as a folder of Parquet parts, one a month of its rows' timestamps; live.json names the current ones.

Parts are written first, under names made of their content, and live.json is replaced last: a reader sees the table as it was or
as it is, and an update rewrites only the months it changes.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

LIVE = "live.json"
TIMESTAMP = "event_timestamp"


def write_parquet(frame: pl.DataFrame, path: Path) -> None:
    """Replaces the file at once: a reader sees the old rows or the new ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".writing-{path.name}")
    frame.write_parquet(beside, compression="zstd")
    beside.replace(path)


def is_table(folder: Path) -> bool:
    return (folder / LIVE).is_file()


def parts_of(folder: Path) -> dict[str, Path]:
    """The live parts by month (YYYY-MM), oldest first.

    Raises:
        FileNotFoundError: there is no such table.
    """
    return {month: folder / name for month, name in sorted(json.loads((folder / LIVE).read_text()).items())}


def read_table(path: Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """All rows of a folder of parts, or of one Parquet file; by month, in the order they were written."""
    wanted = list(columns) if columns is not None else None
    if path.is_file():
        return pl.read_parquet(path, columns=wanted)
    try:
        return _read_parts(path, wanted)
    except FileNotFoundError:
        if not is_table(path):
            raise
        return _read_parts(path, wanted)  # an update took a part away between the look and the read


def _read_parts(folder: Path, columns: list[str] | None) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(part, columns=columns) for part in parts_of(folder).values()])


def num_rows(folder: Path) -> int:
    return sum(pq.read_metadata(part).num_rows for part in parts_of(folder).values())


def schema_path(path: Path) -> Path:
    """A Parquet file that has the table's columns."""
    return path if path.is_file() else next(iter(parts_of(path).values()))


def by_month(rows: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Rows by the month of their timestamp, in their order; a table without rows has one empty part, which keeps its columns."""
    months = rows[TIMESTAMP].dt.strftime("%Y-%m")
    found = {month: rows.filter(months == month) for month in sorted(months.unique().to_list())}
    return found or {"0000-00": rows}


def replace_table(folder: Path, parts: Mapping[str, pl.DataFrame]) -> None:
    """Makes `parts` the whole table."""
    _swap(folder, {month: _write_part(folder, month, rows) for month, rows in parts.items()})


def replace_parts(folder: Path, parts: Mapping[str, pl.DataFrame]) -> None:
    """Replaces months, or adds them; a month without rows goes away, but for the last one."""
    if not parts:
        return
    live = {month: path.name for month, path in parts_of(folder).items()}
    live |= {month: _write_part(folder, month, rows) for month, rows in parts.items()}
    filled = {month: name for month, name in live.items() if month not in parts or len(parts[month])}
    _swap(folder, filled or dict(list(live.items())[-1:]))


def _write_part(folder: Path, month: str, rows: pl.DataFrame) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    sink = io.BytesIO()
    rows.write_parquet(sink, compression="zstd")
    data = sink.getvalue()
    name = f"{month}-{hashlib.sha256(data).hexdigest()[:16]}.parquet"
    beside = folder / f".writing-{name}"
    beside.write_bytes(data)
    beside.replace(folder / name)
    return name


def _swap(folder: Path, live: Mapping[str, str]) -> None:
    beside = folder / f".writing-{LIVE}"
    beside.write_text(json.dumps(live, indent=1, sort_keys=True))
    beside.replace(folder / LIVE)
    for path in folder.glob("*.parquet"):
        if path.name not in live.values():
            path.unlink()
