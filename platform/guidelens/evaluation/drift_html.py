"""The drift report as one page: the verdict, a plot of each drifted feature, and all features in a table."""

from typing import Any

from markupsafe import Markup

from guidelens.evaluation.drift import DriftReport, FeatureDrift
from guidelens.evaluation.pages import filled
from guidelens.evaluation.plots import LOW, OTHER, as_svg

_MIN_PLOTS, _MAX_PLOTS = 6, 24


def render(report: DriftReport) -> str:
    """A self-contained page: no script, no font, no picture from elsewhere. Plots all drifted features, and a few of the nearest to it."""
    num_drifted = sum(one.drifted for one in report.features)
    shown = report.features[: min(max(_MIN_PLOTS, num_drifted), _MAX_PLOTS)]
    plots = [(one, Markup(_plot(one))) for one in shown]
    return filled("drift.html.j2", report=report, num_drifted=num_drifted, plots=plots)


def _plot(one: FeatureDrift) -> str:
    """Shares of shoppers in each bin or category, of both samples beside each other."""

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        places = range(len(one.reference_shares))
        axis.bar([place - 0.2 for place in places], one.reference_shares, width=0.4, color=OTHER, label="reference")
        axis.bar([place + 0.2 for place in places], one.current_shares, width=0.4, color=LOW, label="current")
        labels = one.names or [f"{edge:.3g}" for edge in one.edges[:-1]]
        axis.set_xticks(list(places), labels, rotation=60, fontsize=7)
        axis.set_ylabel("share of shoppers")
        axis.set_title(one.feature)
        axis.legend(fontsize=8)

    return as_svg(one.feature, draw, (4.2, 2.6))
