"""The offline store against a plain loop: rows out == rows in, nulls kept, ties decided, no future."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest
from event_frames import at
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_repo.polars_offline_store import write_parquet

UTC_US = pl.Datetime("us", "UTC")
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two views on entity columns of their own, one with a ttl of a day, both with created timestamps."""
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
    from feast.types import Int64, String
    from feast.value_type import ValueType

    root = tmp_path_factory.mktemp("offline")
    store = FeatureStore(
        config=RepoConfig(
            project="test",
            provider="local",
            registry=str(root / "registry.db"),
            offline_store={"type": "feature_repo.polars_offline_store.PolarsOfflineStore", "root": str(root)},
            online_store={"type": "feature_repo.sqlite_online_store.NewerWinsSqliteOnlineStore", "path": str(root / "online.db")},
            batch_engine={"type": "local", "backend": "polars"},
            entity_key_serialization_version=3,
        )
    )
    who = Entity(name="who", join_keys=["who"], value_type=ValueType.STRING)
    what = Entity(name="what", join_keys=["what"], value_type=ValueType.STRING)
    sources = {name: FileSource(name=name, path=f"{name}.parquet", timestamp_field="ts", created_timestamp_column="made") for name in ("who", "what")}
    fields = [Field(name="number", dtype=Int64), Field(name="word", dtype=String)]
    views = [
        FeatureView(name="who_view", entities=[who], schema=fields, source=sources["who"], ttl=timedelta(0)),
        FeatureView(name="what_view", entities=[what], schema=[Field(name="price", dtype=Int64)], source=sources["what"], ttl=DAY),
    ]
    write(root, "who", [])
    write(root, "what", [])
    store.apply([who, what, *views])
    return store


def write(root: Path, name: str, rows: list[tuple]) -> None:
    values = {"number": pl.Int64, "word": pl.String} if name == "who" else {"price": pl.Int64}
    schema = {name: pl.String, "ts": UTC_US, "made": UTC_US} | values
    write_parquet(pl.DataFrame(rows, schema=schema, orient="row"), root / f"{name}.parquet")


def ask(store: Any, asked: list[tuple[str | None, str | None, datetime]], **options: Any) -> pl.DataFrame:
    entities = pl.DataFrame(asked, schema={"who": pl.String, "what": pl.String, "event_timestamp": UTC_US}, orient="row")
    found = store.get_historical_features(entities.to_pandas(), ["who_view:number", "who_view:word", "what_view:price"], **options).to_arrow()
    return pl.DataFrame(pl.from_arrow(found))


def newest(rows: list[tuple], key: str | None, when: datetime, ttl: timedelta | None) -> tuple | None:
    known = [(row[1], row[2], nth, row) for nth, row in enumerate(rows) if key is not None and row[0] == key and row[1] <= when]
    best = max(known, default=None)
    return best[3] if best and (ttl is None or best[1 - 1] >= when - ttl) else None


moments = st.integers(0, 12).map(lambda hours: at(6 * 3600 * hours))
keys = st.sampled_from(["a", "b", "c"])
who_rows = st.lists(st.tuples(keys, moments, moments, st.one_of(st.none(), st.integers(-9, 9)), st.one_of(st.none(), st.text(max_size=3))), max_size=15)
what_rows = st.lists(st.tuples(keys, moments, moments, st.one_of(st.none(), st.integers(2**53, 2**60))), max_size=15)
asked_rows = st.lists(st.tuples(st.one_of(st.none(), keys), st.one_of(st.none(), keys), moments), min_size=1, max_size=25)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(who=who_rows, what=what_rows, asked=asked_rows)
def test_each_row_gets_the_newest_known_by_then(store: Any, who: list[tuple], what: list[tuple], asked: list[tuple]) -> None:
    root = Path(store.config.offline_store.root)
    write(root, "who", who)
    write(root, "what", what)
    found = ask(store, asked)
    assert found.select("who", "what", "event_timestamp").rows() == asked
    for (who_key, what_key, when), row in zip(asked, found.iter_rows(named=True), strict=True):
        known_who, known_what = newest(who, who_key, when, None), newest(what, what_key, when, DAY)
        assert (row["number"], row["word"]) == (known_who[3:] if known_who else (None, None))
        assert row["price"] == (known_what[3] if known_what else None)


def test_one_shopper_and_a_hundred_products_at_one_time_stay_a_hundred_rows(store: Any) -> None:
    root = Path(store.config.offline_store.root)
    write(root, "who", [("a", at(0), at(0), 1, "x")])
    write(root, "what", [(f"p{k}", at(0), at(0), k) for k in range(100)])
    found = ask(store, [("a", f"p{k}", at(60)) for k in range(100)])
    assert found["price"].to_list() == list(range(100))
    assert found["number"].to_list() == [1] * 100


def test_full_names_keep_views_apart_and_a_clash_is_refused(store: Any) -> None:
    write(Path(store.config.offline_store.root), "who", [("a", at(0), at(0), 1, "x")])
    assert "who_view__number" in ask(store, [("a", None, at(1))], full_feature_names=True).columns
    entities = pd.DataFrame({"who": ["a"], "number": [7], "event_timestamp": [at(1)]})
    with pytest.raises(ValueError, match="full_feature_names"):
        store.get_historical_features(entities, ["who_view:number"]).to_arrow()


def test_times_without_a_zone_are_utc(store: Any) -> None:
    write(Path(store.config.offline_store.root), "who", [("a", at(10), at(10), 1, "x")])
    entities = pd.DataFrame({"who": ["a", "a"], "event_timestamp": pd.to_datetime([at(9), at(10)]).tz_localize(None)})
    found = store.get_historical_features(entities, ["who_view:number"]).to_df()
    assert found["number"].isna().tolist() == [True, False]


def test_written_rows_are_appended_and_found(store: Any) -> None:
    root = Path(store.config.offline_store.root)
    write(root, "who", [("a", at(0), at(0), 1, "x")])
    added = pd.DataFrame({"who": ["a"], "ts": [at(5)], "made": [at(5)], "number": [2], "word": ["y"]})
    store.write_to_offline_store("who_view", added)
    assert ask(store, [("a", None, at(4)), ("a", None, at(5))])["number"].to_list() == [1, 2]


def test_a_saved_dataset_is_what_was_asked_for(store: Any) -> None:
    from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

    root = Path(store.config.offline_store.root)
    write(root, "who", [("a", at(0), at(0), 1, "x")])
    entities = pd.DataFrame({"who": ["a", "b"], "event_timestamp": [at(1), at(1)]})
    job = store.get_historical_features(entities, ["who_view:number"])
    job.persist(SavedDatasetFileStorage("saved.parquet"))
    assert pl.read_parquet(root / "saved.parquet")["number"].to_list() == [1, None]
    with pytest.raises(FileExistsError, match="allow_overwrite"):
        job.persist(SavedDatasetFileStorage("saved.parquet"))
