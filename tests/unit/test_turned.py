"""A second look at frames that the recognizer is not sure of."""

import numpy as np

from guidelens.models.recognizer import Recognition
from guidelens.models.turned import is_unsure, together, turns


def look(row: int, confidence: float, margin: float) -> Recognition:
    return Recognition(margin >= 0, np.array([row, 99]), np.array([confidence, 0.01], np.float32), margin=margin)


def test_turns_are_the_other_three_ways_a_phone_is_held() -> None:
    square = np.random.default_rng(7).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    turned = turns(square)
    assert turned.shape == (3, 6, 6, 3)
    assert len({each.tobytes() for each in (square, *turned)}) == 4
    assert np.array_equal(np.rot90(turned[2], 1), square)


def test_all_looks_answer_together_and_the_frame_as_taken_weighs_most() -> None:
    found = together([look(3, 0.4, -2.0), look(7, 0.8, 1.0), look(3, 0.2, -2.0), look(4, 0.4, 1.0)])
    assert found.product_rows.tolist() == [3, 7]
    assert np.allclose(found.confidences, [(2 * 0.4 + 0.2) / 5, 0.8 / 5])
    assert (found.in_catalogue, found.margin) == (False, -0.8)
    assert int(together([look(3, 0.4, 1.0), look(7, 0.9, 1.0), look(7, 0.9, 1.0), look(4, 0.4, 1.0)]).product_rows[0]) == 7
    assert together([look(3, 0.3, 1.0), look(7, 0.8, 1.0)]).in_catalogue


def test_only_unsure_frames_get_a_second_look() -> None:
    assert is_unsure(look(3, 0.49, 1.0)) and not is_unsure(look(3, 0.5, -1.0))
    assert not is_unsure(Recognition(False, np.zeros(0, np.int64), np.zeros(0, np.float32)))
