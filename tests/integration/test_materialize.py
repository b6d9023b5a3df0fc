"""The verb on lakes built by hand."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from event_frames import at, event, frame

from feature_repo.parts import read_table
from guidelens.config import FeatureConfig, Home
from guidelens.data.lake.lake import Lake
from guidelens.errors import NotFoundError
from guidelens.features import Features
from guidelens.presets import tiny
from guidelens.schemas.packed import decode
from guidelens.schemas.tables import TEXT_DIM, Table
from pipelines import materialize

HOUR_S = 3600
PRODUCTS = [{"product_id": f"p{k}", "title": "t", "category": "c", "text_embedding": [0.1] * TEXT_DIM, "known_ts": at(10**8)} for k in range(3)]


def fill(home: Home, **tables: list[dict[str, Any]]) -> None:
    lake = Lake(home.lake_uri)
    files = [file for name, rows in tables.items() for file in lake.write(Table(name), frame(rows, Table(name)).to_arrow())]
    lake.commit(lake.manifest(), files, {})


def verb(home: Home, *arguments: str) -> Result:
    return CliRunner().invoke(materialize.command, ["--home", str(home.root), "--preset", "tiny", *arguments])


def test_the_verb_says_where_and_how_much(home: Home) -> None:
    log = [event(0, "click", "s1", "a", product_id="p1"), event(9, "click", "s2", "b", product_id="p1")]
    fill(home, products=PRODUCTS, events=log, shoppers=[{"shopper_key": "a", "created_ts": at(-5)}])
    result = verb(home)
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout.strip().splitlines()[-1])
    assert said["feature_service"] == "guide_v1"
    assert (said["rows"]["shopper_packed"], said["online"]["shopper_packed"], said["rows"]["product_content"]) == (3, 2, 3)
    assert "2 events" in result.stderr
    assert said["full_because"] in result.stderr and "no earlier run" in said["full_because"]
    told = verb(home)
    assert "incremental, 0 shoppers changed" in told.stderr and json.loads(told.stdout.strip().splitlines()[-1])["full_because"] is None


def test_the_last_session_of_the_log_is_online(home: Home) -> None:
    fill(home, products=PRODUCTS, events=[event(0, "click", "s1", "a", product_id="p1", created_ts=at(50))])
    found = materialize.run(home, tiny())
    assert found.as_of == at(50)
    rows, _ = decode([Features(home, FeatureConfig()).online().shopper("a")])
    assert rows["num_recent"].tolist() == [1]


def test_as_of_counts_only_what_was_known_by_then(home: Home) -> None:
    log = [event(0, "click", "s1", "a", product_id="p1"), event(5 * HOUR_S, "click", "s2", "a", product_id="p2", created_ts=at(100 * HOUR_S))]
    log += [event(90 * HOUR_S, "click", "s3", "a", product_id="p1")]
    fill(home, products=PRODUCTS, events=log, shoppers=[{"shopper_key": "late", "created_ts": at(95 * HOUR_S)}])
    assert verb(home, "--as-of", at(90 * HOUR_S).isoformat()).exit_code == 0
    rows, known = decode([Features(home, FeatureConfig()).online().shopper(key) for key in ("a", "late")])
    assert rows["num_recent"].tolist() == [2, 0] and known.tolist() == [True, False]


def test_a_shop_without_a_log_materializes_its_catalogue(home: Home) -> None:
    fill(home, products=PRODUCTS)
    found = materialize.run(home, tiny())
    assert (found.rows["shopper_packed"], found.rows["product_content"], found.as_of) == (0, 3, at(10**8))


def test_forgotten_and_declining_shoppers_get_no_features(home: Home) -> None:
    log = [event(k, "click", f"s{k}", shopper, product_id="p1") for k, shopper in enumerate(["kept", "forgotten", "declined"])]
    shoppers = [{"shopper_key": "declined", "consent": False}, {"shopper_key": "forgotten", "consent": True}]
    fill(home, products=PRODUCTS, events=log, shoppers=shoppers, tombstones=[{"shopper_key": "forgotten", "asked_ts": at(10)}])
    materialize.run(home, tiny())
    online = Features(home, FeatureConfig()).online()
    assert [online.shopper(key) is None for key in ("kept", "forgotten", "declined")] == [False, True, True]


def test_a_shopper_who_declines_later_is_taken_offline(home: Home) -> None:
    fill(home, products=PRODUCTS, events=[event(k, "click", f"s{k}", shopper, product_id="p1") for k, shopper in enumerate(["kept", "leaves", "declines"])])
    materialize.run(home, tiny())
    online = Features(home, FeatureConfig()).online()
    assert all(online.shopper(key) for key in ("kept", "leaves", "declines"))
    lake = Lake(home.lake_uri)
    said = {Table.SHOPPERS: [{"shopper_key": "declines", "consent": False}], Table.TOMBSTONES: [{"shopper_key": "leaves", "asked_ts": at(10)}]}
    written = [file for table, rows in said.items() for file in lake.write(table, frame(rows, table).to_arrow())]
    lake.commit(lake.manifest(), [*lake.manifest().files, *written], {})
    materialize.run(home, tiny())
    assert [online.shopper(key) is None for key in ("kept", "leaves", "declines")] == [False, True, True]


def test_twice_gives_the_same_tables(home: Home) -> None:
    fill(home, products=PRODUCTS, events=[event(k, "click", f"s{k % 7}", "ab"[k % 2], product_id="p1") for k in range(30)])
    tables = []
    for _ in range(2):
        materialize.run(home, tiny(), full=True)
        tables.append([read_table(home.feast / "offline" / name) for name in ("shopper", "product.parquet")])
    assert all(first.equals(second) for first, second in zip(*tables, strict=True))


def test_a_changed_price_is_online_after_the_next_run(home: Home) -> None:
    lake = Lake(home.lake_uri)
    for price in (100, 200):
        rows = [{**PRODUCTS[0], "price_minor": price, "known_ts": at(price)}]
        lake.commit(lake.manifest(), lake.write(Table.PRODUCTS, frame(rows, Table.PRODUCTS).to_arrow()), {})
        materialize.run(home, tiny())
        assert Features(home, FeatureConfig()).online().stock_and_price(["p0"])["p0"].price_minor == price


@pytest.mark.parametrize("given", ["yesterday", "2026-03-01T00:00:00"])
def test_a_time_that_is_none_is_refused_with_the_remedy(home: Home, given: str) -> None:
    result = verb(home, "--as-of", given)
    assert result.exit_code != 0
    assert "--as-of" in str(result.exception) and given in str(result.exception)


def test_an_empty_lake_names_the_remedy(home: Home) -> None:
    with pytest.raises(NotFoundError, match="guidelens ingest"):
        materialize.run(home, tiny())
    assert not (Path(home.root) / "feast").exists()


def test_rows_are_stamped_a_microsecond_after_what_they_count(home: Home) -> None:
    fill(home, products=PRODUCTS, events=[event(7, "click", "s1", "a", product_id="p1")])
    materialize.run(home, tiny())
    assert read_table(home.feast / "offline" / "shopper")["event_timestamp"].to_list() == [at(7) + timedelta(microseconds=1)]
