"""Training on a real local Ray: one worker equals two, and a killed worker changes nothing."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import ray.util
import torch
from model_samples import sample_catalogue, sample_config, sample_examples
from safetensors.torch import load_file

from guidelens.config import TASKS, Config
from guidelens.errors import ConfigError, DivergedError, GuideLensError
from guidelens.training.data import FitJob
from guidelens.training.fit import Fitted, fit_guide
from guidelens.training.loop import EpochLosses
from guidelens.training.trials import Trial, run_trials

pytestmark = pytest.mark.usefixtures("ray_cluster")
NUM_ROWS = 240


def config_of(num_workers: int, epochs: int = 6) -> Config:
    config = sample_config()
    return config.model_copy(update={"train": config.train.model_copy(update={"num_workers": num_workers, "epochs": epochs})})


def fit(folder: Path, config: Config, names: tuple[str, ...] = ("guide",)) -> Fitted:
    jobs = [FitJob(name=name, lambdas={task: float(name in ("guide", task)) for task in TASKS}, model=config.train.model) for name in names]
    return fit_guide(sample_examples(NUM_ROWS), sample_catalogue(), config, jobs, folder)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Fitted:
    return fit(tmp_path_factory.mktemp("undisturbed"), config_of(1), ("guide", "interest"))


def test_one_worker_equals_two_at_one_global_batch(undisturbed: Fitted, tmp_path: Path) -> None:
    two = fit(tmp_path, config_of(2), ("guide", "interest"))
    assert [(losses.job, losses.epoch) for losses in two.history] == [(losses.job, losses.epoch) for losses in undisturbed.history]
    for mine, other in zip(two.history, undisturbed.history, strict=True):
        assert mine.train == pytest.approx(other.train, rel=1e-5)
        assert mine.val == pytest.approx(other.val, rel=1e-4)


def test_workers_that_own_rows_train_as_one_that_has_all_and_leave_whole_weights(undisturbed: Fitted, tmp_path: Path) -> None:
    config = config_of(2)
    config = config.model_copy(update={"train": config.train.model_copy(update={"sharding": "rows"})})
    owned = fit(tmp_path, config, ("guide", "interest"))
    for mine, other in zip(owned.history, undisturbed.history, strict=True):
        assert mine.train == pytest.approx(other.train, rel=1e-5)
        assert mine.val == pytest.approx(other.val, rel=1e-4)
    for name, path in owned.weights.items():
        weights, expected = load_file(path), load_file(undisturbed.weights[name])
        assert weights.keys() == expected.keys()
        assert all(torch.allclose(weights[key], expected[key], atol=2e-4) for key in weights), name


def test_each_epoch_is_told_once_and_in_order(tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []
    config = config_of(2, epochs=2)
    job = FitJob(name="guide", lambdas=dict.fromkeys(TASKS, 1.0), model=config.train.model)
    fitted = fit_guide(sample_examples(NUM_ROWS), sample_catalogue(), config, [job], tmp_path, lambda losses: told.append((losses.job, losses.epoch)))
    assert told == [("guide", 0), ("guide", 1)]
    assert len(fitted.history) == 2


def test_an_interrupt_ends_training_as_any_other_program_and_its_handler_stays(tmp_path: Path) -> None:
    """Ray Train's own handler would end the process with status 0, there and at any later interrupt."""
    before = signal.getsignal(signal.SIGINT)
    config = config_of(1, epochs=60)
    job = FitJob(name="guide", lambdas=dict.fromkeys(TASKS, 1.0), model=config.train.model)
    with pytest.raises(KeyboardInterrupt):
        fit_guide(sample_examples(NUM_ROWS), sample_catalogue(), config, [job], tmp_path, lambda _losses: os.kill(os.getpid(), signal.SIGINT))
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_ends_a_study_and_frees_what_it_held(tmp_path: Path) -> None:
    before = placement_groups()
    config = config_of(1)
    job = FitJob(name="guide", lambdas=dict.fromkeys(TASKS, 1.0), model=config.train.model)
    trials = [Trial(name=f"seed {seed}", job=job, train=config.train, seed=seed) for seed in range(6)]
    with pytest.raises(KeyboardInterrupt):
        run_trials(sample_examples(NUM_ROWS), sample_catalogue(), trials, tmp_path, lambda _result: os.kill(os.getpid(), signal.SIGINT))
    assert placement_groups() == before


def placement_groups() -> set[str]:
    """Those that hold, or wait for, something."""
    return {one for one, state in ray.util.placement_group_table().items() if state["state"] != "REMOVED"}


def test_a_killed_worker_is_replaced_and_the_result_is_the_undisturbed_one(undisturbed: Fitted, tmp_path: Path) -> None:
    """SIGKILL as soon as the first checkpoint lies there; the weights then are equal bit for bit."""
    with killing(tmp_path) as killed:
        fitted = fit(tmp_path, config_of(1), ("guide", "interest"))
    assert killed, "training ended before a worker could be killed"
    assert_same(fitted, undisturbed)


def test_a_run_that_failed_goes_on_from_its_last_checkpoint(undisturbed: Fitted, tmp_path: Path) -> None:
    """Without a failure to spare the killed run ends in an error; fitting again in its folder gives the undisturbed weights."""
    config = config_of(1)
    config = config.model_copy(update={"train": config.train.model_copy(update={"max_failures": 0})})
    with killing(tmp_path) as killed, pytest.raises(GuideLensError, match="max_failures"):
        fit(tmp_path, config, ("guide", "interest"))
    assert killed
    fitted = fit(tmp_path, config, ("guide", "interest"))
    assert_same(fitted, undisturbed)


def test_a_model_that_diverges_ends_training_with_what_to_change(tmp_path: Path) -> None:
    """Nothing is tried again, since it would do the same; a later start in the folder says so at once."""
    config = config_of(1)
    config = config.model_copy(update={"train": config.train.model_copy(update={"learning_rate": 1e9})})
    for _ in range(2):
        with pytest.raises(DivergedError, match=r"training of guide must keep its losses finite, got .*nan.*; lower train\.learning_rate \(1e\+09\)"):
            fit(tmp_path, config)


def assert_same(fitted: Fitted, undisturbed: Fitted) -> None:
    for name in ("guide", "interest"):
        mine, other = load_file(fitted.weights[name]), load_file(undisturbed.weights[name])
        assert mine.keys() == other.keys()
        assert all(torch.equal(mine[key], other[key]) for key in mine), name
    assert [untimed(losses) for losses in fitted.history] == [untimed(losses) for losses in undisturbed.history]


def untimed(losses: EpochLosses) -> EpochLosses:
    """Without the seconds that a step took, which no two runs share."""
    return losses.model_copy(update={"signals": {name: value for name, value in losses.signals.items() if "_seconds" not in name}})


@contextmanager
def killing(folder: Path) -> Iterator[list[int]]:
    """A worker is killed as soon as the folder holds a checkpoint; yields its process id, once it is."""
    killed: list[int] = []
    done = threading.Event()
    killer = threading.Thread(target=_kill_a_worker, args=(folder, killed, done))
    killer.start()
    try:
        yield killed
    finally:
        done.set()
        killer.join()


def _kill_a_worker(folder: Path, killed: list[int], done: threading.Event) -> None:
    """Looks for workers all the time, as that takes as long as a few epochs do; not for those that an interrupted training may not have ended yet."""
    earlier = _workers()
    while not done.is_set():
        workers = sorted(_workers() - earlier)
        if workers and any(folder.glob("train/checkpoint*/progress.json")):
            os.kill(workers[0], signal.SIGKILL)
            killed.append(workers[0])
            return
        time.sleep(0.02)


def _workers() -> set[int]:
    return {process.pid for process in psutil.Process(os.getpid()).children(recursive=True) if _is_worker(process)}


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "RayTrainWorker" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def test_workers_placed_on_gpus_can_compute_on_the_cpu_and_stop_early(undisturbed: Fitted, tmp_path: Path) -> None:
    """Logical GPUs stand in for real ones; training of a model ends once an epoch brings nothing better."""
    config = config_of(2, epochs=6)
    train = config.train.model_copy(update={"use_gpu": True, "device": "cpu", "patience": 1, "learning_rate": 1e-20, "weight_decay": 0.0})
    fitted = fit(tmp_path, config.model_copy(update={"train": train}))
    objectives = [losses.objective for losses in fitted.history]
    assert len(objectives) == 2
    assert objectives[1] == objectives[0]


def test_gpus_that_this_torch_cannot_use_are_an_error_that_says_so(tmp_path: Path) -> None:
    config = config_of(1)
    config = config.model_copy(update={"train": config.train.model_copy(update={"use_gpu": True})})
    with pytest.raises(ConfigError, match=r"train\.use_gpu"):
        fit(tmp_path, config)


def test_elastic_training_ends_as_training_with_one_worker_does(undisturbed: Fitted, tmp_path: Path) -> None:
    config = config_of(2)
    config = config.model_copy(update={"train": config.train.model_copy(update={"min_workers": 1})})
    elastic = fit(tmp_path, config, ("guide", "interest"))
    for mine, other in zip(elastic.history, undisturbed.history, strict=True):
        assert mine.train == pytest.approx(other.train, rel=1e-5)
