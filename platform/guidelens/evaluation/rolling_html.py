"""The page of a rolling evaluation: each metric over the folds with its intervals, the model beside the baselines."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from guidelens.evaluation.bootstrap import Interval
from guidelens.evaluation.pages import filled
from guidelens.evaluation.plots import MANY, OURS, as_svg
from guidelens.evaluation.rolling import MODEL, RollingReport


def render(report: RollingReport) -> str:
    """A self-contained page: no script, no font, no picture from elsewhere."""
    names = list(report.overall[MODEL])
    plots = [(name, Markup(_over_folds(name, _by_scorer(report, name)))) for name in names]
    return filled("rolling.html.j2", report=report, plots=plots, ours=report.overall[MODEL])


def _by_scorer(report: RollingReport, metric: str) -> dict[str, list[tuple[int, Interval]]]:
    """(fold, interval) of each scorer that has the metric."""
    found: dict[str, list[tuple[int, Interval]]] = {}
    for number_of, fold in enumerate(report.folds, 1):
        for scorer, metrics in fold.metrics.items():
            if metric in metrics:
                found.setdefault(scorer, []).append((number_of, metrics[metric]))
    return found


def _over_folds(metric: str, by_scorer: Mapping[str, Sequence[tuple[int, Interval]]]) -> str:
    def draw(figure: Any) -> None:
        axis = figure.subplots()
        for place, (scorer, points) in enumerate(by_scorer.items()):
            at = [fold + 0.08 * (place - (len(by_scorer) - 1) / 2) for fold, _ in points]
            values = [one.value for _, one in points]
            reach = [[max(0.0, one.value - one.low) for _, one in points], [max(0.0, one.high - one.value) for _, one in points]]
            colour = OURS if scorer == MODEL else MANY[1 + (place - 1) % (len(MANY) - 1)]
            axis.errorbar(at, values, yerr=reach, color=colour, marker="o", markersize=4, linewidth=1.4, capsize=2.5, label=scorer.replace("_", " "))
        axis.set_xlabel("fold")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set_ylabel(metric)
        if len(by_scorer) > 1:
            axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))

    return as_svg(f"{metric} over folds", draw, (5.4 if len(by_scorer) > 1 else 4.2, 2.8))
