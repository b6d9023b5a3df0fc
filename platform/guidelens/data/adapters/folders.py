"""A shop that is folders of photos: each folder that holds photos is a product, the folders above it are its category.

Reads names only. Nothing here decodes a photo: what cannot be read is for the ingest to quarantine.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import ValidationError

from guidelens.data.adapters.source import AdaptedSource
from guidelens.data.images.photos import PHOTO_SUFFIXES
from guidelens.errors import InputError
from guidelens.schemas.base import Frozen
from guidelens.schemas.catalog import LabelledPhoto, Product

CATALOGUE_IMAGE = "catalogue"
_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
_PACKERS_OWN = frozenset({"__MACOSX"})
_HAN = re.compile("[\u3400-\u9fff]")
_NO_UTF8 = re.compile("[\ud800-\udfff]")
_NO_ID = re.compile(r"^\s|\s$|[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class FolderShop(Frozen):
    """source: what ingest takes. empty: folders without a photo in or below them. loose: photos that lie in no product's folder.
    alike: product ids that differ in case alone, which are products of their own."""

    source: AdaptedSource
    empty: tuple[str, ...]
    loose: int
    alike: tuple[tuple[str, ...], ...]


def load(root: Path, catalogue_image: str = CATALOGUE_IMAGE) -> FolderShop:
    """The products and labelled photos below `root`.

    A product's id is its folder's name, or the path from `root` where several folders bear that name. A photo whose name without suffix is
    `catalogue_image`, in any case, is the catalogue's own image of its product; all others are photos for training.

    Raises:
        InputError: `root` is no folder, holds no photo in a folder, or is split into train and test; or a name cannot be an id.
    """
    if not root.is_dir():
        raise InputError(f"DIR must be a folder with a folder of photos for each product, got {root}, which is none")
    root = root.absolute()
    photos: dict[str, list[str]] = {}
    folders: list[str] = []
    loose = 0
    for folder, names in _walk(root):
        if folder:
            folders.append(folder)
        if names and folder:
            photos[folder] = names
        elif names:
            loose = len(names)
    _check_layout(root, photos, loose)
    ids = _ids(list(photos))
    products, labels = [], []
    for folder, names in photos.items():
        pictures = [name for name in names if name.rsplit(".", 1)[0].lower() == catalogue_image.lower()]
        products.append(_product(folder, ids[folder], tuple(f"{folder}/{name}" for name in pictures)))
        labels += [LabelledPhoto(path=f"{folder}/{name}", product_id=ids[folder]) for name in names if name not in pictures]
    empty = tuple(folder for folder in folders if not any(held == folder or held.startswith(f"{folder}/") for held in photos))
    source = AdaptedSource(products=tuple(products), photos=root, labels=tuple(labels), holdout=())
    return FolderShop(source=source, empty=empty, loose=loose, alike=_alike(ids.values()))


def _walk(root: Path) -> Iterator[tuple[str, list[str]]]:
    """(folder relative to root, "" for the root itself; its photos' names), both in order; hidden ones left out, links followed."""
    above: dict[str, frozenset[str]] = {str(root): frozenset()}
    for place, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(place)
        if real in above[place]:
            raise InputError(f"folders must not link back to one above them, got {place!r}; remove the link")
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _PACKERS_OWN)
        above.update({os.path.join(place, name): above[place] | {real} for name in folders})  # noqa: PTH118 - as os.walk spells it
        relative = Path(place).relative_to(root).as_posix()
        photos = sorted(name for name in files if not name.startswith(".") and Path(name).suffix.lower() in PHOTO_SUFFIXES)
        for names, unfit in ((folders, _NO_ID), (photos, _NO_UTF8)):
            for name in names:
                _check_name(Path(place) / name, unfit)
        yield "" if relative == "." else relative, photos


def _check_name(path: Path, unfit: re.Pattern[str]) -> None:
    if unfit.search(path.name):
        raise InputError(f"names must be UTF-8, those of folders without control characters or white space around them, got {str(path)!r}; rename it")


def _check_layout(root: Path, photos: dict[str, list[str]], loose: int) -> None:
    if not photos:
        found = f"{loose} photos that lie in no folder" if loose else "not one JPEG, PNG or WebP file"
        raise InputError(f"{root} must hold a folder of photos for each product, got {found}; put each product's photos into a folder that bears its name")
    tops = {folder.split("/")[0] for folder in photos}
    if tops <= {name for name in tops if name.lower() in _SPLITS}:
        raise InputError(
            f"{root} must hold products, got the parts {', '.join(sorted(tops))} of a data set; import the one to train on, "
            f"such as {root / min(tops, key=lambda name: not name.lower().startswith('train'))}, and evaluate on another"
        )


def _ids(folders: list[str]) -> dict[str, str]:
    times = Counter(folder.rsplit("/", 1)[-1] for folder in folders)
    ids = {folder: name if times[name := folder.rsplit("/", 1)[-1]] == 1 else folder for folder in folders}
    taken = Counter(ids.values())
    for folder, product_id in ids.items():
        if taken[product_id] > 1:
            raise InputError(f"{folder}: its product id {product_id!r} is another folder's too; rename one of them")
    return ids


def _product(folder: str, product_id: str, images: tuple[str, ...]) -> Product:
    *above, name = folder.split("/")
    title = _title(name)
    try:
        return Product(
            product_id=product_id,
            title=title,
            title_zh=title if _HAN.search(title) else None,
            category="/".join(_title(level) for level in above) or title,
            images=images,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{folder}: its name must do as {first['loc'][0]}: {first['msg']}; rename it") from error


def _title(name: str) -> str:
    """`Golden-Delicious` and `golden_delicious` as people write them; a name with spaces stays as it is."""
    spaced = " ".join(part for part in re.split("[-_]", name) if part)
    return name if " " in name or not spaced else spaced


def _alike(ids: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    groups: dict[str, list[str]] = {}
    for product_id in ids:
        groups.setdefault(product_id.casefold(), []).append(product_id)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)
