"""`guidelens train` on a shop whose log holds slates and page visits and nothing of AR: what it learns, what it says it did not, what it leaves."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from event_frames import event, frame
from finished_run import fill_lake

from guidelens import presets
from guidelens.config import Config, Home
from guidelens.data.examples import Examples
from guidelens.data.lake.lake import Lake
from guidelens.errors import ConfigError, InputError, NotFoundError
from guidelens.evaluation.rolling import RollingReport
from guidelens.inference.guide_files import load_guide
from guidelens.registry import Registry
from guidelens.schemas.tables import Table
from guidelens.training.study import StudyPlan
from pipelines import evaluate, fit_parts, materialize, rolling, study, train
from pipelines.run_files import open_run

pytestmark = pytest.mark.usefixtures("ray_cluster")
NUM_SESSIONS, NUM_SHOPPERS = 200, 25


def config() -> Config:
    return presets.load("tiny", ["train.epochs=1"])


def log_events(lake: Lake, num_sessions: int, first: int = 0) -> None:
    """Sessions an hour apart: a slate of four products, one of them clicked and read."""
    rows = []
    for number in range(first, first + num_sessions):
        own = {"session": f"s{number}", "shopper": f"k{number % NUM_SHOPPERS}"}
        shown = [f"p-{(number + k) % 12:02d}" for k in range(4)]
        at, request = 3600.0 * number, f"r{number}"
        rows += [event(at, "impression", product_id=p, request_id=request, position=k + 1, propensity=0.25, **own) for k, p in enumerate(shown)]
        rows += [event(at + 5, "click", product_id=shown[number % 4], request_id=request, **own)]
        rows += [event(at + 9, "view", product_id=shown[number % 4], stay_ms=500.0 + 100 * (number % 7), depth=1 + number % 3, **own)]
    rows = [{"event_id": f"e{first}-{i:05d}", "created_ts": row["event_ts"]} | row for i, row in enumerate(rows)]
    held = lake.manifest()
    lake.commit(held, [*held.files, *lake.write(Table.EVENTS, frame(rows).to_arrow())], {})


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(root=tmp_path_factory.mktemp("shop"))
    log_events(fill_lake(home), NUM_SESSIONS)
    materialize.run(home, config())
    return home


@pytest.fixture(scope="module")
def trained(shop: Home, ray_cluster: None) -> train.TrainResult:
    return train.run(shop, config())


def test_a_task_without_labels_is_left_out_and_named(shop: Home, trained: train.TrainResult) -> None:
    header = load_guide(Path(trained.fit))[1]
    record = train.FitRecord.model_validate_json((Path(trained.fit) / "fit.json").read_bytes())
    assert header.lambdas == {"recommendation": 1.0, "interest": 1.0, "plan": 0.0}
    assert record.missing == ("plan",)
    assert sorted(path.name for path in Path(trained.fit).glob("controls/*.json")) == ["interest.json", "recommendation.json"]
    assert not any(name.endswith(".plan") for name in trained.metrics)


def test_the_run_keeps_config_losses_by_epoch_and_the_report(shop: Home, trained: train.TrainResult) -> None:
    registry = Registry(shop)
    assert registry.params(trained.run)["train.epochs"] == "1"
    for split in ("train", "val"):
        for term in ("softmax", "click", "interest"):
            assert [step for step, _ in registry.history(trained.run, f"guide.{split}.{term}")] == [0]
    measured = evaluate.run(shop, trained.run)
    assert registry.has_artifact(trained.run, "report")
    assert registry.metrics(trained.run)["test/ndcg_at_10"] == measured.metrics["test/ndcg_at_10"]
    assert "nothing to learn it from" in Path(measured.report).read_text()


def test_epochs_are_tracked_while_training_goes_on_and_once(shop: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes after the last epoch sees both in the run already; an epoch that nobody told is tracked at the end."""
    registry, seen, name = Registry(shop), [], "guide.val.softmax"
    settings = presets.load("tiny", ["train.epochs=2", "train.single_task_controls=false"])

    def looked(*args: object) -> None:
        fit = args[-1]
        assert isinstance(fit, Path)
        seen.append([step for step, _ in registry.history(fit.parent.name, name)])

    monkeypatch.setattr(fit_parts, "keep_complements", looked)
    run_id = train.run(shop, settings).run
    assert seen == [[0, 1]]
    assert [point.step for point in registry.client.get_metric_history(run_id, name)] == [0, 1]
    done = fit_parts.FitDone(fit_parts.Parts(recognizer="", guide="", controls=""), (), 1, {}, ((1, {name: 9.0}), (2, {name: 7.0}), (2, {})))
    train._track_the_rest(registry, run_id, done)
    assert [step for step, _ in registry.history(run_id, name)] == [0, 1, 2]
    assert dict(registry.history(run_id, name))[1] != 9.0


def test_windows_are_trained_on_what_came_before_and_reported_with_intervals(shop: Home) -> None:
    done = CliRunner().invoke(evaluate.command, ["rolling", "--folds", "2", "--preset", "tiny", "--set", "train.epochs=1", "--home", str(shop.root)])
    assert done.exit_code == 0, done.output
    path = Path(json.loads(done.stdout.splitlines()[-1])["report"])
    found = RollingReport.model_validate_json(path.read_bytes())
    assert [fold.dates.test_requests for fold in found.folds] == [30, 30]
    assert found.folds[0].dates.train_end < found.folds[0].dates.test_start < found.folds[0].dates.test_end < found.folds[1].dates.test_start
    assert found.folds[1].dates.train_requests == found.folds[0].dates.train_requests + 30
    assert {"NDCG@10", "click log-loss", "interest squared error"} <= set(found.overall["model"])
    assert found.gain_over["popularity"]["NDCG@10"].n == found.overall["model"]["NDCG@10"].n == 60
    assert "<svg" in path.with_suffix(".html").read_text()
    assert not list(path.parent.glob("fold-*")), "shoppers' rows were left behind"


def test_more_windows_than_the_log_has_are_refused(shop: Home) -> None:
    with pytest.raises(ConfigError, match="at most 5"):
        rolling.run(shop, config(), folds=6)


def test_examples_that_are_gone_are_made_again_as_they_were(shop: Home, trained: train.TrainResult) -> None:
    path = train.examples_path(shop, trained.run)
    before = Examples.load(path)
    path.unlink()
    with open_run(shop, trained.run) as files:
        again = files.examples()
    for column in dataclasses.fields(Examples):
        np.testing.assert_array_equal(getattr(again, column.name), getattr(before, column.name), err_msg=column.name)


def test_features_of_another_snapshot_are_refused_until_they_are_materialized(tmp_path: Path) -> None:
    home = Home(root=tmp_path / "home")
    log_events(fill_lake(home), 20)
    with pytest.raises(NotFoundError, match="guidelens materialize"):
        train.run(home, config())
    materialize.run(home, config())
    log_events(Lake(home.lake_uri), 5, first=20)
    with pytest.raises(InputError, match=r"version 3 of .*, got version 2 of .*guidelens materialize"):
        train.run(home, config())
    assert not (home.root / "mlflow.db").exists(), "a run was opened for a training that was refused"


def test_a_study_leaves_its_page_and_its_figures_in_mlflow(shop: Home, ray_cluster: None) -> None:
    plan = StudyPlan(sharing=("mmoe",), balancing=("fixed", "cagrad"), learning_rates=(2e-3,), lambda_draws=1, finalists=1, seeds=(1, 2))
    found = study.run(shop, config(), plan)
    page = Path(found.study).with_name("study.html").read_text()
    assert found.best in page and "<svg" in page
    recorded = Registry(shop).metrics(found.run)
    assert recorded["delta_m.best"] == found.metrics["delta_m.best"]
    assert Registry(shop).has_artifact(found.run, "study")


def test_a_study_names_a_choice_that_there_is_not(shop: Home) -> None:
    ran = CliRunner().invoke(study.command, ["mtl", "--home", str(shop.root), "--balancing", "fixed,magic"])
    assert isinstance(ran.exception, ConfigError)
    assert "--balancing" in str(ran.exception) and "magic" in str(ran.exception)


def test_a_warm_start_goes_on_where_the_other_run_ended(shop: Home, trained: train.TrainResult) -> None:
    """One more epoch at a tenth of the rate begins below where the first one's training began."""
    warm = train.run(shop, presets.load("tiny", ["train.epochs=1", "train.learning_rate=2e-4", "train.single_task_controls=false"]), warm_start=trained.run)
    assert Registry(shop).tags(warm.run)["warm_start"] == trained.run
    assert warm.metrics["guide.train.softmax"] < trained.metrics["guide.train.softmax"]


@pytest.mark.parametrize("setting", ["train.model.width=32", 'train.extra_tasks={"cart": {"label": "carts"}}'])
def test_a_warm_start_of_another_shape_is_the_callers_mistake_and_known_before_training(
    shop: Home, trained: train.TrainResult, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "FitParts", None)
    with pytest.raises(InputError, match="same shape"):
        train.run(shop, presets.load("tiny", ["train.epochs=1", setting]), warm_start=trained.run)


def test_a_warm_start_from_nothing_is_an_error(shop: Home, trained: train.TrainResult) -> None:
    with pytest.raises(NotFoundError):
        train.run(shop, config(), warm_start="no-such-run")
