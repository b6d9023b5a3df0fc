"""Tunes the image encoder's last blocks on a shop's photos: product and family heads, mixup, label smoothing, averaged weights.

The shared blocks are frozen, so their maps of a few random views of every photo are computed once, kept on disk in half precision, and
each epoch costs the tuned blocks alone. Knows nothing of Ray, MLflow or the lake.
"""

import copy
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
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
    tuning = Tuning(encoder, maps, product_rows, family_of, config, seed)
    while not tuning.is_done:
        tell(tuning.epoch())
    return tuning.recognizer()


class Tuning:
    """One fit, an epoch at a time: saved after any of them, another process goes on with the very steps that not stopping would have taken.

    Attributes:
        epochs_done: of `config.epochs`.
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        maps: Maps,
        product_rows: NDArray[np.integer],
        family_of: Sequence[int],
        config: TuningConfig,
        seed: int,
        device: torch.device | None = None,
    ) -> None:
        """Takes what `tune_on_maps` takes, and raises what it raises. device: where the steps run; the CPU by default."""
        self._rows, self._family_of = _checked(len(maps), product_rows, len(family_of)), np.asarray(family_of)
        self._encoder, self._maps, self._config, self._device = encoder, maps, config, device or torch.device("cpu")
        known = np.isin(np.arange(len(family_of)), self._rows)
        self._facts = TunedFacts(
            encoder_id=encoder.encoder_id,
            num_shared_blocks=config.num_shared_blocks,
            family_of=tuple(family_of),
            known=tuple(known.tolist()),
            head_scale=config.head_scale,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(sub_seed(seed, "tuning"))
            tuned = TunedBlocks(encoder.split(config.num_shared_blocks)[1], len(family_of), self._facts.num_families, config.dropout, config.head_scale)
            self._torch_random = torch.get_rng_state()
        self._tuned: TunedBlocks = tuned.to(device=self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._averaged = copy.deepcopy(self._tuned).requires_grad_(False)
        self._optimizer = _optimizer(self._tuned, config)
        self._peaks = [group["lr"] for group in self._optimizer.param_groups]
        self._random = np.random.default_rng(sub_seed(seed, "order"))
        self.epochs_done, self._step = 0, 0

    @property
    def is_done(self) -> bool:
        return self.epochs_done == self._config.epochs

    def epoch(self) -> TuningEpoch:
        """Trains on each photo that has a product once.

        Raises:
            DivergedError: the loss is no number any more.
        """
        labelled = np.flatnonzero(self._rows >= 0)
        num_steps = self._config.epochs * max(1, len(labelled) // self._config.batch_size)
        self._tuned.train()
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._torch_random)
            losses = [self._take_step(batch, num_steps) for batch in _batches(labelled, self._config.batch_size, self._random)]
            self._torch_random = torch.get_rng_state()
        mean, epoch = float(np.mean(losses)), self.epochs_done
        if not math.isfinite(mean):
            raise DivergedError(f"tuning must keep finite losses, got {mean} in epoch {epoch + 1}; lower learning_rate ({self._config.learning_rate})")
        self.epochs_done += 1
        return TuningEpoch(epoch, mean)

    def _take_step(self, batch: Rows, num_steps: int) -> float:
        views = self._random.integers(0, self._maps.shape[1], len(batch))
        maps_BCHW = torch.from_numpy(self._maps[batch, views]).permute(0, 3, 1, 2).to(self._device).float().contiguous(memory_format=torch.channels_last)
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * _schedule(self._step, num_steps)
        products_B, families_B = (torch.from_numpy(each).to(self._device) for each in (self._rows[batch], self._family_of[self._rows[batch]]))
        loss = _mixed_loss(self._tuned, maps_BCHW, products_B, families_B, self._config, self._random)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._step += 1
        _average(self._averaged, self._tuned, min(self._config.averaging, self._step / (self._step + 9)))
        return loss.item()

    def recognizer(self) -> TunedRecognizer:
        """Of the running average of the weights."""
        return TunedRecognizer(self._encoder, copy.deepcopy(self._averaged).cpu(), self._facts)

    def save(self, folder: Path) -> None:
        """Writes tuning.safetensors and tuning.json."""
        tensors = {f"tuned.{name}": value for name, value in self._tuned.state_dict().items()}
        tensors |= {f"averaged.{name}": value for name, value in self._averaged.state_dict().items()}
        for number, kept in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in kept.items()}
        save_file({"torch_random": self._torch_random, **{name: value.cpu().contiguous() for name, value in tensors.items()}}, folder / "tuning.safetensors")
        facts = {"epochs_done": self.epochs_done, "step": self._step, "random": self._random.bit_generator.state}
        (folder / "tuning.json").write_text(json.dumps(facts))

    def restore(self, folder: Path) -> None:
        """Puts back what `save` wrote of a fit of the same photos, configuration and seed."""
        tensors, facts = load_file(folder / "tuning.safetensors"), json.loads((folder / "tuning.json").read_bytes())
        self.epochs_done, self._step, self._random.bit_generator.state = facts["epochs_done"], facts["step"], facts["random"]
        self._torch_random = tensors.pop("torch_random")
        parts: dict[str, dict[str, Tensor]] = {"tuned": {}, "averaged": {}, "optimizer": {}}
        for name, value in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = value
        self._tuned.load_state_dict(parts["tuned"])
        self._averaged.load_state_dict(parts["averaged"])
        kept: dict[int, dict[str, Tensor]] = {}
        for name, value in parts["optimizer"].items():
            number, _, what = name.partition(".")
            kept.setdefault(int(number), {})[what] = value
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": kept})


def shared_maps(encoder: ImageEncoder, photos: Sequence[Pixels], config: TuningConfig, seed: int, work: Path) -> Maps:
    """(M, V, H, W, C) half-precision maps of each photo's plain view and `config.num_views` random ones, in a file read as it is needed."""
    work.mkdir(parents=True, exist_ok=True)
    kept: Maps | None = None
    for row, of_photo in enumerate(maps_of(encoder, photos, config, seed)):
        if kept is None:
            kept = np.lib.format.open_memmap(work / "maps.npy", "w+", np.float16, (len(photos), *of_photo.shape))
        kept[row] = of_photo
    assert kept is not None
    return kept


def maps_of(encoder: ImageEncoder, photos: Iterable[Pixels], config: TuningConfig, seed: int) -> Iterator[Maps]:
    """(V, H, W, C) of each photo, one after another: `shared_maps` for those who keep them elsewhere."""
    shared = encoder.split(config.num_shared_blocks)[0]
    random = np.random.default_rng(sub_seed(seed, "views"))
    for pixels in photos:
        views = np.stack([encoder_input(pixels), *(random_view(pixels, random) for _ in range(config.num_views))])
        with torch.inference_mode():
            parts = [shared(network_input(views[start : start + _CHUNK])) for start in range(0, len(views), _CHUNK)]
        yield torch.cat(parts).permute(0, 2, 3, 1).to(torch.float16).numpy()


def _checked(num_photos: int, product_rows: NDArray[np.integer], num_products: int) -> Rows:
    if product_rows.shape != (num_photos,):
        raise ShapeError(f"photos and product_rows must have one length, got {num_photos} and {product_rows.shape}")
    num_known = len(np.unique(product_rows[product_rows >= 0]))
    if num_known < _MIN_PRODUCTS:
        raise ContractError(f"tuning needs photos of at least {_MIN_PRODUCTS} products, got {num_known}; add labelled photos or catalogue images")
    if product_rows.max() >= num_products:
        raise ContractError(f"product rows must be below {num_products}, got {product_rows.max()}")
    return product_rows.astype(np.int64)


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


def scaled_to(config: TuningConfig, num_photos: int) -> TuningConfig:
    """The configuration for so many photos: fewer epochs where they would show more than `max_views`, and no more views of a photo than epochs."""
    epochs = max(1, min(config.epochs, config.max_views // max(1, num_photos)))
    return config.model_copy(update={"epochs": epochs, "num_views": min(config.num_views, epochs)})


def _mixed_loss(tuned: TunedBlocks, maps_BCHW: Tensor, products_B: Tensor, families_B: Tensor, config: TuningConfig, random: np.random.Generator) -> Tensor:
    """Mixup (arXiv:1710.09412) of the shared maps: each photo is blended with another one of the batch, and answers for both."""
    share = float(random.beta(config.mixup, config.mixup)) if config.mixup else 1.0
    share = max(share, 1 - share)
    other_B = torch.from_numpy(random.permutation(len(products_B))).to(products_B.device)
    logits_BP, logits_BF = tuned(share * maps_BCHW + (1 - share) * maps_BCHW[other_B])

    def loss(products_B: Tensor, families_B: Tensor) -> Tensor:
        of_product = cross_entropy(logits_BP, products_B, label_smoothing=config.label_smoothing)
        return of_product + config.family_weight * cross_entropy(logits_BF, families_B, label_smoothing=config.label_smoothing)

    return share * loss(products_B, families_B) + (1 - share) * loss(products_B[other_B], families_B[other_B])


def _average(averaged: nn.Module, tuned: nn.Module, keep: float) -> None:
    with torch.no_grad():
        for mean, now in zip(averaged.parameters(), tuned.parameters(), strict=True):
            mean.lerp_(now, 1 - keep)
