"""How well products answer a query in words: by what they are called in either language, and by what the query means.

Built when a shop is trained, with every product also under the other names of its words (lexicon.py); answering needs no dictionary.
Knows nothing of shoppers, pictures or of how the parts are weighed.
"""

# Letters: N = products, T = distinct terms, L = (term, product) pairs, D = width of a text embedding, F = features.

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from guidelens.errors import BundleError
from guidelens.inference.search.lexicon import Lexicon
from guidelens.inference.search.words import normalized, terms
from guidelens.schemas.base import Frozen
from guidelens.schemas.ids import stable_hash

Floats = NDArray[np.float32]
Embed = Callable[[Sequence[str]], Floats]
SCHEMA_VERSION = 1
FEATURES = ("words", "called", "titled", "whole", "title_meaning", "text_meaning", "exact")
"""words: share of the query's worth in the product's own texts. called: the same with other names of its words. titled: in its title, by
whatever name. whole: share of the title's worth that was asked for. title_meaning, text_meaning: cosines. exact: the query is the title."""

_TITLE, _BODY, _CALLED = 1, 2, 4
_WORTH = {"#": 1.5, "=": 1.0}
_CHARACTER, _PAIR, _UNSEEN_PAIR = 0.6, 1.0, 0.4
"""A pair of characters that no product has is often the seam of two words."""
_BEST_BY_WORDS = 500
_RARE = math.log(101)
"""Worth of a word that no product has: that of one which a product in a hundred has."""


class ProductTexts(NamedTuple):
    """Of one product: `titles` in English and Chinese, as far as there are; `names` short texts worth translating (brand, category,
    colour, …); `longer` descriptions."""

    titles: tuple[str, ...]
    names: tuple[str, ...]
    longer: tuple[str, ...]


class _Facts(Frozen):
    schema_version: int = SCHEMA_VERSION
    titles: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class _Postings:
    """Term hashes (T,), ascending, with their worth (T,) and where their products begin (T + 1,); products (L,) and bits of where each
    term stands in it (L,)."""

    hashes_T: NDArray[np.int64]
    values_T: Floats
    starts_T: NDArray[np.int64]
    rows_L: NDArray[np.int32]
    places_L: NDArray[np.uint8]


class SearchTexts:
    """The text side of search over N products."""

    def __init__(
        self,
        postings: _Postings,
        title_worth_N: Floats,
        titles: tuple[tuple[str, ...], ...],
        title_vectors: tuple[Floats, ...],
        text_vectors: tuple[Floats, ...],
    ) -> None:
        self._postings, self._title_worth_N, self._titles = postings, title_worth_N, titles
        self._title_vectors, self._text_vectors = title_vectors, text_vectors
        self._exact: dict[str, list[int]] = {}
        for row, names in enumerate(titles):
            for name in names:
                self._exact.setdefault(name, []).append(row)

    def __len__(self) -> int:
        return len(self._titles)

    @classmethod
    def build(cls, products: Sequence[ProductTexts], lexicon: Lexicon, embed: Embed, text_vectors: Sequence[Floats] = ()) -> "SearchTexts":
        """Args:
        embed: gives unit vectors (B, D) of texts.
        text_vectors: (N, D) of whole texts, one a language; made of titles and descriptions where there are none.
        """
        placed = [_placed(product, lexicon) for product in products]
        titles = tuple(tuple(dict.fromkeys(normalized(title) for title in product.titles)) for product in products)
        num_titles = max((len(product.titles) for product in products), default=0)
        vectors = tuple(embed([_nth(product.titles, number) for product in products]) for number in range(num_titles))
        whole = tuple(text_vectors) or (embed([" ".join((*product.titles, *product.names, *product.longer)) for product in products]),)
        postings = _postings(placed)
        value = dict(zip(postings.hashes_T.tolist(), postings.values_T.tolist(), strict=True))
        worth_N = [max((sum(value[stable_hash(term)] for term in terms(title)) for title in product.titles), default=0.0) for product in products]
        return cls(postings, np.array(worth_N, np.float32), titles, vectors, whole)

    def features(self, query: Sequence[str], text: str, embedding: Floats | None, near: NDArray[np.int64] | None = None) -> Floats:
        """(N, F) of a query whose terms, words and embedding are given; all 0 where there are none.

        Args:
            near: rows whose cosines are worth knowing, joined by the best by words; None for all.
        """
        out_NF = np.zeros((len(self), len(FEATURES)), np.float32)
        out_NF[:, :4] = self._by_words(query)
        if embedding is not None:
            rows = None if near is None else np.union1d(near, _highest(out_NF[:, 1] + out_NF[:, 2], _BEST_BY_WORDS))
            for place, matrices in ((4, self._title_vectors), (5, self._text_vectors)):
                out_NF[slice(None) if rows is None else rows, place] = self._nearest(matrices, embedding, rows)
        out_NF[self._exact.get(normalized(text), []), 6] = 1
        return out_NF

    @property
    def nominating(self) -> Floats:
        """(N, D) vectors of the first titles: what a large catalogue is looked through by."""
        return self._title_vectors[0]

    def _at(self, term: str) -> int:
        key = stable_hash(term)
        at = int(np.searchsorted(self._postings.hashes_T, key))
        return at if at < len(self._postings.hashes_T) and self._postings.hashes_T[at] == key else -1

    def _by_words(self, query: Sequence[str]) -> Floats:
        found_N4 = np.zeros((len(self), 4), np.float32)
        wanted, unseen = 0.0, min(math.log1p(len(self)), _RARE)
        for term in query:
            at = self._at(term)
            if at < 0:
                wanted += unseen * (_UNSEEN_PAIR if _is_pair(term) else _worth(term))
                continue
            value = float(self._postings.values_T[at])
            wanted += value
            span = slice(self._postings.starts_T[at], self._postings.starts_T[at + 1])
            rows, places = self._postings.rows_L[span], self._postings.places_L[span]
            found_N4[rows, 0] += value * ((places & (_TITLE | _BODY)) > 0)
            found_N4[rows, 1] += value
            found_N4[rows, 2] += value * ((places & _TITLE) > 0) + 0.9 * value * ((places & (_TITLE | _CALLED)) == _CALLED)
        found_N4[:, 3] = np.minimum(found_N4[:, 2] / np.maximum(self._title_worth_N, 1e-6), 1)
        if wanted > 0:
            found_N4[:, :3] /= wanted
        return found_N4

    def _nearest(self, matrices: Sequence[Floats], embedding: Floats, rows: NDArray[np.int64] | None) -> Floats:
        best = np.zeros(len(self) if rows is None else len(rows), np.float32)
        for matrix in matrices:
            best = np.maximum(best, (matrix if rows is None else matrix[rows]) @ embedding)
        return best

    def save(self, folder: Path) -> None:
        """Writes search_texts.safetensors and search_texts.json."""
        folder.mkdir(parents=True, exist_ok=True)
        known = self._postings
        tensors = {"hashes": known.hashes_T, "values": known.values_T, "starts": known.starts_T, "rows": known.rows_L, "places": known.places_L}
        tensors |= {"title_worth": self._title_worth_N}
        tensors |= {f"titles_{number}": matrix for number, matrix in enumerate(self._title_vectors)}
        tensors |= {f"texts_{number}": matrix for number, matrix in enumerate(self._text_vectors)}
        save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, folder / "search_texts.safetensors")
        (folder / "search_texts.json").write_text(json.dumps(_Facts(titles=self._titles).model_dump(mode="json"), ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "SearchTexts":
        """What `save` wrote.

        Raises:
            BundleError: a file is missing, damaged or of another schema version.
        """
        try:
            facts = _Facts.model_validate_json((folder / "search_texts.json").read_bytes())
            tensors = load_file(folder / "search_texts.safetensors")
            postings = _Postings(*(tensors[name] for name in ("hashes", "values", "starts", "rows", "places")))
            worth_N = tensors["title_worth"]
        except (OSError, ValidationError, SafetensorError, KeyError) as error:
            raise BundleError(f"{folder} must hold the texts of search, got {error}; release again") from error
        if facts.schema_version != SCHEMA_VERSION:
            raise BundleError(f"search_texts.json must have schema version {SCHEMA_VERSION}, got {facts.schema_version}; release again with this code")
        by_prefix = [tuple(tensors[name] for name in sorted(tensors) if name.startswith(prefix)) for prefix in ("titles_", "texts_")]
        return cls(postings, worth_N, facts.titles, by_prefix[0], by_prefix[1])


def _highest(values_N: Floats, num: int) -> NDArray[np.int64]:
    """Rows of the highest values above 0."""
    rows = np.argpartition(-values_N, num - 1)[:num] if num < len(values_N) else np.arange(len(values_N))
    return rows[values_N[rows] > 0].astype(np.int64)


def _nth(texts: Sequence[str], number: int) -> str:
    return texts[number] if number < len(texts) else ""


def _is_pair(term: str) -> bool:
    return term.startswith("'") and len(term) > 2


def _worth(term: str) -> float:
    if term.startswith("'"):
        return _PAIR if _is_pair(term) else _CHARACTER
    return _WORTH[term[0]]


def _placed(product: ProductTexts, lexicon: Lexicon) -> dict[str, int]:
    """Bits of where each term stands."""
    places: dict[str, int] = {}
    others = [other for text in (*product.titles, *product.names) for other in lexicon.others(text)]
    for bit, texts in ((_TITLE, product.titles), (_BODY, (*product.names, *product.longer)), (_CALLED, others)):
        for text in texts:
            for term in terms(text):
                places[term] = places.get(term, 0) | bit
    return places


def _postings(placed: Sequence[dict[str, int]]) -> _Postings:
    """idf = ln(1 + N / products that hold the term), times the term's worth."""
    holders: dict[int, list[tuple[int, int]]] = {}
    worths: dict[int, float] = {}
    for row, places in enumerate(placed):
        for term, bits in places.items():
            key = stable_hash(term)
            worths[key] = _worth(term)
            holders.setdefault(key, []).append((row, bits))
    keys = sorted(holders)
    pairs = [pair for key in keys for pair in holders[key]]
    return _Postings(
        hashes_T=np.array(keys, np.int64),
        values_T=np.array([worths[key] * math.log1p(len(placed) / len(holders[key])) for key in keys], np.float32),
        starts_T=np.cumsum([0, *(len(holders[key]) for key in keys)], dtype=np.int64),
        rows_L=np.array([row for row, _ in pairs], np.int32),
        places_L=np.array([bits for _, bits in pairs], np.uint8),
    )
