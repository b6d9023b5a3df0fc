"""Incremental materialization against a full one: the same rows, to the bit, whatever was ingested in between; and how little it reads."""

import os
import random
import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from event_frames import at, event, frame
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from feature_repo.parts import read_table
from guidelens.config import Config, Home, RetentionConfig
from guidelens.data.features.dormant import horizon, move_horizon
from guidelens.data.features.shoppers import known_ts
from guidelens.data.lake.lake import DataFile, Lake
from guidelens.data.lake.tables import append, upsert
from guidelens.data.privacy.consent import new_consents
from guidelens.data.privacy.forgetting import Person, forget_in_lake
from guidelens.features import LOG, Features
from guidelens.presets import tiny
from guidelens.schemas.tables import TEXT_DIM, Table
from pipelines import features, materialize, retention

DAY_S = 86_400
NOW = at(60 * DAY_S)
DRILL = os.environ.get("GUIDELENS_DRILL") == "1"
PRODUCTS = [{"product_id": f"p{k}", "title": "t", "category": "c", "text_embedding": [0.1] * TEXT_DIM, "known_ts": at(0)} for k in range(3)]


class Shop:
    """A home whose lake grows step by step, as ingest makes it grow."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root=root)
        self.lake = Lake(self.home.lake_uri)
        self.commit(Table.PRODUCTS, self.lake.write(Table.PRODUCTS, frame(PRODUCTS, Table.PRODUCTS).to_arrow()))

    def commit(self, table: Table, files: list[DataFile]) -> None:
        base = self.lake.manifest()
        self.lake.commit(base, [*(file for file in base.files if file.table is not table), *files], {})

    def ingest(self, rows: list[dict[str, Any]]) -> None:
        known = set(self.lake.read(Table.EVENTS, ["event_id"])["event_id"])
        fresh = {row["event_id"]: row for row in rows if row["event_id"] not in known}
        if fresh:
            self.commit(
                Table.EVENTS, append(self.lake, self.lake.manifest(), Table.EVENTS, frame(list(fresh.values())).sort("event_ts", "created_ts", "event_id"))
            )

    def introduce(self, shopper: dict[str, Any], consent_ts: datetime | None = None, now: datetime = NOW) -> None:
        """A shopper's record comes in; what it says of consent holds from consent_ts on, as ingest has it."""
        record = frame([shopper], Table.SHOPPERS)
        said = record.with_columns(consent_ts=pl.lit(consent_ts, pl.Datetime("us", "UTC")))
        self.commit(Table.CONSENTS, append(self.lake, self.lake.manifest(), Table.CONSENTS, new_consents(said, self.lake.read(Table.CONSENTS), now)))
        self.commit(Table.SHOPPERS, upsert(self.lake, self.lake.manifest(), Table.SHOPPERS, "shopper_key", record))

    def forget(self, key: str) -> None:
        forget_in_lake(self.lake, Person(f"id of {key}", frozenset({key})), at(0))
        Features(self.home, tiny().features).forget(key)

    def merge_files(self) -> None:
        """The same events in one file a day."""
        self.commit(Table.EVENTS, self.lake.write(Table.EVENTS, self.lake.read(Table.EVENTS).sort("event_ts", "created_ts", "event_id").to_arrow()))

    def drop_before(self, day: int) -> None:
        """What a time to keep does: the oldest partitions go."""
        self.commit(Table.EVENTS, [file for file in self.lake.manifest().of(Table.EVENTS) if str(file.date) >= at(day * DAY_S).strftime("%Y-%m-%d")])

    def table(self) -> pl.DataFrame:
        return read_table(self.home.feast / "offline" / "shopper").sort("shopper_key", "event_timestamp")


def online_rows(home: Home, keys: list[str]) -> list[bytes | None]:
    online = Features(home, tiny().features).online()
    return [online.shopper(key) for key in keys]


def assert_as_made_anew(shop: Shop, keys: list[str]) -> None:
    made = shop.table(), online_rows(shop.home, keys)
    anew = Home(root=shop.home.root.with_name("anew"))
    shutil.rmtree(anew.root, ignore_errors=True)
    if (shoppers_from := horizon(shop.home.feast)) is not None:
        move_horizon(anew.feast, shoppers_from)
    assert materialize.run(anew, tiny(), lake=shop.lake.uri).mode == "full"
    assert made[0].equals(read_table(anew.feast / "offline" / "shopper").sort("shopper_key", "event_timestamp"))
    assert made[1] == online_rows(anew, keys)


def with_retention(**days: int) -> Config:
    return tiny().model_copy(update={"retention": RetentionConfig(**days)})


SHOPPERS = list("abcd")
ANONYMOUS = "xy"
one_event = st.fixed_dictionaries(
    {
        "id": st.integers(0, 300),
        "minute": st.one_of(st.integers(0, 60 * 24 * 50), st.integers(0, 90)),
        "late_min": st.sampled_from([0, 0, 0, 5, 90, 60 * 30, 60 * 24 * 35]),
        "shopper": st.sampled_from([*SHOPPERS, *ANONYMOUS]),
        "login": st.sampled_from([None, None, None, *ANONYMOUS]),
        "session": st.integers(0, 3),
        "type": st.sampled_from(["impression", "click", "view", "ar_view", "step_outcome", "purchase", "return"]),
        "product": st.sampled_from(["p0", "p1", "p2"]),
        "value": st.floats(0, 1e5),
    }
)
consent = st.tuples(st.sampled_from([True, False, False, None]), st.one_of(st.none(), st.integers(0, 50).map(lambda day: at(day * DAY_S + 30))))
"""What a record says, and from when on: as long ago as the log begins, and so before things said already."""
steps = st.lists(
    st.one_of(
        st.tuples(st.just("ingest"), st.lists(one_event, min_size=1, max_size=12)),
        st.tuples(st.just("ingest"), st.lists(one_event, min_size=1, max_size=3)),
        st.tuples(st.just("introduce"), st.tuples(st.sampled_from(SHOPPERS), st.sampled_from([None, "north", "北"]), consent)),
        st.tuples(st.just("introduce"), st.tuples(st.sampled_from(SHOPPERS), st.just("north"), consent)),
        st.tuples(st.just("forget"), st.sampled_from([*SHOPPERS, *ANONYMOUS])),
        st.tuples(st.sampled_from(["merge", "drop", "as_of", "retain"]), st.integers(5, 40)),
    ),
    min_size=2,
    max_size=8,
)


def as_row(one: dict[str, Any]) -> dict[str, Any]:
    extra = {"view": {"stay_ms": one["value"], "depth": 2}, "ar_view": {"view_ms": one["value"]}}.get(one["type"], {})
    extra |= {"impression": {"position": 1, "browse_ms": one["value"]}, "step_outcome": {"step_index": 0, "outcome": "cart"}}.get(one["type"], {})
    created = at(60 * (one["minute"] + one["late_min"]))
    anonymous = one["shopper"] in ANONYMOUS
    extra |= {"is_anonymous": anonymous, "anonymous_key": None if anonymous else one["login"]}
    named = {"event_id": f"e{one['id']}", "product_id": one["product"], "created_ts": created}
    return event(60 * one["minute"], one["type"], f"{one['shopper']}{one['session']}", one["shopper"], **named, **extra)


@settings(
    max_examples=150 if DRILL else 8,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)
@given(drawn=steps)
def test_incremental_equals_full_after_any_sequence_of_ingests(tmp_path: Path, drawn: list[tuple[str, Any]]) -> None:
    root = tmp_path / "shop"
    shutil.rmtree(root, ignore_errors=True)
    shop = Shop(root / "home")
    materialize.run(shop.home, tiny())
    is_part = False
    for what, how in drawn:
        if what == "ingest":
            shop.ingest([as_row(one) for one in how if one["shopper"] not in shop.lake.read(Table.TOMBSTONES)["shopper_key"]])
        elif what == "introduce" and how[0] not in shop.lake.read(Table.TOMBSTONES)["shopper_key"]:
            shop.introduce({"shopper_key": how[0], "region": how[1], "consent": how[2][0], "created_ts": at(60 * len(how[0]))}, how[2][1])
        elif what == "forget":
            shop.forget(how)
        elif what == "merge":
            shop.merge_files()
        elif what == "drop":
            shop.drop_before(how)
        elif what == "retain":
            retention.run(shop.home, with_retention(features_days=10), now=at((how + 10) * DAY_S))
        found = materialize.run(shop.home, tiny(), as_of=at(how * DAY_S) if what == "as_of" else None)
        assert what == "as_of" or (found.mode == "full") == is_part, "a full run only after one that counted a part of the log"
        is_part = not materialize.materialized(shop.home).whole
    materialize.run(shop.home, tiny())
    assert_as_made_anew(shop, [*SHOPPERS, *ANONYMOUS])


DAYS = 150


def long_log(seed: int = 0) -> list[dict[str, Any]]:
    """40 shoppers, a session or so each a week."""
    chance = random.Random(seed)
    rows = []
    for k in range(600):
        start, shopper, product = chance.randrange(DAYS * DAY_S), f"s{chance.randrange(40)}", f"p{chance.randrange(3)}"
        for j, kind in enumerate(("click", "view", "cart")):
            rows.append(event(start + 20 * j, kind, f"session-{k}", shopper, event_id=f"e{k}-{j}", product_id=product, stay_ms=chance.random() * 1e4))
    return rows


@pytest.fixture
def old_shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path / "home")
    shop.introduce({"shopper_key": "s1", "region": "north", "created_ts": at(0)})
    shop.ingest(long_log())
    assert materialize.run(shop.home, tiny()).mode == "full"
    return shop


def test_a_few_new_events_read_little_of_a_long_log(old_shop: Shop) -> None:
    old_shop.ingest([event(DAYS * DAY_S + 5, "click", "new", "s1", event_id="new", product_id="p1")])
    found = materialize.run(old_shop.home, tiny())
    assert (found.mode, found.changed_shoppers) == ("incremental", 1)
    assert found.read.files < 0.1 * found.read.of_files and found.read.rows < 0.1 * found.read.of_rows, "the new file and the days s1 was there, of the last 30"
    assert_as_made_anew(old_shop, [f"s{k}" for k in range(40)])


def test_a_day_of_everybody_reads_the_longest_window_and_no_more(old_shop: Shop) -> None:
    old_shop.ingest([event(DAYS * DAY_S + k, "click", f"new-{k}", f"s{k}", event_id=f"new-{k}", product_id="p1") for k in range(40)])
    found = materialize.run(old_shop.home, tiny())
    assert found.changed_shoppers == 40
    assert found.read.files <= 32
    assert_as_made_anew(old_shop, [f"s{k}" for k in range(40)])


def test_nothing_new_reads_nothing_and_loads_nothing(old_shop: Shop) -> None:
    found = materialize.run(old_shop.home, tiny())
    assert (found.mode, found.changed_shoppers, found.read.files, set(found.online.values())) == ("incremental", 0, 0, {0})


def test_forgetting_one_shopper_changes_nobody_elses_rows(old_shop: Shop) -> None:
    before = old_shop.table()
    old_shop.forget("s3")
    found = materialize.run(old_shop.home, tiny())
    assert found.changed_shoppers == 0 and found.read.files < found.read.of_files
    assert old_shop.table().equals(before.filter(pl.col("shopper_key") != "s3"))
    for path in old_shop.home.feast.rglob("*.parquet"):
        assert "s3" not in set(pl.read_parquet(path)["shopper_key"] if "shopper_key" in pl.read_parquet_schema(path) else [])


def test_a_withdrawal_and_a_return_read_only_days_of_that_shopper(old_shop: Shop) -> None:
    rows, everybody = old_shop.table(), [f"s{k}" for k in range(40)]
    old_shop.introduce({"shopper_key": "s3", "consent": False}, at(100 * DAY_S))
    left = materialize.run(old_shop.home, tiny())
    assert (left.mode, left.full_because, left.changed_shoppers, left.changed_consents) == ("incremental", None, 1, 1)
    assert 0 < left.read.files < 12, "the days from the withdrawal on on which s3 came, to count them no more"
    assert old_shop.table().equals(rows.filter(pl.col("shopper_key") != "s3")) and online_rows(old_shop.home, ["s3"]) == [None]
    assert_as_made_anew(old_shop, everybody)
    old_shop.introduce({"shopper_key": "s3", "consent": True}, at(120 * DAY_S))
    back = materialize.run(old_shop.home, tiny())
    assert (back.mode, back.changed_shoppers, back.changed_consents, back.read.files < 0.3 * back.read.of_files) == ("incremental", 1, 1, True)
    stamps = old_shop.table().filter(pl.col("shopper_key") == "s3")["event_timestamp"]
    checked = features.check(old_shop.home, tiny(), 40)
    assert checked.recount.equal and checked.online_equals_offline.equal
    assert len(stamps) > 5 and not stamps.is_between(at(100 * DAY_S), at(120 * DAY_S)).any()
    assert_as_made_anew(old_shop, everybody)


def test_what_is_said_of_consent_without_effect_changes_nothing(old_shop: Shop) -> None:
    old_shop.introduce({"shopper_key": "s3", "consent": False}, at(100 * DAY_S))
    materialize.run(old_shop.home, tiny())
    old_shop.introduce({"shopper_key": "s3", "consent": False}, at(110 * DAY_S))
    old_shop.introduce({"shopper_key": "s3", "consent": True}, at(50 * DAY_S))
    found = materialize.run(old_shop.home, tiny())
    assert (found.mode, found.changed_shoppers, found.changed_consents, found.read.files) == ("incremental", 0, 0, 0)


def test_who_shares_a_device_with_a_refusing_shopper_has_rows_made_again(old_shop: Shop) -> None:
    day = [(DAYS + k) * DAY_S for k in range(4)]
    cookie = {"is_anonymous": True, "product_id": "p1"}
    old_shop.ingest(
        [
            event(day[0], "click", "cookie-0", "cookie", event_id="n0", **cookie),
            event(day[1], "click", "first", "s5", event_id="n1", product_id="p1", anonymous_key="cookie"),
            event(day[2], "click", "cookie-1", "cookie", event_id="n2", **cookie),
            event(day[3], "click", "second", "s6", event_id="n3", product_id="p1", anonymous_key="cookie"),
        ]
    )
    materialize.run(old_shop.home, tiny())
    old_shop.introduce({"shopper_key": "s5", "consent": False}, at(day[1] - 60))
    found = materialize.run(old_shop.home, tiny())
    assert (found.mode, found.changed_shoppers, found.changed_consents) == ("incremental", 2, 1), "the device is s6's now, with what was done on it before"
    assert_as_made_anew(old_shop, ["s5", "s6", "cookie"])


def test_a_login_told_by_a_return_alone_counts_as_known(old_shop: Shop) -> None:
    cookie = event(DAYS * DAY_S, "click", "cookie", "cookie", event_id="n0", is_anonymous=True, product_id="p1")
    old_shop.ingest([cookie, event((DAYS + 9) * DAY_S, "return", "back", "s5", event_id="n1", product_id="p1", anonymous_key="cookie")])
    assert materialize.run(old_shop.home, tiny()).changed_shoppers == 2
    assert_as_made_anew(old_shop, ["s5", "cookie"])


def test_a_row_pushed_for_who_declined_is_taken_offline_again(old_shop: Shop) -> None:
    old_shop.introduce({"shopper_key": "s3", "consent": False}, at(100 * DAY_S))
    packed = online_rows(old_shop.home, ["s3"])[0]
    assert packed is not None
    materialize.run(old_shop.home, tiny())
    Features(old_shop.home, tiny().features).online().push_shopper("s3", packed)  # serving had read the row before it went
    old_shop.ingest([event(DAYS * DAY_S + 5, "click", "new", "s3", event_id="new", product_id="p1")])
    found = materialize.run(old_shop.home, tiny())
    assert (found.mode, found.changed_shoppers) == ("incremental", 0) and online_rows(old_shop.home, ["s3"]) == [None]


def test_a_run_killed_while_the_log_is_replaced_is_followed_by_a_full_one(old_shop: Shop) -> None:
    shutil.rmtree(old_shop.home.feast / LOG)
    found = materialize.run(old_shop.home, tiny())
    assert found.mode == "full" and "no earlier run" in str(found.full_because)


def test_forgetting_one_who_shared_a_device_gives_it_to_the_other(old_shop: Shop) -> None:
    day = [(DAYS + k) * DAY_S for k in range(3)]
    logins = [event(day[k], "click", f"login {k}", f"s{5 + k}", event_id=f"n{k}", product_id="p1", anonymous_key="cookie") for k in range(2)]
    old_shop.ingest([*logins, event(day[2], "click", "cookie", "cookie", event_id="n2", is_anonymous=True, product_id="p1")])
    materialize.run(old_shop.home, tiny())
    old_shop.forget("s6")
    assert materialize.run(old_shop.home, tiny()).changed_shoppers == 1, "s5, whose device it is alone now"
    assert_as_made_anew(old_shop, ["s5", "s6", "cookie"])
    old_shop.forget("cookie")
    assert materialize.run(old_shop.home, tiny()).changed_shoppers == 1, "s5, for whom its session counted"
    assert_as_made_anew(old_shop, ["s5", "s6", "cookie"])


def test_a_run_that_broke_off_is_made_good_by_the_next(old_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    old_shop.ingest([event(DAYS * DAY_S + 5, "click", "new", "s1", event_id="new", product_id="p1")])
    with monkeypatch.context() as broken, pytest.raises(OSError):
        broken.setattr(Features, "_load_shoppers", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        materialize.run(old_shop.home, tiny())
    with pytest.raises(Exception, match="guidelens materialize"):
        materialize.materialized(old_shop.home)
    assert materialize.run(old_shop.home, tiny()).mode == "incremental"
    assert_as_made_anew(old_shop, ["s1"])


def test_a_backfill_repairs_a_span_and_reads_what_it_depends_on(old_shop: Shop) -> None:
    good = old_shop.table()
    start, end = at(60 * DAY_S), at(80 * DAY_S)
    folder = old_shop.home.feast / "offline" / "shopper"
    from feature_repo.parts import by_month, replace_table

    in_span = pl.col("event_timestamp").is_between(start, end, closed="left")
    spoiled = good.with_columns(pl.when(in_span).then(pl.lit(b"")).otherwise("packed").alias("packed")).filter(~in_span | (pl.col("shopper_key") > "s2"))
    replace_table(folder, by_month(spoiled))
    found = materialize.run(old_shop.home, tiny(), backfill=materialize.Span(start, end))
    assert (found.mode, found.read.files <= 52, found.changed_shoppers) == ("backfill", True, 40)
    assert old_shop.table().equals(good)
    assert_as_made_anew(old_shop, [f"s{k}" for k in range(40)])


def test_rows_of_the_last_run_made_otherwise_are_all_made_again(old_shop: Shop) -> None:
    other = tiny().model_copy(update={"features": tiny().features.model_copy(update={"shopper_ttl_days": 3.0})})
    found = materialize.run(old_shop.home, other)
    assert found.mode == "full" and "features.*" in str(found.full_because)


def test_an_as_of_in_the_past_is_a_full_run_and_so_is_the_next(old_shop: Shop) -> None:
    events = old_shop.lake.read(Table.EVENTS)
    middle = events["event_ts"].sort()[len(events) // 2]
    found = materialize.run(old_shop.home, tiny(), as_of=middle)
    assert found.mode == "full" and "--as-of" in str(found.full_because)
    assert old_shop.table()["event_timestamp"].max() == events.filter(known_ts() <= middle)["event_ts"].max() + timedelta(microseconds=1)
    checked = features.check(old_shop.home, tiny(), shoppers=40)
    assert checked.recount.equal and not checked.lacking_rows, "what came later is no part of it"
    assert materialize.run(old_shop.home, tiny()).mode == "full"
    assert_as_made_anew(old_shop, ["s1"])
