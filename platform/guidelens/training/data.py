"""What a fit is given: the models to fit, all rows as tensors, and this worker's place among all. Pure torch: knows nothing of Ray."""

# Letters: R = rows, S = MAX_STEPS, A = NUM_STEPS, V = values of a visit.

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from guidelens.config import TASKS, ExtraTask, ModelConfig, TaskName, TrainConfig
from guidelens.data.examples import Examples, visit_medians
from guidelens.models.inputs import ContextInputs, PlanInputs, SlateInputs, context_inputs, plan_inputs, slate_inputs
from guidelens.models.items import Catalogue
from guidelens.models.losses import TERM_TASK, TERMS
from guidelens.models.strategist import allowed_at_each
from guidelens.schemas.base import Frozen


class FitJob(Frozen):
    """One model to fit on the shared data: its name, its task weights (0: left out), its shape, and the tasks beside the three."""

    name: str
    lambdas: dict[TaskName, float]
    model: ModelConfig
    extra: dict[str, ExtraTask] = {}

    @property
    def weights(self) -> dict[str, float]:
        """The lambda of each task that is in, in a fixed order."""
        every: dict[str, float] = {task: self.lambdas[task] for task in TASKS} | {name: task.weight for name, task in self.extra.items()}
        return {task: weight for task, weight in every.items() if weight > 0}

    @property
    def terms(self) -> tuple[str, ...]:
        """Every term the losses are counted in, whether its task is in or not."""
        return (*TERMS, *self.extra)

    @property
    def learns_slates(self) -> bool:
        return bool(self.weights.keys() - {"plan"})


def task_of(term: str) -> str:
    """The task a term belongs to; an extra task is its own only term."""
    return TERM_TASK.get(term, term)


def controls(config: TrainConfig, tasks: Sequence[TaskName] = TASKS) -> list[FitJob]:
    """The single-task controls of `tasks`: the same data and shape, one task's weight 1, the others 0."""
    own = config.model.model_copy(update={"sharing": "single_task", "num_expert_levels": 1})
    return [FitJob(name=task, lambdas={other: float(other == task) for other in TASKS}, model=own) for task in tasks]


class Place(Frozen):
    """This worker among all."""

    rank: int = 0
    num_workers: int = 1

    def slice_of(self, num_rows: int) -> slice:
        """Its contiguous part of `num_rows` rows; parts differ by at most one row."""
        edges = [num_rows * k // self.num_workers for k in range(self.num_workers + 1)]
        return slice(edges[self.rank], edges[self.rank + 1])


@dataclass(frozen=True)
class FitData:
    """All rows of a fit as tensors, and which of them each split and task has.

    allowed_RSA: the grammar's mask before each step of the plans. medians_V: of the training part's non-zero visit values.
    """

    catalogue: Catalogue
    context: ContextInputs
    slates: SlateInputs
    plans: PlanInputs
    allowed_RSA: Tensor
    visits_RKV: Tensor
    medians_V: Tensor
    frames: Tensor
    queries: Tensor
    has_slate: NDArray[np.bool_]
    has_plan: NDArray[np.bool_]
    split: NDArray[np.object_]

    @classmethod
    def of(cls, examples: Examples, catalogue: Catalogue, num_profile_buckets: int) -> "FitData":
        plans = plan_inputs(examples, catalogue)
        return cls(
            catalogue=catalogue,
            context=context_inputs(examples, catalogue, num_profile_buckets),
            slates=slate_inputs(examples),
            plans=plans,
            allowed_RSA=allowed_at_each(plans),
            visits_RKV=torch.from_numpy(examples.visit_values),
            medians_V=torch.from_numpy(visit_medians(examples.of("train"))),
            frames=torch.from_numpy(examples.frames),
            queries=torch.from_numpy(examples.queries),
            has_slate=np.asarray((examples.slate_rows >= 0).any(axis=1)),
            has_plan=examples.targets.sum(axis=(1, 2)) > 0,
            split=examples.split,
        )

    def to(self, device: torch.device) -> "FitData":
        """Every tensor on `device`; the arrays that choose rows stay where they are."""
        return dataclasses.replace(self, **{field.name: _moved(getattr(self, field.name), device) for field in dataclasses.fields(self)})

    def rows(self, split: str, job: FitJob) -> NDArray[np.int64]:
        """Rows of a split that hold a label for a task that is in."""
        wanted = (self.has_slate & job.learns_slates) | (self.has_plan & (job.lambdas["plan"] > 0))
        return np.flatnonzero((self.split == split) & wanted)


def _moved(value: Any, device: torch.device) -> Any:
    """A tensor, or a dataclass of tensors, on `device`; anything else as it is."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, ContextInputs | SlateInputs | PlanInputs):
        return dataclasses.replace(value, **{field.name: getattr(value, field.name).to(device) for field in dataclasses.fields(value)})
    return value
