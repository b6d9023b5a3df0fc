"""Data sets as the contracts see them."""

import csv
from pathlib import Path

import pytest

from guidelens.data.adapters import load
from guidelens.errors import InputError

CLASSES = """Class Name (str),Class ID (int),Coarse Class Name (str),Coarse Class ID (int),Iconic Image Path (str),Product Description Path (str)
Royal-Gala,0,Apple,0,/iconic/Fruit/Apple/Royal-Gala/Royal-Gala_Iconic.jpg,/iconic/Fruit/Apple/Royal-Gala/Royal-Gala_Description.txt
Oatly-Oat-Milk,1,Oat-Milk,1,/iconic/Packages/Oat-Milk/Oatly-Oat-Milk/Oatly-Oat-Milk_Iconic.jpg,/iconic/Packages/Oat-Milk/Oatly-Oat-Milk/Oatly-Oat-Milk_Description.txt
"""
INFORMATION = "Title: Oat \nManufacturer and volume: OATLY\u00a0,\u00a01l \nNutrition: \n   fat 1 g \n   fat 1 g \n   salt 0 g \nURL: https://example.org\n"


@pytest.fixture
def groceries(tmp_path: Path) -> Path:
    root = tmp_path / "dataset"
    for name, folder, text in (("Royal-Gala", "Fruit/Apple", "Title: Apple\n"), ("Oatly-Oat-Milk", "Packages/Oat-Milk", INFORMATION)):
        place = root / "iconic" / folder / name
        place.mkdir(parents=True)
        (place / f"{name}_Description.txt").write_text(f"About {name}.\n")
        (place / f"{name}_Information.txt").write_text(text)
    (root / "classes.csv").write_text(CLASSES)
    (root / "train.txt").write_text("train/a.jpg, 0, 0\ntrain/b.jpg, 1, 1\n")
    (root / "val.txt").write_text("val/c.jpg, 1, 1\n")
    return tmp_path


def test_groceries_become_products_with_facts_and_no_invented_price(groceries: Path) -> None:
    apple, milk = load("grocery-store", groceries).products
    assert (apple.product_id, apple.title, apple.category, apple.title_zh) == ("Royal-Gala", "Royal Gala Apple", "Fruit/Apple", "皇家嘎啦苹果")
    assert (milk.title, milk.brand, milk.price_minor) == ("Oatly Oat Milk", "Oatly", None)
    assert milk.facts == {"Manufacturer and volume": "OATLY, 1l", "Nutrition": "fat 1 g; salt 0 g"}


def test_photos_held_back_are_not_among_those_to_ingest(groceries: Path, tmp_path: Path) -> None:
    source = load("grocery-store", groceries)
    sources = source.write(tmp_path / "written")
    assert sources.photo_list is not None
    with Path(sources.photo_list).open(newline="") as lines:
        listed = {row["path"]: row["product_id"] for row in csv.DictReader(lines)}
    assert {path: product for path, product in listed.items() if product} == {"train/a.jpg": "Royal-Gala", "train/b.jpg": "Oatly-Oat-Milk"}
    assert {path for path, product in listed.items() if not product} == {image for product in source.products for image in product.images}
    assert [(photo.path, photo.product_id, photo.coarse) for photo in source.holdout] == [("val/c.jpg", "Oatly-Oat-Milk", "Oat-Milk")]


def test_another_folder_is_a_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"classes\.csv"):
        load("grocery-store", tmp_path)
    with pytest.raises(InputError, match="grocery-store"):
        load("no-such-set", tmp_path)


@pytest.mark.shared_data
def test_the_real_groceries_are_complete(shared_data: Path) -> None:
    source = load("grocery-store", shared_data / "grocery-store")
    assert (len(source.products), len(source.labels), len(source.holdout)) == (81, 2640, 296)
    assert all(product.title_zh and product.description for product in source.products)
    assert not {photo.path for photo in source.holdout} & {label.path for label in source.labels}
    assert all((source.photos / path).is_file() for path in [image for product in source.products for image in product.images])
