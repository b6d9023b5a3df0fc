"""Folders of photos as a shop: what becomes a product, what is refused and why, and which photos are held out."""

import os
from pathlib import Path

import numpy as np
import pytest

from guidelens.data.adapters.folders import load
from guidelens.errors import InputError
from guidelens.evaluation.hold_out import held_out


def shop(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"names alone are read")
    return root


def test_folders_with_photos_are_products_and_the_folders_above_them_their_category(tmp_path: Path) -> None:
    names = ("Fruit/Apple/Golden-Delicious/1.JPG", "Fruit/Apple/Golden-Delicious/Catalogue.png", "水果/红 苹果 🍎/照片,1.webp", "tea/a.jpeg", "tea/notes.txt")
    found = load(shop(tmp_path, *names))
    first, second, third = sorted(found.source.products, key=lambda product: product.product_id.isascii(), reverse=True)
    assert (first.product_id, first.title, first.category) == ("Golden-Delicious", "Golden Delicious", "Fruit/Apple")
    assert first.images == ("Fruit/Apple/Golden-Delicious/Catalogue.png",)
    assert (second.product_id, second.category) == ("tea", "tea")
    assert (third.product_id, third.title_zh, third.category) == ("红 苹果 🍎", "红 苹果 🍎", "水果")
    assert sorted(label.path for label in found.source.labels) == ["Fruit/Apple/Golden-Delicious/1.JPG", "tea/a.jpeg", "水果/红 苹果 🍎/照片,1.webp"]


def test_one_name_in_two_categories_is_two_products_named_by_their_paths(tmp_path: Path) -> None:
    found = load(shop(tmp_path, "tea/Small/1.jpg", "coffee/Small/1.jpg", "coffee/Large/1.jpg", "coffee/large/1.jpg"))
    assert {product.product_id for product in found.source.products} == {"tea/Small", "coffee/Small", "Large", "large"}
    assert found.alike == (("Large", "large"),)


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty" / "deeper").mkdir(parents=True)
    found = load(shop(tmp_path, "tea/1.jpg", "loose.jpg", ".git/x/1.jpg", "__MACOSX/tea/1.jpg", "tea/.hidden.jpg"))
    assert (found.empty, found.loose, len(found.source.labels)) == (("empty", "empty/deeper"), 1, 1)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("1.jpg", "2.jpg"), "2 photos that lie in no folder"),
        (("tea/readme.txt",), "not one JPEG, PNG or WebP"),
        (("train/tea/1.jpg", "test/tea/1.jpg"), "import the one to train on, such as .*train"),
        ((" tea/1.jpg",), "white space"),
        (("te\na/1.jpg",), "control characters"),
        ((f"{'x' * 130}/1.jpg",), "at most 128 characters"),
        ((os.fsdecode(b"tea/caf\xe9.jpg"),), "UTF-8"),
    ],
)
def test_folders_that_are_no_shop_are_refused_with_a_remedy(tmp_path: Path, names: tuple[str, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        load(shop(tmp_path, *names))


def test_a_folder_that_links_back_to_one_above_it_is_refused(tmp_path: Path) -> None:
    shop(tmp_path, "tea/1.jpg")
    (tmp_path / "tea" / "again").symlink_to(tmp_path)
    with pytest.raises(InputError, match="link back"):
        load(tmp_path)


def test_photos_that_look_alike_and_equal_bytes_stay_on_one_side_of_the_hold_out() -> None:
    random = np.random.default_rng(7)
    visits = random.uniform(size=(2, 8, 40))
    embeddings = (visits[:, :, None] + random.uniform(0, 0.02, size=(2, 8, 5, 40))).reshape(-1, 40).astype(np.float32)
    rows, visit = np.repeat([0, 1], 40), np.repeat(np.arange(16), 5)
    contents = [str(number) for number in range(80)]
    held = held_out(embeddings, rows, contents, seed=7)
    assert all(len(set(held[visit == each])) == 1 for each in range(16))
    assert all(0.1 < held[rows == row].mean() < 0.5 for row in (0, 1))
    contents[int(np.flatnonzero(held)[0])] = contents[int(np.flatnonzero(~held)[0])]
    assert held_out(embeddings, rows, contents, seed=7).sum() == held.sum() - 1


def test_a_products_only_photo_is_never_held_out() -> None:
    embeddings = np.random.default_rng(8).uniform(size=(5, 40)).astype(np.float32)
    assert not held_out(embeddings, np.arange(5), list("abcde"), seed=8).any()
