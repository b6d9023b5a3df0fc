"""world_v2: several devices, logins on the way, purchases elsewhere and later, consent, reviews; and how the files are cut."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from guidelens.config import WorldSize
from guidelens.errors import InputError
from guidelens.schemas.catalog import Review, Shopper
from guidelens.schemas.events import Event
from guidelens.world import WORLD_V1, WORLD_V2, People, World, WorldPaths, generate, log_files
from guidelens.world.blueprint import Job, build

SIZE = WorldSize(num_products=24, num_shoppers=150, num_sessions=2400, num_frames=48, views_per_product=2, num_days=14, reference_sessions=1000)
SEED = 5
HOUR_US = 3_600_000_000


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> WorldPaths:
    return generate(SIZE, SEED, tmp_path_factory.mktemp("people"), parameters=WORLD_V2, num_workers=1, with_photos=False)


@pytest.fixture(scope="module")
def events(shop: WorldPaths) -> list[Event]:
    return [Event.model_validate_json(line) for path in sorted(shop.events.iterdir()) for line in path.read_text().splitlines()]


def _truth(shop: WorldPaths, name: str) -> pl.DataFrame:
    return pl.read_parquet(shop.truth / name / "*.parquet")


def _jsonl(path: Path | None) -> list[dict[str, Any]]:
    assert path is not None
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_truth_says_who_is_behind_each_device(shop: WorldPaths, events: list[Event]) -> None:
    behind = dict(_truth(shop, "identities").select("anonymous_id", "shopper_id").unique().iter_rows())
    seen = {event.anonymous_id for event in events if event.anonymous_id}
    assert seen == set(behind)
    logged_in = [event for event in events if event.anonymous_id and event.shopper_id]
    assert len(logged_in) > 100
    assert all(behind[str(event.anonymous_id)] == event.shopper_id for event in logged_in)
    per_device = {(event.anonymous_id, event.channel) for event in events if event.anonymous_id}
    assert len(per_device) == len(behind), "a device is in one channel"
    sessions = [event.session_id for event in events if event.anonymous_id]
    assert len(behind) < len(set(sessions)), "a device comes back"


def test_after_a_login_all_events_of_the_session_are_known(events: list[Event]) -> None:
    by_session: dict[str, list[Event]] = {}
    for event in sorted(events, key=lambda one: (one.event_ts, int(one.event_id.rpartition("-")[2]) if one.event_id[0] == "v" else 0)):
        by_session.setdefault(event.session_id, []).append(event)
    mixed = [known for known in ([event.shopper_id is not None for event in session] for session in by_session.values()) if len(set(known)) == 2]
    assert len(mixed) > 10
    assert all(known == sorted(known) for known in mixed)


def test_no_id_of_an_anonymous_session_tells_its_shopper(shop: WorldPaths, events: list[Event]) -> None:
    """An id built of the shopper's number (as in world_v1) would let a model join what the shop cannot."""
    world = World.open(shop.root)
    shopper_of = dict(zip((str(name) for name in world._sessions["session_id"]), world._sessions["shopper"].tolist(), strict=True))
    anonymous = [event for event in events if event.shopper_id is None]
    assert len(anonymous) > 100
    assert not any(
        f"{shopper_of[event.session_id]:06d}" in f"{event.session_id} {event.event_id} {event.anonymous_id} {event.request_id}" for event in anonymous
    )
    assert {len(event.session_id) for event in events} == {18}


def test_delayed_purchases_are_made_elsewhere_by_the_same_shopper(shop: WorldPaths, events: list[Event]) -> None:
    truth = {row["event_id"]: row for row in _truth(shop, "delayed_purchases").to_dicts()}
    bought = {event.event_id: event for event in events if event.type == "purchase"}
    assert len(truth) >= 5
    assert set(truth) <= set(bought)
    assert len(truth) < len(bought)
    in_session = {event.session_id: event for event in events}
    for name, row in truth.items():
        later, before = bought[name], in_session[row["session_id"]]
        assert later.shopper_id is not None
        assert before.shopper_id in (None, later.shopper_id)
        assert (later.request_id, later.anonymous_id, later.session_id == row["session_id"]) == (None, None, False)
        assert later.channel != before.channel
        assert HOUR_US <= row["delay_us"] < 48 * HOUR_US
        clicked = [event for event in events if event.session_id == row["session_id"] and event.product_id == later.product_id]
        assert clicked
        assert all((later.event_ts - event.event_ts).total_seconds() > 3000 for event in clicked if event.type != "return")


def test_a_return_never_comes_before_its_purchase(events: list[Event]) -> None:
    bought = [(event.product_id, event.event_ts) for event in events if event.type == "purchase"]
    returned = [event for event in events if event.type == "return"]
    assert returned
    assert all(any(product == event.product_id and ts < event.event_ts for product, ts in bought) for event in returned)


def test_consent_is_declined_and_withdrawn_as_the_truth_says(shop: WorldPaths) -> None:
    truth = {row["shopper_id"]: row for row in _jsonl(shop.truth / "consent.jsonl")}
    shoppers = {row["shopper_id"]: row for row in _jsonl(shop.shoppers)}
    declined = {name for name, row in truth.items() if row["consent"] == "declined"}
    withdrawn = {name for name, row in truth.items() if row["consent"] == "withdrawn"}
    assert declined
    assert withdrawn
    assert {name for name, row in shoppers.items() if not row["consent"]} == declined
    later = {row["shopper_id"]: Shopper.model_validate(row) for row in _jsonl(shop.withdrawals)}
    assert set(later) == withdrawn
    assert all(row == Shopper.model_validate(shoppers[name] | {"consent": False}) for name, row in later.items())
    assert all(datetime.fromisoformat(truth[name]["ts"]).year == 2025 for name in withdrawn)


def test_reviews_follow_quality_in_two_languages(shop: WorldPaths) -> None:
    reviews = [Review.model_validate(row) for row in _jsonl(shop.reviews)]
    assert len({review.review_id for review in reviews}) == len(reviews) > 150
    assert {review.locale for review in reviews} == {"en", "zh-CN"}
    drawn, words = build(Job(SIZE, SEED, WORLD_V2, None, shop.root))
    quality = dict(zip(words.product_ids, drawn.products.quality, strict=True))
    means = pl.DataFrame({"product_id": [review.product_id for review in reviews], "rating": [review.rating for review in reviews]})
    means = means.group_by("product_id").agg(pl.col("rating").mean(), pl.len()).filter(pl.col("len") >= 5)
    correlation = np.corrcoef(means["rating"], [quality[name] for name in means["product_id"]])[0, 1]
    assert 0.5 < correlation < 0.99, "ratings tell of quality, and are not it"


def test_world_v1_has_none_of_it(tmp_path: Path) -> None:
    paths = generate(SIZE, SEED, tmp_path, num_workers=1, with_photos=False)
    assert (paths.reviews, paths.withdrawals) == (None, None)
    assert WORLD_V1.people == People()
    assert not (paths.truth / "delayed_purchases").exists()
    assert paths.num_events == sum(len(path.read_text().splitlines()) for path in paths.events.iterdir())


def test_two_workers_write_the_same_bytes_and_few_files_the_same_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = SIZE.model_copy(update={"num_sessions": 4000})
    for workers in (1, 2):
        generate(size, SEED, tmp_path / str(workers), parameters=WORLD_V2, num_workers=workers, with_photos=False)
    one, two = ({path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*") if path.is_file()} for name in ("1", "2"))
    assert one == two
    monkeypatch.setattr(log_files, "MAX_FILES", 2)
    generate(size, SEED, tmp_path / "few", parameters=WORLD_V2, num_workers=1, with_photos=False)
    many, few = ([path.read_bytes() for path in sorted((tmp_path / name / "events").iterdir())] for name in ("1", "few"))
    assert (len(many), len(few)) == (4, 2)
    assert b"".join(many) == b"".join(few)
    for name in ("sessions/session_id.npy", "ar_sessions/start.npy"):
        assert (tmp_path / "few" / "truth" / name).read_bytes() == (tmp_path / "1" / "truth" / name).read_bytes()


def test_parquet_holds_the_same_events_as_jsonl(shop: WorldPaths, events: list[Event], tmp_path: Path) -> None:
    paths = generate(SIZE, SEED, tmp_path, parameters=WORLD_V2, num_workers=1, with_photos=False, events_format="parquet")
    rows = pl.read_parquet(paths.events / "*.parquet").to_dicts()
    assert [Event.model_validate({name: value for name, value in row.items() if value is not None}) for row in rows] == events
    assert paths.num_events == len(events)


def test_a_smaller_draw_leaves_nothing_of_a_larger_one(tmp_path: Path) -> None:
    small = SIZE.model_copy(update={"num_shoppers": 40, "num_sessions": 200})
    for size in (SIZE, small):
        paths = generate(size, SEED, tmp_path / "twice", num_workers=1, with_photos=False)
    once = generate(small, SEED, tmp_path / "once", num_workers=1, with_photos=False)
    assert [path.name for path in sorted(paths.events.iterdir())] == [path.name for path in sorted(once.events.iterdir())]


def test_a_folder_of_other_events_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "mine.jsonl").write_text("{}")
    with pytest.raises(InputError, match="must be empty or part of a finished simulated shop"):
        generate(SIZE, SEED, tmp_path, num_workers=1, with_photos=False)
    assert (tmp_path / "events" / "mine.jsonl").read_text() == "{}"
