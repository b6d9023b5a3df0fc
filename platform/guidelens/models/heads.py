"""Scores of (request, candidate) pairs: click, purchase after a click, and interest, over shared experts."""

# Letters: B = rows, C = candidates, D = width, F = pair features.

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from guidelens.config import ModelConfig
from guidelens.models.experts import Experts
from guidelens.models.inputs import NUM_HISTORY
from guidelens.models.noise import Noise, dropout

PAIR_TASKS = ("click", "purchase", "interest", "plan")
NUM_POSITIONS = 64


class PairLogits(NamedTuple):
    """(B, C) each, unnormalized. `buy` is of a purchase given a click: p(purchase) = p(click) p(buy | click)."""

    click: Tensor
    buy: Tensor
    interest: Tensor


class PairHeads(nn.Module):
    """Experts over intent, product vector, their product, pair history and the retrieval logit."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.drop = config.dropout
        self.experts = Experts(config, 3 * width + NUM_HISTORY + 1, PAIR_TASKS)
        self.click = nn.Linear(width, 1)
        self.buy = nn.Linear(width, 1)
        self.interest = nn.Linear(width, 1)
        self.position = nn.Parameter(torch.zeros(NUM_POSITIONS))
        with torch.no_grad():
            self.click.bias.fill_(-3.0)
            self.buy.bias.fill_(-2.0)

    def forward(self, x_BCI: Tensor, noise: Noise | None) -> PairLogits:
        click, buy, interest = self.experts(dropout(x_BCI, self.drop / 2, noise), ("click", "purchase", "interest"))
        return PairLogits(self.click(click).squeeze(-1), self.buy(buy).squeeze(-1), self.interest(interest).squeeze(-1))

    def plan_context(self, x_BI: Tensor) -> Tensor:
        """(B, D): what the plan's own gate takes from the experts for the product in view."""
        vectors: list[Tensor] = self.experts(x_BI, ("plan",))
        return vectors[0]

    def positions(self, num_places: int) -> Tensor:
        """(K,) what each place of a slate adds to the click logit; later places share the last value."""
        return self.position[torch.arange(num_places).clamp_max(NUM_POSITIONS - 1)]


def log_click_and_purchase(logits: PairLogits) -> tuple[Tensor, Tensor]:
    """(B, C) log-probabilities of a click and of a purchase, over all that was shown (ESMM, arXiv:1804.07931)."""
    click = fn.logsigmoid(logits.click)
    return click, click + fn.logsigmoid(logits.buy)
