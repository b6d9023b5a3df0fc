"""A copy of the image encoder's last blocks, tuned on a shop's photos, with two heads: the product, and its family in the taxonomy.

The stem and first blocks are the pretrained encoder's own: they run once a photo, for the shop's unchanging embedding and for this. Knows
nothing of files a shop brings or of how the weights were found (training/tuning.py).
"""

import copy
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from guidelens.data.images.decoding import INPUT_SIZE_PX
from guidelens.encoders.image import ImageEncoder, network_input
from guidelens.encoders.layers import EMBEDDING_DIM
from guidelens.encoders.onnx_graph import GraphWriter
from guidelens.encoders.onnx_session import OnnxSession
from guidelens.errors import BundleError, ShapeError
from guidelens.schemas.base import Frozen

# Letters: B = photos, D = embedding width, P = products, F = families, C, H, W = channels, height and width of a feature map.

Floats = NDArray[np.float32]
TUNED_SCHEMA_VERSION = 1
_CHUNK = 8


class TunedFacts(Frozen):
    """What tuned.json holds beside the tensors.

    Attributes:
        encoder_id: of the encoder whose first `num_shared_blocks` blocks the weights go on from.
        family_of: of each product; families are numbered from 0.
        known: products that had a photo or catalogue image in training; the others are never answered.
        head_scale: as in TunedBlocks; None of versions before there was one.
    """

    schema_version: int = TUNED_SCHEMA_VERSION
    encoder_id: str
    num_shared_blocks: int
    family_of: tuple[int, ...]
    known: tuple[bool, ...]
    head_scale: float | None = None

    @property
    def num_families(self) -> int:
        return max(self.family_of) + 1


@dataclass(frozen=True)
class TunedAnswers:
    """encoder_BD: the pretrained encoder's own embeddings, from the same pass. tuned_BD: pooled features of the tuned blocks. products_BP,
    families_BF: probabilities that sum to 1."""

    encoder_BD: Floats
    tuned_BD: Floats
    products_BP: Floats
    families_BF: Floats


class TunedBlocks(nn.Module):
    """(B, C, H, W) maps of the shared blocks to embeddings (B, D), and these to logits (B, P) and (B, F); starts as a copy of `rest`.

    With a head_scale logits are cosines times that scale: what is learned is the direction that the closed form compares, and a
    photo cannot become surer by a longer embedding. Without, they are linear.
    """

    def __init__(self, rest: nn.Module, num_products: int, num_families: int, dropout: float = 0.0, head_scale: float | None = None) -> None:
        super().__init__()
        self.head_scale = head_scale
        self.blocks = copy.deepcopy(rest).requires_grad_(True)
        self.dropout = nn.Dropout(dropout)
        self.product = _small(nn.Linear(EMBEDDING_DIM, num_products))
        self.family = _small(nn.Linear(EMBEDDING_DIM, num_families))

    def embed(self, maps_BCHW: Tensor) -> Tensor:
        pooled_BD: Tensor = self.blocks(maps_BCHW).mean((2, 3))
        return pooled_BD

    def heads(self, embeddings_BD: Tensor) -> tuple[Tensor, Tensor]:
        if self.head_scale is None:
            return self.product(embeddings_BD), self.family(embeddings_BD)
        scaled_BD = self.head_scale * normalize(embeddings_BD, dim=1)
        return linear(scaled_BD, normalize(self.product.weight, dim=1)), linear(scaled_BD, normalize(self.family.weight, dim=1))

    def forward(self, maps_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        return self.heads(self.dropout(self.embed(maps_BCHW)))


class TunedRecognizer:
    """Answers for decoded images. An answer does not depend on the other images of its batch (to 1e-5)."""

    def __init__(self, encoder: ImageEncoder, tuned: TunedBlocks, facts: TunedFacts) -> None:
        self.facts = facts
        self._shared, self._rest = encoder.split(facts.num_shared_blocks)
        self._runtime = encoder.runtime
        self._tuned = tuned.eval().requires_grad_(False)
        self._absent_P = torch.tensor([not known for known in facts.known])

    def embed(self, images: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """(B, 224, 224, 3) uint8 RGB, as data.images.decode_image yields them, to TunedAnswers' encoder_BD and tuned_BD.

        Raises:
            ShapeError: another shape or type.
        """
        if images.ndim != 4 or images.shape[1:] != (INPUT_SIZE_PX, INPUT_SIZE_PX, 3) or images.dtype != np.uint8:
            raise ShapeError(f"images must be (B, {INPUT_SIZE_PX}, {INPUT_SIZE_PX}, 3) uint8, got {images.shape} {images.dtype}; use data.images.decode_image")
        if self._runtime == "onnxruntime":
            encoder_BD, tuned_BD = self._session(images)
            return encoder_BD, tuned_BD
        with torch.inference_mode():
            parts = [self._embedded(self._shared(network_input(images[start : start + _CHUNK]))) for start in range(0, len(images), _CHUNK)]
        encoder_BD, tuned_BD = (np.concatenate(each) for each in zip(*parts, strict=True))
        return encoder_BD, tuned_BD

    def recognize(self, images: NDArray[np.uint8]) -> TunedAnswers:
        """`embed`, and what the heads say. Raises like it."""
        return self._answers(*self.embed(images))

    def graph(self, half: bool = False) -> bytes:
        """An ONNX model of both networks, for images as `recognize` takes them, to both embeddings.

        Args:
            half: weights are kept in half precision, for half the bytes.
        """
        graph = GraphWriter(half)
        shared = graph.through(self._shared, graph.pixels())
        tuned = graph.pooled(graph.through(self._tuned.blocks, shared))
        return graph.model({"embedding": (graph.pooled(graph.through(self._rest, shared)), EMBEDDING_DIM), "tuned_embedding": (tuned, EMBEDDING_DIM)})

    @cached_property
    def _session(self) -> OnnxSession:
        return OnnxSession(self.graph())

    def answer_maps(self, maps_BHWC: NDArray[np.float16]) -> TunedAnswers:
        """The same from the shared blocks' maps as training/tuning.py keeps them."""
        with torch.inference_mode():
            chunks = (maps_BHWC[start : start + _CHUNK].astype(np.float32) for start in range(0, len(maps_BHWC), _CHUNK))
            parts = [self._embedded(torch.from_numpy(chunk).permute(0, 3, 1, 2)) for chunk in chunks]
        encoder_BD, tuned_BD = (np.concatenate(each) for each in zip(*parts, strict=True))
        return self._answers(encoder_BD, tuned_BD)

    def _embedded(self, maps_BCHW: Tensor) -> tuple[Floats, Floats]:
        return self._rest(maps_BCHW).mean((2, 3)).numpy(), self._tuned.embed(maps_BCHW).numpy()

    def _answers(self, encoder_BD: Floats, tuned_BD: Floats) -> TunedAnswers:
        with torch.inference_mode():
            return TunedAnswers(encoder_BD, tuned_BD, *self._chances(*self._tuned.heads(torch.from_numpy(tuned_BD))))

    def _chances(self, products_BP: Tensor, families_BF: Tensor) -> tuple[Floats, Floats]:
        """Probabilities of logits; none of a product that training never saw."""
        return products_BP.masked_fill(self._absent_P, -torch.inf).softmax(1).numpy(), families_BF.softmax(1).numpy()

    def save(self, folder: Path) -> None:
        """Writes tuned.safetensors and tuned.json."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in self._tuned.state_dict().items()}, folder / "tuned.safetensors")
        (folder / "tuned.json").write_text(json.dumps(self.facts.model_dump(mode="json")) + "\n")

    @classmethod
    def load(cls, folder: Path, encoder: ImageEncoder) -> "TunedRecognizer":
        """What `save` wrote, on the encoder it was tuned from.

        Raises:
            BundleError: a file is missing, damaged, of another schema version, or tuned from another encoder.
        """
        try:
            facts = TunedFacts.model_validate_json((folder / "tuned.json").read_bytes())
            tensors = load_file(folder / "tuned.safetensors")
        except (OSError, ValidationError, SafetensorError) as error:
            raise BundleError(f"{folder} must hold a tuned recognizer's two files, got {error}; fit again") from error
        if facts.schema_version != TUNED_SCHEMA_VERSION or facts.encoder_id != encoder.encoder_id:
            raise BundleError(
                f"tuned.json must have schema version {TUNED_SCHEMA_VERSION} and encoder {encoder.encoder_id}, got {facts.schema_version} and "
                f"{facts.encoder_id}; fit again with this code and encoder"
            )
        tuned = TunedBlocks(encoder.split(facts.num_shared_blocks)[1], len(facts.family_of), facts.num_families, head_scale=facts.head_scale)
        try:
            tuned.load_state_dict(tensors)
        except RuntimeError as error:
            raise BundleError(f"tuned.safetensors must fit the encoder's blocks and tuned.json's products, got {error}; fit again") from error
        return cls(encoder, tuned.to(memory_format=torch.channels_last), facts)  # type: ignore[call-overload]


def _small(layer: nn.Linear) -> nn.Linear:
    """A head that starts as good as undecided."""
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer
