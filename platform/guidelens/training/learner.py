"""One training step, one validation pass: what every worker does with its slice of the same seeded global batch.

Losses are sums over a worker's rows divided by the counts of the whole global batch, and gradients are summed over workers, so
that any number of workers, and any number of parts that a batch is taken in, makes the same step. Knows nothing of Ray.
"""

# Letters: G = rows of the global batch, T = tasks, P = shared weights (flat).

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from guidelens.config import TrainConfig
from guidelens.errors import DivergedError
from guidelens.models.balancing import build_balancer
from guidelens.models.guide import GuideModel, GuideSpec
from guidelens.models.losses import TERM_WEIGHT, Term
from guidelens.models.noise import Noise
from guidelens.schemas.ids import sub_seed
from guidelens.training.data import FitData, FitJob, Place, task_of
from guidelens.training.gradients import Gradients, Reduce
from guidelens.training.sharding import Shares, keep_own_rows
from guidelens.training.telemetry import StepClock, conflict_signals, expert_signals, task_gradients
from guidelens.training.terms import Terms

PACE = "pace"
"""Of an optimizer's group: how many times the learning rate its weights learn at."""
WARMUP_SHARE = 0.05
MAX_GRADIENT_NORM = 5.0
VALIDATION_ROWS, VALIDATION_CELLS = 1024, 1 << 26


def new_model(job: FitJob, data: FitData, seed: int) -> GuideModel:
    """A model with seeded weights whose reducers are fitted to the catalogue and the frames of the training part."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sub_seed(seed, "model"))
        model = GuideModel(job.model, GuideSpec(num_products=len(data.catalogue), extra_tasks=tuple(job.extra)))
    seen = data.context.frame_R.cpu().numpy()[data.split == "train"]
    frames = data.frames.cpu().numpy()[np.unique(seen[seen >= 0])]
    model.image.fit(np.concatenate([data.catalogue.image_NE[data.catalogue.has_image_N], frames]))
    model.text.fit(np.concatenate([data.catalogue.text_NE, data.catalogue.text_zh_NE[data.catalogue.has_zh_N]]))
    return model


class Learner:
    """A model, its optimizer and its place in the schedule; `step`, `validate` and `signals` are called by every worker alike.

    Args:
        reduce: sums a tensor over all workers, in place.
        model: goes on from these weights; seeded ones by default.
    """

    def __init__(self, job: FitJob, data: FitData, config: TrainConfig, seed: int, place: Place, reduce: Reduce, model: GuideModel | None = None) -> None:
        self.job, self.data, self.config, self.seed, self.place, self.reduce = job, data, config, sub_seed(seed, job.name), place, reduce
        self.device = data.frames.device
        self.model = new_model(job, data, seed) if model is None else model
        self.owns_rows = config.sharding == "rows" and place.num_workers > 1
        if self.owns_rows:
            keep_own_rows(self.model, place)
        self.model.to(self.device)
        self.terms = Terms(job, data, self.model, Shares(place, reduce, self.owns_rows) if place.num_workers > 1 else None)
        self.tasks = tuple(job.weights)
        self.optimizers = self._optimizers()
        self.balancer = build_balancer(config.balancing, [_is_regression(job, task) for task in self.tasks]).to(self.device)
        own = list(self.balancer.parameters())
        self.balancer_optimizer = torch.optim.Adam(own, lr=config.balancing.rate) if own else None
        self.train_rows, self.val_rows = data.rows("train", job), data.rows("val", job)
        self.steps_per_epoch = max(1, math.ceil(len(self.train_rows) / config.global_batch_size))
        self.clock = StepClock()
        self._shared = list(self.model.shared_parameters().values())
        self._combines = self.balancer.needs_gradients and len(self.tasks) > 1
        self._gradients: Gradients | None = None

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        """AdamW; where a step touches a part of the catalogue only, Adam on the touched id vectors, which do not decay."""
        config, ids, likeness = self.config, self.model.tower.ids.weight, self.model.similarity
        apart = [likeness, ids] if self.terms.is_large else [likeness]
        others = [parameter for parameter in self.model.parameters() if all(parameter is not one for one in apart)]
        groups = [{"params": others, PACE: 1.0}, {"params": [likeness], PACE: config.likeness_pace}]
        dense = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
        if not self.terms.is_large:
            return [dense]
        return [dense, torch.optim.SparseAdam([{"params": [ids], PACE: 1.0}], lr=config.learning_rate)]

    def epoch(self, epoch: int) -> dict[str, float]:
        """One pass over the training rows; the mean of each term."""
        order = np.random.default_rng(sub_seed(self.seed, f"epoch {epoch}")).permutation(self.train_rows)
        sums = torch.zeros(2, len(self.job.terms), dtype=torch.float64)
        for index in range(self.steps_per_epoch):
            rows = order[index * self.config.global_batch_size : (index + 1) * self.config.global_batch_size]
            sums += self.step(rows, epoch * self.steps_per_epoch + index)
        means = self._means(sums)
        self.balancer.epoch_ended(torch.tensor([self._task_mean(task, means) for task in self.tasks]))
        return means

    def step(self, rows_G: NDArray[np.int64], step: int) -> Tensor:
        """Updates the weights from one global batch; (2, terms) float64 sums and counts over all workers."""
        if self._gradients is None:
            self.model.zero_grad(set_to_none=True)
        else:
            self._gradients.clear()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group[PACE] * self.config.learning_rate * self._schedule(step)
        counts = self.terms.counts(rows_G)
        totals = torch.zeros(len(self.job.terms), device=self.device)
        gradients_TP: Tensor | None = None
        for part in self._parts(len(rows_G)):
            with self.clock.part("forward"):
                terms = self._terms(rows_G, part, step)
            losses = self._losses(terms, counts)
            totals += self._totals(terms)
            with self.clock.part("backward"):
                found_TP = self._backward(losses)
            gradients_TP = found_TP if gradients_TP is None or found_TP is None else gradients_TP + found_TP
        with self.clock.part("workers"):
            self._gradients = gradients = self._gradients or self._found_gradients()
            if self.place.num_workers > 1:
                gradients.sum_over_workers(self.reduce, totals, *(() if gradients_TP is None else (gradients_TP,)))
        with self.clock.part("optimizer"):
            if gradients_TP is not None:
                gradients.set_combined(self.balancer.combine(gradients_TP, sub_seed(self.seed, f"balance {step}")))
            gradients.clip(MAX_GRADIENT_NORM)
            for optimizer in self.optimizers:
                optimizer.step()
            self._balance(rows_G, step, self._global_losses(totals, counts))
        return torch.stack([totals.double().cpu(), torch.tensor([counts[name] for name in self.job.terms], dtype=torch.float64)])

    def _parts(self, num_rows: int) -> Iterator[slice]:
        """This worker's slice of a global batch, in pieces of at most `train.micro_batch_size` rows: as many on every worker, some empty, as
        they exchange within each."""
        mine = self.place.slice_of(num_rows)
        most = max(1, math.ceil(num_rows / self.place.num_workers))
        size = self.config.micro_batch_size or most
        for start in range(mine.start, mine.start + most, size):
            yield slice(min(start, mine.stop), min(start + size, mine.stop))

    def _terms(self, rows_G: NDArray[np.int64], part: slice, step: int | None) -> dict[str, Term]:
        """The terms of a part of a batch; with the step's noise, or without any where step is None."""
        noise = None if step is None else Noise(sub_seed(self.seed, f"step {step}"), len(rows_G), part, self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            return self.terms(rows_G, part, noise)

    def _losses(self, terms: dict[str, Term], counts: dict[str, float]) -> dict[str, Tensor]:
        """Each task's lambda x L, as far as these rows go."""
        parts: dict[str, list[Tensor]] = {task: [] for task in self.tasks}
        for name, term in terms.items():
            weight = self.job.weights[task_of(name)] * TERM_WEIGHT.get(name, 1.0) / max(counts[name], 1.0)
            parts[task_of(name)].append(term.total * weight)
        return {task: torch.stack(found).sum() for task, found in parts.items()}

    def _backward(self, losses: dict[str, Tensor]) -> Tensor | None:
        """Adds these rows' gradients to the weights; those of the shared weights come back by task where the balancer combines them."""
        before_T = torch.stack([loss.detach() for loss in losses.values()])
        if self.balancer.looks_again:
            before_T = before_T.clone()
            self.reduce(before_T)
        weights_T = self.balancer.weights(before_T)
        total = torch.stack([loss * weight for loss, weight in zip(losses.values(), weights_T, strict=True)]).sum()
        if not self._combines:
            torch.autograd.backward(total)
            return None
        gradients_TP = task_gradients(losses, self._shared)
        shared = {id(parameter) for parameter in self._shared}
        torch.autograd.backward(total, inputs=[parameter for parameter in self.model.parameters() if id(parameter) not in shared])
        return gradients_TP

    def _found_gradients(self) -> Gradients:
        """Of the weights that any worker's rows give a gradient: found once, at the first step, and the same on all workers."""
        every = list(self.model.parameters())
        has_one = torch.tensor([float(parameter.grad is not None) for parameter in every], device=self.device)
        self.reduce(has_one)
        learning = [parameter for parameter, has in zip(every, has_one.tolist(), strict=True) if has > 0]
        tables = {id(self.model.tower.ids.weight), id(self.model.bias)} if self.owns_rows else set()
        owned = [parameter for parameter in learning if id(parameter) in tables]
        summed = [parameter for parameter in learning if id(parameter) not in tables]
        combined = self._shared if self._combines else []
        moved = {id(parameter) for parameter in (*learning, *combined)}
        return Gradients(summed, combined, owned, len(self.job.terms), [parameter for parameter in every if id(parameter) not in moved])

    def _balance(self, rows_G: NDArray[np.int64], step: int, before_T: Tensor) -> None:
        if self.balancer_optimizer is None:
            return
        after_T = self._looked_again(rows_G, step) if self.balancer.looks_again else before_T
        self.balancer.learn(before_T, after_T)
        self.balancer_optimizer.step()
        self.balancer.settle()

    @torch.no_grad()
    def _looked_again(self, rows_G: NDArray[np.int64], step: int) -> Tensor:
        """(T,) losses of the same batch under the same noise, after the step."""
        totals = self._totals(self._terms(rows_G, self.place.slice_of(len(rows_G)), step))
        self.reduce(totals)
        return self._global_losses(totals, self.terms.counts(rows_G))

    def _totals(self, terms: dict[str, Term]) -> Tensor:
        nothing = torch.zeros((), device=self.device)
        return torch.stack([terms[name].total.detach().float() if name in terms else nothing for name in self.job.terms])

    def _global_losses(self, totals: Tensor, counts: dict[str, float]) -> Tensor:
        """(T,) lambda x L of the whole batch."""
        means = {name: float(total) / max(counts[name], 1.0) for name, total in zip(self.job.terms, totals.tolist(), strict=True)}
        return torch.tensor([self._task_mean(task, means) for task in self.tasks], device=self.device)

    def _task_mean(self, task: str, means: dict[str, float]) -> float:
        return self.job.weights[task] * sum(TERM_WEIGHT.get(name, 1.0) * value for name, value in means.items() if task_of(name) == task)

    def _schedule(self, step: int) -> float:
        """Linear warm-up, then a cosine to 2 % of the learning rate."""
        total = self.steps_per_epoch * self.config.epochs
        warmup = max(1, round(WARMUP_SHARE * total))
        if step < warmup:
            return (step + 1) / warmup
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))

    @torch.no_grad()
    def validate(self, rows: NDArray[np.int64] | None = None) -> dict[str, float]:
        """Mean of each term over rows, those of validation by default, without noise; empty where there are none."""
        every = self.val_rows if rows is None else rows
        sums = torch.zeros(2, len(self.job.terms), dtype=torch.float64)
        size = max(1, min(VALIDATION_ROWS, VALIDATION_CELLS // len(self.terms.items)))
        for start in range(0, len(every), size):
            part = every[start : start + size]
            counts = self.terms.counts(part)
            sums[0] += self._totals(self._terms(part, self.place.slice_of(len(part)), None)).double().cpu()
            sums[1] += torch.tensor([counts[name] for name in self.job.terms], dtype=torch.float64)
        totals = sums[0].to(self.device)
        self.reduce(totals)
        return self._means(torch.stack([totals.cpu(), sums[1]]))

    def objective(self, means: dict[str, float]) -> float:
        """The weighted sum that is minimized, of mean terms.

        Raises:
            DivergedError: it is no number; nothing compares with it, so no epoch could be called better or worse.
        """
        found = sum(self._task_mean(task, means) for task in self.tasks)
        if not math.isfinite(found):
            wrong = ", ".join(f"{name} {value}" for name, value in means.items() if not math.isfinite(value)) or f"their sum {found}"
            raise DivergedError(
                f"training of {self.job.name} must keep its losses finite, got {wrong}; lower train.learning_rate ({self.config.learning_rate:g})"
            )
        return found

    def signals(self) -> dict[str, float]:
        """Between the tasks, on the first training rows under the first step's noise: gradients and their conflicts, expert shares; and seconds by part of a step."""
        rows = self.train_rows[: self.config.global_batch_size]
        return {**self._between_tasks(rows), **self._expert_signals(rows), **self.clock.signals()}

    def _between_tasks(self, rows_G: NDArray[np.int64]) -> dict[str, float]:
        """The weights that these rows' losses get, and their gradients; taken in the parts that a step takes, which is what fits into memory."""
        counts, losses_T = self.terms.counts(rows_G), torch.ones(len(self.tasks), device=self.device)
        conflicts: dict[str, float] = {}
        if len(self.tasks) > 1:
            losses_T.zero_()
            gradients_TP = torch.zeros(len(self.tasks), sum(parameter.numel() for parameter in self._shared), device=self.device)
            for part in self._parts(len(rows_G)):
                losses = self._losses(self._terms(rows_G, part, 0), counts)
                losses_T += torch.stack([loss.detach() for loss in losses.values()])
                gradients_TP += task_gradients(losses, self._shared)
            self.reduce(losses_T)
            self.reduce(gradients_TP)
            conflicts = conflict_signals(self.tasks, gradients_TP)
        weights = self.balancer.weights(losses_T).tolist()
        return {**{f"task_weight.{task}": weight for task, weight in zip(self.tasks, weights, strict=True)}, **conflicts}

    @torch.no_grad()
    def _expert_signals(self, rows_G: NDArray[np.int64]) -> dict[str, float]:
        """Of the batch's first rows, which every worker has: nothing is exchanged."""
        shares_TE = self.terms.expert_shares(rows_G[:VALIDATION_ROWS])
        return {} if shares_TE is None else expert_signals(self.model.heads.tasks, shares_TE)

    def _means(self, sums: Tensor) -> dict[str, float]:
        return {name: float(sums[0, k] / sums[1, k]) for k, name in enumerate(self.job.terms) if sums[1, k] > 0}


def _is_regression(job: FitJob, task: str) -> bool:
    return task == "interest" or (task in job.extra and job.extra[task].loss == "mse")
