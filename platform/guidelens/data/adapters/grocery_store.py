"""GroceryStoreDataset (Klasson et al., WACV 2019, arXiv:1901.00711): 81 groceries, smartphone photos taken in shops.

Train photos are labelled photos, "iconic" images are the catalogue's own, val photos are held back. The data set has no prices,
stock or dimensions: they stay unknown. Chinese titles are ours (grocery_store_zh.csv), written for Chinese text queries.
"""

import csv
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from guidelens.data.adapters.source import AdaptedSource, HoldoutPhoto
from guidelens.errors import InputError
from guidelens.schemas.catalog import LabelledPhoto, Product

_SKIPPED_FACTS = frozenset({"title", "description", "url"})
_PLURALS = {"Carrots": "Carrot", "Satsumas": "Satsuma"}


class _Class(NamedTuple):
    name: str
    coarse: str
    iconic: str
    description: str


def load(path: Path) -> AdaptedSource:
    """The data set in `path` (its root, or the `dataset` folder in it).

    Raises:
        InputError: classes.csv, train.txt or val.txt is missing or says something else than the data set does.
    """
    root = path / "dataset" if (path / "dataset").is_dir() else path
    classes = _classes(root)
    titles_zh = _titles_zh()
    return AdaptedSource(
        products=tuple(_product(root, each, titles_zh) for each in classes.values()),
        photos=root.absolute(),
        labels=tuple(LabelledPhoto(path=photo, product_id=classes[number].name) for photo, number in _split(root, "train", classes)),
        holdout=tuple(
            HoldoutPhoto(path=photo, product_id=classes[number].name, coarse=classes[number].coarse) for photo, number in _split(root, "val", classes)
        ),
    )


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"--path must be the GroceryStoreDataset folder with {file.name}, got {file.parent}: {error.strerror}") from error


def _classes(root: Path) -> dict[int, _Class]:
    found: dict[int, _Class] = {}
    for row in list(csv.reader(_read(root / "classes.csv").splitlines()))[1:]:
        if len(row) != 6 or not row[1].isdigit():
            raise InputError(f"classes.csv must hold name, id, coarse name, coarse id, image and description, got {row}")
        found[int(row[1])] = _Class(row[0], row[2], row[4].lstrip("/"), row[5].lstrip("/"))
    return found


def _split(root: Path, name: str, classes: dict[int, _Class]) -> list[tuple[str, int]]:
    """(photo, class id) of train.txt or val.txt: lines of `path, class id, coarse id`."""
    photos = []
    for line in _read(root / f"{name}.txt").splitlines():
        if not line.strip():
            continue
        parts = [part.strip() for part in line.split(",")]
        if len(parts) != 3 or not parts[1].isdigit() or int(parts[1]) not in classes:
            raise InputError(f"{name}.txt must hold lines of path, class id, coarse id with classes of classes.csv, got {line!r}")
        photos.append((parts[0], int(parts[1])))
    return photos


def _product(root: Path, each: _Class, titles_zh: dict[str, str]) -> Product:
    facts = _facts(root / each.iconic)
    title = each.name.replace("-", " ")
    coarse = each.coarse.replace("-", " ")
    brand = facts.get("Manufacturer and volume", "").split(",")[0].strip().title()
    return Product(
        product_id=each.name,
        title=title if _PLURALS.get(coarse, coarse).lower() in title.lower() else f"{title} {coarse}",
        description=_read(root / each.description).strip(),
        category=f"{Path(each.iconic).parts[1]}/{each.coarse}",
        title_zh=titles_zh.get(each.name),
        brand=brand or None,
        facts=dict(facts),
        images=(each.iconic,),
    )


def _facts(iconic: Path) -> dict[str, str]:
    """The information text beside the iconic image as fact by name; indented lines belong to the fact above them, once each."""
    found = sorted(iconic.parent.glob("*Information.txt"))
    facts: dict[str, str] = {}
    name = ""
    text = _read(found[0]).replace("\xa0", " ").replace(" ,", ",") if found else ""
    for line in text.splitlines():
        if line.startswith(" "):
            value = line.strip()
            if name and value and value not in facts.get(name, "").split("; "):
                facts[name] = f"{facts[name]}; {value}" if facts.get(name) else value
            continue
        name, _, value = (part.strip() for part in line.partition(":"))
        if name:
            facts[name] = value
    return {name: value for name, value in facts.items() if value and name.lower() not in _SKIPPED_FACTS}


def _titles_zh() -> dict[str, str]:
    text = resources.files(__package__).joinpath("grocery_store_zh.csv").read_text(encoding="utf-8")
    return {row["product_id"]: row["title_zh"] for row in csv.DictReader(text.splitlines())}
