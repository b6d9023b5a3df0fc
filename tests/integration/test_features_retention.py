"""`guidelens retention apply` and the features: what expired leaves the tables and the online store, and comes back only with its shopper."""

import json
import sqlite3
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest
import redis
from byte_search import found_in
from click.testing import CliRunner
from event_frames import at, event, frame

from feature_repo.parts import read_table
from guidelens.config import Config, FeatureConfig, Home, RetentionConfig
from guidelens.data.lake.lake import Lake
from guidelens.data.lake.tables import append
from guidelens.features import Features
from guidelens.presets import tiny
from guidelens.schemas.packed import PACKED_DTYPE
from guidelens.schemas.tables import TEXT_DIM, Table
from pipelines import features, materialize, retention

DAY_S = 86_400
NOW = at(50 * DAY_S)
VISITS = {"gone-long-ago": (0, 3), "comes-still": (1, 45), "comes-again": (2, 4), "came-once": (40,)}
"""By shopper the days of a session; horizon of these tests: day 30."""
PRODUCT = {"product_id": "p0", "title": "t", "category": "c", "text_embedding": [0.1] * TEXT_DIM, "known_ts": at(0)}
TABLES = [pytest.param("sqlite"), pytest.param("redis", marks=pytest.mark.redis)]


@pytest.fixture(params=TABLES)
def config(request: pytest.FixtureRequest) -> Config:
    address = None
    if request.param == "redis":
        host, port = request.getfixturevalue("redis_address").split(":")
        with redis.Redis(host, int(port), db=4) as client:
            client.flushdb()
        address = f"{host}:{port},db=4"
    found = FeatureConfig(online_store=request.param, redis_connection=address)
    return tiny().model_copy(update={"features": found, "retention": RetentionConfig(features_days=20)})


@pytest.fixture
def shop(home: Home, config: Config) -> Home:
    lake = Lake(home.lake_uri)
    lake.commit(lake.manifest(), lake.write(Table.PRODUCTS, frame([PRODUCT], Table.PRODUCTS).to_arrow()), {})
    ingest(home, [visit(key, day) for key, days in VISITS.items() for day in days])
    materialize.run(home, config)
    return home


def visit(key: str, day: int) -> dict[str, Any]:
    return event(day * DAY_S, "view", f"{key} on {day}", key, event_id=f"{key} on {day}", product_id="p0", stay_ms=1000.0)


def ingest(home: Home, rows: list[dict[str, Any]]) -> None:
    lake = Lake(home.lake_uri)
    base = lake.manifest()
    others = [file for file in base.files if file.table is not Table.EVENTS]
    lake.commit(base, [*others, *append(lake, base, Table.EVENTS, frame(rows).sort("event_ts"))], {})


def table(home: Home) -> pl.DataFrame:
    return read_table(home.feast / "offline" / "shopper").sort("shopper_key", "event_timestamp")


def online(home: Home, config: Config) -> set[str]:
    reader = Features(home, config.features).online()
    return {key for key in VISITS if reader.shopper(key) is not None}


def stamped(packed: bytes, moment: datetime) -> bytes:
    offset = PACKED_DTYPE.fields["as_of_us"][1]
    return packed[:offset] + round(moment.timestamp() * 1e6).to_bytes(8, "little") + packed[offset + 8 :]


def test_shoppers_past_the_horizon_leave_tables_and_online_store_with_their_bytes(shop: Home, config: Config) -> None:
    before, reader = table(shop), Features(shop, config.features).online()
    pushed = stamped(reader.shopper("comes-again") or b"", at(49 * DAY_S))
    reader.push_shopper("comes-again", pushed)
    done = retention.run(shop, config, now=NOW)
    assert done.removed == {"feature_rows": 4, "online_shoppers": 1} and done.features_from == NOW - timedelta(days=20)
    assert table(shop).equals(before.filter(pl.col("shopper_key").is_in(["comes-still", "came-once"]))), "history of who still comes stays"
    assert online(shop, config) == {"comes-still", "came-once", "comes-again"} and reader.shopper("comes-again") == pushed, "posted since: not expired"
    assert {path.split("/")[0] for path in found_in(shop.feast, ["gone-long-ago"])} == {"log"}, "what a materialization remembers of the lake"
    assert retention.run(shop, config, now=NOW).removed == {}


def test_no_materialization_brings_them_back_until_they_come_again(shop: Home, config: Config) -> None:
    whole = table(shop)
    retention.run(shop, config, now=NOW)
    kept = table(shop)
    for full in (False, True):
        materialize.run(shop, config, full=full)
        assert table(shop).equals(kept) and online(shop, config) == {"comes-still", "came-once"}
    ingest(shop, [visit("comes-again", 49)])
    found = materialize.run(shop, config)
    assert (found.mode, found.changed_shoppers) == ("incremental", 1)
    mine = pl.col("shopper_key") == "comes-again"
    assert table(shop).filter(mine).head(2).equals(whole.filter(mine)), "with the history that the lake still holds"
    made = table(shop)
    materialize.run(shop, config, full=True)
    assert table(shop).equals(made) and online(shop, config) == {"comes-still", "came-once", "comes-again"}
    backfilled = materialize.run(shop, config, backfill=materialize.Span(at(0), None))
    assert backfilled.mode == "backfill" and table(shop).equals(made)


def test_the_horizon_never_moves_back(shop: Home, config: Config) -> None:
    first = retention.run(shop, config, now=NOW).features_from
    longer = config.model_copy(update={"retention": RetentionConfig(features_days=40)})
    assert retention.run(shop, longer, now=NOW).features_from == first
    assert retention.run(shop, config.model_copy(update={"retention": RetentionConfig()}), now=NOW).features_from == first


def test_online_rows_older_than_their_ttl_go_and_the_tables_stay(home: Home) -> None:
    short = tiny().model_copy(update={"features": FeatureConfig(shopper_ttl_days=20.0)})
    lake = Lake(home.lake_uri)
    lake.commit(lake.manifest(), lake.write(Table.PRODUCTS, frame([PRODUCT], Table.PRODUCTS).to_arrow()), {})
    ingest(home, [visit(key, day) for key, days in VISITS.items() for day in days])
    materialize.run(home, short)
    before = table(home)
    done = retention.run(home, short, now=NOW)
    assert (done.removed, done.features_from) == ({"online_shoppers": 2}, None) and table(home).equals(before)
    (store,) = home.feast.glob("online*.db")
    with sqlite3.connect(store) as connection:
        (left,) = connection.execute("SELECT COUNT(DISTINCT entity_key) FROM guidelens_shopper_packed").fetchone()
    assert left == 2


def test_expired_events_and_features_in_one_verb(shop: Home, config: Config) -> None:
    store = {"features.online_store": config.features.online_store}
    store |= {"features.redis_connection": config.features.redis_connection} if config.features.redis_connection else {}
    given = [argument for name, value in store.items() for argument in ("--set", f"{name}={value}")]
    given += ["--set", "retention.events_days=1", "--set", "retention.features_days=1", "--home", str(shop.root), "--preset", "tiny"]
    result = CliRunner().invoke(retention.command, ["apply", *given])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout.splitlines()[-1])
    assert said["removed"] == {"events": 7, "feature_rows": 7, "online_shoppers": 4} and said["features_from"] is not None
    assert online(shop, config) == set() and len(table(shop)) == 0
    found = materialize.run(shop, config)
    assert (found.mode, found.rows["shopper_packed"]) == ("incremental", 0)


def test_a_check_leaves_out_who_is_too_old_to_be_online(home: Home) -> None:
    short = tiny().model_copy(update={"features": FeatureConfig(shopper_ttl_days=1.0)})
    lake = Lake(home.lake_uri)
    lake.commit(lake.manifest(), lake.write(Table.PRODUCTS, frame([PRODUCT], Table.PRODUCTS).to_arrow()), {})
    ingest(home, [visit("gone-long-ago", -400)])
    materialize.run(home, short)
    assert features.check(home, short, 5).online_equals_offline.equal
