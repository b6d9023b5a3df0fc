"""The release's products as people see them: titles, facts, sizes, pictures. Read once from the bundle; knows nothing of models."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from guidelens.bundle import DEVICE_ENCODER
from guidelens.errors import BundleError
from guidelens.schemas.base import Frozen

_COLUMNS = (
    "product_id",
    "title",
    "title_zh",
    "description",
    "description_zh",
    "category",
    "brand",
    "price_minor",
    "currency",
    "attributes_json",
    "facts_json",
    "stock",
    "try_on",
    "width_m",
    "height_m",
    "depth_m",
)


class Size(Frozen):
    """Outer dimensions in metres."""

    width_m: float
    height_m: float
    depth_m: float


class ProductView(Frozen):
    """A product, as `GET /v1/products/ID` shows it. `size` is null where its dimensions are not known, and
    `model_url` too, unless the shop brought a model of its own."""

    product_id: str
    title: str
    title_zh: str | None
    description: str
    description_zh: str | None
    category: str
    brand: str | None
    price_minor: int | None
    currency: str | None
    attributes: dict[str, Any]
    facts: dict[str, Any]
    stock: int | None
    try_on: str
    size: Size | None
    image_url: str | None
    model_url: str | None
    release: str


@dataclass(frozen=True, slots=True)
class Item:
    """One row of the item table, as far as people see it."""

    view: ProductView
    shown_facts: dict[str, Any]

    def title(self, locale: str) -> str:
        return self.view.title_zh if self.view.title_zh and locale.lower().startswith("zh") else self.view.title


@dataclass(frozen=True, slots=True)
class DeviceEncoder:
    """The release's image encoder for shoppers' devices. id: of its bytes."""

    path: Path
    id: str

    @classmethod
    def of(cls, path: Path) -> "DeviceEncoder | None":
        if not path.is_file():
            return None
        with path.open("rb") as source:
            return cls(path, hashlib.file_digest(source, "sha256").hexdigest()[:16])


class Catalogue:
    """The item table: `items[row]` is product `row` of the release, `row_of` its way back."""

    def __init__(self, bundle: Path, release: str) -> None:
        """Reads `items.parquet`.

        Raises:
            BundleError: the item table is missing, or lacks a column.
        """
        path = bundle / "items.parquet"
        try:
            known = set(pq.read_schema(path).names)
            rows = pq.read_table(path, columns=[name for name in _COLUMNS if name in known]).to_pylist()
        except (OSError, ValueError) as error:
            raise BundleError(f"{path}: the item table cannot be read: {error}") from error
        if not {"product_id", "title"} <= known:
            raise BundleError(f"{path}: the item table needs product_id and title, got {sorted(known)}")
        self._media = bundle / "media"
        self.device_encoder = DeviceEncoder.of(bundle / DEVICE_ENCODER)
        self.items = tuple(self._item(row, index, release) for index, row in enumerate(rows))
        self.row_of = {item.view.product_id: index for index, item in enumerate(self.items)}

    def _item(self, row: dict[str, Any], index: int, release: str) -> Item:
        attributes = _json_object(row.get("attributes_json"))
        facts = _json_object(row.get("facts_json"))
        sides = [row.get(name) for name in ("width_m", "height_m", "depth_m")]
        size = Size(width_m=sides[0], height_m=sides[1], depth_m=sides[2]) if all(sides) else None
        base = f"/v1/products/{_quoted(row['product_id'])}"
        plain = {name: row.get(name) for name in ("product_id", "title", "title_zh", "description_zh", "brand", "price_minor", "currency", "stock")}
        view = ProductView(
            **plain,
            description=row.get("description") or "",
            category=row.get("category") or "",
            attributes=attributes,
            facts=facts,
            try_on=row.get("try_on") or "none",
            size=size,
            image_url=f"{base}/image" if self.image_path(index) else None,
            model_url=f"{base}/model.glb" if size or self.model_path(index) else None,
            release=release,
        )
        return Item(view, shown_facts={**attributes, **facts})

    def find(self, product_id: str) -> ProductView | None:
        row = self.row_of.get(product_id)
        return None if row is None else self.items[row].view

    def image_path(self, row: int) -> Path | None:
        """The product's picture in the bundle; the name is made of the row, never of a caller's text."""
        path = self._media / f"{row}.jpg"
        return path if path.is_file() else None

    def model_path(self, row: int) -> Path | None:
        """The 3-D model that the shop brought for the product, if any."""
        path = self._media / f"{row}.glb"
        return path if path.is_file() else None


def _json_object(text: str | None) -> dict[str, Any]:
    found = json.loads(text) if text else {}
    return found if isinstance(found, dict) else {}


def _quoted(product_id: str) -> str:
    from urllib.parse import quote

    return quote(product_id, safe="")
