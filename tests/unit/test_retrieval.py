"""Search by vector and by words, in Chinese and English."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from guidelens.encoders.text import TextEncoder, load_text_encoder
from guidelens.errors import BundleError, ShapeError
from guidelens.retrieval import TextIndex, VectorIndex

SHOP = [
    ["Red Delicious apple", "红蛇果", "Fruit/Apple", "A sweet red apple, crisp."],
    ["Granny Smith apple", "青苹果", "Fruit/Apple", "A sour green apple for baking."],
    ["Oat milk 1 litre", "燕麦奶", "Packages/Milk", "A drink made of oats, without lactose."],
    ["Whole milk 3%", "全脂牛奶", "Packages/Milk", "Fresh milk of cows, 3 percent fat."],
    ["Steel desk lamp", "钢制台灯", "Home/Lighting", "A lamp for reading at night."],
    ["Running shoes size 42", "跑步鞋 42码", "Shoes/Sport", "Light shoes for long runs."],
    ["Running shoes size 43", "跑步鞋 43码", "Shoes/Sport", "Light shoes for long runs."],
]


@cache
def encoder() -> TextEncoder:
    return load_text_encoder()


@cache
def shop() -> TextIndex:
    english = encoder().embed([f"{texts[0]}. {texts[3]}" for texts in SHOP])
    return TextIndex.build(SHOP, english, encoder().embed([texts[1] for texts in SHOP]))


def ask(index: TextIndex, query: str, k: int = 5) -> tuple[list[int], list[float]]:
    rows, relevance = index.search(query, encoder().embed([query])[0], k)
    return rows.tolist(), relevance.tolist()


@pytest.mark.parametrize(
    ("query", "row"),
    [
        ("red apple", 0),
        ("sour apples for baking", 1),
        ("青苹果", 1),
        ("不含乳糖的燕麦饮料", 2),
        ("牛奶", 3),
        ("something to read by at night", 4),
        ("台灯", 4),
        ("running shoe 43", 5 + 1),
        ("４２码跑步鞋", 5),
        ("GRANNY  smith", 1),
    ],
)
def test_a_query_in_either_language_finds_its_product_first(query: str, row: int) -> None:
    assert ask(shop(), query)[0][0] == row


def test_a_number_tells_apart_products_of_one_series() -> None:
    texts = [[f"Thing {number}", f"物品{number}号", "things"] for number in range(12)]
    titles = encoder().embed([names[0] for names in texts])
    index = TextIndex.build(texts, titles, encoder().embed([names[1] for names in texts]))
    for number in range(12):
        assert ask(index, f"物品{number}号")[0][0] == number
        assert ask(index, f"{number}号物品")[0][0] == number
        assert ask(index, f"thing {number}")[0][0] == number


def test_relevance_is_one_for_a_title_high_for_a_match_and_low_for_something_else() -> None:
    rows, relevance = ask(shop(), "Oat milk 1 litre")
    assert (rows[0], relevance[0]) == (2, 1.0)
    assert relevance[1] < 0.9
    assert ask(shop(), "oat milk")[1][0] > 0.7
    for nonsense in ("quarterly tax declaration", "发动机机油滤清器", "xqzzt", "?!"):
        assert max(ask(shop(), nonsense)[1], default=0) < 0.35
    for query in ("red", "鞋", "milk without lactose please", ""):
        assert all(0 <= value <= 1 for value in ask(shop(), query)[1])
        assert ask(shop(), query)[1] == sorted(ask(shop(), query)[1], reverse=True)


def test_words_alone_are_enough() -> None:
    rows, _ = shop().search("台灯", None, 3)
    assert rows.tolist() == [4]


def test_a_saved_text_index_answers_alike(tmp_path: Path) -> None:
    shop().save(tmp_path / "texts")
    loaded = TextIndex.load(tmp_path / "texts")
    for query in ("red apple", "牛奶", "nothing like it"):
        assert ask(loaded, query) == ask(shop(), query)
    assert sorted(path.suffix for path in (tmp_path / "texts").iterdir()) == [".json", ".safetensors"]
    with pytest.raises(BundleError, match="text index"):
        TextIndex.load(tmp_path)


def test_an_empty_shop_has_no_answer() -> None:
    rows, relevance = TextIndex.build([]).search("apple", None, 5)
    assert (len(rows), len(relevance)) == (0, 0)


def vectors(count: int) -> np.ndarray:
    drawn = np.random.default_rng(0).normal(size=(count, 16)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def test_the_vector_index_finds_what_a_full_comparison_finds(tmp_path: Path) -> None:
    stored = vectors(500)
    VectorIndex.build(stored).save(tmp_path / "index.usearch")
    index = VectorIndex.load(tmp_path / "index.usearch")
    for query in vectors(20):
        rows, scores = index.search(query, 10)
        expected = np.argsort(-(stored @ query), kind="stable")[:10]
        assert rows.tolist() == expected.tolist()
        assert np.abs(scores - stored[expected] @ query).max() < 1e-5


def test_the_vector_index_gives_fewer_where_there_are_fewer_and_refuses_other_widths(tmp_path: Path) -> None:
    index = VectorIndex.build(vectors(3))
    assert len(index.search(vectors(1)[0], 10)[0]) == 3
    with pytest.raises(ShapeError):
        index.search(np.zeros(4, np.float32), 1)
    with pytest.raises(BundleError):
        VectorIndex.load(tmp_path / "none.usearch")


def shapes() -> dict[str, np.ndarray]:
    """Vectors that one walk finds and the other misses: of unequal length, and with a bias that outweighs the rest."""
    rng = np.random.default_rng(1)
    unequal = rng.normal(size=(3000, 16)) * rng.uniform(0.2, 2.0, (3000, 1))
    biased = np.concatenate([0.4 * rng.normal(size=(3000, 15)), rng.normal(-3, 1, (3000, 1))], axis=1)
    return {"unequal": unequal.astype(np.float32), "biased": biased.astype(np.float32)}


@pytest.mark.parametrize("name", ["unequal", "biased"])
def test_a_large_index_is_searched_in_a_way_that_finds_nearly_all(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("guidelens.retrieval.vectors.EXACT_BELOW", 0)
    stored, rng = shapes()[name], np.random.default_rng(2)
    queries = np.concatenate([rng.normal(size=(120, 15)), np.ones((120, 1))], axis=1).astype(np.float32)
    VectorIndex.build(stored, queries[:60]).save(tmp_path / "index.usearch")
    index, shares = VectorIndex.load(tmp_path / "index.usearch"), []
    for query in queries[60:]:
        rows, scores = index.search(query, 50)
        assert scores == pytest.approx(stored[rows] @ query, abs=1e-3)
        shares.append(len(np.intersect1d(rows, np.argsort(-(stored @ query))[:50])) / 50)
    assert np.mean(shares) >= 0.98
    assert index.facts.walk == "all" or (index.facts.recall or 0) >= 0.99


def test_where_no_walk_finds_enough_all_vectors_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guidelens.retrieval.vectors.EXACT_BELOW", 0)
    monkeypatch.setattr("guidelens.retrieval.vectors.TARGET_RECALL", 1.01)
    index = VectorIndex.build(vectors(300))
    assert index.facts.walk == "all"
    assert index.search(vectors(1)[0], 300)[0].tolist() == np.argsort(-(vectors(300) @ vectors(1)[0]), kind="stable").tolist()


def test_an_index_that_does_not_say_how_it_is_searched_is_refused(tmp_path: Path) -> None:
    VectorIndex.build(vectors(3)).save(tmp_path / "index.usearch")
    (tmp_path / "index.json").unlink()
    with pytest.raises(BundleError, match="release again"):
        VectorIndex.load(tmp_path / "index.usearch")
