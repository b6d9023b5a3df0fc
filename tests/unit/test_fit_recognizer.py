"""What a cross-fit does without, and when the encoder is left as it is and why."""

import numpy as np
import polars as pl
import pytest

from guidelens.config import DEFAULT_IMAGE_ENCODER, TuningConfig
from guidelens.schemas.tables import IMAGE_DIM
from pipelines.fit_recognizer import Photos, _left_out, _why_not


def photos(num_products: int, each: int = 4, pictures: bool = True) -> Photos:
    """Of each product some photos and then its catalogue image."""
    random, rows = np.random.default_rng(0), np.repeat(np.arange(num_products), each + 1)
    is_catalogue = np.arange(len(rows)) % (each + 1) == each
    table = pl.DataFrame(
        {"path": [f"{row:04d}.jpg" for row in range(len(rows))], "thumbnail": [b"x" if pictures else None] * len(rows)},
        schema_overrides={"thumbnail": pl.Binary},
    ).with_columns(embedding=pl.Series(random.random((len(rows), IMAGE_DIM)).astype(np.float32), dtype=pl.Array(pl.Float32, IMAGE_DIM)))
    return Photos(table, rows, is_catalogue, (-1,) * num_products)


def test_each_cross_fit_does_without_photos_of_known_products_and_without_some_products_altogether() -> None:
    shop = photos(32)
    first, second = _left_out(shop, 2, seed=1)
    for one in (first, second):
        novel = np.unique(shop.rows[one.novel_M])
        assert len(novel) == 4 and (one.novel_M == np.isin(shop.rows, novel)).all()
        assert one.held_M.any() and not (one.held_M & (one.novel_M | shop.is_catalogue)).any()
        assert np.isin(shop.rows[one.held_M], shop.rows[~one.held_M & ~one.novel_M]).all()
    assert not (first.novel_M & second.novel_M).any()
    assert not (first.held_M & second.held_M).any()


def test_a_shop_of_few_products_keeps_them_all() -> None:
    assert not any(one.novel_M.any() for one in _left_out(photos(12), 4, seed=1))


@pytest.mark.parametrize(
    ("shop", "tuning", "encoder", "why"),
    [
        (photos(12), TuningConfig(), DEFAULT_IMAGE_ENCODER, ""),
        (photos(12), None, DEFAULT_IMAGE_ENCODER, "tuning is null"),
        (photos(9), TuningConfig(), DEFAULT_IMAGE_ENCODER, "9 products have 2 photos"),
        (photos(12, each=1), TuningConfig(), DEFAULT_IMAGE_ENCODER, "0 products have 2 photos"),
        (photos(12, pictures=False), TuningConfig(), DEFAULT_IMAGE_ENCODER, "ingest labelled photos, again"),
        (photos(12), TuningConfig(), "timm:resnet50", "only efficientnet-lite0 can be tuned"),
    ],
)
def test_why_the_encoder_is_left_as_it_is_is_said(shop: Photos, tuning: TuningConfig | None, encoder: str, why: str) -> None:
    found = _why_not(shop, tuning, encoder)
    assert why in found and bool(why) == bool(found)
