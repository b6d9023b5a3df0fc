from datetime import timedelta

import numpy as np
import pytest
from event_frames import at, event, frame

from guidelens.data.features.shoppers import shopper_rows
from guidelens.data.features.updates import advanced
from guidelens.data.pseudonyms import PseudonymousEvent
from guidelens.data.visits import visits
from guidelens.schemas.ids import stable_hash
from guidelens.schemas.packed import NUM_RECENT, WINDOW_FEATURES, decode
from guidelens.schemas.tables import Table

KEY = "a" * 64


def posted(rows: list[dict]) -> list[PseudonymousEvent]:
    return [PseudonymousEvent(**{"event_id": f"e{k}", "key_id": "k", **row}) for k, row in enumerate(rows)]


def one_session(start: float, name: str, product: str) -> list[dict]:
    shared = {"session": name, "shopper": KEY, "product_id": product}
    return [
        event(start, "impression", position=1, browse_ms=700.0, **shared),
        event(start + 1, "click", **shared),
        event(start + 2, "view", stay_ms=1500.0, depth=2, **shared),
        event(start + 5, "ar_open", **shared),
        event(start + 6, "ar_view", view_ms=250.0, **shared),
        event(start + 7, "ar_gesture", gesture="tap", **shared),
        event(start + 9, "step_outcome", step_index=0, outcome="engaged", **shared),
    ]


def materialized(rows: list[dict]) -> bytes:
    log = frame(rows)
    return shopper_rows(visits(log), log, frame([], Table.SHOPPERS))["packed"][-1]


def test_counting_events_in_equals_materializing_them_while_nothing_leaves_a_window():
    first, second = one_session(0, "s1", "p"), one_session(600, "s2", "q")
    known = materialized(first)
    assert advanced(known, posted(second)) == materialized([*first, *second])
    assert advanced(advanced(known, posted(second[:3])), posted(second[3:])) == materialized([*first, *second])


def test_a_shopper_nobody_knew_gets_a_row_without_a_profile():
    rows, _ = decode([advanced(None, posted(one_session(0, "s1", "p")))])
    assert np.isnan(rows["profile_values"]).all() and rows["recent_products"][0, 0] == stable_hash("p")
    assert rows["windows"].tobytes() == decode([materialized(one_session(0, "s1", "p"))])[0]["windows"].tobytes()


def test_windows_that_passed_are_emptied():
    later = [event(25 * 3600, "click", "s2", KEY, product_id="q")]
    rows, _ = decode([advanced(materialized(one_session(0, "s1", "p")), posted(later))])
    clicks = {name: value for name, value in zip(WINDOW_FEATURES, rows["windows"][0], strict=True) if name.startswith("clicks")}
    assert clicks == {"clicks_1h": 1, "clicks_24h": 1, "clicks_168h": 2, "clicks_720h": 2}


def test_only_the_newest_visits_stay():
    row = None
    for k in range(NUM_RECENT + 3):
        row = advanced(row, posted([event(3600 * k, "click", f"s{k}", KEY, product_id=f"p{k}")]))
    found, _ = decode([row])
    assert found["num_recent"].tolist() == [NUM_RECENT]
    assert found["recent_products"][0].tolist() == [stable_hash(f"p{k}") for k in range(NUM_RECENT + 2, 2, -1)]


def test_each_update_is_later_than_the_last_even_for_late_events():
    known = materialized(one_session(0, "s1", "p"))
    late = advanced(known, posted([event(-50, "click", "s0", KEY, product_id="p")]))
    before, after = (int(decode([row])[0]["as_of_us"][0]) for row in (known, late))
    assert after == before + 1


def test_a_row_of_another_schema_is_refused():
    with pytest.raises(ValueError, match="materialize again"):
        advanced(b"old", posted([event(0, "click", "s", KEY, product_id="p")]))


def test_the_newest_moment_bounds_the_row():
    soon = at(0) + timedelta(minutes=5)
    row, _ = decode([advanced(None, posted([event(0, "click", "s", KEY, product_id="p", created_ts=soon)]))])
    assert row["as_of_us"][0] == int(soon.timestamp()) * 1_000_000 + 1
