"""Learns a NeuMF (`neural`): the only part of it that needs torch."""

# Letters: R = histories, D = width of a path, T = events, B = events of a batch, S = products drawn for an event.

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as fn

from guidelens.models.histories import Histories

_BATCH_EVENTS = 1024


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
        """Logits of (R, S, 2 D) product vectors for (R, 2 D) shoppers."""
        one, two = shoppers_RD[:, None].chunk(2, dim=2)
        product_one, product_two = offered.chunk(2, dim=2)
        hidden = fn.relu(self.from_shopper(two) + self.from_product(product_two))
        found: Tensor = (self.product(one * product_one) + self.layer(hidden)).squeeze(2)
        return found


def fitted(histories: Histories, *, width: int, epochs: int, num_drawn: int, learning_rate: float, l2: float, seed: int) -> dict[str, NDArray[np.float32]]:
    """The weights, as `Ncf` names them."""
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
    named = {
        "taken": model.taken.weight,
        "offered": model.offered.weight,
        "product": model.product.weight[0],
        "bias": model.product.bias,
        "shopper": model.from_shopper.weight,
        "shopper_bias": model.from_shopper.bias,
        "offer": model.from_product.weight,
        "layer": model.layer.weight[0],
    }
    return {name: weight.detach().numpy().copy() for name, weight in named.items()}


def _sums(table: nn.Embedding, histories: Histories) -> Tensor:
    """(R, 2 D) sum of each history's vectors; zeros for an empty one."""
    products, starts = torch.from_numpy(histories.products), torch.from_numpy(histories.offsets[:-1])
    found: Tensor = fn.embedding_bag(products, table.weight, starts, mode="sum")
    return found
