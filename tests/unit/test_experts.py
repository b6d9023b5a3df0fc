"""Experts against the papers' formulas, an expert and a task at a time."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as fn

from guidelens.config import ModelConfig
from guidelens.models.experts import Experts, expert_groups

TASKS = ("first", "second", "third")
PART_SIZES = (5, 3)
WIDTH = 8


def by_formula(experts: Experts, config: ModelConfig, parts: tuple[Tensor, Tensor], task: int) -> Tensor:
    """(X, D): sum over the experts that the task may use of softmax(gate) times SiLU or GELU of each expert's (normalized) linear layer."""
    values = torch.cat([part.expand(4, 6, -1) for part in parts], dim=-1) @ experts.first.weight.T + experts.first.bias
    groups = expert_groups(config, len(TASKS))
    first_gate = len(groups) * WIDTH
    usable = [number for number, group in enumerate(groups) if group in (task, len(TASKS))]
    outputs = []
    for number in usable:
        hidden = values[..., number * WIDTH : (number + 1) * WIDTH]
        if experts.norm is not None:
            centred = hidden - hidden.mean(-1, keepdim=True)
            hidden = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * experts.norm.scale_ED[number] + experts.norm.shift_ED[number]
        outputs.append(fn.gelu(hidden) if experts.norm is None else hidden * torch.sigmoid(hidden))
    if not experts.gated:
        return outputs[0]
    logits = torch.stack([values[..., first_gate + task * len(groups) + number] for number in usable], dim=-1)
    share = logits.exp() / logits.exp().sum(-1, keepdim=True)
    return sum((share[..., place, None] * output for place, output in enumerate(outputs)), torch.zeros(4, 6, WIDTH))


@pytest.mark.parametrize("expert_norm", [False, True])
@pytest.mark.parametrize("sharing", ["single_task", "shared_bottom", "mmoe", "ple"])
@torch.no_grad()
def test_each_tasks_vector_is_the_papers_formula_for_all_tasks_and_for_some_in_another_order(sharing: str, expert_norm: bool) -> None:
    config = ModelConfig.model_validate({"sharing": sharing, "expert_norm": expert_norm, "width": WIDTH, "num_experts": 3, "num_task_experts": 2})
    torch.manual_seed(0)
    experts = Experts(config, PART_SIZES, TASKS)
    if experts.norm is not None:
        torch.nn.init.normal_(experts.norm.scale_ED)
        torch.nn.init.normal_(experts.norm.shift_ED)
    of_request, of_pair = torch.randn(4, 1, PART_SIZES[0]), torch.randn(4, 6, PART_SIZES[1])
    summed = experts.part(of_request, 0) + experts.part(of_pair, 1)
    for asked in (TASKS, ("third", "first")):
        found = experts(summed, asked)
        assert len(found) == len(asked)
        for task, vector in zip(asked, found, strict=True):
            torch.testing.assert_close(vector, by_formula(experts, config, (of_request, of_pair), TASKS.index(task)), rtol=1e-4, atol=1e-5)
