"""The queries that search is measured on: enough of them, each about products there are, and dealt to two halves by their text alone."""

import csv
from importlib import resources

from benchmarks.search_quality import part_of, queries, wanted_rows
from guidelens.schemas.catalog import Product


def groceries() -> list[Product]:
    text = resources.files("guidelens.data.adapters").joinpath("grocery_store_zh.csv").read_text(encoding="utf-8")
    return [Product(product_id=row["product_id"], title=row["product_id"], category="food") for row in csv.DictReader(text.splitlines())]


def test_every_grocery_is_asked_for_in_both_languages() -> None:
    products = groceries()
    for language in ("en", "zh"):
        asked = [query for part in ("dev", "test") for query in queries(part) if (query.shop, query.language) == ("grocery", language) and query.wanted]
        assert all(wanted_rows(query, products) for query in asked)
        assert set.union(*(wanted_rows(query, products) for query in asked)) == set(range(len(products)))


def test_the_halves_share_nothing_and_each_has_over_a_hundred() -> None:
    dev, test = ({(query.shop, query.text) for query in queries(part) if query.wanted} for part in ("dev", "test"))
    assert not dev & test and min(len(dev), len(test)) > 100
    assert part_of("aubergines") == part_of("aubergines")
