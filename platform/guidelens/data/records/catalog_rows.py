"""Products, shoppers and reviews as rows of their tables. A row's SHA-256 says whether anything about it changed."""

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from guidelens.schemas.catalog import Product, Review, Shopper

Row = dict[str, Any]

_CANONICAL: dict[str, tuple[str, ...]] = {
    "colour": ("colour", "color", "colors", "colours", "颜色", "颜色分类", "色"),
    "material": ("material", "materials", "fabric", "材质", "材料", "面料"),
    "size": ("size", "sizes", "尺寸", "尺码", "规格"),
}
"""Attribute names that shops use for what the contract calls colour, material and size; case does not matter."""

_CAME_LATER = frozenset({"consent_ts"})


def product_row(product: Product) -> Row:
    """A row of the products table, without what ingest fills in later (embeddings, known_ts)."""
    attributes = canonical_attributes(product.attributes)
    row: Row = product.model_dump(exclude={"attributes", "facts", "images"})
    row |= {name: _as_text(attributes.get(name)) for name in _CANONICAL}
    row |= {"attributes_json": _json(attributes), "facts_json": _json(product.facts), "images": list(product.images)}
    return row | {"row_sha256": row_sha256(row)}


def shopper_row(shopper: Shopper, key: Callable[[str], str], key_id: str) -> Row:
    """key: pseudonym of a shopper's id."""
    row: Row = {"shopper_key": key(shopper.shopper_id), "key_id": key_id, **shopper.model_dump(exclude={"shopper_id"})}
    return row | {"row_sha256": row_sha256(row)}


def review_row(review: Review, key: Callable[[str], str]) -> Row:
    """key: pseudonym of a shopper's id."""
    row: Row = {**review.model_dump(exclude={"shopper_id"}), "shopper_key": None if review.shopper_id is None else key(review.shopper_id)}
    return row | {"row_sha256": row_sha256(row)}


def canonical_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes with known synonyms renamed; a name the shop gave canonically wins over a synonym."""
    names = {synonym: canonical for canonical, synonyms in _CANONICAL.items() for synonym in synonyms}
    renamed: dict[str, Any] = {}
    for given, value in attributes.items():
        name = names.get(given.strip().lower(), given)
        if name not in renamed or given == name:
            renamed[name] = value
    return renamed


def _as_text(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, list | tuple):
        return "/".join(str(part) for part in value)
    return str(value).strip()


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def row_sha256(row: Mapping[str, Any]) -> str:
    """Of a row as it was brought or as the lake holds it, without this column. A field that came later counts where it says something."""
    row = {name: value for name, value in row.items() if value is not None or name not in _CAME_LATER}
    return hashlib.sha256(json.dumps(row, ensure_ascii=False, sort_keys=True, default=_in_utc).encode("utf-8", "surrogatepass")).hexdigest()


def _in_utc(value: datetime) -> str:
    return str(value.astimezone(UTC))
