"""Which pretrained encoders a shop uses, by the names that `ingest.encoders` takes; all of them come out as wide as the lake's columns.

A name is that of a built-in encoder, `timm:MODEL`, `open_clip:MODEL/WEIGHTS` or `sentence-transformers:MODEL` (packages of their own, and weights from
where these get them), or `package.module:function` of a function without arguments that returns an encoder. Embeddings of different encoders do not
compare: every one of them is kept with its `encoder_id`.
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from guidelens.config import DEFAULT_IMAGE_ENCODER, DEFAULT_TEXT_ENCODER, EncoderConfig
from guidelens.encoders.image import load_image_encoder
from guidelens.encoders.text import load_text_encoder
from guidelens.errors import ConfigError
from guidelens.schemas.ids import sub_seed
from guidelens.schemas.tables import IMAGE_DIM, TEXT_DIM

# Letters: B = images or texts, D = the encoder's own width, W = the lake's.

Floats = NDArray[np.float32]


class ImageBackbone(Protocol):
    """encoder_id: names the weights. dim: width of an embedding."""

    encoder_id: str
    dim: int

    def embed(self, images: NDArray[np.uint8]) -> Floats:
        """(B, 224, 224, 3) uint8 RGB to (B, dim)."""


class TextBackbone(Protocol):
    """encoder_id: names the weights. dim: width of an embedding."""

    encoder_id: str
    dim: int

    def embed(self, texts: Sequence[str]) -> Floats:
        """(B, dim) of unit length; zeros for a text without a visible character."""


def load_image_backbone(name: str = DEFAULT_IMAGE_ENCODER, cache_dir: Path | None = None, num_threads: int = 1) -> ImageBackbone:
    """An encoder of images, IMAGE_DIM wide. `num_threads` sets torch's and OpenCV's threads for the whole process.

    Raises:
        ConfigError: there is no such encoder, or its package is not installed.
        BundleError: the installed weights do not fit the network.
    """
    if name == DEFAULT_IMAGE_ENCODER:
        return load_image_encoder(cache_dir, num_threads)
    import torch

    torch.set_num_threads(num_threads)
    cv2.setNumThreads(num_threads)
    found: ImageBackbone = _loaded("image", name)
    return found if found.dim == IMAGE_DIM else _ImagesOfWidth(found)


def load_text_backbone(name: str = DEFAULT_TEXT_ENCODER, num_threads: int = 1) -> TextBackbone:
    """An encoder of texts, TEXT_DIM wide. Raises like `load_image_backbone`."""
    if name == DEFAULT_TEXT_ENCODER:
        return load_text_encoder(num_threads)
    found: TextBackbone = _loaded("text", name)
    return found if found.dim == TEXT_DIM else _TextsOfWidth(found)


def require_packages(encoders: EncoderConfig) -> None:
    """Before workers are started for them.

    Raises:
        ConfigError: the package that holds an encoder is not installed.
    """
    for what, name in (("image", encoders.image), ("text", encoders.text)):
        kind = name.partition(":")[0]
        package = kind.replace("-", "_").partition(".")[0] if ":" in name else "guidelens"
        if find_spec(package) is None:
            raise ConfigError(
                f"ingest.encoders.{what} must name an encoder whose package is installed, got {name!r}, and there is no {package}; pip install it"
            )


def of_width(embeddings_BD: Floats, width: int) -> Floats:
    """(B, W): zeros are added to what is narrower, which changes no cosine; what is wider is turned onto W axes of a drawn orthogonal basis and scaled,
    which keeps squared lengths and inner products on average."""
    own = embeddings_BD.shape[1]
    if own <= width:
        return np.pad(embeddings_BD, ((0, 0), (0, width - own)))
    return np.asarray(embeddings_BD @ _projection(own, width), np.float32)


def _projection(own: int, width: int) -> Floats:
    drawn = np.random.default_rng(sub_seed(0, f"projection-{own}-{width}")).standard_normal((own, width))
    return np.asarray(np.linalg.qr(drawn)[0] * np.sqrt(own / width), np.float32)


class _ImagesOfWidth:
    """Another encoder's embeddings, as wide as the lake's."""

    dim = IMAGE_DIM

    def __init__(self, own: ImageBackbone) -> None:
        self._own = own
        self.encoder_id = f"{own.encoder_id}-{IMAGE_DIM}"

    def embed(self, images: NDArray[np.uint8]) -> Floats:
        return of_width(self._own.embed(images), IMAGE_DIM)


class _TextsOfWidth:
    """The same of texts, of unit length again."""

    dim = TEXT_DIM

    def __init__(self, own: TextBackbone) -> None:
        self._own = own
        self.encoder_id = f"{own.encoder_id}-{TEXT_DIM}"

    def embed(self, texts: Sequence[str]) -> Floats:
        found = of_width(self._own.embed(texts), TEXT_DIM)
        return np.asarray(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12), np.float32)


def _loaded(what: str, name: str) -> Any:
    kind, _, model = name.partition(":")
    if not model:
        known = DEFAULT_IMAGE_ENCODER if what == "image" else DEFAULT_TEXT_ENCODER
        raise ConfigError(f"ingest.encoders.{what} must be {known}, KIND:MODEL or package.module:function, got {name!r}")
    from guidelens.encoders import foreign

    makers: dict[tuple[str, str], Callable[[str], object]] = {
        ("image", "timm"): foreign.of_timm,
        ("image", "open_clip"): foreign.images_of_open_clip,
        ("text", "open_clip"): foreign.texts_of_open_clip,
        ("text", "sentence-transformers"): foreign.of_sentence_transformers,
    }
    maker = makers.get((what, kind))
    if maker is not None:
        return maker(model)
    try:
        made = getattr(import_module(kind), model)
    except (ImportError, AttributeError) as error:
        kinds = ", ".join(sorted(one for of, one in makers if of == what))
        raise ConfigError(f"ingest.encoders.{what} must name one of {kinds} or a function that can be imported, got {name!r}: {error}") from error
    return made()
