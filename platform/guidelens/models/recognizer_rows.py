"""A fitted recognizer for another set of products, without a fit: some leave, others join by the embeddings of their images alone.

What was calibrated (whitening, temperature, evidence, the scale of catalogue images) stays as it was found; only what is compared with changes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from guidelens.models.recognizer import Floats, Rows, Whitening, middling, unit, usual_cosines

# Letters: P = products of the new set, M = images of one product, D = embedding width.

CATALOGUE_SHARE = 0.5
"""Weight of a catalogue image beside photos of its product, as in a fit."""


@dataclass(frozen=True)
class ProductImages:
    """What a new product is known by: embeddings (M, D) as the recognizer's encoder makes them, and which are catalogue images (M,)."""

    embeddings: Floats
    is_catalogue: NDArray[np.bool_]


def with_rows(folder: Path, rows_P: Rows, added: Mapping[int, ProductImages], categories_P: Sequence[str]) -> None:
    """Rewrites the recognizer in `folder` (recognizer.json, recognizer.safetensors).

    Args:
        rows_P: of each product its row until now, -1 for one that is new.
        added: by row of the new set; a new product that is not there is never recognised.
        categories_P: of each product, its whole category.
    """
    tensors = load_file(folder / "recognizer.safetensors")
    facts: dict[str, Any] = json.loads((folder / "recognizer.json").read_bytes())
    kept_P = rows_P >= 0
    prototypes_PD = np.where(kept_P[:, None], tensors["prototypes"][rows_P], 0).astype(np.float32)
    from_catalogue_P = kept_P & tensors.get("from_catalogue", np.zeros(len(tensors["prototypes"]), bool))[rows_P]
    whitening = Whitening(tensors["mean"], tensors["projection"])
    for row, images in added.items():
        prototypes_PD[row] = _prototype(whitening, images)
        from_catalogue_P[row] = images.is_catalogue.all()
    tensors |= {"prototypes": prototypes_PD, "from_catalogue": from_catalogue_P}
    if "usual" in tensors:
        own = {row: _usual(whitening, images) for row, images in added.items()}
        tensors["usual"] = middling(np.array([tensors["usual"][before] if before >= 0 else own.get(row, np.nan) for row, before in enumerate(rows_P)]))
    facts["num_products"] = len(rows_P)
    if facts.get("family_of"):
        facts["family_of"] = _families(facts["family_of"], rows_P, categories_P)
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, folder / "recognizer.safetensors")
    (folder / "recognizer.json").write_text(json.dumps(facts, indent=2) + "\n")


def _prototype(whitening: Whitening, images: ProductImages) -> Floats:
    weights_M = np.where(images.is_catalogue & ~images.is_catalogue.all(), CATALOGUE_SHARE, 1.0).astype(np.float32)
    prototype_D: Floats = unit((whitening(images.embeddings) * weights_M[:, None]).sum(0, keepdims=True))[0]
    return prototype_D


def _usual(whitening: Whitening, images: ProductImages) -> float:
    photos = whitening(images.embeddings[~images.is_catalogue])
    return float(usual_cosines(photos, np.zeros(len(photos), np.int64), 1)[0])


def _families(family_of: Sequence[int], rows_P: Rows, categories_P: Sequence[str]) -> list[int]:
    """The family of each product; a new one joins that of its category, or begins one."""
    known = {category: family_of[row] for row, category in zip(rows_P, categories_P, strict=True) if row >= 0 and family_of[row] >= 0}
    found = []
    for row, category in zip(rows_P, categories_P, strict=True):
        if row < 0 and category:
            known.setdefault(category, max([*family_of, *known.values()]) + 1)
        found.append(family_of[row] if row >= 0 else known.get(category, -1))
    return found
