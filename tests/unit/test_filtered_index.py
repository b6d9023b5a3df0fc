"""Nearest vectors under filters of any selectivity, as vectors come and go."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from guidelens.errors import BundleError, ShapeError
from guidelens.retrieval import filtered
from guidelens.retrieval.filtered import FilteredIndex

Floats = NDArray[np.float32]
NUM, WIDTH, TOP = 6000, 24, 100


@pytest.fixture(scope="module")
def vectors() -> Floats:
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(60, WIDTH))
    drawn = centres[rng.integers(0, 60, NUM)] + 0.6 * rng.normal(size=(NUM, WIDTH))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(params=[100_000, 1500], ids=["one segment", "four segments"])
def walking(vectors: Floats, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> FilteredIndex:
    monkeypatch.setattr(filtered, "SCAN_BELOW", 400)
    monkeypatch.setattr(filtered, "SEGMENT_ROWS", request.param)
    return FilteredIndex.build(vectors)


def recall(index: FilteredIndex, vectors: Floats, allowed: NDArray[np.bool_], num_queries: int = 40) -> float:
    rng, shares = np.random.default_rng(4), []
    rows = np.flatnonzero(allowed)
    for _ in range(num_queries):
        query = vectors[rng.integers(len(vectors))] + 0.1 * rng.normal(size=WIDTH).astype(np.float32)
        best = rows[np.argsort(-(vectors[rows] @ query), kind="stable")[:TOP]]
        found, cosines = index.search(query, TOP, allowed)
        assert len(found) == min(TOP, len(rows))
        assert allowed[found].all() and (np.diff(cosines) <= 0).all()
        shares.append(len(np.intersect1d(found, best)) / len(best))
    return float(np.mean(shares))


@pytest.mark.parametrize("share", [1.0, 0.5, 0.1, 0.03, 0.004])
def test_the_best_are_found_under_a_filter_of_any_selectivity(walking: FilteredIndex, vectors: Floats, share: float) -> None:
    assert recall(walking, vectors, np.random.default_rng(5).random(NUM) < share) >= 0.99


def test_a_filter_that_goes_against_the_query_still_fills_the_page(walking: FilteredIndex, vectors: Floats) -> None:
    """Only what is far from the query is allowed, so that a walk near it meets none of them."""
    query = vectors[0]
    allowed = (vectors @ query) < np.quantile(vectors @ query, 0.3)
    found, _ = walking.search(query, TOP, allowed)
    rows = np.flatnonzero(allowed)
    best = rows[np.argsort(-(vectors[rows] @ query), kind="stable")[:TOP]]
    assert len(np.intersect1d(found, best)) == TOP


def test_what_comes_is_found_and_what_goes_is_not(walking: FilteredIndex, vectors: Floats) -> None:
    rng = np.random.default_rng(6)
    gone = rng.choice(NUM, NUM // 4, replace=False)
    walking.remove(gone)
    assert len(walking) == NUM - len(gone)
    left = np.ones(NUM, np.bool_)
    left[gone] = False
    assert recall(walking, vectors, left) >= 0.99
    new = rng.normal(size=WIDTH).astype(np.float32)
    walking.add(np.array([NUM + 5, gone[0]]), np.stack([new, -new]))
    assert walking.search(new, 1)[0].tolist() == [NUM + 5]
    assert walking.search(-new, 1)[0].tolist() == [gone[0]]
    walking.add(np.array([gone[0]]), new[None])
    assert walking.search(-new, 1)[0].tolist() != [gone[0]], "a row that is given anew is where it is now"


def test_all_that_is_wanted_may_have_come_last(walking: FilteredIndex, vectors: Floats) -> None:
    """New rows share a segment, whatever is near them: it is asked for more than its share."""
    rng = np.random.default_rng(7)
    kind = vectors[0] + 0.15 * rng.normal(size=(300, WIDTH)).astype(np.float32)
    kind /= np.linalg.norm(kind, axis=1, keepdims=True)
    for start in range(0, 300, 100):
        walking.add(np.arange(NUM + start, NUM + start + 100), kind[start : start + 100])
    every = np.concatenate([vectors, kind])
    shares = [len(np.intersect1d(walking.search(query, TOP)[0], np.argsort(-(every @ query))[:TOP])) / TOP for query in kind[:20]]
    assert np.mean(shares) >= 0.99


def test_a_saved_index_answers_alike_and_a_damaged_one_says_so(walking: FilteredIndex, vectors: Floats, tmp_path: Path) -> None:
    walking.remove(np.arange(50))
    walking.save(tmp_path / "v.safetensors")
    loaded = FilteredIndex.load(tmp_path / "v.safetensors")
    for query in vectors[:10]:
        assert loaded.search(query, 20)[0].tolist() == walking.search(query, 20)[0].tolist()
    (tmp_path / "v.0.usearch").unlink()
    with pytest.raises(BundleError, match="must hold a graph of an index"):
        FilteredIndex.load(tmp_path / "v.safetensors")


def test_shapes_that_cannot_be_are_refused() -> None:
    index = FilteredIndex(4)
    for rows, given in (([0, 0], np.ones((2, 4))), ([0], np.ones((1, 3))), ([0], np.full((1, 4), np.nan))):
        with pytest.raises(ShapeError):
            index.add(np.array(rows), given.astype(np.float32))
    assert index.search(np.ones(4, np.float32), 3)[0].tolist() == []
