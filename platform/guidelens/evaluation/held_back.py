"""Recognition measured on photos of the lake that a recognizer has not seen.

The run's own recognizer knows all labelled photos, so its answers on them would prove nothing: what its calibration held back is measured, or, of a
fit that did not keep these answers, photos held back from a recognizer fitted for this alone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from guidelens.config import Config
from guidelens.data.examples import row_of
from guidelens.data.lake.lake import Lake, Manifest
from guidelens.evaluation.recognition import Prediction, ShownProduct, measure_answers, measure_predictions
from guidelens.evaluation.report import RecognitionReport
from guidelens.models.recognizer_fit import answers_held_back, folds
from guidelens.schemas.ids import sub_seed
from guidelens.schemas.tables import IMAGE_DIM, Table

# Letters: M = labelled photos and catalogue images, H = photos held back.

MIN_HELD_BACK = 10
HELD_BACK = "held_back.parquet"
"""Of a fit and of a bundle: a row a photo that calibration held back (path, sha256, product_id), and what was answered without having seen it."""
OWN_PROTOCOL = (
    "Labelled photos held back in groups that look alike, each answered by a fit, in the same way as the run's own, that has not seen its group; "
    "they also set how sure the run's recognizer may be."
)
PROTOCOL = "A quarter of the labelled photos, near-duplicates kept together, held back from a recognizer fitted on the rest in the same way as the run's own."


class Labelled(NamedTuple):
    """(M,) photos with a product: embeddings, product rows, which are catalogue images."""

    embeddings: NDArray[np.float32]
    rows: NDArray[np.int64]
    is_catalogue_image: NDArray[np.bool_]


def measure_recognition(lake: Lake, manifest: Manifest, config: Config) -> tuple[RecognitionReport | None, str]:
    """The report, or None and the reason why nothing could be measured."""
    shown = shown_products(lake, manifest)
    photos = _labelled(lake, manifest, [product.product_id for product in shown])
    seed = sub_seed(config.seed, "recognizer")
    in_fold = folds(photos.embeddings, photos.rows, seed) == 0 if len(photos.rows) else np.zeros(0, dtype=np.bool_)
    held: NDArray[np.bool_] = in_fold & ~photos.is_catalogue_image & np.isin(photos.rows, photos.rows[~in_fold])
    if int(held.sum()) < MIN_HELD_BACK:
        return None, f"only {int(held.sum())} labelled photos can be held back and {MIN_HELD_BACK} are needed; `guidelens evaluate recognizer` takes others"
    answers = answers_held_back(photos.embeddings, photos.rows, photos.is_catalogue_image, held, len(shown))
    named = [tuple(shown[row].product_id for row in top) for top in answers]
    return measure_answers([shown[row].product_id for row in photos.rows[held]], named, shown, PROTOCOL, seed), ""


def answers_of(fit: Path) -> tuple[Prediction, ...]:
    """What a fit or bundle answered to photos held back from it; nothing where it kept no such answers."""
    if not (fit / HELD_BACK).exists():
        return ()
    return tuple(
        Prediction(path=path, product_id=product, predicted=answers[0], confidence=confidence, in_catalogue=known, top5=tuple(answers))
        for path, product, answers, confidence, known in pl.read_parquet(fit / HELD_BACK)
        .select("path", "product_id", "answers", "confidence", "in_catalogue")
        .iter_rows()
    )


def measure_own(answers: Sequence[Prediction], products: Sequence[ShownProduct], seed: int) -> tuple[RecognitionReport | None, str]:
    """As `measure_recognition`, of answers that the fit kept."""
    if len(answers) < MIN_HELD_BACK:
        return None, f"only {len(answers)} labelled photos were held back and {MIN_HELD_BACK} are needed; `guidelens evaluate recognizer` takes others"
    return measure_predictions(answers, products, OWN_PROTOCOL, seed), ""


def both_held_back(ours: Path, theirs: Path) -> NDArray[np.float64]:
    """(H, 2) right or wrong, ours and theirs, of the photos that both fits or bundles held back, by content and product."""
    if not ((ours / HELD_BACK).exists() and (theirs / HELD_BACK).exists()):
        return np.zeros((0, 2))
    tables = [pl.read_parquet(one / HELD_BACK).unique(["sha256", "product_id"], keep="first", maintain_order=True) for one in (ours, theirs)]
    right = [table.select("sha256", "product_id", right=pl.col("answers").list.first() == pl.col("product_id")) for table in tables]
    both = right[0].join(right[1], on=["sha256", "product_id"], suffix="_theirs", maintain_order="left")
    return both.select("right", "right_theirs").to_numpy().astype(np.float64)


def shown_products(lake: Lake, manifest: Manifest) -> list[ShownProduct]:
    """Of a snapshot, in the order of product rows."""
    products = lake.read(Table.PRODUCTS, ["product_id", "title", "category"], manifest=manifest).sort("product_id")
    return [ShownProduct(**row) for row in products.with_columns(pl.col("category").fill_null("")).to_dicts()]


def _labelled(lake: Lake, manifest: Manifest, item_ids: list[str]) -> Labelled:
    table = lake.read(Table.PHOTOS, ["path", "product_id", "is_catalogue_image", "embedding"], manifest=manifest)
    rows = row_of(table["product_id"], item_ids)
    known = table.with_columns(pl.Series("row", rows)).filter((pl.col("row") >= 0) & pl.col("embedding").is_not_null()).sort("path")
    embeddings = known["embedding"].cast(pl.Array(pl.Float32, IMAGE_DIM)).to_numpy() if len(known) else np.zeros((0, IMAGE_DIM), np.float32)
    return Labelled(np.ascontiguousarray(embeddings), known["row"].to_numpy().astype(np.int64), known["is_catalogue_image"].fill_null(False).to_numpy())
