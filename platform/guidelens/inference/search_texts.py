"""What a product can be found by in words: its titles and descriptions in both languages, category, brand, colour, material."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from guidelens.retrieval import TextIndex
from guidelens.schemas.tables import TEXT_DIM

_COLUMNS = ("title", "title_zh", "brand", "colour", "material", "category", "description", "description_zh")


def build_text_index(items: pl.DataFrame) -> TextIndex:
    """An index over the item table; a product's texts are in the order of _COLUMNS, missing ones left out (a missing title_zh is the title)."""
    columns = [items[name].to_list() if name in items.columns else [None] * len(items) for name in _COLUMNS]
    texts = [[text for text in (row[0], row[1] or row[0], *row[2:]) if text] for row in zip(*columns, strict=True)]
    return TextIndex.build(texts, _embeddings(items["text_embedding"]), _embeddings(items["text_zh_embedding"]))


def _embeddings(column: pl.Series) -> NDArray[np.float32]:
    """(N, 512), zeros where missing."""
    rows = [np.zeros(TEXT_DIM, np.float32) if value is None else np.asarray(value, dtype=np.float32) for value in column.to_list()]
    return np.stack(rows) if rows else np.zeros((0, TEXT_DIM), np.float32)
