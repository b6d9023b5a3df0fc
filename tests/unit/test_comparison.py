"""Paired comparisons: sure differences are found, chance is not taken for one however many metrics are looked at, and pages are whole."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidelens.config import Config, Home, TrainConfig
from guidelens.errors import ConfigError
from guidelens.evaluation.bootstrap import Draws
from guidelens.evaluation.comparison import Compared, compare_rows, holm, paired_test
from guidelens.evaluation.comparison_html import ComparePage, render
from guidelens.evaluation.metric_rows import MetricRows
from guidelens.evaluation.report import SplitDates
from guidelens.evaluation.rolling import rolled, windows
from guidelens.evaluation.rolling_html import render as render_rolling
from guidelens.presets import load
from pipelines.compare import _differing, _relabelled
from pipelines.fit_parts import Parts
from pipelines.run_files import RunFiles
from pipelines.train import FitRecord

DATES = SplitDates(train_end="2026-03-01T00:00:00Z", test_start="2026-03-02T00:00:00Z", test_end="2026-03-03T00:00:00Z", train_requests=900, test_requests=300)


def rows(shift: float, seed: int = 0, higher: bool = True, num: int = 300) -> MetricRows:
    """Values that differ between rows far more than `shift`, which the same rows of another model lack."""
    hard = np.random.default_rng(99).random(num)
    return MetricRows(higher, hard + shift + 0.02 * np.random.default_rng(seed).normal(size=num), np.array([f"k{i % 60}" for i in range(num)]))


def test_holm_agrees_with_a_hand_count() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_corrected_chances_are_no_smaller_and_keep_their_order(p_values: list[float]) -> None:
    corrected = holm(p_values)
    assert all(after >= before and after <= 1 for before, after in zip(p_values, corrected, strict=True))
    assert [corrected[i] for i in np.argsort(p_values, kind="stable")] == sorted(corrected)


def test_a_small_but_steady_difference_is_sure_and_has_a_direction() -> None:
    first = {"NDCG@10": rows(0), "click log-loss": rows(0, 1, higher=False)}
    second = {"NDCG@10": rows(0.01, 2), "click log-loss": rows(0.01, 3, higher=False)}
    found = {row.name: row for row in compare_rows(first, second, 0)}
    assert (found["NDCG@10"].verdict, found["click log-loss"].verdict) == ("second", "first")
    assert found["NDCG@10"].difference is not None and found["NDCG@10"].difference.value == pytest.approx(0.01, abs=0.004)


def test_models_that_are_alike_are_not_told_apart_more_often_than_allowed() -> None:
    names = [f"metric {k}" for k in range(10)]
    sure = 0
    for trial in range(24):
        first = {name: rows(0, 1000 + 20 * trial + k) for k, name in enumerate(names)}
        second = {name: rows(0, 1010 + 20 * trial + k) for k, name in enumerate(names)}
        sure += any(row.verdict != "neither" for row in compare_rows(first, second, trial))
    assert sure <= 4, f"{sure} of 24 comparisons of equals claimed a difference; at 5 % one is expected"


def test_few_shoppers_do_not_make_a_difference_sure() -> None:
    """A bootstrap over these six is sure of 12 % of comparisons of equals."""
    found = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        shoppers = np.repeat(np.arange(6), rng.integers(1, 5, size=6))
        noise = rng.normal(size=6)[shoppers] + rng.normal(size=len(shoppers))
        whose = shoppers.astype(str)
        row = compare_rows({"a": MetricRows(True, np.zeros(len(shoppers)), whose)}, {"a": MetricRows(True, noise, whose)}, seed)[0]
        found.append(row.verdict != "neither")
    assert np.mean(found) <= 0.06


def test_p_values_of_no_difference_are_spread_evenly() -> None:
    found = np.array([paired_test(np.random.default_rng(seed).normal(size=80), np.arange(80), seed)[1] for seed in range(120)])
    assert 0.0 < np.mean(found < 0.1) < 0.2 and 0.35 < found.mean() < 0.65


def test_a_difference_that_hangs_on_one_session_is_not_sure() -> None:
    heavy = np.zeros(200)
    heavy[0] = 500.0
    shoppers = np.arange(200).astype(str)
    base = np.random.default_rng(0).normal(0, 0.1, 200)
    nothing, of_one, of_all = (MetricRows(True, rows, shoppers, is_heavy=True) for rows in (base, base + heavy, base[::-1] + 2.5))
    found = compare_rows({"one": nothing, "all": nothing}, {"one": of_one, "all": of_all}, 0)
    assert [row.verdict for row in found] == ["neither", "second"]
    assert found[0].difference is not None and found[1].difference is not None
    assert found[0].difference.value == pytest.approx(found[1].difference.value), "both gain as much"


def test_a_run_beside_itself_differs_in_nothing() -> None:
    row = compare_rows({"a": rows(0)}, {"a": rows(0)}, 0)[0]
    assert row.difference is not None and row.test is not None
    assert (row.difference.value, row.test.p, row.verdict) == (0.0, 1.0, "neither")


def test_the_page_says_who_is_better_and_needs_nothing_from_elsewhere() -> None:
    paired = compare_rows({"NDCG@10": rows(0), "log-loss": rows(0, 1, higher=False)}, {"NDCG@10": rows(0.05, 2), "log-loss": rows(0, 1, higher=False)}, 0)
    page = render(
        ComparePage(
            first="<a>",
            second="b",
            shared_requests=300,
            unpaired_because="",
            paired=paired,
            slices=paired[:1],
            recorded=(Compared(name="x", first=1.0, second=None),),
        )
    )
    assert "second is better" in page and "not told apart" in page and "&lt;a&gt;" in page and "lower is better" in page
    assert page.count("<svg") == 2 and "<script" not in page and "https://" not in page
    alone = render(ComparePage(first="a", second="b", shared_requests=0, unpaired_because="the runs' catalogues differ", paired=(), slices=(), recorded=()))
    assert "catalogues differ" in alone and "<svg" not in alone


def test_likeness_to_the_log_gets_no_verdict_however_sure_it_is() -> None:
    """A plan that earns more than the log is less like it."""
    alike, less = (rows(shift, seed)._replace(is_higher_better=None) for shift, seed in ((0.0, 0), (-0.2, 2)))
    paired = compare_rows({"NDCG@10": rows(0), "plan edit similarity": alike}, {"NDCG@10": rows(0.05, 2), "plan edit similarity": less}, 0)
    assert [row.verdict for row in paired] == ["second", ""]
    page = render(ComparePage(first="a", second="b", shared_requests=300, unpaired_because="", paired=paired, slices=(), recorded=()))
    assert "of 1 metrics, surely" in page and "no value" in page
    assert "change for the better" in page and page.count("plan edit similarity") == 1, "likeness is drawn as if more were better"


def test_metrics_of_labels_that_only_one_run_learned_are_not_paired_and_the_page_says_so() -> None:
    one, other = load("tiny"), load("tiny", ["train.interest_weights=[0, 0, 0, 1]", "train.plan_costs.coupon=0.5"])
    left_out = _relabelled(one, other)
    assert left_out.keys() == {"interest squared error", "plan value, estimated"}
    assert "train.interest_weights" in left_out["interest squared error"]
    assert _relabelled(one, load("tiny", ["train.epochs=9"])) == {}
    page = ComparePage(first="a", second="b", shared_requests=1, unpaired_because="", paired=(), slices=(), recorded=(), notes=tuple(left_out.values()))
    assert "labels differ by train.plan_costs" in render(page)


def test_the_page_lists_the_settings_that_differ() -> None:
    files = [RunFiles(Home(root=Path("/h")), None, "r", Path(), _record(config)) for config in (load("tiny"), load("tiny", ["train.epochs=9"]))]
    found = _differing(*files)
    assert [(row.name, row.first, row.second) for row in found] == [("train.epochs", "2", "9")]
    page = render(ComparePage(first="a", second="b", shared_requests=0, unpaired_because="x", paired=(), slices=(), recorded=(), settings=found))
    assert "What was set otherwise" in page and "train.epochs" in page


def _record(config: Config) -> FitRecord:
    return FitRecord(
        run_id="r",
        parts=Parts(recognizer="trained", guide="trained", controls="trained"),
        missing=(),
        lake="lake",
        manifest=1,
        snapshot_sha256="",
        home="/h",
        feature_service="guide_v1",
        num_products=1,
        seed=0,
        config=config,
    )


def test_windows_follow_one_another_and_each_is_trained_on_all_before_it() -> None:
    config = TrainConfig(test_share=0.2, validation_share=0.1)
    found = windows(1000, 3, config)
    assert [window.until_row for window in found] == [600, 800, 1000]
    starts = [window.until_row * (1 - window.test_share) for window in found]
    assert starts == pytest.approx([400, 600, 800]), "a window is tested twice, or a part of the log never"
    assert all(window.until_row * window.validation_share == pytest.approx(100) for window in found)
    with pytest.raises(ConfigError, match="at most 4"):
        windows(1000, 5, config)


def test_folds_are_reported_one_by_one_and_together_with_paired_gains() -> None:
    folds = [{"model": {"NDCG@10": rows(0.1 + 0.02 * k, k)}, "popularity": {"NDCG@10": rows(0, 10 + k)}} for k in range(3)]
    found = rolled("shop", 0, "tiny", [DATES] * 3, folds, Draws(100, 0))
    means = [fold.metrics["model"]["NDCG@10"].value for fold in found.folds]
    assert found.overall["model"]["NDCG@10"].value == pytest.approx(np.mean(means))
    assert found.overall["model"]["NDCG@10"].clusters == 60, "a shopper of several folds must count once"
    assert found.gain_over["popularity"]["NDCG@10"].value == pytest.approx(0.12, abs=0.01) and found.gain_over["popularity"]["NDCG@10"].low > 0
    assert found.spread["NDCG@10"] == pytest.approx(np.std(means, ddof=1))
    page = render_rolling(found)
    assert "popularity" in page and page.count("<svg") == 1 and "<script" not in page
