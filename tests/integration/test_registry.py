"""The registry on a real MLflow: sqlite, a local artifact folder, two processes."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from guidelens import presets
from guidelens.config import Home
from guidelens.errors import NotFoundError
from guidelens.registry import CHALLENGER, CHAMPION, Registry, flatten_params


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry(Home(root=tmp_path_factory.mktemp("registry") / "home"))


@pytest.fixture(scope="module")
def run_id(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> str:
    run_id = registry.start_run("train", flatten_params(presets.tiny()), {"lake": "/somewhere", "manifest_version": "3"})
    folder = tmp_path_factory.mktemp("files")
    (folder / "sub").mkdir()
    (folder / "sub" / "a.txt").write_text("hello")
    registry.log_folder(run_id, folder, "bundle")
    return run_id


def test_a_run_keeps_its_whole_config_and_its_lambdas(registry: Registry, run_id: str) -> None:
    params = registry.params(run_id)
    assert params["train.lambdas.plan"] == "1.0"
    assert params["train.model.width"] == "16"
    assert len(params) == len(flatten_params(presets.tiny()))


def test_tags_come_back_without_mlflows_own(registry: Registry, run_id: str) -> None:
    assert registry.tags(run_id) == {"lake": "/somewhere", "manifest_version": "3"}


def test_a_metrics_history_is_by_step_and_the_last_value_of_a_repeated_step_counts(registry: Registry, run_id: str) -> None:
    for step, value in ((0, 3.0), (1, 2.0), (2, 1.5)):
        registry.log_metrics(run_id, {"train/loss": value}, step=step)
    registry.log_metrics(run_id, {"train/loss": 1.25}, step=2)
    assert registry.history(run_id, "train/loss") == [(0, 3.0), (1, 2.0), (2, 1.25)]
    assert registry.metrics(run_id)["train/loss"] == 1.25


def test_a_failed_run_says_so_and_a_reopened_one_runs_again(registry: Registry) -> None:
    run_id = registry.start_run("train", {}, {})
    registry.finish(run_id, "FAILED")
    assert registry.status(run_id) == "FAILED"
    registry.reopen(run_id)
    assert registry.status(run_id) == "RUNNING"
    registry.finish(run_id)
    assert registry.status(run_id) == "FINISHED"


def test_artifacts_come_back_as_they_went_in(registry: Registry, run_id: str, tmp_path: Path) -> None:
    assert (registry.download(run_id, "bundle", tmp_path) / "sub" / "a.txt").read_text() == "hello"


def test_missing_runs_artifacts_and_versions_are_named(registry: Registry, run_id: str, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"run nobody does not exist; `mlflow ui --backend-store-uri sqlite:.*` shows those"):
        registry.params("nobody")
    with pytest.raises(NotFoundError, match="weights"):
        registry.download(run_id, "weights", tmp_path)
    with pytest.raises(NotFoundError, match="release 99"):
        registry.version("99")


def test_two_versions_of_one_run_and_an_alias_that_moves(registry: Registry, run_id: str) -> None:
    first, second = registry.register(run_id), registry.register(run_id)
    assert int(second) == int(first) + 1
    assert registry.alias(CHAMPION) is None
    registry.set_alias(CHAMPION, first)
    registry.set_alias(CHALLENGER, second)
    assert registry.resolve("champion") == first
    assert registry.resolve(second) == second
    registry.set_alias(CHAMPION, second)
    assert registry.version(second).aliases == (CHALLENGER, CHAMPION)
    registry.tag_version(second, {"gate": "passed"})
    assert registry.version(second).tags == {"gate": "passed"}
    registry.remove_alias(CHALLENGER)
    registry.remove_alias(CHALLENGER)
    assert registry.alias(CHALLENGER) is None


def test_a_home_without_a_registry_has_no_versions_and_is_not_created(tmp_path: Path) -> None:
    registry = Registry(Home(root=tmp_path / "none"))
    assert registry.versions() == []
    assert registry.alias(CHAMPION) is None
    with pytest.raises(NotFoundError, match="guidelens train"):
        registry.params("x")
    assert not (tmp_path / "none").exists()


def test_it_travels_to_another_process_without_its_client(registry: Registry, run_id: str) -> None:
    assert pickle.loads(pickle.dumps(registry)).tags(run_id)["manifest_version"] == "3"  # noqa: S301


_OPEN = "import sys, pathlib; from guidelens.config import Home; from guidelens.registry import Registry; print(Registry(Home(root=pathlib.Path(sys.argv[1]))).start_run('r', {}, {}))"


def test_two_processes_open_a_new_home_at_once_and_stay_quiet(tmp_path: Path) -> None:
    starts = [
        subprocess.Popen([sys.executable, "-c", _OPEN, str(tmp_path / "home")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    ended = [process.communicate(timeout=120) for process in starts]
    assert [process.returncode for process in starts] == [0, 0], ended
    runs = {out.strip() for out, _ in ended}
    assert len(runs) == 2
    assert [err for _, err in ended] == ["", ""]
    assert all(Registry(Home(root=tmp_path / "home")).status(run) == "RUNNING" for run in runs)
