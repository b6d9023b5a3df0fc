"""Are several products in one frame told apart, and is none invented where there is one? Composites of grocery-store's train part, one fold of visits.

    python -m benchmarks.regions --data FOLDER [--seed S] [--frames N] [--out DIR]

Photos of the first of four folds of look-alikes (models/recognizer_fit.py) are put beside each other, over each other and four together, of different products; parted not
quite in the middle. The recognizer is fitted on the other three folds without every fifth product. What may not be found apart: single photos, of products of the catalogue and of
those left out, and two photos of one product. Intervals draw frames.
"""

# Letters: F = frames of a kind, C = crops of one.

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks._results import keep, machine, today
from guidelens.config import RecognizerConfig
from guidelens.data.adapters import grocery_store
from guidelens.data.images.decoding import Pixels, encoder_input, upright_pixels
from guidelens.encoders.image import ImageEncoder, load_image_encoder
from guidelens.evaluation.bootstrap import Interval, mean_interval
from guidelens.models.backgrounds import background_embeddings
from guidelens.models.recognizer import Floats, Recognition, Recognizer
from guidelens.models.recognizer_fit import Backgrounds, fit_recognizer, folds
from guidelens.models.regions import CROPS, RegionConfig, cropped, regions
from guidelens.schemas.base import Frozen
from pipelines.entry import progress, run_command

RESULTS = Path(__file__).parent / "results"
LEFT_OUT_EVERY = 5
_NUM_BOOTSTRAP = 1000
_CELL_PX = 348
"""As the data set's photos are."""


@dataclass(frozen=True)
class Shown:
    """A frame's looks, and the products in it that the catalogue has."""

    rows: frozenset[int]
    whole: Recognition
    looks: list[Recognition]
    embeddings_CD: Floats
    ms: float


class Measured(Frozen):
    """Shares. Of frames: whole_right, whose one answer, as without regions, is a product in them; picked_right, whose first answer is, by regions where there
    are some; told apart, with regions (two or more): an invention where there is one product. Of the products in view: named, by a region. Of regions: right, of
    a product in view; None without regions."""

    frames: int
    whole_right: Interval
    picked_right: Interval
    told: Interval
    named: Interval
    right: float | None


class RegionStudy(Frozen):
    """ms: of the further looks at one frame, median."""

    machine: str
    date: str
    command: str
    seed: int
    config: RegionConfig
    ms: float
    of: dict[str, Measured]


@dataclass(frozen=True)
class Photos:
    """Held-back photos by place; known: of products in the catalogue."""

    pixels: dict[int, Pixels]
    rows: NDArray[np.int64]
    known: NDArray[np.int64]
    unknown: NDArray[np.int64]


def _fitting(pixels: Pixels, width: int, height: int) -> Pixels:
    """The middle of a photo that fills a cell."""
    scale = max(width / pixels.shape[1], height / pixels.shape[0])
    large = cv2.resize(pixels, (max(width, round(pixels.shape[1] * scale)), max(height, round(pixels.shape[0] * scale))), interpolation=cv2.INTER_AREA)
    top, left = (large.shape[0] - height) // 2, (large.shape[1] - width) // 2
    return np.asarray(large[top : top + height, left : left + width], dtype=np.uint8)


def _grid(photos: list[Pixels], columns: int, lines: int, random: np.random.Generator) -> Pixels:
    """Photos in cells, parted at 40 to 60 % of the frame."""
    width, height = columns * _CELL_PX, lines * _CELL_PX
    across = [0, *([round(width * random.uniform(0.4, 0.6))] if columns == 2 else []), width]
    down = [0, *([round(height * random.uniform(0.4, 0.6))] if lines == 2 else []), height]
    frame = np.zeros((height, width, 3), np.uint8)
    for place, photo in enumerate(photos):
        column, line = place % columns, place // columns
        left, right, top, bottom = across[column], across[column + 1], down[line], down[line + 1]
        frame[top:bottom, left:right] = _fitting(photo, right - left, bottom - top)
    return frame


def _different(photos: Photos, count: int, random: np.random.Generator) -> list[int]:
    """Places of photos of so many products."""
    order = random.permutation(photos.known)
    _, first = np.unique(photos.rows[order], return_index=True)
    return [int(order[place]) for place in np.sort(first)[:count]]


def _same(photos: Photos, random: np.random.Generator) -> list[int]:
    first = int(random.choice(photos.known))
    others = photos.known[(photos.rows[photos.known] == photos.rows[first]) & (photos.known != first)]
    return [first, int(random.choice(others)) if len(others) else first]


Pick = Callable[[Photos, np.random.Generator], list[int]]
KINDS: dict[str, tuple[Pick, int, int]] = {
    "two side by side": (lambda photos, random: _different(photos, 2, random), 2, 1),
    "two stacked": (lambda photos, random: _different(photos, 2, random), 1, 2),
    "four": (lambda photos, random: _different(photos, 4, random), 2, 2),
    "one product": (lambda photos, random: [int(random.choice(photos.known))], 1, 1),
    "one product, twice": (_same, 2, 1),
    "one product left out": (lambda photos, random: [int(random.choice(photos.unknown))], 1, 1),
}


def shown(data: Path, seed: int, num_frames: int) -> dict[str, list[Shown]]:
    """All looks at all frames, by kind."""
    source, encoder = grocery_store.load(data), load_image_encoder()
    names = [product.product_id for product in source.products]
    rows = np.array([names.index(label.product_id) for label in source.labels])
    pixels = [upright_pixels((source.photos / label.path).read_bytes()) for label in source.labels]
    embeddings = np.concatenate([encoder.embed(encoder_input(photo)[None]) for photo in pixels])
    held, left_out = folds(embeddings, rows, seed) == 0, rows % LEFT_OUT_EVERY == 0
    fit = ~held & ~left_out
    drawn = Backgrounds(*background_embeddings(encoder, seed))
    recognizer = fit_recognizer(embeddings[fit], rows[fit], np.zeros(int(fit.sum()), bool), len(names), RecognizerConfig(), seed, drawn)
    photos = Photos({int(place): pixels[place] for place in np.flatnonzero(held)}, rows, np.flatnonzero(held & ~left_out), np.flatnonzero(held & left_out))
    random, found = np.random.default_rng(seed), dict[str, list[Shown]]()
    for kind, (pick, columns, lines) in KINDS.items():
        found[kind] = [_shown(photos, pick(photos, random), columns, lines, random, encoder, recognizer) for _ in range(num_frames)]
        progress(f"regions: {kind}: looked at")
    return found


def _shown(photos: Photos, places: list[int], columns: int, lines: int, random: np.random.Generator, encoder: ImageEncoder, recognizer: Recognizer) -> Shown:
    one = [photos.pixels[place] for place in places]
    frame = one[0] if len(one) == 1 else _grid(one, columns, lines, random)
    whole = recognizer.recognize(encoder.embed(encoder_input(frame)[None]))[0]
    begun = time.perf_counter()
    embeddings_CD = encoder.embed(np.stack([encoder_input(cropped(frame, box)) for box in CROPS]))
    looks = recognizer.recognize(embeddings_CD)
    in_view = frozenset(int(photos.rows[place]) for place in places if place in photos.known)
    return Shown(in_view, whole, looks, embeddings_CD, 1000 * (time.perf_counter() - begun))


def measured(frames: list[Shown], config: RegionConfig) -> Measured:
    told_F = [regions(each.whole, each.looks, each.embeddings_CD, config) for each in frames]
    wholes = [int(each.whole.product_rows[0]) if each.whole.in_catalogue else -1 for each in frames]
    picked = [told[0].row if told else row for told, row in zip(told_F, wholes, strict=True)]
    named = [len(each.rows & {region.row for region in told}) / max(1, len(each.rows)) for each, told in zip(frames, told_F, strict=True)]
    right = [region.row in each.rows for each, told in zip(frames, told_F, strict=True) for region in told]

    def share(values: list[float] | list[int] | list[bool]) -> Interval:
        return mean_interval(np.array(values, float), num_bootstrap=_NUM_BOOTSTRAP, seed=0)

    return Measured(
        frames=len(frames),
        whole_right=share([row in each.rows for each, row in zip(frames, wholes, strict=True)]),
        picked_right=share([row in each.rows for each, row in zip(frames, picked, strict=True)]),
        told=share([len(told) > 1 for told in told_F]),
        named=share(named),
        right=float(np.mean(right)) if right else None,
    )


def studied(data: Path, seed: int, num_frames: int, command: str) -> RegionStudy:
    found, config = shown(data, seed, num_frames), RegionConfig()
    ms = float(np.median([each.ms for frames in found.values() for each in frames]))
    of = {kind: measured(frames, config) for kind, frames in found.items()}
    return RegionStudy(machine=machine(), date=today(), command=command, seed=seed, config=config, ms=ms, of=of)


def as_markdown(study: RegionStudy) -> str:
    def shown(each: Interval) -> str:
        return f"{each.value:.3f} ({each.low:.3f} to {each.high:.3f})"

    lines = [
        "# Several products in one frame",
        "",
        f"`{study.command}`, {study.date}, {study.machine}. Composites of grocery-store's train part, of visits that no fit saw; closed form, frozen encoder. The further looks at a",
        f"frame took {study.ms:.0f} ms (median, one thread, other work on the machine). 95 % intervals over frames.",
        "",
        "| frame shows | frames | first answer is in it: one look | with regions | told apart | its products named | regions right |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, each in study.of.items():
        figures = " | ".join(shown(figure) for figure in (each.whole_right, each.picked_right, each.told, each.named))
        lines.append(f"| {kind} | {each.frames} | {figures} | {'none' if each.right is None else f'{each.right:.3f}'} |")
    return "\n".join([*lines, ""])


@click.command(help=__doc__)
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="GroceryStoreDataset.")
@click.option("--seed", type=int, default=1000, show_default=True, help="Below 1000 for development.")
@click.option("--frames", "num_frames", type=click.IntRange(min=2), default=150, show_default=True, help="Of each kind.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=RESULTS, show_default=True)
def command(data: Path, seed: int, num_frames: int, out: Path) -> None:
    study = studied(data, seed, num_frames, f"python -m benchmarks.regions --data FOLDER --seed {seed} --frames {num_frames}")
    keep(study, as_markdown(study), out, "regions")


if __name__ == "__main__":
    run_command(command)
