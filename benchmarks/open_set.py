"""How well is "not in the catalogue" told, of products that neither tuning nor the gallery knows? grocery-store's training part.

    python -m benchmarks.open_set --data FOLDER [--fits N] [--seed S ...] [--processes N] [--set FIELD=VALUE ...] [--work DIR] [--out DIR]

One in eight of the products is left out wholly, photos and catalogue images, and of the others the photos of one fold of look-alikes. On what is left a recognizer is
fitted and calibrated as `guidelens train` does it, by a further fit without other products and photos; then it is asked about all that was left out. Val is not looked at.
"""

# Letters: M = photos and catalogue images; B = photos asked about; K = those of products it knows, U = the others.

import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from benchmarks._results import keep, machine, today
from benchmarks.recognition import RESULTS, Shop, read
from guidelens.config import RecognizerConfig, TuningConfig
from guidelens.data.images.decoding import encoder_input
from guidelens.encoders.image import ImageEncoder, load_image_encoder
from guidelens.evaluation.bootstrap import LEVEL, Interval, mean_interval
from guidelens.models.backgrounds import background_images
from guidelens.models.recognizer import Recognizer
from guidelens.models.recognizer_fit import NUM_FOLDS, Backgrounds, CrossFit, fit_and_answer, folds
from guidelens.schemas.base import Frozen
from guidelens.schemas.ids import sub_seed
from guidelens.training.tuning import shared_maps, tune_on_maps
from pipelines.entry import progress, run_command

NUM_PARTS = 8
"""Of the products; one is left out of each fit, another of the fit that calibrates it."""
_NUM_BOOTSTRAP = 1000
Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]
FROZEN, ABOVE, RULE = "encoder as it is, its rule", "tuned, how far above what is usual for a product", "tuned, the release's rule"


class OpenSetStudy(Frozen):
    """auroc: the mean over fits, by what is judged by; by_fit: of the release's rule. unknown_share: of known products' photos; false_accepts: share
    of the others' that is taken for a product; both at the threshold of the default `false_unknown_share`. top1: of known products' photos."""

    machine: str
    date: str
    command: str
    config: TuningConfig
    fits: int
    products_left_out: int
    known_photos: int
    unknown_photos: int
    auroc: dict[str, Interval]
    by_fit: tuple[float, ...]
    unknown_share: Interval
    false_accepts: Interval
    top1: Interval


@dataclass(frozen=True)
class Task:
    """A fit by its seed and number. rows, is_catalogue, embeddings (M,): of all photos and catalogue images, embedded by the encoder as it is."""

    seed: int
    number: int
    rows: Rows
    is_catalogue: Mask
    fold_of: Rows
    embeddings: Floats
    family_of: Rows
    maps: Path
    config: TuningConfig


@dataclass(frozen=True)
class Judged:
    """Of the photos asked about (B,): product, whether it is a known one, whether the answer was right, was "in the catalogue", and what is judged by."""

    rows: Rows
    is_known: Mask
    is_right: Mask
    is_accepted: Mask
    scores: dict[str, Floats]


def studied(shop: Shop, fits: int, seeds: Sequence[int], processes: int, config: TuningConfig, work: Path, command: str) -> OpenSetStudy:
    """So many fits of each seed, `processes` at a time, each on one thread."""
    encoder = load_image_encoder()
    embeddings = encoder.embed(np.stack([encoder_input(each) for each in shop.pixels]))
    is_catalogue = np.arange(len(shop.rows)) >= shop.num_photos
    tasks = []
    for seed in seeds:
        fold_of = np.full(len(shop.rows), -1)
        fold_of[~is_catalogue] = folds(embeddings[~is_catalogue], shop.rows[~is_catalogue], seed)
        maps = _maps(encoder, shop, config, seed, work / str(seed))
        tasks += [Task(seed, number, shop.rows, is_catalogue, fold_of, embeddings, shop.family_of, maps, config) for number in range(fits)]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        parts = list(pool.map(judged, tasks))
    known = [part.is_known for part in parts]

    def share(of: Sequence[Mask], asked: Sequence[Mask]) -> Interval:
        values, rows = (np.concatenate([each[mask] for each, mask in zip(all_of, asked, strict=True)]) for all_of in (of, [part.rows for part in parts]))
        return mean_interval(values.astype(np.float64), num_bootstrap=_NUM_BOOTSTRAP, seed=0, clusters_R=rows)

    unknown = [~mask for mask in known]
    return OpenSetStudy(
        machine=machine(),
        date=today(),
        command=command,
        config=config,
        fits=len(parts),
        products_left_out=len(np.unique(np.concatenate([part.rows[~part.is_known] for part in parts]))),
        known_photos=sum(int(mask.sum()) for mask in known),
        unknown_photos=sum(int(mask.sum()) for mask in unknown),
        auroc={name: _auroc(parts, name) for name in (FROZEN, ABOVE, RULE)},
        by_fit=tuple(_area(part, RULE) for part in parts),
        unknown_share=share([~part.is_accepted for part in parts], known),
        false_accepts=share([part.is_accepted for part in parts], unknown),
        top1=share([part.is_right for part in parts], known),
    )


def _maps(encoder: ImageEncoder, shop: Shop, config: TuningConfig, seed: int, work: Path) -> Path:
    """The file of the shared blocks' maps; made unless the folder holds it whole."""
    if not (work / "whole").exists():
        shared_maps(encoder, shop.pixels, config, seed, work)
        (work / "whole").touch()
    return work / "maps.npy"


def judged(task: Task) -> Judged:
    """One fit, its calibration, and its answers."""
    torch.set_num_threads(1)
    encoder, num_products = load_image_encoder(runtime="torch"), len(task.family_of)
    images, kinds = background_images(task.seed)
    is_new, held = _left_out(task, task.number, task.number)
    is_new_inside, held_inside = _left_out(task, task.number + NUM_PARTS // 2, task.number + 1)
    maps = np.load(task.maps, mmap_mode="r")
    fit_M = ~(is_new | held)
    inside_M = fit_M & ~(is_new_inside | held_inside)

    def embedded(trained_M: Mask) -> tuple[Floats, Floats]:
        tuned = tune_on_maps(encoder, maps, np.where(trained_M, task.rows, -1), task.family_of.tolist(), task.config, task.seed)
        return tuned.answer_maps(maps[:, 0]).tuned_BD, tuned.recognize(images).tuned_BD

    def fitted(embeddings: Floats, backgrounds: Floats, crossed: Sequence[CrossFit] = ()) -> Recognizer:
        of_fit = task.rows[fit_M], task.is_catalogue[fit_M], num_products, RecognizerConfig(), task.seed, Backgrounds(backgrounds, kinds)
        return fit_and_answer(embeddings[fit_M], *of_fit, family_of=task.family_of.tolist(), cross_fits=crossed)[0]

    (tuned_MD, drawn), (inside_MD, drawn_inside) = embedded(fit_M), embedded(inside_M)
    held_inside &= np.isin(task.rows, task.rows[inside_M & ~task.is_catalogue])
    recognizer = fitted(tuned_MD, drawn, [CrossFit(held_inside[fit_M], is_new_inside[fit_M], inside_MD[fit_M], drawn_inside)])
    asked_M = ~task.is_catalogue & (is_new | (held & np.isin(task.rows, task.rows[fit_M])))
    answers = recognizer.recognize(tuned_MD[asked_M])
    frozen = fitted(task.embeddings, encoder.embed(images)).recognize(task.embeddings[asked_M])
    found = Judged(
        rows=task.rows[asked_M],
        is_known=~is_new[asked_M],
        is_right=np.array([answer.product_rows[0] for answer in answers]) == task.rows[asked_M],
        is_accepted=np.array([answer.in_catalogue for answer in answers]),
        scores={
            FROZEN: np.array([answer.margin for answer in frozen], np.float32),
            ABOVE: recognizer.evidence(tuned_MD[asked_M])[:, 0],
            RULE: np.array([answer.margin for answer in answers], np.float32),
        },
    )
    areas = ", ".join(f"{name} {_area(found, name):.4f}" for name in found.scores)
    progress(f"recognition: seed {task.seed}, left out {task.number}: AUROC {areas}; calibration said {recognizer.facts.unseen_product_auroc:.4f}")
    return found


def _left_out(task: Task, part: int, fold: int) -> tuple[Mask, Mask]:
    """(M,) what is of the products left out, and which photos of the others are held back."""
    photographed = np.unique(task.rows[~task.is_catalogue])
    order = np.random.default_rng(sub_seed(task.seed, "left out")).permutation(photographed)
    is_new = np.isin(task.rows, order[part % NUM_PARTS :: NUM_PARTS])
    return is_new, ~task.is_catalogue & ~is_new & (task.fold_of == fold % NUM_FOLDS)


def _area(part: Judged, name: str, weights_B: NDArray[np.float64] | None = None) -> float:
    return float(roc_auc_score(part.is_known, part.scores[name], sample_weight=weights_B))


def _auroc(parts: Sequence[Judged], name: str) -> Interval:
    """The mean over fits; the interval draws products, of each fit the known and the others apart."""
    random = np.random.default_rng(0)
    draws = np.array([np.mean([_area(part, name, _drawn(part, random)) for part in parts]) for _ in range(_NUM_BOOTSTRAP)])
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    products = len(np.unique(np.concatenate([part.rows[~part.is_known] for part in parts])))
    value = float(np.mean([_area(part, name) for part in parts]))
    return Interval(value=value, low=float(low), high=float(high), n=sum(len(part.rows) for part in parts), clusters=products)


def _drawn(part: Judged, random: np.random.Generator) -> NDArray[np.float64]:
    """(B,) how often each photo is in a draw of products with replacement."""
    times = np.zeros(part.rows.max() + 1)
    for mask in (part.is_known, ~part.is_known):
        products = np.unique(part.rows[mask])
        np.add.at(times, random.choice(products, len(products)), 1)
    return times[part.rows]


def as_markdown(study: OpenSetStudy) -> str:
    head = f"{study.fits} fits; {study.products_left_out} products left out in turn with all their photos and catalogue images ({study.unknown_photos} photos asked about)"
    lines = [
        '# "Not in the catalogue": products that neither tuning nor the gallery knows',
        "",
        f"`{study.command}`, {study.machine}, {study.date}.",
        f"{head}, beside",
        f"{study.known_photos} held-back photos of the others. AUROC: the mean over fits, with 95 % intervals over products.",
        "",
        "| judged by | AUROC |",
        "|---|---|",
        *(f"| {name} | {_cell(found)} |" for name, found in study.auroc.items()),
        "",
        f"By fit, the release's rule: {', '.join(f'{area:.3f}' for area in study.by_fit)}. Of the known products' photos {_cell(study.top1)} are right first and "
        f"{_cell(study.unknown_share)} are",
        f"called unknown; of the others {_cell(study.false_accepts)} are taken for a product of the catalogue (`false_unknown_share` {RecognizerConfig().false_unknown_share}).",
    ]
    return "\n".join([*lines, ""])


def _cell(found: Interval) -> str:
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="The GroceryStoreDataset folder.")
@click.option("--fits", default=4, type=click.IntRange(1, NUM_PARTS), help="Of each seed; each leaves out other products.")
@click.option("--seed", "seeds", multiple=True, default=(1000,), type=int, help="Of what is left out, and of fits; may be given more than once.")
@click.option("--processes", default=2, type=click.IntRange(min=1), help="Fits that run at once, each on one core.")
@click.option("--set", "settings", multiple=True, help="FIELD=VALUE of TuningConfig; the defaults otherwise.")
@click.option(
    "--work", type=click.Path(file_okay=False, path_type=Path), help="Keeps what fits share (0.7 GB a seed) for another run of the same photos and views."
)
@click.option("--out", default=RESULTS, type=click.Path(file_okay=False, path_type=Path), help="Folder for open_set.json and open_set.md.")
def command(data: Path, fits: int, seeds: tuple[int, ...], processes: int, settings: tuple[str, ...], work: Path | None, out: Path) -> None:
    """Leave products out, fit on the rest, and print how well they are told apart from it."""
    config = TuningConfig.model_validate_strings(dict(setting.partition("=")[::2] for setting in settings))
    given = "".join(f" --seed {seed}" for seed in seeds) + "".join(f" --set {setting}" for setting in settings)
    with tempfile.TemporaryDirectory() as scratch:
        line = f"python -m benchmarks.open_set --data grocery-store --fits {fits}{given}"
        study = studied(read(data), fits, seeds, processes, config, work or Path(scratch), line)
    keep(study, as_markdown(study), out, "open_set")


if __name__ == "__main__":
    run_command(command)
