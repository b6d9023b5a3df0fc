"""Features through the real Feast: own offline store, sqlite, and redis where a redis-server is installed."""

import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from event_frames import at, event, frame

from guidelens.config import FEATURE_SERVICE, FeatureConfig, Home
from guidelens.data.features.products import product_rows
from guidelens.data.features.shoppers import shopper_rows
from guidelens.data.pseudonyms import PseudonymousEvent
from guidelens.data.visits import visits
from guidelens.errors import NotFoundError
from guidelens.features import ENTITY_COLUMNS, Features, OnlineReader, StockAndPrice, feature_repo_path
from guidelens.schemas.packed import PACKED_DTYPE, decode
from guidelens.schemas.tables import IMAGE_DIM, TEXT_DIM, Table

NUM_SHOPPERS, NUM_PRODUCTS = 12, 5
LATER = at(10**7)


def a_log(seed: int = 0) -> pl.DataFrame:
    chance = random.Random(seed)
    rows = []
    for k in range(60):
        shopper, start, product = f"shopper-{chance.randrange(NUM_SHOPPERS)}", chance.randrange(10**6), f"p{chance.randrange(NUM_PRODUCTS)}"
        named = {"session": f"s{k}", "shopper": shopper, "product_id": product}
        rows.append(event(start, "impression", position=1, browse_ms=chance.random() * 1e4, **named))
        rows.append(event(start + 9.5, "view", stay_ms=chance.random() * 1e5, depth=chance.randrange(5), **named))
        rows.append(event(start + 60, "ar_view", view_ms=chance.random() * 1e4, **named))
        rows.append(event(start + 61, "step_outcome", step_index=0, outcome="cart", **named))
    return frame(rows)


def some_shoppers() -> pl.DataFrame:
    known = [{"shopper_key": f"shopper-{k}", "age_band": "25-34", "height_cm": 150.25 + k, "created_ts": at(k)} for k in range(0, NUM_SHOPPERS, 2)]
    return frame([*known, {"shopper_key": "never-seen", "region": "北"}], Table.SHOPPERS)


def some_products() -> pl.DataFrame:
    vector = np.linspace(-1, 1, TEXT_DIM, dtype=np.float32)
    rows = [
        {
            "product_id": f"p{k}",
            "title": f"Product {k}",
            "title_zh": "红色" if k else None,
            "category": "a/b",
            "images": ["1.jpg"] * k,
            "price_minor": 10**10 - k if k != 1 else None,
            "currency": "EUR",
            "stock": k if k != 2 else None,
            "width_m": 0.1 * k if k else None,
            "text_embedding": (vector * k).tolist(),
            "text_zh_embedding": vector.tolist() if k else None,
            "known_ts": at(10**9),  # the catalogue became known after the log
        }
        for k in range(NUM_PRODUCTS)
    ]
    return frame(rows, Table.PRODUCTS)


def some_photos() -> pl.DataFrame:
    def photo(name: str, product: str | None, level: float, catalogue: bool) -> dict:
        return {
            "path": name,
            "sha256": name,
            "product_id": product,
            "is_catalogue_image": catalogue,
            "embedding": [level] * IMAGE_DIM,
            "image_encoder": "enc",
        }

    return frame(
        [
            photo("a", "p0", 1.0, True),
            photo("b", "p0", 2.0, True),
            photo("c", "p0", 9.0, False),
            photo("d", "p1", 3.0, False),
            photo("e", "p1", 6.0, False),
            photo("f", None, 5.0, False),
        ],
        Table.PHOTOS,
    )


def rows_of(log: pl.DataFrame) -> pl.DataFrame:
    return shopper_rows(visits(log), log, some_shoppers())


@pytest.fixture(scope="module", params=["sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Features:
    """A materialized home; tests only read of the shoppers named shopper-*."""
    address = request.getfixturevalue("redis_address") if request.param == "redis" else None
    features = Features(Home(root=tmp_path_factory.mktemp("home")), FeatureConfig(online_store=request.param, redis_connection=address))
    features.materialize(rows_of(a_log()), product_rows(some_products(), some_photos()), LATER)
    return features


def packed_at(micros: int) -> bytes:
    row = np.zeros((), dtype=PACKED_DTYPE)
    row["version"], row["as_of_us"] = 1, micros
    return row.tobytes()


def test_online_equals_offline_bit_for_bit(filled: Features) -> None:
    rows = rows_of(a_log())
    keys = rows["shopper_key"].unique().sort()
    offline = filled.shopper_frame(pl.DataFrame({"shopper_key": keys}).with_columns(event_timestamp=pl.lit(LATER)))
    online = filled.online()
    assert len(keys) > 10
    assert [online.shopper(key) for key in keys] == offline["packed"].to_list() == rows.group_by("shopper_key").last().sort("shopper_key")["packed"].to_list()


def test_rows_are_put_online_as_feast_itself_would_put_them(filled: Features) -> None:
    from feast.utils import _convert_arrow_to_proto

    from feature_repo.entity_rows import entity_rows
    from feature_repo.moments import microseconds

    rows = rows_of(a_log())
    rows = pl.concat([rows, rows.head(1).with_columns(height_cm=pl.lit(float("nan"), pl.Float32), region=pl.lit(None, pl.String))])
    assert rows["height_cm"].null_count() > 0 and (rows["recent_products"].list.len() == 0).any()
    views = [view for view in filled._store().list_feature_views() if view.entities == ["shopper"]]
    for view in views:
        keys = {column.name: column.dtype.to_value_type() for column in view.entity_columns}
        wanted = rows.select(*keys, "event_timestamp", *(feature.name for feature in view.features))
        expected = _convert_arrow_to_proto(wanted.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest()), view, keys)
        found = entity_rows(rows, view)
        assert [(key, values, microseconds(moment)) for key, values, moment, _ in found] == [
            (key, values, microseconds(moment)) for key, values, moment, _ in expected
        ], view.name
    assert len(views) == 5


def test_detail_views_are_online_with_the_packed_rows_numbers(filled: Features) -> None:
    newest = rows_of(a_log()).group_by("shopper_key").last().sort("shopper_key")
    store = filled._store()
    service = store.get_feature_service("guide_detail_v1")
    found = store.get_online_features(service, [{"shopper_key": key} for key in newest["shopper_key"]]).to_dict()
    for name in newest.columns:
        if name not in (*ENTITY_COLUMNS, "packed"):
            assert found[name] == newest[name].to_list(), name


def test_an_unknown_shopper_has_no_row(filled: Features) -> None:
    assert filled.online().shopper("nobody") is None
    assert filled.shopper_frame(pl.DataFrame({"shopper_key": ["nobody"], "event_timestamp": [LATER]}))["packed"].to_list() == [None]


def test_the_product_snapshot_equals_the_online_view(filled: Features) -> None:
    products = filled.products()
    assert products["product_id"].to_list() == [f"p{k}" for k in range(NUM_PRODUCTS)]
    store = filled._store()
    names = [feature.name for feature in store.get_feature_view("product_content").features]
    refs = [f"product_content:{name}" for name in names]
    found = store.get_online_features(refs, [{"product_id": key} for key in products["product_id"]]).to_dict()
    for name in names:
        assert found[name] == products[name].to_list(), name


def test_the_image_embedding_is_of_catalogue_images_else_of_labelled_photos(filled: Features) -> None:
    means = [None if row is None else row[0] for row in filled.products()["image_embedding"].to_list()]
    assert means == [1.5, 4.5, None, None, None]


def test_stock_and_price_come_in_one_read_with_their_nulls(filled: Features) -> None:
    found = filled.online().stock_and_price(["p2", "p1", "unheard-of", "p3"])
    assert found == {"p2": StockAndPrice(None, 10**10 - 2, "EUR"), "p1": StockAndPrice(1, None, "EUR"), "p3": StockAndPrice(3, 10**10 - 3, "EUR")}
    assert filled.online().stock_and_price([]) == {}


def test_an_older_push_never_overwrites_a_newer_row(filled: Features) -> None:
    online = filled.online()
    first, second, older = packed_at(5_000_000), packed_at(5_000_001), packed_at(4_999_999)
    for pushed, expected in ((first, first), (second, second), (older, second), (first, second)):
        online.push_shopper("pushed", pushed)
        assert online.shopper("pushed") == expected


def test_an_observed_event_is_in_the_shoppers_next_row(filled: Features) -> None:
    key = "c" * 64
    click = {"event_id": "e", "event_ts": at(0), "session_id": "s", "type": "click", "product_id": "p1"}
    online = filled.online()
    online.observe([PseudonymousEvent(**click, shopper_key=key, key_id="k", is_anonymous=False)])
    rows, known = decode([online.shopper(key)])
    assert known[0] and rows["num_recent"][0] == 1
    assert online.forget(key) == 1


def test_materializing_keeps_what_was_pushed_later(filled: Features) -> None:
    online = filled.online()
    key = rows_of(a_log())["shopper_key"][0]
    before = online.shopper(key)
    assert before is not None
    later = packed_at(int(np.frombuffer(before, dtype=PACKED_DTYPE)[0]["as_of_us"]) + 1)
    online.push_shopper(key, later)
    try:
        filled.materialize(rows_of(a_log()), product_rows(some_products(), some_photos()), LATER)
        assert online.shopper(key) == later
    finally:
        online.forget(key)
        online.push_shopper(key, before)


def test_forget_removes_a_shopper_everywhere(filled: Features) -> None:
    log = pl.concat([a_log(), frame([event(5, "click", "gone", "gone", product_id="p1"), event(9, "click", "gone2", "gone", product_id="p1")])])
    filled.materialize(rows_of(log), product_rows(some_products(), some_photos()), LATER)
    entity = pl.DataFrame({"shopper_key": ["gone", "shopper-1"], "event_timestamp": [LATER, LATER]})
    assert filled.shopper_frame(entity)["packed"].is_null().to_list() == [False, False]
    num_views = 5
    assert filled.forget("gone") == 2 + num_views
    assert filled.online().shopper("gone") is None
    assert filled.shopper_frame(entity)["packed"].is_null().to_list() == [True, False]
    assert filled.forget("gone") == 0


def test_of_many_writers_at_once_the_newest_value_stays(filled: Features) -> None:
    order = list(range(1, 400))
    random.Random(3).shuffle(order)
    readers = [Features(filled.home, filled.config).online() for _ in range(4)]

    def push(k: int) -> None:
        readers[k % 4].push_shopper("contended", packed_at(order[k]))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(push, range(len(order))))
    assert filled.online().shopper("contended") == packed_at(max(order))
    assert filled.online().forget("contended") == 1


def test_status_tells_rows_age_and_what_is_online(filled: Features) -> None:
    rows = rows_of(a_log())
    newest = rows["event_timestamp"].max()
    found = filled.status(newest + timedelta(hours=2))
    assert set(found) == {view.name for view in filled._store().list_feature_views()}
    assert (found["shopper_windows"].rows, found["shopper_windows"].newest, found["shopper_windows"].age_s) == (len(rows), newest, 7200.0)
    assert found["shopper_windows"].online_entities == rows["shopper_key"].n_unique()
    assert (found["product_stock"].rows, found["product_stock"].online_entities, found["product_stock"].ttl_s) == (NUM_PRODUCTS, NUM_PRODUCTS, None)


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def test_a_row_older_than_the_ttl_is_neither_trained_on_nor_served(kind: str, home: Home, request: pytest.FixtureRequest) -> None:
    """Boundaries are the same: a row of exactly the ttl's age still counts."""
    day = timedelta(days=1)
    now = datetime.now(UTC)
    address = f"{request.getfixturevalue('redis_address')},db=1" if kind == "redis" else None
    features = Features(home, FeatureConfig(online_store=kind, redis_connection=address, shopper_ttl_days=1.0))
    stamps = {"fresh": now - timedelta(hours=1), "stale": now - timedelta(hours=25)}
    log = frame([event(0, "click", f"of {key}", key, product_id="p1", event_ts=stamp, created_ts=stamp) for key, stamp in stamps.items()])
    rows = shopper_rows(visits(log), log, frame([], Table.SHOPPERS))
    features.materialize(rows, product_rows(some_products(), some_photos()), now)
    known_from = dict(rows.select("shopper_key", "event_timestamp").iter_rows())

    def offline(key: str, at: datetime) -> bytes | None:
        return features.shopper_frame(pl.DataFrame({"shopper_key": [key]}).with_columns(event_timestamp=pl.lit(at)))["packed"][0]

    assert (offline("fresh", now) is None, offline("stale", now) is None) == (False, True)
    online = features.online()
    assert (online.shopper("fresh") is None, online.shopper("stale") is None) == (False, True)
    for late, gone in ((timedelta(0), False), (timedelta(microseconds=1), True)):
        moment = known_from["fresh"] + day + late
        assert (OnlineReader(features._store(), lambda m=moment: m).shopper("fresh") is None, offline("fresh", moment) is None) == (gone, gone)
    assert online.stock_and_price(["p3"])["p3"].stock == 3, "the catalogue does not go stale"
    if kind == "redis":
        assert features.status(now)["shopper_packed"].online_entities == 1, "Redis has let the stale shopper go"
    online.push_shopper("fresh", packed_at(int((now - day / 2).timestamp() * 1e6)))
    assert online.shopper("fresh") is not None


def test_threads_read_and_write_at_once(filled: Features) -> None:
    online = filled.online()
    keys = rows_of(a_log())["shopper_key"].unique().to_list()
    expected = {key: online.shopper(key) for key in keys}

    def work(k: int) -> bool:
        if k % 5 == 0:
            online.push_shopper(f"thread-{k}", packed_at(k))
            return online.shopper(f"thread-{k}") == packed_at(k)
        return online.shopper(keys[k % len(keys)]) == expected[keys[k % len(keys)]]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(300)))


def test_a_frame_has_the_rows_asked_for_in_their_order_whatever_was_known(filled: Features) -> None:
    rows = rows_of(a_log())
    chance = random.Random(1)
    asked = [(chance.choice([*rows["shopper_key"], "nobody"]), at(chance.randrange(-100, 10**6))) for _ in range(500)]
    asked += [(row["shopper_key"], row["event_timestamp"] + timedelta(microseconds=d)) for row in rows.head(50).to_dicts() for d in (-1, 0, 1)]
    entities = pl.DataFrame(asked, schema={"shopper_key": pl.String, "event_timestamp": pl.Datetime("us", "UTC")}, orient="row").with_row_index("nth")
    found = filled.shopper_frame(entities)
    assert found.drop("packed").equals(entities)
    by_shopper = rows.partition_by("shopper_key", as_dict=True)
    for key, moment, packed in found.select("shopper_key", "event_timestamp", "packed").iter_rows():
        mine = by_shopper.get((key,), rows.clear()).filter(pl.col("event_timestamp") <= moment)
        assert packed == (mine["packed"][-1] if len(mine) else None)


def test_an_empty_frame_stays_empty(filled: Features) -> None:
    assert filled.shopper_frame(pl.DataFrame(schema={"shopper_key": pl.String, "event_timestamp": pl.Datetime("us", "UTC")})).columns[-1] == "packed"


def test_a_shop_without_shoppers_has_its_products_and_the_whole_registry(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = frame([])
    nobody = shopper_rows(visits(empty), empty, frame([], Table.SHOPPERS))
    features = Features(home, FeatureConfig())
    report = features.materialize(nobody, product_rows(some_products(), some_photos().clear()), at(0))
    assert (report.rows["shopper_packed"], report.online["shopper_packed"], report.online["product_content"]) == (0, 0, NUM_PRODUCTS)
    assert features.online().shopper("somebody") is None
    assert features.products()["image_embedding"].is_null().all()

    from feast import FeatureStore

    monkeypatch.setenv("GUIDELENS_HOME", str(home.root))
    store = FeatureStore(repo_path=str(feature_repo_path()))
    assert {entity.name for entity in store.list_entities()} == {"shopper", "product"}
    assert {view.name for view in store.list_feature_views()} >= {"shopper_profile", "shopper_windows", "shopper_recent", "shopper_ar", "product_content"}
    assert FEATURE_SERVICE in {service.name for service in store.list_feature_services()}
    assert store.get_online_features(["product_stock:stock"], [{"product_id": "p3"}]).to_dict()["stock"] == [3]


def test_reading_before_anything_was_materialized_names_the_remedy(home: Home) -> None:
    features = Features(home, FeatureConfig())
    for ask in (features.online, features.products, lambda: features.shopper_frame(pl.DataFrame())):
        with pytest.raises(NotFoundError, match="guidelens materialize"):
            ask()
    assert features.forget("anybody") == 0
    assert not Path(home.root).exists()


def test_opening_a_store_turns_no_warnings_on() -> None:
    code = "import warnings; from guidelens.features import store as features; before = list(warnings.filters); features._import_feast(); assert warnings.filters == before"
    subprocess.run([sys.executable, "-c", code], check=True)
