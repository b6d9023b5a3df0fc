"""How what is known of a product for a query becomes one score: plain weights, a small network over all, or gates between modalities.

Weights come with a release (learned by pipelines/fit_search.py), else they are PRIOR. Arithmetic in numpy: torch learns elsewhere.
"""

# Letters: N = products, F = features, C = context, M = modalities, H = hidden.

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from guidelens.errors import BundleError
from guidelens.inference.search import texts
from guidelens.schemas.base import Frozen

Floats = NDArray[np.float32]
Kind = Literal["weighted", "concat", "gated"]
MODALITIES: dict[str, tuple[str, ...]] = {
    "text": texts.FEATURES,
    "image": ("looks_like", "recognized", "same_kind"),
    "crowd": ("popular",),
    "shopper": ("lift",),
}
"""looks_like: cosine with the frame. recognized: the recognizer's confidence. same_kind: share of the category in common with what was
recognized. popular: log of clicks and purchases, over the shop's highest. lift: how much more than others this shopper takes to it."""
FEATURES: tuple[str, ...] = tuple(name for names in MODALITIES.values() for name in names)
CONTEXT = ("has_text", "has_frame", "has_shopper", "best_called", "best_meaning", "best_look", "best_recognized", "length")
PRIOR: dict[str, float] = {
    "words": 0.3, "called": 1.0, "titled": 1.0, "whole": 0.3, "title_meaning": 0.6, "text_meaning": 0.3, "exact": 2.0,
    "looks_like": 1.0, "recognized": 2.0, "same_kind": 0.6, "popular": 0.1, "lift": 0.15,
}  # fmt: skip
"""Chosen on the development half of benchmarks/data/search_queries.csv."""
_WEIGHTS, _HEADER = "search_weights.safetensors", "search_weights.json"


class Answering(Frozen):
    """A logistic of how well the best product answers: which queries are answered at all. `threshold` is the shop's own."""

    intercept: float = -5.1
    weights: tuple[float, ...] = (0.8, 2.0, 4.4, 2.6, 2.5, 1.7)
    threshold: float = 0.5


class WeighingHeader(Frozen):
    """validation: mean reciprocal rank by kind of fusion, of the queries that chose between them. gains: the same by the modalities that
    were learned with, of queries that neither learned nor chose. queries: that both did."""

    schema_version: int = 1
    kind: Kind = "weighted"
    features: tuple[str, ...] = FEATURES
    context: tuple[str, ...] = CONTEXT
    answering: Answering = Answering()
    validation: dict[str, float] = {}
    gains: dict[str, float] = {}
    queries: int = 0


@dataclass(frozen=True)
class Weighing:
    """header.kind says which tensors there are: `weights` (F,) always; `hidden` (F + C, H), `bias` (H,), `out` (H,) of a concat;
    `gates` (C, M), `bias` (M,) of gates."""

    header: WeighingHeader = field(default_factory=WeighingHeader)
    tensors: Mapping[str, Floats] = field(default_factory=lambda: {"weights": np.array([PRIOR[name] for name in FEATURES], np.float32)})

    def scores(self, features_NF: Floats, context_C: Floats) -> Floats:
        """(N,); only their order and differences mean something."""
        weights_F = self.tensors["weights"]
        if self.header.kind == "weighted":
            return features_NF @ weights_F
        if self.header.kind == "concat":
            joined = np.concatenate([features_NF, np.broadcast_to(context_C, (len(features_NF), len(context_C)))], axis=1)
            hidden_NH = np.maximum(joined @ self.tensors["hidden"] + self.tensors["bias"], 0)
            return np.asarray(features_NF @ weights_F + hidden_NH @ self.tensors["out"], np.float32)
        gates_M = softmax(context_C @ self.tensors["gates"] + self.tensors["bias"]) * len(MODALITIES)
        return features_NF @ (weights_F * gates_M[modality_of_feature()])

    def save(self, folder: Path) -> None:
        save_file({name: np.ascontiguousarray(tensor, np.float32) for name, tensor in self.tensors.items()}, folder / _WEIGHTS)
        (folder / _HEADER).write_text(json.dumps(self.header.model_dump(mode="json"), indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "Weighing":
        """What `save` wrote; the prior where nothing was.

        Raises:
            BundleError: it is damaged, or of other features than this code knows.
        """
        if not (folder / _HEADER).exists():
            return cls()
        try:
            header = WeighingHeader.model_validate_json((folder / _HEADER).read_bytes())
            found = cls(header, load_file(folder / _WEIGHTS))
        except (OSError, ValidationError, SafetensorError) as error:
            raise BundleError(f"{folder} must hold the weights of search, got {error}; release again") from error
        if header.features != FEATURES or header.context != CONTEXT:
            raise BundleError(f"{folder / _HEADER} must weigh {', '.join(FEATURES)}, got {', '.join(header.features)}; release again with this code")
        return found


def modality_of_feature() -> NDArray[np.int64]:
    """(F,) the number of each feature's modality."""
    return np.repeat(np.arange(len(MODALITIES)), [len(names) for names in MODALITIES.values()])


def softmax(x: Floats) -> Floats:
    shifted = np.exp(x - x.max())
    return np.asarray(shifted / shifted.sum(), np.float32)
