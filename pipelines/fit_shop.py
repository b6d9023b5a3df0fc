"""What a fit keeps of a shop beside its models: its rules over slates, what goes with what, and what answers where the model cannot."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from guidelens.config import Baseline, Config, FallbackConfig, Home
from guidelens.data.examples import Examples
from guidelens.evaluation.guide import EASE_UP_TO
from guidelens.evaluation.ranking import best_on, clicked_requests, score_requests
from guidelens.inference.facts import product_facts
from guidelens.inference.popularity import read_popularity
from guidelens.inference.reranking import BUNDLED, ShopRules, read_rules
from guidelens.models.baselines.content import unit
from guidelens.models.baselines.fallback import Fallback, FallbackHeader
from guidelens.models.baselines.hybrid import Hybrid
from guidelens.models.baselines.recommender import ItemToItem
from guidelens.models.baselines.requests import Classics, OnRequests, RecentPopularity
from guidelens.models.complements import MIN_PAIRS, content_of, fit_complements
from guidelens.models.items import Catalogue
from guidelens.schemas.ids import sub_seed
from pipelines.entry import progress

FALLBACK_SHOPPERS = 20_000
"""Histories that a release's user-kNN holds at most."""
_MAX_CELLS = 50_000_000
"""Of requests times products: what choosing a fallback's settings may hold at once."""


def keep_rules(home: Home, config: Config, items: pl.DataFrame, fit_dir: Path) -> None:
    """rules.json: the home's rules as they are now, where it has some; popularity.json must be there.

    Raises:
        ConfigError: they cannot be used, or contradict themselves on this catalogue.
    """
    path = home.root / config.serve.rerank.rules
    if not path.exists():
        return
    rules = read_rules(path)
    facts = product_facts(items, read_popularity(fit_dir, len(items)).clicks_N)
    bound = ShopRules(rules, items["product_id"].to_list(), facts.categories, facts)
    if bound.idle:
        progress(f"train: expert rules {', '.join(bound.idle)} of {path} are about products of which the catalogue holds none")
    if bound.unknown:
        progress(f"train: rules {path} name products that the catalogue does not hold: {', '.join(bound.unknown[:10])}")
    (fit_dir / BUNDLED).write_text(rules.model_dump_json(indent=1))


def keep_complements(examples: Examples, catalogue: Catalogue, items: pl.DataFrame, seed: int, fit_dir: Path) -> None:
    """complements.*: the partners of every product, learned from the training rows; not there where these hold too few pairs."""
    fitted = fit_complements(examples, catalogue, items["category"].fill_null("").to_list(), sub_seed(seed, "complements"))
    if fitted is None:
        progress(f"train: what goes with what is left out: fewer than {MIN_PAIRS} products were engaged with beside one of another category")
        return
    model, header = fitted
    partners = model.partners()
    partners.save(fit_dir, header)
    progress(f"train: partners of {(partners.rows_NK[:, 0] >= 0).sum()} products from {header.train_pairs:,} pairs")


def keep_fallback(examples: Examples, catalogue: Catalogue, config: FallbackConfig, fit_dir: Path, seed: int) -> None:
    """fallback.*: the baseline that the config names, fitted on the training rows, with the settings that rank the validation rows best."""
    if config.baseline == "none":
        return
    train, val, ids = examples.of("train"), some_clicked(examples.of("val"), len(catalogue)), list(catalogue.product_ids)
    if config.baseline == "content" and len(ids) > EASE_UP_TO:
        progress(f"train: the fallback content is left out: it compares all products with all, up to {EASE_UP_TO:,} of them, got {len(ids):,}")
        return
    fitted = fit_fallback(Classics(train, ids), config.baseline, config.num_neighbours, val, catalogue, seed)
    if fitted is None:
        progress(f"train: the fallback {config.baseline} is left out: the validation part holds no click to weigh its parts by")
        return
    ours, popular = (score_requests(one, val).ndcg for one in (fitted.scorer, best_on(RecentPopularity.candidates(train, len(ids)), val)))
    measured = {"validation_ndcg_at_10": float(ours.mean()), "popularity_ndcg_at_10": float(popular.mean())} if len(ours) else {}
    dataclasses.replace(fitted, header=fitted.header.model_copy(update=measured)).save(fit_dir)
    said = f", NDCG@10 of validation clicks {ours.mean():.3f}, popularity's {popular.mean():.3f}" if len(ours) else ""
    progress(f"train: fallback {config.baseline}{said}")


def some_clicked(val: Examples, num_products: int) -> Examples:
    """Clicked requests, evenly over time, so few that their scores of the whole catalogue stay below _MAX_CELLS."""
    clicked, _ = clicked_requests(val)
    num = min(len(clicked), max(1, _MAX_CELLS // num_products))
    return val.take(clicked[np.linspace(0, len(clicked) - 1, num).astype(np.int64)] if num else clicked)


def fit_fallback(classics: Classics, baseline: Baseline, num_neighbours: int, val: Examples, catalogue: Catalogue, seed: int) -> Fallback | None:
    """Cut to neighbours, or to some shoppers, before its settings are chosen, so that what is chosen is what is served. None: a hybrid without validation clicks."""

    def best(candidates: list[OnRequests]) -> OnRequests:
        return best_on([_cut(one, num_neighbours) for one in candidates], val)

    parted = {"item_knn": classics.item_knn, "transitions": classics.transitions, "ease": classics.ease}
    named: dict[str, Callable[[], list[OnRequests]]] = {
        **parted,
        "item_knn_pearson": classics.item_knn_pearson,
        "content": lambda: classics.content(unit(content_of(catalogue))),
        "user_knn": lambda: classics.of_some_shoppers(FALLBACK_SHOPPERS, seed).user_knn(),
        "als": lambda: classics.als(seed),
        "ncf": lambda: classics.ncf(seed),
    }
    if baseline != "hybrid":
        scorer: OnRequests | None = best(named[baseline]())
    else:
        scorer = classics.hybrid({name: best(fit()) for name, fit in parted.items() if name != "ease" or len(classics.item_ids) <= EASE_UP_TO}, val)
    if scorer is None:
        return None
    found, reader = scorer.recommender, scorer.reader
    parts, center = (tuple(found.parts), found.center) if isinstance(found, Hybrid) else ((baseline,), 0.0)
    header = FallbackHeader(baseline=baseline, parts=parts, clicked_only=reader.clicked_only, focus_repeats=reader.focus_repeats, center=center)
    return Fallback(header, scorer)


def _cut(one: OnRequests, num_neighbours: int) -> OnRequests:
    found = one.recommender
    return dataclasses.replace(one, recommender=found.neighbours(num_neighbours)) if isinstance(found, ItemToItem) else one
