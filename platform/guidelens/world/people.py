"""What people do beyond acting under one name in one place: devices, logins, second thoughts, consent. The switches of parameters.People.

Its ground truth lies in truth/: `identities` (anonymous_id, shopper_id, channel: who is behind a device's id), `delayed_purchases`
(event_id, request_id and session_id of what led to it, delay_us), both as Parquet files beside the events', and `consent.jsonl`.
"""

import hashlib
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from guidelens.world.latents import Floats, philox
from guidelens.world.parameters import WorldParameters

_HOUR_US = 3_600_000_000
_MAX_DELAY_H = 47.0
"""Below two days, the earliest return."""


def shopper_name(row: int) -> str:
    return f"s-{row:06d}"


def opaque(seed: int, kind: str, name: str) -> str:
    """An id from which `name` cannot be read."""
    return f"{kind}-{hashlib.blake2b(f'{seed}/{kind}/{name}'.encode(), digest_size=8).hexdigest()}"


def session_name(shopper: int, number: int, seed: int, parameters: WorldParameters) -> str:
    name = f"v-{shopper:06d}-{number:04d}"
    return opaque(seed, "v", name) if parameters.people.device_ids else name


def anonymous_name(shopper: int, number: int, channel: str, seed: int, parameters: WorldParameters) -> str:
    """The device's id where devices have one, else one a session."""
    return opaque(seed, "a", f"{shopper}/{channel}") if parameters.people.device_ids else f"a-{number:04d}-{shopper:06d}"


def with_logins(frame: pl.DataFrame, shopper_ids: pl.Series, seed: int, part: int, parameters: WorldParameters) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Some anonymous sessions turn known on the way; and who was behind each anonymous id.

    Args:
        frame: as the event contract, with `session` (row) and sorted by it.
        shopper_ids: (B,) who really acts in each session.
    """
    truth = frame.filter(pl.col("anonymous_id").is_not_null()).unique("session", keep="first", maintain_order=True)
    identities = truth.select("anonymous_id", shopper_id=pl.lit(shopper_ids).gather(pl.col("session")), channel="channel").unique(maintain_order=True)
    if not parameters.people.login_share:
        return frame, identities
    draws = philox(seed, "logins", part).random((len(shopper_ids), 2))
    from_event = np.where(draws[:, 0] < parameters.people.login_share, (1 + 12 * draws[:, 1]).astype(np.int64), np.iinfo(np.int64).max)
    place = pl.int_range(pl.len()).over("session")
    logged_in = pl.col("anonymous_id").is_not_null() & (place >= pl.lit(pl.Series(from_event)).gather(pl.col("session")))
    known = pl.lit(shopper_ids).gather(pl.col("session"))
    return frame.with_columns(shopper_id=pl.when(logged_in).then(known).otherwise("shopper_id")), identities


def with_delayed_purchases(
    frame: pl.DataFrame, shopper_ids: pl.Series, channels: tuple[str, ...], seed: int, part: int, end_us: int, parameters: WorldParameters
) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """Some purchases happen later, under the shopper's name in another channel and a session of their own; and what led to them (None: switched off)."""
    share = parameters.people.delayed_purchase_share
    if not share:
        return frame, None
    draws: Floats = philox(seed, "delayed purchases", part).random((len(frame), 3))
    delay = (_HOUR_US * _MAX_DELAY_H ** draws[:, 1]).astype(np.int64)
    is_late = (frame["type"] == "purchase").to_numpy() & (draws[:, 0] < share) & (frame["event_ts"].to_numpy() + delay < end_us)
    elsewhere = {channel: [other for other in channels if other != channel] for channel in channels}
    rows = np.flatnonzero(is_late)
    late = frame[rows]
    known, given = shopper_ids.to_list(), late["channel"].to_list()
    moved = late.with_columns(
        pl.Series("event_id", [opaque(seed, "e", name) for name in late["event_id"]], dtype=pl.String),
        pl.Series("session_id", [opaque(seed, "v", f"later/{name}") for name in late["event_id"]], dtype=pl.String),
        pl.Series("shopper_id", [known[row] for row in late["session"]], dtype=pl.String),
        pl.Series("channel", [elsewhere[channel][int(draw * 3)] for channel, draw in zip(given, draws[rows, 2], strict=True)], dtype=pl.String),
        event_ts=pl.col("event_ts") + pl.Series(delay[rows]),
        created_ts=pl.col("created_ts") + pl.Series(delay[rows]),
        request_id=pl.lit(None, pl.String),
        anonymous_id=pl.lit(None, pl.String),
        device=pl.lit(None, pl.String),
    )
    truth = late.select(moved["event_id"], "request_id", "session_id", delay_us=pl.Series(delay[rows], dtype=pl.Int64))
    return pl.concat([frame.filter(pl.Series(~is_late)), moved]), truth


def consent_of(num_shoppers: int, num_days: int, start: datetime, seed: int, parameters: WorldParameters) -> tuple[list[bool], dict[int, datetime]]:
    """Whether each shopper consents when the log starts, and when some of them withdraw."""
    people = parameters.people
    draws = philox(seed, "consent").random((num_shoppers, 2))
    declines = draws[:, 0] < people.declining_share
    withdraws = ~declines & (draws[:, 0] < people.declining_share + people.withdrawing_share)
    times = {int(row): start + timedelta(days=round(float(draws[row, 1]) * num_days, 6)) for row in np.flatnonzero(withdraws)}
    return [not one for one in declines.tolist()], times
