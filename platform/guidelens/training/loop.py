"""The Ray Train worker loop: fits a list of models one after another on one set of data, with a checkpoint an epoch.

Every worker reads all rows through its Ray Data shard (the data is not split: a global batch is sliced by index, which is
what makes any number of workers take the same steps) and starts from the last reported checkpoint, if there is one.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray
import ray.train
import torch
import torch.distributed
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from guidelens.config import Config
from guidelens.data.examples import Examples
from guidelens.models.items import Catalogue
from guidelens.schemas.base import Frozen
from guidelens.training.steps import FitData, FitJob, Learner, Place

DATASET = "examples"
PROGRESS = "progress.json"


class EpochLosses(Frozen):
    """Mean of each term of one model after one epoch."""

    job: str
    epoch: int
    train: dict[str, float]
    val: dict[str, float]
    objective: float


class Progress(Frozen):
    """What a checkpoint has done: models that are finished, and how far the current one is (`epochs_done` of it)."""

    finished: tuple[str, ...] = ()
    current: str | None = None
    epochs_done: int = 0
    best: float = float("inf")
    history: tuple[EpochLosses, ...] = ()


@dataclass(frozen=True)
class WorkerTask:
    """Everything a worker gets; the two refs hold a Catalogue and the (frames, queries) embeddings."""

    config: Config
    jobs: tuple[FitJob, ...]
    catalogue: "ray.ObjectRef[Catalogue]"
    embeddings: "ray.ObjectRef[tuple[NDArray[np.float32], NDArray[np.float32]]]"


def worker(loop_config: dict[str, WorkerTask]) -> None:
    """What runs on each worker, from start or from the last checkpoint to the end of all jobs."""
    task = loop_config["task"]
    torch.set_num_threads(task.config.train.num_threads)
    torch.use_deterministic_algorithms(True)
    context = ray.train.get_context()
    place = Place(rank=context.get_world_rank(), num_workers=context.get_world_size())
    data = _read(task)
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        progress = _restore(state)
        for job in task.jobs:
            if job.name not in progress.finished:
                progress = _fit_one(job, data, task, place, progress, state)


def _read(task: WorkerTask) -> FitData:
    shard = ray.train.get_dataset_shard(DATASET)
    tables = list(shard.iter_batches(batch_size=None, batch_format="pyarrow"))
    table = pa.concat_tables(tables).sort_by([("ts_us", "ascending"), ("request_id", "ascending")])
    frames, queries = ray.get(task.embeddings)
    examples = Examples.of_table(table, np.array(frames), np.array(queries))
    return FitData.of(examples, ray.get(task.catalogue), task.config.train.model.num_profile_buckets)


def _reduce(tensor: Tensor) -> None:
    if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        torch.distributed.all_reduce(tensor)


def _fit_one(job: FitJob, data: FitData, task: WorkerTask, place: Place, progress: Progress, state: Path) -> Progress:
    config = task.config
    learner = Learner(job, data, config.train, config.seed, place, _reduce)
    if progress.current == job.name:
        load_learner(learner, state)
    else:
        progress = progress.model_copy(update={"current": job.name, "epochs_done": 0, "best": float("inf")})
    for epoch in range(progress.epochs_done, config.train.epochs):
        train, val = learner.epoch(epoch), learner.validate()
        losses = EpochLosses(job=job.name, epoch=epoch, train=train, val=val, objective=learner.objective(val or train))
        improved = losses.objective < progress.best
        is_last = epoch + 1 == config.train.epochs
        progress = Progress(
            finished=(*progress.finished, job.name) if is_last else progress.finished,
            current=None if is_last else job.name,
            epochs_done=0 if is_last else epoch + 1,
            best=min(progress.best, losses.objective),
            history=(*progress.history, losses),
        )
        if improved:
            save_file(learner.model.state_dict(), state / f"{job.name}.safetensors")
        _report(learner, progress, losses, place, state)
    return progress


def _report(learner: Learner, progress: Progress, losses: EpochLosses, place: Place, state: Path) -> None:
    metrics = {"job": losses.job, "epoch": losses.epoch, "objective": losses.objective}
    if place.rank != 0:
        ray.train.report(metrics)
        return
    save_learner(learner, state)
    (state / PROGRESS).write_text(progress.model_dump_json())
    ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(str(state)))


def _restore(state: Path) -> Progress:
    """Copies the last checkpoint's files to `state`; the start where there is none."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return Progress()
    checkpoint.to_directory(str(state))
    return read_progress(state)


def read_progress(folder: Path) -> Progress:
    return Progress.model_validate(json.loads((folder / PROGRESS).read_text()))


def save_learner(learner: Learner, folder: Path) -> None:
    """Weights and AdamW's state as safetensors, so that going on takes the very steps that not stopping would have taken."""
    save_file(learner.model.state_dict(), folder / "current.safetensors")
    moments = {}
    for index, parameter in enumerate(learner.model.parameters()):
        for name, value in learner.optimizer.state.get(parameter, {}).items():
            moments[f"{index}.{name}"] = value.contiguous()
    save_file(moments, folder / "optimizer.safetensors")


def load_learner(learner: Learner, folder: Path) -> None:
    """Puts back what `save_learner` wrote."""
    learner.model.load_state_dict(load_file(folder / "current.safetensors"))
    parameters = list(learner.model.parameters())
    for key, value in load_file(folder / "optimizer.safetensors").items():
        index, name = key.split(".")
        learner.optimizer.state[parameters[int(index)]][name] = value
