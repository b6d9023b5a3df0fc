"""Randomness of training that does not depend on how a batch is cut: drawn for the whole global batch, then sliced.

Every worker draws the same numbers from the same seed and keeps those of its own rows, so that one worker and two see the
same dropout at one global batch.
"""

# Letters: G = rows in the global batch, B = rows of this worker.

import torch
from torch import Tensor


class Noise:
    """Dropout masks of one training step.

    Args:
        seed: of the run and step; equal on all workers.
        num_global: rows of the global batch (G).
        rows: this worker's slice of them.
        device: where the numbers are wanted; they are drawn on the CPU, so that they are the same everywhere.
    """

    def __init__(self, seed: int, num_global: int, rows: slice, device: torch.device | None = None) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._num_global = num_global
        self._rows = rows
        self._device = device or torch.device("cpu")

    def kept(self, shape: tuple[int, ...], drop: float) -> Tensor:
        """(B, *shape) bool, True where a value stays."""
        return self.uniform(shape) >= drop

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """(B, *shape) float32 in [0, 1)."""
        return torch.rand((self._num_global, *shape), generator=self._generator)[self._rows].to(self._device)

    def shared(self, shape: tuple[int, ...]) -> Tensor:
        """(*shape) float32 in [0, 1), the same on all workers: for what belongs to no row."""
        return torch.rand(shape, generator=self._generator).to(self._device)


def dropout(x: Tensor, drop: float, noise: Noise | None) -> Tensor:
    """`x` (B, ..., D) with whole last-axis units dropped per row; unchanged without noise."""
    if noise is None or drop == 0:
        return x
    shape = (*(1 for _ in x.shape[1:-1]), x.shape[-1])
    return x * noise.kept(shape, drop) / (1 - drop)
