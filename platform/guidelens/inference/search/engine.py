"""Search over a release's products: what words, a photo and the shopper say of each, weighed into one order under the filters.

No answer rather than a wrong one: a query of which no product knows enough is not answered. Knows nothing of HTTP, stock of now or titles.
"""

# Letters: N = products, F = features, C = context.

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from guidelens.inference.content import Content
from guidelens.inference.search.filters import FilterTable
from guidelens.inference.search.messages import SearchInput, SearchOutput
from guidelens.inference.search.spelling import Spelling
from guidelens.inference.search.stores import ProductVectors
from guidelens.inference.search.texts import SearchTexts
from guidelens.inference.search.weighing import CONTEXT, FEATURES, Answering, Weighing
from guidelens.inference.search.words import terms
from guidelens.schemas.search import Matched, PriceRange, SearchFilters

Floats = NDArray[np.float32]
Lift = Callable[[SearchInput], Floats]
"""(N,) how much more than others this shopper takes to each product, in log odds."""
_AT = {name: number for number, name in enumerate(FEATURES)}
MATCHES_FROM = 0.5
"""Share of the query (by worth), or of the best product's likeness, from which on a product counts as found by it."""
_MEANS_FROM = 0.6
_LOOKS_FROM = 0.5
_LIFT_SCALE = 3.0
_MAX_SUGGESTIONS = 5
NOMINATED = 1000
"""Products whose meaning is compared, of a large catalogue."""
_ALL = SearchFilters()


class Evidence(NamedTuple):
    """(N, F) features, (C,) context, and what stood in for the text: `corrected` is None where nothing did."""

    features_NF: Floats
    context_C: Floats
    corrected: str | None


@dataclass(frozen=True)
class SearchEngine:
    """Attributes:
    embed: unit text embeddings (B, 512).
    lift: None where the release has no model of shoppers.
    vectors: what a large catalogue is looked through by; None where all products are compared.
    """

    texts: SearchTexts
    spelling: Spelling
    filters: FilterTable
    weighing: Weighing
    content: Content
    embed: Callable[[list[str]], Floats]
    lift: Lift | None = None
    vectors: ProductVectors | None = None

    def search(self, asked: SearchInput) -> SearchOutput:
        """One page of results."""
        known = self.evidence(asked)
        allowed_N = self.filters.mask(asked.filters, asked.sold_out, asked.excluded)
        if not self.answers(asked, known):
            return self._nothing(asked, known.corrected)
        scores_N = self.weighing.scores(known.features_NF, known.context_C)
        rows = np.flatnonzero(allowed_N)
        found_N = self._found(asked, known.features_NF)
        order = rows[np.lexsort((rows, -scores_N[rows], ~found_N[rows]))]
        page = order[asked.offset : asked.offset + asked.num].astype(np.int32)
        matching = np.flatnonzero(allowed_N & found_N)
        prices = self.filters.price_range(matching)
        return SearchOutput(
            answered=True,
            rows=page,
            scores=scores_N[page].astype(np.float32),
            matched=tuple(self._matched(known.features_NF[row]) for row in page.tolist()),
            total=len(matching),
            available=len(order),
            facets=self.filters.facets(matching),
            prices=None if prices is None else PriceRange(lowest_minor=prices[0], highest_minor=prices[1]),
            suggestions=self._suggestions(asked.text, known.corrected),
            corrected=known.corrected,
        )

    def evidence(self, asked: SearchInput) -> Evidence:
        """What speaks for each product, whatever the filters."""
        features_NF = np.zeros((len(self.filters), len(FEATURES)), np.float32)
        corrected = self._read_text(asked.text, asked.filters, features_NF) if asked.text else None
        if asked.frame_embedding is not None:
            features_NF[:, _AT["looks_like"]] = self.content.like_frame(asked.frame_embedding)
        if len(asked.recognized_rows):
            features_NF[asked.recognized_rows, _AT["recognized"]] = asked.recognized_confidences
            features_NF[:, _AT["same_kind"]] = float(asked.recognized_confidences[0]) * self.filters.same_kind(int(asked.recognized_rows[0]))
        crowd_N = np.log1p(self.content.popularity_N)
        features_NF[:, _AT["popular"]] = crowd_N / max(float(crowd_N.max(initial=0)), 1e-6)
        if asked.packed is not None and self.lift is not None:
            features_NF[:, _AT["lift"]] = np.clip(self.lift(asked) / _LIFT_SCALE, -1, 1)
        return Evidence(features_NF, context_of(asked, features_NF), corrected)

    def _read_text(self, text: str, filters: SearchFilters, features_NF: Floats) -> str | None:
        """Fills in what the text says; embedded as it is and without empty words, whichever comes nearer."""
        corrected = self.spelling.corrected(text)
        read = corrected or self.spelling.simple(text)
        meant = self.spelling.meant(read)
        vectors = self.embed(list(dict.fromkeys([read, meant])))
        wide = terms(meant)
        found = [self.texts.features(wide, read, vector, self._near(vector, filters)) for vector in vectors]
        features_NF[:, : found[0].shape[1]] = np.maximum.reduce(found)
        return corrected

    def _near(self, vector: Floats, filters: SearchFilters) -> NDArray[np.int64] | None:
        """What may be meant, of a large catalogue: nearest under the filters, and nearest of all, by which it is judged whether to answer."""
        if self.vectors is None:
            return None
        rows, _ = self.vectors.search(vector, NOMINATED, filters)
        return rows if filters.is_empty else np.union1d(rows, self.vectors.search(vector, 1, _ALL)[0])

    def _words_hold(self, asked: SearchInput, features_NF: Floats) -> bool:
        """Whether the shop has what the words mean."""
        answering = self.weighing.header.answering
        return bool(asked.text) and answer_chance(answering, features_NF) >= answering.threshold

    def answers(self, asked: SearchInput, known: Evidence) -> bool:
        """Whether there is anything to show. Words that mean nothing here are no reason for silence where the photo shows a product: "how much is this?"."""
        features_NF = known.features_NF
        if self._words_hold(asked, features_NF) or asked.in_catalogue:
            return True
        if asked.text or asked.frame_embedding is None:
            return not asked.text
        return asked.in_catalogue is None and bool(features_NF[:, _AT["looks_like"]].max(initial=0) >= _LOOKS_FROM)

    def _found(self, asked: SearchInput, features_NF: Floats) -> NDArray[np.bool_]:
        """(N,) which products the query itself speaks for."""
        if self._words_hold(asked, features_NF):
            called_N = features_NF[:, _AT["called"]]
            enough = max(1e-6, min(MATCHES_FROM, 0.9 * float(called_N.max(initial=0))))
            return np.asarray((called_N >= enough) | (features_NF[:, _AT["title_meaning"]] >= _MEANS_FROM), np.bool_)
        if asked.frame_embedding is not None:
            return np.asarray((features_NF[:, _AT["recognized"]] > 0) | (features_NF[:, _AT["looks_like"]] >= _LOOKS_FROM), np.bool_)
        return np.ones(len(features_NF), np.bool_)

    def _matched(self, features_F: Floats) -> tuple[Matched, ...]:
        of = {name: float(features_F[number]) for name, number in _AT.items()}
        said: list[tuple[Matched, bool]] = [
            ("title", of["exact"] > 0),
            ("words", of["words"] >= MATCHES_FROM),
            ("synonym", of["called"] >= MATCHES_FROM > of["words"]),
            ("meaning", of["title_meaning"] >= _MEANS_FROM),
            ("recognized", of["recognized"] > 0),
            ("image", of["looks_like"] >= _LOOKS_FROM),
            ("kind", of["same_kind"] >= MATCHES_FROM),
        ]
        return tuple(name for name, holds in said if holds)

    def _nothing(self, asked: SearchInput, corrected: str | None) -> SearchOutput:
        none, zeros = np.zeros(0, np.int32), np.zeros(0, np.float32)
        return SearchOutput(False, none, zeros, (), 0, 0, (), None, self._suggestions(asked.text, corrected), corrected)

    def _suggestions(self, text: str | None, corrected: str | None) -> tuple[str, ...]:
        if not text:
            return ()
        first = () if corrected is None else (corrected,)
        return tuple(dict.fromkeys((*first, *self.spelling.completions(corrected or text))))[:_MAX_SUGGESTIONS]


def context_of(asked: SearchInput, features_NF: Floats) -> Floats:
    """(C,) what the weighing may depend on, each about in [0, 1]."""
    best = features_NF.max(axis=0, initial=0)
    values = {
        "has_text": float(bool(asked.text)),
        "has_frame": float(asked.frame_embedding is not None),
        "has_shopper": float(asked.packed is not None),
        "best_called": float(best[_AT["called"]]),
        "best_meaning": float(best[_AT["title_meaning"]]),
        "best_look": float(best[_AT["looks_like"]]),
        "best_recognized": float(best[_AT["recognized"]]),
        "length": math.log1p(len(asked.text or "")) / 5,
    }
    return np.array([values[name] for name in CONTEXT], np.float32)


def answer_evidence(features_NF: Floats) -> Floats:
    """(6,) of the product that words and meaning speak for most: words, called, titled, both meanings; and the best title_meaning of all."""
    if not len(features_NF):
        return np.zeros(6, np.float32)
    names = ("words", "called", "titled", "title_meaning", "text_meaning")
    best = int(
        np.argmax(features_NF[:, _AT["called"]] + features_NF[:, _AT["titled"]] + features_NF[:, _AT["title_meaning"]] + 2 * features_NF[:, _AT["exact"]])
    )
    own = [float(features_NF[best, _AT[name]]) for name in names]
    return np.array([*own, float(features_NF[:, _AT["title_meaning"]].max())], np.float32)


def answer_chance(answering: Answering, features_NF: Floats) -> float:
    """Chance that the shop has what the words mean."""
    if features_NF[:, _AT["exact"]].max(initial=0) > 0:
        return 1.0
    logit = answering.intercept + float(answer_evidence(features_NF) @ np.array(answering.weights, np.float32))
    return 1 / (1 + math.exp(-logit))
