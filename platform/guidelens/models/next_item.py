"""What a shopper takes next, from the order of what was taken before: a causal encoder over products that know their attributes.

A product's vector is one of its own plus the mean of its attributes', so that rare products lean on what they are; the same vectors are
read and predicted. Every place of a history predicts the place after it, against a shared draw of other products whose odds are corrected
(sampled softmax, Bengio and Senécal 2008). Knows nothing of splits or metrics.
"""

# Letters: B = histories of a batch, L = places (oldest first, padded at the end), D = width, N = products, F = attributes,
# A = attributes of all products listed, U = distinct products of a batch, P = predicted places, S = sampled products, T = events.

import math
from collections.abc import Callable
from typing import Annotated, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy.sparse import csr_matrix
from torch import Tensor, nn
from torch.nn import functional as fn

from guidelens.errors import InputError
from guidelens.models.causal import CausalBlock
from guidelens.models.histories import Histories
from guidelens.schemas.base import Frozen

_INIT_STD = 0.02
_BUCKET_ROWS = 8192
_FINAL_RATE_SHARE = 0.02
_MAX_GRAD_NORM = 5.0
_SCORE_ROWS = 1024
Progress = Callable[[str], None]


class NextItemConfig(Frozen):
    """The encoder and how it is trained.

    places_per_batch: predicted places, about. sampling_power: products are drawn as counts to this power. thinning: in each epoch every history
    loses a share of its events, drawn anew between 0 and this, so that what comes a little later is learned too and no prefix by heart.
    """

    encoder: Literal["attention", "gru"] = "attention"
    width: Annotated[int, Field(ge=8)] = 64
    num_layers: Annotated[int, Field(ge=1)] = 2
    num_heads: Annotated[int, Field(ge=1)] = 4
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    max_length: Annotated[int, Field(ge=2)] = 50
    epochs: Annotated[int, Field(ge=1)] = 20
    places_per_batch: Annotated[int, Field(ge=1)] = 2048
    num_sampled: Annotated[int, Field(ge=1)] = 1024
    thinning: Annotated[float, Field(ge=0, le=1)] = 0.5
    sampling_power: Annotated[float, Field(ge=0, le=1)] = 0.75
    learning_rate: Annotated[float, Field(gt=0)] = 4e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    warmup_share: Annotated[float, Field(gt=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.width % self.num_heads:
            raise ValueError(f"width must be a multiple of num_heads ({self.num_heads}), got {self.width}")
        return self


class AttributedProducts(nn.Module):
    """Vectors of products: one of each product's own, plus its attributes' over the square root of their number."""

    starts_N: Tensor
    num_N: Tensor
    attributes_A: Tensor

    def __init__(self, attributes_NF: csr_matrix, width: int) -> None:
        super().__init__()
        num_products, num_attributes = attributes_NF.shape
        self.own, self.attribute = nn.Embedding(num_products, width), nn.Embedding(num_attributes, width)
        for table in (self.own, self.attribute):
            nn.init.normal_(table.weight, std=_INIT_STD)
        self.register_buffer("starts_N", torch.from_numpy(attributes_NF.indptr[:-1].astype(np.int64)))
        self.register_buffer("num_N", torch.from_numpy(np.diff(attributes_NF.indptr).astype(np.int64)))
        self.register_buffer("attributes_A", torch.from_numpy(attributes_NF.indices.astype(np.int64)))

    def forward(self, products_U: Tensor) -> Tensor:
        num_U = self.num_N[products_U]
        offsets_U = num_U.cumsum(0) - num_U
        place = torch.arange(int(num_U.sum())) - torch.repeat_interleave(offsets_U, num_U)
        listed = self.attributes_A[torch.repeat_interleave(self.starts_N[products_U], num_U) + place]
        summed_UD = fn.embedding_bag(listed, self.attribute.weight, offsets_U, mode="sum")
        found: Tensor = self.own(products_U) + summed_UD * num_U.clamp_min(1).rsqrt()[:, None]
        return found


class NextItemModel(nn.Module):
    """Encodes histories and scores products; both with the vectors of `AttributedProducts`."""

    def __init__(self, attributes_NF: csr_matrix, config: NextItemConfig) -> None:
        super().__init__()
        width = config.width
        self.config = config
        self.products = AttributedProducts(attributes_NF, width)
        self.bias_N = nn.Parameter(torch.zeros(attributes_NF.shape[0]))
        self.norm_in, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width)
        self.drop = nn.Dropout(config.dropout)
        if config.encoder == "gru":
            self.gru = nn.GRU(width, width, batch_first=True)
        else:
            self.blocks = nn.Sequential(*(CausalBlock(width, config.num_heads, config.max_length, config.dropout) for _ in range(config.num_layers)))

    def encode(self, products_BLD: Tensor) -> Tensor:
        """(B, L, D): what each place and those before it say of the next product."""
        x_BLD = self.drop(self.norm_in(products_BLD))
        x_BLD = self.drop(self.gru(x_BLD)[0]) if self.config.encoder == "gru" else self.blocks(x_BLD)
        found: Tensor = self.norm_out(x_BLD)
        return found


class NextItem:
    """A fitted `NextItemModel` as a recommender: scores are the shares of its softmax."""

    def __init__(self, model: NextItemModel) -> None:
        self.model = model.eval()

    @torch.no_grad()
    def log_shares(self, histories: Histories) -> NDArray[np.float32]:
        """(R, N) log-probabilities of the next product; an empty history answers by the products' biases alone."""
        items_ND = self.model.products(torch.arange(histories.num_products))
        found = np.empty((len(histories), histories.num_products), dtype=np.float32)
        for start in range(0, len(histories), _SCORE_ROWS):
            rows = np.arange(start, min(start + _SCORE_ROWS, len(histories)))
            products_BL, length_B = padded(histories.take(rows).newest(self.model.config.max_length))
            x_BLD = self.model.encode(items_ND[products_BL])
            last_BD = x_BLD[torch.arange(len(rows)), length_B.clamp_min(1) - 1] * (length_B > 0)[:, None]
            found[rows] = torch.log_softmax(last_BD @ items_ND.T + self.model.bias_N, dim=1).numpy()
        return found

    def scores(self, histories: Histories) -> NDArray[np.float32]:
        """(R, N) probabilities of the next product."""
        found: NDArray[np.float32] = np.exp(self.log_shares(histories))
        return found


def padded(histories: Histories) -> tuple[Tensor, Tensor]:
    """Histories as (B, L) rows of products, 0 past the end (L is at least 1), and their lengths (B,)."""
    products_BL = np.zeros((len(histories), max(1, int(histories.lengths.max(initial=1)))), dtype=np.int64)
    products_BL[histories.rows, np.arange(len(histories.products)) - histories.offsets[histories.rows]] = histories.products
    return torch.from_numpy(products_BL), torch.from_numpy(histories.lengths)


def fit_next_item(histories: Histories, attributes_NF: csr_matrix, config: NextItemConfig, *, seed: int, progress: Progress = lambda _: None) -> NextItem:
    """Trains on every place of every history of two events or more; the newest `max_length` events of each are read.

    Args:
        attributes_NF: (N, F), what is stored counts as there.
        progress: told of each epoch.

    Raises:
        InputError: no history has two events.
    """
    rows = histories.newest(config.max_length).take(np.flatnonzero(histories.lengths >= 2))
    if len(rows) == 0:
        raise InputError(f"a next-item encoder needs a history of two events or more to learn from, got none of {len(histories)}; give longer histories")
    torch.manual_seed(seed)
    rng = np.random.Generator(np.random.Philox(key=seed))
    model, drawer = NextItemModel(attributes_NF, config), Drawer(histories, config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.98), fused=True)
    model.train()
    for epoch in range(config.epochs):
        total, places = 0.0, 0
        read = thinned(rows, config.thinning, rng)
        batches = _batches(read, config.places_per_batch, rng)
        for step, batch in enumerate(batches):
            share = _rate_share((epoch + step / len(batches)) / config.epochs, config.warmup_share)
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * share
            loss, num_places = batch_loss(model, read.take(batch), drawer)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss / num_places)
            nn.utils.clip_grad_norm_(model.parameters(), _MAX_GRAD_NORM)
            optimizer.step()
            total, places = total + loss.item(), places + num_places
        progress(f"epoch {epoch + 1} of {config.epochs}: {total / max(places, 1):.3f} nats a place")
    return NextItem(model)


def thinned(histories: Histories, most: float, rng: np.random.Generator) -> Histories:
    """Histories that lost a share of their events, drawn for each between 0 and `most`; those left with one event or none are left out."""
    if most == 0:
        return histories
    lost_R = most * rng.random(len(histories))
    kept = histories.of_ages(rng.random(len(histories.products)) >= lost_R[histories.rows])
    found = kept.take(np.flatnonzero(kept.lengths >= 2))
    return found if len(found) else histories


def _rate_share(done: float, warmup_share: float) -> float:
    """Rises in a line, then falls along half a cosine."""
    if done < warmup_share:
        return max(done / warmup_share, 1e-3)
    left = 0.5 * (1 + math.cos(math.pi * min(1.0, (done - warmup_share) / (1 - warmup_share))))
    return _FINAL_RATE_SHARE + (1 - _FINAL_RATE_SHARE) * left


def _batches(histories: Histories, places: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Rows of similar length together, about `places` events a batch, in random order."""
    found: list[NDArray[np.int64]] = []
    drawn = rng.permutation(len(histories))
    for start in range(0, len(drawn), _BUCKET_ROWS):
        bucket = drawn[start : start + _BUCKET_ROWS]
        bucket = bucket[np.argsort(histories.lengths[bucket], kind="stable")]
        filled = np.cumsum(histories.lengths[bucket])
        found += [part for part in np.split(bucket, np.searchsorted(filled, np.arange(places, filled[-1], places))) if len(part)]
    return [found[place] for place in rng.permutation(len(found))]


class Drawer:
    """Draws products by a power of their counts, with the log of each one's odds."""

    def __init__(self, histories: Histories, config: NextItemConfig) -> None:
        counts_N = np.bincount(histories.products, minlength=histories.num_products) + 1.0
        share_N = counts_N**config.sampling_power / (counts_N**config.sampling_power).sum()
        self.share_N, self.num = torch.from_numpy(share_N), config.num_sampled
        self.log_odds_N = torch.from_numpy(np.log(share_N * config.num_sampled)).float()

    def __call__(self) -> Tensor:
        """(S,) rows, with replacement."""
        return torch.multinomial(self.share_N, self.num, replacement=True)


def batch_loss(model: NextItemModel, histories: Histories, drawer: Drawer) -> tuple[Tensor, int]:
    """Summed sampled cross-entropy of the next product at every place of the histories, and how many places there are."""
    products_BL, length_B = padded(histories)
    sampled_S = drawer()
    distinct_U, at = torch.unique(torch.cat([products_BL.reshape(-1), sampled_S]), return_inverse=True)
    at_BL, at_S = at[: products_BL.numel()].view(products_BL.shape), at[products_BL.numel() :]
    items_UD = model.products(distinct_U)
    there_BL = torch.arange(1, products_BL.shape[1]) < length_B[:, None]
    x_PD = model.encode(items_UD[at_BL[:, :-1]])[there_BL]
    next_P, at_P = products_BL[:, 1:][there_BL], at_BL[:, 1:][there_BL]
    right_P = (x_PD * items_UD[at_P]).sum(1) + model.bias_N[next_P]
    others_PS = torch.addmm(model.bias_N[sampled_S] - drawer.log_odds_N[sampled_S], x_PD, items_UD[at_S].T)
    others_PS = others_PS.masked_fill(sampled_S[None, :] == next_P[:, None], -torch.inf)
    logits_P1S = torch.cat([right_P[:, None], others_PS], dim=1)
    return fn.cross_entropy(logits_P1S, torch.zeros_like(next_P), reduction="sum"), len(next_P)
