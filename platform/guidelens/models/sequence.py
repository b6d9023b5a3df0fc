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
        self.heads = config.num_attention_heads
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
        batch, length, width = x_BHD.shape
        q, k, v = self.qkv(x_BHD).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        bias = torch.zeros_like(there_BH, dtype=x_BHD.dtype).masked_fill(~there_BH, -1e4)[:, None, None, :]
        weights = torch.softmax(q @ k.transpose(-1, -2) / (width // self.heads) ** 0.5 + bias, dim=-1)
        mixed: Tensor = weights @ v
        return mixed.transpose(1, 2).reshape(batch, length, width)

    def _last_state(self, x_BHD: Tensor, there_BH: Tensor) -> Tensor:
        """Oldest to newest; visits that are not there leave the state as it was at 0 (they come first)."""
        states_BHD, _ = self.gru(x_BHD.flip(1))
        last_BD: Tensor = states_BHD[:, -1]
        return last_BD
