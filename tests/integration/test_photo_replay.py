"""Refused photos, label lines and 3-D models come back through the command line, read anew where they lie."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import simplejpeg
import trimesh
from click.testing import CliRunner
from faulty_s3 import BUCKET, client_of, s3_api

from guidelens import presets
from guidelens.config import Home
from guidelens.data.lake.lake import Lake
from guidelens.data.records.sources import IngestSources, Kind
from guidelens.schemas.tables import Table
from pipelines import ingest, quarantine

pytestmark = pytest.mark.usefixtures("ray_cluster")
LOW_CAP = presets.load("tiny", ["ingest.max_photo_pixels=10000"])


def photo(seed: int, size: int = 64) -> bytes:
    data: bytes = simplejpeg.encode_jpeg(np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8))
    return data


def model() -> bytes:
    data: bytes = trimesh.Scene(trimesh.creation.box((0.3, 0.2, 0.1))).export(file_type="glb")
    return data


def shop_in(folder: Path) -> tuple[str, str]:
    """A catalogue and photos: one good, one above the low cap, one cut off, one that is text, one that will be gone, and two bad models."""
    photos = folder / "photos"
    (photos / "sub").mkdir(parents=True)
    files = {"good.jpg": photo(0), "large.jpg": photo(1, 128), "sub/cut.jpg": photo(2)[:-300], "text.jpg": b"hello", "gone.jpg": b"", "same.jpg": photo(0)}
    for name, data in {**files, "chair.glb": model()[:-4], "lamp.glb": b"no model"}.items():
        (photos / name).write_bytes(data)
    (photos / "photos.csv").write_text("path,product_id\nlarge.jpg,p-2\nsame.jpg,p-3\n")
    named: tuple[dict[str, Any], ...] = (
        {"product_id": "p-1", "images": ["sub/cut.jpg", "good.jpg"], "model_3d": "./chair.glb"},
        {"product_id": "p-2", "model_3d": "lamp.glb"},
    )
    catalogue = folder / "catalogue.jsonl"
    catalogue.write_text("".join(json.dumps({"title": "Thing", "category": "things", **one}) + "\n" for one in named))
    return str(catalogue), str(photos)


def replay(home: Home, *arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(quarantine.command, ["replay", "--preset", "tiny", *arguments, "--home", str(home.root)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    last: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    for kind, tried in last["tried"].items():
        assert tried == last["released"][kind] + last["left"][kind]
        assert last["released"][kind] == last["accepted"][kind] + last["duplicate"][kind] + last["forgotten"][kind]
        assert last["left"][kind] == sum(why["records"] for why in last["reasons"][kind].values())
    return last


def reasons(done: dict[str, Any], kind: Kind) -> dict[str, int]:
    return {rule: why["records"] for rule, why in done["reasons"][kind].items()}


def photos_of(lake: Lake) -> pl.DataFrame:
    return lake.read(Table.PHOTOS).sort("path")


def test_photos_and_models_that_are_good_now_are_taken_in_and_the_others_stay_with_the_reason(home: Home, tmp_path: Path) -> None:
    catalogue, folder = shop_in(tmp_path)
    taken = ingest.run(home, LOW_CAP, IngestSources(catalogue=catalogue, photos=folder))
    assert (taken.accepted[Kind.PHOTOS], taken.quarantined[Kind.PHOTOS], taken.quarantined[Kind.MODELS]) == (2, 5, 2)
    (Path(folder) / "sub" / "cut.jpg").write_bytes(photo(2))
    (Path(folder) / "chair.glb").write_bytes(model())
    (Path(folder) / "gone.jpg").unlink()
    with (tmp_path / "catalogue.jsonl").open("a") as sink:
        sink.write(json.dumps({"product_id": "p-3", "title": "Late", "category": "things"}) + "\n")
    ingest.run(home, LOW_CAP, IngestSources(catalogue=catalogue))

    lake = Lake(home.lake_uri)
    before = lake.manifest().version
    done = replay(home)
    assert (done["tried"], done["released"]) == ({"photos": 5, "models": 2}, {"photos": 3, "models": 1})
    assert (done["accepted"], done["duplicate"]) == ({"photos": 3, "models": 1}, {"photos": 0, "models": 0})
    assert reasons(done, Kind.PHOTOS) == {"frame_type": 1, "file.missing": 1}
    assert done["reasons"]["photos"]["file.missing"]["first"] == f"{folder}/gone.jpg"
    assert reasons(done, Kind.MODELS) == {"model_3d.format": 1}
    assert done["manifest"] == before + 1 == lake.manifest().version, "one commit took them out and took them in"

    found = photos_of(lake).select("path", "product_id", "is_catalogue_image", pl.col("thumbnail").is_not_null())
    assert found.rows() == [
        ("good.jpg", "p-1", True, True),
        ("large.jpg", "p-2", False, True),
        ("same.jpg", "p-3", False, True),
        ("sub/cut.jpg", "p-1", True, True),
    ]
    assert lake.read(Table.MODELS)["path"].to_list() == ["chair.glb"]
    assert sorted(lake.read(Table.QUARANTINE)["source"]) == [f"{folder}/{name}" for name in ("gone.jpg", "lamp.glb", "text.jpg")]

    again = replay(home)
    assert (again["tried"], again["released"], again["manifest"]) == ({"photos": 2, "models": 1}, {"photos": 0, "models": 0}, done["manifest"])
    ingested = ingest.run(home, presets.load("tiny"), IngestSources(catalogue=catalogue, photos=folder))
    assert (ingested.accepted[Kind.PHOTOS], ingested.accepted[Kind.MODELS]) == (0, 0), "a replay gives what an ingest of the folder gives"


def test_a_photo_is_read_again_from_s3_and_one_that_an_ingest_took_in_meanwhile_is_a_duplicate(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_api() as s3:
        for name, value in {
            "AWS_ENDPOINT_URL_S3": s3.endpoint_url,
            "AWS_REGION": s3.region,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }.items():
            monkeypatch.setenv(name, str(value))
        client, there = client_of(s3), f"s3://{BUCKET}/refused"  # moto keeps its buckets as long as the process
        for name, data in {"a.jpg": b"bad", "b.jpg": b"bad too", "c.jpg": photo(3)}.items():
            client.put_object(Bucket=BUCKET, Key=f"refused/{name}", Body=data)
        home = home.model_copy(update={"s3": s3})
        ingest.run(home, presets.load("tiny"), IngestSources(photos=there))
        client.put_object(Bucket=BUCKET, Key="refused/a.jpg", Body=photo(4))
        ingest.run(home, presets.load("tiny"), IngestSources(photos=there))
        client.put_object(Bucket=BUCKET, Key="refused/b.jpg", Body=photo(5))
        client.close()

        done = replay(home, "--kind", "photos")
        assert (done["tried"], done["accepted"], done["duplicate"]) == ({"photos": 2}, {"photos": 1}, {"photos": 1})
        lake = Lake(home.lake_uri)
        assert photos_of(lake)["path"].to_list() == ["a.jpg", "b.jpg", "c.jpg"]
        assert lake.manifest().rows(Table.QUARANTINE) == 0
