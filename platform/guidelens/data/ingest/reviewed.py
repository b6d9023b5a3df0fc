"""Frames that people labelled in the review queue, as photos of an ingest: embeddings without a picture, which was never the lake's to keep."""

import hashlib
from collections.abc import Sequence

import polars as pl
import pyarrow as pa

from guidelens.data.images.photos import EMBEDDED_SCHEMA
from guidelens.data.review import ReviewEntry


def photos_of(entries: Sequence[ReviewEntry]) -> pl.DataFrame:
    """(EMBEDDED_SCHEMA) one row an entry, under a path of its own; the hash is of its embedding."""
    rows = [
        {
            "path": f"review/{entry.entry_id}",
            "sha256": hashlib.sha256(entry.embedding.tobytes()).hexdigest(),
            "product_id": entry.product_id,
            "is_catalogue_image": False,
            "embedding": entry.embedding,
            "image_encoder": entry.image_encoder,
            "source": 0,
            "offset": 0,
        }
        for entry in entries
    ]
    frame = pl.from_arrow(pa.Table.from_pylist(rows, schema=EMBEDDED_SCHEMA))
    assert isinstance(frame, pl.DataFrame)
    return frame
