"""How well does tuning the encoder's last blocks on a shop's photos recognise new ones, beside the closed-form recognizer? grocery-store.

    python -m benchmarks.recognition --data FOLDER [--folds N] [--seed S ...] [--set FIELD=VALUE ...] [--out DIR]

Folds hold back groups of photos that look alike (models/recognizer_fit.py), so that a held-back photo is as new as tomorrow's; settings are chosen by
them alone, with --folds and a development seed. Val is looked at once a seed, after the folds, by models of the whole training part, and never chooses.
Each photo counts by its first product; coarse is right where that product's family is. Intervals draw a product's photos together.
"""

# Letters: M = training photos, then one catalogue image a product; P = products; B = photos asked about; D = embedding width.

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks._results import keep, machine, today
from guidelens.config import TuningConfig
from guidelens.data.adapters import grocery_store
from guidelens.data.images.decoding import Pixels, encoder_input, upright_pixels
from guidelens.encoders.image import ImageEncoder, load_image_encoder
from guidelens.evaluation.bootstrap import Interval, mean_interval, paired_difference
from guidelens.models.recognizer_fit import NUM_FOLDS, answers_held_back, folds
from guidelens.models.tuned import TunedRecognizer
from guidelens.schemas.base import Frozen
from guidelens.training.tuning import Maps, TuningEpoch, shared_maps, tune_on_maps
from pipelines.entry import progress, run_command

RESULTS = Path(__file__).parent / "results"
FROZEN, HEADS, TUNED = "closed form, frozen", "heads, tuned", "closed form, tuned"
_NUM_BOOTSTRAP = 1000
_TIMED_PHOTOS = 50
Rows = NDArray[np.int64]
Floats = NDArray[np.float32]


class Shares(Frozen):
    """Right answers of one recognizer: the product, and the family."""

    fine: Interval
    coarse: Interval


class Measured(Frozen):
    """of: shares by recognizer. family_head: coarse by the family head itself. gain: of closed form on tuned embeddings over it on the frozen
    ones, fine. seconds: wall time of one tuning with its maps, mean."""

    photos: int
    of: dict[str, Shares]
    family_head: Interval
    gain: Interval
    seconds: float


class RecognitionStudy(Frozen):
    """ms_per_photo: one photo at a time on one thread, both embeddings and the answer; decode_ms beside it."""

    machine: str
    date: str
    command: str
    seeds: tuple[int, ...]
    num_folds: int
    config: TuningConfig
    folds: Measured | None
    val: Measured | None
    ms_per_photo: float
    decode_ms: float


@dataclass(frozen=True)
class Shop:
    """pixels: upright, of M labelled photos, then of P catalogue images. files: of photos to time."""

    pixels: list[Pixels]
    rows: Rows
    num_photos: int
    family_of: Rows
    val_pixels: list[Pixels]
    val_rows: Rows
    files: list[Path]


@dataclass(frozen=True)
class Answers:
    """Of photos asked about, in one order: what they show, each recognizer's first product, and the family head's answer; (B,) each."""

    truth: Rows
    of: dict[str, Rows]
    family: Rows
    seconds: float


def read(data: Path) -> Shop:
    source = grocery_store.load(data)
    row_of = {product.product_id: row for row, product in enumerate(source.products)}
    families = sorted({product.category for product in source.products})
    photos = [source.photos / label.path for label in source.labels]
    catalogue = [source.photos / product.images[0] for product in source.products]
    return Shop(
        pixels=[upright_pixels(file.read_bytes()) for file in (*photos, *catalogue)],
        rows=np.array([*(row_of[label.product_id] for label in source.labels), *range(len(row_of))]),
        num_photos=len(photos),
        family_of=np.array([families.index(product.category) for product in source.products]),
        val_pixels=[upright_pixels((source.photos / photo.path).read_bytes()) for photo in source.holdout],
        val_rows=np.array([row_of[photo.product_id] for photo in source.holdout]),
        files=photos[:: max(1, len(photos) // _TIMED_PHOTOS)][:_TIMED_PHOTOS],
    )


@dataclass(frozen=True)
class Bench:
    """A shop's photos as both recognizers take them. maps_seconds: wall time it took to make `maps` of all of them."""

    encoder: ImageEncoder
    shop: Shop
    embeddings_MD: Floats
    maps: Maps
    maps_seconds: float
    config: TuningConfig
    seed: int

    def asked(self, fit_M: NDArray[np.bool_], pixels: Sequence[Pixels], truth_B: Rows) -> tuple[Answers, TunedRecognizer]:
        """Both recognizers, fitted to the rows in `fit_M`, on photos they have not seen."""
        begun = time.perf_counter()
        tuned = tune_on_maps(self.encoder, self.maps, np.where(fit_M, self.shop.rows, -1), self.shop.family_of.tolist(), self.config, self.seed, self._tell)
        seconds = self.maps_seconds + time.perf_counter() - begun
        answers = tuned.recognize(np.stack([encoder_input(each) for each in pixels]))
        tuned_MD = tuned.answer_maps(self.maps[:, 0]).tuned_BD
        found = {
            FROZEN: self._closed_form(self.embeddings_MD, answers.encoder_BD, fit_M, truth_B),
            HEADS: answers.products_BP.argmax(1),
            TUNED: self._closed_form(tuned_MD, answers.tuned_BD, fit_M, truth_B),
        }
        return Answers(truth_B, found, answers.families_BF.argmax(1), seconds), tuned

    def _closed_form(self, embeddings_MD: Floats, asked_BD: Floats, fit_M: NDArray[np.bool_], truth_B: Rows) -> Rows:
        fit_rows, all_asked = np.flatnonzero(fit_M), np.ones(len(truth_B), bool)
        return answers_held_back(
            np.concatenate([embeddings_MD[fit_rows], asked_BD]),
            np.concatenate([self.shop.rows[fit_rows], truth_B]),
            np.concatenate([fit_rows >= self.shop.num_photos, ~all_asked]),
            np.concatenate([np.zeros(len(fit_rows), bool), all_asked]),
            len(self.shop.family_of),
            top=1,
        )[:, 0]

    def _tell(self, one: TuningEpoch) -> None:
        progress(f"recognition: seed {self.seed}, epoch {one.epoch + 1} of {self.config.epochs}: loss {one.loss:.3f}")


def measured(parts: Sequence[Answers], family_of: Rows) -> Measured:
    truth, family = np.concatenate([part.truth for part in parts]), np.concatenate([part.family for part in parts])
    answers = {name: np.concatenate([part.of[name] for part in parts]) for name in (FROZEN, HEADS, TUNED)}

    def share(right_B: NDArray[np.bool_]) -> Interval:
        return mean_interval(right_B.astype(np.float64), num_bootstrap=_NUM_BOOTSTRAP, seed=0, clusters_R=truth)

    right = {name: (found == truth).astype(np.float64) for name, found in answers.items()}
    return Measured(
        photos=len(truth),
        of={name: Shares(fine=share(found == truth), coarse=share(family_of[found] == family_of[truth])) for name, found in answers.items()},
        family_head=share(family == family_of[truth]),
        gain=paired_difference(right[TUNED], right[FROZEN], num_bootstrap=_NUM_BOOTSTRAP, seed=0, clusters_R=truth),
        seconds=float(np.mean([part.seconds for part in parts])),
    )


def timed(files: Sequence[Path], tuned: TunedRecognizer) -> tuple[float, float]:
    """Median milliseconds of recognising one decoded photo, and of decoding it."""
    recognising, decoding = [], []
    for file in files:
        begun = time.perf_counter()
        image = encoder_input(upright_pixels(file.read_bytes()))
        decoded = time.perf_counter()
        tuned.recognize(image[None])
        recognising.append(time.perf_counter() - decoded)
        decoding.append(decoded - begun)
    return float(np.median(recognising) * 1e3), float(np.median(decoding) * 1e3)


def studied(data: Path, seeds: Sequence[int], num_folds: int, with_val: bool, config: TuningConfig, settings: Sequence[str]) -> RecognitionStudy:
    encoder, shop = load_image_encoder(), read(data)
    embeddings = encoder.embed(np.stack([encoder_input(each) for each in shop.pixels]))
    progress(f"recognition: {shop.num_photos:,} photos, {len(shop.family_of)} products")
    of_folds: list[Answers] = []
    of_val: list[Answers] = []
    tuned: TunedRecognizer | None = None
    for seed in seeds:
        with tempfile.TemporaryDirectory() as work:
            begun = time.perf_counter()
            maps = shared_maps(encoder, shop.pixels, config, seed, Path(work))
            bench = Bench(encoder, shop, embeddings, maps, time.perf_counter() - begun, config, seed)
            fold_of = folds(embeddings[: shop.num_photos], shop.rows[: shop.num_photos], seed)
            for fold in range(num_folds):
                held = np.flatnonzero(fold_of == fold)
                found, tuned = bench.asked(~np.isin(np.arange(len(shop.rows)), held), [shop.pixels[row] for row in held], shop.rows[held])
                of_folds.append(found)
                progress(f"recognition: seed {seed}, fold {fold}: {_line(measured([found], shop.family_of))}")
            if with_val:
                found, tuned = bench.asked(np.ones(len(shop.rows), bool), shop.val_pixels, shop.val_rows)
                of_val.append(found)
                progress(f"recognition: seed {seed}, val: {_line(measured([found], shop.family_of))}")
    assert tuned is not None
    ms_per_photo, decode_ms = timed(shop.files, tuned)
    given = "".join(f" --seed {seed}" for seed in seeds) + "".join(f" --set {setting}" for setting in settings)
    return RecognitionStudy(
        machine=machine(),
        date=today(),
        command=f"python -m benchmarks.recognition --data grocery-store --folds {num_folds}{given}{'' if with_val else ' --no-val'}",
        seeds=tuple(seeds),
        num_folds=num_folds,
        config=config,
        folds=measured(of_folds, shop.family_of) if of_folds else None,
        val=measured(of_val, shop.family_of) if of_val else None,
        ms_per_photo=ms_per_photo,
        decode_ms=decode_ms,
    )


def _line(found: Measured) -> str:
    return "; ".join(f"{name}: fine {one.fine.value:.4f}, coarse {one.coarse.value:.4f}" for name, one in found.of.items()) + f"; {found.seconds:.0f} s"


def as_markdown(study: RecognitionStudy) -> str:
    lines = [
        "# Recognition: the encoder's last blocks tuned on a shop's photos",
        "",
        f"`{study.command}`, {study.machine}, {study.date}.",
        "Share of photos whose first product (fine), or its family (coarse), is right; 95 % intervals over products. Closed form: whitening and class means",
        f"(models/recognizer.py). Folds: {study.num_folds} of {NUM_FOLDS}, of groups of photos that look alike, inside the training part.",
        "",
        "| | photos | recognizer | fine | coarse |",
        "|---|---|---|---|---|",
    ]
    parts = {name: found for name, found in (("folds", study.folds), ("val", study.val)) if found is not None}
    for part, found in parts.items():
        lines += [f"| {part} | {found.photos} | {name} | {_cell(one.fine)} | {_cell(one.coarse)} |" for name, one in found.of.items()]
    for part, found in parts.items():
        lines += ["", f"{part}: tuning gains {_cell(found.gain)} fine in closed form; the family head alone is right in {_cell(found.family_head)}."]
        lines += [f"One tuning with its maps took {found.seconds:.0f} s of wall time."]
    timing = f"One photo at a time, one thread, median: {study.ms_per_photo:.1f} ms for both embeddings and the answer, {study.decode_ms:.1f} ms to decode it."
    return "\n".join([*lines, "", timing, ""])


def _cell(found: Interval) -> str:
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _configured(settings: Sequence[str]) -> TuningConfig:
    pairs = dict(setting.partition("=")[::2] for setting in settings)
    return TuningConfig.model_validate_strings(pairs)


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="The GroceryStoreDataset folder.")
@click.option("--folds", "num_folds", default=NUM_FOLDS, type=click.IntRange(0, NUM_FOLDS), help="How many of the folds are run.")
@click.option("--seed", "seeds", multiple=True, default=(1000,), type=int, help="Of folds and fits; may be given more than once.")
@click.option("--val/--no-val", "with_val", default=True, help="Look at val at the end.")
@click.option("--set", "settings", multiple=True, help="FIELD=VALUE of TuningConfig; the defaults otherwise.")
@click.option("--out", default=RESULTS, type=click.Path(file_okay=False, path_type=Path), help="Folder for recognition.json and recognition.md.")
def command(data: Path, num_folds: int, seeds: tuple[int, ...], with_val: bool, settings: tuple[str, ...], out: Path) -> None:
    """Tune on the training part, answer what was held back, and print the table."""
    if num_folds == 0 and not with_val:
        raise click.UsageError("--folds 0 with --no-val leaves nothing to measure; give --folds 1 or more")
    study = studied(data, seeds, num_folds, with_val, _configured(settings), settings)
    keep(study, as_markdown(study), out, "recognition")


if __name__ == "__main__":
    run_command(command)
