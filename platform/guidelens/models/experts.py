"""How tasks share: an own expert each, one shared bottom, a mixture of experts with a gate per task (MMoE), or shared experts
beside each task's own, in levels (CGC and PLE)."""

# Letters: X = any leading shape, I = input size, T = tasks, E = experts, D = width, G = groups of experts: each task's, then the shared ones.

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from guidelens.config import ModelConfig
from guidelens.models.noise import Noise, dropout

_NEVER = -1e9


class Experts(nn.Module):
    """Inputs in parts (each (X, I_p) or broadcastable to it) to one (X, D) vector per task asked for.

    The first layer is linear, so each part is multiplied where it is small: a request once, not once for each candidate.
    MMoE: Ma et al., KDD 2018. CGC and PLE: Tang et al., RecSys 2020. With `expert_norm` an expert is normalized before a smooth
    activation, so that no gate learns to avoid one whose scale is off or that gives zeros (HoME, arXiv:2408.05430; a layer's norm
    in place of a batch's, whose value would depend on the other rows).
    """

    may_use_GE: Tensor

    def __init__(self, config: ModelConfig, part_sizes: Sequence[int], tasks: Sequence[str]) -> None:
        super().__init__()
        self.sharing, self.tasks, self.width, self.drop = config.sharing, tuple(tasks), config.width, config.dropout
        self.part_sizes = list(part_sizes)
        group_E = expert_groups(config, len(tasks))
        self.count = len(group_E)
        self.gated = config.sharing in ("mmoe", "ple")
        num_gates = len(tasks) + (config.num_expert_levels > 1)
        self.register_buffer("may_use_GE", _may_use(group_E, len(tasks))[:num_gates], persistent=False)
        self.first = nn.Linear(sum(part_sizes), self.count * self.width + self.gated * num_gates * self.count)
        self.norm = ExpertNorm(self.count, self.width) if config.expert_norm else None
        self.levels = nn.ModuleList(
            ExtractionLevel(config, group_E, len(tasks), is_last=level == config.num_expert_levels - 1) for level in range(1, config.num_expert_levels)
        )

    def part(self, x: Tensor, number: int) -> Tensor:
        """(..., I_p) to what it adds to the first layer, whose bias comes with part 0."""
        bias = self.first.bias if number == 0 else None
        return fn.linear(x, torch.split(self.first.weight, self.part_sizes, dim=1)[number], bias)

    def forward(self, summed_XI: Tensor, tasks: Sequence[str], noise: Noise | None = None) -> list[Tensor]:
        """Task vectors in the order of `tasks`, from the sum of all parts."""
        before_XI, gates_XI = self._parted(summed_XI)
        hidden_XED = self._activated(before_XI, noise)
        wanted = [self.tasks.index(task) for task in tasks]
        if not self.gated:
            return [hidden_XED[..., task if self.sharing == "single_task" else 0, :] for task in wanted]
        needed = list(range(len(self.may_use_GE))) if self.levels else wanted
        mixed_XGD = _of(self._gates(gates_XI), needed) @ hidden_XED
        if not self.levels:
            return list(mixed_XGD.unbind(-2))
        for level in self.levels:
            mixed_XGD = level(mixed_XGD, noise)
        return [mixed_XGD[..., task, :] for task in wanted]

    def shares(self, summed_XI: Tensor) -> Tensor | None:
        """(X, T, E) what each task's gate of the first level gives each expert; None where there are no gates."""
        if not self.gated:
            return None
        return self._gates(self._parted(summed_XI)[1])[..., : len(self.tasks), :]

    def _parted(self, summed_XI: Tensor) -> tuple[Tensor, Tensor]:
        """The experts' values before activation, and the gates' logits (none without gates)."""
        edge = self.count * self.width
        experts_XI, gates_XI = torch.split(summed_XI, [edge, summed_XI.shape[-1] - edge], dim=-1)
        return experts_XI, gates_XI

    def _activated(self, x: Tensor, noise: Noise | None) -> Tensor:
        if self.norm is None:
            return _split(dropout(fn.gelu(x), self.drop, noise), self.count)
        return _split(dropout(self.norm(_split(x, self.count)).flatten(-2), self.drop, noise), self.count)

    def _gates(self, x: Tensor) -> Tensor:
        """(X, G, E): each group's softmax over the experts that it may use."""
        logits_XGE = _split(x, len(self.may_use_GE)).masked_fill(~self.may_use_GE, _NEVER)
        return torch.softmax(logits_XGE, dim=-1)


class ExpertNorm(nn.Module):
    """Each expert's values to mean 0 and variance 1, scaled and moved by its own weights, then SiLU."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.scale_ED = nn.Parameter(torch.ones(count, width))
        self.shift_ED = nn.Parameter(torch.zeros(count, width))

    def forward(self, x_XED: Tensor) -> Tensor:
        size, weights = x_XED.shape[-1:], zip(self.scale_ED, self.shift_ED, strict=True)
        each = [fn.layer_norm(x_XD, size, scale_D, shift_D) for x_XD, (scale_D, shift_D) in zip(x_XED.unbind(-2), weights, strict=True)]
        return fn.silu(torch.stack(each, dim=-2))


class ExtractionLevel(nn.Module):
    """A further level of PLE: each group's experts read its own vector of the level before; the shared group's gate may use all."""

    may_use_GE: Tensor
    group_E: Tensor

    def __init__(self, config: ModelConfig, group_E: Sequence[int], num_tasks: int, *, is_last: bool) -> None:
        super().__init__()
        self.drop, count, width = config.dropout, len(group_E), config.width
        num_gates = num_tasks + (not is_last)
        self.register_buffer("may_use_GE", _may_use(group_E, num_tasks)[:num_gates], persistent=False)
        self.register_buffer("group_E", torch.tensor(list(group_E)), persistent=False)
        self.weight_EDD = nn.Parameter(torch.empty(count, width, width))
        self.bias_ED = nn.Parameter(torch.zeros(count, width))
        nn.init.uniform_(self.weight_EDD, -(width**-0.5), width**-0.5)
        self.gate_GDE = nn.Parameter(torch.zeros(num_gates, width, count))
        self.norm = ExpertNorm(count, width) if config.expert_norm else None

    def forward(self, x_XGD: Tensor, noise: Noise | None) -> Tensor:
        """(X, T + 1, D) to (X, T + 1, D), without the shared group in the last level."""
        hidden_XED = torch.einsum("...ed,edf->...ef", x_XGD[..., self.group_E, :], self.weight_EDD) + self.bias_ED
        hidden_XED = fn.gelu(hidden_XED) if self.norm is None else self.norm(hidden_XED)
        hidden_XED = _split(dropout(hidden_XED.flatten(-2), self.drop, noise), len(self.group_E))
        logits_XGE = torch.einsum("...gd,gde->...ge", x_XGD[..., : len(self.may_use_GE), :], self.gate_GDE)
        mixed_XGD: Tensor = torch.softmax(logits_XGE.masked_fill(~self.may_use_GE, _NEVER), dim=-1) @ hidden_XED
        return mixed_XGD


def expert_groups(config: ModelConfig, num_tasks: int) -> list[int]:
    """(E,) the group of each expert: a task's number, or `num_tasks` where it is shared."""
    shared = {"single_task": 0, "shared_bottom": 1, "mmoe": config.num_experts, "ple": config.num_experts}[config.sharing]
    own = {"single_task": 1, "ple": config.num_task_experts}.get(config.sharing, 0)
    return [num_tasks] * shared + [task for task in range(num_tasks) for _ in range(own)]


def _may_use(group_E: Sequence[int], num_tasks: int) -> Tensor:
    """(T + 1, E) bool: a task may use its own experts and the shared ones, the shared group all."""
    groups_E = torch.tensor(list(group_E))
    own_TE = groups_E == torch.arange(num_tasks)[:, None]
    every_1E = torch.ones(1, len(group_E), dtype=torch.bool)
    return torch.cat([own_TE | (groups_E == num_tasks), every_1E])


def _of(x_XGE: Tensor, groups: list[int]) -> Tensor:
    """The groups asked for, in their order; `x_XGE` itself where that is all of them."""
    return x_XGE if groups == list(range(x_XGE.shape[-2])) else x_XGE[..., groups, :]


def _split(x: Tensor, parts: int) -> Tensor:
    """(..., parts * W) to (..., parts, W)."""
    return x.view(*x.shape[:-1], parts, x.shape[-1] // parts)
