"""The tasks that a config adds beside the three, on what test slates showed, each beside the training part's mean.

Knows nothing of how they are learned.
"""

# Letters: R = requests, K = places of a slate, M = products shown, V = values of a visit.

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from guidelens.config import ExtraTask
from guidelens.data.examples import VISIT_VALUES, Examples, visit_medians
from guidelens.evaluation.bootstrap import Draws
from guidelens.evaluation.calibration import calibration
from guidelens.evaluation.clicks import log_losses
from guidelens.evaluation.metric_rows import MetricRows
from guidelens.evaluation.ranking import auc
from guidelens.evaluation.report_why import ExtraTaskReport
from guidelens.inference.scorer import GuideScorer

Floats = NDArray[np.float64]


def measure_extra_tasks(scorer: GuideScorer, tasks: Mapping[str, ExtraTask], train: Examples, test: Examples, draws: Draws) -> dict[str, ExtraTaskReport]:
    """By name, those tasks that were in; none where the test part showed nothing."""
    medians_V, shown_RK = visit_medians(train), test.slate_rows >= 0
    if not shown_RK.any() or not (train.slate_rows >= 0).any():
        return {}
    scores, whose_M, found = scorer.extra_scores(test), _whose(test), {}
    for name, task in _in(tasks).items():
        said_M, label_M = scores[name][shown_RK].astype(np.float64), _labels(task, test, medians_V)
        constant_M = np.full(len(label_M), float(_labels(task, train, medians_V).mean()))
        losses_M, alone_M = _losses(task, said_M, label_M), _losses(task, constant_M, label_M)
        found[name] = ExtraTaskReport(
            label=task.label,
            kind=task.loss,
            shown=len(label_M),
            mean=float(label_M.mean()),
            loss=draws.over(losses_M, whose_M),
            constant_loss=float(alone_M.mean()),
            gain=draws.gain(alone_M, losses_M, whose_M),
            auc=auc(said_M, label_M > 0) if task.loss == "binary" else None,
            calibration=calibration(said_M, label_M),
        )
    return found


def extra_rows(scorer: GuideScorer, tasks: Mapping[str, ExtraTask], train: Examples, part: Examples) -> dict[str, MetricRows]:
    """The losses of each task that was in, one a product shown, by the metric's name."""
    medians_V, shown_RK = visit_medians(train), part.slate_rows >= 0
    if not shown_RK.any():
        return {}
    scores, named = scorer.extra_scores(part), {"binary": "log-loss", "mse": "squared error"}
    return {
        f"{name} {named[task.loss]}": MetricRows(
            False, _losses(task, scores[name][shown_RK].astype(np.float64), _labels(task, part, medians_V)), _whose(part).astype(str)
        )
        for name, task in _in(tasks).items()
    }


def _in(tasks: Mapping[str, ExtraTask]) -> dict[str, ExtraTask]:
    return {name: task for name, task in tasks.items() if task.weight > 0}


def _labels(task: ExtraTask, part: Examples, medians_V: NDArray[np.float32]) -> Floats:
    """(M,) the targets that `config.ExtraTask` states."""
    number = VISIT_VALUES.index(task.label)
    value_M = part.visit_values[part.slate_rows >= 0][:, number].astype(np.float64)
    return (value_M > 0).astype(np.float64) if task.loss == "binary" else -np.expm1(-value_M / medians_V[number])


def _losses(task: ExtraTask, said_M: Floats, label_M: Floats) -> Floats:
    return log_losses(said_M, label_M > 0) if task.loss == "binary" else np.asarray((said_M - label_M) ** 2)


def _whose(part: Examples) -> NDArray[np.object_]:
    return np.repeat(part.shopper_key, (part.slate_rows >= 0).sum(axis=1))
