"""A shop's own 3-D models: taken where they are whole binary glTF that stands alone, else refused with the reason."""

import json
import struct
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
import trimesh
from model_samples import sample_items

from guidelens.config import S3Options
from guidelens.data.images.models_3d import MAX_MODEL_BYTES, glb_problem, read_models
from guidelens.data.lake.lake import Lake
from guidelens.models.items import Catalogue
from guidelens.schemas.tables import SCHEMAS, Table
from pipelines.fit_parts import with_models_there


def cube() -> bytes:
    data: bytes = trimesh.Scene(trimesh.creation.box((0.3, 0.2, 0.1))).export(file_type="glb")
    return data


def described(tree: dict[str, Any]) -> bytes:
    """A GLB with this description and nothing else."""
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    return struct.pack("<4sIII4s", b"glTF", 2, 20 + len(text), len(text), b"JSON") + text


@pytest.mark.parametrize(
    ("data", "rule", "words"),
    [
        (b"", "model_3d.format", "0 bytes"),
        (b"v 0 0 0\nf 1 2 3 4 5 6 7 8", "model_3d.format", "export it as GLB"),
        (b"glTF" + struct.pack("<II", 1, 20) + cube()[12:], "model_3d.format", "glTF 2"),
        (cube()[:-4], "model_3d.damaged", "whole"),
        (described({})[:12] + struct.pack("<I", 10**6) + described({})[16:], "model_3d.damaged", "whole"),
        (described({"asset": {}})[:20] + b"{nope!}!" + b" " * (len(described({"asset": {}})) - 28), "model_3d.damaged", "JSON"),
        (described({"buffers": 3}), "model_3d.damaged", "JSON"),
        (described({"meshes": [{}], "buffers": [{"uri": "https://else.where/a.bin"}]}), "model_3d.not_alone", "https://else.where/a.bin"),
        (described({"meshes": [{}], "images": [{"uri": "texture.png"}]}), "model_3d.not_alone", "texture.png"),
        (described({"meshes": [{}], "extensionsRequired": ["KHR_draco_mesh_compression"]}), "model_3d.compressed", "draco"),
        (described({"asset": {"version": "2.0"}}), "model_3d.empty", "mesh"),
    ],
)
def test_what_is_no_model_is_refused_with_the_reason(data: bytes, rule: str, words: str) -> None:
    problem = glb_problem(data)
    assert problem is not None
    assert (problem.rule, words in problem.message) == (rule, True), problem


def test_an_exported_model_is_taken() -> None:
    assert glb_problem(cube()) is None


def test_only_files_of_the_folder_are_read_and_known_bytes_are_not_kept(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "3d").mkdir(parents=True)
    (tmp_path / "outside.glb").write_bytes(cube())
    (folder / "3d" / "a.glb").write_bytes(cube())
    (folder / "big.glb").write_bytes(cube() + bytes(MAX_MODEL_BYTES))
    (folder / "bad.glb").write_bytes(b"hello")
    named = ["./3d/a.glb", "3d/a.glb", "big.glb", "bad.glb", "gone.glb", "../outside.glb", str(tmp_path / "outside.glb")]
    found = read_models(str(folder), named, {}, S3Options())
    assert set(found.missing) == {"gone.glb", "../outside.glb", str(tmp_path / "outside.glb")}
    rows = {row["path"]: row for row in found.rows.iter_rows(named=True)}
    assert {path: row["rule"] for path, row in rows.items()} == {"3d/a.glb": None, "bad.glb": "model_3d.format", "big.glb": "model_3d.too_large"}
    assert rows["3d/a.glb"]["glb"] == cube()
    again = read_models(str(folder), named[:1], {"3d/a.glb": rows["3d/a.glb"]["row_sha256"]}, S3Options())
    assert again.rows["glb"].to_list() == [None]


def test_a_product_is_solid_with_all_its_sides_or_with_a_model_that_the_lake_holds(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    held = pa.Table.from_pylist([{"path": "3d/a.glb", "glb": cube(), "row_sha256": "0"}], schema=SCHEMAS[Table.MODELS])
    snapshot = lake.commit(lake.manifest(), lake.write(Table.MODELS, held), {})
    sides = {"width_m": [0.5, 0.5, None, None], "height_m": [0.5, None, None, None], "depth_m": [0.5, None, None, None]}
    items = sample_items().head(4).with_columns(*(pl.Series(name, values) for name, values in sides.items()))
    items = items.with_columns(model_3d=pl.Series([None, None, "./3d/a.glb", "3d/gone.glb"]))
    found = with_models_there(items, lake, snapshot)
    assert found["model_3d"].to_list() == [None, None, "3d/a.glb", None]
    assert Catalogue.of_table(found).has_3d_N.tolist() == [True, False, True, False]
