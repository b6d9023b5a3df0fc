"""Products by what they are, on slate requests: like what was visited, like what is in focus, like what was asked for in words.

The one baseline that knows products nobody met, and shoppers of whom nothing is known but the session. Nothing is learned.
"""

# Letters: R = requests, N = products, X = numbers of a content vector, F = numbers of a text embedding.

import itertools
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from guidelens.data.examples import Examples
from guidelens.models.baselines.requests import TIE_BREAK, RequestReader
from guidelens.models.complements import content_of
from guidelens.models.items import Catalogue

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ContentLikeness:
    """Mean cosine of the history's products with each product, and the cosine of the words asked for with its text.

    Attributes:
        content_NX: unit vectors of image and text together; zeros where neither is known.
        texts_NF: unit text embeddings of each language, zeros where there is none.
        words: weight of the words beside the history.
        popularity_N: in [0, 1]; breaks ties and answers where nothing is known.
    """

    content_NX: Floats
    texts_NF: tuple[Floats, ...]
    words: float
    reader: RequestReader
    popularity_N: NDArray[np.float32]

    @classmethod
    def candidates(cls, catalogue: Catalogue, popularity_N: NDArray[np.float32]) -> list[Self]:
        """With and without visits that had no click, more or less focus, louder or softer words."""
        content_NX, texts_NF = unit(content_of(catalogue)), (unit(catalogue.text_NE), unit(catalogue.text_zh_NE))
        ids = list(catalogue.product_ids)
        return [
            cls(content_NX, texts_NF, words, RequestReader.of(ids, clicked_only=clicked_only, focus_repeats=repeats), popularity_N)
            for clicked_only, repeats, words in itertools.product((True, False), (1, 4), (1.0, 4.0))
        ]

    def product_scores(self, examples: Examples) -> Floats:
        histories = self.reader.histories(examples)
        shares_RN = histories.matrix(dtype=np.float32).multiply(1 / np.maximum(histories.lengths, 1)[:, None]).tocsr()
        scores_RN = (shares_RN @ self.content_NX) @ self.content_NX.T + TIE_BREAK * self.popularity_N
        asked_R = np.flatnonzero(examples.query_row >= 0)
        if len(asked_R):
            query_RF = unit(examples.queries[examples.query_row[asked_R]])
            scores_RN[asked_R] += self.words * np.max([query_RF @ text_NF.T for text_NF in self.texts_NF], axis=0)
        found: Floats = np.asarray(scores_RN, dtype=np.float32)
        return found


def unit(x: Floats) -> Floats:
    """Rows of length 1; zeros stay."""
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9), dtype=np.float32)
