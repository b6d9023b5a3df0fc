"""What a release holds for search: the folder `search`, made of the item table when a shop is trained."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from guidelens.config import EMBEDDED
from guidelens.inference.search.filters import FilterTable
from guidelens.inference.search.lexicon import Lexicon
from guidelens.inference.search.spelling import Phrase, Spelling
from guidelens.inference.search.stores import EmbeddedVectors, ProductVectors
from guidelens.inference.search.texts import ProductTexts, SearchTexts
from guidelens.inference.search.weighing import Weighing
from guidelens.retrieval.filtered import SCAN_BELOW, FilteredIndex
from guidelens.schemas.tables import TEXT_DIM

FOLDER, TITLES = "search", "titles.safetensors"
Floats = NDArray[np.float32]
Embed = Callable[[Sequence[str]], Floats]
_BATCH = 256


def product_texts(items: pl.DataFrame) -> list[ProductTexts]:
    """What each product of the item table can be found by in words."""
    names = ("title", "title_zh", "brand", "colour", "material", "category", "description", "description_zh")
    columns = [items[name].to_list() if name in items.columns else [None] * len(items) for name in names]
    return [_texts(*(value or "" for value in row)) for row in zip(*columns, strict=True)]


def simplified(product: ProductTexts, characters: Mapping[str, str]) -> ProductTexts:
    """With simplified Chinese for traditional, as queries are read."""
    table = str.maketrans(dict(characters))
    return ProductTexts(*(tuple(text.translate(table) for text in texts) for texts in product))


def _texts(title: str, title_zh: str, brand: str, colour: str, material: str, category: str, description: str, description_zh: str) -> ProductTexts:
    levels = [level.replace("-", " ").replace("_", " ") for level in category.split("/")]
    return ProductTexts(_there(title, title_zh), _there(brand, colour, material, *levels), _there(description, description_zh))


def _there(*texts: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for text in texts if text))


def write_search(folder: Path, items: pl.DataFrame, popularity_N: NDArray[np.float32], lexicon: Lexicon, embed: Embed) -> None:
    """`folder`/search without weights, which are learned later."""
    texts, spelling = build_search(items, popularity_N, lexicon, embed)
    texts.save(folder / FOLDER)
    spelling.save(folder / FOLDER)
    (folder / FOLDER / TITLES).unlink(missing_ok=True)
    if len(items) > SCAN_BELOW:
        FilteredIndex.build(texts.nominating).save(folder / FOLDER / TITLES)


def build_search(items: pl.DataFrame, popularity_N: NDArray[np.float32], lexicon: Lexicon, embed: Embed) -> tuple[SearchTexts, Spelling]:
    products = [simplified(product, lexicon.simplified) for product in product_texts(items)]
    vectors = [_vectors(items, name) for name in ("text_embedding", "text_zh_embedding") if name in items.columns]
    texts = SearchTexts.build(products, lexicon, lambda each: _embedded(each, embed), [matrix for matrix in vectors if matrix.any()])
    phrases = [Phrase(text=title, weight=float(weight)) for product, weight in zip(products, popularity_N, strict=True) for title in product.titles]
    leaves = {name for product in products for name in product.names}
    phrases += [Phrase(text=name, weight=float(popularity_N.max(initial=0)) + 1) for name in sorted(leaves)]
    return texts, Spelling.build([product.titles for product in products], [product.names for product in products], phrases, lexicon)


def read_search(folder: Path, items: pl.DataFrame, popularity_N: NDArray[np.float32], embed: Embed) -> tuple[SearchTexts, Spelling, Weighing, FilterTable]:
    """What `write_search` wrote; made anew, with the package's words and weights, for a release of an earlier GuideLens.

    Raises:
        BundleError: it is damaged.
    """
    place = folder / FOLDER
    table = FilterTable(items)
    if not place.is_dir():
        return *build_search(items, popularity_N, Lexicon.load(), embed), Weighing(), table
    return SearchTexts.load(place), Spelling.load(place), Weighing.load(place), table


def product_vectors(folder: Path, items: pl.DataFrame, texts: SearchTexts, table: FilterTable, where: str) -> ProductVectors | None:
    """What a large catalogue is looked through by; None for one whose products are all compared.

    Args:
        where: "embedded", or the address of a PostgreSQL with pgvector, which is filled where it does not hold this release yet.

    Raises:
        BundleError: the release's index is damaged.
        ConfigError: there is no such database.
    """
    if where != EMBEDDED:
        from guidelens.inference.search.pgvector import PgVectors

        name = f"titles_{hashlib.blake2b(texts.nominating.tobytes(), digest_size=8).hexdigest()}"
        stored = PgVectors.open(where, name, items, texts.nominating.shape[1])
        stored.fill(texts.nominating)
        return stored
    path = folder / FOLDER / TITLES
    return EmbeddedVectors(FilteredIndex.load(path), table) if path.exists() else None


def _embedded(texts: Sequence[str], embed: Embed) -> Floats:
    parts = [embed(texts[start : start + _BATCH]) for start in range(0, len(texts), _BATCH)]
    return np.concatenate(parts) if parts else np.zeros((0, TEXT_DIM), np.float32)


def _vectors(items: pl.DataFrame, name: str) -> Floats:
    """(N, 512), zeros where missing."""
    rows = [np.zeros(TEXT_DIM, np.float32) if value is None else np.asarray(value, np.float32) for value in items[name].to_list()]
    return np.stack(rows) if rows else np.zeros((0, TEXT_DIM), np.float32)
