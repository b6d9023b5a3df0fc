"""What happens between the tasks of a model: their gradients over the shared weights, how the experts are used, and where a step's time goes."""

# Letters: T = tasks, P = shared weights (flat), E = experts.

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def task_gradients(losses: Mapping[str, Tensor], parameters: Sequence[nn.Parameter]) -> Tensor:
    """(T, P) gradient of each loss; the graph is kept for whoever goes backward next."""
    rows = []
    for loss in losses.values():
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        rows.append(
            torch.cat(
                [(torch.zeros_like(parameter) if gradient is None else gradient).reshape(-1) for parameter, gradient in zip(parameters, found, strict=True)]
            )
        )
    return torch.stack(rows)


def conflict_signals(tasks: Sequence[str], gradients_TP: Tensor) -> dict[str, float]:
    """`gradient_norm.TASK`, and `gradient_cosine.ONE.OTHER` of each pair: below 0 the two pull against each other."""
    norms_T = gradients_TP.norm(dim=1)
    signals = {f"gradient_norm.{task}": float(norm) for task, norm in zip(tasks, norms_T, strict=True)}
    unit_TP = gradients_TP / norms_T.clamp_min(1e-12)[:, None]
    cosines_TT = unit_TP @ unit_TP.T
    for one in range(len(tasks)):
        for other in range(one + 1, len(tasks)):
            signals[f"gradient_cosine.{tasks[one]}.{tasks[other]}"] = float(cosines_TT[one, other])
    return signals


def expert_signals(tasks: Sequence[str], shares_TE: Tensor) -> dict[str, float]:
    """`expert_share.TASK.NUMBER`, and `expert_share.least`: the largest share that any task gives the expert used least (0: dead)."""
    signals = {f"expert_share.{task}.{number}": float(share) for task, row in zip(tasks, shares_TE, strict=True) for number, share in enumerate(row)}
    return {**signals, "expert_share.least": float(shares_TE.max(dim=0).values.min())}


class StepClock:
    """Seconds of an epoch by part of a step. On a GPU work is queued, so a part lasts until the next one has to wait."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def signals(self) -> dict[str, float]:
        """`step_seconds.PART` since the last call."""
        found = {f"step_seconds.{name}": seconds for name, seconds in self.seconds.items()}
        self.seconds = {}
        return found
