"""The tasks' losses over a slice of a global batch, as sums and counts of terms."""

# Letters: G = rows of the global batch, B = rows of this worker, N = products, K = places of a slate, C = products scored in a step.

import dataclasses
import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from guidelens.data.examples import VISIT_VALUES
from guidelens.models.guide import Encoded, GuideModel
from guidelens.models.heads import PairLogits, log_click_and_purchase
from guidelens.models.inputs import ContextInputs, PlanInputs, SlateInputs
from guidelens.models.items import ItemInputs, item_inputs
from guidelens.models.losses import Term, bernoulli_term, interest_term, plan_term, softmax_term
from guidelens.models.noise import Noise
from guidelens.models.strategist import hide_outcomes
from guidelens.schemas.steps import MAX_STEPS
from guidelens.training.data import FitData, FitJob
from guidelens.training.sharding import Shares

SAMPLE_SOFTMAX_ABOVE = 8192
NUM_SAMPLED = 2048
OPEN_LOOP_SHARE = 0.25
SHARE_CONTENT_FROM = 4096
"""Products of a step from which on workers share them out: for fewer, an exchange takes longer than computing all of them."""


class Columns(NamedTuple):
    """Products scored in a step: their rows (C,) (None: all of them), the column of each product (-1: none), and what corrects each column's
    logit (C,)."""

    rows: Tensor | None
    column_of_N: Tensor
    correction: Tensor


class Seen(NamedTuple):
    """A worker's rows, and the products that a step computes; all product rows in the others count those."""

    rows: Tensor
    items: ItemInputs
    context: ContextInputs
    slates: SlateInputs
    plans: PlanInputs
    columns: Columns


class Terms:
    """The losses of one model on one set of rows.

    Args:
        shares: how the products of a step are shared out over workers; None where each computes all.
    """

    def __init__(self, job: FitJob, data: FitData, model: GuideModel, shares: Shares | None = None) -> None:
        self.job, self.data, self.model, self.shares = job, data, model, shares
        self.items: ItemInputs = item_inputs(data.catalogue, model.image, model.text)
        self.frames, self.queries = model.reduced(data.frames, data.queries)
        every = torch.arange(len(self.items), device=model.device)
        self._every = Columns(None, every, torch.zeros(len(self.items), device=model.device))
        self._labels_RL = self._num_labels()
        self.offered = self._offered()
        self._all_offered = self._every if len(self.offered) == len(self.items) else self._columns(self.offered)

    def _offered(self) -> Tensor:
        """(O,) rows of the products that a training slate showed, ascending: the others could not be chosen, so that nothing is learned from
        their not having been. A product that comes after training is then ranked by its content, at the bias of a mean product."""
        shown = torch.unique(self.data.slates.rows_RK[self._on_device(np.flatnonzero(self.data.split == "train"))])
        shown = shown[shown >= 0]
        return shown if len(shown) else torch.arange(len(self.items), device=self.model.device)

    def __call__(self, rows_G: NDArray[np.int64], mine: slice, noise: Noise | None) -> dict[str, Term]:
        """Sums and counts of the terms of tasks that are in, over this worker's rows of the global batch."""
        columns = self.columns(self._on_device(rows_G), noise)
        seen = (
            self._part(self._on_device(rows_G), mine, columns) if noise is not None and self.is_large else self._whole(self._on_device(rows_G[mine]), columns)
        )
        items_ND, bias_N = self._products(seen.items, noise)
        encoded = self._encoded(seen.context, items_ND, noise)
        terms: dict[str, Term] = {}
        if self.job.learns_slates:
            terms |= self._slate_terms(seen, encoded, items_ND, bias_N, noise)
        if self.job.lambdas["plan"] > 0:
            terms["plan"] = self._plan_term(seen, encoded, items_ND, noise)
        return terms

    def counts(self, rows_G: NDArray[np.int64]) -> dict[str, float]:
        """How many labels each term has in the whole global batch: every worker has all rows, so nothing is exchanged. 0 for tasks left out."""
        return dict(zip(self.job.terms, self._labels_RL[rows_G].sum(0).tolist(), strict=True))

    def _num_labels(self) -> NDArray[np.float64]:
        """(R, terms) how many labels each row has for each of `FitJob.terms`."""
        slates = self.data.slates
        shown_RK = slates.rows_RK >= 0
        recommends, num_shown_R = self.job.lambdas["recommendation"] > 0, shown_RK.sum(1)
        found = {
            "softmax": ((slates.click_RK > 0) & shown_RK).sum(1) * recommends,
            "click": num_shown_R * recommends,
            "purchase": num_shown_R * recommends,
            "interest": (slates.observed_RK & shown_RK).sum(1) * (self.job.lambdas["interest"] > 0),
            "plan": (self.data.plans.targets_RSA.sum(2) > 0).sum(1) * (self.job.lambdas["plan"] > 0),
            **{name: num_shown_R * (task.weight > 0) for name, task in self.job.extra.items()},
        }
        labels_RL: NDArray[np.float64] = torch.stack([found[name] for name in self.job.terms], dim=1).double().cpu().numpy()
        return labels_RL

    def _products(self, items: ItemInputs, noise: Noise | None) -> tuple[Tensor, Tensor | None]:
        """(N, D) vectors of the items, and (N,) their bias where the model has but a share of it."""
        if self.shares is None:
            return self.model.items(items, noise), None
        shares_content = len(items) >= SHARE_CONTENT_FROM and self.model.sees_x2
        if not (self.shares.owns_rows or shares_content):
            return self.model.items(items, noise), None
        own = self.shares.own_places(items.rows_N)
        mine = dataclasses.replace(items.take(own), is_part=items.is_part)
        if self.shares.owns_rows:
            bias_O = self.model.bias[mine.rows_N // self.model.tower.num_shards] if items.is_part else self.model.bias
            every_NX = self.shares.gathered(torch.cat([self.model.items(mine, noise), bias_O[:, None]], dim=1), own, len(items))
            return every_NX[:, :-1], every_NX[:, -1]
        content_ND = self.shares.gathered(self.model.tower.content(mine, noise).float(), own, len(items))
        return self.model.items(items, noise, content_ND), None

    def expert_shares(self, rows_G: NDArray[np.int64]) -> Tensor | None:
        """(T, E) `GuideModel.expert_shares` over the slates of a batch, without noise."""
        rows = self._on_device(rows_G)
        items_ND, _ = self._products(self.items, None)
        encoded = self._encoded(self.data.context.take(rows), items_ND, None)
        return self.model.expert_shares(encoded, self.items, items_ND, self.data.slates.rows_RK[rows])

    def _encoded(self, context: ContextInputs, items_ND: Tensor, noise: Noise | None) -> Encoded:
        looked = self.model.look(_gathered(self.frames, context.frame_R), _gathered(self.queries, context.query_R), context)
        return self.model.encode(context, looked, items_ND, noise)

    def _whole(self, rows: Tensor, columns: "Columns") -> "Seen":
        return Seen(rows, self.items, self.data.context.take(rows), self.data.slates.take(rows), self.data.plans.take(rows), columns)

    def _part(self, rows_G: Tensor, mine: slice, columns: "Columns") -> "Seen":
        """Only the products that the global batch names or scores, numbered anew; the same ones on every worker."""
        context_G, slates_G, plans_G = self.data.context.take(rows_G), self.data.slates.take(rows_G), self.data.plans.take(rows_G)
        assert columns.rows is not None, "a part is taken where columns are drawn"
        named = [columns.rows, context_G.recent_rows_RH.flatten(), context_G.focus_R, slates_G.rows_RK.flatten(), plans_G.focus_R]
        needed = torch.unique(torch.cat(named))
        needed = needed[needed >= 0]
        place_N = torch.full((len(self.items),), -1, dtype=torch.int64, device=rows_G.device)
        place_N[needed] = torch.arange(len(needed), device=rows_G.device)

        def placed(rows: Tensor) -> Tensor:
            return torch.where(rows >= 0, place_N[rows.clamp_min(0)], -1)

        rows = rows_G[mine]
        context, slates, plans = self.data.context.take(rows), self.data.slates.take(rows), self.data.plans.take(rows)
        return Seen(
            rows,
            self.items.take(needed),
            dataclasses.replace(context, recent_rows_RH=placed(context.recent_rows_RH), focus_R=placed(context.focus_R)),
            dataclasses.replace(slates, rows_RK=placed(slates.rows_RK)),
            dataclasses.replace(plans, focus_R=placed(plans.focus_R)),
            Columns(place_N[columns.rows], columns.column_of_N[needed], columns.correction),
        )

    def _on_device(self, rows: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(rows).to(self.model.device)

    def _slate_terms(self, seen: "Seen", encoded: Encoded, items_ND: Tensor, bias_N: Tensor | None, noise: Noise | None) -> dict[str, Term]:
        slates, columns, recommends = seen.slates, seen.columns, self.job.lambdas["recommendation"] > 0
        with torch.set_grad_enabled(torch.is_grad_enabled() and recommends):
            logits_BN = self.model.retrieval(encoded, seen.items, items_ND, columns.rows, bias_N)
        shown_BK = slates.rows_RK >= 0
        retrieval_BK = logits_BN.gather(1, columns.column_of_N[slates.rows_RK.clamp_min(0)].clamp_min(0))
        pairs = self.model.pairs(encoded, seen.items, items_ND, slates.rows_RK, retrieval_BK, noise)
        terms = self._recommendation_terms(pairs, slates) if recommends else {}
        if recommends:
            terms["softmax"] = softmax_term(logits_BN + columns.correction, slates.rows_RK, slates.click_RK, columns.column_of_N)
        if self.job.lambdas["interest"] > 0:
            terms["interest"] = interest_term(pairs.interest, slates.interest_RK, slates.observed_RK & shown_BK)
        return terms | self._extra_terms(pairs, self.data.visits_RKV[seen.rows], shown_BK)

    def _recommendation_terms(self, pairs: PairLogits, slates: SlateInputs) -> dict[str, Term]:
        shown_BK = slates.rows_RK >= 0
        placed = pairs._replace(click=pairs.click + self.model.heads.positions(shown_BK.shape[1]))
        log_click, log_purchase = log_click_and_purchase(placed)
        return {"click": bernoulli_term(log_click, slates.click_RK, shown_BK), "purchase": bernoulli_term(log_purchase, slates.purchase_RK, shown_BK)}

    def _extra_terms(self, pairs: PairLogits, visits_BKV: Tensor, shown_BK: Tensor) -> dict[str, Term]:
        """The tasks added by config: config.ExtraTask states their targets."""
        terms = {}
        for name, task in self.job.extra.items():
            if task.weight == 0:
                continue
            number = VISIT_VALUES.index(task.label)
            value_BK, logits_BK = visits_BKV[:, :, number], pairs.extra[name]
            if task.loss == "binary":
                terms[name] = bernoulli_term(torch.nn.functional.logsigmoid(logits_BK), (value_BK > 0).float(), shown_BK)
            else:
                terms[name] = interest_term(logits_BK, -torch.expm1(-value_BK / self.data.medians_V[number]), shown_BK)
        return terms

    @property
    def is_large(self) -> bool:
        """Whether a training step scores a sample of the catalogue, and computes no more of it than it needs."""
        return len(self.items) > SAMPLE_SOFTMAX_ABOVE

    def columns(self, rows_G: Tensor, noise: Noise | None) -> "Columns":
        """Every product that was offered in training, or the whole catalogue without noise; where columns are drawn, what the global batch was
        shown and a uniform sample of those offered, whose logits are corrected by the log of its share (log-Q: Bengio and Senecal, 2008)."""
        if noise is None:
            return self._every
        if not self.is_large:
            return self._all_offered
        shown = torch.unique(self.data.slates.rows_RK[rows_G])
        shown = shown[shown >= 0]
        drawn = torch.unique(self.offered[(noise.shared((NUM_SAMPLED,)) * len(self.offered)).long()])
        drawn = drawn[~torch.isin(drawn, shown)]
        return self._columns(shown, drawn, -math.log(max(len(drawn), 1) / len(self.offered)))

    def _columns(self, rows: Tensor, drawn: Tensor | None = None, correction: float = 0.0) -> "Columns":
        columns = rows if drawn is None else torch.cat([rows, drawn])
        column_of_N = torch.full((len(self.items),), -1, dtype=torch.int64, device=rows.device)
        column_of_N[columns] = torch.arange(len(columns), device=rows.device)
        correction_C = torch.zeros(len(columns), device=rows.device)
        correction_C[len(rows) :] = correction
        return Columns(columns, column_of_N, correction_C)

    def _plan_term(self, seen: "Seen", encoded: Encoded, items_ND: Tensor, noise: Noise | None) -> Term:
        """Over the rows with a plan; of some, what followed a random step on is hidden, so that open loop is learned too."""
        rows, plans = seen.rows, seen.plans
        if noise is not None:
            u = noise.uniform((2,))
            hide_from = torch.where(u[:, 0] < OPEN_LOOP_SHARE, (u[:, 1] * MAX_STEPS).long(), MAX_STEPS)
            plans = hide_outcomes(plans, hide_from)
        has_plan = plans.targets_RSA.flatten(1).sum(1) > 0
        chosen = torch.nonzero(has_plan).squeeze(1) if bool(has_plan.any()) else torch.arange(min(1, len(rows)), device=rows.device)
        if len(chosen) == 0:
            return Term(encoded.intent_BD.sum() * 0, torch.tensor(0))
        some = Encoded(encoded.intent_BD[chosen], encoded.context.take(chosen), encoded.looked)
        plans = plans.take(chosen)
        return plan_term(self.model.plan(some, seen.items, items_ND, plans, self.data.allowed_RSA[rows[chosen]]), plans.targets_RSA)


def _gathered(embeddings: Tensor, rows: Tensor) -> Tensor:
    """(B, E) rows of embeddings, zeros where the row is -1."""
    if len(embeddings) == 0:
        return torch.zeros(len(rows), embeddings.shape[1], device=rows.device)
    return embeddings[rows.clamp_min(0)]
