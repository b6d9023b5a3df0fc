"""A release's search engine beside its fusion stage, whose encoder, pictures and model of shoppers it shares."""

from pathlib import Path

import torch

from guidelens.config import EMBEDDED, SearchConfig
from guidelens.encoders.backbones import TextBackbone
from guidelens.inference.content import Content
from guidelens.inference.fusion import FusionModel
from guidelens.inference.guide_files import load_items
from guidelens.inference.rows import request_row
from guidelens.inference.scorer import GuideScorer
from guidelens.inference.search.engine import Floats, Lift, SearchEngine
from guidelens.inference.search.files import product_vectors, read_search
from guidelens.inference.search.messages import SearchInput


def search_engine(bundle: Path, model: FusionModel, config: SearchConfig) -> SearchEngine:
    """From a bundle.

    Raises:
        BundleError: what it holds for search is damaged.
        ConfigError: the database of its vectors cannot be used.
    """
    return engine_of(bundle, model.content, model.encoder, model.scorer, config.vectors)


def engine_of(folder: Path, content: Content, encoder: TextBackbone, scorer: GuideScorer | None, vectors: str = EMBEDDED) -> SearchEngine:
    """From a fit, finished or not."""
    items, _ = load_items(folder)
    texts, spelling, weighing, filters = read_search(folder, items, content.popularity_N, encoder.embed)
    lift = lift_of(scorer) if scorer is not None and scorer.header.learned("recommendation") else None
    return SearchEngine(texts, spelling, filters, weighing, content, encoder.embed, lift, product_vectors(folder, items, texts, filters, vectors))


def lift_of(scorer: GuideScorer) -> Lift:
    """Retrieval logits with what is known of the shopper, less those without it."""

    @torch.no_grad()
    def lift(asked: SearchInput) -> Floats:
        rows = [request_row(packed, asked.device, asked.now_us, channel=asked.channel) for packed in (asked.packed, None)]
        known, unknown = (scorer.model.retrieval(scorer.encode(row), scorer.inputs, scorer.items_ND)[0] for row in rows)
        difference: Floats = (known - unknown).numpy()
        return difference

    return lift
