"""Quarantined originals tried again: which of them keep today's contracts, possibly under other field names.

Originals hold pseudonyms in place of shopper ids; those are kept. Knows nothing of how the good ones reach the lake.
"""

from collections.abc import Mapping
from typing import NamedTuple

import polars as pl

from guidelens.data.records.raw_records import Problem, RawRecord
from guidelens.data.records.sources import Kind
from guidelens.data.records.validation import Checker

WHOLE = (Kind.CATALOGUE, Kind.SHOPPERS, Kind.REVIEWS, Kind.EVENTS)
"""Kinds whose originals are whole in quarantine. Photos and models lie in their folders, and are read there again (images/replay.py)."""
LABEL = "quarantine"
"""What counts call the source of replayed records."""
_BATCH_ROWS = 20_000
_LEFT = {"source": pl.String, "offset": pl.Int64, "rule": pl.String, "message": pl.String}


class Good(NamedTuple):
    """Refused records that are good now: their `record_sha256`, the originals of those whose originals are whole (in the same order), and
    the staged rows (source 0) of all. left: those that stay, by source and offset, each with the rule and message of today."""

    ids: tuple[str, ...]
    originals: tuple[bytes, ...]
    rows: pl.DataFrame
    left: pl.DataFrame


def tried_again(quarantined: pl.DataFrame, checker: Checker) -> Good:
    """The good ones among one kind's rows of the quarantine table.

    A record that only contradicts another one of its ingest keeps its contract; it stays, because taking it would replace that other one.
    """
    is_whole = pl.col("raw").is_not_null() & ~pl.col("rule").str.ends_with(".contradicted")
    rows = quarantined.filter(is_whole).sort("source", "offset", "record_sha256")
    ids, raws = rows["record_sha256"].to_list(), rows["raw"].to_list()
    staged = [_checked(raws[start : start + _BATCH_ROWS], start, checker) for start in range(0, max(len(raws), 1), _BATCH_ROWS)]
    checked = pl.concat(staged)
    is_good = pl.col("rule").is_null()
    good = checked.filter(is_good)
    why = {record: Problem(*rest) for record, *rest in quarantined.filter(~is_whole).select("record_sha256", "rule", "message").iter_rows()}
    why |= {ids[place]: Problem(*rest) for place, *rest in checked.filter(~is_good).select("offset", "rule", "message").iter_rows()}
    places = good["offset"].to_list()
    return Good(tuple(ids[place] for place in places), tuple(raws[place] for place in places), good, left_of(quarantined, why))


def left_of(quarantined: pl.DataFrame, why: Mapping[str, Problem]) -> pl.DataFrame:
    """`Good.left`: the rows of the quarantine table that `why` names by `record_sha256`."""
    places = quarantined.filter(pl.col("record_sha256").is_in(sorted(why))).sort("source", "offset", "record_sha256")
    rows = [(source, offset, *why[record]) for record, source, offset in places.select("record_sha256", "source", "offset").iter_rows()]
    return pl.DataFrame(rows, schema=_LEFT, orient="row")


def _checked(raws: list[bytes], start: int, checker: Checker) -> pl.DataFrame:
    frame = pl.from_arrow(checker.check([RawRecord(start + number, raw) for number, raw in enumerate(raws)], 0))
    assert isinstance(frame, pl.DataFrame)
    return frame.sort("offset")


def as_lines(originals: tuple[bytes, ...]) -> bytes:
    """Originals, one a line."""
    return b"".join(raw.replace(b"\n", b" ") + b"\n" for raw in originals)
