"""The report: the fields others read, sections that may be absent, a page that shows what is there and escapes what it is given."""

import json
from pathlib import Path

import numpy as np
import pytest

from guidelens.errors import InputError
from guidelens.evaluation.beyond import BeyondAccuracy, ColdShare
from guidelens.evaluation.bootstrap import Draws, Interval, mean_interval
from guidelens.evaluation.calibration import calibration
from guidelens.evaluation.clicks import Impressions, forecast
from guidelens.evaluation.offpolicy import OffPolicyEstimate, Overlap
from guidelens.evaluation.report import (
    GateCheck,
    InterestReport,
    PlanReport,
    PlanScores,
    RankingReport,
    RankingScores,
    RecognitionReport,
    ReleaseReport,
    Report,
    ServingReport,
    Slice,
    SliceScores,
    SplitDates,
    StageTime,
    confusion_matrix,
    curves,
    most_confused,
    read_report,
    slice_metric,
    step_time,
    write_report,
)
from guidelens.evaluation.report_html import render
from guidelens.evaluation.report_why import ExplainedProduct, ExplanationReport, FirstPlaceReport, InputEffect, VisitEffect


def around(value: float) -> Interval:
    return Interval(value=value, low=value - 0.02 * abs(value), high=value + 0.03 * abs(value), n=900, clusters=500)


def scores(value: float) -> RankingScores:
    return RankingScores(ndcg_at_10=value, recall_at_10=value * 1.6, ndcg=around(value), recall=around(value * 1.6))


FIGURES = (
    "Clicks and purchases",
    "12.0 %",
    "8.25",
    "61.0 %",
    "accuracy (calling no click at all",
    "31 effective sessions",
    "DR, shrunk weights",
    "new shoppers, profile only (212)",
    "CTR: clicks / impressions",
    "precision: clicked, of what was called a click",
)


def likeness(value: float) -> PlanScores:
    return PlanScores(
        **{f"{way}_{name}": value for way in ("free", "forced") for name in ("step_accuracy", "exact_match", "match")},
        illegal=0.0, step_distance=0.3, length=4.5, logged_length=3.5,
    )  # fmt: skip


def full() -> Report:
    rng = np.random.default_rng(0)
    predicted = rng.beta(2, 5, 2000)
    observed = np.clip(predicted + rng.normal(0, 0.1, 2000), 0, 1)
    truth = [f"family {i % 6}" for i in range(300)]
    answered = [t if rng.random() < 0.8 else "family 2" for t in truth]
    labels, matrix = confusion_matrix(truth, answered)
    found = calibration(predicted, observed)
    seen = Impressions(rng.random(2000) < predicted * 0.2, rng.random(2000) < 0.01, predicted * 0.2, predicted * 0.01, np.arange(2000) % 90)
    policies = {"logging": 41.0, "script": 52.0, "fixed": 55.0, "single_task": 63.0, "open_loop": 58.0, "model": 66.0, "reference": 78.0, "oracle": 117.0}
    return Report(
        source="world",
        seed=7,
        preset="laptop",
        run="0f" * 16,
        snapshot_sha256="ab" * 32,
        split=SplitDates(
            train_end="2026-03-21T10:00:00Z", test_start="2026-03-25T04:10:00Z", test_end="2026-03-28T23:59:00Z", train_requests=18000, test_requests=3600
        ),
        recognition=RecognitionReport(
            top1=0.81, top5=0.95, photos=300, protocol="Photos held back from training, of products it knows.", top1_interval=around(0.81), coarse_top1=0.9,
            labels=labels, matrix=matrix, confusions=most_confused(truth, answered),
        ),
        ranking=RankingReport(
            model=scores(0.231), baselines={"popularity": scores(0.071), "item_knn": scores(0.162), "single_task": scores(0.224)},
            gain_over={"popularity": around(0.16), "item_knn": around(0.07), "single_task": around(0.007)}, requests=1180, products=240, auc=0.774, gauc=0.741,
            click_calibration=calibration(predicted * 0.2, rng.random(2000) < predicted * 0.2),
            slices=(Slice(name="new shoppers, profile only", requests=212, ndcg=around(0.18), hit_rate=around(0.31),
                          baselines={"popularity": SliceScores(ndcg=around(0.0521), hit_rate=around(0.11))}),
                    Slice(name="without AR", requests=4, ndcg=None)),
            forecast=forecast(seen, seen, 0.05, Draws(20, 0)), cold=ColdShare(shoppers=0.12, products=0.034),
            beyond={"model": BeyondAccuracy(coverage=0.61, novelty=8.25, diversity=0.52), "popularity": BeyondAccuracy(coverage=0.04, novelty=5.1, diversity=0.9)},
        ),
        interest=InterestReport(
            mse=0.031, ece=0.012, constant_mse=0.052, single_task_mse=0.032, spearman=0.61, pairs=2000, mse_interval=around(0.031), calibration=found
        ),
        plan=PlanReport(
            illegal=0.0, decoded=4000, plans=1312, match=0.58, step_accuracy=0.47, exact_match=0.09, value_source="in the simulated shop, closed loop",
            value=66.0, logging_value=41.0, script_value=52.0, fixed_value=55.0, reference_value=78.0, oracle_value=117.0, gap_closed=25 / 37,
            intervals={name: around(value) for name, value in policies.items()}, gain_over={"logging": around(25.0), "script": around(14.0)},
            off_policy=tuple(OffPolicyEstimate(estimator=name, value=63.2, low=51.0, high=76.1, ess=88.0, sessions=1312) for name in ("logging", "dr", "dros")),
            off_policy_of="the greedy plan", overlap=Overlap(ess=31.0, sessions=1312, mean_weight=0.97, largest_share=0.08, warnings=("31 effective sessions",)),
        ),
        losses=curves({f"{part}/loss_{task}": [(e, 1.5 / (e + 1) + lift) for e in range(8)]
                       for part, lift in (("train", 0.0), ("val", 0.1)) for task in ("recommendation", "interest", "plan")}),
        serving=ServingReport(requests=60, failed=0, p50_ms=42.1, p99_ms=81.7, stages_p50_ms={"recognize": 18.2, "fuse": 6.0, "rank": 5.1, "total": 38.0}),
        release=ReleaseReport(version="3", alias="champion", gate=(
            GateCheck(name="ranking", passed=True, why="NDCG@10 0.231, champion 0.228"), GateCheck(name="champion", passed=None, why="no champion yet"))),
        stages=(StageTime(name="ingest", seconds=31.2), StageTime(name="train", seconds=88.4)),
    )  # fmt: skip


def test_the_json_holds_what_others_read(tmp_path: Path) -> None:
    found = json.loads(write_report(full(), tmp_path).read_text())
    assert found["ranking"]["model"]["ndcg_at_10"] == 0.231
    assert set(found["ranking"]["baselines"]) == {"popularity", "item_knn", "single_task"}
    assert {"illegal", "match", "value", "logging_value", "script_value", "reference_value", "oracle_value"} <= set(found["plan"])
    assert {"top1", "top5", "photos"} <= set(found["recognition"])
    assert {"mse", "ece"} <= set(found["interest"])
    assert {"requests", "p50_ms", "p99_ms", "failed"} <= set(found["serving"])
    assert {"version", "alias"} <= set(found["release"])
    assert found["stages"][0] == {"name": "ingest", "seconds": 31.2}


def test_a_report_comes_back_as_it_was_written(tmp_path: Path) -> None:
    assert read_report(write_report(full(), tmp_path)) == full()


def test_the_page_shows_every_section_and_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    page = write_report(full(), tmp_path).with_suffix(".html").read_text()
    for text in (
        "Recognition",
        "Recommendation",
        "Interest",
        "Plan",
        "Training",
        "Serving",
        "Release 3",
        "Where the time went",
        "gap closed",
        "67.6 %",
        "Cold start",
        "0.052 [",
        *FIGURES,
    ):
        assert text in page
    assert page.count("<svg") >= 13
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page and "<script" not in page


def test_a_plans_likeness_to_the_log_is_shown_beside_that_of_the_logs_baselines() -> None:
    plan = full().plan
    assert plan is not None and "Free-running" not in render(full())
    values = {**plan.intervals, "gru": around(44.0)}
    page = render(full().with_sections(plan=plan.model_copy(update={"scores": likeness(0.0601), "baselines": {"gru": likeness(0.5017)}, "intervals": values})))
    assert "Free-running" in page and "0.060" in page and "0.502" in page
    assert page.count("GRU that imitates") == 2, "in the table, and among the values"


def test_what_moved_single_products_is_drawn() -> None:
    fall = {"occlusion": around(1.5), "random": around(0.4)}
    said = (ExplainedProduct(title="Teal coat", reasons=("fits what you scanned",), effects={"frame": 1.254, "visits": -0.111},
                            visits=(VisitEffect(title="Red lamp", effect=-0.094),), attention={"frame": 0.625, "visits": 0.125}),)  # fmt: skip
    inputs = tuple(InputEffect(name=name, requests=9, low=0.1, median=0.2, high=0.3) for name in ("frame", "query", "visits"))
    why = ExplanationReport(requests=9, first=fall, area=fall, gain_over={}, true_reasons=None, covered=1.0, inputs=inputs, examples=said)
    page = render(full().with_sections(explanations=why))
    for name, texts in {"effects": ("Teal coat", "frame", "query", "visits", "+1.25", "-0.11"), "attention": ("Teal coat", "0.62", "0.12")}.items():
        drawn = page[page.index(f'aria-label="{name} of inputs"') :]
        assert all(text in drawn[: drawn.index("</svg>")] for text in texts)
    assert "Red lamp -0.09" in page


def test_what_the_log_says_of_the_first_place_is_shown_and_recorded() -> None:
    estimate = OffPolicyEstimate(estimator="dr", value=0.2275, low=0.1629, high=0.2921, ess=97.0, sessions=3150)
    overlap = Overlap(ess=97.0, sessions=3150, mean_weight=0.84, largest_share=0.04, warnings=("the mean weight is 0.84",))
    report = full().with_sections(first_place=FirstPlaceReport(temperature=0.05, requests=3150, off_policy=(estimate,), overlap=overlap))
    page = render(report)
    assert "The first place, from the log alone" in page and "[0.1629, 0.2921]" in page and "The mean weight is 0.84." in page
    assert report.metrics()["test/first_place_off_policy_dr"] == 0.2275


def test_the_headline_figures_are_metrics_of_the_run() -> None:
    found = full().metrics()
    assert {"test/click_f1", "test/click_log_loss", "test/ctr", "test/coverage_at_10", "test/plan_off_policy_dros"} <= set(found)
    assert slice_metric("category 水果/a b") == "test/ndcg_at_10_category_a_b"


def test_the_same_report_gives_the_same_page(tmp_path: Path) -> None:
    first = write_report(full(), tmp_path / "a").with_suffix(".html").read_bytes()
    assert write_report(full(), tmp_path / "b").with_suffix(".html").read_bytes() == first


def test_without_events_the_page_says_what_is_missing(tmp_path: Path) -> None:
    report = Report(source="shop", seed=0, missing=("events",), absent={"ranking": "the lake holds no events"})
    path = write_report(report, tmp_path)
    assert "ranking" not in json.loads(path.read_text())
    page = path.with_suffix(".html").read_text()
    assert "the lake holds no events" in page
    assert "Recommendation" not in page


def test_titles_from_a_catalogue_are_escaped(tmp_path: Path) -> None:
    nasty = "<script>alert(1)</script> $x"
    pairs = most_confused([nasty], ["b & c"])
    recognition = RecognitionReport(top1=0.0, top5=0.0, photos=1, protocol=nasty, confusions=pairs, labels=(nasty, "b"), matrix=((0, 1), (0, 0)))
    page = write_report(Report(source=nasty, seed=0, recognition=recognition), tmp_path).with_suffix(".html").read_text()
    assert "<script" not in page


@pytest.mark.parametrize("name", ["水果/苹果", r"under $5/over $10^{", r"a$\frac$b"])
def test_any_category_is_drawn_as_it_is_spelled_and_warns_of_nothing(tmp_path: Path, name: str) -> None:
    recognition = RecognitionReport(top1=0.0, top5=0.0, photos=1, protocol="p", labels=(name, "b"), matrix=((0, 1), (0, 0)))
    assert name in write_report(Report(source="shop", seed=0, recognition=recognition), tmp_path).with_suffix(".html").read_text()


def test_a_section_that_is_set_is_no_longer_absent() -> None:
    report = Report(source="shop", seed=0, absent={"serving": "not served", "plan": "no events"})
    with_serving = report.with_sections(serving=ServingReport(requests=1, failed=0, p50_ms=1, p99_ms=1))
    assert with_serving.absent == {"plan": "no events"}
    assert with_serving.serving is not None


def test_a_file_that_is_no_report_is_refused(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text('{"a": 1}')
    with pytest.raises(InputError, match=r"report\.json"):
        read_report(tmp_path / "report.json")


def test_confusions_are_counted_and_the_right_answers_left_out() -> None:
    labels, matrix = confusion_matrix(["a", "a", "b"], ["a", "b", "b"])
    assert (labels, matrix) == (("a", "b"), ((1, 1), (0, 1)))
    assert [(c.truth, c.predicted, c.count) for c in most_confused(["a", "a", "b"], ["a", "b", "b"])] == [("a", "b", 1)]


def test_an_interval_of_measured_rows_fits_the_report() -> None:
    assert mean_interval(np.ones(3), num_bootstrap=5, seed=0).value == 1.0


def test_the_page_warns_of_few_shoppers() -> None:
    report = full()
    assert report.ranking is not None and "too narrow to be trusted" not in render(report)
    few = report.ranking.model.model_copy(update={"ndcg": around(0.3).model_copy(update={"clusters": 7})})
    assert "7 shoppers: with fewer than 30" in render(report.with_sections(ranking=report.ranking.model_copy(update={"model": few})))


def test_the_page_says_where_the_time_of_a_step_went() -> None:
    found = step_time([2.0, 3.0], {"forward": [1.0, 1.0], "workers": [0.25, 0.25]})
    assert found is not None
    assert found.seconds == 5.0
    assert found.shares == pytest.approx({"forward": 0.4, "workers": 0.1, "other": 0.5})
    page = render(full().model_copy(update={"step_time": found}))
    assert "2 epochs took 5.0 s of steps: forward 40.0 %, exchange between workers 10.0 %, dealing out rows, and the rest 50.0 %." in page
    assert "s of steps" not in render(full())
    assert step_time([], {}) is None
