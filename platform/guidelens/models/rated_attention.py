"""A learned neighbourhood: a pair looks at the ratings near it and takes the weighted mean of what is left of them.

kNN's form, sum w (r - b) / sum w, with weights that are attention of the target over the rated (DIN, Zhou et al., KDD 2018) and fade with the
time between two ratings; an empty rating takes part, so that few or far neighbours say little (kNN's shrinkage). Beside the mean stands
SVD++'s sum of rated vectors (Koren, KDD 2008, of residuals, as in his asymmetric SVD), which a product meets in a dot product.
"""

# Letters: B = pairs, H = ratings near a pair, A = attention heads, D = size of a head, V = size of a vector, K = what can be rated.

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from guidelens.models.rating_history import Near

_EMPTY_RATINGS = 20.0
_HOURS_PER_DAY = 24.0


class RatedAttention(nn.Module):
    """Attention of a target (a product) over what is near it (the shopper's rated products), or of a shopper over a product's raters.

    Args:
        num_rated: products, or shoppers.
        vector_size: of the summed vectors.
    """

    def __init__(self, num_rated: int, num_heads: int, head_size: int, vector_size: int) -> None:
        super().__init__()
        self.shape = (num_heads, head_size)
        self.query = nn.Embedding(num_rated, num_heads * head_size)
        self.key = nn.Embedding(num_rated, num_heads * head_size)
        self.vector = nn.Embedding(num_rated, vector_size)
        for table, std in ((self.query, head_size**-0.5 / 2), (self.key, head_size**-0.5 / 2), (self.vector, 0.05)):
            nn.init.normal_(table.weight, std=std)
        self.empty_A = nn.Parameter(torch.full((num_heads,), math.log(_EMPTY_RATINGS)))
        self.fading_A = nn.Parameter(torch.linspace(0, 0.5, num_heads))

    def forward(self, target_B: Tensor, near: Near) -> tuple[Tensor, Tensor]:
        """(B, 2A) each head's mean and the share it did not give to the empty rating, and (B, V) the summed vectors."""
        query_BAD, key_BHAD = self.query(target_B).unflatten(1, self.shape), self.key(near.other_BH).unflatten(2, self.shape)
        faded_BH = torch.log1p(near.older_BH.abs() * _HOURS_PER_DAY) / 2
        logits_BAH = 2 * torch.einsum("bad,bhad->bah", query_BAD, key_BHAD) - fn.softplus(self.fading_A)[:, None] * faded_BH[:, None]
        logits_BAH = logits_BAH.masked_fill(~near.there_BH[:, None], -1e9)
        empty_BA1 = self.empty_A[None, :, None].expand(len(target_B), -1, -1)
        weight_BAH = torch.softmax(torch.cat([empty_BA1, logits_BAH], dim=2), dim=2)[:, :, 1:]
        mean_BA = torch.einsum("bah,bh->ba", weight_BAH, near.left_BH)
        scale_B1 = (near.there_BH.sum(1, keepdim=True) + 1.0).rsqrt()
        vector_BV = torch.einsum("bh,bhv->bv", near.left_BH, self.vector(near.other_BH)) * scale_B1
        return torch.cat([mean_BA, weight_BAH.sum(2)], dim=1), vector_BV
