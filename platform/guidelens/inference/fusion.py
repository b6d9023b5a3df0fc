"""The fusion stage of serving: what is seen, read and known becomes one intent vector and its candidates.

With a guide model candidates are the best of its retrieval, joined by hits of the text search, products that look like what
is scanned, and popular ones. Without one, or with one that did not learn to recommend, content similarity alone scores them.
Knows nothing of slates or steps.
"""

# Letters: N = products, C = candidates, D = width.

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from guidelens.config import ServeConfig
from guidelens.encoders.backbones import TextBackbone, load_text_backbone
from guidelens.inference.content import Content
from guidelens.inference.guide_files import FIT, encoders_of, has_guide, load_items, one_thread, require_encoder
from guidelens.inference.messages import Floats, FusionInput, FusionOutput, Source, with_relevance
from guidelens.inference.rows import request_row
from guidelens.inference.scorer import GuideScorer
from guidelens.models.complements import Partners
from guidelens.models.guide import Encoded
from guidelens.retrieval import TextIndex, VectorIndex

TEXT_INDEX = "text_index"
INDEX = "index.usearch"
NOMINATED = 4
"""The vector index nominates this many times the candidates wanted: what is looked at and a shopper's habits then reorder them."""
MAX_FROM_OTHERS = 20
EXACT_RELEVANCE = 0.999
SEARCH_RELEVANCE = 0.4
BUY_CHANCE = 0.3
"""From which predicted chance of a purchase after a click, of the best candidate, an intent is called "buy"."""


class FusionModel:
    """A release's fusion stage. `missing` and `degraded` say what this release lacks."""

    def __init__(
        self,
        scorer: GuideScorer | None,
        content: Content,
        search: TextIndex,
        encoder: TextBackbone,
        num_candidates: int,
        index: VectorIndex | None = None,
        partners: Partners | None = None,
    ) -> None:
        """Args:
        index: over `scorer.index_vectors()`; without one every product of the catalogue is scored.
        partners: what goes with what; None where the release does not know.
        """
        self.scorer, self.content, self.search, self.encoder = scorer, content, search, encoder
        self.num_candidates, self.index, self.partners = num_candidates, index, partners
        self.recommends = scorer is not None and scorer.header.learned("recommendation")
        self.missing: tuple[str, ...] = () if scorer else ("events",)
        self.degraded: str | None = None if scorer else "no_guide_model"

    @classmethod
    def load(cls, fit_dir: Path) -> "FusionModel":
        """From a fit or a bundle; the bundle's vector index is read where the catalogue is larger than is scored exactly.

        Raises:
            BundleError: it is needed and damaged, or not there.
            ConfigError: the texts were embedded by another encoder.
        """
        one_thread()
        items, catalogue = load_items(fit_dir)
        encoder = load_text_backbone(encoders_of(fit_dir).text)
        require_encoder(items, "text", encoder.encoder_id)
        scorer = GuideScorer.load(fit_dir) if has_guide(fit_dir) else None
        settings = ServeConfig.model_validate(json.loads((fit_dir / FIT).read_text())["config"]["serve"])
        search = TextIndex.load(fit_dir / TEXT_INDEX)
        index = (
            VectorIndex.load(fit_dir / INDEX) if scorer and scorer.header.learned("recommendation") and len(catalogue) > settings.score_exactly_up_to else None
        )
        partners = Partners.load(fit_dir, len(catalogue))
        return cls(scorer, Content.load(fit_dir, catalogue), search, encoder, settings.num_candidates, index, partners)

    def fuse(self, asked: FusionInput) -> FusionOutput:
        """Intent and candidates, best first.

        The label: "search" where text was given; else "buy" where the best candidate's predicted chance of a purchase after
        a click reaches BUY_CHANCE; else "compare" where a product was recognized; else "browse".
        """
        query = self.encoder.embed([asked.text])[0] if asked.text else None
        found = self._searched(asked.text, query)
        scores_N, encoded = self._scores(asked, query, found)
        rows, source = self._candidates(asked, scores_N, found)
        return FusionOutput(
            intent=encoded.intent_BD[0].numpy() if encoded else np.zeros(0, np.float32),
            candidate_rows=rows,
            candidate_scores=scores_N[rows],
            source=source,
            intent_label=self._label(asked, encoded, rows, scores_N),
            query_embedding=query,
            partner_rows=None if self.partners is None else self.partners.of(asked.focus_row),
        )

    def _searched(self, text: str | None, query: Floats | None) -> Floats:
        """(N,) relevance to the text in [0, 1]; zeros without one."""
        relevance_N = np.zeros(len(self.content.popularity_N), dtype=np.float32)
        if text and query is not None:
            rows, relevance = self.search.search(text, query, min(MAX_FROM_OTHERS, len(relevance_N)))
            relevance_N[rows] = relevance
        return relevance_N

    def _scores(self, asked: FusionInput, query: Floats | None, found: Floats) -> tuple[Floats, Encoded | None]:
        """(N,) retrieval logits, lowest for products that were not nominated, and the encoded request where there is a model."""
        if self.scorer is None:
            return self._content_scores(asked, found), None
        focus = int(asked.recognized_rows[0]) if len(asked.recognized_rows) else -1
        row = request_row(
            asked.packed, asked.device, asked.now_us, channel=asked.channel, focus_row=focus, frame_embedding=asked.frame_embedding, query_embedding=query
        )
        encoded = self.scorer.encode(row)
        if not self.recommends:
            return self._content_scores(asked, found), encoded
        rows = self._nominated(asked, self.scorer, encoded, found)
        scores_N = np.full(len(found), -np.inf, dtype=np.float32)
        with torch.no_grad():
            scores_N[rows] = self.scorer.model.retrieval(encoded, self.scorer.inputs, self.scorer.items_ND, torch.from_numpy(rows))[0].numpy()
        return scores_N, encoded

    def _nominated(self, asked: FusionInput, scorer: GuideScorer, encoded: Encoded, found: Floats) -> NDArray[np.int64]:
        """(C,) rows that get a retrieval logit: all, or those of the index and every product that another source would add."""
        if self.index is None:
            return np.arange(len(found))
        nearest, _ = self.index.search(scorer.index_query(encoded), NOMINATED * self.num_candidates)
        recent = encoded.context.recent_rows_RH[0].numpy()
        others = [_best(likeness, MAX_FROM_OTHERS) for likeness in (*self._likenesses(asked), self.content.popularity_N)]
        return np.unique(np.concatenate([nearest, recent[recent >= 0], np.flatnonzero(found), *others]))

    def _content_scores(self, asked: FusionInput, found: Floats) -> Floats:
        """(N,) likeness to what was recognized, seen and read, in about [0, 3]; popularity breaks ties."""
        crowd = self.content.popularity_N
        scores = 0.05 * crowd / max(float(crowd.max()), 1.0) + 2 * found
        if asked.frame_embedding is not None and len(asked.recognized_rows):
            scores = scores + self.content.like_frame(asked.frame_embedding) / 2
        for row, confidence in zip(asked.recognized_rows[:1], asked.recognized_confidences[:1], strict=True):
            scores = scores + float(confidence) * self.content.like_product(int(row))
        return scores.astype(np.float32)

    def _candidates(self, asked: FusionInput, scores_N: Floats, found: Floats) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        source = np.zeros(len(scores_N), dtype=np.uint8)
        source[_best(scores_N, self.num_candidates)] |= np.uint8(Source.RETRIEVAL)
        hits = found >= SEARCH_RELEVANCE
        source[hits] |= np.uint8(Source.SEARCH) | with_relevance(found[hits])
        source[found >= EXACT_RELEVANCE] |= np.uint8(Source.EXACT)
        for likeness in self._likenesses(asked):
            source[_best(likeness, min(MAX_FROM_OTHERS, len(scores_N) // 4 + 1))] |= np.uint8(Source.SIMILAR)
        if self.content.popularity_N.max(initial=0) > 0:
            source[_best(self.content.popularity_N, min(MAX_FROM_OTHERS, len(scores_N) // 10 + 1))] |= np.uint8(Source.POPULAR)
        kept = np.flatnonzero(source)
        rows: NDArray[np.int32] = kept[np.lexsort((kept, -scores_N[kept]))].astype(np.int32)
        return rows, source[rows]

    def _likenesses(self, asked: FusionInput) -> list[Floats]:
        """Only where something of the catalogue was recognized: a wall is like nothing."""
        if not len(asked.recognized_rows):
            return []
        known = [self.content.like_product(int(asked.recognized_rows[0]))]
        return known if asked.frame_embedding is None else [*known, self.content.like_frame(asked.frame_embedding)]

    def _label(self, asked: FusionInput, encoded: Encoded | None, rows: NDArray[np.int32], scores_N: Floats) -> str:
        if asked.text:
            return "search"
        if self.scorer is not None and self.recommends and encoded is not None and len(rows):
            best = torch.from_numpy(rows[:1].astype(np.int64))[None]
            click, purchase, _ = self.scorer.probabilities(encoded, best, torch.from_numpy(scores_N[rows[:1]])[None])
            if float(purchase[0, 0]) >= BUY_CHANCE * float(click[0, 0]):
                return "buy"
        return "compare" if len(asked.recognized_rows) else "browse"


def _best(scores: Floats, num: int) -> NDArray[np.int64]:
    """Indices of the highest scores; ties by index."""
    return np.lexsort((np.arange(len(scores)), -scores))[:num]
