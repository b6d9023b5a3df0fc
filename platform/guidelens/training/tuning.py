"""Tunes the image encoder's last blocks on a shop's photos: product and family heads, mixup, label smoothing, averaged weights.

The shared blocks are frozen, so their maps of a few random views of every photo are computed once, kept on disk in half precision, and
each epoch costs the tuned blocks alone. Knows nothing of Ray, MLflow or the lake.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from guidelens.config import TuningConfig
from guidelens.data.images.decoding import Pixels, encoder_input
from guidelens.data.images.views import random_view
from guidelens.encoders.image import ImageEncoder, network_input
from guidelens.errors import ContractError, DivergedError, ShapeError
from guidelens.models.tuned import TunedBlocks, TunedFacts, TunedRecognizer
from guidelens.schemas.ids import sub_seed

# Letters as in models/tuned.py; M = training photos, V = views of each, the plain one first.

Rows = NDArray[np.int64]
Maps = NDArray[np.float16]
_CHUNK = 8
_MIN_PRODUCTS = 2
_WARMUP_SHARE = 0.1


@dataclass(frozen=True)
class TuningEpoch:
    """loss: mean training loss over the epoch's steps, nats."""

    epoch: int
    loss: float


Tell = Callable[[TuningEpoch], None]


def tune_recognizer(
    encoder: ImageEncoder,
    photos: Sequence[Pixels],
    product_rows: NDArray[np.integer],
    family_of: Sequence[int],
    config: TuningConfig,
    seed: int,
    work: Path,
    tell: Tell = lambda _epoch: None,
) -> TunedRecognizer:
    """A recognizer of `len(family_of)` products, fitted to labelled photos. The same seed on the same machine gives the same weights.

    Args:
        photos: M upright images (height, width, 3), as data.images.upright_pixels yields them; catalogue images count as photos.
        product_rows: (M,) below len(family_of); -1 for a photo without a product, which is ignored.
        family_of: family of each product, numbered from 0.
        work: a folder for the maps, about 44 kB a view of a photo; what it held of an earlier fit is replaced.

    Raises:
        ShapeError: lengths differ.
        ContractError: fewer than two products have a photo, or a row is out of range.
        DivergedError: a loss is no number any more.
    """
    rows = _checked(len(photos), product_rows, len(family_of))
    maps = shared_maps(encoder, photos, config, seed, work)
    return tune_on_maps(encoder, maps, rows, family_of, config, seed, tell)


def tune_on_maps(
    encoder: ImageEncoder,
    maps: Maps,
    product_rows: NDArray[np.integer],
    family_of: Sequence[int],
    config: TuningConfig,
    seed: int,
    tell: Tell = lambda _epoch: None,
) -> TunedRecognizer:
    """The same from `shared_maps`, which fits to parts of the same photos can share. Raises like `tune_recognizer`."""
    rows = _checked(len(maps), product_rows, len(family_of))
    known = np.isin(np.arange(len(family_of)), rows)
    facts = TunedFacts(encoder_id=encoder.encoder_id, num_shared_blocks=config.num_shared_blocks, family_of=tuple(family_of), known=tuple(known.tolist()))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sub_seed(seed, "tuning"))
        tuned = TunedBlocks(encoder.split(config.num_shared_blocks)[1], len(family_of), facts.num_families, config.dropout)
        tuned = tuned.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        averaged = _fit(tuned, maps, rows, np.asarray(family_of), config, np.random.default_rng(sub_seed(seed, "order")), tell)
    return TunedRecognizer(encoder, averaged, facts)


def shared_maps(encoder: ImageEncoder, photos: Sequence[Pixels], config: TuningConfig, seed: int, work: Path) -> Maps:
    """(M, V, H, W, C) half-precision maps of each photo's plain view and `config.num_views` random ones, in a file read as it is needed."""
    shared = encoder.split(config.num_shared_blocks)[0]
    random = np.random.default_rng(sub_seed(seed, "views"))
    work.mkdir(parents=True, exist_ok=True)
    kept: Maps | None = None
    for row, pixels in enumerate(photos):
        views = np.stack([encoder_input(pixels), *(random_view(pixels, random) for _ in range(config.num_views))])
        with torch.inference_mode():
            parts = [shared(network_input(views[start : start + _CHUNK])) for start in range(0, len(views), _CHUNK)]
        of_photo = torch.cat(parts).permute(0, 2, 3, 1).to(torch.float16).numpy()
        if kept is None:
            kept = np.lib.format.open_memmap(work / "maps.npy", "w+", np.float16, (len(photos), *of_photo.shape))
        kept[row] = of_photo
    assert kept is not None
    return kept


def _checked(num_photos: int, product_rows: NDArray[np.integer], num_products: int) -> Rows:
    if product_rows.shape != (num_photos,):
        raise ShapeError(f"photos and product_rows must have one length, got {num_photos} and {product_rows.shape}")
    num_known = len(np.unique(product_rows[product_rows >= 0]))
    if num_known < _MIN_PRODUCTS:
        raise ContractError(f"tuning needs photos of at least {_MIN_PRODUCTS} products, got {num_known}; add labelled photos or catalogue images")
    if product_rows.max() >= num_products:
        raise ContractError(f"product rows must be below {num_products}, got {product_rows.max()}")
    return product_rows.astype(np.int64)


def _fit(tuned: TunedBlocks, maps: Maps, rows: Rows, family_of: Rows, config: TuningConfig, random: np.random.Generator, tell: Tell) -> TunedBlocks:
    """Trains `tuned` on the photos that have a product; returns the running average of its weights."""
    labelled = np.flatnonzero(rows >= 0)
    averaged = copy.deepcopy(tuned).requires_grad_(False)
    optimizer = _optimizer(tuned, config)
    peaks = [group["lr"] for group in optimizer.param_groups]
    steps_an_epoch = max(1, len(labelled) // config.batch_size)
    num_steps, step = config.epochs * steps_an_epoch, 0
    tuned.train()
    for epoch in range(config.epochs):
        losses = []
        for batch in _batches(labelled, config.batch_size, random):
            views = random.integers(0, maps.shape[1], len(batch))
            maps_BCHW = torch.from_numpy(maps[batch, views]).permute(0, 3, 1, 2).float().contiguous(memory_format=torch.channels_last)
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * _schedule(step, num_steps)
            loss = _mixed_loss(tuned, maps_BCHW, torch.from_numpy(rows[batch]), torch.from_numpy(family_of[rows[batch]]), config, random)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            step += 1
            _average(averaged, tuned, min(config.averaging, step / (step + 9)))
            losses.append(loss.item())
        mean = float(np.mean(losses))
        if not math.isfinite(mean):
            raise DivergedError(f"tuning must keep finite losses, got {mean} in epoch {epoch + 1}; lower learning_rate ({config.learning_rate})")
        tell(TuningEpoch(epoch, mean))
    return averaged


def _optimizer(tuned: TunedBlocks, config: TuningConfig) -> torch.optim.AdamW:
    """Heads learn faster than what was pretrained; biases do not decay."""
    heads = [*tuned.product.parameters(), *tuned.family.parameters()]
    weights = [each for each in tuned.blocks.parameters() if each.ndim > 1]
    biases = [each for each in tuned.blocks.parameters() if each.ndim == 1]
    return torch.optim.AdamW(
        [
            {"params": weights, "lr": config.learning_rate, "weight_decay": config.weight_decay},
            {"params": biases, "lr": config.learning_rate, "weight_decay": 0.0},
            {"params": heads, "lr": config.head_learning_rate, "weight_decay": config.weight_decay},
        ]
    )


def _batches(photos: Rows, batch_size: int, random: np.random.Generator) -> Iterator[Rows]:
    """Whole batches in a random order; what is left over waits for the next epoch. One smaller batch where there is no whole one."""
    order: Rows = random.permutation(photos)
    for start in range(0, max(len(photos) - batch_size, 0) + 1, batch_size):
        yield order[start : start + batch_size]


def _schedule(step: int, num_steps: int) -> float:
    """Share of the peak learning rate: a linear rise, then half a cosine down."""
    return min(1.0, (step + 1) / (_WARMUP_SHARE * num_steps)) * 0.5 * (1 + math.cos(math.pi * step / num_steps))


def _mixed_loss(tuned: TunedBlocks, maps_BCHW: Tensor, products_B: Tensor, families_B: Tensor, config: TuningConfig, random: np.random.Generator) -> Tensor:
    """Mixup (arXiv:1710.09412) of the shared maps: each photo is blended with another one of the batch, and answers for both."""
    share = float(random.beta(config.mixup, config.mixup)) if config.mixup else 1.0
    share = max(share, 1 - share)
    other_B = torch.from_numpy(random.permutation(len(products_B)))
    logits_BP, logits_BF = tuned(share * maps_BCHW + (1 - share) * maps_BCHW[other_B])

    def loss(products_B: Tensor, families_B: Tensor) -> Tensor:
        of_product = cross_entropy(logits_BP, products_B, label_smoothing=config.label_smoothing)
        return of_product + config.family_weight * cross_entropy(logits_BF, families_B, label_smoothing=config.label_smoothing)

    return share * loss(products_B, families_B) + (1 - share) * loss(products_B[other_B], families_B[other_B])


def _average(averaged: nn.Module, tuned: nn.Module, keep: float) -> None:
    with torch.no_grad():
        for mean, now in zip(averaged.parameters(), tuned.parameters(), strict=True):
            mean.lerp_(now, 1 - keep)
