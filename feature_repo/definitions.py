"""Entities, sources, views and services. Sources are files under the offline store's root.

Values and windows by name are those of schemas/packed.py; the packed row holds the same numbers in one value.
"""

import copy
from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource
from feast.types import Array, Bytes, Float32, Float64, Int64, String
from feast.value_type import ValueType

from guidelens.schemas.packed import AR_FEATURES, PROFILE_FIELDS, PROFILE_VALUES, RECENT_VALUES, WINDOW_FEATURES

FOREVER = timedelta(0)
TIMESTAMP = "event_timestamp"

shopper = Entity(name="shopper", join_keys=["shopper_key"], value_type=ValueType.STRING, description="A shopper, by keyed HMAC of the id")
product = Entity(name="product", join_keys=["product_id"], value_type=ValueType.STRING, description="A product of the catalogue")

shopper_source = FileSource(name="shopper_rows", path="shopper", timestamp_field=TIMESTAMP)
product_source = FileSource(name="product_rows", path="product.parquet", timestamp_field=TIMESTAMP)


def _shopper_view(name: str, description: str, fields: list[Field]) -> FeatureView:
    return FeatureView(name=name, entities=[shopper], ttl=FOREVER, schema=fields, source=shopper_source, description=description)


def _product_view(name: str, description: str, fields: list[Field]) -> FeatureView:
    return FeatureView(name=name, entities=[product], ttl=FOREVER, schema=fields, source=product_source, description=description)


shopper_profile = _shopper_view(
    "shopper_profile",
    "What the shop knows of the shopper; null where missing",
    [*(Field(name=name, dtype=String) for name in PROFILE_FIELDS), *(Field(name=name, dtype=Float32) for name in PROFILE_VALUES)],
)
shopper_windows = _shopper_view(
    "shopper_windows", "X1: sums of behaviour over the last hours, (as_of - h, as_of]", [Field(name=name, dtype=Float32) for name in WINDOW_FEATURES]
)
shopper_recent = _shopper_view(
    "shopper_recent",
    "X1: the newest visits, newest first",
    [
        Field(name="recent_products", dtype=Array(String)),
        Field(name="recent_ts_us", dtype=Array(Int64)),
        *(Field(name=f"recent_{name}", dtype=Array(Float32)) for name in RECENT_VALUES),
    ],
)
shopper_ar = _shopper_view("shopper_ar", "X3: sums of AR interaction over the last hours", [Field(name=name, dtype=Float32) for name in AR_FEATURES])
shopper_packed = _shopper_view(
    "shopper_packed", "All of the shopper's features in one value (schemas/packed.py): the hot path's one read", [Field(name="packed", dtype=Bytes)]
)

_TEXTS = (
    *("title", "description", "category", "title_zh", "description_zh", "brand", "colour", "material", "size"),
    *("attributes_json", "facts_json", "currency", "try_on", "model_3d", "text_encoder", "image_encoder"),
)
_METRES = ("width_m", "height_m", "depth_m")
_EMBEDDINGS = ("text_embedding", "text_zh_embedding", "image_embedding")

product_content = _product_view(
    "product_content",
    "X2: attributes, texts and embeddings; image_embedding is the mean of the product's catalogue images, else of its labelled photos",
    [
        *(Field(name=name, dtype=String) for name in _TEXTS),
        Field(name="price_minor", dtype=Int64),
        *(Field(name=name, dtype=Float64) for name in _METRES),
        Field(name="images", dtype=Array(String)),
        *(Field(name=name, dtype=Array(Float32)) for name in _EMBEDDINGS),
    ],
)
product_stock = _product_view(
    "product_stock",
    "What changes by the minute: read for the final slate in one multi-get",
    [Field(name="stock", dtype=Int64), Field(name="price_minor", dtype=Int64), Field(name="currency", dtype=String)],
)

guide_v1 = FeatureService(name="guide_v1", features=[shopper_packed, product_content], description="What the guide model is trained on and served with")
guide_detail_v1 = FeatureService(
    name="guide_detail_v1", features=[shopper_profile, shopper_windows, shopper_recent, shopper_ar], description="The packed row's numbers by name"
)

ENTITIES = (shopper, product)
VIEWS = (shopper_profile, shopper_windows, shopper_recent, shopper_ar, shopper_packed, product_content, product_stock)
SERVICES = (guide_v1, guide_detail_v1)


def views(shopper_ttl: timedelta) -> list[FeatureView]:
    """All views, those of shoppers with a time to live; 0 for ever. A catalogue row is the newest there is, however old."""
    found = [copy.copy(view) for view in VIEWS]
    for view in found:
        view.ttl = shopper_ttl if view.entities == [shopper.name] else FOREVER
    return found
