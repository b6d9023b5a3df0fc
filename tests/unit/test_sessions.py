"""Identity and sessions: whose an anonymous event is and from when that may be known; sessions across channels and devices."""

from datetime import timedelta

import polars as pl
from event_frames import START, at, event, frame
from hypothesis import given, settings
from hypothesis import strategies as st

from guidelens.data.sessions import as_people, identity_links, in_sessions, with_owned
from guidelens.data.visits import plans, requests, visits
from guidelens.schemas.tables import SCHEMAS, Table

MINUTE = 60


def log(*rows: dict) -> pl.DataFrame:
    return frame(list(rows)).select(SCHEMAS[Table.EVENTS].names)


def anonymous(seconds: float, kind: str = "view", device: str = "cookie", **fields: object) -> dict:
    return event(seconds, kind, shopper=device, is_anonymous=True, **{"product_id": "p", "session": f"{device} at {seconds}", **fields})


def login(seconds: float, shopper: str = "ann", device: str = "cookie", **fields: object) -> dict:
    return event(seconds, "search", shopper=shopper, anonymous_key=device, **{"session": f"{shopper} at {seconds}", **fields})


def people(events: pl.DataFrame) -> list[str]:
    return as_people(events, identity_links(events)).sort("event_ts")["shopper_key"].to_list()


def test_what_was_done_anonymously_before_and_after_a_login_is_the_shoppers() -> None:
    events = log(anonymous(0), login(60), anonymous(120), anonymous(180, device="another"))
    assert people(events) == ["ann", "ann", "ann", "another"]
    assert as_people(events, identity_links(events)).sort("event_ts")["asked_as"].to_list() == ["cookie", "ann", "cookie", "another"]


def test_a_device_that_a_second_shopper_logs_in_on_is_shared_from_then_on() -> None:
    events = log(anonymous(0), login(60), anonymous(120), login(180, shopper="bob"), anonymous(240), login(300), anonymous(360))
    assert people(events) == ["ann", "ann", "ann", "bob", "cookie", "ann", "cookie"]


def test_a_log_without_logins_stays_as_it_is() -> None:
    events = log(anonymous(0), event(5, "view", product_id="p"))
    assert identity_links(events).is_empty()
    assert with_owned(events, identity_links(events)).equals(events)
    assert people(events) == ["cookie", "a"]


def test_features_know_of_a_link_only_once_the_login_was_known() -> None:
    late = login(60, created_ts=at(500))
    events = log(anonymous(0), late, anonymous(700))
    seen = with_owned(events, identity_links(events)).filter(pl.col("type") == "view").sort("shopper_key", "event_ts")
    assert seen.select("shopper_key", "event_ts", "created_ts").rows() == [
        ("ann", at(0), at(500)),
        ("ann", at(700), at(700)),
        ("cookie", at(0), at(0)),
        ("cookie", at(700), at(700)),
    ]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["anonymous", "ann", "bob"]), st.sampled_from(["c1", "c2"]), st.integers(0, 20), st.integers(0, 10)), max_size=15))
def test_what_features_know_by_a_moment_never_depends_on_what_came_later(moves: list[tuple[str, str, int, int]]) -> None:
    rows = []
    for number, (who, device, minute, delay) in enumerate(moves):
        # Whole sessions, as features count them: what is known of half a session counts for nothing yet.
        fields = {"created_ts": at((minute + delay) * MINUTE), "device": device, "session": str(number)}
        made = anonymous(minute * MINUTE, **fields) if who == "anonymous" else login(minute * MINUTE, shopper=who, **fields)
        rows.append(made)
    events = log(*rows)
    known = pl.max_horizontal("event_ts", "created_ts")
    everything = with_owned(events, identity_links(events))
    for minute in range(0, 31, 10):
        past = events.filter(known <= at(minute * MINUTE))
        by_then = with_owned(past, identity_links(past))
        kept = everything.filter(known <= at(minute * MINUTE))
        assert sorted(kept.select("event_id", "shopper_key").rows()) == sorted(by_then.select("event_id", "shopper_key").rows())


def test_one_session_spans_channels_and_devices_until_a_pause() -> None:
    events = log(
        event(0, "search", session="store-1", channel="store", device="ar"),
        event(20 * MINUTE, "view", session="web-7", channel="web", product_id="p", stay_ms=5.0),
        event(45 * MINUTE, "cart", session="mini-2", channel="mini_program", product_id="p"),
        event(80 * MINUTE, "view", session="web-8", channel="web", product_id="p", stay_ms=7.0),
        event(81 * MINUTE, "view", session="x", shopper="b", product_id="p", stay_ms=1.0),
    )
    found = in_sessions(as_people(events, identity_links(events)))
    assert found["session_id"].to_list() == ["store-1", "store-1", "store-1", "web-8", "x"]
    assert found["client_session_id"].to_list() == ["store-1", "web-7", "mini-2", "web-8", "x"]
    assert visits(found).select("session_id", "stay_ms", "carts").rows() == [("store-1", 5.0, 1), ("web-8", 7.0, 0), ("x", 1.0, 0)]


def test_a_client_session_is_never_split() -> None:
    """What the client calls one session is one: an AR session may pause while the shopper measures the room."""
    events = log(event(0, "view", product_id="p"), event(40 * MINUTE, "view", product_id="p"), event(60 * MINUTE, "view", session="s2", product_id="p"))
    assert in_sessions(as_people(events, identity_links(events)))["session_id"].to_list() == ["s1", "s1", "s1"]


def test_returns_and_feedback_neither_end_nor_begin_a_session() -> None:
    days = 3 * 86_400
    events = log(
        event(0, "view", product_id="p"),
        event(days, "search", session="later"),
        event(days + 60, "return", product_id="p"),
        event(days + 120, "view", session="later", product_id="q"),
    )
    found = in_sessions(as_people(events, identity_links(events)))
    assert found["session_id"].to_list() == ["s1", "later", "s1", "later"]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["s1", "s2", "s3", "s4"]), st.integers(0, 300)), min_size=1, max_size=25))
def test_sessions_are_what_client_sessions_without_a_pause_between_them_make(moves: list[tuple[str, str, int]]) -> None:
    events = log(*(event(minute * MINUTE, "view", session=session, shopper=who, product_id="p") for who, session, minute in moves))
    found = in_sessions(as_people(events, identity_links(events)))
    assert found.drop("session_id", "client_session_id", "asked_as").equals(events.drop("session_id"))
    for who in {who for who, _, _ in moves}:
        spans: dict[str, list[int]] = {}
        for _, session, minute in (move for move in moves if move[0] == who):
            spans.setdefault(session, []).append(minute)
        expected: dict[str, str] = {}
        end, name = -(10**9), ""
        for session, minutes in sorted(spans.items(), key=lambda item: (min(item[1]), item[0])):
            name = session if min(minutes) - end > 30 else name
            end = max(end, max(minutes))
            expected[session] = name
        mine = found.filter(pl.col("shopper_key") == who)
        assert dict(mine.select("client_session_id", "session_id").unique().rows()) == expected


def test_a_purchase_on_another_device_after_a_login_is_the_slates_and_the_plans() -> None:
    shown = {"request_id": "r", "position": 1, "session": "app-1"}
    events = log(
        anonymous(0, "impression", **shown),
        anonymous(5, "guide_step", session="app-1", step="show_info", step_index=0),
        anonymous(9, "click", session="app-1", request_id="r"),
        login(15 * MINUTE, session="app-1"),
        event(20 * MINUTE, "purchase", session="web-1", shopper="ann", product_id="p", value_minor=900),
    )
    told = in_sessions(as_people(events, identity_links(events)))
    (request,) = requests(told).to_dicts()
    assert (request["shopper_key"], request["asked_as"], request["click"], request["purchase"]) == ("ann", "cookie", [True], [True])
    (plan,) = plans(told).to_dicts()
    assert (plan["client_session_id"], plan["value_minor"], plan["plan_ts"]) == ("app-1", 900, START + timedelta(seconds=5))


def test_of_two_plans_of_a_session_each_earns_what_was_bought_from_it_on() -> None:
    events = log(
        event(0, "purchase", session="app", product_id="o", value_minor=1),
        event(10, "guide_step", session="app", step="show_info", step_index=0),
        event(20, "purchase", session="web", product_id="p", value_minor=10),
        event(30, "guide_step", session="mini", step="show_info", step_index=0),
        event(40, "purchase", session="app", product_id="q", value_minor=100),
    )
    found = plans(in_sessions(as_people(events, identity_links(events))))
    assert dict(found.select("client_session_id", "value_minor").rows()) == {"app": 11, "mini": 100}
