"""The Ray Train worker loop: fits a list of models one after another on one set of data, with a checkpoint an epoch.

Every worker maps all rows from the object store, where a host has them once (the data is not split: a global batch is sliced by index, which is
what makes any number of workers take the same steps), and starts from the last reported checkpoint, if there is one.
"""

import json
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray
import ray.train
import torch
import torch.distributed
from numpy.typing import NDArray
from torch import Tensor

from guidelens.config import Config, TrainConfig
from guidelens.data.examples import Examples
from guidelens.errors import DivergedError
from guidelens.models.guide import GuideModel
from guidelens.models.items import Catalogue
from guidelens.schemas.base import Frozen
from guidelens.training.checkpoints import load_learner, save_learner, save_weights
from guidelens.training.data import FitData, FitJob, Place
from guidelens.training.device import compute_repeatably, keep_freed_memory, worker_device
from guidelens.training.following import PROGRESS
from guidelens.training.learner import Learner, new_model
from guidelens.training.warm_start import WarmStart, warm


class EpochLosses(Frozen):
    """Mean of each term of one model after one epoch. signals: what `Learner.signals` measured, by name."""

    job: str
    epoch: int
    train: dict[str, float]
    val: dict[str, float]
    objective: float
    signals: dict[str, float] = {}


class Progress(Frozen, ser_json_inf_nan="constants"):
    """What a checkpoint has done: models that are finished, and how far the current one is (`epochs_done` of it, the last
    `epochs_worse` of them without a better objective). diverged: why training was given up; going on would only do the same again."""

    finished: tuple[str, ...] = ()
    current: str | None = None
    epochs_done: int = 0
    epochs_worse: int = 0
    best: float = float("inf")
    history: tuple[EpochLosses, ...] = ()
    diverged: str = ""


@dataclass(frozen=True)
class WorkerTask:
    """Everything a worker gets; the refs hold a Catalogue, the examples' (table, frames, queries), and by model name what it goes on from."""

    config: Config
    jobs: tuple[FitJob, ...]
    catalogue: "ray.ObjectRef[Catalogue]"
    examples: "ray.ObjectRef[tuple[pa.Table, NDArray[np.float32], NDArray[np.float32]]]"
    starts: "ray.ObjectRef[dict[str, WarmStart]]"


def worker(loop_config: dict[str, WorkerTask]) -> None:
    """What runs on each worker, from start or from the last checkpoint to the end of all jobs."""
    task = loop_config["task"]
    compute_repeatably(task.config.train.num_threads)
    keep_freed_memory()
    context = ray.train.get_context()
    place = Place(rank=context.get_world_rank(), num_workers=context.get_world_size())
    data = _read(task)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:  # a folder of the Ray session, with which it goes even where this process is killed
        state = Path(folder)
        progress = _restore(state)
        for job in task.jobs:
            if job.name not in progress.finished and not progress.diverged:
                progress = _fit_one(job, data, task, place, progress, state)


def _read(task: WorkerTask) -> FitData:
    table, frames, queries = ray.get(task.examples)
    examples = Examples.of_table(table, np.array(frames), np.array(queries))
    data = FitData.of(examples, ray.get(task.catalogue), task.config.train.model.num_profile_buckets)
    return data.to(worker_device(task.config.train))


def _reduce(tensor: Tensor) -> None:
    if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        torch.distributed.all_reduce(tensor)


def _fit_one(job: FitJob, data: FitData, task: WorkerTask, place: Place, progress: Progress, state: Path) -> Progress:
    config = task.config
    learner = Learner(job, data, config.train, config.seed, place, _reduce, _started(job, data, task))
    if progress.current == job.name:
        load_learner(learner, state)
    else:
        progress = progress.model_copy(update={"current": job.name, "epochs_done": 0, "epochs_worse": 0, "best": float("inf")})
    while progress.current == job.name:
        epoch, start = progress.epochs_done, time.perf_counter()
        train = learner.epoch(epoch)
        seconds = {"epoch_seconds": time.perf_counter() - start}
        val = learner.validate()
        try:
            objective = learner.objective(val or train)
        except DivergedError as error:
            progress = progress.model_copy(update={"diverged": str(error)})
            _report(learner, progress, {"job": job.name, "epoch": epoch}, place, state)
            break
        signals = {**learner.signals(), **seconds} if config.train.telemetry else {}
        losses = EpochLosses(job=job.name, epoch=epoch, train=train, val=val, objective=objective, signals=signals)
        if losses.objective < progress.best:
            save_weights(learner, state / f"{job.name}.safetensors")
        progress = _after(progress, losses, config.train)
        _report(learner, progress, {"job": losses.job, "epoch": losses.epoch, "objective": losses.objective}, place, state)
    return progress


def _started(job: FitJob, data: FitData, task: WorkerTask) -> GuideModel | None:
    """The model a warm start gives this job, or None where it starts from seeded weights."""
    start = ray.get(task.starts).get(job.name)
    return None if start is None else warm(new_model(job, data, task.config.seed), start, data.catalogue.product_ids)


def _after(progress: Progress, losses: EpochLosses, config: TrainConfig) -> Progress:
    """One epoch further; the model is finished with its last epoch, or once `train.patience` epochs brought nothing better."""
    worse = 0 if losses.objective < progress.best else progress.epochs_worse + 1
    is_last = losses.epoch + 1 == config.epochs or (config.patience > 0 and worse >= config.patience)
    return Progress(
        finished=(*progress.finished, losses.job) if is_last else progress.finished,
        current=None if is_last else losses.job,
        epochs_done=0 if is_last else losses.epoch + 1,
        epochs_worse=0 if is_last else worse,
        best=min(progress.best, losses.objective),
        history=(*progress.history, losses),
    )


def _report(learner: Learner, progress: Progress, metrics: dict[str, str | float], place: Place, state: Path) -> None:
    save_learner(learner, state)
    if place.rank != 0:
        ray.train.report(metrics, checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC)  # else it waits until the controller polls
        return
    (state / PROGRESS).write_text(progress.model_dump_json())
    snapshot = tempfile.mkdtemp(prefix="checkpoint-", dir=Path.cwd())
    shutil.copytree(state, snapshot, dirs_exist_ok=True)
    ray.train.report(
        metrics,
        checkpoint=ray.train.Checkpoint.from_directory(snapshot),
        checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC,
        delete_local_checkpoint_after_upload=True,
    )


def _restore(state: Path) -> Progress:
    """Copies the last checkpoint's files to `state`; the start where there is none."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return Progress()
    checkpoint.to_directory(str(state))
    return read_progress(state)


def read_progress(folder: Path) -> Progress:
    return Progress.model_validate(json.loads((folder / PROGRESS).read_text()))
