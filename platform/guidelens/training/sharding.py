"""Products shared out over workers: each computes the vectors of its share, and with `train.sharding=rows` it alone holds their id vectors.

Product p is worker p % W's, so that any set of products is spread evenly. Built on nothing but a sum over workers.
"""

# Letters: M = products of a step, N = of the catalogue, O = those of them that are this worker's, X = values of each.

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from guidelens.models.guide import GuideModel
from guidelens.training.data import Place
from guidelens.training.gradients import Reduce

CHUNK_VALUES = 1 << 24
"""Of a table that is put together, what passes a worker's device at once."""


@dataclass(frozen=True)
class Shares:
    """This worker's share of the products of a step. owns_rows: it alone holds their rows of the tables."""

    place: Place
    reduce: Reduce
    owns_rows: bool

    def own_places(self, rows_M: Tensor) -> Tensor:
        """(O,) where this worker's products stand among `rows_M`, rows of the catalogue."""
        return torch.nonzero(rows_M % self.place.num_workers == self.place.rank).squeeze(1)

    def gathered(self, own_OX: Tensor, places_O: Tensor, num_products: int) -> Tensor:
        """(M, X) of all workers' shares. Its gradient is summed over workers, so that each has that of its share in full."""
        found: Tensor = _Gathered.apply(own_OX, places_O, num_products, self.reduce)  # type: ignore[no-untyped-call]  # torch's
        return found


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own_OX: Tensor, places_O: Tensor, num_products: int, reduce: Reduce) -> Tensor:
        ctx.places_O, ctx.reduce = places_O, reduce
        every_MX = own_OX.new_zeros(num_products, own_OX.shape[1])
        every_MX[places_O] = own_OX
        reduce(every_MX)
        return every_MX

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        gradient_MX = gradients[0].contiguous().clone()
        ctx.reduce(gradient_MX)
        return gradient_MX[ctx.places_O], None, None, None


def keep_own_rows(model: GuideModel, place: Place) -> None:
    """Cuts the tables of products to this worker's rows: row i is then product i * W + rank."""
    ids = model.tower.ids
    model.tower.ids = nn.Embedding(len(range(place.rank, ids.num_embeddings, place.num_workers)), ids.embedding_dim, _weight=own_rows(ids.weight, place))
    model.bias = nn.Parameter(own_rows(model.bias, place))
    model.tower.num_shards = place.num_workers


def own_rows(table: Tensor, place: Place) -> Tensor:
    return table.detach()[place.rank :: place.num_workers].clone()


def whole_table(own: Tensor, num_rows: int, place: Place, reduce: Reduce) -> Tensor:
    """The table whose rows all workers give, in the memory of the first one's host; empty on the others. Called by all of them alike."""
    chunk = max(1, CHUNK_VALUES // math.prod(own.shape[1:]) // place.num_workers) * place.num_workers
    found = []
    for start in range(0, num_rows, chunk):
        part = own.new_zeros(min(chunk, num_rows - start), *own.shape[1:])
        mine = part[place.rank :: place.num_workers]
        mine.copy_(own[start // place.num_workers :][: len(mine)])
        reduce(part)
        if place.rank == 0:
            found.append(part.cpu())
    return torch.cat(found) if found else torch.zeros(0)
