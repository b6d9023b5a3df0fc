"""Learners on the small shop of model_samples, alone or as several workers in threads."""

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from model_samples import sample_catalogue, sample_config, sample_examples
from torch import Tensor

from guidelens.config import Config, ExtraTask, TaskName, TrainConfig
from guidelens.training.data import FitData, FitJob, Place
from guidelens.training.learner import Learner

EVERYTHING: dict[TaskName, float] = {"recommendation": 1.0, "interest": 1.0, "plan": 1.0}
Found = TypeVar("Found")


def alone(_tensor: Tensor) -> None:
    """What one worker sums over all workers."""


def with_train(**settings: object) -> Config:
    """`sample_config` with fields of TrainConfig by keyword."""
    config = sample_config()
    return config.model_copy(update={"train": TrainConfig.model_validate({**config.train.model_dump(), **settings})})


def learner(
    config: Config,
    lambdas: dict[TaskName, float] | None = None,
    place: Place | None = None,
    reduce: Callable[[Tensor], None] = alone,
    extra: dict[str, ExtraTask] | None = None,
) -> Learner:
    data = FitData.of(sample_examples(120), sample_catalogue(), config.train.model.num_profile_buckets)
    job = FitJob(name="guide", lambdas=lambdas or EVERYTHING, model=config.train.model, extra=extra or {})
    return Learner(job, data, config.train, 0, place or Place(), reduce)


class Together:
    """An all-reduce of threads: every worker adds its tensor, all get the sum, in rank order."""

    def __init__(self, num_workers: int) -> None:
        self.num_workers = num_workers
        self.barrier = threading.Barrier(num_workers)
        self.parts: list[Tensor | None] = [None] * num_workers

    def place(self, rank: int) -> Place:
        return Place(rank=rank, num_workers=self.num_workers)

    def reduce_of(self, rank: int) -> Callable[[Tensor], None]:
        def reduce(tensor: Tensor) -> None:
            self.parts[rank] = tensor.clone()
            self.barrier.wait(60)
            total = torch.stack([part for part in self.parts if part is not None]).sum(0)
            self.barrier.wait(60)
            tensor.copy_(total)

        return reduce


def in_threads(works: Sequence[Callable[[], Found]]) -> list[Found]:
    """What each work returns, all of them at once; the first error of any is raised."""
    found: dict[int, Found] = {}
    failed: list[BaseException] = []

    def run(number: int) -> None:
        try:
            found[number] = works[number]()
        except Exception as error:  # noqa: BLE001 - raised below, in the caller's thread
            failed.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    if failed:
        raise failed[0]
    return [found[number] for number in range(len(works))]
