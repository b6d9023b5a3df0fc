"""Which labelled photos to keep from training, so that a recognizer can be measured on them honestly.

Photos that look alike (one shelf, one visit, one burst) stay on one side: a random draw would put near-duplicates of what was trained on among
those asked about, and read far too high.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from guidelens.models.recognizer_fit import folds


def held_out(embeddings_MD: NDArray[np.float32], rows_M: NDArray[np.int64], contents: Sequence[str], seed: int) -> NDArray[np.bool_]:
    """(M,) which photos to hold out: one fold of those the recognizer is calibrated by, about a quarter of each product's photos.

    A product keeps at least one group of its photos for training. Equal bytes never lie on both sides.

    Args:
        rows_M: product of each photo.
        contents: something that equal bytes have in common, such as their SHA-256.
    """
    chosen_M = folds(embeddings_MD, rows_M, seed) == 0
    kept_rows = np.unique(rows_M[~chosen_M])
    chosen_M &= np.isin(rows_M, kept_rows)
    kept_contents = {content for content, is_chosen in zip(contents, chosen_M, strict=True) if not is_chosen}
    return np.array([is_chosen and content not in kept_contents for content, is_chosen in zip(contents, chosen_M, strict=True)], dtype=np.bool_)
