"""Tasks that the config adds: measured on the test part as they are learned, shown in the report, and paired by compare."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from model_learners import EVERYTHING, alone, with_train
from model_samples import sample_catalogue, sample_examples

from guidelens.config import ExtraTask
from guidelens.data.examples import VISIT_VALUES, Examples
from guidelens.data.visits import InterestMedians
from guidelens.evaluation.bootstrap import Draws
from guidelens.evaluation.extra_tasks import extra_rows, measure_extra_tasks
from guidelens.evaluation.report import Report, read_report, write_report
from guidelens.inference.guide_files import GuideHeader
from guidelens.inference.scorer import GuideScorer
from guidelens.presets import load
from guidelens.training.data import FitData, FitJob, Place
from guidelens.training.learner import Learner
from pipelines.compare import _tasks_of_both

TASKS = {"cart": ExtraTask(label="carts"), "stay": ExtraTask(label="stay_ms", loss="mse")}
DRAWS = Draws(50, 0)


def visited() -> Examples:
    """The small shop, with carts at some products and stays at all."""
    examples = sample_examples(240)
    visits, rng = np.zeros_like(examples.visit_values), np.random.default_rng(3)
    shape = visits.shape[:2]
    visits[:, :, VISIT_VALUES.index("carts")] = (examples.slate_rows % 3 == 0) & (rng.random(shape) < 0.7)
    visits[:, :, VISIT_VALUES.index("stay_ms")] = 1000 * (1 + examples.slate_rows % 3) * rng.random(shape)
    return dataclasses.replace(examples, visit_values=visits)


@pytest.fixture(scope="module")
def taught() -> Learner:
    config = with_train(epochs=8, learning_rate=0.01)
    job = FitJob(name="guide", lambdas=EVERYTHING, model=config.train.model, extra=TASKS)
    own = Learner(job, FitData.of(visited(), sample_catalogue(), config.train.model.num_profile_buckets), config.train, 0, Place(), alone)
    for epoch in range(8):
        own.epoch(epoch)
    own.model.eval()
    return own


@pytest.fixture(scope="module")
def scorer(taught: Learner) -> GuideScorer:
    header = GuideHeader(model=taught.job.model, spec=taught.model.spec, medians=InterestMedians(), lambdas={**taught.job.lambdas})
    return GuideScorer(taught.model, header, sample_catalogue())


def test_losses_on_the_test_part_are_those_that_training_would_count_there(taught: Learner, scorer: GuideScorer) -> None:
    examples = visited()
    train, test = examples.of("train"), examples.of("test")
    found = measure_extra_tasks(scorer, TASKS, train, test, DRAWS)
    counted = taught.validate(np.flatnonzero(examples.split == "test"))
    assert {name: task.loss.value for name, task in found.items()} == pytest.approx({name: counted[name] for name in TASKS}, rel=1e-4)
    assert found["cart"].auc is not None and found["cart"].auc > 0.8 and found["stay"].auc is None
    assert found["cart"].gain.low > 0, "what a task learned is no better than a constant"
    rows = extra_rows(scorer, TASKS, train, test)
    assert rows["cart log-loss"].value_R.mean() == pytest.approx(found["cart"].loss.value)
    assert rows["stay squared error"].value_R.mean() == pytest.approx(found["stay"].loss.value)
    assert found["stay"].gain.value == pytest.approx(found["stay"].constant_loss - found["stay"].loss.value)


def test_the_report_shows_them_and_reads_back(scorer: GuideScorer, tmp_path: Path) -> None:
    examples = visited()
    found = measure_extra_tasks(scorer, TASKS, examples.of("train"), examples.of("test"), DRAWS)
    report = Report(source="s", seed=0).with_sections(extra_tasks=found)
    path = write_report(report, tmp_path)
    assert read_report(path) == report
    page = path.with_suffix(".html").read_text()
    assert "Tasks of your own" in page and "any carts" in page and "how much stay_ms" in page
    assert report.metrics()["test/task_cart_loss"] == found["cart"].loss.value
    assert "Tasks of your own" not in write_report(Report(source="s", seed=0), tmp_path).with_suffix(".html").read_text()


def test_nothing_is_measured_of_a_task_that_is_out_or_where_nothing_was_shown(scorer: GuideScorer) -> None:
    examples = visited()
    train, test = examples.of("train"), examples.of("test")
    assert measure_extra_tasks(scorer, {"cart": ExtraTask(label="carts", weight=0)}, train, test, DRAWS) == {}
    assert measure_extra_tasks(scorer, TASKS, train, test.take(np.arange(0)), DRAWS) == {}
    assert extra_rows(scorer, TASKS, train, test.take(np.arange(0))) == {}


def test_compare_pairs_the_tasks_that_both_runs_have_with_one_label() -> None:
    one = load("tiny", ['train.extra_tasks={"cart": {"label": "carts"}, "stay": {"label": "stay_ms"}, "out": {"label": "depth", "weight": 0}}'])
    other = load(
        "tiny", ['train.extra_tasks={"cart": {"label": "carts", "weight": 2}, "stay": {"label": "stay_ms", "loss": "mse"}, "out": {"label": "depth"}}']
    )
    assert list(_tasks_of_both(one, other)) == ["cart"]
