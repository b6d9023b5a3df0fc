"""How well photos are recognised: shares of right answers, what is confused with what, and one line a photo.

A photo counts by its first product whether or not it was also called "not in the catalogue": top-1 and top-5 say how well products
are told apart, `kept` says how many photos of the catalogue would have been answered at all. Knows nothing of encoders or files.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from guidelens.errors import ShapeError
from guidelens.evaluation.bootstrap import mean_interval
from guidelens.evaluation.report import RecognitionReport, confusion_matrix, most_confused
from guidelens.models.recognizer import Recognition
from guidelens.schemas.base import Frozen

TOP = 5
MAX_LABELS = 48
_NUM_BOOTSTRAP = 200


class ShownProduct(Frozen):
    """What the report needs of a product. `category`: levels joined by `/`; the whole of it is the product's coarse label."""

    product_id: str
    title: str
    category: str


class Prediction(Frozen):
    """One scored photo. `confidence` belongs to `predicted`, the first of `top5`."""

    path: str
    product_id: str
    predicted: str
    confidence: float
    in_catalogue: bool
    top5: tuple[str, ...]


def predictions(answers: Sequence[Recognition], paths: Sequence[str], truth: Sequence[str], products: Sequence[ShownProduct]) -> tuple[Prediction, ...]:
    """Answers with the names they stand for.

    Args:
        truth: product_id of each photo.
        products: in the order of product rows.

    Raises:
        ShapeError: answers, paths and truth differ in length.
    """
    if not len(answers) == len(paths) == len(truth):
        raise ShapeError(f"answers, paths and truth must have one length, got {len(answers)}, {len(paths)}, {len(truth)}")
    named = [tuple(products[row].product_id for row in answer.product_rows[:TOP]) for answer in answers]
    return tuple(
        Prediction(path=path, product_id=true, predicted=top[0], confidence=float(answer.confidences[0]), in_catalogue=answer.in_catalogue, top5=top)
        for path, true, top, answer in zip(paths, truth, named, answers, strict=True)
    )


def measure_predictions(scored: Sequence[Prediction], products: Sequence[ShownProduct], protocol: str, seed: int = 0) -> RecognitionReport:
    """Top-1 with its interval, top-5, the share whose category is right, the share kept, and the confusions.

    The confusion matrix is by whole category where these are few enough to draw, else by its first level, else left out.

    Raises:
        ShapeError: nothing was scored.
    """
    if not scored:
        raise ShapeError("recognition needs at least one scored photo, got none")
    kept = float(np.mean([one.in_catalogue for one in scored]))
    return measure_answers([one.product_id for one in scored], [one.top5 for one in scored], products, protocol, seed).model_copy(update={"kept": kept})


def measure_answers(
    truth: Sequence[str], answers: Sequence[Sequence[str]], products: Sequence[ShownProduct], protocol: str, seed: int = 0
) -> RecognitionReport:
    """The same from product ids alone, best first; says nothing of what was kept."""
    by_id = {product.product_id: product for product in products}
    shown, answered = [by_id[name] for name in truth], [by_id[top[0]] for top in answers]
    right = np.array([top[0] == name for name, top in zip(truth, answers, strict=True)], dtype=np.float64)
    interval = mean_interval(right, num_bootstrap=_NUM_BOOTSTRAP, seed=seed)
    labels, matrix = _drawable([product.category for product in shown], [product.category for product in answered])
    return RecognitionReport(
        top1=interval.value,
        top5=float(np.mean([name in top for name, top in zip(truth, answers, strict=True)])),
        photos=len(truth),
        protocol=protocol,
        top1_interval=interval,
        coarse_top1=float(np.mean([a.category == b.category for a, b in zip(shown, answered, strict=True)])),
        labels=labels,
        matrix=matrix,
        confusions=most_confused([product.title for product in shown], [product.title for product in answered]),
    )


def _drawable(shown: list[str], answered: list[str]) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    for levels in (None, 1):
        coarse = [["/".join(name.split("/")[:levels]) for name in names] for names in (shown, answered)]
        labels, counts = confusion_matrix(coarse[0], coarse[1])
        if 1 < len(labels) <= MAX_LABELS:
            return labels, counts
    return (), ()


def write_predictions(scored: Sequence[Prediction], path: Path) -> None:
    """predictions.csv: one line a scored photo; the five products joined by `;`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as sink:
        lines = csv.writer(sink, lineterminator="\n")
        lines.writerow(["path", "product_id", "predicted", "confidence", "in_catalogue", "top5"])
        for one in scored:
            lines.writerow([one.path, one.product_id, one.predicted, f"{one.confidence:.6f}", str(one.in_catalogue).lower(), ";".join(one.top5)])
