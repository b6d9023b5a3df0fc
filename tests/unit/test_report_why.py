"""Sections about reasons, chances and complements: measured on made-up rows, and shown."""

from pathlib import Path

import numpy as np
import pytest
from fit_samples import write_fit
from model_samples import NUM_PRODUCTS, sample_catalogue, sample_examples, sample_items

from guidelens.evaluation.explanations import ORDERS, measure_explanations
from guidelens.evaluation.guide import Draws
from guidelens.evaluation.partners import baselines, held_out_gains, measure_partners, partner_scores, truth_gains
from guidelens.evaluation.report import Report, read_report, write_report
from guidelens.inference.scorer import GuideScorer
from guidelens.models.complements import Partners
from guidelens.models.engaged_pairs import Pairs, category_numbers
from pipelines.measure_why import measure_probabilities

DRAWS = Draws(20, 0)
CATEGORY_N = category_numbers([f"things/kind{i % 3}" for i in range(NUM_PRODUCTS)])
ACROSS_NN = CATEGORY_N[:, None] != CATEGORY_N[None]


def of_next_kind() -> Partners:
    """Each product's partners are the four of the next kind, in order."""
    rows = np.array([[row for row in range(NUM_PRODUCTS) if row % 3 == (of % 3 + 1) % 3] for of in range(NUM_PRODUCTS)], dtype=np.int32)
    return Partners(rows, np.ones(rows.shape, dtype=np.float32))


def test_partners_that_are_what_was_engaged_with_beat_chance_and_the_truth_is_scored() -> None:
    anchor = np.arange(NUM_PRODUCTS)
    held_out = Pairs(anchor, of_next_kind().rows_NK[:, 0].astype(np.int64), np.ones(NUM_PRODUCTS))
    truth_NN = ((np.arange(NUM_PRODUCTS) % 3)[None] == (np.arange(NUM_PRODUCTS) % 3)[:, None] + 1).astype(np.float64)
    found = measure_partners(of_next_kind(), baselines(sample_catalogue(), np.zeros(NUM_PRODUCTS)), held_out, CATEGORY_N, truth_NN, DRAWS)
    assert found is not None
    assert found.model.held_out.value == pytest.approx(1.0)
    assert found.model.truth == pytest.approx(1.0)
    assert found.baselines["popular"].held_out.value < 0.6
    assert found.gain_over["popular"].low > 0
    assert found.products_with_partners == NUM_PRODUCTS
    none = Pairs(anchor[:0], anchor[:0], np.zeros(0))
    assert measure_partners(of_next_kind(), {}, none, CATEGORY_N, None, DRAWS) is None


def test_held_out_gains_count_ties_half_and_truth_ignores_the_own_category() -> None:
    scores = np.zeros((NUM_PRODUCTS, NUM_PRODUCTS))
    pair = Pairs(np.array([0]), np.array([1]), np.ones(1))
    assert held_out_gains(scores, pair, ACROSS_NN)[0] == pytest.approx(1 / np.log2(3.5 + 2)), "eight products tie: rank 3.5 on average"
    scores[0, 3] = 9.0
    assert held_out_gains(scores, pair, ACROSS_NN)[0] == pytest.approx(1 / np.log2(5.5)), "3 is of 0's own kind"
    own = (CATEGORY_N[:, None] == CATEGORY_N[None]).astype(np.float64)
    one = own.copy()
    one[0, 1] = 1.0
    scores[0, 1] = 1.0
    assert truth_gains(scores[:1], one[:1], ACROSS_NN[:1])[0] == pytest.approx(1.0)
    assert partner_scores(of_next_kind())[0, [1, 4, 7, 10, 2]].tolist() == [4.0, 3.0, 2.0, 1.0, 0.0]


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> GuideScorer:
    return GuideScorer.load(write_fit(tmp_path_factory.mktemp("fit")))


def test_the_deletion_test_tells_faithful_orders_from_others(scorer: GuideScorer) -> None:
    found = measure_explanations(scorer, sample_examples(60), sample_items()["title"].to_list(), DRAWS)
    assert found is not None
    assert set(found.area) == set(ORDERS)
    assert found.area["occlusion"].value > found.area["least"].value
    assert found.first["occlusion"].value > found.first["random"].value > found.first["least"].value
    assert found.true_reasons is None or 0.5 < found.true_reasons.value <= 1.0
    assert all(one.low <= one.median <= one.high for one in found.inputs)
    assert any(one.visits for one in found.examples) and all(one.attention.keys() == one.effects.keys() for one in found.examples)
    assert all(abs(one.visits[0].effect) >= abs(one.visits[-1].effect) for one in found.examples if one.visits)
    again = measure_explanations(scorer, sample_examples(60), sample_items()["title"].to_list(), DRAWS)
    assert again == found


def test_the_sections_are_written_and_shown(scorer: GuideScorer, tmp_path: Path) -> None:
    rows = sample_examples(60)
    truth = ACROSS_NN.astype(np.float64)
    held_out = Pairs(np.array([0, 1]), np.array([1, 2]), np.ones(2))
    report = Report(source="world", seed=1).with_sections(
        probabilities=measure_probabilities(scorer, rows),
        explanations=measure_explanations(scorer, rows, sample_items()["title"].to_list(), DRAWS),
        complements=measure_partners(of_next_kind(), baselines(sample_catalogue(), np.ones(NUM_PRODUCTS)), held_out, CATEGORY_N, truth, DRAWS),
    )
    path = write_report(report, tmp_path)
    assert read_report(path) == report
    page = path.with_suffix(".html").read_text()
    for words in ("Reasons", "Chances", "What goes with what", "attention", "calibration error before"):
        assert words in page
    metrics = report.metrics()
    assert {"test/click_ece_before", "test/explanation_area_occlusion", "test/partners_truth_ndcg_at_10"} <= set(metrics)
