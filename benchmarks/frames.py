"""How much steadier is the answer over several frames of one view than the answer to each frame? grocery-store's train part, folds of visits.

    python -m benchmarks.frames --data FOLDER [--seed S ...] [--out DIR]

Each fold's photos are asked about by a recognizer fitted on the other folds (models/recognizer_fit.py), so a held-back visit is as new as tomorrow's.
A view is up to NUM_FRAMES photos of one product that look alike, in random order; another product's follow at once, as when a shopper walks on. Frame by frame,
`models/sighting.py` is compared with the recognizer's answer to that frame alone. Seeds deal folds and orders. Intervals draw products.
"""

# Letters: M = photos, D = embedding width, F = frames of all walks.

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks._results import keep, machine, today
from guidelens.config import RecognizerConfig
from guidelens.data.adapters import grocery_store
from guidelens.data.images.decoding import decode_image
from guidelens.encoders.image import load_image_encoder
from guidelens.evaluation.bootstrap import Interval, mean_interval, paired_difference
from guidelens.models.backgrounds import background_embeddings
from guidelens.models.recognizer import Recognition, rooted
from guidelens.models.recognizer_fit import NUM_FOLDS, Backgrounds, _visits, fit_recognizer, folds
from guidelens.models.sighting import Frame, Sighting, SightingConfig, first, then
from guidelens.schemas.base import Frozen
from pipelines.entry import progress, run_command

RESULTS = Path(__file__).parent / "results"
NUM_FRAMES = 5
TOP = 5
_NUM_BOOTSTRAP = 1000
Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


class AtFrame(Frozen):
    """Of frame number `frame` of a view: share right by that frame alone, by all frames so far, the gain of the latter; and confidence less share right."""

    frame: int
    views: int
    alone: Interval
    fused: Interval
    gain: Interval
    overconfidence_alone: float
    overconfidence_fused: float
    kept_alone: float
    kept_fused: float


class FramesStudy(Frozen):
    """kept_*: share of frames, all of the catalogue's products, that are called "in the catalogue". all_frames: over all of them."""

    machine: str
    date: str
    command: str
    seeds: tuple[int, ...]
    config: SightingConfig
    by_frame: tuple[AtFrame, ...]
    all_frames: AtFrame


class Shop(NamedTuple):
    embeddings_MD: Floats
    rows_M: Rows
    num_products: int


class Seen(NamedTuple):
    """One frame of a walk: its place in the view, what it shows, and the two answers."""

    place: int
    row: int
    alone: tuple[int, float, bool]
    fused: tuple[int, float, bool]


def read(data: Path) -> Shop:
    """The train part, embedded."""
    source = grocery_store.load(data)
    encoder = load_image_encoder()
    names = [product.product_id for product in source.products]
    embeddings = np.concatenate([encoder.embed(decode_image((source.photos / label.path).read_bytes())[None]) for label in source.labels])
    return Shop(embeddings, np.array([names.index(label.product_id) for label in source.labels], dtype=np.int64), len(names))


def answered(shop: Shop, seed: int) -> list[Recognition]:
    """Each photo by a recognizer that never saw its visit."""
    folds_M = folds(shop.embeddings_MD, shop.rows_M, seed)
    drawn = Backgrounds(*background_embeddings(load_image_encoder(), seed))
    answers: list[Recognition | None] = [None] * len(shop.rows_M)
    for fold in range(NUM_FOLDS):
        kept, held = folds_M != fold, np.flatnonzero(folds_M == fold)
        fitted = fit_recognizer(
            shop.embeddings_MD[kept], shop.rows_M[kept], np.zeros(int(kept.sum()), bool), shop.num_products, RecognizerConfig(), seed, drawn
        )
        progress(f"frames: seed {seed}, fold {fold + 1} of {NUM_FOLDS}: {len(held)} photos")
        for place, found in zip(held, fitted.recognize(shop.embeddings_MD[held], top=TOP), strict=True):
            answers[place] = found
    return [found for found in answers if found is not None]


def views(shop: Shop, seed: int) -> list[Rows]:
    """Photos by view, in the order of a walk through them."""
    random = np.random.default_rng(seed)
    found = []
    for row in np.unique(shop.rows_M):
        members = np.flatnonzero(shop.rows_M == row)
        visit_of = _visits(rooted(shop.embeddings_MD[members]))
        for visit in np.unique(visit_of):
            photos = random.permutation(members[visit_of == visit])
            found += [photos[start : start + NUM_FRAMES] for start in range(0, len(photos), NUM_FRAMES)]
    return [found[place] for place in random.permutation(len(found))]


def walk(shop: Shop, answers: Sequence[Recognition], seed: int, config: SightingConfig) -> Iterator[Seen]:
    believed: Sighting | None = None
    for photos in views(shop, seed):
        for place, photo in enumerate(photos.tolist()):
            answer = answers[photo]
            frame = Frame(shop.embeddings_MD[photo], answer.product_rows, answer.confidences, answer.margin)
            believed = first(frame, shop.num_products) if believed is None else then(believed, frame, config)
            rows, chances = believed.answer(1)
            alone = (int(answer.product_rows[0]), float(answer.confidences[0]), answer.in_catalogue)
            yield Seen(place, int(shop.rows_M[photo]), alone, (int(rows[0]), float(chances[0]), believed.in_catalogue))


def measured(frames: Sequence[Seen], number: int) -> AtFrame:
    """number: of the frame in its view, from 1; 0 for all."""
    products = np.array([each.row for each in frames])
    alone, fused = (np.array([answer[0] == each.row for each in frames for answer in [getattr(each, name)]], float) for name in ("alone", "fused"))
    sure = {name: float(np.mean([getattr(each, name)[1] for each in frames])) for name in ("alone", "fused")}
    kept = {name: float(np.mean([getattr(each, name)[2] for each in frames])) for name in ("alone", "fused")}
    return AtFrame(
        frame=number,
        views=len(frames),
        alone=mean_interval(alone, num_bootstrap=_NUM_BOOTSTRAP, seed=0, clusters_R=products),
        fused=mean_interval(fused, num_bootstrap=_NUM_BOOTSTRAP, seed=0, clusters_R=products),
        gain=paired_difference(fused, alone, num_bootstrap=_NUM_BOOTSTRAP, seed=0, clusters_R=products),
        overconfidence_alone=sure["alone"] - float(alone.mean()),
        overconfidence_fused=sure["fused"] - float(fused.mean()),
        kept_alone=kept["alone"],
        kept_fused=kept["fused"],
    )


def studied(data: Path, seeds: Sequence[int], config: SightingConfig, command: str) -> FramesStudy:
    shop, frames = read(data), []
    for seed in seeds:
        frames += list(walk(shop, answered(shop, seed), seed, config))
    by_frame = tuple(measured([each for each in frames if each.place == place], place + 1) for place in range(NUM_FRAMES))
    return FramesStudy(machine=machine(), date=today(), command=command, seeds=tuple(seeds), config=config, by_frame=by_frame, all_frames=measured(frames, 0))


def as_markdown(study: FramesStudy) -> str:
    lines = [
        "# Several frames of one view",
        "",
        f"`{study.command}`, {study.date}, {study.machine}; seeds {', '.join(map(str, study.seeds))}. grocery-store's train part; each photo by a recognizer (closed form, frozen encoder) that",
        "never saw its visit. A view is up to five photos of one visit to a product, another product's follow at once. Gain in share right, 95 % intervals over products.",
        "",
        "| frame of the view | photos | this frame alone | all frames so far | gain | confidence less share right: alone, fused | kept: alone, fused |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [_line(each) for each in (*study.by_frame, study.all_frames)]
    lines += ["", f"Settings, from development seed 7: {study.config.model_dump_json()}", ""]
    return "\n".join(lines)


def _line(each: AtFrame) -> str:
    gain = f"{each.gain.value:+.3f} ({each.gain.low:+.3f} to {each.gain.high:+.3f})"
    over = f"{each.overconfidence_alone:+.3f}, {each.overconfidence_fused:+.3f}"
    return f"| {each.frame or 'all'} | {each.views} | {each.alone.value:.3f} | {each.fused.value:.3f} | {gain} | {over} | {each.kept_alone:.3f}, {each.kept_fused:.3f} |"


@click.command(help=__doc__)
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="GroceryStoreDataset.")
@click.option("--seed", "seeds", multiple=True, type=int, default=(1000, 1001), show_default=True, help="Repeatable; below 1000 for development.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=RESULTS, show_default=True)
def command(data: Path, seeds: tuple[int, ...], out: Path) -> None:
    study = studied(data, seeds, SightingConfig(), f"python -m benchmarks.frames --data FOLDER {' '.join(f'--seed {seed}' for seed in seeds)}")
    keep(study, as_markdown(study), out, "frames")


if __name__ == "__main__":
    run_command(command)
