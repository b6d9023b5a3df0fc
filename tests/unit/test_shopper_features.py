from datetime import timedelta

import numpy as np
import polars as pl
from event_frames import START, at, event, frame
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guidelens.data.features.shoppers import ALWAYS, shopper_rows
from guidelens.data.visits import requests, visits
from guidelens.schemas.ids import stable_hash
from guidelens.schemas.packed import (
    AR_FEATURES,
    AR_WINDOWS_H,
    NUM_RECENT,
    PACKED_DTYPE,
    PACKED_SCHEMA_VERSION,
    PROFILE_FIELDS,
    PROFILE_VALUES,
    RECENT_VALUES,
    WINDOW_FEATURES,
    WINDOWS_H,
    decode,
)
from guidelens.schemas.tables import Table

MICROSECOND = timedelta(microseconds=1)
NO_SHOPPERS = frame([], Table.SHOPPERS)
COUNTED = {"impressions": "impression", "clicks": "click", "carts": "cart", "purchases": "purchase", "ar_opens": "ar_open", "gestures": "ar_gesture"}


def rows_of(events: list[dict], shoppers: list[dict] | None = None) -> pl.DataFrame:
    log = frame(events)
    return shopper_rows(visits(log), log, frame(shoppers, Table.SHOPPERS) if shoppers else NO_SHOPPERS)


def test_a_row_is_known_one_microsecond_after_its_session_and_counts_it():
    found = rows_of([event(0, "click", product_id="p"), event(30, "view", product_id="p", stay_ms=1500.0, depth=2)])
    assert found["event_timestamp"].to_list() == [at(30) + MICROSECOND]
    row = found.to_dicts()[0]
    assert (row["clicks_1h"], row["stay_ms_24h"], row["depth_720h"]) == (1, 1500, 2)
    assert row["recent_products"] == ["p"]


def test_a_late_event_holds_back_its_whole_session():
    late = event(10, "view", product_id="p", stay_ms=1.0, created_ts=at(7200))
    found = rows_of([event(0, "click", product_id="p"), late, event(3600, "click", session="s2", product_id="q")])
    assert found["event_timestamp"].to_list() == [at(3600) + MICROSECOND, at(7200) + MICROSECOND]
    assert found["clicks_24h"].to_list() == [1, 2]
    assert found["recent_products"].to_list() == [["q"], ["p", "q"]]


def test_a_return_days_later_neither_holds_back_its_session_nor_makes_a_visit():
    bought = [event(0, "click", product_id="p"), event(10, "purchase", product_id="p")]
    returned = [event(5 * 86_400, "return", product_id="p"), event(6 * 86_400, "feedback", product_id="p", rating=1.0)]
    assert rows_of([*bought, *returned]).equals(rows_of(bought))


def test_windows_are_half_open():
    log = [event(0, "click", product_id="p"), event(3600, "click", session="s2", product_id="q")]
    just_in = rows_of(log)
    assert just_in["clicks_1h"].to_list() == [1, 1], "the first click lies one hour and a microsecond back: out"
    log[0]["event_ts"] = at(0) + 2 * MICROSECOND
    assert rows_of(log)["clicks_1h"].to_list() == [1, 2]


def test_nothing_of_a_session_reaches_the_rows_its_requests_may_see():
    log = []
    for k, session in enumerate(["s1", "s2", "s3"]):
        start = 50.0 * k  # they overlap
        log += [event(start, "impression", session=session, request_id=f"r{k}", product_id=f"p{k}", position=1, browse_ms=9.0)]
        log += [event(start + 100 + d, "view", session=session, product_id=f"p{k}", stay_ms=5.0, depth=1) for d in (0, 10)]
    rows = rows_of(log)
    for request in requests(frame(log)).iter_rows(named=True):
        seen = rows.filter(pl.col("event_timestamp") <= request["request_ts"])
        assert not any(request["slate_product_id"][0] in products for products in seen["recent_products"])


def test_a_session_of_one_moment_does_not_see_itself():
    log = [event(0, "impression", request_id="r", product_id="p", position=1, browse_ms=9.0)]
    request_ts = requests(frame(log))["request_ts"][0]
    assert rows_of(log).filter(pl.col("event_timestamp") <= request_ts).is_empty()


def test_a_profile_is_known_from_the_shoppers_start_and_missing_values_stay_missing():
    shoppers = [
        {"shopper_key": "a", "age_band": "25-34", "channel": "app", "height_cm": 170.5, "created_ts": at(-86_400 * 2)},
        {"shopper_key": "b", "gender": "f"},
        {"shopper_key": "c", "consent": False, "created_ts": at(0)},
    ]
    found = rows_of([event(0, "click", product_id="p"), event(0, "click", product_id="p", shopper="c", session="s2")], shoppers)
    assert found.select("shopper_key", "event_timestamp").rows() == [("a", at(-86_400 * 2)), ("a", at(0) + MICROSECOND), ("b", ALWAYS)]
    assert found["tenure_days"].to_list()[0] == 0 and abs(found["tenure_days"][1] - 2) < 1e-6 and found["tenure_days"][2] is None
    decoded, _ = decode(found["packed"].to_list())
    assert decoded["profile_ids"][0].tolist() == [stable_hash("25-34"), 0, 0, 0, 0, stable_hash("app")]
    assert np.isnan(decoded["profile_values"][2]).all() and decoded["num_recent"].tolist() == [0, 1, 0]


def test_only_the_newest_visits_stay_and_browsing_a_list_is_none():
    log = [event(60 * k, "click", session=f"s{k}", product_id=f"p{k}") for k in range(NUM_RECENT + 5)]
    log += [event(30 + 60 * k, "impression", session=f"s{k}", product_id="shown", position=1, browse_ms=5.0) for k in range(NUM_RECENT + 5)]
    last = rows_of(log).to_dicts()[-1]
    assert last["recent_products"] == [f"p{k}" for k in range(NUM_RECENT + 4, 4, -1)]
    assert last["browse_ms_24h"] == 5.0 * (NUM_RECENT + 5)


def test_nothing_in_gives_nothing_out():
    empty = rows_of([])
    assert empty.is_empty()
    assert empty.schema == rows_of([event(0, "click", product_id="p")]).schema


events_strategy = st.lists(
    st.fixed_dictionaries(
        {
            "minute": st.integers(0, 60 * 24 * 40),
            "late_min": st.sampled_from([0, 0, 0, 5, 90, 60 * 30]),
            "shopper": st.sampled_from("ab"),
            "session": st.sampled_from([f"s{k}" for k in range(6)]),
            "type": st.sampled_from(["impression", "click", "cart", "purchase", "view", "ar_open", "ar_view", "ar_gesture", "step_outcome"]),
            "product": st.sampled_from(["p", "q", "r"]),
            "value": st.floats(0, 1e5),
        }
    ),
    max_size=40,
)


def as_events(drawn: list[dict]) -> list[dict]:
    rows = []
    for one in drawn:
        extra = {"product_id": one["product"], "created_ts": at(60 * (one["minute"] + one["late_min"]))}
        extra |= {"view": {"stay_ms": one["value"], "depth": 2}, "ar_view": {"view_ms": one["value"]}}.get(one["type"], {})
        extra |= {"impression": {"position": 1, "browse_ms": one["value"]}, "step_outcome": {"step_index": 0, "outcome": "cart"}}.get(one["type"], {})
        rows.append(event(60 * one["minute"], one["type"], one["shopper"] + one["session"], one["shopper"], **extra))
    return rows


def finished(events: pl.DataFrame, shopper: str, when) -> list[dict]:
    """The shopper's events of sessions over before `when`, by a plain loop."""
    mine = [e for e in events.to_dicts() if e["shopper_key"] == shopper]
    ends: dict[str, object] = {}
    for e in mine:
        ends[e["session_id"]] = max(ends.get(e["session_id"], START - timedelta(days=1)), e["event_ts"], e["created_ts"])
    return [e for e in mine if ends[e["session_id"]] < when]


def one_count(events: list[dict], name: str) -> float:
    if name in COUNTED:
        return sum(e["type"] == COUNTED[name] for e in events)
    if name.startswith("outcome_"):
        return sum(e["outcome"] == name.removeprefix("outcome_") for e in events)
    return sum(e[name] or 0 for e in events)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(drawn=events_strategy)
def test_rows_equal_a_count_by_hand(drawn):
    log = frame(as_events(drawn))
    found = shopper_rows(visits(log), log, NO_SHOPPERS)
    assert found.select("shopper_key", "event_timestamp").is_unique().all()
    for row in found.iter_rows(named=True):
        now = row["event_timestamp"]
        past = finished(log, row["shopper_key"], now)
        for name in (*WINDOW_FEATURES, *AR_FEATURES):
            base, _, hours = name.rpartition("_")
            inside = [e for e in past if e["event_ts"] > now - timedelta(hours=int(hours[:-1]))]
            assert abs(row[name] - one_count(inside, base)) <= 1e-3 + 1e-6 * row[name], name
        known_visits = {(e["session_id"], e["product_id"]) for e in past if e["type"] not in ("impression", "ar_open", "step_outcome") and gone_into(e)}
        assert len(row["recent_products"]) == min(len(known_visits), NUM_RECENT)
    assert {int(n.rpartition("_")[2][:-1]) for n in WINDOW_FEATURES} == set(WINDOWS_H) and set(AR_WINDOWS_H) <= set(WINDOWS_H)


def gone_into(e: dict) -> bool:
    # whole microseconds: what is less than half of one is nothing
    return e["type"] in ("click", "cart", "purchase", "ar_gesture") or bool(e["depth"]) or round((e["view_ms"] or 0) * 1000) > 0


@settings(max_examples=30)
@given(drawn=events_strategy)
def test_the_future_changes_no_row(drawn):
    log = frame(as_events(drawn))
    full = shopper_rows(visits(log), log, NO_SHOPPERS)
    if full.is_empty():
        return
    cut = full["event_timestamp"].sort()[len(full) // 2]
    past = pl.concat([frame([]), *(frame(finished(log, shopper, cut)) for shopper in "ab")])
    expected = full.filter(pl.col("event_timestamp") <= cut)
    assert shopper_rows(visits(past), past, NO_SHOPPERS).equals(expected)


@settings(max_examples=30)
@given(drawn=events_strategy, order=st.randoms())
def test_neither_order_nor_other_shoppers_change_a_row(drawn, order):
    rows = as_events(drawn)
    log = frame(rows)
    shuffled = log.sample(fraction=1.0, shuffle=True, seed=order.randrange(1000)).filter(pl.col("shopper_key") == "a")
    expected = shopper_rows(visits(log), log, NO_SHOPPERS).filter(pl.col("shopper_key") == "a")
    assert shopper_rows(visits(shuffled), shuffled, NO_SHOPPERS).equals(expected)


@settings(max_examples=30)
@given(drawn=events_strategy)
def test_packed_rows_hold_exactly_the_detail_views(drawn):
    log = frame(as_events(drawn))
    shoppers = frame([{"shopper_key": "a", "region": "north", "height_cm": 181.0, "created_ts": at(60)}], Table.SHOPPERS)
    found = shopper_rows(visits(log), log, shoppers)
    for row in found.iter_rows(named=True):
        one = np.zeros((), dtype=PACKED_DTYPE)
        one["version"], one["num_recent"] = PACKED_SCHEMA_VERSION, len(row["recent_products"])
        one["as_of_us"] = (row["event_timestamp"] - ALWAYS) // MICROSECOND
        one["profile_ids"] = [stable_hash(row[name]) if row[name] is not None else 0 for name in PROFILE_FIELDS]
        one["profile_values"] = [np.nan if row[name] is None else row[name] for name in PROFILE_VALUES]
        one["windows"] = [row[name] for name in WINDOW_FEATURES]
        one["ar"] = [row[name] for name in AR_FEATURES]
        n = len(row["recent_products"])
        one["recent_products"][:n] = [stable_hash(product) for product in row["recent_products"]]
        one["recent_ts_us"][:n] = row["recent_ts_us"]
        for k, name in enumerate(RECENT_VALUES):
            one["recent_values"][:n, k] = row[f"recent_{name}"]
        assert row["packed"] == one.tobytes()
