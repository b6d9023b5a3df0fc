"""A release's recognizer: what a photo shows, by the tuned encoder where the release has one, and by the encoder as it is where only an embedding
was sent. Knows nothing of bytes, requests or how a release came here."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from guidelens.encoders.backbones import ImageBackbone
from guidelens.encoders.image import ImageEncoder
from guidelens.errors import BundleError
from guidelens.models.recognizer import Recognition, Recognizer
from guidelens.models.tuned import TunedRecognizer

# Letters: B = photos asked about, D = embedding width.

Floats = NDArray[np.float32]
TUNED = "tuned"
"""Folder, in a fit and in a bundle, of the tuned blocks and the closed form on their embeddings."""


@dataclass(frozen=True)
class Seen:
    """embeddings_BD: the encoder's own, which the rest of a release works with. recognized: an answer each, None without a recognizer."""

    embeddings_BD: Floats
    recognized: list[Recognition] | None


class ReleasedRecognizer:
    """Answers for decoded images and for embeddings.

    Attributes:
        is_tuned: photos are seen by tuned blocks.
        loses_without_photo: an answer from an embedding alone is less often right than one from the photo, as held-back photos say.
    """

    def __init__(self, encoder: ImageBackbone, frozen: Recognizer | None, tuned: tuple[TunedRecognizer, Recognizer] | None) -> None:
        self._encoder, self._frozen, self._tuned = encoder, frozen, tuned
        self.is_tuned = tuned is not None
        facts = None if tuned is None else tuned[1].facts
        self.loses_without_photo = facts is not None and (facts.held_back_top1 or 0) > (facts.encoder_top1 or 0)

    @classmethod
    def load(cls, folder: Path, encoder: ImageBackbone) -> "ReleasedRecognizer":
        """From a fit or a bundle, which may be without tuned blocks or without a recognizer at all.

        Raises:
            BundleError: a file is damaged or of another schema version or encoder.
        """
        frozen = Recognizer.load(folder) if (folder / "recognizer.json").exists() else None
        of_tuned = folder / TUNED
        if frozen is None or not of_tuned.exists():
            return cls(encoder, frozen, None)
        if not isinstance(encoder, ImageEncoder):
            raise BundleError(f"{of_tuned} was tuned from another encoder than {encoder.encoder_id}; fit again with this encoder")
        return cls(encoder, frozen, (TunedRecognizer.load(of_tuned, encoder), Recognizer.load(of_tuned)))

    def see(self, images: NDArray[np.uint8], top: int = 5) -> Seen:
        """(B, 224, 224, 3) uint8 RGB, as data.images.decode_image yields them; both embeddings come of one pass.

        Raises:
            ShapeError: another shape or type.
        """
        if self._tuned is None:
            embeddings_BD = self._encoder.embed(images)
            return Seen(embeddings_BD, self.recognize(embeddings_BD, top))
        blocks, recognizer = self._tuned
        encoder_BD, tuned_BD = blocks.embed(images)
        return Seen(encoder_BD, recognizer.recognize(tuned_BD, top))

    def device_graph(self) -> bytes | None:
        """An ONNX model for a shopper's device, weights in half precision: `embedding`, and `tuned_embedding` where the release has tuned blocks.
        None of an encoder that is not ours to write down."""
        if self._tuned is not None:
            return self._tuned[0].graph(half=True)
        return self._encoder.graph(half=True) if isinstance(self._encoder, ImageEncoder) else None

    def recognize(self, embeddings_BD: NDArray[np.floating], top: int = 5) -> list[Recognition] | None:
        """Of embeddings as a device sends them: the encoder's own, and behind these, where it ran this release's tuned blocks too, the tuned ones."""
        own_BD, tuned_BD = embeddings_BD[:, : self._encoder.dim], embeddings_BD[:, self._encoder.dim :]
        if self._tuned is not None and tuned_BD.shape[1]:
            return self._tuned[1].recognize(tuned_BD, top)
        return None if self._frozen is None else self._frozen.recognize(own_BD, top)
