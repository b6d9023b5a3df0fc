"""What becomes of refused photos, label lines and models when they are tried again where they lie; without Ray."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import simplejpeg
import trimesh

from guidelens.config import IngestConfig, S3Options
from guidelens.data.images.models_3d import read_models
from guidelens.data.images.photos import PhotoEmbedder, PhotoPlan, completed, plan_photos, settle_photos
from guidelens.data.images.replay import models_again, photos_again
from guidelens.data.records.replay import Good
from guidelens.data.records.settling import quarantine_rows, settle_rows
from guidelens.data.records.sources import IngestSources, Kind
from guidelens.schemas.tables import SCHEMAS, Table

S3 = S3Options()
EMPTY = pl.DataFrame(schema=pl.Schema(SCHEMAS[Table.PHOTOS])).with_columns(has_thumbnail=pl.lit(None, pl.Boolean))
NO_PRODUCTS: dict[str, tuple[str, ...]] = {}


def photo(seed: int) -> bytes:
    data: bytes = simplejpeg.encode_jpeg(np.random.default_rng(seed).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    return data


def folder_of(path: Path, **files: bytes) -> str:
    """A folder with NAME.jpg for each NAME."""
    path.mkdir(exist_ok=True)
    for name, data in files.items():
        (path / f"{name}.jpg").write_bytes(data)
    return str(path)


class Embedding:
    """As a worker does it; counts how many photos it really embedded."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, plan: PhotoPlan, folder: str) -> pl.DataFrame:
        found = pl.from_arrow(PhotoEmbedder(folder, S3, IngestConfig(), plan.contents)(plan.tasks))
        assert isinstance(found, pl.DataFrame)
        self.number += found.height - found["embedding"].null_count()
        return found


def ingested(folder: str, products: dict[str, tuple[str, ...]] = NO_PRODUCTS, photo_list: str | None = None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The quarantine and the lake's photos after an ingest of the folder."""
    plan = plan_photos(IngestSources(photos=folder, photo_list=photo_list), products, EMPTY, S3)
    settled = settle_photos(Embedding()(plan, folder), plan.refused, EMPTY)
    lake = completed(settled.accepted, settled.accepted.head(0)).with_columns(has_thumbnail=pl.col("thumbnail").is_not_null())
    return quarantine_rows(Kind.PHOTOS, settled.refused, plan.uris), lake


def again(quarantined: pl.DataFrame, known: pl.DataFrame = EMPTY, products: dict[str, tuple[str, ...]] = NO_PRODUCTS) -> tuple[Good, dict[str, str]]:
    """What is good now, and the rule by file or line (named by its offset) of what stays."""
    good = photos_again(quarantined, products, known, S3, Embedding())
    assert len(good.ids) + good.left.height == quarantined.height
    lines = {(source, offset): rule for source, offset, rule in good.left.select("source", "offset", "rule").iter_rows()}
    return good, {str(offset) if source.endswith(".csv") else Path(source).name: rule for (source, offset), rule in lines.items()}


def test_a_label_lasts_until_another_one_or_none_is_said(tmp_path: Path) -> None:
    folder, products = folder_of(tmp_path, one=photo(0), two=photo(1)), {"p-1": (), "p-2": ()}
    labels = tmp_path / "photos.csv"
    labels.write_text("path,product_id\none.jpg,p-1\ntwo.jpg,p-1\n")
    _, lake = ingested(folder, products)

    def shown() -> dict[str, str | None]:
        tasks = plan_photos(IngestSources(photos=folder), products, lake, S3).tasks
        return dict(zip(tasks["path"].to_pylist(), tasks["product_id"].to_pylist(), strict=True))

    labels.unlink()
    assert shown() == {"one.jpg": "p-1", "two.jpg": "p-1"}
    labels.write_text("path,product_id\none.jpg,p-2\n")
    assert shown() == {"one.jpg": "p-2", "two.jpg": "p-1"}
    labels.write_text("path,product_id\none.jpg,\n")
    assert shown() == {"one.jpg": None, "two.jpg": "p-1"}


def test_an_image_that_its_product_names_no_more_is_not_shown_for_it(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, one=photo(0))
    _, lake = ingested(folder, {"p-1": ("one.jpg",)})
    assert plan_photos(IngestSources(photos=folder), {"p-1": ()}, lake, S3).tasks["product_id"].to_pylist() == [None]


def test_a_photo_whose_content_the_lake_has_is_not_embedded_again(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, good=photo(0), bad=b"x")
    quarantined, lake = ingested(folder)
    folder_of(tmp_path, bad=photo(0))
    embedding = Embedding()
    good = photos_again(quarantined, {}, lake, S3, embedding)
    assert embedding.number == 0
    taken = completed(settle_photos(good.rows, None, lake).accepted, lake)
    assert taken["path"].to_list() == ["bad.jpg"]
    assert taken["embedding"].to_list() == lake["embedding"].to_list()


def test_a_photo_refused_twice_is_one_photo(tmp_path: Path) -> None:
    first, _ = ingested(folder_of(tmp_path, a=b"bad"))
    second, _ = ingested(folder_of(tmp_path, a=b"worse"))
    folder_of(tmp_path, a=photo(1))
    good, left = again(pl.concat([first, second]))
    assert (len(good.ids), good.rows.height, left) == (2, 1, {})


def test_of_one_path_in_two_folders_one_is_taken_and_another_one_stays(tmp_path: Path) -> None:
    folders = [folder_of(tmp_path / name, same=b"x", other=b"x") for name in "ab"]
    quarantined = pl.concat([ingested(folder)[0] for folder in folders])
    for number, folder in enumerate(folders):
        folder_of(Path(folder), same=photo(0), other=photo(number))
    good, left = again(quarantined)
    assert (len(good.ids), sorted(good.rows["path"]), left) == (3, ["other.jpg", "same.jpg"], {"other.jpg": "path.contradicted"})
    assert good.left["source"].to_list() == [f"{folders[1]}/other.jpg"]


def test_what_is_gone_or_from_before_folders_were_kept_stays(tmp_path: Path) -> None:
    quarantined, _ = ingested(folder_of(tmp_path / "a", one=b"x", two=b"x"))
    older = quarantined.with_columns(folder=pl.lit(None, pl.String), labels=pl.lit(None, pl.String))
    assert again(older)[1] == {"one.jpg": "folder.unknown", "two.jpg": "folder.unknown"}
    (tmp_path / "a" / "one.jpg").unlink()
    assert again(quarantined)[1] == {"one.jpg": "file.missing", "two.jpg": "frame_type"}
    (tmp_path / "a" / "two.jpg").unlink()
    (tmp_path / "a").rmdir()
    assert again(quarantined)[1] == {"one.jpg": "file.missing", "two.jpg": "file.missing"}


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    folder_of(tmp_path, a=photo(0), b=b"bad", c=photo(2))
    (tmp_path / "photos.csv").write_text("path,product_id\na.jpg,p-1\nb.jpg,p-1\nc.jpg,p-2\na.jpg,p-2\nnone.jpg,p-2\n")
    return tmp_path


def test_a_label_line_comes_back_with_its_photo_once_its_product_is_there(labelled: Path) -> None:
    quarantined, lake = ingested(str(labelled), {"p-2": ()})
    assert quarantined.filter(pl.col("source").str.ends_with("photos.csv"))["rule"].to_list() == [
        "product_id.unknown",
        "product_id.unknown",
        "path.missing_photo",
    ]
    assert lake.sort("path")["product_id"].to_list() == ["p-2", "p-2"], "the second line of a.jpg applied, because the first one did not"

    catalogue: dict[str, tuple[str, ...]] = {"p-1": (), "p-2": ()}
    good, left = again(quarantined, lake, catalogue)
    assert left == {"b.jpg": "frame_type", "1": "frame_type", "4": "path.missing_photo"}, "the line of a photo that is bad waits for it"
    assert good.rows.select("path", "product_id").rows() == [("a.jpg", "p-1")]
    assert settle_photos(good.rows, None, lake).accepted.height == 1

    folder_of(labelled, b=photo(1))
    good, left = again(quarantined, lake, catalogue)
    assert left == {"4": "path.missing_photo"}
    assert good.rows.sort("path").select("path", "product_id").rows() == [("a.jpg", "p-1"), ("b.jpg", "p-1")]


def test_a_label_line_that_was_changed_or_that_another_one_outdoes_stays(labelled: Path) -> None:
    quarantined, lake = ingested(str(labelled), {"p-2": ()})
    lines = quarantined.filter(pl.col("source").str.ends_with("photos.csv"))
    catalogue: dict[str, tuple[str, ...]] = {"p-1": (), "p-2": ()}
    (labelled / "photos.csv").write_text("path,product_id\na.jpg,p-1 \nc.jpg,p-1\n")
    assert again(lines, lake, catalogue)[1] == {"0": "label.changed", "1": "label.changed", "4": "label.changed"}
    (labelled / "photos.csv").write_text("path,product_id\na.jpg,p-2\na.jpg,p-1\n")
    twice, _ = ingested(str(labelled), catalogue)
    assert again(twice.filter(pl.col("source").str.ends_with("photos.csv")), lake, catalogue)[1] == {"1": "path.labelled_twice"}
    (labelled / "photos.csv").unlink()
    assert set(again(lines, lake, catalogue)[1].values()) == {"label.changed"}


def test_labels_of_a_list_are_kept_and_a_photo_that_left_the_list_stays(tmp_path: Path) -> None:
    folder, listed = folder_of(tmp_path / "a", a=b"x", b=b"x", c=photo(3)), tmp_path / "list.csv"
    listed.write_text("path,product_id\na.jpg,p-1\nb.jpg,p-1\nc.jpg,\n")
    quarantined, lake = ingested(folder, {"p-1": ()}, str(listed))
    assert (quarantined.height, lake["path"].to_list()) == (2, ["c.jpg"])
    folder_of(tmp_path / "a", a=photo(1), b=photo(2))
    listed.write_text("path,product_id\na.jpg,p-1\n")
    good, left = again(quarantined, lake, {"p-1": ()})
    assert good.rows.select("path", "product_id").rows() == [("a.jpg", "p-1")]
    assert left == {"b.jpg": "file.missing"}
    listed.unlink()
    assert set(again(quarantined, lake, {"p-1": ()})[1].values()) == {"file.missing"}


def test_a_model_comes_back_while_a_product_names_it(tmp_path: Path) -> None:
    whole: bytes = trimesh.Scene(trimesh.creation.box((0.3, 0.2, 0.1))).export(file_type="glb")
    for name in ("a.glb", "b.glb", "c.glb", "d.glb"):
        (tmp_path / name).write_bytes(whole[:-4])
    found = read_models(str(tmp_path), ["a.glb", "./b.glb", "c.glb", "d.glb"], {}, S3)
    known = pl.DataFrame(schema={"path": pl.String, "row_sha256": pl.String})
    quarantined = quarantine_rows(Kind.MODELS, settle_rows(found.rows, "path", known).refused, [str(tmp_path)])
    for name in ("b.glb", "c.glb"):
        (tmp_path / name).write_bytes(whole)
    (tmp_path / "d.glb").unlink()
    good = models_again(quarantined, ["a.glb", "./b.glb", "d.glb"], {}, S3)
    assert good.rows.select("path", "glb").rows() == [("b.glb", whole)]
    left = {Path(source).name: rule for source, rule in good.left.select("source", "rule").iter_rows()}
    assert left == {"a.glb": "model_3d.damaged", "c.glb": "model_3d.unnamed", "d.glb": "file.missing"}
    (tmp_path / "a.glb").unlink()
    (tmp_path / "b.glb").unlink()
    (tmp_path / "c.glb").unlink()
    tmp_path.rmdir()
    assert set(models_again(quarantined, ["a.glb", "b.glb", "c.glb", "d.glb"], {}, S3).left["rule"]) == {"file.missing"}
