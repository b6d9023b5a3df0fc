"""Changes to the lake's tables as lists of live files: append, upsert and delete. Only files with an affected row are rewritten."""

from collections.abc import Callable, Sequence

import polars as pl
import pyarrow as pa

from guidelens.data.lake.lake import DataFile, Lake, Manifest
from guidelens.schemas.tables import SCHEMAS, Table


def to_table(table: Table, rows: pl.DataFrame) -> pa.Table:
    """Rows in the table's Arrow schema; columns they lack are null."""
    schema = SCHEMAS[table]
    columns = []
    for field in schema:
        columns.append(rows[field.name].to_arrow().cast(field.type) if field.name in rows.columns else pa.nulls(rows.height, field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def append(lake: Lake, base: Manifest, table: Table, rows: pl.DataFrame) -> list[DataFile]:
    """The table's live files with `rows` added in their order."""
    return [*base.of(table), *lake.write(table, to_table(table, rows))]


def upsert(lake: Lake, base: Manifest, table: Table, key: str, rows: pl.DataFrame) -> list[DataFile]:
    """The table's live files with `rows` in place of those of the same key."""
    if rows.height == 0:
        return list(base.of(table))
    kept, _ = delete(lake, base.of(table), pl.col(key).is_in(rows[key].implode()))
    return [*kept, *lake.write(table, to_table(table, rows))]


def delete(lake: Lake, files: Sequence[DataFile], gone: pl.Expr) -> tuple[list[DataFile], int]:
    """Files without the rows for which `gone` is true, and how many those were. Files without such a row stay as they are."""
    return rewrite(lake, files, lambda rows: rows.filter(~gone.fill_null(False)), lambda rows: int(rows.select(gone.fill_null(False).sum()).item()))


def rewrite(
    lake: Lake, files: Sequence[DataFile], change: Callable[[pl.DataFrame], pl.DataFrame], affected: Callable[[pl.DataFrame], int]
) -> tuple[list[DataFile], int]:
    """Files with `change` applied wherever `affected` counts at least one row, and the sum of those counts."""
    kept: list[DataFile] = []
    total = 0
    for file in files:
        rows = lake.read_file(file)
        number = affected(rows)
        total += number
        kept += rewritten(lake, file, change(rows)) if number else [file]
    return kept, total


def rewritten(lake: Lake, file: DataFile, rows: pl.DataFrame) -> list[DataFile]:
    """`rows` as files in place of `file`: as old as it is."""
    return [new.model_copy(update={"since": file.since}) for new in lake.write(file.table, to_table(file.table, rows))]
