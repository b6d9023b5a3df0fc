"""Scores of (request, candidate) pairs: click, purchase after a click, interest, and tasks added by config, over shared experts."""

# Letters: B = rows, C = candidates, D = width, F = pair features, P = profile, T = tasks, E = experts.

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from guidelens.config import ModelConfig
from guidelens.models.crosses import CrossLayers
from guidelens.models.experts import Experts
from guidelens.models.gates import PersonalGates
from guidelens.models.inputs import NUM_HISTORY
from guidelens.models.noise import Noise

PAIR_TASKS = ("click", "purchase", "interest", "plan")
NUM_POSITIONS = 64
_OF_SLATES = ("click", "purchase", "interest")


class PairLogits(NamedTuple):
    """(B, C) each, unnormalized. `buy` is of a purchase given a click: p(purchase) = p(click) p(buy | click). extra: by task name."""

    click: Tensor
    buy: Tensor
    interest: Tensor
    extra: Mapping[str, Tensor] = MappingProxyType({})


@dataclass(frozen=True)
class PairInputs:
    """Requests (B) and their candidates (C): rows_BC, -1 where there is none; history and retrieval logit of each pair.

    attended_BCD: what target attention found, None without it. prior_BP: the shopper's profile, for personal gates.
    """

    intent_BD: Tensor
    items_ND: Tensor
    rows_BC: Tensor
    history_BCF: Tensor
    retrieval_BC: Tensor
    prior_BP: Tensor
    attended_BCD: Tensor | None = None


class PairHeads(nn.Module):
    """Experts over intent, product vector, and per pair their product, the history and the retrieval logit; a linear head a task.

    Args:
        prior_size: of PairInputs.prior_BP.
        extra: names of the tasks beside the three.
    """

    def __init__(self, config: ModelConfig, prior_size: int, extra: tuple[str, ...] = ()) -> None:
        super().__init__()
        width = config.width
        own = width + NUM_HISTORY + 1 + width * config.target_attention
        crossed = 2 * width + own if config.cross_layers else 0
        self.tasks = (*PAIR_TASKS, *extra)
        self.experts = Experts(config, (width, width, own, *([crossed] if crossed else [])), self.tasks)
        self.click = nn.Linear(width, 1)
        self.buy = nn.Linear(width, 1)
        self.interest = nn.Linear(width, 1)
        self.position = nn.Parameter(torch.zeros(NUM_POSITIONS))
        self.extra = nn.ModuleDict({name: nn.Linear(width, 1) for name in extra})
        self.crosses = CrossLayers(crossed, config.cross_layers, config.cross_rank) if crossed else None
        self.gates = PersonalGates(prior_size, width, self.tasks) if config.personal_gates else None
        with torch.no_grad():
            self.click.bias.fill_(-3.0)
            self.buy.bias.fill_(-2.0)

    def forward(self, pairs: PairInputs, noise: Noise | None) -> PairLogits:
        names = (*_OF_SLATES, *self.extra)
        click, buy, interest, *extra = self._vectors(pairs, names, noise)
        found = {name: head(vector).squeeze(-1) for (name, head), vector in zip(self.extra.items(), extra, strict=True)}
        return PairLogits(self.click(click).squeeze(-1), self.buy(buy).squeeze(-1), self.interest(interest).squeeze(-1), found)

    def plan_context(self, pairs: PairInputs) -> Tensor:
        """(B, D): what the plan's own gate takes from the experts for the one product in view of each row."""
        return self._vectors(pairs, ("plan",), None)[0].squeeze(1)

    def expert_shares(self, pairs: PairInputs) -> Tensor | None:
        """(T, E) mean share of each expert in the gates of `tasks`, over the pairs that are there; None where sharing has no gates."""
        shares_BCTE = self.experts.shares(self._summed(pairs))
        return None if shares_BCTE is None else shares_BCTE[pairs.rows_BC >= 0].mean(0)

    def _vectors(self, pairs: PairInputs, tasks: tuple[str, ...], noise: Noise | None) -> list[Tensor]:
        vectors = self.experts(self._summed(pairs), tasks, noise)
        if self.gates is None:
            return list(vectors)
        return [vector * gate for vector, gate in zip(vectors, self.gates(pairs.prior_BP, tasks), strict=True)]

    def _summed(self, pairs: PairInputs) -> Tensor:
        there_BC1 = (pairs.rows_BC >= 0)[:, :, None]
        rows_BC = pairs.rows_BC.clamp_min(0)
        product_BCD = pairs.intent_BD[:, None] * pairs.items_ND[rows_BC] * there_BC1
        parts = [product_BCD, pairs.history_BCF, pairs.retrieval_BC.detach()[:, :, None] / 5]
        if pairs.attended_BCD is not None:
            parts.append(pairs.attended_BCD)
        own_BCI = torch.cat(parts, dim=2)
        of_item = self.experts.part(pairs.items_ND, 1)[rows_BC] * there_BC1
        summed = self.experts.part(pairs.intent_BD, 0)[:, None] + of_item + self.experts.part(own_BCI, 2)
        if self.crosses is None:
            return summed
        every_BCD = pairs.intent_BD[:, None].expand_as(product_BCD)
        crossed_BCI = self.crosses(torch.cat([every_BCD, pairs.items_ND[rows_BC] * there_BC1, own_BCI], dim=2))
        return summed + self.experts.part(crossed_BCI, 3)

    def positions(self, num_places: int) -> Tensor:
        """(K,) what each place of a slate adds to the click logit; later places share the last value."""
        return self.position[torch.arange(num_places, device=self.position.device).clamp_max(NUM_POSITIONS - 1)]


def log_click_and_purchase(logits: PairLogits) -> tuple[Tensor, Tensor]:
    """(B, C) log-probabilities of a click and of a purchase, over all that was shown (ESMM, arXiv:1804.07931)."""
    click = fn.logsigmoid(logits.click)
    return click, click + fn.logsigmoid(logits.buy)
