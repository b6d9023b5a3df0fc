"""Another backbone by config alone: a shop's own encoders, of other widths, through ingest, train and release to an answer for a frame."""

import asyncio
import contextlib
import io
from pathlib import Path

import polars as pl
import pytest

from guidelens import presets
from guidelens.config import Home
from guidelens.data.records.sources import IngestSources
from guidelens.errors import ConfigError
from guidelens.world import generate
from pipelines import ingest, materialize, release, train
from serve.messages import RecognizeCall, RecognizeReply
from serve.recognizer import Recognizer

OWN = ["ingest.encoders.image=tests.own_encoders:Places", "ingest.encoders.text=tests.own_encoders:Grams"]
SEED = 5


def test_own_encoders_serve_a_shop_and_others_do_not_answer_for_them(ray_cluster: None, tmp_path: Path) -> None:
    home, config = Home(root=tmp_path / "home"), presets.load("tiny", OWN, seed=SEED)
    world = generate(config.demo.world, SEED, tmp_path / "world")
    with contextlib.redirect_stderr(io.StringIO()):
        ingest.run(home, config, IngestSources(catalogue=str(world.catalogue), photos=str(world.photos)))
        materialize.run(home, config)
        released = release.run(home, train.run(home, config).run)
    bundle = home.releases / released.version
    assert not (bundle / "encoder.onnx").exists(), "a device cannot run what is not ours to write down"
    items = pl.read_parquet(bundle / "items.parquet")
    assert (items["image_encoder"].drop_nulls().unique().to_list(), items["text_encoder"].unique().to_list()) == (["places-1-1280"], ["grams-1-512"])

    assert world.holdout is not None
    labels = pl.read_csv(world.holdout / "labels.csv").head(24)
    served, right = Recognizer(home, released.version), 0
    for path, product_id in labels.select("path", "product_id").iter_rows():
        seen = asyncio.run(served.handle(RecognizeCall(released.version, (world.holdout / path).read_bytes(), None)))
        assert isinstance(seen, RecognizeReply)
        right += product_id in [items["product_id"][row] for row in seen.rows[:3].tolist()]
    assert right > len(labels) / 4, "what the first blocks see is worth something"

    with contextlib.redirect_stderr(io.StringIO()), pytest.raises(ConfigError, match=r"must be of .*, got (grams|places)-1-.*ingest"):
        release.run(home, train.run(home, presets.load("tiny", seed=SEED)).run)
