"""Does search find what shoppers ask for in Chinese and English, across the languages too, and say nothing where the shop has nothing?

    python -m benchmarks.search_quality --data ../shared/data/grocery-store [--part dev|test] [--seed 1001] [--out benchmarks/results]

Queries as shoppers type them (benchmarks/data/search_queries.csv), each in one half by a hash of its text: `dev` to choose with, `test` to report.
Shops: the grocery data set's whole catalogue and a drawn world's. Each is searched with its texts in English alone, in Chinese alone, and in both.
The prior weights rank, so that nothing of a shop is learned; peers in the same run are what they are made of: meaning alone (the multilingual
encoder), words alone, and both without the synonym groups.
"""

import csv
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click
import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks._results import keep, machine, today
from guidelens.config import WorldSize
from guidelens.data.adapters import grocery_store
from guidelens.encoders.text import TextEncoder, load_text_encoder
from guidelens.errors import InputError
from guidelens.inference.content import Content
from guidelens.inference.search.engine import SearchEngine
from guidelens.inference.search.files import build_search
from guidelens.inference.search.filters import FilterTable
from guidelens.inference.search.lexicon import Lexicon, dictionary
from guidelens.inference.search.messages import SearchInput
from guidelens.inference.search.weighing import FEATURES, PRIOR, Weighing, WeighingHeader
from guidelens.models.items import Catalogue
from guidelens.schemas.base import Frozen
from guidelens.schemas.catalog import Product
from guidelens.schemas.search import SearchFilters
from guidelens.world.latents import draw_products
from guidelens.world.parameters import WORLD_V1
from guidelens.world.texts import catalogue
from pipelines.entry import progress, run_command

QUERIES = Path(__file__).parent / "data" / "search_queries.csv"
TOP = 5
Texts = Literal["en", "zh", "both"]
Part = Literal["dev", "test"]
_DIRECTIONS: tuple[tuple[str, Texts], ...] = (("zh", "en"), ("en", "zh"), ("zh", "zh"), ("en", "en"), ("zh", "both"), ("en", "both"))
_WORDS, _MEANING = ("words", "called", "titled", "whole", "exact"), ("title_meaning", "text_meaning")


@dataclass(frozen=True)
class Query:
    shop: str
    language: str
    text: str
    wanted: str


class Row(Frozen):
    """Queries in one language over texts in another, by one way of ranking. recall_at_5: mean of what is wanted among the first five over the
    most that five places hold; first: share whose first result is wanted. unanswered: share of them that got no answer."""

    shop: str
    way: str
    queries_in: str
    texts_in: str
    queries: int
    recall_at_5: float
    first: float
    unanswered: float


class Foreign(Frozen):
    """Queries for what the shop does not have. answered: share that got an answer all the same."""

    shop: str
    texts_in: str
    queries: int
    answered: float


class Quality(Frozen):
    machine: str
    date: str
    command: str
    part: Part
    products: dict[str, int]
    rows: tuple[Row, ...]
    foreign: tuple[Foreign, ...]
    ms_per_query: float
    answered_wrongly: tuple[str, ...]


def part_of(text: str) -> Part:
    return "dev" if hashlib.blake2b(text.encode(), digest_size=8).digest()[0] % 2 == 0 else "test"


def queries(part: Part, path: Path = QUERIES) -> list[Query]:
    with path.open(encoding="utf-8", newline="") as source:
        rows = [Query(row["shop"], row["language"], row["query"], row["wanted"]) for row in csv.DictReader(source)]
    return [row for row in rows if part_of(row.text) == part]


def wanted_rows(query: Query, products: Sequence[Product]) -> set[int]:
    """Rows of the products that a query asks for; `wanted` names them, or says what their category and attributes are."""
    if "=" not in query.wanted:
        names = set(query.wanted.split(";"))
        return {row for row, product in enumerate(products) if product.product_id in names}
    needs = dict(part.split("=") for part in query.wanted.split(";"))
    return {row for row, product in enumerate(products) if all(_has(product, key, value) for key, value in needs.items())}


def _has(product: Product, key: str, value: str) -> bool:
    return product.category == value if key == "category" else product.attributes.get(key, value if value in product.title.split() else None) == value


def items_of(products: Sequence[Product], texts: Texts) -> pl.DataFrame:
    """An item table whose products speak one language, or both."""
    english, chinese = texts != "zh", texts != "en"
    rows = [
        {
            "product_id": product.product_id,
            "title": product.title if english else product.title_zh,
            "title_zh": product.title_zh if chinese else None,
            "description": product.description if english else "",
            "description_zh": product.description_zh if chinese else None,
            "category": product.category if english else "",
            "brand": product.brand if english else None,
            "colour": product.attributes.get("colour") if english else None,
            "material": product.attributes.get("material") if english else None,
            "price_minor": product.price_minor,
            "stock": product.stock,
            "attributes_json": json.dumps(product.attributes),
        }
        for product in products
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def engine(items: pl.DataFrame, lexicon: Lexicon, encoder: TextEncoder, weights: dict[str, float]) -> SearchEngine:
    texts, spelling = build_search(items, np.zeros(len(items), np.float32), lexicon, encoder.embed)
    blank = [
        pl.lit(None).alias(name)
        for name in ("image_embedding", "text_embedding", "text_zh_embedding", "size", "try_on", "width_m", "height_m", "depth_m", "model_3d")
    ]
    content = Content(Catalogue.of_table(items.with_columns(blank).with_columns(pl.col("try_on").cast(pl.String))), np.zeros(len(items), np.float32))
    weighing = Weighing(WeighingHeader(), {"weights": np.array([weights.get(name, 0.0) for name in FEATURES], np.float32)})
    return SearchEngine(texts, spelling, FilterTable(items), weighing, content, encoder.embed)


def measured(found: SearchEngine, asked: Sequence[tuple[Query, set[int]]]) -> tuple[float, float, float]:
    """recall_at_5, first and unanswered of Row; ranking is looked at whether or not the query was answered."""
    recalls, firsts, silent = [], [], 0
    for query, wanted in asked:
        order = ranked(found, query.text)
        recalls.append(len(wanted & set(order[:TOP])) / min(TOP, len(wanted)))
        firsts.append(order[0] in wanted)
        silent += not found.search(SearchInput(query.text, SearchFilters(), TOP, 0)).answered
    return float(np.mean(recalls)), float(np.mean(firsts)), silent / max(1, len(asked))


def ranked(found: SearchEngine, text: str) -> list[int]:
    known = found.evidence(SearchInput(text, SearchFilters(), TOP, 0))
    scores_N = found.weighing.scores(known.features_NF, known.context_C)
    order: NDArray[np.int64] = np.argsort(-scores_N, kind="stable")[:TOP]
    return [int(row) for row in order]


def run(shops: dict[str, Sequence[Product]], part: Part, command: str) -> Quality:
    encoder, lexicon = load_text_encoder(), Lexicon.load()
    no_groups = Lexicon([], lexicon.ignored, dictionary())
    ways = {"all": (lexicon, PRIOR), "without synonym groups": (no_groups, PRIOR)}
    ways |= {"words alone": (lexicon, {name: PRIOR[name] for name in _WORDS}), "meaning alone": (lexicon, {name: PRIOR[name] for name in _MEANING})}
    asked = queries(part)
    rows, foreign, wrong, took = list[Row](), list[Foreign](), list[str](), list[float]()
    for shop, products in shops.items():
        known = [(query, wanted_rows(query, products)) for query in asked if query.shop == shop and query.wanted]
        for query, found in known:
            if not found and shop == "grocery":
                raise InputError(f"{query.text}: must want products of the catalogue, got {query.wanted}")
        for way, (words, weights) in ways.items():
            engines = {texts: engine(items_of(products, texts), words, encoder, weights) for texts in ("en", "zh", "both")}
            for language, texts in _DIRECTIONS:
                here = [(query, wanted) for query, wanted in known if query.language == language and wanted]
                recall, first, silent = measured(engines[texts], here)
                rows.append(Row(shop=shop, way=way, queries_in=language, texts_in=texts, queries=len(here), recall_at_5=recall, first=first, unanswered=silent))
            if way == "all":
                for texts, each in engines.items():
                    others = [query for query in asked if query.shop == shop and not query.wanted]
                    start = time.perf_counter()
                    answered = [query.text for query in others if each.search(SearchInput(query.text, SearchFilters(), TOP, 0)).answered]
                    took.append(1000 * (time.perf_counter() - start) / max(1, len(others)))
                    foreign.append(Foreign(shop=shop, texts_in=texts, queries=len(others), answered=len(answered) / max(1, len(others))))
                    wrong += [f"{shop}, texts in {texts}: {text}" for text in answered]
            progress(f"{shop}: {way} done")
    return Quality(
        machine=machine(), date=today(), command=command, part=part, products={shop: len(products) for shop, products in shops.items()},
        rows=tuple(rows), foreign=tuple(foreign), ms_per_query=float(np.mean(took)), answered_wrongly=tuple(wrong),
    )  # fmt: skip


def world_products(seed: int, num_products: int) -> Sequence[Product]:
    return catalogue(draw_products(num_products, seed), WorldSize(num_products=num_products), seed, WORLD_V1)


def as_markdown(found: Quality) -> str:
    lines = [
        "# Search in Chinese and English",
        "",
        f"`{found.command}`, {found.machine}, {found.date}. The `{found.part}` half of the queries; {found.ms_per_query:.1f} ms a query.",
        "",
        "| shop | ranked by | queries in | texts in | queries | R@5 | first | not answered |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.shop} ({found.products[row.shop]}) | {row.way} | {row.queries_in} | {row.texts_in} | {row.queries} | {row.recall_at_5:.3f} | {row.first:.3f} | {row.unanswered:.3f} |"
        for row in found.rows
    ]
    lines += ["", "| shop | texts in | queries for what it does not have | answered all the same |", "|---|---|---|---|"]
    lines += [f"| {row.shop} | {row.texts_in} | {row.queries} | {row.answered:.3f} |" for row in found.foreign]
    lines += ["", "Answered and should not have been: " + ("; ".join(found.answered_wrongly) or "none") + "."]
    return "\n".join([*lines, ""])


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="The grocery data set.")
@click.option("--part", default="test", show_default=True, type=click.Choice(["dev", "test"]))
@click.option("--seed", default=1001, show_default=True, help="Of the world.")
@click.option("--products", default=240, show_default=True, help="In the world.")
@click.option("--out", default=Path("benchmarks/results"), type=click.Path(file_okay=False, path_type=Path))
def command(data: Path, part: Part, seed: int, products: int, out: Path) -> None:
    """Ask the queries of one half and write benchmarks/results/search_quality.{json,md}."""
    shops = {"grocery": grocery_store.load(data).products, "world": world_products(seed, products)}
    shown = f"python -m benchmarks.search_quality --data DIR --part {part} --seed {seed} --products {products}"
    found = run(shops, part, shown)
    keep(found, as_markdown(found), out, "search_quality")


if __name__ == "__main__":
    run_command(command)
