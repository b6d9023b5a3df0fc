"""What expert rules ask of products, read from an item table by the ranker and the ingress alike."""

import json
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from guidelens.inference.reranking.expert import ProductFacts

_KEYS = ("colour", "material", "size")
_COLUMNS = ("category", "brand", "attributes_json", *_KEYS)


def read_facts(folder: Path, clicks_N: NDArray[np.integer] | None) -> ProductFacts:
    """`product_facts` of a fit's or a bundle's item table, of which only what is asked for is read."""
    table = pl.scan_parquet(folder / "items.parquet")
    return product_facts(table.select(name for name in _COLUMNS if name in table.collect_schema().names()).collect(), clicks_N)


def product_facts(items: pl.DataFrame, clicks_N: NDArray[np.integer] | None) -> ProductFacts:
    """Attributes are the catalogue's own, and its canonical columns.

    Args:
        clicks_N: of each product in the log, None where nobody counted them.
    """
    given = items["attributes_json"].to_list() if "attributes_json" in items.columns else [None] * len(items)
    canonical = items.select(name for name in _KEYS if name in items.columns).to_dicts() or [{} for _ in given]
    attributes = [
        {**(json.loads(text) if text else {}), **{name: value for name, value in keys.items() if value is not None}}
        for text, keys in zip(given, canonical, strict=True)
    ]
    return ProductFacts(items["category"].fill_null("").to_list(), items["brand"].fill_null("").to_list(), attributes, clicks_N)
