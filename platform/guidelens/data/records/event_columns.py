"""Blocks of events checked as columns: the certain rows as staged columns, the rest as records for the model to judge."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from guidelens.data.pseudonyms import TELLING_FIELDS, Pseudonymizer
from guidelens.data.records.column_checks import doubts, event_contract
from guidelens.data.records.json_lines import PlainLineReader
from guidelens.data.records.raw_records import MAX_RECORD_BYTES, RawRecord
from guidelens.data.records.reading import Block, Lines, Messages, Rows
from guidelens.data.records.typed_columns import cell_arrays, typed_frame
from guidelens.schemas.base import NO_CONTROL_CHARACTERS


class Sorted(NamedTuple):
    """certain: events that keep the contract, by field, with `remarks` and `offset`. others: the records of all other rows, in order."""

    certain: pl.DataFrame
    others: list[RawRecord]


@lru_cache(maxsize=8)
def _doubts(now: datetime, from_inbox: bool, sure_patterns: frozenset[str]) -> pl.Expr:
    """Made once for all chunks that a process checks: it is some hundred expressions."""
    return doubts(event_contract(from_inbox), now, from_inbox, sure_patterns)


class EventColumns:
    """Sorts blocks of events into certain and other ones."""

    def __init__(self, now: datetime, from_inbox: bool, renamed: Mapping[str, str]) -> None:
        self._contract = event_contract(from_inbox)
        self._now, self._from_inbox = now, from_inbox
        self._renamed = renamed
        self._lines = PlainLineReader(self._contract, renamed, MAX_RECORD_BYTES)

    @property
    def _may_break(self) -> pl.Expr:
        return _doubts(self._now, self._from_inbox, frozenset())

    @property
    def _may_break_plain(self) -> pl.Expr:
        return _doubts(self._now, self._from_inbox, frozenset({NO_CONTROL_CHARACTERS}))

    def sort(self, block: Block) -> Sorted:
        if isinstance(block, Lines | Messages):
            return self._sort_lines(block)
        if isinstance(block, Rows):
            return self._sort_rows(block)
        return self._sort_cells(block)

    def _sort_lines(self, block: Lines | Messages) -> Sorted:
        found = self._lines.read(block.data)
        keeps = ~found.frame.select(self._may_break_plain).to_series().to_numpy()
        rows = found.rows[keeps]
        offsets = block.offsets[rows] if isinstance(block, Messages) else block.offset + found.starts[rows]
        certain = _kept(found.frame, keeps).with_columns(offset=offsets)
        others = [block.record(row, *found.starts[row : row + 2].tolist()) for row in _rest(rows, len(found.starts) - 1)]
        return Sorted(certain, [record for record in others if record is not None])

    def _sort_rows(self, block: Rows) -> Sorted:
        names = block.batch.schema.names
        given = dict(zip(names, block.batch.columns, strict=True))
        frame = typed_frame(self._contract, given, self._renamed, block.batch.num_rows) if len(given) == len(names) else None
        if frame is None:
            return Sorted(_none(), block.records())
        rows, certain = self._certain(frame)
        return Sorted(certain.with_columns(offset=block.offset + rows), block.records(_rest(rows, frame.height)))

    def _sort_cells(self, block: Sequence[RawRecord]) -> Sorted:
        whole = [record for record in block if record.problem is None and record.cells is not None]
        others = [record for record in block if record.problem is not None or record.cells is None]
        frame = typed_frame(self._contract, cell_arrays([record.cells or {} for record in whole]), self._renamed, len(whole)) if whole else None
        if frame is None:
            return Sorted(_none(), list(block))
        rows, certain = self._certain(frame)
        others += [whole[row] for row in _rest(rows, len(whole))]
        return Sorted(certain.with_columns(offset=np.array([whole[row].offset for row in rows], np.int64)), others)

    def _certain(self, frame: pl.DataFrame) -> tuple[NDArray[np.int64], pl.DataFrame]:
        keeps = ~frame.select(self._may_break | pl.col("in_doubt")).to_series().to_numpy()
        return np.flatnonzero(keeps), _kept(frame, keeps).drop("in_doubt")


KEYED_COLUMNS = ("shopper_key", "key_id", "is_anonymous", "anonymous_key")


def keyed(events: pl.DataFrame, pseudonyms: Pseudonymizer) -> pl.DataFrame:
    """Events with KEYED_COLUMNS in place of their shopper's ids. Each id is keyed once. One with `consent` false keeps no link (`without_links`)."""
    refused = ~events["consent"].fill_null(True)
    if refused.any():
        events = pl.concat([events.filter(~refused), _without_links(events.filter(refused), pseudonyms)]).sort("offset", maintain_order=True)
    anonymous = events["shopper_id"].is_null()
    keys = _keys(events["shopper_id"], {name: pseudonyms.key(name) for name in events["shopper_id"].drop_nulls().unique()})
    strangers = _keys(events["anonymous_id"], {name: pseudonyms.key(name, anonymous=True) for name in events["anonymous_id"].drop_nulls().unique()})
    return events.with_columns(
        shopper_key=keys.fill_null(strangers) if anonymous.any() else keys,
        anonymous_key=pl.select(pl.when(~anonymous).then(strangers)).to_series(),
        is_anonymous=anonymous,
        key_id=pl.lit(pseudonyms.key_id, pl.String),
    ).drop("shopper_id", "anonymous_id")


def carried(events: pl.DataFrame, pseudonyms: Pseudonymizer) -> pl.DataFrame:
    """Pseudonymous events, those written while an earlier key was in use under the newest one.

    Raises:
        StorageError: one is under a key that the home does not have.
    """
    earlier = events["key_id"] != pseudonyms.key_id
    if not earlier.any():
        return events
    found = (
        events.filter(earlier).unpivot(on=["shopper_key", "anonymous_key"], index="key_id", value_name="key").drop_nulls("key").select("key", "key_id").unique()
    )
    new = {key: pseudonyms.carried(key, key_id) for key, key_id in found.iter_rows()}
    names = [pl.when(earlier).then(pl.col(name).replace(new)).otherwise(pl.col(name)).alias(name) for name in ("shopper_key", "anonymous_key")]
    return events.with_columns(*names, key_id=pl.lit(pseudonyms.key_id))


def _without_links(events: pl.DataFrame, pseudonyms: Pseudonymizer) -> pl.DataFrame:
    """`Pseudonymizer.without_links` of rows that are all without consent."""
    tokens = {
        what: _keys(events[f"{what}_id"], {name: pseudonyms.unlinked(what, name) for name in events[f"{what}_id"].drop_nulls().unique()})
        for what in ("session", "request")
    }
    none = pl.lit(None, pl.String)
    hidden = events.with_columns(shopper_id=none, anonymous_id=tokens["session"], session_id=tokens["session"], request_id=tokens["request"])
    return hidden.with_columns(none.alias(name) for name in TELLING_FIELDS)


def _keys(ids: pl.Series, keys: Mapping[str, str]) -> pl.Series:
    return ids.replace_strict(list(keys), list(keys.values()), default=None, return_dtype=pl.String)


def _rest(rows: NDArray[np.int64], num_rows: int) -> Iterable[int]:
    others = np.ones(num_rows, np.bool_)
    others[rows] = False
    return [int(row) for row in np.flatnonzero(others)]


def _kept(frame: pl.DataFrame, keeps: NDArray[np.bool_]) -> pl.DataFrame:
    return frame if keeps.all() else frame.filter(keeps)


def _none() -> pl.DataFrame:
    return pl.DataFrame()
