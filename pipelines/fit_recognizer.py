"""The recognizer of one fit: the closed form on the encoder's own embeddings, and on those of its last blocks tuned on the shop's photos.

Tuning takes what the lake keeps of each photo. Where too few products have photos, or the config says so, it is left out and the run says why.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from guidelens.config import DEFAULT_IMAGE_ENCODER, Config, TuningConfig
from guidelens.data.lake.lake import Lake, Manifest
from guidelens.evaluation.held_back import HELD_BACK
from guidelens.inference.guide_files import require_encoder
from guidelens.models.released_recognizer import TUNED
from guidelens.schemas.ids import sub_seed
from guidelens.schemas.tables import IMAGE_DIM, Table
from pipelines.entry import progress

if TYPE_CHECKING:
    from guidelens.models.recognizer import Recognizer, RecognizerFacts
    from guidelens.models.recognizer_fit import HeldBackAnswers
    from guidelens.training.tuning import TuningEpoch
    from guidelens.training.tuning_fits import TunedFit

# Letters: M = labelled photos and catalogue images, in the order of their paths.

TRAINED = "trained"
TUNING = "tuning"
_WHOLE = "all"
_MIN_RECOGNIZED = 2
_MIN_PHOTOS = 2
_MIN_PRODUCTS_FOR_NOVEL, _PRODUCTS_A_NOVEL = 24, 8
"""From so many products with photos on, each cross-fit is not shown one in eight at all: what a product that is not in the catalogue looks like to it."""
Track = Callable[[int, dict[str, float]], None]


class RecognizerDone(NamedTuple):
    """state: `trained`, or `absent: reason`. untuned: why the encoder was left as it is; empty where it was tuned."""

    state: str
    untuned: str = ""
    metrics: dict[str, float] = {}
    by_epoch: tuple[tuple[int, dict[str, float]], ...] = ()


@dataclass(frozen=True)
class Photos:
    """(M,) each: the lake's rows, product rows, and which are catalogue images. family_of: of each product; -1 without a category."""

    table: pl.DataFrame
    rows: NDArray[np.int64]
    is_catalogue: NDArray[np.bool_]
    family_of: tuple[int, ...]

    @property
    def embeddings(self) -> NDArray[np.float32]:
        return np.ascontiguousarray(self.table["embedding"].cast(pl.Array(pl.Float32, IMAGE_DIM)).to_numpy())

    @property
    def num_products(self) -> int:
        return len(self.family_of)

    def where(self, kept_M: NDArray[np.bool_]) -> "Photos":
        return Photos(self.table.filter(pl.Series(kept_M)), self.rows[kept_M], self.is_catalogue[kept_M], self.family_of)


class _LeftOut(NamedTuple):
    """(M,) photos of groups that look alike whose product keeps another one; all photos and catalogue images of some products."""

    held_M: NDArray[np.bool_]
    novel_M: NDArray[np.bool_]


def fit_recognizer(lake: Lake, snapshot: Manifest, items: pl.DataFrame, config: Config, work: Path, fit_dir: Path, track: Track) -> RecognizerDone:
    """Fits to the snapshot's labelled photos and leaves the files in `fit_dir`; what the fit goes on from when it is resumed, in `work`."""
    from guidelens.encoders.backbones import load_image_backbone
    from guidelens.models.backgrounds import background_embeddings
    from guidelens.models.recognizer_fit import Backgrounds, fit_and_answer

    photos = _labelled(lake, snapshot, items)
    known = len(np.unique(photos.rows))
    if known < _MIN_RECOGNIZED:
        return RecognizerDone(f"absent: the lake holds photos of fewer than {_MIN_RECOGNIZED} products; ingest labelled photos or catalogue images")
    train, seed = config.train, sub_seed(config.seed, "recognizer")
    encoder = load_image_backbone(config.ingest.encoders.image)
    require_encoder(photos.table, "image", encoder.encoder_id)
    drawn = Backgrounds(*background_embeddings(encoder, seed))
    fitted, frozen_held = fit_and_answer(
        photos.embeddings, photos.rows, photos.is_catalogue, photos.num_products, train.recognizer, seed, drawn, family_of=photos.family_of
    )
    fitted.save(fit_dir)
    progress(f"train: recognizer of {known} products from {len(photos.rows):,} labelled photos")
    metrics = _metrics(fitted.facts)
    untuned = _why_not(photos, train.recognizer.tuning, config.ingest.encoders.image)
    if untuned or train.recognizer.tuning is None:
        progress(f"train: the image encoder is left as it is: {untuned}")
        _keep_answers(photos, frozen_held, items, fit_dir)
        return RecognizerDone(TRAINED, untuned, {**metrics, "recognizer.tuned": 0.0})
    seen = photos.where(_has_picture(photos))
    if len(seen.rows) < len(photos.rows):
        progress(f"train: {len(photos.rows) - len(seen.rows)} photos are tuned without: the lake has no picture of them; ingest their folder again")
    fits = _tuned(seen, config, train.recognizer.tuning, seed, work / TUNING, track)
    tuned, held = _closed_form(seen, fits, config, seed)
    by_epoch = tuple((epoch.epoch, _epoch_metrics(name, epoch)) for name, fit in fits.items() for epoch in fit.history)
    num_both, right, encoder_right = _on_the_same(photos, seen, held, frozen_held)
    if num_both and right < encoder_right:
        untuned = f"of {num_both} photos held back, {right:.3f} are right by the tuned blocks and {encoder_right:.3f} by the encoder as it is, which is kept"
        progress(f"train: {untuned}")
        _keep_answers(photos, frozen_held, items, fit_dir)
        return RecognizerDone(TRAINED, untuned, {**metrics, "recognizer.tuned": 0.0}, by_epoch)
    tuned.facts = tuned.facts.model_copy(update={"encoder_top1": encoder_right if num_both else None})
    tuned.save(fit_dir / TUNED)
    for name in ("tuned.json", "tuned.safetensors"):
        (fit_dir / TUNED / name).write_bytes((fits[_WHOLE].folder / name).read_bytes())
    _keep_answers(seen, held, items, fit_dir)
    found = _metrics(tuned.facts)
    progress("train: tuned recognizer on held-back photos: " + ", ".join(f"{name.removeprefix('recognizer.')} {value:.4f}" for name, value in found.items()))
    frozen = {name.replace("recognizer.", "recognizer.frozen."): value for name, value in metrics.items()}
    return RecognizerDone(TRAINED, "", {**frozen, **found, "recognizer.tuned": 1.0}, by_epoch)


def _labelled(lake: Lake, snapshot: Manifest, items: pl.DataFrame) -> Photos:
    from guidelens.data.examples import row_of

    columns = ["path", "sha256", "product_id", "is_catalogue_image", "image_encoder", "embedding", "thumbnail"]
    table = lake.read(Table.PHOTOS, columns, manifest=snapshot).sort("path")
    rows = row_of(table["product_id"], items["product_id"].to_list()).astype(np.int64)
    names = items["category"].fill_null("").to_list()
    number = {name: place for place, name in enumerate(sorted(set(names) - {""}))}
    family_of = tuple(number.get(name, -1) for name in names)
    return Photos(table, rows, table["is_catalogue_image"].fill_null(False).to_numpy(), family_of).where(rows >= 0)


def _has_picture(photos: Photos) -> NDArray[np.bool_]:
    return photos.table["thumbnail"].is_not_null().to_numpy()


def _why_not(photos: Photos, tuning: TuningConfig | None, encoder: str) -> str:
    """Why the encoder is not tuned; empty where it is."""
    if encoder != DEFAULT_IMAGE_ENCODER:
        return f"only {DEFAULT_IMAGE_ENCODER} can be tuned, ingest.encoders.image is {encoder}"
    if tuning is None:
        return "train.recognizer.tuning is null"
    counts = np.bincount(photos.rows[~photos.is_catalogue & _has_picture(photos)], minlength=photos.num_products)
    enough = int((counts >= _MIN_PHOTOS).sum())
    if enough >= tuning.min_products:
        return ""
    return (
        f"{enough} products have {_MIN_PHOTOS} photos that the lake keeps a picture of, train.recognizer.tuning.min_products asks for {tuning.min_products}; "
        "ingest labelled photos, again where that was before the lake kept them"
    )


def _tuned(photos: Photos, config: Config, tuning: TuningConfig, seed: int, work: Path, track: Track) -> dict[str, "TunedFit"]:
    """The fit of all photos, and the cross-fits."""
    from guidelens.training.tuning import scaled_to
    from guidelens.training.tuning_fits import TuningFit, fit_tuned

    fits = [TuningFit(_WHOLE, photos.rows)]
    left_out = _left_out(photos, tuning.num_cross_fits, seed)
    fits += [TuningFit(f"cross_{number}", np.where(one.held_M | one.novel_M, -1, photos.rows)) for number, one in enumerate(left_out)]
    scaled = scaled_to(tuning, len(photos.rows))
    families = np.array(photos.family_of)
    family_of = np.where(families < 0, families.max() + 1, families).tolist()
    progress(f"train: the encoder's last blocks are tuned on {len(photos.rows):,} photos, {len(fits)} fits of {scaled.epochs} epochs")

    def tell(name: str, epoch: "TuningEpoch") -> None:
        track(epoch.epoch, _epoch_metrics(name, epoch))
        progress(f"train: recognizer ({name}) epoch {epoch.epoch + 1} of {scaled.epochs}: training loss {epoch.loss:.4f}")

    return fit_tuned(photos.table["thumbnail"].to_list(), fits, family_of, config.train, scaled, seed, work, tell)


def _left_out(photos: Photos, num: int, seed: int) -> list[_LeftOut]:
    """What each cross-fit does without."""
    from guidelens.models.recognizer_fit import folds

    fold_of = np.full(len(photos.rows), -1)
    fold_of[~photos.is_catalogue] = folds(photos.embeddings[~photos.is_catalogue], photos.rows[~photos.is_catalogue], seed)
    photographed = np.random.default_rng(sub_seed(seed, "novel")).permutation(np.unique(photos.rows[~photos.is_catalogue]))
    each = len(photographed) // _PRODUCTS_A_NOVEL if len(photographed) >= _MIN_PRODUCTS_FOR_NOVEL else 0
    found = []
    for number in range(num):
        novel_M = np.isin(photos.rows, photographed[number * each : (number + 1) * each])
        held_M = (fold_of == number) & ~novel_M & np.isin(photos.rows, photos.rows[fold_of != number])
        found.append(_LeftOut(held_M, novel_M))
    return found


def _closed_form(photos: Photos, fits: dict[str, "TunedFit"], config: Config, seed: int) -> tuple["Recognizer", "HeldBackAnswers | None"]:
    from guidelens.models.backgrounds import background_images
    from guidelens.models.recognizer_fit import Backgrounds, CrossFit, fit_and_answer

    kinds = background_images(seed)[1]
    crossed = [
        CrossFit(one.held_M, one.novel_M, fits[f"cross_{number}"].embeddings, fits[f"cross_{number}"].backgrounds)
        for number, one in enumerate(_left_out(photos, len(fits) - 1, seed))
    ]
    whole = fits[_WHOLE]
    return fit_and_answer(
        whole.embeddings,
        photos.rows,
        photos.is_catalogue,
        photos.num_products,
        config.train.recognizer,
        seed,
        Backgrounds(whole.backgrounds, kinds),
        photos.family_of,
        crossed,
    )


def _on_the_same(photos: Photos, seen: Photos, tuned: "HeldBackAnswers | None", frozen: "HeldBackAnswers | None") -> tuple[int, float, float]:
    """Photos that both held back, and the shares of them right first: tuned, and by the encoder as it is."""
    if tuned is None or frozen is None:
        return 0, 0.0, 0.0
    right = [
        dict(zip(of.table["path"][held.photos_H.tolist()].to_list(), (held.product_rows_HK[:, 0] == of.rows[held.photos_H]).tolist(), strict=True))
        for of, held in ((seen, tuned), (photos, frozen))
    ]
    both = sorted(right[0].keys() & right[1].keys())
    return len(both), *(float(np.mean([one[path] for path in both])) if both else 0.0 for one in right)  # type: ignore[return-value]


def _epoch_metrics(name: str, epoch: "TuningEpoch") -> dict[str, float]:
    prefix = "recognizer" if name == _WHOLE else f"recognizer.{name}"
    return {f"{prefix}.train.loss": epoch.loss}


def _metrics(facts: "RecognizerFacts") -> dict[str, float]:
    """What held-back photos say, by MLflow's names."""
    found = {
        "held_back_photos": float(facts.held_back_photos),
        "held_back_top1": facts.held_back_top1,
        "held_back_coarse": facts.held_back_coarse,
        "held_back_unknown_share": facts.held_back_unknown_share,
        "held_back_false_accepts": facts.held_back_false_accepts,
        "unseen_product_auroc": facts.unseen_product_auroc,
        "novel_products": float(facts.novel_products),
    }
    return {f"recognizer.{name}": value for name, value in found.items() if value is not None}


def _keep_answers(photos: Photos, held: "HeldBackAnswers | None", items: pl.DataFrame, fit_dir: Path) -> None:
    """held_back.parquet: a row a photo that calibration held back, what it shows, and what was answered without having seen it."""
    if held is None:
        return
    ids: Sequence[str] = items["product_id"].to_list()
    photos.table[held.photos_H.tolist()].select(
        "path",
        "sha256",
        "product_id",
        answers=pl.Series([[ids[row] for row in rows] for rows in held.product_rows_HK.tolist()], dtype=pl.List(pl.String)),
        confidence=pl.Series(held.confidences_HK[:, 0].astype(np.float64)),
        in_catalogue=pl.Series(held.in_catalogue_H),
    ).write_parquet(fit_dir / HELD_BACK)
