"""The recent visits as one vector: mean pool, GRU or self-attention, newest first."""

# Letters: B = rows, H = recent visits, F = values of a visit, D = width.

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from guidelens.config import ModelConfig
from guidelens.models.inputs import NUM_VALUES


class SequenceEncoder(nn.Module):
    """Product vectors and values of up to H visits to one (B, D) vector; zeros where there is no visit."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.kind = config.sequence
        width = config.width
        self.visit = nn.Linear(width + NUM_VALUES, width)
        if self.kind == "gru":
            self.gru = nn.GRU(width, width, batch_first=True)
        if self.kind == "attention":
            self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, products_BHD: Tensor, values_BHF: Tensor, there_BH: Tensor) -> Tensor:
        x_BHD = fn.gelu(self.visit(torch.cat([products_BHD, values_BHF], dim=2))) * there_BH[:, :, None]
        if self.kind == "gru":
            pooled_BD = self._last_state(x_BHD, there_BH)
        else:
            mixed_BHD = x_BHD + self._attended(x_BHD, there_BH) if self.kind == "attention" else x_BHD
            pooled_BD = (mixed_BHD * there_BH[:, :, None]).sum(1) / there_BH.sum(1, keepdim=True).clamp_min(1)
        out_BD: Tensor = self.out(pooled_BD)
        return out_BD * there_BH.any(1, keepdim=True)

    def _attended(self, x_BHD: Tensor, there_BH: Tensor) -> Tensor:
        """Self-attention of one head: twenty visits are few, and a head costs two copies of them."""
        q_BHD, k_BHD, v_BHD = self.qkv(x_BHD).chunk(3, dim=2)
        weights_BHH = q_BHD @ k_BHD.transpose(1, 2) / x_BHD.shape[2] ** 0.5
        weights_BHH = torch.softmax(weights_BHH.masked_fill(~there_BH[:, None, :], -1e4), dim=2)
        mixed_BHD: Tensor = weights_BHH @ v_BHD
        return mixed_BHD

    def _last_state(self, x_BHD: Tensor, there_BH: Tensor) -> Tensor:
        """Oldest to newest; visits that are not there leave the state as it was at 0 (they come first)."""
        states_BHD, _ = self.gru(x_BHD.flip(1))
        last_BD: Tensor = states_BHD[:, -1]
        return last_BD
