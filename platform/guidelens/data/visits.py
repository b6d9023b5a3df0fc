"""What the log says, put into rows: visits, slate requests with their labels, and guide plans. Formulae: docs/labels.md.

Pure polars: events in (the lake's, as `data.sessions` puts them: by person and session), frames out. Knows nothing of models, features or splits.
"""

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from guidelens.data.sessions import AFTERWARDS, EVENT_ORDER
from guidelens.schemas.base import Frozen
from guidelens.schemas.events import EventType
from guidelens.schemas.steps import OUTCOME_INDEX, STEP_INDEX, UNKNOWN_OUTCOME

INTEREST_WEIGHTS = (0.4, 0.3, 0.2, 0.1)
SECONDS_PER_HOUR = 3600

_SESSION = ("shopper_key", "session_id")
_CLIENT_SESSION = ("shopper_key", "client_session_id")
_VISIT = (*_SESSION, "product_id")
_ASKED = ("session_id", "client_session_id", "shopper_key", "asked_as")
_AR_TYPES = (EventType.AR_VIEW, EventType.AR_GESTURE, EventType.GUIDE_STEP, EventType.STEP_OUTCOME)
_OWN_CONTEXT = ("frame_id", "query")
OBSERVED = ("browse_ms", "stay_ms", "depth", "view_ms")
_DONE = ("carts", "gestures")


class InterestMedians(Frozen):
    """Medians of the non-zero browse time (ms), page stay (ms), depth and AR view time (ms) of visits; None where there was none."""

    p50: float | None = None
    s50: float | None = None
    l50: float | None = None
    t50: float | None = None


class _Steps(NamedTuple):
    """Guide steps in order, and the moments that belong to them."""

    steps: pl.DataFrame
    moments: pl.DataFrame


def in_order(events: pl.DataFrame) -> pl.DataFrame:
    """Events by (event_ts, created_ts, event_id): the one order ties are decided by."""
    return events.sort(EVENT_ORDER)


def of_the_session(events: pl.DataFrame) -> pl.DataFrame:
    """Without what comes days after a session under its id: returns and feedback. They end no session and make no visit."""
    return events.filter(~pl.col("type").is_in(list(AFTERWARDS)))


def with_products_in_view(events: pl.DataFrame) -> pl.DataFrame:
    """AR events that name no product get the one their client's newest `ar_open` at or before them named. In order."""
    opened = pl.when(pl.col("type") == EventType.AR_OPEN).then(pl.col("product_id"))
    in_view = opened.forward_fill().over(_CLIENT_SESSION)
    is_ar = pl.col("type").is_in(list(_AR_TYPES))
    return in_order(events).with_columns(pl.when(is_ar & pl.col("product_id").is_null()).then(in_view).otherwise(pl.col("product_id")).alias("product_id"))


def visits(events: pl.DataFrame) -> pl.DataFrame:
    """One row a (shopper, session, product) in which anything was observed beyond that the product was shown.

    Durations, depth and counts are sums over the visit's events; `visit_ts` is its last event. Sorted by (visit_ts,
    shopper_key, session_id, product_id).

    Returns:
        session_id, shopper_key, product_id, visit_ts, browse_ms, stay_ms, view_ms (float64 ms), depth,
        clicks, carts, purchases, gestures (int64).
    """
    counts = {"clicks": EventType.CLICK, "carts": EventType.CART, "purchases": EventType.PURCHASE, "gestures": EventType.AR_GESTURE}
    summed = (
        with_products_in_view(of_the_session(events))
        .filter(pl.col("product_id").is_not_null())
        .group_by(_VISIT)
        .agg(
            pl.col("event_ts").max().alias("visit_ts"),
            *(_exact_sum(name) for name in ("browse_ms", "stay_ms")),
            pl.col("depth").cast(pl.Int64).sum(),
            _exact_sum("view_ms"),
            *((pl.col("type") == kind).sum().cast(pl.Int64).alias(name) for name, kind in counts.items()),
        )
    )
    observed = pl.any_horizontal(pl.col(name) > 0 for name in (*OBSERVED, *counts))
    columns = ["session_id", "shopper_key", "product_id", "visit_ts", "browse_ms", "stay_ms", "depth", "view_ms", *counts]
    return summed.filter(observed).select(columns).sort("visit_ts", *_VISIT)


def _exact_sum(name: str) -> pl.Expr:
    """Sum of milliseconds, exact to the microsecond whatever the order of the rows."""
    return whole_microseconds(name).sum().truediv(1000).alias(name)


def whole_microseconds(name: str) -> pl.Expr:
    """A column of milliseconds as int64 microseconds, 0 where missing: sums of it do not depend on the order of rows."""
    return (pl.col(name) * 1000).round().cast(pl.Int64).fill_null(0)


def interest_medians(visits: pl.DataFrame) -> InterestMedians:
    """Medians of the non-zero values of the visits given: those of the training part only, kept in the bundle."""
    found = [visits[name].cast(pl.Float64).filter(visits[name] > 0).median() for name in OBSERVED]
    p50, s50, l50, t50 = (float(value) if isinstance(value, float) else None for value in found)
    return InterestMedians(p50=p50, s50=s50, l50=l50, t50=t50)


def interest(
    browse_ms: ArrayLike,
    stay_ms: ArrayLike,
    depth: ArrayLike,
    view_ms: ArrayLike,
    medians: InterestMedians,
    weights: tuple[float, float, float, float] = INTEREST_WEIGHTS,
) -> NDArray[np.float32]:
    """The T2 target: 1 - exp(-(w0 p/p50 + w1 s/s50 + w2 l/l50 + w3 t/t50)), elementwise, in [0, 1].

    A term whose median is missing counts 0, and so does a missing (NaN) value.
    """
    halves = (medians.p50, medians.s50, medians.l50, medians.t50)
    values = (browse_ms, stay_ms, depth, view_ms)
    total: NDArray[np.float64] = np.zeros(np.shape(np.asarray(browse_ms)), dtype=np.float64)
    for value, half, weight in zip(values, halves, weights, strict=True):
        if half is not None:
            total = total + weight * np.nan_to_num(np.asarray(value, dtype=np.float64)) / half
    return (-np.expm1(-total)).astype(np.float32)


def kept_purchases(events: pl.DataFrame) -> pl.DataFrame:
    """The purchase events that no return took back; a return takes back its shopper's newest still standing purchase of the product."""
    key = ["shopper_key", "product_id"]
    trades = in_order(events.filter(pl.col("type").is_in([EventType.PURCHASE, EventType.RETURN])))
    bought = trades.filter(pl.col("type") == EventType.PURCHASE)
    with_returns = trades.join(trades.filter(pl.col("type") == EventType.RETURN).select(key).unique(), on=key, how="semi")
    standing: dict[tuple[str, str], list[str]] = {}
    returned: list[str] = []
    for shopper_key, product_id, kind, event_id in with_returns.select(*key, "type", "event_id").iter_rows():
        stack = standing.setdefault((shopper_key, product_id), [])
        if kind == EventType.PURCHASE:
            stack.append(event_id)
        elif stack:
            returned.append(stack.pop())
    return bought.filter(~pl.col("event_id").is_in(returned))


def requests(events: pl.DataFrame, purchase_window_h: float = 24.0) -> pl.DataFrame:
    """One row a slate: what was known when it was asked for, what was shown, and what came of it.

    A slate is the impressions of one request_id; impressions without one form a slate where they share session and time.
    Context (frame_id, query, focus_product_id) is what the impressions themselves tell, else the newest that the session's
    `search` and `ar_open` events at or before request_ts told. List columns run by position and have one length K; a product shown twice counts once.

    Returns:
        request_id, session_id, client_session_id, shopper_key, asked_as, request_ts, channel, device, frame_id, query, focus_product_id
        and lists slate_product_id, position, propensity (NaN where not logged), click, purchase (bool), browse_ms,
        stay_ms, depth, view_ms, carts, gestures (of the session and product), interest_observed (bool). Sorted by (request_ts, request_id).
    """
    shown = _shown(events)
    shown = shown.join(_clicked(events, shown), on=["request_id", "product_id"], how="left").with_columns(pl.col("click").fill_null(False))
    shown = shown.join(_bought(events, shown, purchase_window_h), on=["request_id", "product_id"], how="left").with_columns(pl.col("purchase").fill_null(False))
    seen = visits(events).select(*_VISIT, *OBSERVED, *_DONE)
    shown = shown.join(seen, on=_VISIT, how="left").with_columns(pl.col(name).fill_null(0) for name in (*OBSERVED, *_DONE))
    shown = shown.with_columns(pl.any_horizontal(pl.col(name) > 0 for name in OBSERVED).alias("interest_observed"))
    per_item = ["product_id", "position", "propensity", "click", "purchase", *OBSERVED, *_DONE, "interest_observed"]
    slates = (
        shown.sort("request_id", "position", "product_id")
        .group_by("request_id", maintain_order=True)
        .agg(
            *(pl.col(name).first() for name in (*_ASKED, "request_ts")),
            *(pl.col(name).drop_nulls().first() for name in ("channel", "device", *_OWN_CONTEXT)),
            *(pl.col(name) for name in per_item),
        )
        .rename({"product_id": "slate_product_id"})
    )
    order = ["request_id", *_ASKED, "request_ts", "channel", "device", "frame_id", "query", "focus_product_id"]
    lists = ["slate_product_id", *per_item[1:]]
    return _with_context(slates, events).select(*order, *lists).sort("request_ts", "request_id")


def _shown(events: pl.DataFrame) -> pl.DataFrame:
    """One row a (request, product): its best position, and the request's time."""
    made_up = pl.format("{}@{}", "session_id", pl.col("event_ts").dt.epoch("us"))
    shown = in_order(events.filter(pl.col("type") == EventType.IMPRESSION)).with_columns(
        pl.coalesce("request_id", made_up).alias("request_id"),
        pl.col("propensity").fill_null(float("nan")),
    )
    columns = [*_ASKED, "product_id", "request_id", "position", "propensity", "channel", "device", *_OWN_CONTEXT]
    return (
        shown.with_columns(pl.col("event_ts").min().over("request_id").alias("request_ts"))
        .sort("request_id", "position", *EVENT_ORDER)
        .unique(["request_id", "product_id"], keep="first", maintain_order=True)
        .select(*columns, "request_ts")
    )


def _clicked(events: pl.DataFrame, shown: pl.DataFrame) -> pl.DataFrame:
    """(request_id, product_id) of clicks: by their request_id, else the session's newest slate that showed the product before."""
    clicks = events.filter((pl.col("type") == EventType.CLICK) & pl.col("product_id").is_not_null())
    named = clicks.filter(pl.col("request_id").is_not_null()).select("request_id", "product_id")
    unnamed = clicks.filter(pl.col("request_id").is_null()).select(*_VISIT, "event_ts").sort("event_ts")
    slates = shown.select(*_VISIT, "request_id", "request_ts").sort("request_ts", "request_id")
    found = unnamed.join_asof(slates, left_on="event_ts", right_on="request_ts", by=list(_VISIT), strategy="backward", check_sortedness=False)
    pairs = pl.concat([named, found.select("request_id", "product_id").drop_nulls()])
    return pairs.unique().with_columns(pl.lit(True).alias("click"))


def _bought(events: pl.DataFrame, shown: pl.DataFrame, window_h: float) -> pl.DataFrame:
    """(request_id, product_id) of kept purchases, each counted for one slate shown to its shopper in the window before it.

    The slate it names, else the newest one clicked, else the newest.
    """
    window = pl.duration(seconds=round(window_h * SECONDS_PER_HOUR))
    bought = kept_purchases(events).select("shopper_key", "product_id", "event_id", "event_ts", pl.col("request_id").alias("named"))
    pairs = bought.join(shown.select("shopper_key", "product_id", "request_id", "request_ts", "click"), on=["shopper_key", "product_id"], how="inner").filter(
        (pl.col("event_ts") >= pl.col("request_ts")) & (pl.col("event_ts") <= pl.col("request_ts") + window)
    )
    is_named = (pl.col("named") == pl.col("request_id")).fill_null(False).alias("is_named")
    best = pairs.with_columns(is_named).sort("is_named", "click", "request_ts", "request_id").unique("event_id", keep="last", maintain_order=True)
    return best.select("request_id", "product_id").unique().with_columns(pl.lit(True).alias("purchase"))


def _with_context(slates: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """Slates with the newest frame, query and product in focus that their session told at or before request_ts."""
    is_open = pl.col("type") == EventType.AR_OPEN
    starts = in_order(events.filter(pl.col("type").is_in([EventType.SEARCH, EventType.AR_OPEN]))).with_columns(
        pl.when(is_open).then(pl.col("product_id")).alias("focus_product_id")
    )
    told = starts.select(
        *_CLIENT_SESSION, "event_ts", *(pl.col(name).forward_fill().over(_CLIENT_SESSION) for name in ("frame_id", "query", "focus_product_id"))
    )
    told = told.unique([*_CLIENT_SESSION, "event_ts"], keep="last", maintain_order=True).sort("event_ts")
    asked = slates.sort("request_ts").rename({name: f"own_{name}" for name in _OWN_CONTEXT})
    found = asked.join_asof(told, left_on="request_ts", right_on="event_ts", by=list(_CLIENT_SESSION), strategy="backward", check_sortedness=False)
    return found.with_columns(pl.coalesce(f"own_{name}", name).alias(name) for name in _OWN_CONTEXT)


def plans(events: pl.DataFrame) -> pl.DataFrame:
    """One row a client session with guide steps: the plan as it was carried out, from step 0 up to the first gap.

    Returns:
        session_id, client_session_id, shopper_key, asked_as, plan_ts (first step), device, product_id, lists steps, outcomes (int8 indices of
        schemas/steps.py; UNKNOWN_OUTCOME where none came), step_propensity (NaN where not logged), view_ms (float64),
        gestures (int64), and value_minor (int64: kept purchases,
        see `_earned`). Sorted by (plan_ts, client_session_id).
    """
    found = _steps_and_moments(with_products_in_view(events))
    per_step = found.moments.group_by(*_CLIENT_SESSION, "step_index").agg(
        _exact_sum("view_ms"),
        (pl.col("type") == EventType.AR_GESTURE).sum().cast(pl.Int64).alias("gestures"),
        pl.col("outcome").drop_nulls().last(),
    )
    steps = found.steps.join(per_step, on=[*_CLIENT_SESSION, "step_index"], how="left").with_columns(
        pl.col("step").replace_strict(STEP_INDEX, return_dtype=pl.Int8).alias("steps"),
        pl.col("outcome").replace_strict(OUTCOME_INDEX, default=UNKNOWN_OUTCOME, return_dtype=pl.Int8).fill_null(UNKNOWN_OUTCOME).alias("outcomes"),
        pl.col("step_propensity").fill_null(float("nan")),
        pl.col("view_ms").fill_null(0.0),
        pl.col("gestures").fill_null(0),
    )
    listed = ("steps", "outcomes", "step_propensity", "view_ms", "gestures")
    rows = (
        steps.sort(*_CLIENT_SESSION, "step_index")
        .group_by(_CLIENT_SESSION, maintain_order=True)
        .agg(
            *(pl.col(name).first() for name in ("session_id", "asked_as")),
            pl.col("event_ts").first().alias("plan_ts"),
            *(pl.col(name).drop_nulls().first() for name in ("device", "product_id")),
            *(pl.col(name) for name in listed),
        )
    )
    rows = rows.join(_earned(rows, events), on=_CLIENT_SESSION, how="left").with_columns(pl.col("value_minor").fill_null(0))
    columns = [*_ASKED, "plan_ts", "device", "product_id", *listed, "value_minor"]
    return rows.select(columns).sort("plan_ts", "client_session_id")


def _earned(plans: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """Sum of the kept purchases of each plan: those of its session, on any device, from it to the next plan; the first has those before it too."""
    begun = plans.select(*_SESSION, "client_session_id", "plan_ts").sort("plan_ts", "client_session_id")
    bought = kept_purchases(events).select(*_SESSION, "event_ts", "value_minor").sort("event_ts")
    sides = [
        bought.join_asof(begun, left_on="event_ts", right_on="plan_ts", by=list(_SESSION), strategy=side, check_sortedness=False)["client_session_id"]
        for side in ("backward", "forward")
    ]
    of_plan = bought.with_columns(client_session_id=sides[0].fill_null(sides[1])).drop_nulls("client_session_id")
    return of_plan.group_by(_CLIENT_SESSION).agg(pl.col("value_minor").sum())


def _steps_and_moments(events: pl.DataFrame) -> _Steps:
    """The first event of each step index, up to the first gap; and every other AR event with the step it belongs to.

    An AR event belongs to the step it names, else to the session's newest step at or before it.
    """
    steps = (
        events.filter(pl.col("type") == EventType.GUIDE_STEP)
        .unique([*_CLIENT_SESSION, "step_index"], keep="first", maintain_order=True)
        .sort(*_CLIENT_SESSION, "step_index", maintain_order=True)
        .filter(pl.col("step_index") == pl.int_range(pl.len()).over(_CLIENT_SESSION))
        .select(*_CLIENT_SESSION, "session_id", "asked_as", "step_index", "event_ts", "device", "product_id", "step", "step_propensity")
    )
    others = events.filter((pl.col("type") != EventType.GUIDE_STEP) & (pl.col("view_ms").is_not_null() | pl.col("type").is_in(list(_AR_TYPES))))
    moments = others.select(*_CLIENT_SESSION, "event_ts", "type", "view_ms", "outcome", pl.col("step_index").alias("named")).join_asof(
        steps.select(*_CLIENT_SESSION, "event_ts", "step_index").sort("event_ts", "step_index"),
        on="event_ts",
        by=list(_CLIENT_SESSION),
        strategy="backward",
        check_sortedness=False,
    )
    return _Steps(steps, moments.with_columns(pl.coalesce("named", "step_index").alias("step_index")).drop("named"))
