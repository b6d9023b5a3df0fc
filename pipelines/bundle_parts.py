"""What a bundle holds beside the fit: pictures and 3-D models of the products, and the vector index over the items."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from guidelens.bundle import DEVICE_ENCODER
from guidelens.data.examples import Examples, row_of
from guidelens.data.lake.lake import Lake
from guidelens.encoders.backbones import load_image_backbone
from guidelens.inference.fusion import INDEX
from guidelens.inference.guide_files import encoders_of, has_guide, load_items, require_encoder
from guidelens.inference.scorer import GuideScorer
from guidelens.models.released_recognizer import ReleasedRecognizer
from guidelens.retrieval import VectorIndex
from guidelens.retrieval.vectors import EXACT_BELOW
from guidelens.schemas.tables import Table
from pipelines.run_files import RunFiles


def thumbnails(files: RunFiles) -> dict[int, bytes]:
    """JPEG by product row, as the run's snapshot has it: the first catalogue image by path, or the first photo where there is none."""
    lake = Lake(files.record.lake, files.home.s3)
    photos = lake.read(Table.PHOTOS, ["path", "product_id", "is_catalogue_image", "thumbnail"], manifest=lake.manifest(files.record.manifest))
    items, _ = load_items(files.fit)
    shown = photos.filter(pl.col("thumbnail").is_not_null() & pl.col("product_id").is_not_null())
    shown = shown.sort(~pl.col("is_catalogue_image").fill_null(False), "path").unique("product_id", keep="first")
    rows = row_of(shown["product_id"], items["product_id"].to_list())
    return {int(row): data for row, data in zip(rows, shown["thumbnail"].to_list(), strict=True) if row >= 0}


def models(files: RunFiles) -> dict[int, bytes]:
    """Binary glTF by product row, of the products that bring a model of their own, as the run's snapshot has it."""
    lake = Lake(files.record.lake, files.home.s3)
    items, _ = load_items(files.fit)
    found = dict(lake.read(Table.MODELS, ["path", "glb"], manifest=lake.manifest(files.record.manifest)).iter_rows())
    return {row: found[path] for row, path in enumerate(items["model_3d"].to_list()) if path is not None}


def with_index(fit: Path, asked: Callable[[], Examples] | None = None) -> None:
    """Adds the index over item vectors to a fit: the guide model's, or unit image and text embeddings without one.

    Args:
        asked: requests whose intents a large index is tried on; its own vectors otherwise.
    """
    if not has_guide(fit):
        VectorIndex.build(_content_vectors(fit)).save(fit / INDEX)
        return
    scorer = GuideScorer.load(fit)
    vectors = scorer.index_vectors()
    queries = scorer.index_queries(asked()) if asked is not None and len(vectors) >= EXACT_BELOW else None
    VectorIndex.build(vectors, queries).save(fit / INDEX)


def with_device_encoder(fit: Path) -> None:
    """Adds the image encoder that shoppers' devices run, so that they send an embedding in place of a photo."""
    encoder = load_image_backbone(encoders_of(fit).image)
    require_encoder(load_items(fit)[0], "image", encoder.encoder_id)
    graph = ReleasedRecognizer.load(fit, encoder).device_graph()
    if graph is not None:
        (fit / DEVICE_ENCODER).write_bytes(graph)


def _content_vectors(fit: Path) -> NDArray[np.float32]:
    _, catalogue = load_items(fit)
    parts = [catalogue.image_NE, catalogue.text_NE]
    return np.concatenate([part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-6) for part in parts], axis=1).astype(np.float32)
