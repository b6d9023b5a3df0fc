"""Search over a small shop: words in two languages, typos, filters, photos beside words, and silence where the shop has nothing."""

from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from guidelens.encoders.text import TextEncoder, load_text_encoder
from guidelens.errors import BundleError, ConfigError
from guidelens.inference.content import Content
from guidelens.inference.search import files
from guidelens.inference.search.engine import SearchEngine
from guidelens.inference.search.files import build_search, product_vectors, read_search, write_search
from guidelens.inference.search.filters import FilterTable
from guidelens.inference.search.lexicon import Lexicon
from guidelens.inference.search.messages import SearchInput
from guidelens.inference.search.weighing import Weighing
from guidelens.models.items import Catalogue
from guidelens.retrieval import filtered
from guidelens.schemas.search import SearchFilters
from guidelens.schemas.tables import IMAGE_DIM

SHOP = (
    ("Alder Red Oak Chair", "Alder 红色橡木椅子", "furniture/chairs", "Alder", 12900, 3, '{"colour": "red", "material": "oak"}'),
    ("Alder Blue Steel Chair", "Alder 蓝色钢椅子", "furniture/chairs", "Alder", 9900, 0, '{"colour": "blue", "material": "steel"}'),
    ("Brisa Brass Lamp", "Brisa 黄铜台灯", "furniture/lamps", "Brisa", 7900, 5, '{"material": "brass"}'),
    ("Brisa Velvet Sofa", "Brisa 丝绒沙发", "furniture/sofas", "Brisa", 29900, None, "{}"),
    ("Aubergine", "茄子", "food/vegetables", None, None, 4, "{}"),
    ("Banana", "香蕉", "food/fruit", None, 150, 9, "{}"),
    ("Oat Milk", "燕麦奶", "food/milk", "Dune", 250, 7, "{}"),
    ("Apple Juice", "苹果汁", "food/juices", "Dune", 300, 7, "{}"),
)
COLUMNS = ("title", "title_zh", "category", "brand", "price_minor", "stock", "attributes_json")
OAK, STEEL, LAMP, SOFA, AUBERGINE, BANANA, OAT_MILK, JUICE = range(8)


def items(languages: str = "both") -> pl.DataFrame:
    table = pl.DataFrame(SHOP, schema=COLUMNS, orient="row", infer_schema_length=None).with_columns(pl.lit("").alias("description"))
    if languages == "en":
        return table.with_columns(pl.lit(None, pl.String).alias("title_zh"))
    return (
        table.with_columns(pl.col("title_zh").alias("title"), pl.lit("").alias("category"), pl.lit(None, pl.String).alias("brand"))
        if languages == "zh"
        else table
    )


@cache
def encoder() -> TextEncoder:
    return load_text_encoder()


@cache
def lexicon() -> Lexicon:
    return Lexicon.load()


def picture(row: int) -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(row).random(IMAGE_DIM).astype(np.float32)


def content(table: pl.DataFrame) -> Content:
    nulls = ("text_embedding", "text_zh_embedding", "colour", "material", "size", "width_m", "height_m", "depth_m", "model_3d")
    rows = table.with_columns(
        pl.Series("product_id", [f"p-{row}" for row in range(len(table))]),
        pl.Series("image_embedding", [picture(row).tolist() for row in range(len(table))]),
        pl.lit("none").alias("try_on"),
        *(pl.lit(None).alias(name) for name in nulls),
    )
    return Content(Catalogue.of_table(rows), np.zeros(len(table), np.float32))


@cache
def shop(languages: str = "both") -> SearchEngine:
    table = items(languages)
    texts, spelling = build_search(table, np.zeros(len(table), np.float32), lexicon(), encoder().embed)
    return SearchEngine(texts, spelling, FilterTable(table), Weighing(), content(table), encoder().embed)


def first(text: str, languages: str = "both") -> int:
    found = shop(languages).search(SearchInput(text, SearchFilters(), 3, 0))
    return int(found.rows[0]) if found.answered else -1


@pytest.mark.parametrize("languages", ["both", "en", "zh"])
@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("红色的椅子", OAK),
        ("couch", SOFA),
        ("eggplants", AUBERGINE),
        ("长沙发", SOFA),
        ("some oat drink please", OAT_MILK),
        ("苹果汁", JUICE),
        ("blue steel chair", STEEL),
    ],
)
def test_a_shopper_s_words_find_it_whatever_language_the_shop_speaks(text: str, row: int, languages: str) -> None:
    assert first(text, languages) == row


@pytest.mark.parametrize(
    ("text", "meant", "row"), [("bannana", "banana", BANANA), ("香焦", "香蕉", BANANA), ("xiangjiao", "香蕉", BANANA), ("brass lapm", "brass lamp", LAMP)]
)
def test_slips_are_set_right_and_said(text: str, meant: str, row: int) -> None:
    found = shop().search(SearchInput(text, SearchFilters(), 3, 0))
    assert (found.corrected, int(found.rows[0]), found.suggestions[0]) == (meant, row, meant)


@pytest.mark.parametrize("text", ["laptop", "洗衣机", "how do I reset my password", "asdkjh qwoeiu", "今天天气怎么样", "!?", "1234567"])
def test_what_the_shop_does_not_have_is_not_answered(text: str) -> None:
    found = shop().search(SearchInput(text, SearchFilters(), 3, 0))
    assert (found.answered, len(found.rows), found.total, found.corrected) == (False, 0, 0, None)


def test_filters_act_before_the_page_is_cut() -> None:
    for filters, rows in (
        (SearchFilters(category="furniture"), {OAK, STEEL, LAMP, SOFA}),
        (SearchFilters(category="chairs"), {OAK, STEEL}),
        (SearchFilters(brand=("brisa",), in_stock=True), {LAMP, SOFA}),
        (SearchFilters(price_min_minor=150, price_max_minor=300), {BANANA, OAT_MILK, JUICE}),
        (SearchFilters(attributes={"colour": ("red", "blue")}, in_stock=True), {OAK}),
    ):
        found = shop().search(SearchInput("chair", filters, len(rows), 0))
        assert set(found.rows.tolist()) == rows, filters
        assert found.available == len(rows)
    sold = shop().search(SearchInput("chair", SearchFilters(category="chairs", in_stock=True), 2, 0, sold_out=np.array([OAK], np.int32)))
    assert not len(sold.rows)


def test_facets_count_what_was_found_and_pages_follow_on() -> None:
    found = shop().search(SearchInput("chair", SearchFilters(), 8, 0))
    counted = {facet.name: {value.value: value.count for value in facet.values} for facet in found.facets}
    assert (found.total, counted["category"], counted["in_stock"]) == (2, {"furniture/chairs": 2}, {"true": 1, "false": 1})
    assert found.prices is not None and (found.prices.lowest_minor, found.prices.highest_minor) == (9900, 12900)
    pages = [int(shop().search(SearchInput("chair", SearchFilters(), 1, at)).rows[0]) for at in range(8)]
    assert pages == found.rows.tolist()
    assert found.matched[0] and not found.matched[-1], "what only fills the page says so"


def test_a_photo_and_a_colour_in_words_find_the_same_thing_in_that_colour() -> None:
    def ask(text: str | None) -> int:
        seen = SearchInput(text, SearchFilters(), 1, 0, picture(OAK), True, np.array([OAK], np.int32), np.array([0.9], np.float32))
        return int(shop().search(seen).rows[0])

    assert (ask(None), ask("this, but blue"), ask("换成蓝色")) == (OAK, STEEL, STEEL)
    assert ask("how do I pay here") == OAK, "words that mean nothing here do not silence the photo"


def test_a_photo_of_something_else_alone_is_not_answered() -> None:
    assert not shop().search(SearchInput(None, SearchFilters(), 3, 0, picture(99), False)).answered


def test_who_asks_moves_the_order_and_nobody_moves_nothing() -> None:
    def liking(row: int) -> SearchEngine:
        lift = np.zeros(len(SHOP), np.float32)
        lift[row] = 3.0
        known = shop()
        return SearchEngine(known.texts, known.spelling, known.filters, known.weighing, known.content, known.embed, lambda _asked: lift)

    for row in (OAK, STEEL):
        assert int(liking(row).search(SearchInput("chair", SearchFilters(), 1, 0, packed=b"row")).rows[0]) == row
    plain = shop().search(SearchInput("chair", SearchFilters(), 3, 0)).rows.tolist()
    assert all(liking(row).search(SearchInput("chair", SearchFilters(), 3, 0)).rows.tolist() == plain for row in (OAK, STEEL))


def test_a_release_s_files_answer_as_they_were_built_and_a_large_catalogue_goes_by_its_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SCAN_BELOW", 4)
    monkeypatch.setattr(filtered, "SCAN_BELOW", 4)
    table, none = items(), np.zeros(len(SHOP), np.float32)
    write_search(tmp_path, table, none, lexicon(), encoder().embed)
    texts, spelling, weighing, known = read_search(tmp_path, table, none, encoder().embed)
    vectors = product_vectors(tmp_path, table, texts, known, "embedded")
    assert vectors is not None
    large = SearchEngine(texts, spelling, known, weighing, content(table), encoder().embed, vectors=vectors)
    for text in ("红色的椅子", "couch", "laptop"):
        for filters in (SearchFilters(), SearchFilters(category="chairs")):
            asked = SearchInput(text, filters, 2, 0)
            assert large.search(asked).rows.tolist() == shop().search(asked).rows.tolist()
    (tmp_path / "search" / "search_words.json").write_text("{}")
    with pytest.raises(BundleError, match="must hold the words of search"):
        read_search(tmp_path, table, none, encoder().embed)


def test_a_shop_s_own_words_are_known_after_the_next_training(tmp_path: Path) -> None:
    own = tmp_path / "lexicon.yaml"
    own.write_text("groups:\n  - [Brisa velvet sofa, granny's throne, 老佛爷座]\n", encoding="utf-8")
    table = items()
    texts, spelling = build_search(table, np.zeros(len(table), np.float32), Lexicon.load(own), encoder().embed)
    engine = SearchEngine(texts, spelling, FilterTable(table), Weighing(), content(table), encoder().embed)
    assert [int(engine.search(SearchInput(text, SearchFilters(), 1, 0)).rows[0]) for text in ("granny's throne", "老佛爷座")] == [SOFA, SOFA]
    own.write_text("groups: chair")
    with pytest.raises(ConfigError, match="must hold `groups`"):
        Lexicon.load(own)


def test_typing_goes_on_in_characters_and_in_pinyin() -> None:
    spelling = shop().spelling
    assert "Banana" in spelling.completions("ban") and "香蕉" in spelling.completions("xiangj") and "香蕉" in spelling.completions("香")
    assert spelling.completions("") == () and len(spelling.completions("a", 2)) == 2
