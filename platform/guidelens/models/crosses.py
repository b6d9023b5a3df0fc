"""Explicit feature crosses: DCN-v2's low-rank cross layers (Wang et al., WWW 2021, arXiv:2008.13535)."""

# Letters: X = any leading shape, I = input size, R = rank.

import torch
from torch import Tensor, nn


class CrossLayers(nn.Module):
    """x_{l+1} = x_0 * (U V x_l + b) + x_l: after L layers, products of up to L + 1 of the inputs (X, I), as (X, I)."""

    def __init__(self, size: int, num_layers: int, rank: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(nn.Linear(size, min(rank, size), bias=False) for _ in range(num_layers))
        self.up = nn.ModuleList(nn.Linear(min(rank, size), size) for _ in range(num_layers))

    def forward(self, x0_XI: Tensor) -> Tensor:
        x_XI = x0_XI
        for down, up in zip(self.down, self.up, strict=True):
            x_XI = torch.addcmul(x_XI, x0_XI, up(down(x_XI)))
        return x_XI
