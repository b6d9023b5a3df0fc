"""What goes wrong with a log between the shopper and the lake, each fault with its ground truth: the switches of parameters.Trouble."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from guidelens.schemas.base import Frozen
from guidelens.world.latents import philox
from guidelens.world.parameters import Trouble

_HOUR_US = 3_600_000_000
_DAY_US = 24 * _HOUR_US
_BOT_GAP_US = 40_000


class TroubleTruth(Frozen):
    """truth/trouble.json: the switches, and who is a bot or has a client that loses AR events."""

    switches: Trouble
    bots: tuple[str, ...]
    broken_clients: tuple[str, ...]


@dataclass(frozen=True)
class Suspects:
    """(M,) bool over shoppers: bots, and shoppers whose client loses ar_view and ar_gesture."""

    is_bot: NDArray[np.bool_]
    is_broken: NDArray[np.bool_]


def suspects(num_shoppers: int, seed: int, trouble: Trouble) -> Suspects:
    draws = philox(seed, "suspects").random((num_shoppers, 2))
    return Suspects(draws[:, 0] < trouble.bot_shopper_share, draws[:, 1] < trouble.lost_ar_share)


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
    )
    return pl.concat([frame, clicked])


def with_trouble(frame: pl.DataFrame, seed: int, part: int, start_us: int, trouble: Trouble) -> pl.DataFrame:
    """The events of one part as they reach the shop: some known late, some twice, some wrong, some never.

    part: number of the part; its draws depend on (seed, part) only.
    """
    draws = philox(seed, "trouble", part).random((len(frame), 3))
    delay = (_HOUR_US * (1 + 40 * draws[:, 2])).astype(np.int64) * (draws[:, 0] < trouble.late_share)
    frame = frame.with_columns(created_ts=pl.col("created_ts") + pl.Series(delay))
    keep = np.ones(len(frame), dtype=np.bool_)
    since = frame["event_ts"].to_numpy() - start_us
    if trouble.outage_hour is not None:
        keep &= since // _HOUR_US != trouble.outage_hour
    if trouble.price_bug_day is not None:
        on_day = pl.Series(since // _DAY_US == trouble.price_bug_day)
        frame = frame.with_columns(value_minor=pl.when(on_day).then(pl.col("value_minor") // 100).otherwise("value_minor"))
    twice = frame.filter(pl.Series((draws[:, 1] < trouble.duplicated_share) & keep))
    return pl.concat([frame.filter(pl.Series(keep)), twice])


def without_ar_signals(frame: pl.DataFrame, broken: NDArray[np.bool_], codes: tuple[int, int]) -> pl.DataFrame:
    """Drops ar_view and ar_gesture (their codes) of sessions whose client is broken; broken: (B,) by session."""
    sessions = np.flatnonzero(broken)
    if len(sessions) == 0:
        return frame
    return frame.filter(~(pl.col("session").is_in(sessions.tolist()) & pl.col("type").is_in(list(codes))))
