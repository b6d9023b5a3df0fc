"""What products are called, looked for in the texts read on a package, and what was found weighed beside what the image looks like.

Words are compared without marks (äpple is apple), with as many slips as search forgives, and also inside of longer runs: print has no spaces where
a reader would put them. Chinese is compared by pairs of characters. Knows nothing of pixels or requests.
"""

import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rapidfuzz import fuzz

from guidelens.inference.search.words import is_wide, runs
from guidelens.schemas.base import Frozen

# Letters: N = products, K = products answered, F = features.

Rows = NDArray[np.int32]
Floats = NDArray[np.float32]
FEATURES = ("brand", "title", "missed")
"""brand, title: how many of the words were read, the title's without those of the brand. missed: how many of both were not, where any word of any
product was read."""
_SHORTEST, _SHORTEST_FORGIVEN, _LONG = 3, 4, 6
"""Shorter words stand in too many others; from the second length on one slip is forgiven, from the third two."""


class TextWeights(Frozen):
    """Log-evidence of a word, and how far the image's own chances count. Fitted on development folds of grocery-store (ADR 0207)."""

    brand: float = 3.48
    title: float = 2.03
    missed: float = -0.14
    image: float = 1.58


class PackageWords:
    """The words of N products by which a text read on a package may name them."""

    def __init__(self, brands: Sequence[Sequence[str]], titles: Sequence[Sequence[str]]) -> None:
        """Texts of each product, in any language."""
        of_brands = [_words(texts) for texts in brands]
        of_titles = [_words(texts) - own for texts, own in zip(titles, of_brands, strict=True)]
        self._words = sorted({word for words in (*of_brands, *of_titles) for word in words})
        place = {word: at for at, word in enumerate(self._words)}
        self._brands, self._titles = ([np.array([place[word] for word in sorted(words)], np.int64) for words in each] for each in (of_brands, of_titles))
        self._worth = np.array([0.5 if is_wide(word) else 1.0 for word in self._words], np.float32)

    @classmethod
    def of_items(cls, items: pl.DataFrame) -> "PackageWords":
        """From the item table's brands and titles."""
        columns = {name: items[name].to_list() if name in items.columns else [None] * len(items) for name in ("brand", "title", "title_zh")}
        titles = [[text for text in pair if text] for pair in zip(columns["title"], columns["title_zh"], strict=True)]
        return cls([[text] if text else [] for text in columns["brand"]], titles)

    def __len__(self) -> int:
        return len(self._brands)

    def features(self, texts: Sequence[str]) -> Floats:
        """(N, F) of lines that were read; all 0 where none of them names anything."""
        read = [_plain(text) for text in texts]
        known = np.array([max((_likeness(word, text) for text in read), default=0.0) for word in self._words], np.float32)
        out_NF = np.zeros((len(self), len(FEATURES)), np.float32)
        if not known.any():
            return out_NF
        found = known * self._worth
        for row, (brand, title) in enumerate(zip(self._brands, self._titles, strict=True)):
            wanted = float(self._worth[brand].sum() + self._worth[title].sum())
            out_NF[row] = found[brand].sum(), found[title].sum(), wanted - found[brand].sum() - found[title].sum()
        return out_NF


def _words(texts: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for run in (run for text in texts for run in runs(text)):
        if is_wide(run):
            found |= {run[at : at + 2] for at in range(len(run) - 1)}
        elif len(plain := _plain(run)) >= _SHORTEST and not plain.isdigit():
            found.add(plain)
    return found


def _plain(text: str) -> str:
    """Lower case, no marks, runs set apart by single spaces."""
    parted = unicodedata.normalize("NFKD", " ".join(runs(text)))
    return "".join(character for character in parted if not unicodedata.combining(character))


def _likeness(word: str, text: str) -> float:
    """1 for a word that stands in a text, less with a slip, 0 with more than are forgiven."""
    if is_wide(word):
        return float(word in text)
    if len(word) < _SHORTEST_FORGIVEN:
        return float(word in text.split())
    if word in text:
        return 1.0
    slips = 2 if len(word) >= _LONG else 1
    if len(text) < len(word) - slips:
        return 0.0
    share = fuzz.partial_ratio(word, text) / 100 if len(text) >= len(word) else fuzz.ratio(word, text) / 100
    return share if share >= 1 - slips / (len(word) + 1) else 0.0


def with_text(rows_K: Rows, confidences_K: Floats, features_NF: Floats, weights: TextWeights) -> tuple[Rows, Floats]:
    """Products best first, and their chances, where texts were read: the image's chances times the evidence of the words, over all products."""
    num = len(features_NF)
    chances_N = np.full(num, max(1 - float(confidences_K.sum()), 1e-6) / max(num - len(rows_K), 1))
    chances_N[rows_K] = np.maximum(confidences_K, 1e-9)
    logs_N = weights.image * np.log(chances_N) + features_NF @ np.array([weights.brand, weights.title, weights.missed])
    chances_N = np.exp(logs_N - logs_N.max())
    chances_N /= chances_N.sum()
    best = np.argsort(-chances_N, kind="stable")[: len(rows_K)]
    return best.astype(np.int32), chances_N[best].astype(np.float32)
