"""How tasks share: an own expert each, one shared bottom, or a mixture of experts with a gate per task (MMoE)."""

# Letters: X = any leading shape, I = input size, T = tasks, E = experts, D = width.

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from guidelens.config import ModelConfig
from guidelens.models.noise import Noise, dropout


class Experts(nn.Module):
    """Inputs in parts (each (X, I_p) or broadcastable to it) to one (X, D) vector per task asked for.

    The first layer is linear, so each part is multiplied where it is small: a request once, not once for each candidate.
    MMoE: Ma et al., KDD 2018. `num_experts` counts only there; a single-task expert is one of the same width.
    """

    def __init__(self, config: ModelConfig, part_sizes: Sequence[int], tasks: Sequence[str]) -> None:
        super().__init__()
        self.sharing, self.tasks, self.width, self.drop = config.sharing, tuple(tasks), config.width, config.dropout
        self.part_sizes = list(part_sizes)
        self.count = {"single_task": len(self.tasks), "shared_bottom": 1, "mmoe": config.num_experts}[self.sharing]
        num_gates = len(self.tasks) * self.count if self.sharing == "mmoe" else 0
        self.first = nn.Linear(sum(part_sizes), self.count * config.width + num_gates)

    def part(self, x: Tensor, number: int) -> Tensor:
        """(..., I_p) to what it adds to the first layer, without the bias."""
        start = sum(self.part_sizes[:number])
        return fn.linear(x, self.first.weight[:, start : start + self.part_sizes[number]])

    def forward(self, summed_XI: Tensor, tasks: Sequence[str], noise: Noise | None = None) -> list[Tensor]:
        """Task vectors in the order of `tasks`, from the sum of all parts."""
        before_XI = summed_XI + self.first.bias
        edge = self.count * self.width
        hidden_XED = _split(dropout(fn.gelu(before_XI[..., :edge]), self.drop, noise), self.count)
        wanted = [self.tasks.index(task) for task in tasks]
        if self.sharing == "shared_bottom":
            return [hidden_XED[..., 0, :] for _ in wanted]
        if self.sharing == "single_task":
            return [hidden_XED[..., task, :] for task in wanted]
        gates_XTE = torch.softmax(_split(before_XI[..., edge:], len(self.tasks)), dim=-1)
        return list((gates_XTE[..., wanted, :] @ hidden_XED).unbind(-2))


def _split(x: Tensor, parts: int) -> Tensor:
    """(..., parts * W) to (..., parts, W)."""
    return x.view(*x.shape[:-1], parts, -1)
