"""What a fit keeps for search: what products are called, and how words, photo, crowd and shopper are weighed."""

from pathlib import Path

import polars as pl

from guidelens.config import Home
from guidelens.inference.popularity import read_popularity
from guidelens.inference.search.files import write_search
from guidelens.inference.search.lexicon import HOME_LEXICON, Lexicon
from pipelines.entry import progress


def keep_search(home: Home, items: pl.DataFrame, fit_dir: Path) -> None:
    """search/: the index of words; popularity.json must be there.

    Raises:
        ConfigError: the home's lexicon cannot be read.
    """
    from guidelens.encoders.text import load_text_encoder

    lexicon = Lexicon.load(home.root / HOME_LEXICON)
    write_search(fit_dir, items, read_popularity(fit_dir, len(items)).weights_N, lexicon, load_text_encoder().embed)
    progress(f"train: search knows {len(items):,} products by their words")
