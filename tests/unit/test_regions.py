"""Several products in a frame: which crops are kept, where, and when none is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from guidelens.models.recognizer import Recognition
from guidelens.models.regions import CROPS, RegionConfig, cropped, overlap, regions

CONFIG = RegionConfig()
LEFT, RIGHT, TOP, BOTTOM, TOP_LEFT, TOP_RIGHT, BOTTOM_LEFT, BOTTOM_RIGHT = range(8)
UNLIKE = np.eye(8, dtype=np.float32)


def look(row: int, confidence: float, in_catalogue: bool = True) -> Recognition:
    return Recognition(in_catalogue, np.array([row, 99]), np.array([confidence, 0.01], np.float32))


def looks(**of: tuple[int, float]) -> list[Recognition]:
    """Of all crops, those that are not named unsure of product 50."""
    named = {globals()[name.upper()]: each for name, each in of.items()}
    return [look(*named.get(place, (50, 0.2))) for place in range(len(CROPS))]


def found(whole: Recognition, each: list[Recognition], embeddings: NDArray[np.float32] = UNLIKE) -> list[tuple[int, tuple[float, ...]]]:
    return [(region.row, region.box) for region in regions(whole, each, embeddings, CONFIG)]


def test_two_halves_are_two_regions_and_the_frame_s_own_answer_comes_first() -> None:
    each = looks(left=(3, 0.9), right=(7, 0.8))
    assert found(look(7, 0.5), each) == [(7, CROPS[RIGHT]), (3, CROPS[LEFT])]
    assert found(look(4, 0.5), each) == [(3, CROPS[LEFT]), (7, CROPS[RIGHT])]


def test_four_quarters_are_four_regions() -> None:
    each = looks(top_left=(1, 0.9), top_right=(2, 0.8), bottom_left=(3, 0.7), bottom_right=(4, 0.65))
    assert [row for row, _ in found(look(9, 0.3), each)] == [1, 2, 3, 4]


def test_a_region_grows_over_what_shows_its_product_but_not_into_another() -> None:
    each = looks(top_left=(1, 0.9), left=(1, 0.7), top=(1, 0.7), right=(2, 0.8))
    assert found(look(1, 0.3), each) == [(1, CROPS[LEFT]), (2, CROPS[RIGHT])]


@pytest.mark.parametrize(
    ("each", "embeddings"),
    [
        (looks(left=(3, 0.9)), UNLIKE),
        (looks(left=(3, 0.9), right=(3, 0.9)), UNLIKE),
        (looks(left=(3, 0.9), right=(7, 0.59)), UNLIKE),
        (looks(left=(3, 0.9), top=(7, 0.9)), UNLIKE),
        (looks(left=(3, 0.9), right=(7, 0.9)), np.ones((8, 8), np.float32)),
        ([look(place, 0.9, in_catalogue=place == LEFT) for place in range(8)], UNLIKE),
    ],
    ids=["one", "one product twice", "one is unsure", "they overlap", "they look alike", "one is of no catalogue"],
)
def test_nothing_is_told_apart_where_two_products_are_not_surely_there(each: list[Recognition], embeddings: NDArray[np.float32]) -> None:
    assert found(look(3, 0.9), each, embeddings) == []


def test_a_recognizer_without_a_product_finds_no_region() -> None:
    nothing = Recognition(False, np.zeros(0, np.int64), np.zeros(0, np.float32))
    assert regions(nothing, [nothing] * len(CROPS), UNLIKE, CONFIG) == ()


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 1, width=32)), min_size=8, max_size=8), st.integers(0, 3))
def test_regions_are_of_different_products_and_never_overlap(each: list[tuple[int, float]], whole: int) -> None:
    answered = regions(look(whole, 0.5), [look(row, confidence) for row, confidence in each], UNLIKE, CONFIG)
    assert len(answered) != 1 and len({region.row for region in answered}) == len(answered)
    assert all(region.confidence >= CONFIG.min_confidence for region in answered)
    assert all(overlap(one.box, other.box) == 0 for one in answered for other in answered if one is not other)


def test_crops_cut_what_their_box_says_of_any_frame() -> None:
    frame = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    assert np.array_equal(cropped(frame, CROPS[BOTTOM_RIGHT]), frame[2:, 3:])
    assert all(cropped(frame[:1, :1], box).shape == (1, 1, 3) for box in CROPS)
