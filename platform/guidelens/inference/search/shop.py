"""A release's search engine beside its fusion stage, whose encoder, pictures and model of shoppers it shares."""

from pathlib import Path

import torch

from guidelens.inference.fusion import FusionModel
from guidelens.inference.guide_files import load_items
from guidelens.inference.rows import request_row
from guidelens.inference.scorer import GuideScorer
from guidelens.inference.search.engine import Floats, Lift, SearchEngine
from guidelens.inference.search.files import read_search
from guidelens.inference.search.messages import SearchInput


def search_engine(bundle: Path, model: FusionModel) -> SearchEngine:
    """From a fit or a bundle.

    Raises:
        BundleError: what it holds for search is damaged.
    """
    items, _ = load_items(bundle)
    texts, spelling, weighing, filters = read_search(bundle, items, model.content.popularity_N, model.encoder.embed)
    lift = lift_of(model.scorer) if model.scorer is not None and model.recommends else None
    return SearchEngine(texts, spelling, filters, weighing, model.content, model.encoder.embed, lift)


def lift_of(scorer: GuideScorer) -> Lift:
    """Retrieval logits with what is known of the shopper, less those without it."""

    @torch.no_grad()
    def lift(asked: SearchInput) -> Floats:
        rows = [request_row(packed, asked.device, asked.now_us, channel=asked.channel) for packed in (asked.packed, None)]
        known, unknown = (scorer.model.retrieval(scorer.encode(row), scorer.inputs, scorer.items_ND)[0] for row in rows)
        difference: Floats = (known - unknown).numpy()
        return difference

    return lift
