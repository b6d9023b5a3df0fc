"""Encoders by name: any width fits, names that mean nothing are refused, packages that are missing are named."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from guidelens import presets
from guidelens.config import EncoderConfig
from guidelens.encoders.backbones import load_image_backbone, load_text_backbone, of_width, require_packages
from guidelens.errors import ConfigError
from guidelens.inference.guide_files import encoders_of, require_encoder


def unit(rows: int, width: int) -> np.ndarray:
    drawn = np.random.default_rng(rows + width).standard_normal((rows, width)).astype(np.float32)
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))


def test_narrower_embeddings_keep_every_cosine_and_wider_ones_nearly_so() -> None:
    narrow = unit(40, 384)
    assert of_width(narrow, 512).shape == (40, 512)
    np.testing.assert_allclose(of_width(narrow, 512) @ of_width(narrow, 512).T, narrow @ narrow.T, atol=1e-5)
    wide = unit(300, 768)
    error = of_width(wide, 512) @ of_width(wide, 512).T - wide @ wide.T
    assert (abs(error.mean()) < 0.01, error.std() < 0.05) == (True, True)
    assert (of_width(wide, 512) == of_width(wide, 512)).all()


def test_an_encoder_of_the_shop_s_own_comes_out_as_wide_as_the_lake_s() -> None:
    images = load_image_backbone("own_encoders:Places")
    found = images.embed(np.random.default_rng(0).integers(0, 255, (3, 224, 224, 3), dtype=np.uint8))
    assert (found.shape, images.dim, images.encoder_id) == ((3, 1280), 1280, "places-1-1280")
    texts = load_text_backbone("own_encoders:Grams").embed(["红色的椅子", "a red chair", ""])
    assert texts.shape == (3, 512)
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), [1, 1, 0], atol=1e-5)


@pytest.mark.parametrize("name", ["resnet", "no_such_module:function", "own_encoders:Nothing"])
def test_a_name_that_means_nothing_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"ingest.encoders.image must .*{name}"):
        load_image_backbone(name)


@pytest.mark.parametrize(("name", "extra"), [("timm:resnet18", "timm"), ("open_clip:ViT-B-32/openai", "open-clip")])
def test_a_package_that_is_missing_is_named_with_how_to_get_it(name: str, extra: str) -> None:
    with pytest.raises(ConfigError, match=f"guidelens.{extra}."):
        load_image_backbone(name)


def test_missing_packages_and_bare_names_are_told_before_any_work() -> None:
    require_packages(EncoderConfig())
    with pytest.raises(ConfigError, match=r"ingest.encoders.text .*no sentence_transformers; pip install"):
        require_packages(EncoderConfig(text="sentence-transformers:all-MiniLM-L6-v2"))
    with pytest.raises(ConfigError, match=r"ingest\.encoders\.image"):
        presets.load("tiny", ["ingest.encoders.image=resnet"])


def test_a_fit_says_which_encoders_it_needs_and_items_of_others_are_refused(tmp_path: Path) -> None:
    (tmp_path / "fit.json").write_text(json.dumps({"config": {"ingest": {"encoders": {"image": "timm:resnet18"}}}}))
    assert (encoders_of(tmp_path).image, encoders_of(tmp_path).text) == ("timm:resnet18", "usem3")
    (tmp_path / "fit.json").write_text(json.dumps({"config": {"ingest": {}}}))
    assert encoders_of(tmp_path).image == "efficientnet-lite0"
    items = pl.DataFrame({"image_encoder": ["a", None, "a"], "text_encoder": ["b", "c", "b"]})
    require_encoder(items, "image", "a")
    with pytest.raises(ConfigError, match=r"must be of b, got b and c"):
        require_encoder(items, "text", "b")
