"""What benchmarks.recognition counts, on answers written by hand."""

import numpy as np
import pytest

from benchmarks.recognition import FROZEN, HEADS, NEAREST, TUNED, Answers, NewAnswers, measured, measured_new

FAMILY_OF = np.array([0, 0, 1])


def test_shares_are_by_product_and_by_family_and_the_gain_is_tuned_over_frozen() -> None:
    truth = np.array([0, 0, 1, 2])
    answers = {FROZEN: np.array([1, 2, 1, 2]), HEADS: np.array([0, 1, 0, 0]), TUNED: np.array([0, 0, 1, 0])}
    found = measured([Answers(truth, answers, np.array([0, 0, 0, 0]), 3.0), Answers(truth, answers, np.array([0, 0, 0, 1]), 5.0)], FAMILY_OF)
    assert found.photos == 8
    assert [found.of[name].fine.value for name in (FROZEN, HEADS, TUNED)] == pytest.approx([0.5, 0.25, 0.75])
    assert [found.of[name].coarse.value for name in (FROZEN, HEADS, TUNED)] == pytest.approx([0.75, 0.75, 0.75])
    assert found.gain.value == pytest.approx(0.25)
    assert found.family_head.value == pytest.approx(0.875)
    assert found.seconds == 4.0


def test_new_products_are_counted_apart_from_the_others() -> None:
    truth, is_new = np.array([2, 2, 0]), np.array([True, True, False])
    answers = np.array([[2, 0], [1, 2], [1, 2]])
    found = measured_new([NewAnswers(truth, is_new, dict.fromkeys((NEAREST, FROZEN, TUNED), answers))])
    assert (found.products, found.photos) == (1, 2)
    assert (found.new[TUNED].top1.value, found.new[TUNED].top5.value) == (0.5, 1.0)
    assert (found.others[TUNED].top1.value, found.others[TUNED].top5.value) == (0.0, 0.0)
    assert NEAREST not in found.others
