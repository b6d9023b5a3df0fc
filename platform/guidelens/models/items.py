"""X2: the catalogue as tensors, and the tower that turns each product into a vector.

Reads an item table (the fit's snapshot of Feast's product view); knows nothing of shoppers.
"""

# Letters: N = products, C = categorical fields, R = reduced embedding size, D = model width, E = encoder size, X = axes of all embeddings, L = directions.

import dataclasses
from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as fn

from guidelens.config import ModelConfig
from guidelens.models.noise import Noise
from guidelens.schemas.ids import stable_hash
from guidelens.schemas.steps import NUM_STEPS, DeviceCapabilities, PlanContext, base_mask
from guidelens.schemas.tables import IMAGE_DIM, TEXT_DIM

NUM_FIELD_BUCKETS = 1024
REDUCED_DIM = 128
NUM_DIRECTIONS = 8
"""Random directions of a step that content moves along."""
NUM_MOVES = 4096
"""Different moves of a step, at most: in a larger catalogue several products move alike, so that a step draws no more than this."""
CATEGORICAL = ("category_0", "category_1", "category", "brand", "colour", "material", "size", "try_on")
DEVICE_KINDS: dict[str, DeviceCapabilities] = {
    "none": DeviceCapabilities(ar=False, front_camera=False),
    "ar": DeviceCapabilities(ar=True, front_camera=False),
    "ar+front": DeviceCapabilities(ar=True, front_camera=True),
}


@dataclass(frozen=True)
class Catalogue:
    """The item table as arrays; row i is product i. Embeddings are the encoders' own, zeros where `has_*` is False."""

    product_ids: tuple[str, ...]
    hashes_N: NDArray[np.int64]
    image_NE: NDArray[np.float32]
    has_image_N: NDArray[np.bool_]
    text_NE: NDArray[np.float32]
    text_zh_NE: NDArray[np.float32]
    has_zh_N: NDArray[np.bool_]
    fields_NC: NDArray[np.int64]
    price_N: NDArray[np.float64]
    try_on: tuple[str, ...]
    has_3d_N: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.product_ids)

    @classmethod
    def of_table(cls, items: pl.DataFrame) -> "Catalogue":
        """From items.parquet: the product table's columns and `image_embedding` (mean of the catalogue images, or null)."""
        image, has_image = _matrix(items["image_embedding"], IMAGE_DIM)
        text, _ = _matrix(items["text_embedding"], TEXT_DIM)
        text_zh, has_zh = _matrix(items["text_zh_embedding"], TEXT_DIM)
        ids = items["product_id"].to_list()
        has_size = pl.all_horizontal(pl.col(name).is_not_null() for name in ("width_m", "height_m", "depth_m"))
        return cls(
            product_ids=tuple(ids),
            hashes_N=np.array([stable_hash(product_id) for product_id in ids], dtype=np.int64),
            image_NE=image,
            has_image_N=has_image,
            text_NE=text,
            text_zh_NE=text_zh,
            has_zh_N=has_zh,
            fields_NC=_fields(items),
            price_N=items["price_minor"].cast(pl.Float64).fill_null(float("nan")).to_numpy(),
            try_on=tuple(items["try_on"].fill_null("none").to_list()),
            has_3d_N=items.select(has_3d=has_size | pl.col("model_3d").is_not_null())["has_3d"].to_numpy(),
        )

    def rows_of_hashes(self, hashes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Product rows of `stable_hash`ed ids, -1 where unknown; any shape."""
        order = np.argsort(self.hashes_N)
        place = np.searchsorted(self.hashes_N[order], hashes).clip(0, len(order) - 1)
        rows = order[place]
        found: NDArray[np.int64] = np.where(self.hashes_N[rows] == hashes, rows, -1)
        return found

    def grammar_base(self, rows: NDArray[np.integer], devices: NDArray[np.object_]) -> NDArray[np.bool_]:
        """(B, NUM_STEPS) `base_mask` of products (-1: nothing in view) on devices ("none" | "ar" | "ar+front")."""
        masks: dict[tuple[str, bool, str], NDArray[np.bool_]] = {}
        out = []
        for row, device in zip(rows.tolist(), devices.tolist(), strict=True):
            key = (self.try_on[row] if row >= 0 else "none", bool(self.has_3d_N[row]) if row >= 0 else False, device)
            if key not in masks:
                masks[key] = base_mask(PlanContext(try_on=key[0], has_3d=key[1], device=DEVICE_KINDS.get(device, DeviceCapabilities())))
            out.append(masks[key])
        return np.stack(out) if out else np.zeros((0, NUM_STEPS), dtype=np.bool_)


def _matrix(column: pl.Series, dim: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    known = column.is_not_null().to_numpy()
    out = np.zeros((len(column), dim), dtype=np.float32)
    if known.any():
        out[known] = np.array(column.filter(column.is_not_null()).to_list(), dtype=np.float32)
    return out, known


def _fields(items: pl.DataFrame) -> NDArray[np.int64]:
    """(N, C) hashed buckets of the categorical fields, 0 where missing."""
    levels = items["category"].fill_null("").str.split("/")
    columns: dict[str, list[str | None]] = {
        "category_0": [level[0] or None for level in levels.to_list()],
        "category_1": ["/".join(level[:2]) or None for level in levels.to_list()],
        **{name: items[name].cast(pl.String).to_list() for name in CATEGORICAL[2:]},
    }
    return np.array([[_bucket(name, value) for name, value in zip(columns, values, strict=True)] for values in zip(*columns.values(), strict=True)])


def _bucket(name: str, value: str | None) -> int:
    return 0 if not value else 1 + stable_hash(f"{name}={value}") % (NUM_FIELD_BUCKETS - 1)


class Reducer(nn.Module):
    """Centres, rotates and scales an encoder's embeddings to REDUCED_DIM: principal axes of the catalogue's own. Not trained."""

    center_E: Tensor
    axes_ER: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("center_E", torch.zeros(dim))
        self.register_buffer("axes_ER", torch.zeros(dim, REDUCED_DIM))

    @torch.no_grad()
    def fit(self, embeddings: NDArray[np.float32]) -> None:
        """From (M, E) embeddings; fewer than REDUCED_DIM axes leave the rest at zero."""
        if len(embeddings) == 0:
            return
        x_ME = torch.from_numpy(embeddings.astype(np.float64))
        center_E = x_ME.mean(0)
        _, spread, axes = torch.linalg.svd(x_ME - center_E, full_matrices=False)
        kept = min(REDUCED_DIM, int((spread > 1e-6 * spread[0]).sum())) if len(spread) else 0
        scale = max(float(spread[:kept].square().sum() / max(len(x_ME), 1)) ** 0.5 / 8, 1e-6)
        self.center_E.copy_(center_E)
        self.axes_ER.zero_()
        self.axes_ER[:, :kept] = (axes[:kept].T / scale).float()

    def forward(self, embeddings: Tensor) -> Tensor:
        """(..., E) to (..., R), of about unit variance where it varies."""
        return (embeddings - self.center_E) @ self.axes_ER


@dataclass(frozen=True)
class ItemInputs:
    """The catalogue as the model reads it, or a part of it: reduced embeddings and their masks, bucketed fields, prices.

    rows_N: which of the catalogue's `num_products` each row is. is_part: taken from the whole for one step.
    """

    rows_N: Tensor
    num_products: int
    image_NR: Tensor
    has_image_N: Tensor
    text_NR: Tensor
    text_zh_NR: Tensor
    has_zh_N: Tensor
    fields_NC: Tensor
    price_N2: Tensor
    is_part: bool = False

    def __len__(self) -> int:
        return len(self.image_NR)

    def take(self, rows: Tensor) -> Self:
        """The products asked for, in that order, as a part."""
        names = [field.name for field in dataclasses.fields(self) if field.name not in ("num_products", "is_part")]
        return dataclasses.replace(self, is_part=True, **{name: getattr(self, name)[rows] for name in names})


def item_inputs(catalogue: Catalogue, image: Reducer, text: Reducer) -> ItemInputs:
    """Reduces the catalogue's embeddings once; price as (log10, known)."""
    known_N = np.isfinite(catalogue.price_N)
    log_N = np.log10(1 + np.where(known_N, catalogue.price_N, 0))
    device = image.center_E.device
    has_image_N, has_zh_N = torch.from_numpy(catalogue.has_image_N).to(device), torch.from_numpy(catalogue.has_zh_N).to(device)
    return ItemInputs(
        rows_N=torch.arange(len(catalogue), device=device),
        num_products=len(catalogue),
        image_NR=image(torch.from_numpy(catalogue.image_NE).to(device)) * has_image_N[:, None],
        has_image_N=has_image_N,
        text_NR=text(torch.from_numpy(catalogue.text_NE).to(device)),
        text_zh_NR=text(torch.from_numpy(catalogue.text_zh_NE).to(device)) * has_zh_N[:, None],
        has_zh_N=has_zh_N,
        fields_NC=torch.from_numpy(catalogue.fields_NC).to(device),
        price_N2=torch.from_numpy(np.stack([log_N - 3.5 * known_N, known_N], axis=1).astype(np.float32)).to(device),
    )


class ItemTower(nn.Module):
    """(N, D) product vectors from content, plus an id vector. In training content moves a little and ids are dropped, both at random, so that
    products that come later score too.

    Of a part of the catalogue only its id vectors get a gradient, as a sparse one: a step's cost does not grow with the catalogue.

    Attributes:
        num_shards: workers that the id vectors are shared out over; the row of product p is then p // num_shards of the worker that has it.
    """

    def __init__(self, config: ModelConfig, num_products: int) -> None:
        super().__init__()
        width = config.width
        self.reads_content = "x2" not in config.without
        self.id_drop, self.content_noise = config.id_dropout, config.content_noise
        self.num_shards = 1
        self.ids = nn.Embedding(num_products, width)
        nn.init.normal_(self.ids.weight, std=0.02)
        if self.reads_content:
            self.fields = nn.Embedding(NUM_FIELD_BUCKETS, width)
            nn.init.normal_(self.fields.weight, std=0.1)
            self.dense = nn.Linear(3 * REDUCED_DIM + 4, width)
            self.mix = nn.Sequential(nn.GELU(), nn.Linear(width, width))

    def forward(self, items: ItemInputs, noise: Noise | None, content_ND: Tensor | None = None) -> Tensor:
        """Args:
        items: with shards, products that this one has; all of those, where `items` is no part.
        content_ND: `content` of the items, where it is known already.
        """
        if self.reads_content and content_ND is None:
            content_ND = self.content(items, noise)
        vectors_ND: Tensor = fn.embedding(items.rows_N // self.num_shards, self.ids.weight, sparse=True) if items.is_part else self.ids.weight
        if noise is not None and self.reads_content:
            vectors_ND = vectors_ND * (noise.shared((items.num_products, 1))[items.rows_N] >= self.id_drop)
        return vectors_ND if content_ND is None else vectors_ND + content_ND

    def content(self, items: ItemInputs, noise: Noise | None) -> Tensor:
        """(N, D): what the products are, without their ids. Draws its noise before `forward` draws that of ids."""
        flags_N2 = torch.stack([items.has_image_N, items.has_zh_N], dim=1).float()
        dense_NX = torch.cat([items.image_NR, items.text_NR, items.text_zh_NR, items.price_N2, flags_N2], dim=1)
        content_ND = self.dense(dense_NX) + self.fields(items.fields_NC).sum(1)
        if noise is not None and self.content_noise > 0:
            content_ND = content_ND + self._moved(items, noise)
        mixed_ND: Tensor = self.mix(content_ND)
        return mixed_ND

    def _moved(self, items: ItemInputs, noise: Noise) -> Tensor:
        """(N, D) what moving each product's embeddings by `content_noise` adds to them, once projected.

        Each product goes its own way along directions that all share: as many draws as products would then have axes are not needed, and
        what is projected is the directions.
        """
        places_N = items.rows_N % NUM_MOVES
        along_NL = _centred(noise, min(items.num_products, NUM_MOVES), NUM_DIRECTIONS)[places_N] / NUM_DIRECTIONS**0.5
        directions_LX = _centred(noise, NUM_DIRECTIONS, 3 * REDUCED_DIM)
        moved_ND: Tensor = along_NL @ (self.content_noise * directions_LX @ self.dense.weight[:, : 3 * REDUCED_DIM].T)
        return moved_ND


def _centred(noise: Noise, *shape: int) -> Tensor:
    """Uniform numbers of mean 0 and variance 1."""
    return (noise.shared(shape) - 0.5) * 12**0.5


def normalized(x: Tensor) -> Tensor:
    """Unit length along the last axis; zeros stay zeros."""
    unit: Tensor = x / x.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    return unit
