"""Recognition measured on photos of the lake that a recognizer, fitted for this alone, has not seen.

The run's own recognizer knows all labelled photos, so its answers on them would prove nothing.
"""

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from guidelens.config import Config
from guidelens.data.examples import row_of
from guidelens.data.lake.lake import Lake, Manifest
from guidelens.evaluation.recognition import ShownProduct, measure_answers
from guidelens.evaluation.report import RecognitionReport
from guidelens.models.recognizer_fit import answers_held_back, folds
from guidelens.schemas.ids import sub_seed
from guidelens.schemas.tables import IMAGE_DIM, Table

# Letters: M = labelled photos and catalogue images, H = photos held back.

MIN_HELD_BACK = 10
PROTOCOL = "A quarter of the labelled photos, near-duplicates kept together, held back from a recognizer fitted on the rest in the same way as the run's own."


class Labelled(NamedTuple):
    """(M,) photos with a product: embeddings, product rows, which are catalogue images."""

    embeddings: NDArray[np.float32]
    rows: NDArray[np.int64]
    is_catalogue_image: NDArray[np.bool_]


def measure_recognition(lake: Lake, manifest: Manifest, config: Config) -> tuple[RecognitionReport | None, str]:
    """The report, or None and the reason why nothing could be measured."""
    products = lake.read(Table.PRODUCTS, ["product_id", "title", "category"], manifest=manifest).sort("product_id")
    photos = _labelled(lake, manifest, products["product_id"].to_list())
    seed = sub_seed(config.seed, "recognizer")
    in_fold = folds(photos.embeddings, photos.rows, seed) == 0 if len(photos.rows) else np.zeros(0, dtype=np.bool_)
    held: NDArray[np.bool_] = in_fold & ~photos.is_catalogue_image & np.isin(photos.rows, photos.rows[~in_fold])
    if int(held.sum()) < MIN_HELD_BACK:
        return None, f"only {int(held.sum())} labelled photos can be held back and {MIN_HELD_BACK} are needed; `guidelens evaluate recognizer` takes others"
    answers = answers_held_back(photos.embeddings, photos.rows, photos.is_catalogue_image, held, len(products))
    shown = [ShownProduct(**row) for row in products.with_columns(pl.col("category").fill_null("")).to_dicts()]
    named = [tuple(shown[row].product_id for row in top) for top in answers]
    return measure_answers([shown[row].product_id for row in photos.rows[held]], named, shown, PROTOCOL, seed), ""


def _labelled(lake: Lake, manifest: Manifest, item_ids: list[str]) -> Labelled:
    table = lake.read(Table.PHOTOS, ["path", "product_id", "is_catalogue_image", "embedding"], manifest=manifest)
    rows = row_of(table["product_id"], item_ids)
    known = table.with_columns(pl.Series("row", rows)).filter((pl.col("row") >= 0) & pl.col("embedding").is_not_null()).sort("path")
    embeddings = known["embedding"].cast(pl.Array(pl.Float32, IMAGE_DIM)).to_numpy() if len(known) else np.zeros((0, IMAGE_DIM), np.float32)
    return Labelled(np.ascontiguousarray(embeddings), known["row"].to_numpy().astype(np.int64), known["is_catalogue_image"].fill_null(False).to_numpy())
