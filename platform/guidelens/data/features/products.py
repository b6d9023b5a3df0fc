"""Product rows: a catalogue snapshot with its embeddings, as the feature store takes it. Knows nothing of Feast."""

import numpy as np
import polars as pl

from guidelens.schemas.tables import IMAGE_DIM

LEFT_OUT = ("row_sha256", "known_ts")


def product_rows(products: pl.DataFrame, photos: pl.DataFrame) -> pl.DataFrame:
    """One row a product, sorted by product_id.

    Args:
        products: the lake's products.
        photos: product_id, is_catalogue_image, sha256, embedding and image_encoder of the lake's photos.

    Returns:
        product_id, event_timestamp (known_ts), the products' other columns, image_encoder and image_embedding (float32,
        IMAGE_DIM): the mean of the embeddings of the product's catalogue images, else of its labelled photos, else null.
    """
    pictured = photos.filter(pl.col("product_id").is_not_null() & pl.col("embedding").is_not_null())
    is_best = pl.col("is_catalogue_image") == pl.col("is_catalogue_image").any().over("product_id")
    means = _means(pictured.filter(is_best).sort("product_id", "sha256"))
    kept = products.select(pl.exclude(*LEFT_OUT), pl.col("known_ts").alias("event_timestamp"))
    return kept.join(means, on="product_id", how="left").sort("product_id")


def _means(pictured: pl.DataFrame) -> pl.DataFrame:
    """product_id, image_encoder, image_embedding of photos sorted by product; summed in their order, so always alike."""
    vector = pl.Array(pl.Float32, IMAGE_DIM)
    if pictured.is_empty():
        return pl.DataFrame(schema={"product_id": pl.String, "image_encoder": pl.String, "image_embedding": vector})
    products = pictured.group_by("product_id", maintain_order=True).agg(pl.len(), pl.col("image_encoder").first())
    counts = products["len"].cast(pl.Int64).to_numpy()
    starts = np.cumsum(counts) - counts
    sums = np.add.reduceat(pictured["embedding"].to_numpy(), starts, axis=0, dtype=np.float64)
    means = pl.Series("image_embedding", (sums / counts[:, None]).astype(np.float32), dtype=vector)
    return products.select("product_id", "image_encoder").with_columns(means)


PHOTO_COLUMNS = ("product_id", "is_catalogue_image", "sha256", "embedding", "image_encoder")
"""What `product_rows` reads of the photos."""
