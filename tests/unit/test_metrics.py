"""Ranking, calibration and plan metrics against hand counts and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score, roc_auc_score

from guidelens.errors import ContractError, ShapeError
from guidelens.evaluation.calibration import calibration, regression
from guidelens.evaluation.ranking import auc, catalogue_ranks, distinct_relevant, grouped_auc, ranking_rows
from guidelens.evaluation.sequence import edit_similarity, illegal_plans, lengths, match_rows
from guidelens.schemas.steps import MAX_STEPS, STEP_INDEX, PlanContext, base_mask


def test_ndcg_and_recall_of_a_hand_count() -> None:
    ranks = np.array([[0, 2, 11]])
    rows = ranking_rows(ranks, np.array([[True, True, True]]))
    ideal = 1 + 1 / np.log2(3) + 1 / np.log2(4)
    assert rows.ndcg[0] == pytest.approx((1 + 1 / np.log2(4)) / ideal)
    assert rows.recall[0] == pytest.approx(2 / 3)


def test_ndcg_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(40, 50))
    relevant = np.sort(np.argsort(rng.normal(size=(40, 50)), axis=1)[:, :3], axis=1)
    truth = np.zeros((40, 50))
    np.put_along_axis(truth, relevant, 1.0, axis=1)
    ours = ranking_rows(catalogue_ranks(scores, relevant), np.ones((40, 3), dtype=bool)).ndcg
    assert ours.mean() == pytest.approx(ndcg_score(truth, scores, k=10))


def test_equal_scores_rank_like_chance_and_not_by_row_number() -> None:
    ranks = catalogue_ranks(np.zeros((1, 1000)), np.arange(1000)[None])
    assert sorted(ranks[0].tolist()) == list(range(1000))
    assert abs(np.corrcoef(ranks[0], np.arange(1000))[0, 1]) < 0.1


def test_a_padded_place_ranks_past_the_end() -> None:
    assert catalogue_ranks(np.zeros((1, 7)), np.array([[-1]]))[0, 0] == 7


def test_scores_that_are_no_numbers_are_refused_and_not_ranked_first() -> None:
    scores = np.array([[0.1, 0.2, 0.3], [0.1, np.nan, 0.3]])
    with pytest.raises(ContractError, match=r"NaN in 1 of 2 rows"):
        catalogue_ranks(scores, np.array([[0], [0]]))


def test_chunked_ranks_equal_whole_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    scores, rows = rng.integers(0, 5, (30, 20)).astype(float), rng.integers(0, 20, (30, 4))
    whole = catalogue_ranks(scores, rows)
    monkeypatch.setattr("guidelens.evaluation.ranking._MAX_CELLS", 100)
    assert (catalogue_ranks(scores, rows) == whole).all()


def test_a_request_without_anything_relevant_has_no_ndcg() -> None:
    with pytest.raises(ShapeError, match="relevant"):
        ranking_rows(np.zeros((1, 2), dtype=int), np.array([[False, False]]))


def test_a_product_clicked_at_two_places_counts_once() -> None:
    rows, clicked = np.array([[4, 5, 4, -1]]), np.array([[True, False, True, True]])
    assert distinct_relevant(rows, clicked).tolist() == [[True, False, False, False]]


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=40))
def test_auc_agrees_with_scikit_learn(pairs: list[tuple[int, bool]]) -> None:
    scores, labels = np.array([p[0] for p in pairs], dtype=float), np.array([p[1] for p in pairs])
    if labels.all() or not labels.any():
        assert auc(scores, labels) is None
    else:
        assert auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))


def test_grouped_auc_skips_requests_of_one_class_and_weighs_by_size() -> None:
    scores = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 0.0], [1.0, 2.0, 3.0]])
    labels = np.array([[True, False, False], [True, False, False], [False, False, False]])
    shown = np.array([[True, True, True], [True, True, False], [True, True, True]])
    assert grouped_auc(scores, labels, shown) == pytest.approx((3 * 1.0 + 2 * 0.0) / 5)


def test_a_calibrated_forecast_has_no_error_and_a_shifted_one_its_shift() -> None:
    truth = np.repeat(np.linspace(0.05, 0.95, 10), 100)
    assert calibration(truth, truth).ece == pytest.approx(0.0)
    assert calibration(truth + 0.03, truth).ece == pytest.approx(0.03)


def test_calibration_bins_have_equal_mass_and_hold_all_rows() -> None:
    found = calibration(np.random.default_rng(0).random(1000) ** 3, np.zeros(1000))
    assert [b.n for b in found.bins] == [100] * 10


def test_a_constant_forecast_has_one_bin() -> None:
    found = calibration(np.full(50, 0.2), np.arange(50) % 5 == 0)
    assert len(found.bins) == 1
    assert found.ece == pytest.approx(0.0)


def test_regression_is_shown_beside_a_constant() -> None:
    observed = np.array([0.0, 0.5, 1.0])
    found = regression(observed, observed, training_mean=0.5)
    assert (found.mse, found.constant_mse, found.spearman) == (0.0, pytest.approx(1 / 6), pytest.approx(1.0))
    assert regression(np.full(3, 0.5), observed, 0.5).spearman is None


def plan(*names: str) -> np.ndarray:
    return np.array([STEP_INDEX[name] for name in names] + [-1] * (MAX_STEPS - len(names)), dtype=np.int8)


def test_illegal_plans_are_counted_by_product_and_order() -> None:
    milk = base_mask(PlanContext(try_on="none"))
    plans = np.stack([plan("show_info", "show_reviews"), plan("try_on"), plan("show_info", "show_info"), plan("hand_to_human", "show_info"), plan()])
    assert illegal_plans(np.stack([milk] * 5), plans).tolist() == [False, True, True, True, False]


def test_lengths_count_to_the_padding() -> None:
    assert lengths(np.stack([plan("show_info"), plan(), np.arange(8, dtype=np.int8)])).tolist() == [1, 0, 8]


@given(st.lists(st.integers(0, 3), max_size=8), st.lists(st.integers(0, 3), max_size=8))
def test_edit_similarity_is_symmetric_and_1_only_for_equal_plans(a: list[int], b: list[int]) -> None:
    found = edit_similarity(a, b)
    assert found == pytest.approx(edit_similarity(b, a))
    assert 0 <= found <= 1
    assert (found == 1) == (a == b)


def test_edit_similarity_of_a_hand_count() -> None:
    assert edit_similarity([1, 2, 3], [1, 3]) == pytest.approx(2 / 3)
    assert match_rows(plan("show_info", "show_3d")[None], plan("show_info")[None]).tolist() == [0.5]
