import math

import numpy as np
import polars as pl
import pytest
from event_frames import at, event, frame

from guidelens.data.visits import InterestMedians, interest, interest_medians, kept_purchases, plans, requests, visits
from guidelens.schemas.steps import OUTCOME_INDEX, STEP_INDEX, UNKNOWN_OUTCOME


def slate(request: str, seconds: float, products: list[str], **fields) -> list[dict]:
    return [event(seconds, "impression", request_id=request, product_id=p, position=k + 1, propensity=0.1, **fields) for k, p in enumerate(products)]


def only(found: pl.DataFrame) -> dict:
    assert len(found) == 1
    return found.to_dicts()[0]


def test_a_visit_sums_what_its_events_say():
    rows = [
        event(0, "impression", product_id="p", position=1, browse_ms=1200.5),
        event(5, "click", product_id="p"),
        event(6, "view", product_id="p", stay_ms=8000.0, depth=2),
        event(9, "view", product_id="p", stay_ms=500.25, depth=1),
        event(10, "ar_view", product_id="p", view_ms=3000.0),
        event(11, "ar_gesture", product_id="p", gesture="tap"),
        event(12, "ar_gesture", product_id="p", gesture="rotate"),
        event(20, "cart", product_id="p"),
    ]
    visit = only(visits(frame(rows)))
    assert (visit["browse_ms"], visit["stay_ms"], visit["depth"], visit["view_ms"]) == (1200.5, 8500.25, 3, 3000.0)
    assert (visit["clicks"], visit["carts"], visit["purchases"], visit["gestures"]) == (1, 1, 0, 2)
    assert visit["visit_ts"] == at(20)


def test_a_product_only_shown_is_no_visit():
    assert visits(frame([event(0, "impression", product_id="p", position=1)])).is_empty()


def test_ar_events_without_a_product_belong_to_the_one_opened_before_them():
    rows = [
        event(0, "ar_view", view_ms=1.0),
        event(1, "ar_open", product_id="p"),
        event(2, "ar_view", view_ms=10.0),
        event(3, "ar_open", product_id="q"),
        event(4, "ar_view", view_ms=100.0),
        event(5, "ar_view", view_ms=7.0, session="s2"),
    ]
    found = visits(frame(rows))
    assert dict(zip(found["product_id"], found["view_ms"], strict=True)) == {"p": 10.0, "q": 100.0}


def test_interest_equals_the_hand_count():
    medians = InterestMedians(p50=2000.0, s50=10_000.0, l50=2.0, t50=4000.0)
    found = interest([1000.0], [20_000.0], [1], [0.0], medians)
    assert found[0] == pytest.approx(1 - math.exp(-(0.4 * 0.5 + 0.3 * 2.0 + 0.2 * 0.5)), abs=1e-7)


def test_interest_is_zero_for_nothing_and_stays_below_or_at_one():
    medians = InterestMedians(p50=1.0, s50=1.0, l50=1.0, t50=1.0)
    found = interest([0.0, 1e9], [0.0, 1e9], [0, 9], [0.0, 1e9], medians)
    assert found.tolist() == [0.0, 1.0]


def test_a_term_without_a_median_counts_nothing():
    without = InterestMedians(p50=100.0)
    assert interest([50.0], [9e9], [9], [9e9], without) == interest([50.0], [0.0], [0], [0.0], without)


def test_medians_are_of_non_zero_values_and_none_where_there_are_none():
    rows = [event(k, "view", product_id=f"p{k}", stay_ms=ms, depth=1) for k, ms in enumerate([0.0, 100.0, 300.0, 500.0])]
    assert interest_medians(visits(frame(rows))) == InterestMedians(p50=None, s50=300.0, l50=1.0, t50=None)
    assert interest_medians(visits(frame([]))) == InterestMedians()


def test_a_return_takes_back_the_newest_standing_purchase():
    rows = [
        event(0, "purchase", product_id="p", event_id="first"),
        event(1, "purchase", product_id="p", event_id="second"),
        event(2, "return", product_id="p"),
        event(3, "purchase", product_id="p", event_id="third"),
        event(4, "return", product_id="p"),
        event(5, "return", product_id="q"),
        event(6, "purchase", product_id="q", event_id="fourth"),
        event(7, "return", product_id="q", shopper="b"),
    ]
    assert kept_purchases(frame(rows))["event_id"].to_list() == ["first", "fourth"]


def test_a_request_holds_its_slate_by_position_with_its_labels():
    rows = [
        event(0, "search", query="red shoe"),
        *slate("r1", 2, ["p", "q", "o"], device="ar", channel="app"),
        event(3, "view", product_id="q", stay_ms=900.0, depth=2),
        event(4, "click", product_id="q", request_id="r1"),
        event(60, "purchase", product_id="q"),
    ]
    found = only(requests(frame(rows[::-1])))
    assert found["slate_product_id"] == ["p", "q", "o"]
    assert (found["click"], found["purchase"]) == ([False, True, False], [False, True, False])
    assert (found["stay_ms"], found["depth"]) == ([0.0, 900.0, 0.0], [0, 2, 0])
    assert found["interest_observed"] == [False, True, False]
    assert (found["query"], found["frame_id"], found["device"], found["channel"], found["request_ts"]) == ("red shoe", None, "ar", "app", at(2))


def test_the_context_of_a_request_is_only_what_was_known_by_then():
    rows = [
        event(0, "ar_open", product_id="seen", frame_id="1.jpg"),
        *slate("r1", 1, ["p"]),
        event(2, "ar_open", product_id="later", frame_id="2.jpg"),
        event(2, "search", query="later"),
        *slate("r2", 3, ["p"]),
        event(1, "search", query="of another session", session="s2"),
    ]
    first, second = requests(frame(rows)).to_dicts()
    assert (first["focus_product_id"], first["frame_id"], first["query"]) == ("seen", "1.jpg", None)
    assert (second["focus_product_id"], second["frame_id"], second["query"]) == ("later", "2.jpg", "later")


def test_an_impression_that_tells_its_own_query_needs_no_search_event():
    rows = [event(0, "search", query="before"), *slate("r1", 1, ["p", "q"], query="asked now"), *slate("r2", 2, ["p"])]
    assert requests(frame(rows))["query"].to_list() == ["asked now", "before"]


def test_a_click_that_names_no_request_belongs_to_the_newest_slate_that_showed_the_product():
    rows = [*slate("r1", 0, ["p"]), *slate("r2", 10, ["p"]), *slate("r3", 20, ["q"]), *slate("r4", 40, ["p"]), event(30, "click", product_id="p")]
    found = requests(frame(rows))
    assert dict(zip(found["request_id"], found["click"].list.first(), strict=True)) == {"r1": False, "r2": True, "r3": False, "r4": False}


def test_a_purchase_counts_for_the_clicked_slate_of_its_shopper_within_the_window_once():
    rows = [
        *slate("old", 0, ["p"]),
        *slate("clicked", 4000, ["p"]),
        event(4001, "click", product_id="p", request_id="clicked"),
        *slate("newest", 4500, ["p"]),
        *slate("other", 4600, ["p"], shopper="b", session="s2"),
        event(5000, "purchase", product_id="p", session="s9"),
        *slate("after", 5001, ["p"]),
    ]
    found = requests(frame(rows), purchase_window_h=0.5)
    bought = dict(zip(found["request_id"], found["purchase"].list.first(), strict=True))
    assert bought == {"old": False, "clicked": True, "newest": False, "other": False, "after": False}


def test_a_purchase_past_the_window_or_returned_is_no_purchase():
    shown = slate("r1", 0, ["p"])
    late = frame([*shown, event(3601, "purchase", product_id="p")])
    returned = frame([*shown, event(60, "purchase", product_id="p"), event(90_000, "return", product_id="p")])
    kept = frame([*shown, event(3600, "purchase", product_id="p")])
    found = [requests(events, purchase_window_h=1.0)["purchase"].list.first().to_list() for events in (late, returned, kept)]
    assert found == [[False], [False], [True]]


def test_a_product_shown_twice_counts_once_and_impressions_without_a_request_share_a_slate_by_time():
    rows = [
        event(0, "impression", product_id="p", position=1, request_id="r"),
        event(0, "impression", product_id="p", position=2, request_id="r"),
        event(5, "impression", product_id="p", position=2),
        event(5, "impression", product_id="q", position=1),
    ]
    named, unnamed = requests(frame(rows)).to_dicts()
    assert (named["slate_product_id"], named["position"]) == (["p"], [1])
    assert unnamed["slate_product_id"] == ["q", "p"]
    assert all(math.isnan(p) for p in named["propensity"])


def test_a_plan_lists_its_steps_with_what_followed_each():
    rows = [
        event(0, "ar_open", product_id="p"),
        event(1, "guide_step", step="show_info", step_index=0, step_propensity=0.5, device="ar+front"),
        event(2, "ar_view", view_ms=1000.0),
        event(3, "ar_gesture", gesture="tap"),
        event(4, "step_outcome", step_index=0, outcome="engaged"),
        event(5, "guide_step", step="offer_coupon", step_index=1),
        event(9, "ar_view", view_ms=50.0, step_index=0),
        event(6, "ar_gesture", gesture="pinch"),
        event(7, "purchase", product_id="p", value_minor=1500),
        event(8, "purchase", product_id="q", value_minor=700),
        event(9000, "return", product_id="q", session="s2"),
    ]
    found = only(plans(frame(rows)))
    assert found["steps"] == [STEP_INDEX["show_info"], STEP_INDEX["offer_coupon"]]
    assert found["outcomes"] == [OUTCOME_INDEX["engaged"], UNKNOWN_OUTCOME]
    assert (found["view_ms"], found["gestures"]) == ([1050.0, 0.0], [1, 1])
    assert found["step_propensity"][0] == 0.5 and np.isnan(found["step_propensity"][1])
    assert (found["product_id"], found["device"], found["plan_ts"], found["value_minor"]) == ("p", "ar+front", at(1), 1500)


def test_a_plan_ends_at_the_first_lost_step():
    rows = [event(k, "guide_step", step="stay_quiet", step_index=k, product_id="p") for k in (0, 1, 3)]
    assert len(only(plans(frame(rows)))["steps"]) == 2
    assert plans(frame(rows[1:])).is_empty()


def test_an_empty_log_gives_empty_frames_of_the_same_columns():
    full = frame([*slate("r", 0, ["p"]), event(1, "guide_step", step="show_info", step_index=0), event(2, "view", product_id="p", stay_ms=1.0)])
    for function in (visits, requests, plans):
        assert function(frame([])).schema == function(full).schema
        assert function(frame([])).is_empty() and not function(full).is_empty()
