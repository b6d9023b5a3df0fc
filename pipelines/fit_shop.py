"""What a fit keeps of a shop beside its models: its rules over slates, and what goes with what."""

from pathlib import Path

import polars as pl

from guidelens.config import Config, Home
from guidelens.data.examples import Examples
from guidelens.inference.reranking import BUNDLED, ShopRules, read_rules
from guidelens.models.complements import MIN_PAIRS, fit_complements
from guidelens.models.items import Catalogue
from guidelens.schemas.ids import sub_seed
from pipelines.entry import progress


def keep_rules(home: Home, config: Config, items: pl.DataFrame, fit_dir: Path) -> None:
    """rules.json: the home's rules as they are now, where it has some.

    Raises:
        ConfigError: they cannot be used, or contradict themselves on this catalogue.
    """
    path = home.root / config.serve.rerank.rules
    if not path.exists():
        return
    rules = read_rules(path)
    bound = ShopRules(rules, items["product_id"].to_list(), items["category"].fill_null("").to_list())
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
