"""Nothing that happened while a shopper did not agree reaches their profile or training, whatever order records come in."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from event_logs import NOW, PSEUDONYMS, click, constant_texts, ingest, shopper_records, write_log
from hypothesis import given
from hypothesis import strategies as st

from guidelens import presets
from guidelens.config import IngestConfig, WorldSize
from guidelens.data.features.shoppers import declined
from guidelens.data.inbox import Inbox
from guidelens.data.ingest.intake import take_in
from guidelens.data.lake.lake import Lake
from guidelens.data.lake.tables import to_table
from guidelens.data.prepare import read_log
from guidelens.data.privacy.consent import FROM_THE_BEGINNING, as_consented, consented, consents
from guidelens.data.records.sources import Kind
from guidelens.data.sessions import as_people, identity_links
from guidelens.schemas.events import Event
from guidelens.schemas.tables import Table
from guidelens.world import WORLD_V2, WorldPaths, generate

START = datetime(2026, 1, 1, tzinfo=UTC)
SAID = {"shopper_key": pl.String, "consent": pl.Boolean, "since_ts": pl.Datetime("us", "UTC")}


def take(lake: Lake, path: Path, *records: dict[str, Any], now: datetime = NOW) -> None:
    take_in(lake, {Kind.SHOPPERS: shopper_records(write_log(path, records), now=now)}, constant_texts, now, pseudonyms=PSEUDONYMS)


def said(lake: Lake) -> list[tuple[bool, datetime]]:
    return list(consents(lake, lake.manifest()).sort("since_ts", "consent").select("consent", "since_ts").iter_rows())


def day(number: float) -> str:
    return (START + timedelta(days=number)).isoformat()


def test_a_no_holds_from_the_beginning_a_withdrawal_from_its_time_and_one_without_a_time_from_when_it_came(tmp_path: Path) -> None:
    for name, records, expected in (
        ("declined", [{"consent": False}], [(False, FROM_THE_BEGINNING)]),
        ("withdrawn", [{"consent": True}, {"consent": False, "consent_ts": day(3)}], [(True, FROM_THE_BEGINNING), (False, START + timedelta(days=3))]),
        ("untimed", [{"consent": True}, {"consent": False}], [(True, FROM_THE_BEGINNING), (False, NOW)]),
        ("back", [{"consent": False}, {"consent": True, "consent_ts": day(3)}], [(False, FROM_THE_BEGINNING), (True, START + timedelta(days=3))]),
        ("silent", [{}, {"region": "north"}], []),
    ):
        lake = Lake(str(tmp_path / name))
        for record in records:
            take(lake, tmp_path / "s.jsonl", {"shopper_id": "s-1", **record})
        assert said(lake) == expected, name


def test_an_old_yes_read_again_does_not_undo_a_withdrawal(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    for record in ({"consent": True}, {"consent": False, "consent_ts": day(3)}, {"consent": True}):
        take(lake, tmp_path / "s.jsonl", {"shopper_id": "s-1", **record})
    assert lake.read(Table.SHOPPERS)["consent"].to_list() == [True]
    stands = as_consented(lake.read(Table.SHOPPERS), consents(lake, lake.manifest()))
    assert stands["consent"].to_list() == [False]


def test_shopper_records_from_before_consent_had_a_time_count_from_the_beginning(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    rows = pl.DataFrame({"shopper_key": ["a", "b", "c"], "consent": [False, True, None]})
    lake.commit(lake.manifest(), lake.write(Table.SHOPPERS, to_table(Table.SHOPPERS, rows)), {})
    assert said(lake) == [(False, FROM_THE_BEGINNING), (True, FROM_THE_BEGINNING)]


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.booleans(), st.integers(0, 5)), max_size=8),
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), max_size=12),
)
def test_an_event_counts_exactly_where_the_last_thing_said_before_it_was_no_refusal(told: list[tuple[str, bool, int]], happened: list[tuple[str, int]]) -> None:
    stamp = [START + timedelta(hours=hour) for hour in range(6)]
    rows = pl.DataFrame([{"shopper_key": who, "consent": yes, "since_ts": stamp[hour]} for who, yes, hour in told], schema=SAID)
    events = pl.DataFrame(
        [{"shopper_key": who, "event_ts": stamp[hour]} for who, hour in happened], schema={"shopper_key": pl.String, "event_ts": SAID["since_ts"]}
    )

    def agreed(who: str, hour: int) -> bool:
        latest = max((at for name, _, at in told if name == who and at <= hour), default=None)
        return all(yes for name, yes, at in told if name == who and at == latest)

    assert list(consented(events, rows).iter_rows()) == [(who, stamp[hour]) for who, hour in happened if agreed(who, hour)]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> WorldPaths:
    people = WORLD_V2.people.model_copy(update={"declining_share": 0.2, "withdrawing_share": 0.2})
    size = WorldSize(num_products=12, num_shoppers=40, num_sessions=500, num_frames=24, views_per_product=2, num_days=14, reference_sessions=1000)
    return generate(size, 3, tmp_path_factory.mktemp("world"), parameters=WORLD_V2.model_copy(update={"people": people}), num_workers=1, with_photos=False)


def test_the_worlds_declined_and_withdrawn_are_left_out_from_the_true_moment_on(shop: WorldPaths, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    logs = [str(path) for path in sorted(shop.events.iterdir())]
    ingest(lake, logs, IngestConfig(), shoppers=str(shop.shoppers))
    take_in(lake, {Kind.SHOPPERS: shopper_records(str(shop.withdrawals))}, constant_texts, NOW, pseudonyms=PSEUDONYMS)
    truth = {row["shopper_id"]: row for row in map(json.loads, (shop.truth / "consent.jsonl").read_text().splitlines())}
    until = {PSEUDONYMS.key(name): START if row["ts"] is None else datetime.fromisoformat(row["ts"]) for name, row in truth.items()}
    assert {row["consent"] for row in truth.values()} == {"declined", "withdrawn"}
    held = as_people(lake.read(Table.EVENTS), identity_links(lake.read(Table.EVENTS)))
    after = pl.col("event_ts") >= pl.col("shopper_key").replace_strict(until, default=NOW, return_dtype=pl.Datetime("us", "UTC"))
    late = pl.col("shopper_key").is_in([key for key, ts in until.items() if ts == START]) | after
    refused = held.filter(late)
    assert refused.height > 500 and refused["shopper_key"].n_unique() == len(truth)
    assert consented(held, consents(lake, lake.manifest())).equals(held.filter(~late))
    used = impressions(lake)
    asked = set(held.filter(~late & (pl.col("type") == "impression"))["request_id"])
    assert used["slate_product_id"].is_not_null().any() and set(used.filter(pl.col("slate_product_id").is_not_null())["request_id"]) == asked
    stands = as_consented(lake.read(Table.SHOPPERS), consents(lake, lake.manifest()))
    assert set(declined(stands)) == set(until)


def impressions(lake: Lake) -> pl.DataFrame:
    return read_log(lake, lake.manifest(), presets.load("tiny").train).rows


def test_training_sees_slates_from_before_a_withdrawal_and_none_after_also_of_the_shoppers_own_devices(tmp_path: Path) -> None:
    def shown(name: str, at: float, **who: Any) -> dict[str, Any]:
        return click(name, at, session_id=f"v-{name}", request_id=f"r-{name}") | {"type": "impression", "position": 1} | who

    cookie = {"shopper_id": None, "anonymous_id": "cookie"}
    login = click("login", 0.5, session_id="v-login", anonymous_id="cookie")
    events = [shown("before", 0), shown("after", 4), shown("cookie", 4.5, **cookie), shown("other", 4, shopper_id="s-2"), login]
    lake = Lake(str(tmp_path / "lake"))
    ingest(lake, [write_log(tmp_path / "e.jsonl", events)])
    assert set(impressions(lake)["request_id"]) == {"r-before", "r-after", "r-cookie", "r-other"}
    take(lake, tmp_path / "s.jsonl", {"shopper_id": "s-1", "consent": False, "consent_ts": day(3)})
    assert set(impressions(lake)["request_id"]) == {"r-before", "r-other"}


@pytest.mark.parametrize("by", ["columns", "records", "inbox"])
def test_an_event_without_consent_is_stored_without_any_link_to_its_shopper(tmp_path: Path, by: str) -> None:
    kept = click("kept", consent=True, session_id="v-1", request_id="r-1")
    asked = {"type": "search", "query": "my own words", "frame_id": "me.jpg", "product_id": None}
    hidden = [click(f"hidden-{number}", session_id="v-1", request_id="r-1", anonymous_id="cookie", consent=False) | asked for number in range(2)]
    lake = Lake(str(tmp_path / "lake"))
    if by == "inbox":
        Inbox(tmp_path / "inbox").append([PSEUDONYMS.pseudonymize(Event.model_validate(event)) for event in [kept, *hidden]])
        ingest(lake, [str(path) for path in (tmp_path / "inbox").glob("*.jsonl")], from_inbox=True)
    else:
        odd = {"depth": " 3 "} if by == "records" else {}  # what columns leave to the model
        ingest(lake, [write_log(tmp_path / "e.jsonl", [event | odd for event in [kept, *hidden]])])
    rows = lake.read(Table.EVENTS).sort("event_id")
    assert rows["event_id"].to_list() == ["hidden-0", "hidden-1", "kept"]
    linking = rows.select("shopper_key", "anonymous_key", "session_id", "request_id", "query", "frame_id")
    assert linking.row(0) == linking.row(1), "what happened in one session stays together"
    assert set(linking.row(2)).isdisjoint({value for value in linking.row(0) if value is not None})
    assert linking.row(0)[4:] == (None, None) and linking["anonymous_key"].null_count() == 3
    assert PSEUDONYMS.key("s-1") not in linking["shopper_key"].head(2) and rows["is_anonymous"].to_list() == [True, True, False]
