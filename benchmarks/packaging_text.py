"""What do the texts on packages add where the recognizer is unsure, and what does reading cost? grocery-store's train part, two folds of visits.

    python -m benchmarks.packaging_text --data FOLDER [--seed S] [--out DIR]

The first two of four folds of look-alike photos (models/recognizer_fit.py) are asked about by a recognizer fitted on the other three each. Photos that it is
unsure of are read, and answered without and with what was read; the weights of words were fitted on the last two folds of
seed 7, which overlap a little with what seed 1000 asks about (ADR 0207). Intervals draw products.
"""

# Letters: U = photos the recognizer is unsure of.

import time
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks._results import keep, machine, today
from guidelens.config import RecognizerConfig
from guidelens.data.adapters import grocery_store
from guidelens.data.images.decoding import decode_image
from guidelens.data.images.packaging_text import TextReader
from guidelens.encoders.image import load_image_encoder
from guidelens.evaluation.bootstrap import Interval, mean_interval, paired_difference
from guidelens.inference.packaging_text import PackageWords, TextWeights, with_text
from guidelens.models.backgrounds import background_embeddings
from guidelens.models.recognizer_fit import Backgrounds, fit_recognizer, folds
from guidelens.models.turned import is_unsure
from guidelens.schemas.base import Frozen
from pipelines.entry import progress, run_command

RESULTS = Path(__file__).parent / "results"
NUM_FOLDS_ASKED = 2
_NUM_BOOTSTRAP = 1000


class Read(Frozen):
    photos: int
    named: float
    without: Interval
    with_text: Interval
    gain: Interval


class TextStudy(Frozen):
    """named: share of photos on which a word of a product was read. reading_ms: CPU time of one photo, median and 95th percentile."""

    machine: str
    date: str
    command: str
    seed: int
    asked: int
    reading_ms: tuple[float, float]
    of: dict[str, Read]


def studied(data: Path, seed: int, command: str) -> TextStudy:
    source, encoder, reader = grocery_store.load(data), load_image_encoder(), TextReader()
    ids = [product.product_id for product in source.products]
    rows = np.array([ids.index(label.product_id) for label in source.labels])
    photos = [(source.photos / label.path).read_bytes() for label in source.labels]
    embeddings = np.concatenate([encoder.embed(decode_image(photo)[None]) for photo in photos])
    words = PackageWords(
        [[product.brand] if product.brand else [] for product in source.products],
        [[title for title in (product.title, product.title_zh) if title] for product in source.products],
    )
    fold, drawn = folds(embeddings, rows, seed), Backgrounds(*background_embeddings(encoder, seed))
    of, without, read, named, spent_ms = [], [], [], [], []
    for number in range(NUM_FOLDS_ASKED):
        fit = fold != number
        recognizer = fit_recognizer(embeddings[fit], rows[fit], np.zeros(int(fit.sum()), bool), len(ids), RecognizerConfig(), seed, drawn)
        asked = np.flatnonzero(~fit)
        for place, look in zip(asked, recognizer.recognize(embeddings[asked]), strict=True):
            if not is_unsure(look):
                continue
            begun = time.thread_time()
            features = words.features([line.text for line in reader.read(photos[place])])
            spent_ms.append(1000 * (time.thread_time() - begun))
            best = with_text(look.product_rows, look.confidences, features, TextWeights())[0] if features.any() else look.product_rows
            of.append(rows[place])
            named.append(features.any())
            without.append(float(look.product_rows[0] == rows[place]))
            read.append(float(best[0] == rows[place]))
        progress(f"packaging text: fold {number}: {len(of)} photos read")
    of_U = np.array(of)
    packaged_U = np.array([source.products[row].category.startswith("Packages/") for row in of])
    kinds = {"packages": packaged_U, "fruit and vegetables": ~packaged_U, "all": np.ones(len(of), bool)}
    columns = tuple(np.array(values, float) for values in (named, without, read))
    times = (float(np.percentile(spent_ms, 50)), float(np.percentile(spent_ms, 95)))
    found = {kind: _read(*(column[kept_U] for column in columns), of_U[kept_U]) for kind, kept_U in kinds.items()}
    asked_in_all = int((fold < NUM_FOLDS_ASKED).sum())
    return TextStudy(machine=machine(), date=today(), command=command, seed=seed, asked=asked_in_all, reading_ms=times, of=found)


def _read(named: NDArray[np.float64], without: NDArray[np.float64], read: NDArray[np.float64], of: NDArray[np.int64]) -> Read:
    both = [mean_interval(each, num_bootstrap=_NUM_BOOTSTRAP, seed=0, clusters_R=of) for each in (without, read)]
    gain = paired_difference(read, without, num_bootstrap=_NUM_BOOTSTRAP, seed=0, clusters_R=of)
    return Read(photos=len(of), named=float(named.mean()), without=both[0], with_text=both[1], gain=gain)


def as_markdown(study: TextStudy) -> str:
    lines = [
        "# Texts on packages",
        "",
        f"`{study.command}`, {study.date}, {study.machine}. grocery-store's train part: {study.asked} photos of visits that no fit saw; read are those of which the recognizer (closed form,",
        f"frozen encoder) is unsure. Reading takes {study.reading_ms[0]:.0f} ms of CPU in the median, {study.reading_ms[1]:.0f} ms at the 95th percentile. 95 % intervals over products.",
        "",
        "| unsure photos of | number | a product's word was read | top-1 without | with texts | gain |",
        "|---|---|---|---|---|---|",
    ]
    for kind, each in study.of.items():
        gain = f"{each.gain.value:+.3f} ({each.gain.low:+.3f} to {each.gain.high:+.3f})"
        lines.append(f"| {kind} | {each.photos} | {each.named:.2f} | {each.without.value:.3f} | {each.with_text.value:.3f} | {gain} |")
    return "\n".join([*lines, ""])


@click.command(help=__doc__)
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="GroceryStoreDataset.")
@click.option("--seed", type=int, default=1000, show_default=True, help="Below 1000 for development.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=RESULTS, show_default=True)
def command(data: Path, seed: int, out: Path) -> None:
    study = studied(data, seed, f"python -m benchmarks.packaging_text --data FOLDER --seed {seed}")
    keep(study, as_markdown(study), out, "packaging_text")


if __name__ == "__main__":
    run_command(command)
