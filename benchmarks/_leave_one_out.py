"""Leave-one-out: a shopper's last item is test, the one before validation, all before them training. No script of its own.

All items are ranked, those the shopper has taken are left out, ties fall by one fixed draw. The validation item is read as the newest event
of the history when the test item is ranked; it is never a training target nor counted.
"""

# Letters: R = shoppers, N = items, F = attributes, S = seeds.

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from guidelens.errors import InputError
from guidelens.evaluation.bootstrap import LEVEL, Interval
from guidelens.evaluation.ranking import catalogue_ranks
from guidelens.models.baselines.recommender import Recommender
from guidelens.models.histories import Histories
from guidelens.schemas.ids import sub_seed

CUTS = (5, 10, 20)
METRICS = tuple(f"{name}@{cut}" for name in ("hr", "ndcg") for cut in CUTS)
NUM_BOOTSTRAP = 1000
_BLOCK_ROWS = 512


@dataclass(frozen=True)
class LeaveOneOut:
    """Histories and what came next. Targets are rows of the catalogue, one a shopper."""

    train: Histories
    val_targets: Histories
    test_histories: Histories
    test_targets: Histories
    attributes_NF: csr_matrix


def read(data: Path, attributes: Path) -> LeaveOneOut:
    """The S3-Rec format: lines of `shopper item item …` in time order; a JSON object of attribute numbers by item.

    Raises:
        InputError: a file cannot be read, a line is shorter than a shopper and three items, or attributes are not lists of numbers.
    """
    sequences = _sequences(data)
    try:
        listed = {int(item): [int(one) for one in found] for item, found in json.loads(attributes.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"--attributes must be a JSON object of lists of numbers by item, {{}} where none are known, got {attributes}: {error}") from error
    items = sorted({item for sequence in sequences for item in sequence})
    row_of = {item: row for row, item in enumerate(items)}
    taken = Histories.of_lists([[row_of[item] for item in sequence] for sequence in sequences], len(items))
    return LeaveOneOut(
        train=taken.without_newest(2),
        val_targets=taken.of_ages(taken.ages == 1),
        test_histories=taken.without_newest(1),
        test_targets=taken.of_ages(taken.ages == 0),
        attributes_NF=_attribute_matrix([listed.get(item, []) for item in items]),
    )


def _sequences(data: Path) -> list[list[int]]:
    try:
        found = [[int(part) for part in line.split()][1:] for line in data.read_text().splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise InputError(f"--data must hold lines of a shopper's number and item numbers, got {data}: {error}") from error
    short = next((number for number, sequence in enumerate(found, start=1) if len(sequence) < 3), None)
    if short is not None or not found:
        raise InputError(f"--data must hold at least three items a shopper, got {data} with line {short}; leave shorter histories out")
    return found


def _attribute_matrix(listed: list[list[int]]) -> csr_matrix:
    rows = np.repeat(np.arange(len(listed)), [len(found) for found in listed])
    names, columns = np.unique([one for found in listed for one in found], return_inverse=True)
    matrix = csr_matrix((np.ones(len(rows), dtype=np.float32), (rows, columns)), shape=(len(listed), max(1, len(names))))
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix


def ranks(recommender: Recommender, histories: Histories, targets: Histories) -> NDArray[np.int64]:
    """(R,) 0-based rank of each shopper's target among all items not taken before."""
    found = np.empty(len(histories), dtype=np.int64)
    for start in range(0, len(histories), _BLOCK_ROWS):
        rows = np.arange(start, min(start + _BLOCK_ROWS, len(histories)))
        asked, wanted_R1 = histories.take(rows), targets.take(rows).products[:, None]
        scores_RN = np.array(recommender.scores(asked), dtype=np.float32)
        wanted_scores_R1 = np.take_along_axis(scores_RN, wanted_R1, axis=1)
        scores_RN[asked.rows, asked.products] = -np.inf
        np.put_along_axis(scores_RN, wanted_R1, wanted_scores_R1, axis=1)
        found[rows] = catalogue_ranks(scores_RN, wanted_R1)[:, 0]
    return found


def metric_rows(ranks_R: NDArray[np.integer]) -> dict[str, NDArray[np.float64]]:
    """(R,) of each of METRICS."""
    found = {f"hr@{cut}": (ranks_R < cut).astype(np.float64) for cut in CUTS}
    return found | {f"ndcg@{cut}": np.where(ranks_R < cut, 1 / np.log2(ranks_R + 2.0), 0.0) for cut in CUTS}


def interval(values_SR: NDArray[np.float64]) -> Interval:
    """The mean over seeds and shoppers; both are drawn with replacement."""
    num_seeds, num_shoppers = values_SR.shape
    rng = np.random.Generator(np.random.Philox(key=sub_seed(0, "leave one out")))
    means = np.empty(NUM_BOOTSTRAP)
    for draw in range(NUM_BOOTSTRAP):
        mean_R = values_SR[rng.integers(0, num_seeds, num_seeds)].mean(axis=0)
        means[draw] = mean_R[rng.integers(0, num_shoppers, num_shoppers)].mean()
    low, high = (float(found) for found in np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    return Interval(value=float(values_SR.mean()), low=low, high=high, n=values_SR.size, clusters=num_shoppers)


def intervals(ranks_SR: NDArray[np.int64]) -> dict[str, Interval]:
    """Each of METRICS over seeds and shoppers."""
    rows = [metric_rows(ranks_R) for ranks_R in ranks_SR]
    return {metric: interval(np.stack([found[metric] for found in rows])) for metric in METRICS}


def gains(ours_SR: NDArray[np.int64], theirs_SR: NDArray[np.int64]) -> dict[str, Interval]:
    """Ours minus theirs, on the same seeds and shoppers."""
    pairs = [(metric_rows(ours), metric_rows(theirs)) for ours, theirs in zip(ours_SR, theirs_SR, strict=True)]
    return {metric: interval(np.stack([ours[metric] - theirs[metric] for ours, theirs in pairs])) for metric in METRICS}


def as_lines(found: Mapping[str, Mapping[str, Interval]]) -> list[str]:
    """A Markdown table: a row a recommender, a column a metric, with intervals."""
    lines = ["| | " + " | ".join(metric.upper() for metric in METRICS) + " |", "|---" * (len(METRICS) + 1) + "|"]
    for name, metrics in found.items():
        cells = [f"{metrics[metric].value:.4f} [{metrics[metric].low:.4f}, {metrics[metric].high:.4f}]" for metric in METRICS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines
