"""How tasks share: an own expert each, one shared bottom, or a mixture of experts with a gate per task (MMoE)."""

# Letters: X = any leading shape, I = input size, T = tasks, E = experts, D = width.

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from guidelens.config import ModelConfig


class Experts(nn.Module):
    """(X, I) inputs to one (X, D) vector per task asked for.

    MMoE: Ma et al., KDD 2018. `num_experts` counts only there; a single-task expert is one of the same width.
    """

    def __init__(self, config: ModelConfig, num_inputs: int, tasks: Sequence[str]) -> None:
        super().__init__()
        self.sharing = config.sharing
        self.tasks = tuple(tasks)
        self.width = config.width
        self.count = {"single_task": len(self.tasks), "shared_bottom": 1, "mmoe": config.num_experts}[self.sharing]
        self.experts = nn.Linear(num_inputs, self.count * config.width)
        if self.sharing == "mmoe":
            self.gates = nn.Linear(num_inputs, len(self.tasks) * self.count)

    def forward(self, x_XI: Tensor, tasks: Sequence[str]) -> list[Tensor]:
        """Task vectors in the order of `tasks`."""
        hidden_XED = _split(fn.gelu(self.experts(x_XI)), self.count)
        wanted = [self.tasks.index(task) for task in tasks]
        if self.sharing == "shared_bottom":
            return [hidden_XED[..., 0, :] for _ in wanted]
        if self.sharing == "single_task":
            return [hidden_XED[..., task, :] for task in wanted]
        gates_XTE = torch.softmax(_split(self.gates(x_XI), len(self.tasks)), dim=-1)
        return [(gates_XTE[..., task, :, None] * hidden_XED).sum(-2) for task in wanted]


def _split(x: Tensor, parts: int) -> Tensor:
    """(..., parts * W) to (..., parts, W)."""
    return x.view(*x.shape[:-1], parts, -1)
