"""Finding products by words in Chinese and English: by the words themselves and by what they mean."""

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from guidelens.errors import BundleError, ShapeError
from guidelens.schemas.base import Frozen
from guidelens.schemas.ids import stable_hash

# Letters: N = products, D = width, T = distinct terms, L = (product, term) pairs.

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
TEXT_SCHEMA_VERSION = 1


class _Facts(Frozen):
    schema_version: int = TEXT_SCHEMA_VERSION
    num_products: int
    titles: tuple[tuple[str, ...], ...]


_WORD = re.compile(r"[0-9]+|[^\W\d_]+")
_WIDE = re.compile(r"[㐀-䶿一-鿿豈-﫿぀-ヿ가-힯]")
_NUMBER_WEIGHT = 2.0
"""Numbers tell products of one series apart ("size 42", "3号"), so they count more than their rarity says."""
_TITLE_WEIGHT = 2.0
_NUM_TITLES = 2
"""The first texts of a product are its titles."""
_COSINE_FROM, _COSINE_TO = 0.30, 0.75
"""Sentence cosines between unrelated short texts reach the first; paraphrases the second."""
_MEANING_SHARE = 0.8
"""Relevance that meaning alone may give; words that match may give all."""


def normalized(text: str) -> str:
    """NFKC, lower case, single spaces: full-width and half-width forms become one."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def terms(text: str) -> Counter[str]:
    """What a text is matched by: numbers, words and their trigrams (so that inflections and typos still meet), and for
    Chinese, Japanese and Korean single characters and pairs."""
    found: Counter[str] = Counter()
    for run in _WORD.findall(normalized(text)):
        if run.isdigit():
            found[f"#{run.lstrip('0') or '0'}"] += 1
        elif _WIDE.search(run):
            found.update(f"'{character}" for character in run)
            found.update(f"'{run[at : at + 2]}" for at in range(len(run) - 1))
        else:
            found[f"={run}"] += 1
            padded = f"^{run}$"
            found.update(f"~{padded[at : at + 3]}" for at in range(len(padded) - 2))
    return found


def _worth(term: str) -> float:
    """Trigrams together weigh about as much as their word; a single character less than a pair."""
    if term.startswith("#"):
        return _NUMBER_WEIGHT
    if term.startswith("~"):
        return 0.2
    return 0.4 if term.startswith("'") and len(term) == 2 else 1.0


@dataclass(frozen=True)
class _Postings:
    """Term hashes (T,), ascending; their idf x worth (T,); where each term's products begin in `rows_L` (T + 1,); products
    and weights (L,): 1 for a term somewhere in a product's texts, more in its titles."""

    hashes_T: NDArray[np.int64]
    values_T: Floats
    starts_T: NDArray[np.int64]
    rows_L: NDArray[np.int32]
    weights_L: Floats


class TextIndex:
    """Hybrid search: words that match, weighed by rarity, joined with the meaning of the whole text (sentence embeddings)."""

    def __init__(self, postings: _Postings, embeddings: tuple[Floats, ...], titles: tuple[tuple[str, ...], ...]) -> None:
        self._postings = postings
        self._embeddings = embeddings
        self._titles = titles
        self._exact: dict[str, list[int]] = {}
        for row, names in enumerate(titles):
            for name in names:
                self._exact.setdefault(name, []).append(row)

    @classmethod
    def build(cls, texts_by_product: list[list[str]], *embeddings: Floats) -> "TextIndex":
        """An index of N products.

        Args:
            texts_by_product: what each product can be found by; its titles first.
            embeddings: any number of (N, 512) sentence embeddings (one a language), unit or zero rows; the nearest counts.

        Raises:
            ShapeError: an embedding matrix of another length.
        """
        for matrix in embeddings:
            if len(matrix) != len(texts_by_product):
                raise ShapeError(f"embeddings must have a row a product ({len(texts_by_product)}), got {len(matrix)}")
        titles = tuple(tuple(dict.fromkeys(name for text in texts[:_NUM_TITLES] if (name := normalized(text)))) for texts in texts_by_product)
        kept = tuple(np.asarray(matrix, np.float32) for matrix in embeddings)
        return cls(_postings(texts_by_product), kept, titles)

    def search(self, query: str, query_embedding: Floats | None, k: int) -> tuple[Rows, Floats]:
        """The `k` most relevant rows, best first, and their relevance in [0, 1]; rows of no relevance are left out.

        1 means that the query is the product's title. Matching words give the share of the query (by rarity) that the
        product's texts hold; meaning gives at most 0.8.
        """
        num_products = len(self._titles)
        if k <= 0 or not num_products:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        words_N, ties_N = self._by_words(query)
        meaning_N = self._by_meaning(query_embedding)
        relevance_N = 0.95 * (1 - (1 - words_N) * (1 - _MEANING_SHARE * meaning_N))
        relevance_N[self._exact.get(normalized(query), [])] = 1.0
        order = np.lexsort((-ties_N, -relevance_N))[: min(k, num_products)]
        order = order[relevance_N[order] > 0]
        return order.astype(np.int64), relevance_N[order].astype(np.float32)

    def _by_words(self, query: str) -> tuple[Floats, Floats]:
        """(N,) share of the query's worth found in each product's texts, and the same with titles counting more, for ties."""
        found_N = np.zeros(len(self._titles), np.float32)
        titled_N = np.zeros(len(self._titles), np.float32)
        wanted = 0.0
        known = self._postings
        unseen_value = math.log1p(len(self._titles))
        for term in terms(query):
            at = int(np.searchsorted(known.hashes_T, stable_hash(term)))
            if at == len(known.hashes_T) or known.hashes_T[at] != stable_hash(term):
                wanted += unseen_value * _worth(term)
                continue
            span = slice(known.starts_T[at], known.starts_T[at + 1])
            wanted += float(known.values_T[at])
            found_N[known.rows_L[span]] += known.values_T[at]
            titled_N[known.rows_L[span]] += known.values_T[at] * known.weights_L[span]
        return (found_N / wanted, titled_N / wanted) if wanted > 0 else (found_N, titled_N)

    def _by_meaning(self, query_embedding: Floats | None) -> Floats:
        """(N,) in [0, 1]."""
        best_N = np.zeros(len(self._titles), np.float32)
        if query_embedding is None:
            return best_N
        for matrix in self._embeddings:
            best_N = np.maximum(best_N, matrix @ query_embedding)
        return np.asarray(np.clip((best_N - _COSINE_FROM) / (_COSINE_TO - _COSINE_FROM), 0, 1), np.float32)

    def save(self, folder: Path) -> None:
        """Writes texts.safetensors and texts.json."""
        folder.mkdir(parents=True, exist_ok=True)
        known = self._postings
        tensors = {"hashes": known.hashes_T, "values": known.values_T, "starts": known.starts_T, "rows": known.rows_L, "weights": known.weights_L}
        tensors |= {f"embeddings_{number}": matrix for number, matrix in enumerate(self._embeddings)}
        save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, folder / "texts.safetensors")
        facts = _Facts(num_products=len(self._titles), titles=self._titles)
        (folder / "texts.json").write_text(json.dumps(facts.model_dump(mode="json"), ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "TextIndex":
        """What `save` wrote.

        Raises:
            BundleError: a file is missing, damaged or of another schema version.
        """
        try:
            facts = _Facts.model_validate_json((folder / "texts.json").read_bytes())
            tensors = load_file(folder / "texts.safetensors")
            postings = _Postings(*(tensors[name] for name in ("hashes", "values", "starts", "rows", "weights")))
        except (OSError, ValidationError, SafetensorError, KeyError) as error:
            raise BundleError(f"{folder} must hold a text index, got {error}; release again") from error
        if facts.schema_version != TEXT_SCHEMA_VERSION:
            raise BundleError(f"texts.json must have schema version {TEXT_SCHEMA_VERSION}, got {facts.schema_version}; release again with this code")
        embeddings = tuple(tensors[name] for name in sorted(tensors) if name.startswith("embeddings_"))
        return cls(postings, embeddings, facts.titles)


def _postings(texts_by_product: Sequence[Sequence[str]]) -> _Postings:
    """The inverted index of all terms; idf = ln(1 + N / products that hold the term)."""
    holders: dict[int, list[tuple[int, float]]] = {}
    worths: dict[int, float] = {}
    for row, texts in enumerate(texts_by_product):
        weights: dict[str, float] = {}
        for place, text in enumerate(texts):
            for term in terms(text):
                weights[term] = max(weights.get(term, 0.0), _TITLE_WEIGHT if place < _NUM_TITLES else 1.0)
        for term, weight in weights.items():
            key = stable_hash(term)
            worths[key] = _worth(term)
            holders.setdefault(key, []).append((row, weight))
    keys = sorted(holders)
    pairs = [pair for key in keys for pair in holders[key]]
    values = [worths[key] * math.log1p(len(texts_by_product) / len(holders[key])) for key in keys]
    return _Postings(
        hashes_T=np.array(keys, np.int64),
        values_T=np.array(values, np.float32),
        starts_T=np.cumsum([0, *(len(holders[key]) for key in keys)], dtype=np.int64),
        rows_L=np.array([row for row, _ in pairs], np.int32),
        weights_L=np.array([weight for _, weight in pairs], np.float32),
    )
