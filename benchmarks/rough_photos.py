"""What do quarter turns, darkness, motion blur and screenshots cost, and what does a second look win back? grocery-store's train part, one fold of visits.

    python -m benchmarks.rough_photos --data FOLDER [--seed S] [--out DIR]

The first of four folds of look-alike photos (models/recognizer_fit.py) is asked about as it is and hurt, by a recognizer fitted on the other three without every fifth
product, whose photos stand for what is not in the catalogue. Each photo is answered at once, and as serving does: brightened where it is dark
(data/images/dark.py), and turned by quarters where the recognizer is unsure (models/turned.py). Intervals draw products.
"""

# Letters: H = photos of the held-back fold, P = products.

from collections.abc import Callable
from pathlib import Path

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks._results import keep, machine, today
from guidelens.config import RecognizerConfig
from guidelens.data.adapters import grocery_store
from guidelens.data.images.dark import brightened
from guidelens.data.images.decoding import Pixels, encoder_input, upright_pixels
from guidelens.encoders.image import load_image_encoder
from guidelens.evaluation.bootstrap import Interval, mean_interval, paired_difference
from guidelens.models.backgrounds import background_embeddings
from guidelens.models.recognizer import Recognition, Recognizer
from guidelens.models.recognizer_fit import Backgrounds, fit_recognizer, folds
from guidelens.models.turned import is_unsure, together, turns
from guidelens.schemas.base import Frozen
from pipelines.entry import progress, run_command

RESULTS = Path(__file__).parent / "results"
LEFT_OUT_EVERY = 5
_NUM_BOOTSTRAP = 1000
Hurt = Callable[[Pixels, np.random.Generator], Pixels]


class Looked(Frozen):
    """top1: share of photos of the catalogue's products right. kept, accepted: share called "in the catalogue" of these, and of photos of products left out."""

    top1: Interval
    kept: float
    accepted: float


class Measured(Frozen):
    """unsure: share of photos that got a second look."""

    once: Looked
    twice: Looked
    gain: Interval
    unsure: float


class RoughStudy(Frozen):
    machine: str
    date: str
    command: str
    seed: int
    photos: int
    photos_left_out: int
    of: dict[str, Measured]


def _turned(quarters: int) -> Hurt:
    return lambda pixels, _random: np.ascontiguousarray(np.rot90(pixels, quarters))


def _dark(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """A fifth of the light, steeper, with a sensor's noise."""
    dim = 0.22 * (pixels.astype(np.float32) / 255) ** 1.3
    return ((dim + random.normal(0, 0.025, dim.shape)).clip(0, 1) * 255).astype(np.uint8)


def _blurred(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """The camera moved by 3 % of the picture."""
    side = max(3, int(0.03 * max(pixels.shape[:2])))
    kernel = np.zeros((side, side), np.float32)
    kernel[side // 2] = 1 / side
    turn = cv2.getRotationMatrix2D((side / 2 - 0.5, side / 2 - 0.5), float(random.uniform(0, 180)), 1)
    kernel = cv2.warpAffine(kernel, turn, (side, side))
    return np.asarray(cv2.filter2D(pixels, -1, kernel / kernel.sum()), dtype=np.uint8)


def _screenshot(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """A page of a phone's shop app with the photo's square in it, and bars of text below."""
    page = np.full((760, 360, 3), 250, np.uint8)
    page[:70], page[-60:] = (40, 60, 90), 240
    side = min(pixels.shape[:2])
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    at = int(random.integers(90, 180))
    page[at : at + 320, 20:340] = cv2.resize(pixels[top : top + side, left : left + side], (320, 320), interpolation=cv2.INTER_AREA)
    for line in range(at + 350, 670, 26):
        page[line : line + 10, 20 : 20 + int(random.integers(120, 320))] = 90
    return page


KINDS: dict[str, Hurt] = {
    "as taken": lambda pixels, _random: pixels,
    "turned by 90": _turned(1),
    "turned by 180": _turned(2),
    "turned by 270": _turned(3),
    "dark": _dark,
    "blurred": _blurred,
    "screenshot": _screenshot,
}


def studied(data: Path, seed: int, command: str) -> RoughStudy:
    source, encoder = grocery_store.load(data), load_image_encoder()
    names = [product.product_id for product in source.products]
    rows = np.array([names.index(label.product_id) for label in source.labels])
    photos = [upright_pixels((source.photos / label.path).read_bytes()) for label in source.labels]
    embeddings = np.concatenate([encoder.embed(encoder_input(photo)[None]) for photo in photos])
    held, left_out = folds(embeddings, rows, seed) == 0, rows % LEFT_OUT_EVERY == 0
    fit = ~held & ~left_out
    drawn = Backgrounds(*background_embeddings(encoder, seed))
    recognizer = fit_recognizer(embeddings[fit], rows[fit], np.zeros(int(fit.sum()), bool), len(names), RecognizerConfig(), seed, drawn)
    asked, found = np.flatnonzero(held), {}
    for name, hurt in KINDS.items():
        random = np.random.default_rng(seed)
        inputs = [encoder_input(hurt(photos[place], random)) for place in asked]
        once = recognizer.recognize(np.concatenate([encoder.embed(pixels[None]) for pixels in inputs]))
        twice = [_second(recognizer, encoder.embed, pixels, look) for pixels, look in zip(inputs, once, strict=True)]
        found[name] = _measured(once, twice, rows[asked], left_out[asked])
        progress(f"rough photos: {name}: {found[name].once.top1.value:.3f} at once, {found[name].twice.top1.value:.3f} with a second look")
    new = int(left_out[asked].sum())
    return RoughStudy(machine=machine(), date=today(), command=command, seed=seed, photos=len(asked) - new, photos_left_out=new, of=found)


def _second(recognizer: Recognizer, embed: Callable[[Pixels], NDArray[np.float32]], pixels: Pixels, look: Recognition) -> Recognition:
    """As serve/recognizer.py goes about it."""
    bright = brightened(pixels)
    if bright is not None:
        pixels, look = bright, recognizer.recognize(embed(bright[None]))[0]
    return together([look, *recognizer.recognize(embed(turns(pixels)))]) if is_unsure(look) else look


def _measured(once: list[Recognition], twice: list[Recognition], rows_H: NDArray[np.int64], new_H: NDArray[np.bool_]) -> Measured:
    of = rows_H[~new_H]

    def right(looks: list[Recognition]) -> NDArray[np.float64]:
        return np.array([look.product_rows[0] == row for look, row in zip(looks, rows_H, strict=True)], float)[~new_H]

    def looked(looks: list[Recognition]) -> Looked:
        taken = np.array([look.in_catalogue for look in looks], float)
        top1 = mean_interval(right(looks), num_bootstrap=_NUM_BOOTSTRAP, seed=0, clusters_R=of)
        return Looked(top1=top1, kept=float(taken[~new_H].mean()), accepted=float(taken[new_H].mean()))

    gain = paired_difference(right(twice), right(once), num_bootstrap=_NUM_BOOTSTRAP, seed=0, clusters_R=of)
    return Measured(once=looked(once), twice=looked(twice), gain=gain, unsure=float(np.mean([is_unsure(look) for look in once])))


def as_markdown(study: RoughStudy) -> str:
    lines = [
        "# Photos as phones take them",
        "",
        f"`{study.command}`, {study.date}, {study.machine}. grocery-store's train part, {study.photos} photos of visits that no fit saw, and {study.photos_left_out} of products left out of",
        "the catalogue; closed form, frozen encoder. Twice: brightened where dark, and looked at again turned by quarters where unsure. 95 % intervals over products.",
        "",
        "| photos | top-1 at once | top-1 twice | gain | unsure | kept: once, twice | not in the catalogue, accepted: once, twice |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, each in study.of.items():
        gain = f"{each.gain.value:+.3f} ({each.gain.low:+.3f} to {each.gain.high:+.3f})"
        shares = f"{each.once.kept:.3f}, {each.twice.kept:.3f} | {each.once.accepted:.3f}, {each.twice.accepted:.3f}"
        lines.append(f"| {name} | {each.once.top1.value:.3f} | {each.twice.top1.value:.3f} | {gain} | {each.unsure:.2f} | {shares} |")
    return "\n".join([*lines, ""])


@click.command(help=__doc__)
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="GroceryStoreDataset.")
@click.option("--seed", type=int, default=1000, show_default=True, help="Below 1000 for development.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=RESULTS, show_default=True)
def command(data: Path, seed: int, out: Path) -> None:
    study = studied(data, seed, f"python -m benchmarks.rough_photos --data FOLDER --seed {seed}")
    keep(study, as_markdown(study), out, "rough_photos")


if __name__ == "__main__":
    run_command(command)
