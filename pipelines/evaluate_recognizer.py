"""`guidelens evaluate recognizer`: a released recognizer on labelled photos it has not seen, decoded and embedded as serving does."""

import csv
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click

from guidelens.bundle import BundleManifest, media_name
from guidelens.config import Home
from guidelens.errors import InputError, NotFoundError, StorageError, UnreadableImageError
from guidelens.evaluation.misses import Picture, miss_classes
from guidelens.evaluation.recognition import ShownProduct, measure_predictions, predictions, write_predictions
from guidelens.evaluation.report import RecognitionReport
from guidelens.models.recognizer import Recognition
from guidelens.models.released_recognizer import ReleasedRecognizer
from guidelens.schemas.base import Frozen
from pipelines.entry import emit, home_option, progress, run_command

PREDICTIONS = "predictions.csv"
_TRAINED = "trained"


class RecognizerResult(Frozen):
    """What the verb's last line and its JSON file hold.

    Attributes:
        coarse_top1, family_top1: share whose category is right: that of the first product, and the family as a reply names it.
        unknown: share of the photos called "not in the catalogue"; they count in top1 and top5 by the products they were given.
        ms_per_photo: mean milliseconds of decoding, embedding and recognising one photo at a time, on one thread.
        report: the same figures with interval and confusions, for report.json.
    """

    release: str
    top1: float
    top5: float
    coarse_top1: float | None
    family_top1: float | None
    photos: int
    unknown: float
    ms_per_photo: float
    predictions: str
    report: RecognitionReport


class LabelledPhoto(NamedTuple):
    """A line of the labels file; `line` counts from 1, the header included."""

    line: int
    path: str
    product_id: str


def run(home: Home, release: str, photos: Path, labels: Path, out: Path) -> RecognizerResult:
    """Scores a release on labelled photos; writes `out` (JSON) and predictions.csv beside it.

    Args:
        release: an alias or a version of this home.
        labels: CSV with `path, product_id`, paths relative to `photos`; further columns are ignored.

    Raises:
        NotFoundError: no such release, or one without a recognizer.
        InputError: the labels file or a photo is missing or unreadable, or a product is not in the release's catalogue.
    """
    if not photos.is_dir():
        raise InputError(f"--photos must name a folder, got {photos}")
    version, bundle, manifest = _bundle(home, release)
    products = _products(bundle)
    asked = read_labels(labels, photos, {product.product_id for product in products})
    progress(f"evaluate: release {version} on {len(asked)} photos")
    seen = seen_in_training(home, manifest.lake, manifest.manifest_version, photos, asked)
    if seen:
        progress(f"evaluate: {seen} of {len(asked)} photos lie in the lake that the release was trained on: these figures flatter it")
    answers, ms_per_photo = _recognize(home, bundle, photos, labels, asked)
    scored = predictions(answers, [one.path for one in asked], [one.product_id for one in asked], products)
    known = "" if seen is None else f", {seen or 'none'} of them in training"
    report = measure_predictions(scored, products, f"{len(asked)} labelled photos of {labels.name}{known}; release {version}.")
    report = report.model_copy(update={"misses": miss_classes(scored, products, lambda path: (photos / path).read_bytes(), _pictures(bundle, products))})
    write_predictions(scored, out.with_name(PREDICTIONS))
    result = RecognizerResult(
        release=version,
        top1=report.top1,
        top5=report.top5,
        coarse_top1=report.coarse_top1,
        family_top1=_right_families(answers, asked, products),
        photos=report.photos,
        unknown=1 - (1.0 if report.kept is None else report.kept),
        ms_per_photo=ms_per_photo,
        predictions=str(out.with_name(PREDICTIONS)),
        report=report,
    )
    out.write_text(json.dumps(result.model_dump(mode="json", exclude={"report"}), indent=2) + "\n")
    return result


def _bundle(home: Home, release: str) -> tuple[str, Path, BundleManifest]:
    """The version, its verified folder and manifest; refused where it was released without a recognizer."""
    from guidelens.registry import Registry
    from pipelines.release_copy import local_copy

    registry = Registry(home)
    version = registry.resolve(release)
    bundle, manifest = local_copy(registry, registry.version(version))
    state = manifest.parts.get("recognizer", "absent")
    if state != _TRAINED:
        raise NotFoundError(f"release {version} must hold a recognizer, got {state}; ingest labelled photos, train and release again")
    return version, bundle, manifest


def seen_in_training(home: Home, lake_uri: str, version: int, photos: Path, asked: Sequence[LabelledPhoto]) -> int | None:
    """How many of the photos, by their bytes, are in a version of a lake; None where that is not here any more."""
    from guidelens.data.lake.lake import Lake
    from guidelens.schemas.tables import Table

    lake = Lake(lake_uri, home.s3)
    try:
        table = lake.read(Table.PHOTOS, ["sha256"], manifest=lake.manifest(version))
    except (NotFoundError, StorageError):
        return None
    known = set(table["sha256"].to_list())
    return sum(hashlib.sha256((photos / one.path).read_bytes()).hexdigest() in known for one in asked)


def _products(bundle: Path) -> list[ShownProduct]:
    """In the order of product rows."""
    from guidelens.inference.guide_files import load_items

    items, _ = load_items(bundle)
    columns = items.select("product_id", "title", "category").iter_rows()
    return [ShownProduct(product_id=product_id, title=title or product_id, category=category or "") for product_id, title, category in columns]


def read_labels(labels: Path, photos: Path, known: set[str]) -> list[LabelledPhoto]:
    """The lines of a labels file, each checked.

    Raises:
        InputError: the file is missing, has other columns or no line; or a line names a missing photo or a product outside `known`.
    """
    if not labels.is_file():
        raise InputError(f"--labels must name a CSV file with path and product_id, got {labels}, which does not exist")
    try:
        with labels.open(newline="", encoding="utf-8-sig") as source:
            reader = csv.DictReader(source)
            columns = reader.fieldnames or []
            lines = [LabelledPhoto(reader.line_num, (row.get("path") or "").strip(), (row.get("product_id") or "").strip()) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{labels} must be a CSV file in UTF-8, got {error}") from error
    if not {"path", "product_id"} <= set(columns):
        raise InputError(f"{labels} must have the columns path and product_id, got {', '.join(columns) or 'none'}")
    if not lines:
        raise InputError(f"{labels} must hold at least one photo, got only a header")
    for one in lines:
        if one.product_id not in known:
            raise InputError(
                f"{labels} line {one.line}: product_id must be in the release's catalogue, got {one.product_id!r}; correct it or ingest the product"
            )
        if not one.path or not (photos / one.path).is_file():
            raise InputError(f"{labels} line {one.line}: path must name a photo in {photos}, got {one.path!r}")
    return lines


def _right_families(answers: Sequence[Recognition], asked: Sequence[LabelledPhoto], products: Sequence[ShownProduct]) -> float | None:
    """None where the release knows no families."""
    category_of = {product.product_id: product.category for product in products}
    said = [answer.family_row for answer in answers]
    if max(said, default=-1) < 0:
        return None
    right = [row >= 0 and products[row].category == category_of[one.product_id] for row, one in zip(said, asked, strict=True)]
    return sum(right) / len(right)


def _pictures(bundle: Path, products: Sequence[ShownProduct]) -> Picture:
    """The release's own picture of each product."""
    files = {product.product_id: bundle / media_name(row) for row, product in enumerate(products)}
    return lambda product_id: files[product_id].read_bytes() if files[product_id].exists() else None


def _recognize(home: Home, bundle: Path, photos: Path, labels: Path, asked: Sequence[LabelledPhoto]) -> tuple[list[Recognition], float]:
    """An answer a photo, and mean milliseconds; one photo at a time, as frames arrive."""
    import numpy as np

    from guidelens.data.images.decoding import INPUT_SIZE_PX, decode_image
    from guidelens.encoders.backbones import load_image_backbone
    from guidelens.evaluation.recognition import TOP
    from guidelens.inference.guide_files import encoders_of

    encoder = load_image_backbone(encoders_of(bundle).image, home.root / "cache")
    recognizer = ReleasedRecognizer.load(bundle, encoder)
    recognizer.see(np.zeros((1, INPUT_SIZE_PX, INPUT_SIZE_PX, 3), np.uint8), top=TOP)
    answers, seconds = [], 0.0
    for one in asked:
        data = (photos / one.path).read_bytes()
        start = time.perf_counter()
        try:
            pixels = decode_image(data)
        except UnreadableImageError as error:
            raise InputError(f"{labels} line {one.line}: {one.path} cannot be scored: {error}") from error
        answers += recognizer.see(pixels[None], top=TOP).recognized or []
        seconds += time.perf_counter() - start
    return answers, 1000 * seconds / len(asked)


@click.command(name="recognizer")
@click.option("--release", required=True, metavar="ALIAS|VERSION", help="Which release: champion, challenger, previous or a version number.")
@click.option("--photos", required=True, type=click.Path(path_type=Path), help="Folder of the photos.")
@click.option("--labels", required=True, type=click.Path(path_type=Path), help="CSV with path (relative to --photos) and product_id.")
@click.option("--json", "out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Where the figures go; predictions.csv is put beside it.")
@home_option
def recognizer_command(release: str, photos: Path, labels: Path, out: Path, home: Home) -> None:
    """Measure a released recognizer on labelled photos that no training has seen."""
    result = run(home, release, photos, labels, out)
    emit(result.model_dump(mode="json", exclude={"report"}))


if __name__ == "__main__":
    run_command(recognizer_command)
