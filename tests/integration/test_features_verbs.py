"""`guidelens features ...` on a shop with a log of six weeks."""

import json
import random
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner, Result
from event_frames import at, event, frame

from guidelens.config import Home
from guidelens.data.lake.lake import Lake
from guidelens.data.lake.tables import append
from guidelens.data.pseudonyms import Pseudonymizer
from guidelens.features import Features
from guidelens.presets import tiny
from guidelens.schemas.packed import PACKED_DTYPE
from guidelens.schemas.tables import TEXT_DIM, Table
from pipelines import features, materialize

DAY_S = 86_400
NUM_SHOPPERS = 150
PRODUCT = {"product_id": "p0", "title": "t", "category": "c", "text_embedding": [0.1] * TEXT_DIM, "known_ts": at(0)}


def six_weeks(pseudonyms: Pseudonymizer) -> list[dict[str, Any]]:
    """Each shopper comes about every third day; from day 35 on the clients of half of them lose what happens in AR."""
    chance, rows = random.Random(0), []
    for k in range(NUM_SHOPPERS * 14):
        shopper, start = k % NUM_SHOPPERS, chance.randrange(42 * DAY_S)
        kinds = ["click", "view", "ar_open", "ar_view", "ar_gesture"]
        if start > 35 * DAY_S and shopper % 2:
            kinds = kinds[:2]
        for j, kind in enumerate(kinds):
            fields = {"stay_ms": chance.random() * 1e4} if kind == "view" else {"view_ms": chance.random() * 1e4} if kind == "ar_view" else {}
            named = {"event_id": f"e{k}-{j}", "product_id": f"p{chance.randrange(4)}"}
            rows.append(event(start + 20 * j, kind, f"s{k}", pseudonyms.key(f"shopper {shopper}"), **named, **fields))
    return rows


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(root=tmp_path_factory.mktemp("home"))
    log = frame(six_weeks(Pseudonymizer.open(home.keys)))
    lake = Lake(home.lake_uri)
    lake.commit(lake.manifest(), lake.write(Table.PRODUCTS, frame([PRODUCT], Table.PRODUCTS).to_arrow()), {})
    for week in range(6):
        arrived = log.filter(pl.col("event_ts").is_between(at(7 * week * DAY_S), at(7 * (week + 1) * DAY_S), closed="left"))
        base = lake.manifest()
        files = [*(file for file in base.files if file.table is not Table.EVENTS), *append(lake, base, Table.EVENTS, arrived)]
        lake.commit(base, files, {"events": {"files": {f"week-{week}.jsonl": {}}}})
    materialize.run(home, tiny())
    return home


def verb(home: Home, *arguments: str) -> Result:
    return CliRunner().invoke(features.command, [*arguments, "--home", str(home.root), "--preset", "tiny"])


def last_line(result: Result) -> dict[str, Any]:
    return json.loads(result.stdout.strip().splitlines()[-1])


def test_status_says_how_old_each_view_is(shop: Home) -> None:
    said = last_line(verb(shop, "status"))
    assert said["lag_s"] > 0 and set(said["views"]) >= {"shopper_packed", "product_stock"}
    assert said["views"]["shopper_packed"]["online_entities"] == NUM_SHOPPERS
    assert 0.95 * NUM_SHOPPERS * 14 < said["views"]["shopper_packed"]["rows"] <= NUM_SHOPPERS * 14, "a row a session; a few follow each other closely"


def test_check_passes_and_finds_a_planted_skew_and_a_planted_leak(shop: Home) -> None:
    result = verb(shop, "check", "--shoppers", "20")
    assert result.exit_code == 0 and last_line(result)["recount"]["values"] > 10_000 and last_line(result)["lacking_rows"] == 0
    store = Features(shop, tiny().features)
    key = store.shopper_table(("shopper_key",))["shopper_key"][0]
    good = store.online().shopper(key)
    assert good is not None
    offset = PACKED_DTYPE.fields["windows"][1]
    store.online().push_shopper(key, good[:offset] + bytes([good[offset] ^ 1]) + good[offset + 1 :])
    try:
        found = verb(shop, "check", "--shoppers", str(NUM_SHOPPERS))
        assert found.exit_code != 0 and last_line(found)["online_equals_offline"]["different"] == {"windows": 1}
    finally:
        store.online().push_shopper(key, good)


def test_explain_names_the_events_files_and_runs_of_one_value(shop: Home) -> None:
    found = features.explain(shop, tiny(), "shopper 3", feature="clicks_168h")
    assert found.values["clicks_168h"] == len(found.events) > 0
    assert {one.type for one in found.events} == {"click"}
    lake = Lake(shop.lake_uri)
    for one in found.events:
        assert one.event_id in lake.read_key(Table.EVENTS, one.file)["event_id"]
        week = (one.event_ts - at(0)) // timedelta(days=7)
        assert found.files[one.file].sources == (f"week-{week}.jsonl",)


@pytest.mark.parametrize("feature", ["stay_ms_720h", "ar_opens_720h", "gestures_168h", "outcome_cart_168h", "depth_24h"])
def test_the_events_told_add_up_to_the_value(shop: Home, feature: str) -> None:
    found = features.explain(shop, tiny(), "shopper 4", feature=feature)
    ids = pl.DataFrame({"event_id": [one.event_id for one in found.events]}, schema={"event_id": pl.String})
    events = ids.join(Lake(shop.lake_uri).read(Table.EVENTS), on="event_id")
    name = feature.rpartition("_")[0]
    total = events[name].sum() if name in events.columns else len(events)
    assert found.values[feature] == pytest.approx(total, rel=1e-6)


def test_explain_at_a_time_tells_what_was_known_then(shop: Home) -> None:
    first = features.explain(shop, tiny(), "shopper 5", at(20 * DAY_S))
    assert first.known_from <= at(20 * DAY_S) and all(one.event_ts < first.known_from for one in first.events)
    assert len(features.explain(shop, tiny(), "shopper 5").events) > 0
    at_its_moment = features.explain(shop, tiny(), "shopper 5", first.known_from)
    assert at_its_moment.known_from == first.known_from
    listed = features.explain(shop, tiny(), "shopper 5", at(20 * DAY_S), "recent_products")
    seen = Counter(one.product_id for one in listed.events)
    assert set(listed.values["recent_products"]) == set(seen)


def test_explain_refuses_what_it_cannot_with_the_remedy(shop: Home) -> None:
    for arguments, said in (
        (["nobody"], "nothing is known"),
        (["shopper 1", "--feature", "clicks_2h"], "browse_ms_1h"),
        (["shopper 1", "--feature", "region"], "shoppers table"),
    ):
        result = verb(shop, "explain", *arguments)
        assert result.exit_code != 0 and said in str(result.exception)
    told = verb(shop, "explain", "shopper 1", "--feature", "clicks_720h")
    assert told.exit_code == 0 and "week-" in told.stdout and "(version" in told.stderr


def test_a_broken_client_shows_as_drift_of_ar_and_of_nothing_else(shop: Home, tmp_path: Path) -> None:
    said = last_line(verb(shop, "drift", "--reference", at(34.9 * DAY_S).isoformat(), "--out", str(tmp_path)))
    assert said["drifted"] and "view_ms_168h" in said["features"]
    assert not [name for name in said["features"] if not name.startswith(("view_ms", "ar_opens", "gestures", "recent"))]
    report = json.loads(Path(said["json_report"]).read_text())
    assert "tenure_days" in report["left_out"] and "clicks_720h" in report["left_out"], "the log is younger than that window"
    assert "view_ms_168h" in Path(said["report"]).read_text()


def test_weeks_alike_do_not_drift(shop: Home, tmp_path: Path) -> None:
    said = last_line(verb(shop, "drift", "--reference", at(27 * DAY_S).isoformat(), "--at", at(34.9 * DAY_S).isoformat(), "--out", str(tmp_path)))
    assert not said["drifted"] and said["features"] == []


def test_drift_needs_one_thing_to_compare_with(shop: Home) -> None:
    assert verb(shop, "drift").exit_code == 2
