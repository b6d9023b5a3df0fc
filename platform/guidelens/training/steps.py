"""One training step, one validation pass: what every worker does with its slice of the same seeded global batch.

Losses are sums over a worker's rows divided by the counts of all workers, and gradients are summed over workers, so that
any number of workers takes the same step. Pure torch: knows nothing of Ray.
"""

# Letters: G = rows of the global batch, B = rows of this worker, N = products, K = places of a slate.

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from guidelens.config import TASKS, ModelConfig, TaskName, TrainConfig
from guidelens.data.examples import Examples
from guidelens.models.guide import Encoded, GuideModel, GuideSpec
from guidelens.models.heads import log_click_and_purchase
from guidelens.models.inputs import ContextInputs, PlanInputs, SlateInputs, context_inputs, plan_inputs, slate_inputs
from guidelens.models.items import Catalogue, ItemInputs, item_inputs
from guidelens.models.losses import TERM_TASK, TERM_WEIGHT, TERMS, Term, bernoulli_term, interest_term, plan_term, softmax_term
from guidelens.models.noise import Noise
from guidelens.models.strategist import hide_outcomes
from guidelens.schemas.base import Frozen
from guidelens.schemas.ids import sub_seed
from guidelens.schemas.steps import MAX_STEPS

SAMPLE_SOFTMAX_ABOVE = 8192
NUM_SAMPLED = 2048
OPEN_LOOP_SHARE = 0.25
WARMUP_SHARE = 0.05
MAX_GRADIENT_NORM = 5.0
Reduce = Callable[[Tensor], None]


class FitJob(Frozen):
    """One model to fit on the shared data: its name, its task weights (0: left out) and its shape."""

    name: str
    lambdas: dict[TaskName, float]
    model: ModelConfig


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
    """All rows of a fit as tensors, and which of them each split and task has."""

    catalogue: Catalogue
    context: ContextInputs
    slates: SlateInputs
    plans: PlanInputs
    frames: Tensor
    queries: Tensor
    has_slate: NDArray[np.bool_]
    has_plan: NDArray[np.bool_]
    split: NDArray[np.object_]

    @classmethod
    def of(cls, examples: Examples, catalogue: Catalogue, num_profile_buckets: int) -> "FitData":
        return cls(
            catalogue=catalogue,
            context=context_inputs(examples, catalogue, num_profile_buckets),
            slates=slate_inputs(examples),
            plans=plan_inputs(examples, catalogue),
            frames=torch.from_numpy(examples.frames),
            queries=torch.from_numpy(examples.queries),
            has_slate=np.asarray((examples.slate_rows >= 0).any(axis=1)),
            has_plan=examples.targets.sum(axis=(1, 2)) > 0,
            split=examples.split,
        )

    def rows(self, split: str, lambdas: dict[TaskName, float]) -> NDArray[np.int64]:
        """Rows of a split that hold a label for a task that is in."""
        slates = lambdas["recommendation"] > 0 or lambdas["interest"] > 0
        wanted = (self.has_slate & slates) | (self.has_plan & (lambdas["plan"] > 0))
        return np.flatnonzero((self.split == split) & wanted)


def new_model(job: FitJob, data: FitData, seed: int) -> GuideModel:
    """A model with seeded weights whose reducers are fitted to the catalogue and the frames of the training part."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sub_seed(seed, "model"))
        model = GuideModel(job.model, GuideSpec(num_products=len(data.catalogue)))
    seen = data.context.frame_R.numpy()[data.split == "train"]
    frames = data.frames.numpy()[np.unique(seen[seen >= 0])]
    model.image.fit(np.concatenate([data.catalogue.image_NE[data.catalogue.has_image_N], frames]))
    model.text.fit(np.concatenate([data.catalogue.text_NE, data.catalogue.text_zh_NE[data.catalogue.has_zh_N]]))
    return model


class Learner:
    """A model, its optimizer and its place in the schedule; `step` and `validate` are called by every worker alike."""

    def __init__(self, job: FitJob, data: FitData, config: TrainConfig, seed: int, place: Place, reduce: Reduce) -> None:
        self.job, self.data, self.config, self.seed, self.place, self.reduce = job, data, config, sub_seed(seed, job.name), place, reduce
        self.model = new_model(job, data, seed)
        self.items: ItemInputs = item_inputs(data.catalogue, self.model.image, self.model.text)
        self.frames, self.queries = self.model.reduced(data.frames, data.queries)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
        self.train_rows, self.val_rows = data.rows("train", job.lambdas), data.rows("val", job.lambdas)
        self.steps_per_epoch = max(1, math.ceil(len(self.train_rows) / config.global_batch_size))

    def epoch(self, epoch: int) -> dict[str, float]:
        """One pass over the training rows; the mean of each term."""
        order = np.random.default_rng(sub_seed(self.seed, f"epoch {epoch}")).permutation(self.train_rows)
        sums = torch.zeros(2, len(TERMS), dtype=torch.float64)
        for index in range(self.steps_per_epoch):
            rows = order[index * self.config.global_batch_size : (index + 1) * self.config.global_batch_size]
            sums += self.step(rows, epoch * self.steps_per_epoch + index)
        return _means(sums)

    def step(self, rows_G: NDArray[np.int64], step: int) -> Tensor:
        """Updates the weights from one global batch; (2, terms) sums and counts over all workers."""
        self.optimizer.zero_grad(set_to_none=True)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * self._schedule(step)
        mine = self.place.slice_of(len(rows_G))
        noise = Noise(sub_seed(self.seed, f"step {step}"), len(rows_G), mine)
        terms = self.terms(rows_G, mine, noise)
        counts = torch.tensor([float(terms[name].count) if name in terms else 0.0 for name in TERMS])
        self.reduce(counts)
        torch.autograd.backward(self._loss(terms, counts))
        self._sum_gradients()
        self.optimizer.step()
        totals = torch.tensor([float(terms[name].total.detach()) if name in terms else 0.0 for name in TERMS], dtype=torch.float64)
        self.reduce(totals)
        return torch.stack([totals, counts.double()])

    def _loss(self, terms: dict[str, Term], counts: Tensor) -> Tensor:
        weights = [self.job.lambdas[TERM_TASK[name]] * TERM_WEIGHT[name] / max(float(counts[TERMS.index(name)]), 1.0) for name in terms]
        return torch.stack([term.total * weight for term, weight in zip(terms.values(), weights, strict=True)]).sum()

    def _sum_gradients(self) -> None:
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        self.reduce(flat)
        flat *= min(1.0, MAX_GRADIENT_NORM / max(float(flat.norm()), 1e-12))
        at = 0
        for gradient in gradients:
            gradient.copy_(flat[at : at + gradient.numel()].view_as(gradient))
            at += gradient.numel()

    def _schedule(self, step: int) -> float:
        """Linear warm-up, then a cosine to 2 % of the learning rate."""
        total = self.steps_per_epoch * self.config.epochs
        warmup = max(1, round(WARMUP_SHARE * total))
        if step < warmup:
            return (step + 1) / warmup
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean of each term over the validation rows, without noise; empty where there are none."""
        sums = torch.zeros(2, len(TERMS), dtype=torch.float64)
        for start in range(0, len(self.val_rows), 1024):
            rows = self.val_rows[start : start + 1024]
            terms = self.terms(rows, self.place.slice_of(len(rows)), None)
            sums += torch.tensor(
                [
                    [float(terms[name].total) if name in terms else 0.0 for name in TERMS],
                    [float(terms[name].count) if name in terms else 0.0 for name in TERMS],
                ],
                dtype=torch.float64,
            )
        self.reduce(sums)
        return _means(sums)

    def objective(self, means: dict[str, float]) -> float:
        """The weighted sum that is minimized, of mean terms."""
        return sum(self.job.lambdas[TERM_TASK[name]] * TERM_WEIGHT[name] * value for name, value in means.items())

    def terms(self, rows_G: NDArray[np.int64], mine: slice, noise: Noise | None) -> dict[str, Term]:
        """Sums and counts of the terms of tasks that are in, over this worker's rows of the global batch."""
        rows = torch.from_numpy(rows_G[mine])
        context = self.data.context.take(rows)
        items_ND = self.model.items(self.items, noise)
        looked = self.model.look(_gathered(self.frames, context.frame_R), _gathered(self.queries, context.query_R), context)
        encoded = self.model.encode(context, looked, items_ND, noise)
        terms: dict[str, Term] = {}
        if self.job.lambdas["recommendation"] > 0 or self.job.lambdas["interest"] > 0:
            terms |= self._slate_terms(torch.from_numpy(rows_G), rows, encoded, items_ND, noise)
        if self.job.lambdas["plan"] > 0:
            terms["plan"] = self._plan_term(rows, encoded, items_ND, noise)
        return terms

    def _slate_terms(self, rows_G: Tensor, rows: Tensor, encoded: Encoded, items_ND: Tensor, noise: Noise | None) -> dict[str, Term]:
        slates = self.data.slates.take(rows)
        columns, column_of_N, correction = self._columns(rows_G, noise)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.job.lambdas["recommendation"] > 0):
            logits_BN = self.model.retrieval(encoded, self.items, items_ND, columns)
        shown_BK = slates.rows_RK >= 0
        retrieval_BK = logits_BN.gather(1, column_of_N[slates.rows_RK.clamp_min(0)].clamp_min(0))
        pairs = self.model.pairs(encoded, self.items, items_ND, slates.rows_RK, retrieval_BK, noise)
        terms = {}
        if self.job.lambdas["recommendation"] > 0:
            placed = pairs._replace(click=pairs.click + self.model.heads.positions(shown_BK.shape[1]))
            log_click, log_purchase = log_click_and_purchase(placed)
            terms["softmax"] = softmax_term(logits_BN + correction, slates.rows_RK, slates.click_RK, column_of_N)
            terms["click"] = bernoulli_term(log_click, slates.click_RK, shown_BK)
            terms["purchase"] = bernoulli_term(log_purchase, slates.purchase_RK, shown_BK)
        if self.job.lambdas["interest"] > 0:
            terms["interest"] = interest_term(pairs.interest, slates.interest_RK, slates.observed_RK & shown_BK)
        return terms

    def _columns(self, rows_G: Tensor, noise: Noise | None) -> tuple[Tensor, Tensor, Tensor]:
        """Products scored in this step, the column of each product (-1: none), and the log-Q correction of each column.

        The whole catalogue up to SAMPLE_SOFTMAX_ABOVE products; above it, what the global batch was shown and a uniform
        sample, whose logits are corrected by the log of its share.
        """
        num_products = len(self.items)
        if num_products <= SAMPLE_SOFTMAX_ABOVE or noise is None:
            every = torch.arange(num_products)
            return every, every, torch.zeros(num_products)
        shown = torch.unique(self.data.slates.rows_RK[rows_G])
        shown = shown[shown >= 0]
        drawn = torch.unique((noise.shared((NUM_SAMPLED,)) * num_products).long())
        drawn = drawn[~torch.isin(drawn, shown)]
        columns = torch.cat([shown, drawn])
        column_of_N = torch.full((num_products,), -1, dtype=torch.int64)
        column_of_N[columns] = torch.arange(len(columns))
        share = math.log(max(len(drawn), 1) / num_products)
        return columns, column_of_N, torch.cat([torch.zeros(len(shown)), torch.full((len(drawn),), -share)])

    def _plan_term(self, rows: Tensor, encoded: Encoded, items_ND: Tensor, noise: Noise | None) -> Term:
        """Over the rows with a plan; of some, what followed a random step on is hidden, so that open loop is learned too."""
        plans = self.data.plans.take(rows)
        if noise is not None:
            u = noise.uniform((2,))
            hide_from = torch.where(u[:, 0] < OPEN_LOOP_SHARE, (u[:, 1] * MAX_STEPS).long(), MAX_STEPS)
            plans = hide_outcomes(plans, hide_from)
        has_plan = torch.from_numpy(self.data.has_plan)[rows]
        chosen = torch.nonzero(has_plan).squeeze(1) if bool(has_plan.any()) else torch.zeros(min(1, len(rows)), dtype=torch.int64)
        if len(chosen) == 0:
            return Term(encoded.intent_BD.sum() * 0, torch.tensor(0))
        some = Encoded(encoded.intent_BD[chosen], encoded.context.take(chosen), encoded.looked)
        plans = plans.take(chosen)
        return plan_term(self.model.plan(some, self.items, items_ND, plans), plans.targets_RSA)


def _gathered(embeddings: Tensor, rows: Tensor) -> Tensor:
    """(B, E) rows of embeddings, zeros where the row is -1."""
    if len(embeddings) == 0:
        return torch.zeros(len(rows), embeddings.shape[1])
    return embeddings[rows.clamp_min(0)]


def _means(sums: Tensor) -> dict[str, float]:
    return {name: float(sums[0, k] / sums[1, k]) for k, name in enumerate(TERMS) if sums[1, k] > 0}


def controls(config: TrainConfig, tasks: Sequence[TaskName] = TASKS) -> list[FitJob]:
    """The single-task controls of `tasks`: the same data and shape, one task's weight 1, the others 0."""
    own = config.model.model_copy(update={"sharing": "single_task"})
    return [FitJob(name=task, lambdas={other: float(other == task) for other in TASKS}, model=own) for task in tasks]
