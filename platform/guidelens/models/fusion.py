"""Modality tokens to one intent vector: concatenation, a weighted sum or cross-attention, with a mask for what is missing."""

# Letters: B = rows, M = modality tokens, D = width, E = heads, Q = queries.

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from guidelens.config import Fusion, ModelConfig
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


class WeightedFusion(nn.Module):
    """A convex sum of the tokens that are there, through two layers; each token and its kind say how much it weighs."""

    def __init__(self, config: ModelConfig, num_tokens: int) -> None:
        super().__init__()
        self.drop = config.dropout
        self.weight = nn.Linear(config.width, 1)
        self.kinds = nn.Parameter(torch.zeros(num_tokens))
        self.wide = nn.Linear(config.width + num_tokens, 2 * config.width)
        self.out = nn.Linear(2 * config.width, config.width)

    def forward(self, tokens_BMD: Tensor, there_BM: Tensor, noise: Noise | None) -> Tensor:
        weights_BM = self.weights(tokens_BMD, there_BM)
        mixed_BD = (weights_BM[:, None, :] @ tokens_BMD).squeeze(1)
        deep: Tensor = self.out(dropout(fn.gelu(self.wide(torch.cat([mixed_BD, there_BM.float()], dim=1))), self.drop, noise))
        return mixed_BD + deep

    def weights(self, tokens_BMD: Tensor, there_BM: Tensor) -> Tensor:
        """(B, M) share of each token, 0 where it is not there."""
        scores_BM = self.weight(tokens_BMD).squeeze(2) + self.kinds
        return torch.softmax(scores_BM.masked_fill(~there_BM, -1e4), dim=1) * there_BM


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
        x_BMD = self._placed(tokens_BMD, there_BM)
        weights_BEMQ, v_BEMD = self._attention(x_BMD, there_BM)
        seen = (weights_BEMQ.transpose(2, 3) @ v_BEMD).flatten(1)
        mixed_BD: Tensor = self.mixed(seen) + x_BMD.sum(1)
        deep: Tensor = self.out(dropout(fn.gelu(self.wide(torch.cat([mixed_BD, there_BM.float()], dim=1))), self.drop, noise))
        return mixed_BD + deep

    def weights(self, tokens_BMD: Tensor, there_BM: Tensor) -> Tensor:
        """(B, M) attention of each token, the mean over heads and queries; 0 where it is not there."""
        weights_BEMQ, _ = self._attention(self._placed(tokens_BMD, there_BM), there_BM)
        return weights_BEMQ.mean(dim=(1, 3)) * there_BM

    def _placed(self, tokens_BMD: Tensor, there_BM: Tensor) -> Tensor:
        return (tokens_BMD + self.kinds) * there_BM[:, :, None]

    def _attention(self, x_BMD: Tensor, there_BM: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (B, E, M, Q) that sum to 1 over the tokens that are there, and values (B, E, M, D / E)."""
        batch, num_tokens, width = x_BMD.shape
        size = width // self.heads
        k_BMD, v_BMD = self.key_value(x_BMD).chunk(2, dim=2)
        k_BEMD, v_BEMD = (y.view(batch, num_tokens, self.heads, size).transpose(1, 2) for y in (k_BMD, v_BMD))
        scores_BEMQ = k_BEMD @ self.queries.view(self.NUM_QUERIES, self.heads, size).permute(1, 2, 0)
        return torch.softmax((scores_BEMQ / size**0.5).masked_fill(~there_BM[:, None, :, None], -1e4), dim=2), v_BEMD


FUSIONS: dict[Fusion, type[ConcatFusion | WeightedFusion | AttentionFusion]] = {
    "concat": ConcatFusion,
    "weighted": WeightedFusion,
    "attention": AttentionFusion,
}


def build_fusion(config: ModelConfig, num_tokens: int) -> ConcatFusion | WeightedFusion | AttentionFusion:
    return FUSIONS[config.fusion](config, num_tokens)
