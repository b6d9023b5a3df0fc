"""Forecasts of clicks, lists beyond accuracy and slices, against hand counts and scikit-learn."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from guidelens.data.examples import empty
from guidelens.evaluation.beyond import beyond_accuracy, cold_share
from guidelens.evaluation.bootstrap import Draws
from guidelens.evaluation.clicks import Impressions, best_threshold, forecast, gains, log_losses
from guidelens.evaluation.ranking import TOP, RankingRows, catalogue_ranks, top_products
from guidelens.evaluation.slices import PROFILE_ONLY, SESSION_ONLY, product_slices, sliced, slices, tail
from guidelens.schemas.packed import PACKED_DTYPE, PACKED_SCHEMA_VERSION

DRAWS = Draws(50, 0)


def shown(num: int = 600, seed: int = 0) -> Impressions:
    """Clicks drawn with the chances that were predicted."""
    rng = np.random.default_rng(seed)
    p = rng.beta(1, 6, num)
    click = rng.random(num) < p
    return Impressions(click, click & (rng.random(num) < 0.3), p, 0.3 * p, np.arange(num) % 40)


def test_yes_or_no_figures_agree_with_scikit_learn() -> None:
    test, val = shown(seed=1), shown(seed=2)
    found = forecast(test, val, 0.1, DRAWS)
    assert found is not None and found.decision is not None and found.decision.precision is not None
    called = test.p_click >= found.decision.threshold
    for ours, theirs in ((found.decision.accuracy, metrics.accuracy_score), (found.decision.precision, metrics.precision_score),
                         (found.decision.recall, metrics.recall_score), (found.decision.f1, metrics.f1_score)):  # fmt: skip
        assert ours.value == pytest.approx(theirs(test.click, called))
        assert ours.low < ours.value < ours.high
    assert found.log_loss.value == pytest.approx(metrics.log_loss(test.click, test.p_click))
    assert found.log_loss.value < found.constant_log_loss


def test_rates_are_clicks_an_impression_and_purchases_a_click() -> None:
    test = shown()
    found = forecast(test, test, 0.1, DRAWS)
    assert found is not None and found.cvr is not None and found.cvr_predicted is not None
    assert found.ctr.value == pytest.approx(test.click.mean())
    assert found.ctr_predicted == pytest.approx(test.p_click.mean())
    assert found.cvr == pytest.approx(test.purchase.sum() / test.click.sum())
    assert found.cvr_predicted == pytest.approx(0.3)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=40))
def test_no_other_threshold_has_a_better_f1(pairs: list[tuple[int, bool]]) -> None:
    p, label = np.array([a for a, _ in pairs]) / 5, np.array([b for _, b in pairs])
    best = best_threshold(p, label)
    if not label.any():
        assert best is None
        return
    assert best is not None
    scores = [metrics.f1_score(label, p >= cut, zero_division=0) for cut in np.unique(p)]
    assert metrics.f1_score(label, p >= best) == pytest.approx(max(scores))


def test_auc_within_shoppers_is_weighted_by_their_impressions() -> None:
    click, p = np.array([True, False, False, True, False, False]), np.array([0.9, 0.1, 0.2, 0.1, 0.2, 0.3])
    test = Impressions(click, click, p, p, np.array([0, 0, 0, 0, 1, 1]))
    found = forecast(test, test, 0.5, DRAWS)
    assert found is not None and found.gauc_by_shopper is not None
    assert found.gauc_by_shopper.value == pytest.approx(2.5 / 4)  # b never clicks and tells nothing; a ties .1 with .1


def test_without_a_click_there_is_nothing_to_decide() -> None:
    test = shown()._replace(click=np.zeros(600, dtype=bool), purchase=np.zeros(600, dtype=bool))
    found = forecast(test, test, 0.0, DRAWS)
    assert found is not None
    assert (found.decision, found.cvr, found.gauc_by_shopper, found.gains) == (None, None, None, ())
    assert np.isfinite(found.constant_log_loss)
    assert forecast(Impressions(*(part[:0] for part in test)), test, 0.0, DRAWS) is None


def test_gains_of_chance_are_the_diagonal_and_of_a_clairvoyant_the_corner() -> None:
    click = np.arange(1000) < 100
    assert all(gain.captured == pytest.approx(gain.shown) for gain in gains(np.full(1000, 0.1), click))
    assert next(gain.captured for gain in gains(click.astype(float), click) if gain.shown == 0.1) == pytest.approx(1.0)


def test_a_sure_and_wrong_forecast_costs_much_but_not_everything() -> None:
    assert np.isfinite(log_losses(np.array([0.0, 1.0]), np.array([True, False]))).all()


def test_lists_of_the_same_best_sellers_reach_little_and_surprise_little() -> None:
    clicks = np.array([100.0, 50.0, 0.0, 0.0])
    content = np.eye(4)
    same, varied = beyond_accuracy(np.array([[0, 1], [0, 1]]), clicks, content), beyond_accuracy(np.array([[0, 1], [2, 3]]), clicks, content)
    assert (same.coverage, varied.coverage) == (0.5, 1.0)
    assert same.novelty == pytest.approx(-np.mean(np.log2([101 / 154, 51 / 154])))
    assert varied.novelty > same.novelty
    assert same.diversity == pytest.approx(1.0)
    assert beyond_accuracy(np.array([[0, 1]]), clicks, np.ones((4, 1))).diversity == pytest.approx(0.0)
    assert beyond_accuracy(np.array([[0]]), clicks, content).diversity is None


def test_top_lists_are_the_first_ranks_with_ties_as_ranked() -> None:
    scores = np.random.default_rng(0).integers(0, 4, (20, 30)).astype(float)
    ranks = catalogue_ranks(scores, np.tile(np.arange(30), (20, 1)))
    assert (np.take_along_axis(ranks, top_products(scores), axis=1) == np.arange(TOP)).all()


def test_slices_follow_what_was_clicked() -> None:
    log = dataclasses.replace(
        empty(40, 2), slate_rows=np.tile(np.array([[0, 1], [2, 3]], dtype=np.int32), (20, 1)), shopper_key=np.array([f"k{i}" for i in range(40)], dtype=object)
    )
    relevant = np.tile(np.array([[True, False], [False, True]]), (20, 1))
    clicks = np.array([90.0, 5.0, 5.0, 0.0])
    masks = product_slices(log, relevant, clicks, ["home/chair", "home/table", "food", "food/milk"])
    assert tail(clicks).tolist() == [False, True, True, True]
    assert masks["new products"].sum() == masks["tail products"].sum() == masks["category food"].sum() == 20
    assert not (masks["head products"] & masks["tail products"]).any()
    ours, theirs = RankingRows(np.arange(40.0), np.tile([0.5, 0.0], 20)), RankingRows(np.full(40, 2.0), np.ones(40))
    parts = sliced({**masks, "everything": np.ones(40, dtype=bool)}, ours, {"peer": theirs}, log.shopper_key, DRAWS)
    found = {part.name: part for part in parts}
    assert found["new products"].ndcg is None and found["new products"].requests == 20
    everything = found["everything"]
    assert everything.ndcg is not None and everything.ndcg.value == pytest.approx(19.5)
    assert everything.hit_rate is not None and everything.hit_rate.value == pytest.approx(0.5)
    assert (everything.baselines["peer"].ndcg.value, everything.baselines["peer"].hit_rate.value) == (2.0, 1.0)
    train = dataclasses.replace(empty(1, 2), shopper_key=np.array(["k0"], dtype=object))
    cold = cold_share(train, log, relevant, clicks)
    assert (cold.shoppers, cold.products) == (pytest.approx(39 / 40), 0.5)


def test_a_new_shopper_is_known_by_profile_or_by_nothing_but_the_session() -> None:
    def shopper(profile: int, visits: int) -> bytes:
        row = np.zeros(1, dtype=PACKED_DTYPE)
        row["version"], row["profile_ids"][0, 0], row["num_recent"] = PACKED_SCHEMA_VERSION, profile, visits
        return row.tobytes()

    rows = dataclasses.replace(empty(4), packed=np.array([shopper(7, 0), shopper(0, 0), None, shopper(7, 3)], dtype=object))
    found = slices(rows)
    assert found[PROFILE_ONLY].tolist() == [True, False, False, False]
    assert found[SESSION_ONLY].tolist() == [False, True, True, False]
    assert found["new shoppers"].tolist() == [True, True, True, False]
