"""Encoders of timm, open_clip and sentence-transformers, each an optional package of its own. Nothing here is imported unless one is named."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from guidelens.errors import ConfigError

Floats = NDArray[np.float32]
_CHUNK = 4


class TorchImages:
    """A network over square images: resized to its own size and scaled by its own mean and deviation, each (3,) of pixels in [0, 1]."""

    def __init__(self, name: str, network: nn.Module, embed: Callable[[Tensor], Tensor], size_px: int, mean: Sequence[float], std: Sequence[float]) -> None:
        network.eval().requires_grad_(False)
        self.encoder_id = f"{name}-{_sha256(network)[:16]}"
        self._embed, self._size_px = embed, size_px
        self._mean, self._std = (torch.tensor(each, dtype=torch.float32)[:, None, None] for each in (mean, std))
        self.dim = self.embed(np.zeros((1, size_px, size_px, 3), np.uint8)).shape[1]

    def embed(self, images: NDArray[np.uint8]) -> Floats:
        """(B, height, width, 3) uint8 RGB to (B, dim)."""
        chunks = [images[start : start + _CHUNK] for start in range(0, max(1, len(images)), _CHUNK)]
        with torch.inference_mode():
            return np.concatenate([self._embed((self._pixels(chunk) - self._mean) / self._std).float().numpy() for chunk in chunks])

    def _pixels(self, images: NDArray[np.uint8]) -> Tensor:
        size = self._size_px
        filter_ = cv2.INTER_AREA if images.shape[1] > size else cv2.INTER_CUBIC
        resized = (
            np.stack([cv2.resize(image, (size, size), interpolation=filter_) for image in images]) if len(images) else np.zeros((0, size, size, 3), np.uint8)
        )
        return torch.from_numpy(resized).permute(0, 3, 1, 2).float() / 255


class TorchTexts:
    """A network over texts; `embed` gives (B, dim) of any length."""

    def __init__(self, name: str, network: nn.Module, embed: Callable[[list[str]], NDArray[np.floating]]) -> None:
        network.eval().requires_grad_(False)
        self.encoder_id = f"{name}-{_sha256(network)[:16]}"
        self._embed = embed
        self.dim = self.embed(["warm"]).shape[1]

    def embed(self, texts: Sequence[str]) -> Floats:
        """(B, dim) of unit length; zeros for a text without a visible character."""
        shown = [text.strip() for text in texts]
        with torch.inference_mode():
            found = np.asarray(self._embed([text or "-" for text in shown]), np.float32)
        found = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return np.asarray(found * np.array([bool(text) for text in shown])[:, None], np.float32)


def of_timm(model: str) -> TorchImages:
    with _needed("timm"):
        import timm
    network = timm.create_model(model, pretrained=True, num_classes=0)
    about = timm.data.resolve_model_data_config(network)
    return TorchImages(f"timm-{model}", network, network, about["input_size"][-1], about["mean"], about["std"])


def images_of_open_clip(model: str) -> TorchImages:
    network, about = _open_clip(model)
    return TorchImages(f"open_clip-{model}", network.visual, network.encode_image, about["size"], about["mean"], about["std"])


def texts_of_open_clip(model: str) -> TorchTexts:
    network, _ = _open_clip(model)
    import open_clip

    tokens = open_clip.get_tokenizer(model.partition("/")[0])
    return TorchTexts(f"open_clip-{model}-text", network, lambda texts: network.encode_text(tokens(texts)).float().numpy())


def of_sentence_transformers(model: str) -> TorchTexts:
    with _needed("sentence-transformers"):
        from sentence_transformers import SentenceTransformer
    network = SentenceTransformer(model, device="cpu")
    return TorchTexts(f"sentence-transformers-{model}", network, lambda texts: network.encode(texts, show_progress_bar=False))


def _open_clip(model: str) -> tuple[Any, dict[str, Any]]:
    """The network and how it wants its images: size (pixels), mean, std."""
    with _needed("open-clip"):
        import open_clip
    name, _, weights = model.partition("/")
    network = open_clip.create_model(name, pretrained=weights or None)
    about = open_clip.get_model_preprocess_cfg(network)
    size = about["size"]
    return network, {**about, "size": size if isinstance(size, int) else size[-1]}


@contextmanager
def _needed(extra: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ConfigError(f"this encoder needs a package that cannot be imported: {error}; pip install 'guidelens[{extra}]'") from error


def _sha256(network: nn.Module) -> str:
    """Of names and bytes of all weights."""
    found = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()
