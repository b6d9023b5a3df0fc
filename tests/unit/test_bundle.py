"""A bundle verifies as built, and any altered, missing, added, smuggled or non-finite file is refused by name."""

import json
import pickle
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from guidelens.bundle import MANIFEST, BundleManifest, BundleOrigin, build_bundle, media_name, read_manifest, verify
from guidelens.errors import BundleError

ORIGIN = BundleOrigin(
    run_id="ab" * 16,
    feature_service="guide_v1",
    lake="/data/lake",
    manifest_version=3,
    snapshot_sha256="cd" * 32,
    parts={"recognizer": "trained", "guide": "absent: no events"},
    missing=("events",),
    metrics={"test/recognition_top1": 0.75},
)


def fit(folder: Path, weights: np.ndarray | None = None) -> Path:
    (folder / "controls").mkdir(parents=True)
    save_file({"w": np.ones((4, 3), np.float32) if weights is None else weights}, folder / "recognizer.safetensors")
    save_file({"w": np.ones(2, np.float32)}, folder / "controls" / "plan.safetensors")
    (folder / "recognizer.json").write_text('{"temperature": 1.5}')
    (folder / "popularity.json").write_text('{"popularity": [1, 2]}')
    pl.DataFrame({"product_id": ["a", "b"], "title": ["A", "B"]}).write_parquet(folder / "items.parquet")
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    build_bundle(fit(tmp_path / "fit"), tmp_path / "bundle", ORIGIN, {1: b"\xff\xd8\xff jpeg"})
    return tmp_path / "bundle"


def test_it_holds_what_serving_needs_and_not_the_controls(bundle: Path) -> None:
    manifest = verify(bundle)
    assert set(manifest.files) == {"recognizer.safetensors", "recognizer.json", "popularity.json", "items.parquet", media_name(1)}
    assert manifest.num_products == 2
    assert manifest.parts["guide"] == "absent: no events"
    assert manifest.missing == ("events",)


def test_a_model_of_the_shop_s_own_is_held_and_anything_else_under_its_name_refused(tmp_path: Path) -> None:
    manifest = build_bundle(fit(tmp_path / "fit"), tmp_path / "bundle", ORIGIN, {}, {0: b"glTF and the rest"})
    assert "media/0.glb" in manifest.files
    with pytest.raises(BundleError, match="no binary glTF"):
        build_bundle(tmp_path / "fit", tmp_path / "other", ORIGIN, {}, {0: b"solid cube"})


def test_the_manifest_is_plain_json_that_names_every_sha256(bundle: Path) -> None:
    found = json.loads((bundle / MANIFEST).read_text())
    assert len(found["files"]["items.parquet"]["sha256"]) == 64


def test_any_flipped_byte_of_any_file_is_refused_by_name(bundle: Path) -> None:
    for path in sorted(p for p in bundle.rglob("*") if p.is_file()):
        whole = path.read_bytes()
        for place in {0, len(whole) // 2, len(whole) - 1}:
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(BundleError, match=path.name):
                verify(bundle)
        path.write_bytes(whole)
    verify(bundle)


def test_a_missing_an_added_and_a_cut_file_are_refused(bundle: Path) -> None:
    extra = bundle / "notes.json"
    extra.write_text("{}")
    with pytest.raises(BundleError, match=r"notes\.json.*not in the manifest"):
        verify(bundle)
    extra.unlink()
    picture = bundle / media_name(1)
    picture.write_bytes(picture.read_bytes()[:-1])
    with pytest.raises(BundleError, match=r"1\.jpg"):
        verify(bundle)
    picture.unlink()
    with pytest.raises(BundleError, match=r"1\.jpg.*missing"):
        verify(bundle)


@pytest.mark.parametrize("name", ["model.pkl", "model.safetensors", "extra.json"])
def test_a_pickle_is_refused_whatever_its_name(tmp_path: Path, name: str) -> None:
    folder = fit(tmp_path / "fit")
    (folder / name).write_bytes(pickle.dumps({"run": print}))
    with pytest.raises(BundleError, match=name):
        build_bundle(folder, tmp_path / "bundle", ORIGIN, {})


def test_a_torch_archive_is_refused(tmp_path: Path) -> None:
    folder = fit(tmp_path / "fit")
    (folder / "model.json").write_bytes(b"PK\x03\x04 archive")
    with pytest.raises(BundleError, match=r"model\.json.*archive"):
        build_bundle(folder, tmp_path / "bundle", ORIGIN, {})


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"recognizer\.safetensors.*not finite"):
        build_bundle(fit(tmp_path / "fit", np.array([1.0, np.nan], np.float32)), tmp_path / "bundle", ORIGIN, {})


def test_a_link_is_refused(bundle: Path) -> None:
    target = bundle.parent / "elsewhere.json"
    target.write_text("{}")
    (bundle / "link.json").symlink_to(target)
    with pytest.raises(BundleError, match=r"link\.json"):
        verify(bundle)


def altered(bundle: Path, **fields: object) -> None:
    """The manifest with other fields and a right seal, as a forger or a newer GuideLens would write it."""
    import hashlib

    old = json.loads((bundle / MANIFEST).read_text())
    old.pop("manifest_sha256")
    spelled = lambda tree: json.dumps(tree, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"  # noqa: E731
    new = {**old, **fields}
    (bundle / MANIFEST).write_bytes(spelled({**new, "manifest_sha256": hashlib.sha256(spelled(new)).hexdigest()}))


def test_another_schema_version_is_named(bundle: Path) -> None:
    altered(bundle, schema_version=9)
    with pytest.raises(BundleError, match="schema 9"):
        verify(bundle)


def test_another_number_of_products_than_the_item_table_is_refused(bundle: Path) -> None:
    altered(bundle, num_products=3)
    with pytest.raises(BundleError, match=r"items\.parquet.*3 products, got 2"):
        verify(bundle)


def test_an_unknown_field_is_refused_and_the_manifest_comes_back_typed(bundle: Path) -> None:
    assert isinstance(read_manifest(bundle), BundleManifest)
    altered(bundle, surprise=1)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        read_manifest(bundle)


def test_a_folder_in_use_is_not_built_into(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="empty folder"):
        build_bundle(tmp_path / "fit", bundle, ORIGIN, {})
