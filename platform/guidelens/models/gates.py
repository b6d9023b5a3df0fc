"""Personalized gates: what is known of the shopper scales each task's vector (PPNet of PEPNet, Chang et al., KDD 2023)."""

# Letters: B = rows, C = candidates, P = prior size, D = width.

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as fn


class PersonalGates(nn.Module):
    """2 * sigmoid(W2 relu(W1 prior)) for each task: 1 everywhere before training. A shopper without a profile has her own, learned, gate.

    The prior does not depend on the candidates, so a gate is made once a request.
    """

    def __init__(self, prior_size: int, width: int, tasks: Sequence[str]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.first = nn.Linear(prior_size, width)
        self.second = nn.Linear(width, len(tasks) * width)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, prior_BP: Tensor, tasks: Sequence[str]) -> list[Tensor]:
        """(B, 1, D) of each task asked for, in (0, 2)."""
        gates_BTD = 2 * torch.sigmoid(self.second(fn.relu(self.first(prior_BP)))).view(
            len(prior_BP), len(self.tasks), self.second.out_features // len(self.tasks)
        )
        return [gates_BTD[:, self.tasks.index(task), None] for task in tasks]
