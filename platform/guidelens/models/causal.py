"""A causal encoder of product sequences: self-attention with learned recency, or a GRU; position l sees 0 … l only."""

# Letters: B = sequences, L = places (oldest first, padded at the end), D = width, H = heads, K = width of a head.

import torch
from torch import Tensor, nn
from torch.nn import functional as fn


class RecencyAttention(nn.Module):
    """Causal self-attention with a learned bias for every distance and head.

    The bias starts as a line whose slope differs by head (ALiBi, arXiv:2108.12409), so that some heads read the last event and
    others the mean of all: the low and high pass that frequency-domain encoders add (BSARec, arXiv:2312.10325), in causal form.
    """

    def __init__(self, width: int, num_heads: int, max_length: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        slopes_H = torch.logspace(0, -4, num_heads, base=2.0)
        self.recency_HL = nn.Parameter(-slopes_H[:, None] * torch.arange(max_length)[None, :])

    def forward(self, x_BLD: Tensor) -> Tensor:
        batch, length, width = x_BLD.shape
        q, k, v = self.qkv(x_BLD).view(batch, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        place = torch.arange(length, device=x_BLD.device)
        distance_LL = place[:, None] - place[None, :]
        bias_HLL = self.recency_HL[:, distance_LL.clamp_min(0)].masked_fill(distance_LL < 0, -1e9)
        weights_BHLL = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + bias_HLL, dim=-1)
        mixed = fn.dropout(weights_BHLL, self.dropout, self.training) @ v
        found: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return found


class CausalBlock(nn.Module):
    """Pre-norm attention and feed-forward, each on a residual path."""

    def __init__(self, width: int, num_heads: int, max_length: int, dropout: float) -> None:
        super().__init__()
        self.attend = RecencyAttention(width, num_heads, max_length, dropout)
        self.norm_attend, self.norm_feed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * width, width))
        self.drop = nn.Dropout(dropout)

    def forward(self, x_BLD: Tensor) -> Tensor:
        x_BLD = x_BLD + self.drop(self.attend(self.norm_attend(x_BLD)))
        found: Tensor = x_BLD + self.drop(self.feed(self.norm_feed(x_BLD)))
        return found
