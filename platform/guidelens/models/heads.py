"""Scores of (request, candidate) pairs: click, purchase after a click, and interest, over shared experts."""

# Letters: B = rows, C = candidates, D = width, F = pair features.

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from guidelens.config import ModelConfig
from guidelens.models.experts import Experts
from guidelens.models.inputs import NUM_HISTORY
from guidelens.models.noise import Noise

PAIR_TASKS = ("click", "purchase", "interest", "plan")
NUM_POSITIONS = 64


class PairLogits(NamedTuple):
    """(B, C) each, unnormalized. `buy` is of a purchase given a click: p(purchase) = p(click) p(buy | click)."""

    click: Tensor
    buy: Tensor
    interest: Tensor


@dataclass(frozen=True)
class PairInputs:
    """Requests (B) and their candidates (C): rows_BC, -1 where there is none; history and retrieval logit of each pair."""

    intent_BD: Tensor
    items_ND: Tensor
    rows_BC: Tensor
    history_BCF: Tensor
    retrieval_BC: Tensor


class PairHeads(nn.Module):
    """Experts over intent, product vector, and per pair their product, the history and the retrieval logit."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.experts = Experts(config, (width, width, width + NUM_HISTORY + 1), PAIR_TASKS)
        self.click = nn.Linear(width, 1)
        self.buy = nn.Linear(width, 1)
        self.interest = nn.Linear(width, 1)
        self.position = nn.Parameter(torch.zeros(NUM_POSITIONS))
        with torch.no_grad():
            self.click.bias.fill_(-3.0)
            self.buy.bias.fill_(-2.0)

    def forward(self, pairs: PairInputs, noise: Noise | None) -> PairLogits:
        click, buy, interest = self.experts(self._summed(pairs), ("click", "purchase", "interest"), noise)
        return PairLogits(self.click(click).squeeze(-1), self.buy(buy).squeeze(-1), self.interest(interest).squeeze(-1))

    def plan_context(self, pairs: PairInputs) -> Tensor:
        """(B, D): what the plan's own gate takes from the experts for the one product in view of each row."""
        vectors: list[Tensor] = self.experts(self._summed(pairs), ("plan",))
        return vectors[0].squeeze(1)

    def _summed(self, pairs: PairInputs) -> Tensor:
        there_BC1 = (pairs.rows_BC >= 0)[:, :, None]
        rows_BC = pairs.rows_BC.clamp_min(0)
        product_BCD = pairs.intent_BD[:, None] * pairs.items_ND[rows_BC] * there_BC1
        own_BCI = torch.cat([product_BCD, pairs.history_BCF, pairs.retrieval_BC.detach()[:, :, None] / 5], dim=2)
        of_item = self.experts.part(pairs.items_ND, 1)[rows_BC] * there_BC1
        return self.experts.part(pairs.intent_BD, 0)[:, None] + of_item + self.experts.part(own_BCI, 2)

    def positions(self, num_places: int) -> Tensor:
        """(K,) what each place of a slate adds to the click logit; later places share the last value."""
        return self.position[torch.arange(num_places).clamp_max(NUM_POSITIONS - 1)]


def log_click_and_purchase(logits: PairLogits) -> tuple[Tensor, Tensor]:
    """(B, C) log-probabilities of a click and of a purchase, over all that was shown (ESMM, arXiv:1804.07931)."""
    click = fn.logsigmoid(logits.click)
    return click, click + fn.logsigmoid(logits.buy)
