"""Quarantined originals tried again: which of them keep today's contracts, possibly under other field names.

Originals hold pseudonyms in place of shopper ids; those are kept. Knows nothing of how the good ones reach the lake.
"""

from typing import NamedTuple

import polars as pl

from guidelens.data.records.raw_records import RawRecord
from guidelens.data.records.sources import Kind
from guidelens.data.records.validation import Checker

REPLAYED = (Kind.CATALOGUE, Kind.SHOPPERS, Kind.REVIEWS, Kind.EVENTS)
"""Kinds whose originals are whole in quarantine. Photos and models lie in their folders, and every ingest of those tries them again."""
LABEL = "quarantine"
"""What counts call the source of replayed records."""
_BATCH_ROWS = 20_000


class Good(NamedTuple):
    """Records that now keep their contract: their `record_sha256`, their originals, and the staged rows (source 0, in the same order)."""

    ids: tuple[str, ...]
    originals: tuple[bytes, ...]
    rows: pl.DataFrame


def tried_again(quarantined: pl.DataFrame, checker: Checker) -> Good:
    """The good ones among one kind's rows of the quarantine table.

    A record that only contradicts another one of its ingest keeps its contract; it stays, because taking it would replace that other one.
    """
    is_whole = pl.col("raw").is_not_null() & ~pl.col("rule").str.ends_with(".contradicted")
    rows = quarantined.filter(is_whole).sort("source", "offset", "record_sha256")
    ids, raws = rows["record_sha256"].to_list(), rows["raw"].to_list()
    staged = [_good(raws[start : start + _BATCH_ROWS], start, checker) for start in range(0, len(raws), _BATCH_ROWS)]
    good = pl.concat(staged) if staged else _good([], 0, checker)
    places = good["offset"].to_list()
    return Good(tuple(ids[place] for place in places), tuple(raws[place] for place in places), good)


def _good(raws: list[bytes], start: int, checker: Checker) -> pl.DataFrame:
    frame = pl.from_arrow(checker.check([RawRecord(start + number, raw) for number, raw in enumerate(raws)], 0))
    assert isinstance(frame, pl.DataFrame)
    return frame.filter(pl.col("rule").is_null()).sort("offset")


def as_lines(originals: tuple[bytes, ...]) -> bytes:
    """Originals, one a line."""
    return b"".join(raw.replace(b"\n", b" ") + b"\n" for raw in originals)
