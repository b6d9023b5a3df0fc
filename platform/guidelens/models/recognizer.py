"""Which product a frame shows, or that it shows none of the catalogue: a closed-form head on frozen embeddings.

Embeddings are whitened by the variation within products (what changes between photos of one thing: light, pose, background),
so that a cosine compares what tells products apart. A product is the mean direction of its photos; its catalogue image stands
in where it has none, on a scale of its own (a photo lies farther from the right catalogue image than from the right photos, so cosines to both do
not compare), and a product with neither is never recognised. The fit is exact, needs no seed of its own and takes
seconds. How sure it may be, and what is not in the catalogue, is calibrated on photos held back by folds (recognizer_fit.py).
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from guidelens.errors import BundleError, ShapeError
from guidelens.schemas.base import Frozen

# Letters: B = frames asked about, P = products, D = embedding width, K = products answered, E = evidence.

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
RECOGNIZER_SCHEMA_VERSION = 4
_READABLE_VERSIONS = (1, 2, 3, 4)
EVIDENCE = ("prototype", "lead", "background")


@dataclass(frozen=True)
class Recognition:
    """An answer for one frame, best first.

    Attributes:
        in_catalogue: False if the frame looks like nothing in the catalogue; rows and confidences are given all the same.
        product_rows: (K,) int64.
        confidences: (K,) float32, the calibrated probability of each product given that the frame shows one of the catalogue.
        family_row: the likeliest product of the likeliest family (a product's whole category), which may be another than the first; -1 where
            the likeliest products have no category.
        family_confidence: the probability of that family, the sum of its products'.
        margin: evidence above what `in_catalogue` needs, about a logit; negative where that is False.
    """

    in_catalogue: bool
    product_rows: Rows
    confidences: Floats
    family_row: int = -1
    family_confidence: float = 0.0
    margin: float = 0.0


class RecognizerFacts(Frozen):
    """What recognizer.json holds beside the tensors.

    Attributes:
        temperature: divides cosines before the softmax.
        min_evidence: frames whose evidence lies below are called "not in the catalogue".
        calibration: "held_back_photos", or "backgrounds_only" where no product has two photos to hold one back.
        held_back_photos, held_back_top1, held_back_unknown_share: of the folds the calibration rests on.
        catalogue_scale, catalogue_shift: turn a cosine to a catalogue image into the cosine to photos that is evidence as strong.
        held_back_coarse: share of these photos whose first product is of the right family.
        held_back_false_accepts: share of photos still taken for a product of the catalogue where their own is left out of it.
        novel_products: products of these photos that the encoder had never learned; 0 where it had, from other photos, or learned from none.
        family_of: of each product; families are numbered from 0, -1 for a product without a category. Empty where none are known.
        encoder_top1: share of the same photos that is right by the encoder as it is, where these embeddings are of a tuned one.
        unseen_product_auroc: how well evidence tells photos of a product in the catalogue from photos of one left out of it, each product judged by
            weights that were found on others (of versions before 4: by weights found on all).
        background_unknown_share: of drawn images without a product, by a recognizer that never saw their kind.
    """

    schema_version: int = RECOGNIZER_SCHEMA_VERSION
    num_products: int
    temperature: float
    min_evidence: float
    calibration: str
    catalogue_scale: float = 1.0
    catalogue_shift: float = 0.0
    held_back_photos: int = 0
    held_back_top1: float | None = None
    held_back_unknown_share: float | None = None
    held_back_coarse: float | None = None
    held_back_false_accepts: float | None = None
    novel_products: int = 0
    encoder_top1: float | None = None
    family_of: tuple[int, ...] = ()
    unseen_product_auroc: float | None = None
    background_unknown_share: float | None = None


@dataclass(frozen=True)
class Whitening:
    """Embeddings to unit vectors: signed root, centring, whitening, length 1.

    Attributes:
        mean_D, projection_DD: float32; projected = (rooted - mean_D) @ projection_DD.
    """

    mean_D: Floats
    projection_DD: Floats

    def __call__(self, embeddings_BD: NDArray[np.floating]) -> Floats:
        return unit((rooted(embeddings_BD) - self.mean_D) @ self.projection_DD)


def unit(vectors: NDArray[np.floating]) -> Floats:
    """Rows of length 1; a zero row stays zero."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), np.float32)


def rooted(embeddings_BD: NDArray[np.floating]) -> Floats:
    """Unit vectors of signed square roots (the Hellinger map where nothing is negative): strong channels no longer outvote the rest."""
    return unit(np.sign(embeddings_BD) * np.sqrt(np.abs(embeddings_BD)))


@dataclass(frozen=True)
class Gallery:
    """What a frame is compared with.

    Attributes:
        prototypes_PD: unit vectors in the whitened space; zeros for a product that cannot be recognised.
        backgrounds_ND: drawn images without a product, whitened.
        from_catalogue_P: bool; the prototype rests on catalogue images alone.
        usual_P: `usual_cosines`; zeros in recognizers of versions before 4, whose evidence is the cosine itself.
        catalogue_scale, catalogue_shift: applied to the cosines of these.
    """

    prototypes_PD: Floats
    backgrounds_ND: Floats
    from_catalogue_P: NDArray[np.bool_]
    usual_P: Floats
    catalogue_scale: float = 1.0
    catalogue_shift: float = 0.0

    @property
    def recognisable(self) -> NDArray[np.bool_]:
        return np.asarray(np.abs(self.prototypes_PD).sum(1) > 0)

    def cosines(self, queries_BD: Floats, unseen_rows_B: Rows | None = None) -> Floats:
        """(B, P) cosine to each prototype, those of catalogue images on the scale of photos; -inf where there is none, or where it is the product
        left out for that query."""
        cosines_BP = queries_BD @ self.prototypes_PD.T
        if self.from_catalogue_P.any():
            cosines_BP[:, self.from_catalogue_P] = self.catalogue_scale * cosines_BP[:, self.from_catalogue_P] + self.catalogue_shift
        cosines_BP[:, ~self.recognisable] = -np.inf
        if unseen_rows_B is not None:
            cosines_BP[np.arange(len(queries_BD)), unseen_rows_B] = -np.inf
        return np.asarray(cosines_BP, np.float32)

    def evidence(self, queries_BD: Floats, unseen_rows_B: Rows | None = None, kind_of_B: Rows | None = None, kind_of_N: Rows | None = None) -> Floats:
        """(B, E) in EVIDENCE's order: how far the cosine to a prototype is above what that product's photos usually have, at most; its lead over the
        second; cosine to the nearest background. .4 is little for a product whose photos are all alike, and much for one of many looks.

        `unseen_rows_B` leaves a product out for its own query; `kind_of_*` leaves a background's own kind out.
        """
        above_BP = self.cosines(queries_BD, unseen_rows_B) - self.usual_P
        ranked = -np.sort(-above_BP, axis=1)
        lowest = -1 - self.usual_P.max(initial=0)
        best = np.maximum(ranked[:, 0], lowest)
        second = np.maximum(ranked[:, 1], lowest) if ranked.shape[1] > 1 else np.full_like(best, lowest)
        backgrounds_BN = queries_BD @ self.backgrounds_ND.T
        if kind_of_B is not None and kind_of_N is not None:
            backgrounds_BN[kind_of_B[:, None] == kind_of_N[None]] = -1
        return np.stack([best, best - second, backgrounds_BN.max(1, initial=-1)], axis=1).astype(np.float32)

    def without(self, left_out_P: NDArray[np.bool_]) -> "Gallery":
        """The same, some products taken out of it."""
        return replace(self, prototypes_PD=np.where(left_out_P[:, None], np.float32(0), self.prototypes_PD))


def usual_cosines(points_MD: Floats, rows_M: Rows, num_products: int) -> Floats:
    """(P,) mean cosine of a product's photos (M whitened unit vectors) to the direction of its other photos; NaN where it has no two."""
    sums_PD = np.zeros((num_products, points_MD.shape[1]), np.float32)
    np.add.at(sums_PD, rows_M, points_MD)
    cosines_M = (points_MD * unit(sums_PD[rows_M] - points_MD)).sum(1)
    counts_P = np.bincount(rows_M, minlength=num_products)
    means_P = np.bincount(rows_M, cosines_M, num_products) / np.maximum(counts_P, 1)
    return np.where(counts_P > 1, means_P, np.nan).astype(np.float32)


def middling(usual_P: Floats) -> Floats:
    """Products whose own is unknown get the median of the others; 0 where none is known."""
    known = np.isfinite(usual_P)
    return np.where(known, usual_P, np.median(usual_P[known]) if known.any() else 0).astype(np.float32)


class Recognizer:
    """A fitted recognizer. Its answers do not depend on the other frames of a batch."""

    def __init__(self, whitening: Whitening, gallery: Gallery, evidence_weights_E: Floats, facts: RecognizerFacts) -> None:
        self.facts = facts
        self._whitening = whitening
        self._gallery = gallery
        self.evidence_weights_E = evidence_weights_E
        self._num_recognisable = int(gallery.recognisable.sum())
        family_of = np.array(facts.family_of, np.int64)
        self._families_PF = np.eye(family_of.max() + 1, dtype=np.float32)[family_of] * (family_of >= 0)[:, None] if (family_of >= 0).any() else None

    def recognize(self, embeddings_BD: NDArray[np.floating], top: int = 5) -> list[Recognition]:
        """(B, D) embeddings as the image encoder makes them, to an answer each, of at most `top` products.

        Raises:
            ShapeError: embeddings of another width.
        """
        queries_BD = self._whitened(embeddings_BD)
        cosines_BP = self._gallery.cosines(queries_BD)
        chances_BP = softmax(cosines_BP / self.facts.temperature)
        margin_B = self._gallery.evidence(queries_BD) @ self.evidence_weights_E - np.float32(self.facts.min_evidence)
        order_BK = np.argsort(-cosines_BP, axis=1, kind="stable")[:, : min(top, self._num_recognisable)]
        chances_BK = np.take_along_axis(chances_BP, order_BK, axis=1)
        families_B, sure_B = self._families(cosines_BP, chances_BP)
        columns = ((margin_B >= 0).tolist(), order_BK, chances_BK, families_B.tolist(), sure_B.tolist(), margin_B.tolist())
        return [Recognition(*one) for one in zip(*columns, strict=True)]

    def evidence(self, embeddings_BD: NDArray[np.floating]) -> Floats:
        """(B, E) what `in_catalogue` is decided by, in EVIDENCE's order. Raises like `recognize`."""
        return self._gallery.evidence(self._whitened(embeddings_BD))

    def _whitened(self, embeddings_BD: NDArray[np.floating]) -> Floats:
        width = len(self._whitening.mean_D)
        if embeddings_BD.ndim != 2 or embeddings_BD.shape[1] != width:
            raise ShapeError(f"embeddings must be (B, {width}), got {embeddings_BD.shape}; use the encoder the recognizer was fitted with")
        return self._whitening(embeddings_BD)

    def _families(self, cosines_BP: Floats, chances_BP: Floats) -> tuple[Rows, Floats]:
        """(B,) the likeliest product of the likeliest family, and that family's probability."""
        if self._families_PF is None:
            return np.full(len(cosines_BP), -1), np.zeros(len(cosines_BP), np.float32)
        sums_BF = chances_BP @ self._families_PF
        likeliest_B = sums_BF.argmax(axis=1)
        of_family_BP = self._families_PF.T[likeliest_B] > 0
        rows_B = np.where(of_family_BP, cosines_BP, -np.inf).argmax(axis=1)
        sure_B = np.minimum(sums_BF.max(axis=1), 1.0).astype(np.float32)
        return np.where(sure_B > 0, rows_B, -1), sure_B

    def save(self, folder: Path) -> None:
        """Writes recognizer.safetensors and recognizer.json."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            "mean": self._whitening.mean_D,
            "projection": self._whitening.projection_DD,
            "prototypes": self._gallery.prototypes_PD,
            "backgrounds": self._gallery.backgrounds_ND,
            "evidence_weights": self.evidence_weights_E,
            "from_catalogue": self._gallery.from_catalogue_P,
            "usual": self._gallery.usual_P,
        }
        save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, folder / "recognizer.safetensors")
        (folder / "recognizer.json").write_text(json.dumps(self.facts.model_dump(mode="json"), indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "Recognizer":
        """What `save` wrote.

        Raises:
            BundleError: a file is missing, damaged, or of another schema version.
        """
        try:
            facts = RecognizerFacts.model_validate_json((folder / "recognizer.json").read_bytes())
            tensors = load_file(folder / "recognizer.safetensors")
            from_catalogue = tensors.get("from_catalogue", np.zeros(len(tensors["prototypes"]), bool))
            usual = tensors.get("usual", np.zeros(len(tensors["prototypes"]), np.float32))
            gallery = Gallery(tensors["prototypes"], tensors["backgrounds"], from_catalogue, usual, facts.catalogue_scale, facts.catalogue_shift)
            whitening, weights = Whitening(tensors["mean"], tensors["projection"]), tensors["evidence_weights"]
        except (OSError, ValidationError, SafetensorError, KeyError) as error:
            raise BundleError(f"{folder} must hold a recognizer's two files, got {error}; fit and release again") from error
        if facts.schema_version not in _READABLE_VERSIONS:
            raise BundleError(
                f"recognizer.json must have schema version {' or '.join(map(str, _READABLE_VERSIONS))}, got {facts.schema_version}; release again with this code"
            )
        return cls(whitening, gallery, weights, facts)


def softmax(logits_BP: Floats) -> Floats:
    """Rows that sum to 1; -inf becomes 0."""
    shifted = np.exp(logits_BP - logits_BP.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), np.float32)
