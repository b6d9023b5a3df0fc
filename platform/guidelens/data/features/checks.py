"""Whether features are what they should be: two stores held against each other value by value, and rows against a recount.

The recount shares nothing with how rows are made (data/features/shoppers.py): it joins each row with all events of its shopper and
keeps those that may count. Quadratic in a shopper's events, so for samples.
"""

from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from guidelens.data.visits import of_the_session, whole_microseconds
from guidelens.schemas.base import Frozen
from guidelens.schemas.events import EventType
from guidelens.schemas.packed import (
    AR_COUNTS,
    AR_FEATURES,
    AR_WINDOWS_H,
    NUM_RECENT,
    PACKED_DTYPE,
    TYPE_OF_COUNT,
    WINDOW_COUNTS,
    WINDOW_FEATURES,
    WINDOWS_H,
    decode,
)

VALUES_PER_ROW = sum(int(np.prod(PACKED_DTYPE[name].shape, dtype=np.int64)) for name in PACKED_DTYPE.names or ())
_DURATIONS = ("browse_ms", "stay_ms", "view_ms")


class Comparison(Frozen):
    """values: how many (entity, time, feature) were compared, with null against null too; different: how many are not equal, by feature."""

    values: int
    different: dict[str, int]

    @property
    def equal(self) -> bool:
        return not self.different


def compared(online: Sequence[bytes | None], offline: Sequence[bytes | None]) -> Comparison:
    """Packed rows of the same entities and times, bit by bit (NaN equals NaN of the same bits); a row that one lacks differs in all its values."""
    left, left_there = decode(list(online))
    right, right_there = decode(list(offline))
    different = {name: int((_bits(left[name]) != _bits(right[name])).sum()) for name in PACKED_DTYPE.names or ()}
    different["missing_row"] = int((left_there != right_there).sum()) * VALUES_PER_ROW
    return Comparison(values=len(left) * VALUES_PER_ROW, different={name: count for name, count in different.items() if count})


def _bits(values: NDArray[np.generic]) -> NDArray[np.unsignedinteger]:
    return np.ascontiguousarray(values).view(np.dtype(f"u{values.dtype.itemsize}"))


def recounted(rows: pl.DataFrame, events: pl.DataFrame) -> Comparison:
    """The windows of rows against a plain count of what was known before them: a leak from the future and a wrong sum both show.

    An event counts where its session was over, and all of it known, before the row's time; and where it happened inside the window.

    Args:
        rows: shopper_key, event_timestamp, packed.
        events: all events of these shoppers, whenever they became known.
    """
    expected = _expected(rows.with_row_index("row"), of_the_session(events))
    packed, _ = decode(rows["packed"].to_list())
    found = np.concatenate([packed["windows"], packed["ar"]], axis=1)
    names = (*WINDOW_FEATURES, *AR_FEATURES)
    wrong = (found != expected).sum(axis=0)
    stamped = rows["event_timestamp"].dt.epoch("us").to_numpy()
    is_visit = np.arange(NUM_RECENT) < packed["num_recent"][:, None]
    ahead = int((is_visit & (packed["recent_ts_us"] >= stamped[:, None])).sum())
    misdated = int((packed["as_of_us"] != stamped).sum())
    different = {name: int(count) for name, count in zip(names, wrong, strict=True)} | {"recent_ts_us": ahead, "as_of_us": misdated}
    return Comparison(values=found.size + packed["recent_ts_us"].size + len(rows), different={name: count for name, count in different.items() if count})


def lacking_rows(rows: pl.DataFrame, events: pl.DataFrame) -> int:
    """Sessions of which no row is stamped at the moment after the last of them was known.

    Args:
        rows: shopper_key, event_timestamp: all rows of these shoppers.
        events: all of their events that were known when the rows were made.
    """
    moments = of_the_session(events).group_by("shopper_key", "session_id").agg(event_timestamp=_known().max() + timedelta(microseconds=1))
    return moments.join(rows, on=["shopper_key", "event_timestamp"], how="anti").height


def _known() -> pl.Expr:
    return pl.max_horizontal("event_ts", "created_ts")


def _expected(rows: pl.DataFrame, events: pl.DataFrame) -> NDArray[np.float32]:
    """(rows, windows and AR features)."""
    known = _known().max().over("shopper_key", "session_id")
    values = {name: whole_microseconds(name) for name in _DURATIONS} | {"depth": pl.col("depth").cast(pl.Int64).fill_null(0)}
    values |= {name: (pl.col("type") == kind).cast(pl.Int64) for name, kind in TYPE_OF_COUNT.items()}
    is_outcome = pl.col("type") == EventType.STEP_OUTCOME
    values |= {name: (is_outcome & pl.col("outcome").eq_missing(name.removeprefix("outcome_"))).cast(pl.Int64) for name in AR_COUNTS if "outcome_" in name}
    marks = events.select("shopper_key", "event_ts", all_known=known, **values)
    pairs = rows.select("row", "shopper_key", "event_timestamp").join(marks, on="shopper_key").filter(pl.col("all_known") < pl.col("event_timestamp"))
    columns = []
    for hours, names in (*((h, WINDOW_COUNTS) for h in WINDOWS_H), *((h, AR_COUNTS) for h in AR_WINDOWS_H)):
        inside = pairs.filter(pl.col("event_timestamp") - pl.col("event_ts") < timedelta(hours=hours))
        sums = inside.group_by("row").agg(pl.col(name).sum() for name in names)
        whole = rows.select("row").join(sums, on="row", how="left").sort("row").fill_null(0)
        columns += [whole[name].cast(pl.Float64).to_numpy() / (1000 if name in _DURATIONS else 1) for name in names]
    return np.stack(columns, axis=1).astype(np.float32) if columns else np.zeros((len(rows), 0), dtype=np.float32)
