"""The first place's clicks from logged propensities: what another ranker would get there, and when the log cannot tell."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from fit_samples import write_fit
from model_samples import NUM_PRODUCTS, sample_examples

from guidelens.data.examples import Examples
from guidelens.evaluation.first_place import logged_first_places, measure_first_place, serving_chances, why_no_first_place
from guidelens.evaluation.offpolicy import estimates
from guidelens.inference.scorer import GuideScorer

CLICKS_N = np.linspace(0.02, 0.4, NUM_PRODUCTS)


def evenly_shown(seed: int, num_rows: int = 4000) -> Examples:
    """Slates in random order, whose first product is clicked by CLICKS_N."""
    rng = np.random.default_rng(seed)
    rows = sample_examples(num_rows, seed)
    slate_rows = np.argsort(rng.random((num_rows, NUM_PRODUCTS)), axis=1)[:, : rows.slate_rows.shape[1]].astype(np.int32)
    click = np.zeros(slate_rows.shape, np.float32)
    click[:, 0] = rng.random(num_rows) < CLICKS_N[slate_rows[:, 0]]
    propensity = np.full(slate_rows.shape, 1 / NUM_PRODUCTS, np.float32)
    shopper_key = np.array([f"k-{row}" for row in range(num_rows)], dtype=object)
    return dataclasses.replace(rows, slate_rows=slate_rows, click=click, propensity=propensity, shopper_key=shopper_key)


def test_the_log_of_one_ranker_tells_what_another_ones_first_place_gets() -> None:
    target_RN = serving_chances(np.broadcast_to(np.arange(NUM_PRODUCTS) / 4, (4000, NUM_PRODUCTS)), 0.5)
    truth = float(target_RN[0] @ CLICKS_N)
    found = [{one.estimator: one for one in estimates(logged_first_places(evenly_shown(seed), target_RN), seed=0)} for seed in range(8)]
    for name in ("ips", "snips", "dr"):
        assert np.mean([one[name].value for one in found]) == pytest.approx(truth, rel=0.05)
    assert sum(one["dr"].low <= truth <= one["dr"].high for one in found) >= 7
    assert np.mean([one["logging"].value for one in found]) == pytest.approx(CLICKS_N.mean(), rel=0.05)


def test_chances_are_those_that_serving_draws_by() -> None:
    scores_RN = np.array([[0.0, 0.1, -3.0]])
    assert serving_chances(scores_RN, 0.05)[0, :2].tolist() == pytest.approx([1 / (1 + np.e**2), np.e**2 / (1 + np.e**2)])
    assert serving_chances(scores_RN, 0.0).tolist() == [[0, 1, 0]]


def test_a_fit_is_measured_on_what_was_logged_with_a_chance(tmp_path: Path) -> None:
    scorer = GuideScorer.load(write_fit(tmp_path))
    rows = evenly_shown(3, 300)
    rows.propensity[:100] = np.nan
    found = measure_first_place(scorer, rows, 0.5, seed=0)
    assert found is not None and found.requests == 200 and found.overlap.sessions == 200
    assert {"logging", "ips", "snips", "dm", "dr", "switch_dr", "dros"} <= {one.estimator for one in found.off_policy}
    assert measure_first_place(scorer, rows, 0.5, seed=0) == found


def test_a_log_that_cannot_tell_says_why(tmp_path: Path) -> None:
    bare = dataclasses.replace(evenly_shown(0, 50), propensity=np.full((50, 5), np.nan, np.float32))
    assert "propensity" in (why_no_first_place(bare, NUM_PRODUCTS) or "")
    assert "6,000 products" in (why_no_first_place(evenly_shown(0, 50), 6000) or "")
    assert measure_first_place(GuideScorer.load(write_fit(tmp_path)), bare, 0.05, seed=0) is None
