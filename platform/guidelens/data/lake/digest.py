"""What a table holds as one number: the same for the same rows, however they are spread over files and in whatever order.

Each row is hashed apart (BLAKE2b, 256 bits) and the hashes are added modulo 2^256, file by file. A null says nothing, so a column that
newer files have and older ones lack changes nothing. Embeddings are left out: they follow from what they are made of and from the
encoder, which is in, but their last bits depend on which others were made in the same batch. Proof against accidents, not against somebody who makes rows to meet a digest.
"""

import hashlib
from typing import NamedTuple

import numpy as np
import polars as pl

from guidelens.data.lake.lake import Lake, Manifest
from guidelens.schemas.tables import Table

_BYTES = 32


class Digest(NamedTuple):
    """rows: how many. hex: of their contents, 64 digits."""

    rows: int
    hex: str


def table_digest(lake: Lake, table: Table, manifest: Manifest | None = None) -> Digest:
    """Of a table as of a manifest, the newest by default. Reads all of it, a file at a time."""
    total, rows = 0, 0
    for file in (manifest or lake.manifest()).of(table):
        found = lake.read_file(file)
        total += rows_digest(found)
        rows += found.height
    return Digest(rows, f"{total % 2 ** (8 * _BYTES):0{2 * _BYTES}x}")


def rows_digest(rows: pl.DataFrame) -> int:
    """The sum of the rows' hashes."""
    names = sorted(name for name in rows.columns if not name.endswith("embedding"))
    texts = rows.select(pl.concat_str([_said(rows[name]) for name in names]).alias("said"))["said"]
    digest = hashlib.blake2b
    return sum(int.from_bytes(digest(text.encode(), digest_size=_BYTES).digest(), "little") for text in texts)


def _said(values: pl.Series) -> pl.Series:
    """Each value with its column's name and its length, so that no two rows say the same; nothing for a null."""
    texts = _text(values)
    said = pl.format(f"{values.name}={{}}:{{}};", texts.str.len_bytes(), texts)
    return pl.select(pl.when(values.is_not_null()).then(said).otherwise(pl.lit(""))).to_series()


def _text(values: pl.Series) -> pl.Series:
    kind = values.dtype
    if kind == pl.String:
        return values
    if kind == pl.Binary:
        return values.bin.encode("hex")
    if kind.is_float():  # the bits: no rounding, and every NaN as itself
        return pl.Series(values.fill_null(0.0).cast(pl.Float64).to_numpy().view(np.uint64)).cast(pl.String)
    if kind.is_nested():
        return pl.Series([repr(value) for value in values.to_list()], dtype=pl.String)
    return values.to_physical().cast(pl.Int64).cast(pl.String)
