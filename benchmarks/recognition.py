"""How well does tuning the encoder's last blocks on a shop's photos recognise new ones, beside the closed-form recognizer? grocery-store.

    python -m benchmarks.recognition --data FOLDER [--folds N] [--new N] [--seed S ...] [--set FIELD=VALUE ...] [--out DIR] [--name NAME]

Folds hold back groups of photos that look alike (models/recognizer_fit.py), so that a held-back photo is as new as tomorrow's; settings are chosen by
them alone, with --folds and a development seed. --new runs N of five folds over products: a fifth of them is left out of tuning, photos and all, and
then known by catalogue images alone beside the others, whose photos of one fold are held back. Val is looked at once a seed, after the folds, by models of the whole training part, and never chooses.
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
from guidelens.models.recognizer import unit
from guidelens.models.recognizer_fit import NUM_FOLDS, answers_held_back, folds
from guidelens.models.tuned import TunedRecognizer
from guidelens.schemas.base import Frozen
from guidelens.training.tuning import Maps, TuningEpoch, shared_maps, tune_on_maps
from pipelines.entry import progress, run_command

RESULTS = Path(__file__).parent / "results"
NEAREST = "nearest catalogue image, frozen"
NUM_PRODUCT_FOLDS = 5
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


class Named(Frozen):
    """Share of photos whose product is answered first, or among five."""

    top1: Interval
    top5: Interval


class NewProducts(Frozen):
    """new: photos of products known by catalogue images alone, by recognizer; others: held-back photos of the products beside them."""

    products: int
    photos: int
    new: dict[str, Named]
    others: dict[str, Named]


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
    new_products: NewProducts | None = None
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


@dataclass(frozen=True)
class NewAnswers:
    """Of photos held back: (B,) what they show, whether that is a new product, and (B, 5) each recognizer's products."""

    truth: Rows
    is_new: NDArray[np.bool_]
    of: dict[str, Rows]


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

    def new_products(self, new: Rows, held_M: NDArray[np.bool_]) -> tuple[NewAnswers, TunedRecognizer]:
        """Photos of `new`, which tuning has not seen, and those in `held_M` of the others, with all catalogue images in the gallery."""
        is_new_M, is_catalogue = np.isin(self.shop.rows, new), np.arange(len(self.shop.rows)) >= self.shop.num_photos
        fit_rows = np.where(is_new_M | held_M, -1, self.shop.rows)
        tuned = tune_on_maps(self.encoder, self.maps, fit_rows, self.shop.family_of.tolist(), self.config, self.seed, self._tell)
        asked_M = (is_new_M | held_M) & ~is_catalogue
        catalogue_PD = unit(self.embeddings_MD[is_catalogue])
        found = {NEAREST: np.argsort(-unit(self.embeddings_MD[asked_M]) @ catalogue_PD.T, axis=1)[:, :5]}
        for name, embeddings in ((FROZEN, self.embeddings_MD), (TUNED, tuned.answer_maps(self.maps[:, 0]).tuned_BD)):
            found[name] = answers_held_back(embeddings, self.shop.rows, is_catalogue, asked_M, len(self.shop.family_of), seed=self.seed)
        return NewAnswers(self.shop.rows[asked_M], is_new_M[asked_M], found), tuned

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


def measured_new(parts: Sequence[NewAnswers]) -> NewProducts:
    truth, is_new = np.concatenate([part.truth for part in parts]), np.concatenate([part.is_new for part in parts])
    answers = {name: np.concatenate([part.of[name] for part in parts]) for name in (NEAREST, FROZEN, TUNED)}

    def named(answers_BK: Rows, asked_B: NDArray[np.bool_]) -> Named:
        right_BK = (answers_BK == truth[:, None])[asked_B]

        def share(right_B: NDArray[np.bool_]) -> Interval:
            return mean_interval(right_B.astype(np.float64), num_bootstrap=_NUM_BOOTSTRAP, seed=0, clusters_R=truth[asked_B])

        return Named(top1=share(right_BK[:, 0]), top5=share(right_BK.any(axis=1)))

    return NewProducts(
        products=len(np.unique(truth[is_new])),
        photos=int(is_new.sum()),
        new={name: named(found, is_new) for name, found in answers.items()},
        others={name: named(answers[name], ~is_new) for name in (FROZEN, TUNED)},
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


def studied(data: Path, seeds: Sequence[int], num_folds: int, num_new: int, with_val: bool, config: TuningConfig, settings: Sequence[str]) -> RecognitionStudy:
    encoder, shop = load_image_encoder(), read(data)
    embeddings = encoder.embed(np.stack([encoder_input(each) for each in shop.pixels]))
    progress(f"recognition: {shop.num_photos:,} photos, {len(shop.family_of)} products")
    of_folds: list[Answers] = []
    of_val: list[Answers] = []
    of_new: list[NewAnswers] = []
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
            product_fold = np.random.default_rng(seed).permutation(len(shop.family_of)) % NUM_PRODUCT_FOLDS
            for fold in range(num_new):
                held_M = np.isin(np.arange(len(shop.rows)), np.flatnonzero(fold_of == fold % NUM_FOLDS))
                added, tuned = bench.new_products(np.flatnonzero(product_fold == fold), held_M)
                of_new.append(added)
                progress(f"recognition: seed {seed}, new products {fold}: {_new_line(measured_new(of_new[-1:]))}")
            if with_val:
                found, tuned = bench.asked(np.ones(len(shop.rows), bool), shop.val_pixels, shop.val_rows)
                of_val.append(found)
                progress(f"recognition: seed {seed}, val: {_line(measured([found], shop.family_of))}")
    assert tuned is not None
    ms_per_photo, decode_ms = timed(shop.files, tuned)
    given = (f" --new {num_new}" if num_new else "") + "".join(f" --seed {seed}" for seed in seeds) + "".join(f" --set {setting}" for setting in settings)
    return RecognitionStudy(
        machine=machine(),
        date=today(),
        command=f"python -m benchmarks.recognition --data grocery-store --folds {num_folds}{given}{'' if with_val else ' --no-val'}",
        seeds=tuple(seeds),
        num_folds=num_folds,
        config=config,
        folds=measured(of_folds, shop.family_of) if of_folds else None,
        val=measured(of_val, shop.family_of) if of_val else None,
        new_products=measured_new(of_new) if of_new else None,
        ms_per_photo=ms_per_photo,
        decode_ms=decode_ms,
    )


def _line(found: Measured) -> str:
    return "; ".join(f"{name}: fine {one.fine.value:.4f}, coarse {one.coarse.value:.4f}" for name, one in found.of.items()) + f"; {found.seconds:.0f} s"


def _new_line(found: NewProducts) -> str:
    return "; ".join(f"{name}: top-1 {one.top1.value:.4f}, top-5 {one.top5.value:.4f}" for name, one in found.new.items())


def as_markdown(study: RecognitionStudy) -> str:
    lines = [
        "# Recognition: the encoder's last blocks tuned on a shop's photos",
        "",
        f"`{study.command}`, {study.machine}, {study.date}.",
        "Share of photos whose first product (fine), or its family (coarse), is right; 95 % intervals over products. Closed form: whitening and class means",
        f"(models/recognizer.py). Folds: {study.num_folds} of {NUM_FOLDS}, of groups of photos that look alike, inside the training part.",
        "",
    ]
    parts = {name: found for name, found in (("folds", study.folds), ("val", study.val)) if found is not None}
    lines += ["| | photos | recognizer | fine | coarse |", "|---|---|---|---|---|"] if parts else []
    for part, found in parts.items():
        lines += [f"| {part} | {found.photos} | {name} | {_cell(one.fine)} | {_cell(one.coarse)} |" for name, one in found.of.items()]
    for part, found in parts.items():
        lines += ["", f"{part}: tuning gains {_cell(found.gain)} fine in closed form; the family head alone is right in {_cell(found.family_head)}."]
        lines += [f"One tuning with its maps took {found.seconds:.0f} s of wall time."]
    if study.new_products is not None:
        lines += _new_table(study.new_products)
    timing = f"One photo at a time, one thread, median: {study.ms_per_photo:.1f} ms for both embeddings and the answer, {study.decode_ms:.1f} ms to decode it."
    return "\n".join([*lines, "", timing, ""])


def _new_table(found: NewProducts) -> list[str]:
    head = f"Products known by catalogue images alone ({found.products}, {found.photos} photos) beside photographed ones, which tuning has seen alone:"
    lines = ["", head, "", "| photos of | recognizer | top-1 | top-5 |", "|---|---|---|---|"]
    for part, of in (("new products", found.new), ("the others", found.others)):
        lines += [f"| {part} | {name} | {_cell(one.top1)} | {_cell(one.top5)} |" for name, one in of.items()]
    return lines


def _cell(found: Interval) -> str:
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _configured(settings: Sequence[str]) -> TuningConfig:
    pairs = dict(setting.partition("=")[::2] for setting in settings)
    return TuningConfig.model_validate_strings(pairs)


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="The GroceryStoreDataset folder.")
@click.option("--folds", "num_folds", default=NUM_FOLDS, type=click.IntRange(0, NUM_FOLDS), help="How many of the folds are run.")
@click.option("--new", "num_new", default=0, type=click.IntRange(0, NUM_PRODUCT_FOLDS), help="How many of the folds over products are run.")
@click.option("--seed", "seeds", multiple=True, default=(1000,), type=int, help="Of folds and fits; may be given more than once.")
@click.option("--val/--no-val", "with_val", default=True, help="Look at val at the end.")
@click.option("--set", "settings", multiple=True, help="FIELD=VALUE of TuningConfig; the defaults otherwise.")
@click.option("--out", default=RESULTS, type=click.Path(file_okay=False, path_type=Path), help="Folder for NAME.json and NAME.md.")
@click.option("--name", default="recognition", help="Of the two files.")
def command(data: Path, num_folds: int, num_new: int, seeds: tuple[int, ...], with_val: bool, settings: tuple[str, ...], out: Path, name: str) -> None:
    """Tune on the training part, answer what was held back, and print the table."""
    if num_folds == 0 and num_new == 0 and not with_val:
        raise click.UsageError("--folds 0 and --new 0 with --no-val leave nothing to measure; give --folds 1 or more")
    study = studied(data, seeds, num_folds, num_new, with_val, _configured(settings), settings)
    keep(study, as_markdown(study), out, name)


if __name__ == "__main__":
    run_command(command)
