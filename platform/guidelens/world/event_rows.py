"""Turns simulated sessions into event records (schemas/events.py) and JSON lines. Writes what a shop's clients would know, no latent."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from guidelens.schemas.events import EventType, Gesture
from guidelens.schemas.steps import OUTCOMES, STEPS
from guidelens.world.appeal import TEXT
from guidelens.world.guide_process import CART, PURCHASE
from guidelens.world.latents import DEVICES, Ints
from guidelens.world.people import anonymous_name, session_name, shopper_name, with_delayed_purchases, with_logins
from guidelens.world.sessions import CHANNELS, Chunk, Shop
from guidelens.world.texts import query_text
from guidelens.world.trouble import malformed_line, mark_lost_ar, suspects, with_bot_clicks, with_trouble

_TYPES = [kind.value for kind in EventType]
_GESTURES = [gesture.value for gesture in Gesture]
_COLUMNS = {
    **dict.fromkeys(
        ("session", "ts", "type", "order", "product", "position", "depth", "frame", "step", "step_index", "gesture", "outcome", "value_minor", "mark"), pl.Int64
    ),
    **dict.fromkeys(("propensity", "browse_ms", "stay_ms", "view_ms", "step_propensity"), pl.Float64),
    **dict.fromkeys(("query", "frame_id"), pl.String),
    **dict.fromkeys(("in_slate", "is_kept"), pl.Boolean),
}
_DAY_US = 86_400_000_000
_SECOND_US = 1_000_000
_STEP_US = 9 * _SECOND_US


@dataclass(frozen=True)
class Words:
    """Names of rows: product ids, frame paths, what one types of a product."""

    product_ids: Sequence[str]
    frame_paths: Sequence[str]
    queries: Sequence[tuple[str, str, str, str]]


@dataclass(frozen=True)
class Log:
    """Events in the order of their file (columns of the event contract, times in us, and `malformed`), and the truth beside them by name."""

    events: pl.DataFrame
    truth: dict[str, pl.DataFrame]


def session_names(shop: Shop, chunk: Chunk) -> pl.Series:
    """(B,) session ids."""
    pairs = zip(chunk.moments.shopper.tolist(), chunk.number.tolist(), strict=True)
    return pl.Series("session_id", [session_name(shopper, number, shop.seed, shop.parameters) for shopper, number in pairs], dtype=pl.String)


def log_of(shop: Shop, chunk: Chunk, words: Words, part: int) -> Log:
    """All events of the `part`-th chunk, by session and time, as people and trouble leave them."""
    start = datetime.fromisoformat(shop.parameters.start_day).replace(tzinfo=UTC)
    start_us = int(start.timestamp()) * _SECOND_US
    at = start_us + (chunk.moments.day * _DAY_US).astype(np.int64)
    end_us = start_us + shop.num_days * _DAY_US
    blocks = [_openings(chunk, words, at), _impressions(chunk, at), *_pages(shop, chunk, at), *_guide(shop, chunk, at)]
    blocks += _returns(chunk, blocks, end_us)
    trouble, shoppers = shop.parameters.trouble, chunk.moments.shopper
    found = suspects(shop.shoppers.num, shop.seed, trouble)
    frame = pl.concat([pl.DataFrame(schema=_COLUMNS), *(block for block in blocks if len(block))], how="diagonal_relaxed")
    frame = with_bot_clicks(frame, found.is_bot[shoppers], _code(EventType.IMPRESSION), _code(EventType.CLICK))
    frame = mark_lost_ar(frame, found.is_broken[shoppers], (_code(EventType.AR_VIEW), _code(EventType.AR_GESTURE)))
    frame = frame.sort("session", "ts", "order", maintain_order=True)
    frame = frame.with_columns(event=pl.int_range(pl.len()).over("session"))
    frame = _with_session(shop, chunk, frame, words)
    names = pl.Series([shopper_name(int(row)) for row in shoppers], dtype=pl.String)
    frame, identities = with_logins(frame, names, shop.seed, part, shop.parameters)
    frame, delayed = with_delayed_purchases(frame, names, CHANNELS, shop.seed, part, end_us, shop.parameters)
    skew_us = pl.Series(found.skew_us[shoppers[frame["session"].to_numpy()]])
    frame, faults = with_trouble(frame.drop("session"), skew_us, shop.seed, part, start_us, trouble)
    truth = {"trouble": faults, "identities": identities}
    return Log(frame, truth if delayed is None else truth | {"delayed_purchases": delayed})


def _code(kind: EventType) -> int:
    return _TYPES.index(kind.value)


def _block(kind: EventType, order: int, session: Ints, ts: Ints, **columns: pl.Series | NDArray[np.generic]) -> pl.DataFrame:
    """Events of one type. order: of types at one moment."""
    frame = pl.DataFrame({"session": session.astype(np.int64), "ts": ts.astype(np.int64)})
    return frame.with_columns(
        pl.lit(_code(kind), pl.Int64).alias("type"),
        pl.lit(order, pl.Int64).alias("order"),
        *(pl.Series(name, values) for name, values in columns.items()),
    )


def _openings(chunk: Chunk, words: Words, at: Ints) -> pl.DataFrame:
    """The search that starts a session: of a frame or of a text. A scan that opens AR has its ar_open instead."""
    contexts = chunk.contexts
    opens = np.zeros(len(at), dtype=np.bool_)
    opens[chunk.ar.session[chunk.ar.is_scan]] = True
    rows = np.flatnonzero((contexts.kind != 0) & ~opens)
    queries: list[str | None] = []
    frames: list[str | None] = []
    for row in rows:
        is_text = contexts.kind[row] == TEXT
        parts = words.queries[contexts.target[row]]
        queries.append(query_text(parts, bool(contexts.with_colour[row]), bool(contexts.with_material[row]), bool(chunk.in_chinese[row])) if is_text else None)
        frames.append(None if is_text else words.frame_paths[chunk.frame[row]])
    return _block(EventType.SEARCH, 0, rows, at[rows], query=pl.Series(queries, dtype=pl.String), frame_id=pl.Series(frames, dtype=pl.String))


def _impressions(chunk: Chunk, at: Ints) -> pl.DataFrame:
    slates = chunk.slates
    num, size = slates.product.shape
    session = np.repeat(np.arange(num), size)
    browse = pl.Series(np.where(slates.examined, slates.browse_ms, np.nan).ravel()).fill_nan(None)
    return _block(
        EventType.IMPRESSION,
        1,
        session,
        at[session] + 700_000,
        product=slates.product.ravel(),
        position=np.tile(np.arange(1, size + 1), num),
        propensity=slates.propensity.ravel(),
        browse_ms=browse,
        in_slate=np.ones(num * size, dtype=np.bool_),
    )


def _pages(shop: Shop, chunk: Chunk, at: Ints) -> list[pl.DataFrame]:
    """Clicks, product pages, carts and purchases outside AR."""
    slates = chunk.slates
    session, place = np.nonzero(slates.clicked)
    product = slates.product[session, place]
    ts = at[session] + 2 * _SECOND_US + place * 1_500_000
    after = ts + (slates.stay_ms[session, place] * 1000).astype(np.int64)
    mark = np.ones(len(session), dtype=np.bool_)
    cart, bought = slates.cart[session, place], slates.bought[session, place]
    price = shop.products.price_minor[product]
    return [
        _block(EventType.CLICK, 2, session, ts, product=product, position=place + 1, in_slate=mark),
        _block(EventType.VIEW, 3, session, after, product=product, stay_ms=slates.stay_ms[session, place], depth=slates.depth[session, place], in_slate=mark),
        _block(EventType.CART, 4, session[cart], after[cart] + _SECOND_US, product=product[cart], in_slate=mark[cart]),
        _block(
            EventType.PURCHASE,
            5,
            session[bought],
            after[bought] + 20 * _SECOND_US,
            product=product[bought],
            value_minor=price[bought],
            in_slate=mark[bought],
            is_kept=mark[bought],
        ),
    ]


def _guide(shop: Shop, chunk: Chunk, at: Ints) -> list[pl.DataFrame]:
    """The AR sessions: ar_open, and for each step guide_step, ar_view, ar_gesture, step_outcome, and the cart or purchase it led to."""
    ar, log = chunk.ar, chunk.ar.log
    opened = at[ar.session] + np.where(ar.is_scan, 0, 60 * _SECOND_US)
    row, step = np.nonzero(log.steps >= 0)
    session, product = ar.session[row], ar.product[row]
    ts = at[session] + 62 * _SECOND_US + step * _STEP_US
    outcome, view, gestures = log.outcomes[row, step].astype(np.int64), log.view_ms[row, step], log.gestures[row, step].astype(np.int64)
    done = ts + 7 * _SECOND_US
    seen, carted, bought = view > 0, outcome == CART, outcome == PURCHASE
    each = np.repeat(np.arange(len(row)), gestures)
    nth = np.arange(len(each)) - np.repeat(np.cumsum(gestures) - gestures, gestures)
    gesture = (log.steps[row, step].astype(np.int64)[each] * 3 + nth) % len(_GESTURES)
    frames = chunk.frame[ar.session]
    paid = shop.products.price_minor[product] - np.round(np.asarray(shop.parameters.guide.coupon_cost)[log.coupons[row]] * shop.products.margin[product])
    return [
        _block(EventType.AR_OPEN, 0, ar.session, opened, product=ar.product, frame=np.where(ar.is_scan, frames, -1)),
        _block(
            EventType.GUIDE_STEP,
            6,
            session,
            ts,
            product=product,
            step=log.steps[row, step].astype(np.int64),
            step_index=step,
            step_propensity=log.propensity[row, step],
        ),
        _block(
            EventType.AR_VIEW, 7, session[seen], (done - 900_000)[seen], product=product[seen], step_index=step[seen], view_ms=view[seen].astype(np.float64)
        ),
        _block(EventType.AR_GESTURE, 8, session[each], ts[each] + (nth + 1) * 300_000, product=product[each], step_index=step[each], gesture=gesture),
        _block(EventType.STEP_OUTCOME, 9, session, done, product=product, step=log.steps[row, step].astype(np.int64), step_index=step, outcome=outcome),
        _block(EventType.CART, 10, session[carted], done[carted] + 200_000, product=product[carted]),
        _block(
            EventType.PURCHASE,
            11,
            session[bought],
            done[bought] + 400_000,
            product=product[bought],
            value_minor=paid[bought].astype(np.int64),
            is_kept=log.kept[row[bought]],
        ),
    ]


def _returns(chunk: Chunk, blocks: Sequence[pl.DataFrame], end_us: int) -> list[pl.DataFrame]:
    """Returns come 2 to 12 days after their purchase; those after the log's end are not in it."""
    bought = [block.filter(~pl.col("is_kept")) for block in blocks if "is_kept" in block.columns]
    lost = pl.concat(bought, how="diagonal_relaxed") if bought else pl.DataFrame()
    if len(lost) == 0:
        return []
    session = lost["session"].to_numpy()
    ts = lost["ts"].to_numpy() + ((2 + 10 * chunk.tail[session, 6]) * _DAY_US).astype(np.int64)
    known = ts < end_us
    return [
        _block(EventType.RETURN, 12, session[known], ts[known], product=lost["product"].to_numpy()[known], value_minor=lost["value_minor"].to_numpy()[known])
    ]


def _with_session(shop: Shop, chunk: Chunk, frame: pl.DataFrame, words: Words) -> pl.DataFrame:
    """Names in place of rows, and the fields all events of a session share; `session` and `mark` are still there."""
    shoppers = chunk.moments.shopper
    named = [shopper_name(int(row)) for row in shoppers]
    channels = [CHANNELS[row] for row in chunk.channel]
    who = zip(shoppers.tolist(), chunk.number.tolist(), channels, chunk.is_anonymous, strict=True)
    sessions = pl.DataFrame(
        {
            "session": np.arange(len(shoppers)),
            "session_id": session_names(shop, chunk),
            "shopper_id": pl.Series([None if hidden else name for name, hidden in zip(named, chunk.is_anonymous, strict=True)], dtype=pl.String),
            "anonymous_id": pl.Series(
                [anonymous_name(shopper, number, channel, shop.seed, shop.parameters) if hidden else None for shopper, number, channel, hidden in who],
                dtype=pl.String,
            ),
            "channel": pl.Series(channels),
            "device": pl.Series([DEVICES[row][0] for row in shop.shoppers.device[shoppers]]),
        }
    )
    frame = frame.join(sessions, on="session", how="left", maintain_order="left")
    products, frames = pl.Series(list(words.product_ids), dtype=pl.String), pl.Series(list(words.frame_paths), dtype=pl.String)
    in_frame = pl.when(pl.col("frame") >= 0).then(pl.col("frame"))
    return frame.select(
        event_id=pl.col("session_id") + "-" + pl.col("event").cast(pl.String),
        event_ts=pl.col("ts"),
        created_ts=pl.col("ts") + 250_000,
        shopper_id="shopper_id",
        anonymous_id="anonymous_id",
        session_id="session_id",
        type=_named(pl.col("type"), pl.Series(_TYPES)),
        product_id=_named(pl.col("product"), products),
        request_id=pl.when(pl.col("in_slate")).then(pl.col("session_id") + "-q"),
        position="position",
        propensity="propensity",
        browse_ms="browse_ms",
        stay_ms="stay_ms",
        depth="depth",
        view_ms="view_ms",
        gesture=_named(pl.col("gesture"), pl.Series(_GESTURES)),
        step=_named(pl.col("step"), pl.Series([step.value for step in STEPS])),
        step_index="step_index",
        step_propensity="step_propensity",
        outcome=_named(pl.col("outcome"), pl.Series([outcome.value for outcome in OUTCOMES])),
        query="query",
        frame_id=pl.coalesce("frame_id", _named(in_frame, frames)),
        value_minor="value_minor",
        channel="channel",
        device="device",
        session="session",
        mark="mark",
    )


def _named(rows: pl.Expr, names: pl.Series) -> pl.Expr:
    return rows.cast(pl.Int64).replace_strict(old=pl.int_range(len(names), eager=True), new=names, default=None, return_dtype=pl.String)


def json_lines(frame: pl.DataFrame) -> bytes:
    """One JSON object a line, without the fields that are null; lines that `malformed` marks are broken as it says."""
    parts = []
    for name, dtype in frame.drop("malformed").schema.items():
        column = pl.col(name)
        if name.endswith("_ts"):
            text = '"' + pl.from_epoch(column, time_unit="us").dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ") + '"'
        elif name == "query":
            quoted = {query: json.dumps(query, ensure_ascii=False) for query in frame["query"].drop_nulls().unique().to_list()}
            text = column.replace_strict(quoted, default=None, return_dtype=pl.String) if quoted else pl.lit(None, pl.String)
        elif dtype == pl.String:
            text = '"' + column + '"'
        else:
            text = column.cast(pl.String)
        parts.append((pl.lit(f',"{name}":') + text).fill_null(""))
    lines = frame.select(line="{" + pl.concat_str(parts).str.slice(1) + "}")["line"].to_list()
    for row in frame["malformed"].is_not_null().arg_true().to_list():
        lines[row] = malformed_line(lines[row], frame["malformed"][row])
    return ("\n".join(lines) + "\n").encode() if lines else b""


def typed_events(frame: pl.DataFrame) -> pl.DataFrame:
    """The events as Parquet holds them: times with their zone."""
    times = [pl.from_epoch(pl.col(name), time_unit="us").dt.replace_time_zone("UTC").alias(name) for name in ("event_ts", "created_ts")]
    return frame.drop("malformed").with_columns(times)
