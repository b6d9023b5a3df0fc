"""Published logs through the verb: what their protocols need can be computed from the lake alone."""

from pathlib import Path

import polars as pl
import pytest
from adapted_folders import FORMS, write_bandit, write_beauty

from guidelens import presets
from guidelens.config import Home
from guidelens.data.adapters import load
from guidelens.data.lake.lake import Lake
from guidelens.data.records.sources import Kind
from guidelens.schemas.tables import Table
from pipelines import ingest

pytestmark = pytest.mark.usefixtures("ray_cluster")
CONFIG = presets.load("tiny")


def test_each_log_is_taken_in_whole_and_its_protocol_read_from_the_lake(home: Home, tmp_path: Path) -> None:
    (tmp_path / "ml").mkdir()
    FORMS["100k"](tmp_path / "ml")
    folders = {"open-bandit": write_bandit(tmp_path / "obd"), "amazon-beauty": write_beauty(tmp_path / "beauty"), "movielens": tmp_path / "ml"}
    for name, folder in folders.items():
        result = ingest.run(home, CONFIG, load(name, folder).write(home.work / "adapters" / name))
        assert not any((*result.quarantined.values(), *result.duplicate.values()))
        assert result.accepted[Kind.EVENTS] == result.read[Kind.EVENTS]
    lake = Lake(home.lake_uri, home.s3)
    events, products = lake.read(Table.EVENTS), lake.read(Table.PRODUCTS)
    assert products.height == 2 + 3 + 2

    shown = events.filter(pl.col("type") == "impression")
    clicked = shown.join(events.filter(pl.col("type") == "click"), on="request_id", how="left").with_columns(click=pl.col("event_id_right").is_not_null())
    by_policy = clicked.group_by("release").agg(pl.col("click").mean(), weighted=(pl.col("click") / pl.col("propensity")).mean()).sort("release")
    assert by_policy.rows() == [("bts", 0.5, pytest.approx(0.5 / 0.03)), ("random", 0.5, 1.0)]

    bought = events.filter(pl.col("type") == "purchase").with_columns(day=pl.col("event_ts").dt.date())
    last = bought.filter(pl.col("day") == pl.col("day").max())
    assert sorted(last["product_id"]) == ["b-1", "b-3"], "the leave-one-out test items"

    rated = events.filter(pl.col("rating").is_not_null()).sort("event_id")
    assert rated.select((pl.col("rating") >= 4).alias("liked"), "rating").rows() == [(True, 4.0), (False, 3.0), (False, 0.5)]
    assert rated["type"].to_list() == ["click", "view", "view"]
    assert lake.read(Table.REVIEWS).height == 2
