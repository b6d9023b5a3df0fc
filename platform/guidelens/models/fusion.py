"""Modality tokens to one intent vector: concatenation or cross-attention, with a mask for what is missing."""

# Letters: B = rows, M = modality tokens, D = width, E = heads, Q = queries.

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from guidelens.config import ModelConfig
from guidelens.models.noise import Noise, dropout


class ConcatFusion(nn.Module):
    """All tokens side by side (zeros where missing) with their flags, through two layers."""

    def __init__(self, config: ModelConfig, num_tokens: int) -> None:
        super().__init__()
        self.drop = config.dropout
        self.wide = nn.Linear(num_tokens * (config.width + 1), 2 * config.width)
        self.out = nn.Linear(2 * config.width, config.width)

    def forward(self, tokens_BMD: Tensor, there_BM: Tensor, noise: Noise | None) -> Tensor:
        flat = torch.cat([(tokens_BMD * there_BM[:, :, None]).flatten(1), there_BM.float()], dim=1)
        out_BD: Tensor = self.out(dropout(fn.gelu(self.wide(flat)), self.drop, noise))
        return out_BD


class AttentionFusion(nn.Module):
    """Learned queries attend to the tokens that are there, then a feed-forward layer; weights say what each modality gave."""

    NUM_QUERIES = 2

    def __init__(self, config: ModelConfig, num_tokens: int) -> None:
        super().__init__()
        width = config.width
        self.drop = config.dropout
        self.heads = config.num_attention_heads
        self.kinds = nn.Parameter(torch.randn(num_tokens, width) * 0.1)
        self.queries = nn.Parameter(torch.randn(self.NUM_QUERIES, width) * 0.1)
        self.key_value = nn.Linear(width, 2 * width)
        self.mixed = nn.Linear(self.NUM_QUERIES * width, width)
        self.wide = nn.Linear(width + num_tokens, 2 * width)
        self.out = nn.Linear(2 * width, width)

    def forward(self, tokens_BMD: Tensor, there_BM: Tensor, noise: Noise | None) -> Tensor:
        batch, num_tokens, width = tokens_BMD.shape
        x_BMD = (tokens_BMD + self.kinds) * there_BM[:, :, None]
        k_BMD, v_BMD = self.key_value(x_BMD).chunk(2, dim=2)
        size = width // self.heads
        scores_BEMQ = k_BMD.view(batch, num_tokens, self.heads, size).transpose(1, 2) @ self.queries.view(self.NUM_QUERIES, self.heads, size).permute(1, 2, 0)
        weights = torch.softmax((scores_BEMQ / size**0.5).masked_fill(~there_BM[:, None, :, None], -1e4), dim=2)
        seen = (weights.transpose(2, 3) @ v_BMD.view(batch, num_tokens, self.heads, size).transpose(1, 2)).flatten(1)
        mixed_BD: Tensor = self.mixed(seen) + x_BMD.sum(1)
        deep: Tensor = self.out(dropout(fn.gelu(self.wide(torch.cat([mixed_BD, there_BM.float()], dim=1))), self.drop, noise))
        return mixed_BD + deep


def build_fusion(config: ModelConfig, num_tokens: int) -> ConcatFusion | AttentionFusion:
    return ConcatFusion(config, num_tokens) if config.fusion == "concat" else AttentionFusion(config, num_tokens)
