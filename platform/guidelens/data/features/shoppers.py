"""Shopper rows: what was known of a shopper from each moment on, by name and packed (schemas/packed.py).

A row becomes known one microsecond after the last event of a finished session did (the later of `event_ts` and
`created_ts`), and counts finished sessions only, so that nothing of a session reaches requests made in it. Sums are taken
over whole microseconds and whole counts: they are exact, and a shopper's row depends on no other shopper.
Knows nothing of Feast or of who reads the rows.
"""

from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from guidelens.data.visits import of_the_session, whole_microseconds
from guidelens.schemas.events import EventType
from guidelens.schemas.ids import stable_hash
from guidelens.schemas.packed import (
    AR_COUNTS,
    AR_FEATURES,
    AR_WINDOWS_H,
    NUM_RECENT,
    PACKED_DTYPE,
    PACKED_SCHEMA_VERSION,
    PROFILE_FIELDS,
    PROFILE_VALUES,
    RECENT_VALUES,
    TYPE_OF_COUNT,
    WINDOW_COUNTS,
    WINDOW_FEATURES,
    WINDOWS_H,
)

ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)
"""The stamp of a profile whose shopper has no created_ts: known at any time."""

_MICROSECONDS_PER_DAY = 86_400_000_000
_DURATIONS = frozenset({"browse_ms", "stay_ms", "view_ms"})
_SUMMED = (*WINDOW_COUNTS, *AR_COUNTS)
_KEY = ["shopper_key", "event_timestamp"]


class Resumed(NamedTuple):
    """What stands for the part of a log that is not read again, so that only the rows from a moment on are made.

    since: shopper_key, since; rows stamped before are not made. Shoppers it does not name get no row.
    sessions: all sessions (`sessions_of`) of these shoppers, in the log as it is now.
    recent: shopper_key and the recent_* lists of each shopper's newest row before `since`, where it has one.
    """

    since: pl.DataFrame
    sessions: pl.DataFrame
    recent: pl.DataFrame


def needed_since(since: pl.DataFrame, sessions: pl.DataFrame) -> pl.DataFrame:
    """shopper_key, needed_ts: the rows from `since` on (shopper_key, since) depend on no event that happened before needed_ts.

    The longest window reaches back from the first row; the visits of a session that is over after it need the whole session.
    """
    open_then = sessions.join(since, on="shopper_key").filter(pl.col("known_from") >= pl.col("since")).group_by("shopper_key").agg(pl.col("start_ts").min())
    reach = pl.col("since") - pl.duration(hours=max(*WINDOWS_H, *AR_WINDOWS_H))
    return since.join(open_then, on="shopper_key", how="left").select("shopper_key", pl.min_horizontal(reach, "start_ts").alias("needed_ts"))


def shopper_rows(visits: pl.DataFrame, events: pl.DataFrame, shoppers: pl.DataFrame, resumed: Resumed | None = None) -> pl.DataFrame:
    """One row a shopper and moment from which more is known: at `created_ts` (the profile alone) and after each session.

    Shoppers who declined (`consent` is False) get no row. Linear in events, but for sessions that overlap others of their
    shopper and last longer than a window.

    Args:
        visits: `data.visits.visits(events)`.
        events: the lake's events; rows not to be known yet must be left out.
        shoppers: the lake's shoppers.
        resumed: makes the newer rows only, the same to the bit; then `events` (and their visits) may lack what happened
            before `needed_since`.

    Returns:
        shopper_key, event_timestamp (UTC microseconds; the row is known from it on), the profile's fields and values, the
        window and AR sums (float32), recent_* lists (newest first, at most NUM_RECENT) and `packed` (the same numbers in
        PACKED_DTYPE's bytes). Sorted by (shopper_key, event_timestamp), which is unique.
    """
    refusing = declined(shoppers).implode()
    events = of_the_session(events).filter(~pl.col("shopper_key").is_in(refusing))
    shoppers = shoppers.filter(~pl.col("shopper_key").is_in(refusing))
    if resumed is not None:
        known = pl.col("shopper_key").is_in(resumed.since["shopper_key"].implode())
        events, shoppers = events.filter(known), shoppers.filter(known)
    sessions = _numbered(sessions_of(events) if resumed is None else resumed.sessions.filter(~pl.col("shopper_key").is_in(refusing)))
    rows = _moments(sessions, shoppers, resumed)
    sums = _window_sums(rows, events, sessions)
    packed = np.zeros(len(rows), dtype=PACKED_DTYPE)
    packed["version"] = PACKED_SCHEMA_VERSION
    packed["as_of_us"] = rows["event_timestamp"].dt.epoch("us").to_numpy()
    packed["windows"] = sums.select(WINDOW_FEATURES).to_numpy()
    packed["ar"] = sums.select(AR_FEATURES).to_numpy()
    profiles = _profiles(rows, shoppers)
    _pack_profiles(packed, profiles)
    recent = _pack_recent(packed, rows, _seen(visits, sessions, resumed))
    return pl.concat([profiles, sums, recent, _bytes_column(packed)], how="horizontal")


def declined(shoppers: pl.DataFrame) -> pl.Series:
    """The shopper_key of those who refused consent; where it is not said, nobody did."""
    return shoppers.filter(~pl.col("consent").fill_null(True))["shopper_key"]


def known_ts() -> pl.Expr:
    """When an event was known: the later of when it happened and when it came in."""
    return pl.max_horizontal("event_ts", "created_ts")


def sessions_of(events: pl.DataFrame) -> pl.DataFrame:
    """shopper_key, session_id, start_ts, known_from of each session; `events` as `of_the_session` leaves them."""
    return events.group_by("shopper_key", "session_id").agg(
        pl.col("event_ts").min().alias("start_ts"),
        (known_ts().max() + pl.duration(microseconds=1)).alias("known_from"),
    )


def _numbered(sessions: pl.DataFrame) -> pl.DataFrame:
    """With numbers `session` and `who` (of the shopper)."""
    return sessions.with_row_index("session").with_columns(pl.col("shopper_key").rank("dense").alias("who"))


def _moments(sessions: pl.DataFrame, shoppers: pl.DataFrame, resumed: Resumed | None) -> pl.DataFrame:
    """The (shopper_key, event_timestamp) that get a row, sorted, with their number `row`."""
    after_sessions = sessions.select("shopper_key", pl.col("known_from").alias("event_timestamp"))
    profiles = shoppers.select("shopper_key", pl.col("created_ts").fill_null(ALWAYS).alias("event_timestamp"))
    moments = pl.concat([after_sessions, profiles]).unique()
    if resumed is not None:
        moments = moments.join(resumed.since, on="shopper_key").filter(pl.col("event_timestamp") >= pl.col("since")).drop("since")
    return moments.sort(_KEY).with_row_index("row")


def _marks(events: pl.DataFrame, sessions: pl.DataFrame) -> pl.DataFrame:
    """Each event's contribution to the sums, in whole counts and microseconds, with its session's number and known_from."""
    is_outcome = pl.col("type") == EventType.STEP_OUTCOME
    contributions: dict[str, pl.Expr] = {name: whole_microseconds(name) for name in _DURATIONS}
    contributions["depth"] = pl.col("depth").cast(pl.Int64).fill_null(0)
    contributions |= {name: (pl.col("type") == kind).cast(pl.Int64) for name, kind in TYPE_OF_COUNT.items()}
    contributions |= {
        name: (is_outcome & (pl.col("outcome") == name.removeprefix("outcome_"))).fill_null(False).cast(pl.Int64)
        for name in AR_COUNTS
        if name.startswith("outcome_")
    }
    marks = events.select("shopper_key", "session_id", "event_ts", *(contributions[name].alias(name) for name in _SUMMED))
    numbered = sessions.select("shopper_key", "session_id", "who", "session", "known_from")
    return marks.join(numbered, on=["shopper_key", "session_id"], how="left").drop("shopper_key", "session_id")


def _window_sums(rows: pl.DataFrame, events: pl.DataFrame, sessions: pl.DataFrame) -> pl.DataFrame:
    """Sums over (as_of - h, as_of] of the finished sessions' events, as float32, one column a window and count.

    All known by as_of, less those that happened up to as_of - h, but for those of the latter not known by as_of.
    """
    whose = sessions.select("shopper_key", "who").unique()
    asked = rows.join(whose, on="shopper_key", how="left").select("row", "who", at="event_timestamp").sort("row")
    marks = _marks(events, sessions)
    known = _sums_up_to(asked, _running(marks, "known_from", ["who"]), ["who"])
    happened = _running(marks, "event_ts", ["who"])
    columns: list[pl.Series] = []
    for hours in sorted({*WINDOWS_H, *AR_WINDOWS_H}):
        names = (*(WINDOW_COUNTS if hours in WINDOWS_H else ()), *(AR_COUNTS if hours in AR_WINDOWS_H else ()))
        before = _sums_up_to(asked.with_columns(pl.col("at") - pl.duration(hours=hours)), happened, ["who"])
        not_yet = _unfinished_sums(asked, marks, sessions, hours)
        for name in names:
            total = known[name] - before[name] + not_yet[name]
            scaled = total.cast(pl.Float64) / 1000 if name in _DURATIONS else total
            columns.append(scaled.cast(pl.Float32).alias(f"{name}_{hours}h"))
    return pl.DataFrame(columns).select(*WINDOW_FEATURES, *AR_FEATURES)


def _running(marks: pl.DataFrame, time: str, by: list[str]) -> pl.DataFrame:
    """Sums of each group's marks up to and with each of its times, in the order of time."""
    totals = marks.group_by(*by, time).agg(pl.col(name).sum() for name in _SUMMED).sort(time)
    return totals.select(*by, pl.col(time).alias("time"), *(pl.col(name).cum_sum().over(by) for name in _SUMMED))


def _sums_up_to(asked: pl.DataFrame, running: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    """For each row of `asked` (in its order), the running sums of its group at `at`; 0 before the first."""
    found = asked.sort("at").join_asof(running, left_on="at", right_on="time", by=by, strategy="backward", check_sortedness=False)
    return found.sort("row").select(pl.col(name).fill_null(0) for name in _SUMMED)


def _unfinished_sums(asked: pl.DataFrame, marks: pl.DataFrame, sessions: pl.DataFrame, hours: int) -> pl.DataFrame:
    """For each row, the sums of marks that happened up to at - h in sessions that at `at` were not finished yet."""
    window = pl.duration(hours=hours)
    long = sessions.filter(pl.col("known_from") - pl.col("start_ts") > window)
    pairs = asked.join(long, on="who", how="inner").filter((pl.col("at") - window >= pl.col("start_ts")) & (pl.col("at") < pl.col("known_from")))
    starts = pairs.select("session", pl.col("at") - window, pl.int_range(pl.len()).alias("row"), pl.col("row").alias("of"))
    running = _running(marks.join(long.select("session"), on="session", how="semi"), "event_ts", ["session"])
    per_pair = pl.concat([starts.select("of"), _sums_up_to(starts, running, ["session"])], how="horizontal")
    per_row = per_pair.group_by("of").agg(pl.col(name).sum() for name in _SUMMED)
    found = asked.select("row").join(per_row, left_on="row", right_on="of", how="left").sort("row")
    return found.select(pl.col(name).fill_null(0) for name in _SUMMED)


def _profiles(rows: pl.DataFrame, shoppers: pl.DataFrame) -> pl.DataFrame:
    """shopper_key, event_timestamp and the profile by name; null where missing."""
    known = shoppers.select("shopper_key", *PROFILE_FIELDS, pl.col("height_cm").cast(pl.Float32), "created_ts").unique("shopper_key", keep="last")
    tenure = (pl.col("event_timestamp") - pl.col("created_ts")).dt.total_microseconds() / _MICROSECONDS_PER_DAY
    joined = rows.join(known, on="shopper_key", how="left").sort("row")
    return joined.select(*_KEY, *PROFILE_FIELDS, "height_cm", pl.when(tenure >= 0).then(tenure).cast(pl.Float32).alias("tenure_days"))


def _pack_profiles(packed: NDArray[np.void], profiles: pl.DataFrame) -> None:
    for k, name in enumerate(PROFILE_FIELDS):
        packed["profile_ids"][:, k] = _hashes(profiles[name])
    for k, name in enumerate(PROFILE_VALUES):
        packed["profile_values"][:, k] = profiles[name].fill_null(float("nan")).to_numpy()


def _hashes(texts: pl.Series) -> NDArray[np.int64]:
    """`stable_hash` of each text, 0 where missing; each distinct text is hashed once."""
    distinct = texts.unique().drop_nulls().to_list()
    hashes = texts.replace_strict(distinct, [stable_hash(text) for text in distinct], default=None, return_dtype=pl.Int64)
    found: NDArray[np.int64] = hashes.fill_null(0).to_numpy()
    return found


def _seen(visits: pl.DataFrame, sessions: pl.DataFrame, resumed: Resumed | None) -> pl.DataFrame:
    """The visits that count as recent ones, in each shopper's order: shopper_key, known_from, product_id, visit_ts, RECENT_VALUES (float32).

    A product merely browsed in a list is no recent visit: it counts in the windows, and would crowd out the rest.
    """
    gone_into = pl.any_horizontal(pl.col(name) > 0 for name in RECENT_VALUES if name != "browse_ms")
    order = ["shopper_key", "known_from", "visit_ts", "session_id", "product_id"]
    seen = visits.filter(gone_into).join(sessions, on=["shopper_key", "session_id"], how="inner")
    if resumed is not None:
        seen = seen.join(resumed.since, on="shopper_key").filter(pl.col("known_from") >= pl.col("since"))
    values = [pl.col(name).cast(pl.Float32) for name in RECENT_VALUES]
    seen = seen.sort(order).select("shopper_key", "known_from", "product_id", "visit_ts", *values)
    if resumed is None:
        return seen
    return pl.concat([_seen_before(resumed.recent).select(seen.columns).cast(seen.schema), seen]).sort("shopper_key", maintain_order=True)


def _seen_before(recent: pl.DataFrame) -> pl.DataFrame:
    """The visits in lists of recent ones, the oldest first, as known before any row that is made."""
    lists = ["recent_products", "recent_ts_us", *(f"recent_{name}" for name in RECENT_VALUES)]
    held = recent.filter(pl.col("recent_products").list.len() > 0).select("shopper_key", *(pl.col(name).list.reverse() for name in lists)).explode(lists)
    names = {"recent_products": "product_id"} | {f"recent_{name}": name for name in RECENT_VALUES}
    long_ago, visited = pl.lit(datetime(1, 1, 1, tzinfo=UTC)), pl.from_epoch("recent_ts_us", "us").dt.replace_time_zone("UTC")
    return held.rename(names).with_columns(known_from=long_ago, visit_ts=visited)


def _pack_recent(packed: NDArray[np.void], rows: pl.DataFrame, seen: pl.DataFrame) -> pl.DataFrame:
    """Fills in each row's newest visits of finished sessions; returns them as lists by name."""
    seen = seen.with_columns(pl.int_range(1, pl.len() + 1).over("shopper_key").alias("nth")).with_row_index("visit")
    newest = seen.unique(["shopper_key", "known_from"], keep="last", maintain_order=True).sort("known_from").select("shopper_key", "known_from", "nth", "visit")
    found = rows.sort("event_timestamp").join_asof(
        newest, left_on="event_timestamp", right_on="known_from", by="shopper_key", strategy="backward", check_sortedness=False
    )
    found = found.sort("row")
    counts = found["nth"].fill_null(0).clip(upper_bound=NUM_RECENT).to_numpy()
    back = np.arange(NUM_RECENT)
    there = back < counts[:, None]
    taken = np.where(there, found["visit"].fill_null(0).cast(pl.Int64).to_numpy()[:, None] - back, 0)
    packed["num_recent"] = counts
    flat = seen[taken[there]] if len(seen) else seen
    packed["recent_products"][there] = _hashes(flat["product_id"])
    packed["recent_ts_us"][there] = flat["visit_ts"].dt.epoch("us").to_numpy()
    for k, name in enumerate(RECENT_VALUES):
        packed["recent_values"][..., k][there] = flat[name].to_numpy()
    return _recent_lists(flat, counts)


def _recent_lists(flat: pl.DataFrame, counts: NDArray[np.int64]) -> pl.DataFrame:
    """Lists of `counts` visits a row, out of the visits of all rows one after the other."""
    columns = {"recent_products": flat["product_id"], "recent_ts_us": flat["visit_ts"].dt.epoch("us")}
    columns |= {f"recent_{name}": flat[name] for name in RECENT_VALUES}
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), type=pa.int64())
    lists = {name: pa.LargeListArray.from_arrays(offsets, values.to_arrow()) for name, values in columns.items()}
    frame = pl.from_arrow(pa.table(lists))
    assert isinstance(frame, pl.DataFrame)
    return frame


def _bytes_column(packed: NDArray[np.void]) -> pl.DataFrame:
    """The structured array as one binary column `packed`."""
    offsets = np.arange(len(packed) + 1, dtype=np.int64) * PACKED_DTYPE.itemsize
    values = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(packed), [None, pa.py_buffer(offsets), pa.py_buffer(packed.tobytes())])
    frame = pl.from_arrow(pa.table({"packed": values}))
    assert isinstance(frame, pl.DataFrame)
    return frame
