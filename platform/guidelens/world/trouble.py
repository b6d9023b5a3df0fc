"""What goes wrong with a log between the shopper and the lake, each fault with its ground truth: the switches of parameters.Trouble.

The truth is a table, in truth/trouble as one Parquet file an events file, written along with it: one row for each thing wrong with
an event. event_id, session_id, fault (FAULTS), rule (the ingest's name of the rule it breaks; null where it is to be accepted) and
was (what it should have said, as text; where both times are wrong, event_ts). A lost event is there with the id it would have had. An
event that breaks a rule breaks no other and does not come twice, so quarantined = rows with a rule and duplicate = rows of
`duplicated`, exactly.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from guidelens.errors import NotFoundError
from guidelens.schemas.base import Frozen
from guidelens.world.latents import Ints, philox
from guidelens.world.parameters import Trouble

FAULTS = (
    "duplicated", "late", "bot_click", "lost_ar", "outage", "price_bug", "clock_skew", "future", "negative_dwell", "unknown_product", "malformed",
)  # fmt: skip
FAULT_SCHEMA = {"event_id": pl.String, "session_id": pl.String, "fault": pl.String, "rule": pl.String, "was": pl.String}
BOT_CLICK, LOST_AR = 1, 2
"""Marks of events that are wrong from the start; null marks are right."""

_HOUR_US = 3_600_000_000
_DAY_US = 24 * _HOUR_US
_BOT_GAP_US = 40_000
_FUTURE_US = 36_525 * _DAY_US
_MAX_BEHIND_US = 12 * _HOUR_US
_MAX_AHEAD_US = _HOUR_US * 9 // 60
"""Less than ingest tolerates (schemas/events.py)."""
_MALFORMED_RULES = ("json.invalid", "event_id.missing", "type.enum", "event_ts.timezone_aware", "session_id.string_too_short", "position.int_parsing")
_BREAKS = {
    1: ('"event_id":', '"event_uid":'),
    2: ('"type":"[a-z_]+"', '"type":"teleport"'),
    3: ('Z","created_ts"', '","created_ts"'),
    4: ('"session_id":"[^"]+"', '"session_id":""'),
    5: ('"position":[0-9]+', '"position":"first"'),
}
"""By kind, what is replaced in the line by what; kind 0 cuts the line."""


class TroubleTruth(Frozen):
    """truth/trouble.json: the switches, who is a bot, has a client that loses AR events or a wrong clock (us ahead), and how often each fault occurs."""

    switches: Trouble
    bots: tuple[str, ...]
    broken_clients: tuple[str, ...]
    skewed_clients: dict[str, int]
    counts: dict[str, int]


@dataclass(frozen=True)
class Suspects:
    """(M,) over shoppers: bots, those whose client loses ar_view and ar_gesture (bool), and how far a client's clock is ahead (int64 us)."""

    is_bot: NDArray[np.bool_]
    is_broken: NDArray[np.bool_]
    skew_us: Ints


@lru_cache(maxsize=4)
def suspects(num_shoppers: int, seed: int, trouble: Trouble) -> Suspects:
    draws = philox(seed, "suspects").random((num_shoppers, 2))
    clocks = philox(seed, "clocks").random((num_shoppers, 2))
    skew = np.where(clocks[:, 1] < 0.5, -2 * clocks[:, 1] * _MAX_BEHIND_US, (2 * clocks[:, 1] - 1) * _MAX_AHEAD_US).astype(np.int64)
    return Suspects(
        draws[:, 0] < trouble.bot_shopper_share, draws[:, 1] < trouble.lost_ar_share, np.where(clocks[:, 0] < trouble.skewed_shopper_share, skew, 0)
    )


def read_faults(world: Path) -> pl.LazyFrame:
    """The truth of a generated world's log (its root folder), one row a fault; scanned, not held.

    Raises:
        NotFoundError: `world` holds no such truth.
    """
    folder = world / "truth" / "trouble"
    if not folder.is_dir():
        raise NotFoundError(f"{world} holds no truth of its trouble (truth/trouble is missing); generate the world again")
    return pl.scan_parquet(folder / "*.parquet", schema=FAULT_SCHEMA)


def with_bot_clicks(frame: pl.DataFrame, is_bot: NDArray[np.bool_], impression: int, click: int) -> pl.DataFrame:
    """Adds a click on every impression of a bot's sessions, a blink apart. Before events get their numbers; is_bot: (B,) by session.

    Args:
        impression, click: the types' codes in the frame.
    """
    sessions = np.flatnonzero(is_bot)
    if len(sessions) == 0:
        return frame
    shown = frame.filter((pl.col("type") == impression) & pl.col("session").is_in(sessions.tolist()))
    clicked = shown.with_columns(
        type=pl.lit(click, pl.Int64),
        order=pl.lit(2, pl.Int64),
        ts=pl.col("ts") + pl.col("position") * _BOT_GAP_US,
        propensity=pl.lit(None, pl.Float64),
        browse_ms=pl.lit(None, pl.Float64),
        mark=pl.lit(BOT_CLICK, pl.Int64),
    )
    return pl.concat([frame, clicked])


def mark_lost_ar(frame: pl.DataFrame, broken: NDArray[np.bool_], codes: tuple[int, int]) -> pl.DataFrame:
    """Marks ar_view and ar_gesture (their codes) of sessions whose client is broken; broken: (B,) by session."""
    sessions = np.flatnonzero(broken)
    if len(sessions) == 0:
        return frame
    lost = pl.col("session").is_in(sessions.tolist()) & pl.col("type").is_in(list(codes))
    return frame.with_columns(mark=pl.when(lost).then(LOST_AR).otherwise("mark"))


def with_trouble(frame: pl.DataFrame, skew_us: pl.Series, seed: int, part: int, start_us: int, trouble: Trouble) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The events of one part as they reach the shop (some known late, twice, wrong or never), and the truth of it.

    Args:
        frame: as the event contract, with `mark`; times in us.
        skew_us: by row, how far the client's clock is ahead.
        part: number of the part; its draws depend on (seed, part) only.

    Returns:
        The frame with `malformed` (which rule its line is to break, null for none) in place of `mark`; and the faults, FAULT_SCHEMA.
    """
    faults = [_fault(frame.filter(pl.col("mark") == BOT_CLICK), "bot_click"), _fault(frame.filter(pl.col("mark") == LOST_AR), "lost_ar")]
    present = (frame["mark"] != LOST_AR).fill_null(True)
    frame, skew_us = frame.filter(present).drop("mark"), skew_us.filter(present)
    draws = philox(seed, "trouble", part).random((len(frame), 3))
    keep = np.ones(len(frame), dtype=np.bool_)
    since = frame["event_ts"].to_numpy() - start_us
    if trouble.outage_hour is not None:
        keep &= since // _HOUR_US != trouble.outage_hour
        faults.append(_fault(frame.filter(pl.Series(~keep)), "outage"))
    delay = (_HOUR_US * (1 + 40 * draws[:, 2])).astype(np.int64) * (draws[:, 0] < trouble.late_share)
    faults.append(_fault(frame.filter(pl.Series((delay > 0) & keep)), "late", was=_time("created_ts")))
    frame = frame.with_columns(created_ts=pl.col("created_ts") + pl.Series(delay))
    for change in (_price_bug(trouble, since), _clock_skew(skew_us)):
        frame, found = _changed(frame, keep, *change)
        faults += found
    frame, refused, found = _refused(frame, keep, philox(seed, "faults", part), trouble)
    again = frame.filter(pl.Series((draws[:, 1] < trouble.duplicated_share) & keep & ~refused))
    faults = [*faults, *found, _fault(again, "duplicated")]
    return pl.concat([frame.filter(pl.Series(keep)), again]), pl.concat(faults)


_Change = tuple[str, str, pl.Expr, pl.Expr, pl.Expr]
"""Of one fault: its name, the column it changes, where, the new value, and the old one as text."""


def _price_bug(trouble: Trouble, since: Ints) -> _Change:
    on_day = pl.Series(since // _DAY_US == trouble.price_bug_day) if trouble.price_bug_day is not None else pl.lit(False)
    where = (pl.col("type") == "purchase") & pl.col("value_minor").is_not_null() & on_day
    return "price_bug", "value_minor", where, pl.col("value_minor") // 100, pl.col("value_minor").cast(pl.String)


def _clock_skew(skew_us: pl.Series) -> _Change:
    return "clock_skew", "event_ts", pl.lit(skew_us) != 0, pl.col("event_ts") + pl.lit(skew_us), _time("event_ts")


def _changed(
    frame: pl.DataFrame, keep: NDArray[np.bool_], fault: str, column: str, where: pl.Expr, value: pl.Expr, was: pl.Expr
) -> tuple[pl.DataFrame, list[pl.DataFrame]]:
    if not frame.select(where.any()).item():
        return frame, []
    truth = _fault(frame.filter(where & pl.Series(keep)), fault, was=was)
    return frame.with_columns(pl.when(where).then(value).otherwise(column).alias(column)), [truth]


def _refused(
    frame: pl.DataFrame, keep: NDArray[np.bool_], rng: np.random.Generator, trouble: Trouble
) -> tuple[pl.DataFrame, NDArray[np.bool_], list[pl.DataFrame]]:
    """At most one of four faults an event; which rows must break a rule, and the truth."""
    shares = (trouble.future_share, trouble.negative_dwell_share, trouble.unknown_product_share, trouble.malformed_share)
    malformed = pl.lit(None, pl.Int64).alias("malformed")
    if not any(shares):
        return frame.with_columns(malformed), np.zeros(len(frame), dtype=np.bool_), []
    draws = rng.random((len(frame), 2))
    chosen: NDArray[np.int64] = np.where(keep, np.searchsorted(np.cumsum(shares), draws[:, 0], side="right"), len(shares))
    which, kind = pl.Series(chosen), pl.Series((draws[:, 1] * len(_MALFORMED_RULES)).astype(np.int64))
    dwell = pl.when(pl.col("stay_ms") > 0).then(pl.lit("stay_ms")).when(pl.col("browse_ms") > 0).then(pl.lit("browse_ms"))
    frame = frame.with_columns(_which=which, _kind=kind, _dwell=dwell)
    negative = (pl.col("_which") == 1) & pl.col("_dwell").is_not_null()
    unknown, broken = (pl.col("_which") == 2) & pl.col("product_id").is_not_null(), pl.col("_which") == 3
    faults = [
        _fault(frame.filter(pl.col("_which") == 0), "future", pl.lit("event_ts.in_future"), _time("event_ts")),
        _fault(
            frame.filter(negative),
            "negative_dwell",
            pl.col("_dwell") + ".greater_than_equal",
            pl.when(pl.col("_dwell") == "stay_ms").then("stay_ms").otherwise("browse_ms").cast(pl.String),
        ),
        _fault(frame.filter(unknown), "unknown_product", was=pl.col("product_id")),
        _fault(frame.filter(broken), "malformed", pl.col("_kind").replace_strict(dict(enumerate(_MALFORMED_RULES)), return_dtype=pl.String)),
    ]
    frame = frame.with_columns(
        **{name: pl.col(name) + pl.when(pl.col("_which") == 0).then(_FUTURE_US).otherwise(0) for name in ("event_ts", "created_ts")},
        **{name: pl.when(negative & (pl.col("_dwell") == name)).then(-pl.col(name)).otherwise(name) for name in ("stay_ms", "browse_ms")},
        product_id=pl.when(unknown).then("unlisted-" + pl.col("product_id")).otherwise("product_id"),
        malformed=pl.when(broken).then("_kind"),
    )
    refused = frame.select((pl.col("_which") == 0) | negative | broken).to_series().to_numpy()
    return frame.drop("_which", "_kind", "_dwell"), refused, faults


def malformed_line(line: str, kind: int) -> str:
    """The line of one event, breaking the rule _MALFORMED_RULES[kind] and, where it is still an object, no other."""
    if kind == 0:
        return line[: len(line) // 2]
    if kind == 5 and '"position":' not in line:
        return f'{line[:-1]},"position":"first"}}'
    pattern, wrong = _BREAKS[kind]
    return re.sub(pattern, wrong, line, count=1)


def _fault(rows: pl.DataFrame, fault: str, rule: pl.Expr | None = None, was: pl.Expr | None = None) -> pl.DataFrame:
    nothing = pl.lit(None, pl.String)
    return rows.select(
        "event_id", "session_id", fault=pl.lit(fault), rule=nothing if rule is None else rule.cast(pl.String), was=nothing if was is None else was
    )


def _time(name: str) -> pl.Expr:
    return pl.from_epoch(pl.col(name), time_unit="us").dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
