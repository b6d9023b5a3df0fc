"""A model's gradients side by side in one tensor, so that they are summed over workers, measured and clipped as one.

Knows nothing of losses, tasks or optimizers.
"""

# Letters: X = values of several gradients, flat.

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

Reduce = Callable[[Tensor], None]
"""Sums a tensor over all workers, in place."""


class Gradients:
    """The gradients of the weights that learn. Made after a first backward pass; from then on each dense weight's `grad` is a view of one tensor.

    Args:
        summed: weights whose gradients are summed over workers. A sparse gradient must name the same rows on all workers.
        combined: weights whose gradients `set_combined` gives, the same on all workers.
        owned: weights that this worker alone has, and whose gradients backward gives in full.
        num_totals: further numbers that are summed in the same exchange.
        idle: the other weights, which `clear` leaves without a gradient.
    """

    def __init__(
        self,
        summed: Sequence[nn.Parameter],
        combined: Sequence[nn.Parameter],
        owned: Sequence[nn.Parameter],
        num_totals: int,
        idle: Sequence[nn.Parameter] = (),
    ) -> None:
        self._idle = list(idle)
        self._summed_sparse, self._owned_sparse = _sparse(summed), _sparse(owned)
        groups = [_dense(summed), list(combined), _dense(owned)]
        self._dense = [parameter for group in groups for parameter in group]
        sizes = [num_totals, 1, *(sum(parameter.numel() for parameter in group) for group in groups)]
        edges = torch.tensor([0, *sizes]).cumsum(0).tolist()
        self._flat = torch.zeros(edges[-1], device=self._dense[0].device)
        self._totals, self._square, _, self._combined, self._owned = (self._flat[start:end] for start, end in pairwise(edges))
        self._exchanged, self._same, self._values = self._flat[: edges[3]], self._flat[edges[2] : edges[4]], self._flat[edges[2] :]
        parts = torch.split(self._values, [parameter.numel() for parameter in self._dense])
        self._views = [part.view_as(parameter) for part, parameter in zip(parts, self._dense, strict=True)]
        for parameter, view in zip(self._dense, self._views, strict=True):
            if parameter.grad is not None:
                view.copy_(parameter.grad)
            parameter.grad = view

    def clear(self) -> None:
        """Zeros, to which the next backward passes add."""
        self._flat.zero_()
        for parameter, view in zip(self._dense, self._views, strict=True):
            parameter.grad = view
        for parameter in (*self._summed_sparse, *self._owned_sparse, *self._idle):
            parameter.grad = None

    def sum_over_workers(self, reduce: Reduce, totals: Tensor, *others: Tensor) -> None:
        """Gradients, totals and others become those of all workers' rows, in one exchange."""
        self._totals.copy_(totals)
        self._square.copy_(torch.stack([x.square().sum() for x in (self._owned, *map(_values, self._owned_sparse))]).sum())
        parts = [self._exchanged, *others, *map(_values, self._summed_sparse)]
        if len(parts) == 1:
            reduce(self._exchanged)
        else:
            flat = torch.cat([part.view(-1) for part in parts])
            reduce(flat)
            for part, found in zip(parts, torch.split(flat, [part.numel() for part in parts]), strict=True):
                part.copy_(found.view_as(part))
        totals.copy_(self._totals)

    def set_combined(self, values_X: Tensor) -> None:
        """The gradients of the combined weights, in their order."""
        self._combined.copy_(values_X)

    def clip(self, max_norm: float) -> None:
        """Scales all gradients so that their norm, with what other workers own, is at most `max_norm`."""
        norms = [torch.linalg.vector_norm(x) for x in (self._same, *map(_values, self._summed_sparse))]
        norm = torch.stack([*norms, self._square[0].sqrt()]).norm()
        scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
        for x in (self._values, *map(_values, (*self._summed_sparse, *self._owned_sparse))):
            x.mul_(scale)


def _sparse(parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
    return [parameter for parameter in parameters if parameter.grad is not None and parameter.grad.is_sparse]


def _dense(parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
    return [parameter for parameter in parameters if parameter.grad is None or not parameter.grad.is_sparse]


def _values(parameter: nn.Parameter) -> Tensor:
    """The values of a sparse gradient, flat and to be written to."""
    assert parameter.grad is not None
    parameter.grad = parameter.grad.coalesce()
    return parameter.grad._values().view(-1)
