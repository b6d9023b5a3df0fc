"""The lake's tables: names, Arrow schemas and schema versions. Columns of records follow from their contracts."""

from enum import StrEnum

import pyarrow as pa

from guidelens.schemas.catalog import Product, Review, Shopper
from guidelens.schemas.events import Event
from guidelens.schemas.fields import TIMESTAMP, arrow_fields

LAKE_SCHEMA_VERSION = 3
IMAGE_DIM = 1280
TEXT_DIM = 512

_KEYED = [("shopper_key", pa.string()), ("key_id", pa.string())]
_ATTRIBUTES = [("colour", pa.string()), ("material", pa.string()), ("size", pa.string()), ("attributes_json", pa.string())]
_PRODUCT = arrow_fields(Product, {"attributes": _ATTRIBUTES, "facts": [("facts_json", pa.string())], "images": [("images", pa.list_(pa.string()))]})


class Table(StrEnum):
    PRODUCTS = "products"
    PHOTOS = "photos"
    MODELS = "models"
    EVENTS = "events"
    SHOPPERS = "shoppers"
    CONSENTS = "consents"
    REVIEWS = "reviews"
    QUERIES = "queries"
    QUARANTINE = "quarantine"
    TOMBSTONES = "tombstones"


SCHEMAS: dict[Table, pa.Schema] = {
    Table.PRODUCTS: pa.schema(
        [
            *_PRODUCT,
            ("text_embedding", pa.list_(pa.float32(), TEXT_DIM)),
            ("text_zh_embedding", pa.list_(pa.float32(), TEXT_DIM)),
            ("text_encoder", pa.string()),
            ("row_sha256", pa.string()),
            ("known_ts", TIMESTAMP),
        ]
    ),
    # A photo without a product is a frame of the log, or unlabelled; `thumbnail` (upright JPEG) only of photos with one: the recognizer learns
    # from it.
    Table.PHOTOS: pa.schema(
        [
            ("path", pa.string()),
            ("sha256", pa.string()),
            ("product_id", pa.string()),
            ("is_catalogue_image", pa.bool_()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("embedding", pa.list_(pa.float32(), IMAGE_DIM)),
            ("image_encoder", pa.string()),
            ("thumbnail", pa.binary()),
        ]
    ),
    # Binary glTF files that products name as `model_3d`.
    Table.MODELS: pa.schema([("path", pa.string()), ("glb", pa.binary()), ("row_sha256", pa.string())]),
    # `shopper_key` is the keyed HMAC of shopper_id (or anonymous_id); `is_anonymous` says which it was. `anonymous_key`: the HMAC of the
    # anonymous_id where both were given (a login).
    Table.EVENTS: pa.schema(arrow_fields(Event, {"shopper_id": [*_KEYED, ("is_anonymous", pa.bool_())], "anonymous_id": [("anonymous_key", pa.string())]})),
    Table.SHOPPERS: pa.schema([*arrow_fields(Shopper, {"shopper_id": _KEYED}), ("row_sha256", pa.string())]),
    # What each shopper said, and from when on; nothing is replaced.
    Table.CONSENTS: pa.schema([*_KEYED, ("consent", pa.bool_()), ("since_ts", TIMESTAMP)]),
    Table.REVIEWS: pa.schema([*arrow_fields(Review, {"shopper_id": _KEYED[:1]}), ("row_sha256", pa.string())]),
    # Each distinct search text of the log, embedded once.
    Table.QUERIES: pa.schema([("query", pa.string()), ("embedding", pa.list_(pa.float32(), TEXT_DIM)), ("text_encoder", pa.string())]),
    # `record_sha256` is the key: the same bad record read twice is kept once. Of photos and models `folder` is what was ingested, and of
    # photos `labels` the file that says what they show: where a replay reads them again; null in rows from before schema 3.
    Table.QUARANTINE: pa.schema(
        [
            ("record_sha256", pa.string()),
            ("kind", pa.string()),
            ("source", pa.string()),
            ("offset", pa.int64()),
            ("rule", pa.string()),
            ("message", pa.string()),
            ("raw", pa.binary()),
            ("folder", pa.string()),
            ("labels", pa.string()),
        ]
    ),
    # Shoppers to forget: ingest drops their rows, training never sees them.
    Table.TOMBSTONES: pa.schema([("shopper_key", pa.string()), ("asked_ts", TIMESTAMP)]),
}

PARTITIONED_BY_DATE = frozenset({Table.EVENTS})
