"""Neural collaborative filtering (NeuMF, arXiv:1708.05031) on histories: a shopper is the mean of what was taken, so that new ones are scored too."""

# Letters: R = histories, N = products, D = width, T = events, B = events of a batch, S = products drawn for an event.

from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from guidelens.models.baselines.recommender import Scores
from guidelens.models.histories import Histories

_BATCH_EVENTS = 1024
_SCORE_ROWS = 64


class _NeuMf(nn.Module):
    """The product of two vectors, weighed, plus a layer on both, as in the paper; each path has vectors of its own."""

    def __init__(self, num_products: int, width: int) -> None:
        super().__init__()
        self.taken, self.offered = nn.Embedding(num_products, 2 * width), nn.Embedding(num_products, 2 * width)
        for table in (self.taken, self.offered):
            nn.init.normal_(table.weight, std=0.1)
        self.product = nn.Linear(width, 1)
        self.from_shopper, self.from_product = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.layer = nn.Linear(width, 1, bias=False)

    def forward(self, shoppers_RD: Tensor, offered: Tensor) -> Tensor:
        """Logits of (R, S, 2 D) or (N, 2 D) product vectors for (R, 2 D) shoppers."""
        one, two = shoppers_RD[:, None].chunk(2, dim=2)
        product_one, product_two = (offered if offered.dim() == 3 else offered[None]).chunk(2, dim=2)
        hidden = fn.relu(self.from_shopper(two) + self.from_product(product_two))
        found: Tensor = (self.product(one * product_one) + self.layer(hidden)).squeeze(2)
        return found


class Ncf:
    """A fitted NeuMF; scores are logits."""

    def __init__(self, model: _NeuMf) -> None:
        self.model = model.eval()

    @classmethod
    def fit(
        cls, histories: Histories, *, width: int = 16, epochs: int = 10, num_drawn: int = 4, learning_rate: float = 5e-3, l2: float = 1e-5, seed: int = 0
    ) -> Self:
        """Each event against `num_drawn` others drawn evenly, by binary cross-entropy; the event itself is taken out of its shopper's mean."""
        torch.manual_seed(seed)
        model = _NeuMf(histories.num_products, width)
        optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, weight_decay=l2)
        rows_T, products_T = torch.from_numpy(histories.rows), torch.from_numpy(histories.products)
        length_R1 = torch.from_numpy(histories.lengths)[:, None].float()
        for _ in range(epochs):
            for events in torch.split(torch.randperm(len(products_T)), _BATCH_EVENTS):
                distinct, at_B = torch.unique(rows_T[events], return_inverse=True)
                sums = _sums(model.taken, histories.take(distinct.numpy()))
                mine_BD = model.taken(products_T[events])
                shoppers_BD = (sums[at_B] - mine_BD) / (length_R1[rows_T[events]] - 1).clamp_min(1)
                drawn = torch.randint(histories.num_products, (len(events), num_drawn))
                offered = torch.cat([products_T[events][:, None], drawn], dim=1)
                logits = model(shoppers_BD, model.offered(offered))
                labels = torch.zeros_like(logits)
                labels[:, 0] = 1
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(fn.binary_cross_entropy_with_logits(logits, labels))
                optimizer.step()
        return cls(model)

    @torch.no_grad()
    def scores(self, histories: Histories) -> Scores:
        offered_ND = self.model.offered.weight
        found = np.empty((len(histories), histories.num_products), dtype=np.float32)
        for start in range(0, len(histories), _SCORE_ROWS):
            rows = np.arange(start, min(start + _SCORE_ROWS, len(histories)))
            part = histories.take(rows)
            shoppers = _sums(self.model.taken, part) / torch.from_numpy(part.lengths)[:, None].clamp_min(1)
            found[rows] = self.model(shoppers, offered_ND).numpy()
        return found


def _sums(table: nn.Embedding, histories: Histories) -> Tensor:
    """(R, 2 D) sum of each history's vectors; zeros for an empty one."""
    products, starts = torch.from_numpy(histories.products), torch.from_numpy(histories.offsets[:-1])
    found: Tensor = fn.embedding_bag(products, table.weight, starts, mode="sum")
    return found
