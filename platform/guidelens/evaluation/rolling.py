"""Does it stay good? Windows of time one after another, each tested with what was trained on all before it (rolling-origin evaluation,
Tashman, Int. J. Forecasting 2000). Knows nothing of how a window is trained.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from guidelens.config import TrainConfig
from guidelens.errors import ConfigError
from guidelens.evaluation.bootstrap import Draws, Interval
from guidelens.evaluation.metric_rows import MetricRows
from guidelens.evaluation.report import SplitDates
from guidelens.schemas.base import Frozen

MIN_TRAINING_SHARE = 0.1
MODEL = "model"


class Window(Frozen):
    """One fold: the first `until_row` rows of the log by time; the newest `test_share` of them is its test part."""

    until_row: int
    test_share: float
    validation_share: float


class FoldReport(Frozen):
    """metrics: by scorer (the model, a baseline) and metric, on the fold's test part."""

    dates: SplitDates
    metrics: dict[str, dict[str, Interval]]


class RollingReport(Frozen):
    """overall: rows of all folds together, shoppers drawn whole. gain_over: paired difference of the model to each baseline, by metric.
    spread: standard deviation over folds of the model's metrics."""

    source: str
    seed: int
    preset: str
    folds: tuple[FoldReport, ...]
    overall: dict[str, dict[str, Interval]]
    gain_over: dict[str, dict[str, Interval]]
    spread: dict[str, float]


def windows(num_rows: int, folds: int, config: TrainConfig) -> tuple[Window, ...]:
    """Folds whose test parts are the last `folds` stretches of `train.test_share` of the log each; training grows from fold to fold.

    Raises:
        ConfigError: the first fold would be left with less than a tenth of the log to train on.
    """
    left = 1 - folds * config.test_share - config.validation_share
    if left < MIN_TRAINING_SHARE:
        most = int((1 - config.validation_share - MIN_TRAINING_SHARE) / config.test_share)
        raise ConfigError(
            f"--folds times train.test_share ({config.test_share}) must leave the first fold a tenth of the log to train on, got {folds} folds; "
            f"at most {most}, or a smaller train.test_share"
        )
    ends = [1 - (folds - 1 - fold) * config.test_share for fold in range(folds)]
    return tuple(Window(until_row=round(num_rows * end), test_share=config.test_share / end, validation_share=config.validation_share / end) for end in ends)


def rolled(
    source: str, seed: int, preset: str, dates: Sequence[SplitDates], scored: Sequence[Mapping[str, Mapping[str, MetricRows]]], draws: Draws
) -> RollingReport:
    """The report of folds. scored: of each fold, by scorer and metric; a metric that a fold lacks is missing there."""
    folds = tuple(
        FoldReport(dates=when, metrics={scorer: {name: rows.interval(draws) for name, rows in of.items()} for scorer, of in fold.items()})
        for when, fold in zip(dates, scored, strict=True)
    )
    together = {scorer: _joined([fold[scorer] for fold in scored if scorer in fold]) for scorer in dict.fromkeys(name for fold in scored for name in fold)}
    ours = together.get(MODEL, {})
    by_fold = {name: [fold.metrics[MODEL][name].value for fold in folds if name in fold.metrics.get(MODEL, {})] for name in ours}
    return RollingReport(
        source=source,
        seed=seed,
        preset=preset,
        folds=folds,
        overall={scorer: {name: rows.interval(draws) for name, rows in of.items()} for scorer, of in together.items()},
        gain_over={
            scorer: {name: draws.gain(ours[name].value_R, rows.value_R, rows.shopper_R) for name, rows in of.items() if _pairs(ours, name, rows)}
            for scorer, of in together.items()
            if scorer != MODEL
        },
        spread={name: float(np.std(values, ddof=1)) for name, values in by_fold.items() if len(values) > 1},
    )


def _pairs(ours: Mapping[str, MetricRows], name: str, theirs: MetricRows) -> bool:
    return name in ours and len(ours[name].value_R) == len(theirs.value_R)


def _joined(folds: Sequence[Mapping[str, MetricRows]]) -> dict[str, MetricRows]:
    """Rows of all folds one after another, by metric."""
    found = {}
    for name in dict.fromkeys(name for fold in folds for name in fold):
        parts = [fold[name] for fold in folds if name in fold]
        values, shoppers = np.concatenate([part.value_R for part in parts]), np.concatenate([part.shopper_R for part in parts])
        found[name] = parts[0]._replace(value_R=values, shopper_R=shoppers)
    return found
