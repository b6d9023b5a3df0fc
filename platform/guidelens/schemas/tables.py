"""The lake's tables: names, Arrow schemas and schema versions. The one place where a column gets its name."""

from enum import StrEnum

import pyarrow as pa

LAKE_SCHEMA_VERSION = 2
IMAGE_DIM = 1280
TEXT_DIM = 512

_TS = pa.timestamp("us", tz="UTC")


class Table(StrEnum):
    PRODUCTS = "products"
    PHOTOS = "photos"
    MODELS = "models"
    EVENTS = "events"
    SHOPPERS = "shoppers"
    REVIEWS = "reviews"
    QUERIES = "queries"
    QUARANTINE = "quarantine"
    TOMBSTONES = "tombstones"


SCHEMAS: dict[Table, pa.Schema] = {
    Table.PRODUCTS: pa.schema(
        [
            ("product_id", pa.string()),
            ("title", pa.string()),
            ("description", pa.string()),
            ("category", pa.string()),
            ("title_zh", pa.string()),
            ("description_zh", pa.string()),
            ("brand", pa.string()),
            ("price_minor", pa.int64()),
            ("currency", pa.string()),
            ("colour", pa.string()),
            ("material", pa.string()),
            ("size", pa.string()),
            ("attributes_json", pa.string()),
            ("facts_json", pa.string()),
            ("images", pa.list_(pa.string())),
            ("stock", pa.int64()),
            ("try_on", pa.string()),
            ("width_m", pa.float64()),
            ("height_m", pa.float64()),
            ("depth_m", pa.float64()),
            ("model_3d", pa.string()),
            ("text_embedding", pa.list_(pa.float32(), TEXT_DIM)),
            ("text_zh_embedding", pa.list_(pa.float32(), TEXT_DIM)),
            ("text_encoder", pa.string()),
            ("row_sha256", pa.string()),
            ("known_ts", _TS),
        ]
    ),
    # A photo without a product is a frame of the log, or unlabelled; `thumbnail` (JPEG) only for catalogue images.
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
    Table.EVENTS: pa.schema(
        [
            ("event_id", pa.string()),
            ("event_ts", _TS),
            ("created_ts", _TS),
            ("shopper_key", pa.string()),
            ("key_id", pa.string()),
            ("is_anonymous", pa.bool_()),
            ("anonymous_key", pa.string()),
            ("session_id", pa.string()),
            ("type", pa.string()),
            ("product_id", pa.string()),
            ("request_id", pa.string()),
            ("position", pa.int32()),
            ("propensity", pa.float64()),
            ("release", pa.string()),
            ("browse_ms", pa.float64()),
            ("stay_ms", pa.float64()),
            ("depth", pa.int32()),
            ("view_ms", pa.float64()),
            ("gesture", pa.string()),
            ("step", pa.string()),
            ("step_index", pa.int32()),
            ("step_propensity", pa.float64()),
            ("outcome", pa.string()),
            ("query", pa.string()),
            ("frame_id", pa.string()),
            ("value_minor", pa.int64()),
            ("rating", pa.float64()),
            ("channel", pa.string()),
            ("device", pa.string()),
        ]
    ),
    Table.SHOPPERS: pa.schema(
        [
            ("shopper_key", pa.string()),
            ("key_id", pa.string()),
            ("age_band", pa.string()),
            ("gender", pa.string()),
            ("region", pa.string()),
            ("height_cm", pa.float64()),
            ("body", pa.string()),
            ("skin_tone", pa.string()),
            ("channel", pa.string()),
            ("created_ts", _TS),
            ("consent", pa.bool_()),
            ("row_sha256", pa.string()),
        ]
    ),
    Table.REVIEWS: pa.schema(
        [
            ("review_id", pa.string()),
            ("product_id", pa.string()),
            ("shopper_key", pa.string()),
            ("ts", _TS),
            ("rating", pa.float64()),
            ("text", pa.string()),
            ("locale", pa.string()),
            ("row_sha256", pa.string()),
        ]
    ),
    # Each distinct search text of the log, embedded once.
    Table.QUERIES: pa.schema([("query", pa.string()), ("embedding", pa.list_(pa.float32(), TEXT_DIM)), ("text_encoder", pa.string())]),
    # `record_sha256` is the key: the same bad record read twice is kept once.
    Table.QUARANTINE: pa.schema(
        [
            ("record_sha256", pa.string()),
            ("kind", pa.string()),
            ("source", pa.string()),
            ("offset", pa.int64()),
            ("rule", pa.string()),
            ("message", pa.string()),
            ("raw", pa.binary()),
        ]
    ),
    # Shoppers to forget: ingest drops their rows, training never sees them.
    Table.TOMBSTONES: pa.schema([("shopper_key", pa.string()), ("asked_ts", _TS)]),
}

PARTITIONED_BY_DATE = frozenset({Table.EVENTS})
