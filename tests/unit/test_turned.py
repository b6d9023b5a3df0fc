"""A second look at frames that the recognizer is not sure of."""

import numpy as np

from guidelens.models.recognizer import Recognition
from guidelens.models.turned import is_unsure, surest, turns


def look(row: int, confidence: float, margin: float) -> Recognition:
    return Recognition(margin >= 0, np.array([row, 99]), np.array([confidence, 0.01], np.float32), margin=margin)


def test_turns_are_the_other_three_ways_a_phone_is_held() -> None:
    square = np.random.default_rng(7).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    turned = turns(square)
    assert turned.shape == (3, 6, 6, 3)
    assert len({each.tobytes() for each in (square, *turned)}) == 4
    assert np.array_equal(np.rot90(turned[2], 1), square)


def test_the_surest_look_answers_and_all_of_them_say_whether_it_is_in_the_catalogue() -> None:
    place, found = surest([look(3, 0.3, -2.0), look(7, 0.8, 1.0), look(3, 0.2, -2.0), look(4, 0.4, -1.0)])
    assert (place, int(found.product_rows[0]), found.in_catalogue, found.margin) == (1, 7, False, -1.0)
    assert surest([look(3, 0.3, 1.0), look(7, 0.8, 1.0)])[1].in_catalogue


def test_only_unsure_frames_get_a_second_look() -> None:
    assert is_unsure(look(3, 0.49, 1.0)) and not is_unsure(look(3, 0.5, -1.0))
    assert not is_unsure(Recognition(False, np.zeros(0, np.int64), np.zeros(0, np.float32)))
