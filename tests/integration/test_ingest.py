"""Ingest as a shop runs it: files in, a lake out, with a real Ray, real encoders and a real S3 API."""

import csv
import gzip
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import polars as pl
import pytest
import simplejpeg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from guidelens import presets
from guidelens.config import Home, S3Options
from guidelens.data.images.photos import PhotoEmbedder, plan_photos
from guidelens.data.inbox import Inbox
from guidelens.data.ingest.intake import ALWAYS_KNOWN, known_photos
from guidelens.data.lake.lake import Lake
from guidelens.data.pseudonyms import Pseudonymizer
from guidelens.data.records.sources import IngestSources, Kind
from guidelens.errors import InputError
from guidelens.schemas.events import Event
from guidelens.schemas.tables import Table
from pipelines import forget, ingest
from pipelines.ingest import IngestResult

pytestmark = pytest.mark.usefixtures("ray_cluster")
CONFIG = presets.load("tiny")
TIME = "2026-01-01T00:00:00Z"


def photo(seed: int, size: int = 64) -> bytes:
    data: bytes = simplejpeg.encode_jpeg(np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8))
    return data


def jsonl(path: Path, *records: dict[str, Any] | bytes) -> str:
    path.write_bytes(b"".join((record if isinstance(record, bytes) else json.dumps(record).encode()) + b"\n" for record in records))
    return str(path)


def product(number: int, **more: Any) -> dict[str, Any]:
    return {"product_id": f"p-{number}", "title": f"Thing {number}", "title_zh": f"物品{number}号", "category": "things/small", **more}


def event(number: int, **more: Any) -> dict[str, Any]:
    plain = {"event_id": f"e-{number}", "event_ts": TIME, "shopper_id": f"shopper-{number % 3}", "session_id": "x", "type": "click", "product_id": "p-1"}
    return plain | more


def photos(folder: Path, *labels: tuple[str, str]) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "sub").mkdir(exist_ok=True)
    for number, name in enumerate(("a.jpg", "b.jpg", "sub/c.jpg", "sub/d.jpg")):
        (folder / name).write_bytes(photo(number))
    with (folder / "photos.csv").open("w", newline="") as sink:
        csv.writer(sink).writerows([("path", "product_id"), *labels])
    return str(folder)


def counts(result: IngestResult, kind: Kind) -> tuple[int, int, int, int]:
    found = result.read[kind], result.accepted[kind], result.quarantined[kind], result.duplicate[kind]
    assert found[0] == sum(found[1:])
    return found


def lake_of(home: Home) -> Lake:
    return Lake(home.lake_uri, home.s3)


def shop_in(folder: Path) -> IngestSources:
    """Three products (one with a catalogue image), four photos of which two are labelled, six events of three shoppers."""
    return IngestSources(
        catalogue=jsonl(folder / "catalogue.jsonl", product(1, images=["a.jpg"]), product(2), product(3)),
        photos=photos(folder / "photos", ("b.jpg", "p-1"), ("sub/c.jpg", "p-2")),
        events=(jsonl(folder / "events.jsonl", *(event(number) for number in range(5)), event(5, type="search", query="红色的东西", product_id=None)),),
        shoppers=jsonl(folder / "shoppers.jsonl", *({"shopper_id": f"shopper-{number}", "age_band": "18-25"} for number in range(3))),
        reviews=jsonl(folder / "reviews.jsonl", {"review_id": "r-1", "product_id": "p-1", "shopper_id": "shopper-1", "ts": TIME, "rating": 4}),
    )


@pytest.fixture
def shop(tmp_path: Path) -> IngestSources:
    return shop_in(tmp_path)


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> tuple[Home, IngestResult]:
    """A home that took the shop in once. Not to be changed: see `stocked`."""
    folder = tmp_path_factory.mktemp("ingested")
    home = Home(root=folder / "home")
    home.keys.mkdir(parents=True)
    (home.keys / "shopper.key").write_bytes(b"k" * 32)
    return home, ingest.run(home, CONFIG, shop_in(folder))


@pytest.fixture
def stocked(home: Home, ingested: tuple[Home, IngestResult]) -> Home:
    """A copy of the home that took the shop in."""
    shutil.copytree(ingested[0].root, home.root)
    return home


def test_models_that_products_name_are_taken_once_and_bad_ones_quarantined(home: Home, tmp_path: Path) -> None:
    import trimesh

    folder = photos(tmp_path / "photos")
    (tmp_path / "photos" / "chair.glb").write_bytes(trimesh.Scene(trimesh.creation.box((0.3, 0.2, 0.1))).export(file_type="glb"))
    (tmp_path / "photos" / "lamp.glb").write_bytes(b"not a model")
    named = (product(1, model_3d="chair.glb"), product(2, model_3d="lamp.glb"), product(3, model_3d="gone.glb"), product(4))
    sources = IngestSources(catalogue=jsonl(tmp_path / "catalogue.jsonl", *named), photos=folder)
    assert counts(ingest.run(home, CONFIG, sources), Kind.MODELS) == (2, 1, 1, 0)
    assert counts(ingest.run(home, CONFIG, sources), Kind.MODELS) == (2, 0, 1, 1)
    models = lake_of(home).read(Table.MODELS)
    assert (models["path"].to_list(), models["glb"][0][:4]) == (["chair.glb"], b"glTF")
    (refused,) = lake_of(home).read(Table.QUARANTINE).iter_rows(named=True)
    assert (refused["kind"], refused["rule"], refused["source"]) == ("models", "model_3d.format", f"{folder}/lamp.glb")


def test_a_shop_becomes_a_lake(ingested: tuple[Home, IngestResult]) -> None:
    home, result = ingested
    assert {kind: counts(result, kind)[1] for kind in result.read} == {"catalogue": 3, "photos": 4, "events": 6, "shoppers": 3, "reviews": 1}
    lake = lake_of(home)
    seen = lake.read(Table.PHOTOS).sort("path")
    assert seen.select("path", "product_id", "is_catalogue_image").rows() == [
        ("a.jpg", "p-1", True),
        ("b.jpg", "p-1", False),
        ("sub/c.jpg", "p-2", False),
        ("sub/d.jpg", None, False),
    ]
    assert seen["thumbnail"].is_not_null().to_list() == [True, True, True, False]
    assert np.isfinite(seen["embedding"].to_numpy()).all() and seen["embedding"].to_numpy().std() > 0
    items = lake.read(Table.PRODUCTS)
    assert np.allclose(np.linalg.norm(items["text_zh_embedding"].to_numpy(), axis=1), 1, atol=1e-5)
    assert items["known_ts"].unique().to_list() == [ALWAYS_KNOWN]
    assert lake.read(Table.QUERIES)["query"].to_list() == ["红色的东西"]


def test_the_same_ingest_again_changes_nothing(stocked: Home, shop: IngestSources) -> None:
    again = ingest.run(stocked, CONFIG, shop)
    assert sum(again.accepted.values()) == 0
    assert again.manifest == 1
    assert again.duplicate == again.read


def test_the_number_of_workers_changes_no_byte(home: Home, shop: IngestSources, ingested: tuple[Home, IngestResult]) -> None:
    home.keys.mkdir(parents=True)
    (home.keys / "shopper.key").write_bytes(b"k" * 32)
    config = presets.load("tiny", ["ingest.num_workers=1", "ingest.event_chunk_bytes=100"])
    ingest.run(home, config, shop)
    assert lake_of(home).manifest().snapshot_sha256 == lake_of(ingested[0]).manifest().snapshot_sha256


def test_bad_records_are_quarantined_with_reason_and_original_and_counted_by_file(
    home: Home, tmp_path: Path, shop: IngestSources, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 this is no photo")
    (folder / "cut.jpg").write_bytes(photo(9, 256)[:9000])
    (folder / "text.png").write_bytes(b"hello")
    (folder / "notes.txt").write_bytes(b"no photo, and no error either")
    with (folder / "photos.csv").open("a") as sink:
        sink.write("a.jpg,nobody-knows\nnone.jpg,p-1\n")
    bad = jsonl(tmp_path / "catalogue.jsonl", product(1, images=["a.jpg"]), product(2), product(3), product(0, product_id=""), b"{")
    events = tmp_path / "more.jsonl.gz"
    events.write_bytes(gzip.compress(json.dumps(event(0)).encode() + b"\n" + json.dumps(event(7, type="?")).encode()))
    result = ingest.run(home, CONFIG, shop.model_copy(update={"catalogue": bad, "events": (*shop.events, str(events))}))
    assert counts(result, Kind.CATALOGUE) == (5, 3, 2, 0)
    assert "catalogue: refused for json.invalid 1, product_id.string_too_short 1; `guidelens quarantine show --kind catalogue`" in capsys.readouterr().err
    assert counts(result, Kind.PHOTOS) == (9, 4, 5, 0)
    assert counts(result, Kind.EVENTS) == (8, 6, 1, 1)
    lake = lake_of(home)
    kept = lake.read(Table.QUARANTINE)
    assert kept.height == sum(result.quarantined.values())
    by_source = {row["source"]: row for row in kept.filter(pl.col("kind") == "photos").to_dicts()}
    assert by_source[str(folder / "broken.jpg")]["raw"] == b"\xff\xd8 this is no photo"
    assert set(kept.filter(pl.col("kind") == "photos")["rule"]) == {"frame_unreadable", "frame_type", "product_id.unknown", "path.missing_photo"}
    report = lake.manifest().report["events"]["files"]
    assert report[str(events)] == {"read": 2, "accepted": 0, "quarantined": 1, "duplicate": 1}


def test_a_new_label_changes_the_label_and_embeds_nothing(stocked: Home, tmp_path: Path, shop: IngestSources) -> None:
    home = stocked
    before = lake_of(home).read(Table.PHOTOS).sort("path")
    photos(tmp_path / "photos", ("b.jpg", "p-2"), ("sub/c.jpg", "p-2"))
    result = ingest.run(home, CONFIG, IngestSources(photos=shop.photos))
    assert counts(result, Kind.PHOTOS) == (4, 1, 0, 3)
    after = lake_of(home).read(Table.PHOTOS).sort("path")
    assert after["product_id"].to_list() == ["p-1", "p-2", "p-2", None]
    assert after.drop("product_id").equals(before.drop("product_id"))


def test_photos_under_new_names_are_known_by_their_content(stocked: Home, tmp_path: Path, shop: IngestSources) -> None:
    before = lake_of(stocked).read(Table.PHOTOS).sort("path")
    folder = tmp_path / "photos"
    (folder / "a.jpg").rename(folder / "renamed.jpg")
    (folder / "copy.jpg").write_bytes((folder / "b.jpg").read_bytes())
    (folder / "new.jpg").write_bytes(photo(55))
    plan = plan_photos(IngestSources(photos=shop.photos), {}, known_photos(lake_of(stocked), lake_of(stocked).manifest()), stocked.s3)
    embedded = PhotoEmbedder(str(folder), stocked.s3, CONFIG.ingest, plan.contents)(plan.tasks).to_pylist()
    assert [row["path"] for row in embedded if row["embedding"] is not None] == ["new.jpg"]
    result = ingest.run(stocked, CONFIG, IngestSources(photos=shop.photos))
    assert counts(result, Kind.PHOTOS) == (6, 3, 0, 3)
    after = {row["path"]: row for row in lake_of(stocked).read(Table.PHOTOS).to_dicts()}
    by_path = {row["path"]: row for row in before.to_dicts()}
    for name, original in (("renamed.jpg", "a.jpg"), ("copy.jpg", "b.jpg")):
        for column in ("sha256", "width", "height", "embedding", "image_encoder"):
            assert after[name][column] == by_path[original][column]


def test_a_changed_product_and_a_changed_photo_replace_what_was_there(stocked: Home, tmp_path: Path, shop: IngestSources) -> None:
    home = stocked
    jsonl(tmp_path / "catalogue.jsonl", product(1, images=["a.jpg"], price_minor=5), product(2))
    (tmp_path / "photos" / "b.jpg").write_bytes(photo(77))
    result = ingest.run(home, CONFIG, IngestSources(catalogue=shop.catalogue, photos=shop.photos))
    assert counts(result, Kind.CATALOGUE) == (2, 1, 0, 1)
    assert counts(result, Kind.PHOTOS) == (4, 1, 0, 3)
    items = lake_of(home).read(Table.PRODUCTS, ["product_id", "price_minor", "known_ts"]).sort("product_id")
    assert items["price_minor"].to_list() == [5, None, None]
    assert (items["known_ts"] > ALWAYS_KNOWN).to_list() == [True, False, False]
    assert lake_of(home).manifest().rows(Table.PHOTOS) == 4


def test_the_inbox_is_taken_in_once(stocked: Home) -> None:
    home = stocked
    pseudonyms = Pseudonymizer.open(home.keys)
    Inbox(home.inbox).append([pseudonyms.pseudonymize(Event.model_validate(event(number))) for number in (4, 100)])
    result = ingest.run(home, CONFIG, IngestSources())
    assert counts(result, Kind.EVENTS) == (2, 1, 0, 1)
    assert counts(ingest.run(home, CONFIG, IngestSources()), Kind.EVENTS) == (0, 0, 0, 0)
    keys = lake_of(home).read(Table.EVENTS).filter(pl.col("event_id").is_in(["e-1", "e-100"]))["shopper_key"]
    assert keys.n_unique() == 1


def test_no_raw_shopper_id_is_written_anywhere(home: Home, tmp_path: Path, shop: IngestSources) -> None:
    bad = jsonl(tmp_path / "bad.jsonl", event(50, type="?"), b'{"shopper_id": "shopper-1", "event_id', event(51, event_ts="2999-01-01T00:00:00Z"))
    ingest.run(home, CONFIG, IngestSources(events=(*shop.events, bad), shoppers=shop.shoppers, reviews=shop.reviews))
    assert mentions(home, "shopper-1") == []


def mentions(home: Home, text: str) -> list[str]:
    """Files of the home that hold the text, Parquet decoded; the tombstones must know the pseudonym and are left out."""
    found = []
    for path in sorted(home.root.rglob("*")):
        if not path.is_file() or "tombstones" in path.parts:
            continue
        data = path.read_bytes()
        if path.suffix == ".parquet":
            rows = pl.read_parquet(path)
            data += "".join(str(row) for row in rows.drop("embedding", "text_embedding", "text_zh_embedding", strict=False).iter_rows()).encode()
        if text.encode() in data:
            found.append(str(path))
    return found


def test_forgetting_removes_the_shopper_from_every_version_and_keeps_later_events_out(stocked: Home, tmp_path: Path, shop: IngestSources) -> None:
    home = stocked
    ingest.run(home, CONFIG, IngestSources(events=(jsonl(tmp_path / "later.jsonl", event(10), event(13, type="?")),)))
    key = Pseudonymizer.open(home.keys).key("shopper-1")
    Inbox(home.inbox).append([Pseudonymizer.open(home.keys).pseudonymize(Event.model_validate(event(16)))])
    assert mentions(home, key)
    others = lake_of(home).read(Table.EVENTS, manifest=lake_of(home).manifest(1)).filter(pl.col("shopper_key") != key)

    removed = forget.run(home, CONFIG, "shopper-1").removed
    assert removed == {"events": 3, "shoppers": 1, "consents": 0, "reviews": 1, "quarantine": 1, "queries": 0, "inbox": 1, "features": 0, "examples": 0}
    assert mentions(home, key) == mentions(home, "shopper-1") == []
    lake = lake_of(home)
    assert lake.read(Table.EVENTS, manifest=lake.manifest(1)).equals(others)

    result = ingest.run(home, CONFIG, shop.model_copy(update={"photos": None}))
    assert counts(result, Kind.EVENTS) == (6, 0, 2, 4)
    assert counts(result, Kind.SHOPPERS) == (3, 0, 1, 2)
    assert mentions(home, key) == []
    assert set(forget.run(home, CONFIG, "shopper-1").removed.values()) == {0}


def test_forgetting_someone_unknown_in_a_new_home_finds_nothing(home: Home) -> None:
    assert set(forget.run(home, CONFIG, "nobody").removed.values()) == {0}


def test_ingests_of_one_lake_at_a_time_converge(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another ingest commits between this one's reading of the lake and its commit."""
    first = jsonl(tmp_path / "first.jsonl", event(0), event(1))
    other = jsonl(tmp_path / "other.jsonl", event(0), event(200))
    real_commit, raced = Lake.commit, []

    def commit(lake: Lake, *args: Any, **marks: Any) -> Any:
        if not raced:
            raced.append(True)
            ingest.run(home, CONFIG, IngestSources(events=(other,)))
        return real_commit(lake, *args, **marks)

    monkeypatch.setattr(Lake, "commit", commit)
    result = ingest.run(home, CONFIG, IngestSources(events=(first,)))
    assert counts(result, Kind.EVENTS) == (2, 1, 0, 1)
    assert sorted(lake_of(home).read(Table.EVENTS)["event_id"]) == ["e-0", "e-1", "e-200"]


def test_sources_that_are_not_there_are_a_callers_mistake(home: Home, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for sources in (IngestSources(events=(str(tmp_path / "none"),)), IngestSources(photos=str(tmp_path / "empty")), IngestSources(catalogue=str(tmp_path))):
        with pytest.raises(InputError):
            ingest.run(home, CONFIG, sources)


garbage = st.lists(
    st.one_of(
        st.binary(max_size=20).filter(lambda line: b"\n" not in line),
        st.integers(0, 6).map(lambda number: json.dumps(event(number)).encode()),
        st.integers(0, 6).map(lambda number: json.dumps(event(number, type="?")).encode()),
    ),
    max_size=12,
)


@given(lines=garbage)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=6)
def test_what_is_read_is_accepted_quarantined_or_duplicate_and_a_second_run_accepts_nothing(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    folder = tmp_path_factory.mktemp("property")
    home, sources = Home(root=folder / "home"), IngestSources(events=(jsonl(folder / "e.jsonl", *lines),))
    first = ingest.run(home, CONFIG, sources)
    read, accepted, quarantined, _ = counts(first, Kind.EVENTS)
    assert read == sum(bool(line.removeprefix(b"\xef\xbb\xbf" if not number else b"").strip()) for number, line in enumerate(lines))
    assert (lake_of(home).manifest().rows(Table.EVENTS), lake_of(home).manifest().rows(Table.QUARANTINE)) == (accepted, quarantined)
    again = ingest.run(home, CONFIG, sources)
    assert counts(again, Kind.EVENTS) == (read, 0, quarantined, read - quarantined)
    assert again.manifest == first.manifest


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Options]:
    """An S3 API on a free port of this machine, with the bucket `shop`."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    options = S3Options(endpoint_url=f"http://{host}:{port}", region="us-east-1", access_key="test", secret_key="test")
    client = boto3.client("s3", endpoint_url=options.endpoint_url, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")
    client.create_bucket(Bucket="shop")
    yield options
    client.close()
    server.stop()


def test_the_same_shop_from_s3_gives_the_same_lake(tmp_path: Path, shop: IngestSources, ingested: tuple[Home, IngestResult], s3: S3Options) -> None:
    client = boto3.client("s3", endpoint_url=s3.endpoint_url, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")
    for path in sorted(tmp_path.rglob("*")):
        if path.is_file():
            client.upload_file(str(path), "shop", path.relative_to(tmp_path).as_posix())
    client.close()
    remote = Home(root=tmp_path / "remote", s3=s3)
    remote.keys.mkdir(parents=True)
    (remote.keys / "shopper.key").write_bytes(b"k" * 32)
    there = IngestSources(
        catalogue="s3://shop/catalogue.jsonl",
        photos="s3://shop/photos",
        events=("s3://shop/events.jsonl",),
        shoppers="s3://shop/shoppers.jsonl",
        reviews="s3://shop/reviews.jsonl",
    )
    result = ingest.run(remote, CONFIG, there, "s3://shop/lakes/one")
    lake = Lake("s3://shop/lakes/one", s3)
    assert lake.manifest().snapshot_sha256 == lake_of(ingested[0]).manifest().snapshot_sha256
    again = ingest.run(remote, CONFIG, there, "s3://shop/lakes/one")
    assert (sum(again.accepted.values()), again.manifest) == (0, result.manifest)
    removed = forget.run(remote, CONFIG, "shopper-1", "s3://shop/lakes/one").removed
    assert (removed["events"], removed["shoppers"]) == (2, 1)
