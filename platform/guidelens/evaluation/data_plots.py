"""Plots of what a lake holds, in the report's look. Knows nothing of the page around them."""

from collections.abc import Sequence
from typing import Any

from guidelens.evaluation.plots import OURS, SERIES, as_svg, shortened


def daily(name: str, dates: Sequence[str], series: dict[str, Sequence[int]]) -> str:
    """Stacked bars, one a day; the commonest series at the bottom, those beyond the colours together."""

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        shown = list(series.items())[: len(SERIES) - 1]
        rest = [sum(values) for values in zip(*(values for _, values in list(series.items())[len(SERIES) - 1 :]), strict=True)]
        floor = [0] * len(dates)
        for number, (label, values) in enumerate([*shown, *([("other", rest)] if rest else [])]):
            axis.bar(range(len(dates)), values, bottom=floor, color=SERIES[number], width=0.85, label=label)
            floor = [low + value for low, value in zip(floor, values, strict=True)]
        ticks = range(0, len(dates), max(1, len(dates) // 6))
        axis.set_xticks(ticks, [dates[tick] for tick in ticks], rotation=30, ha="right", fontsize=8)
        axis.grid(False, axis="x")
        axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        axis.set_title(name)

    return as_svg(name, draw, (6.8, 2.9))


def counts(name: str, values: dict[str, int], unit: str) -> str:
    """Horizontal bars with their counts where they are few, plain columns where they are many."""

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        labels = list(values)
        axis.set_title(name)
        if len(labels) > 16:
            axis.bar(range(len(labels)), list(values.values()), color=OURS, width=0.8)
            ticks = range(0, len(labels), max(1, len(labels) // 8))
            axis.set_xticks(ticks, [labels[tick] for tick in ticks])
            axis.grid(False, axis="x")
            return
        axis.barh(range(len(labels)), list(values.values()), color=OURS, height=0.62)
        for place, count in enumerate(values.values()):
            axis.annotate(f"{count:,}", (count, place), (5, 0), textcoords="offset points", va="center", fontsize=8.5)
        axis.set_yticks(range(len(labels)), [shortened(label) for label in labels])
        axis.invert_yaxis()
        axis.grid(False, axis="y")
        axis.margins(x=0.14)
        axis.set_xlabel(unit)

    return as_svg(name, draw, (4.4, 2.9 if len(values) > 16 else 0.3 * len(values) + 0.9))


def shares(name: str, rows: dict[str, dict[str, float]]) -> str:
    """A cell a row and column, darker for a larger share; columns that no row has are left out."""

    def draw(figure: Any) -> None:
        from matplotlib.colors import LinearSegmentedColormap

        axis = figure.subplots()
        columns = sorted({column for row in rows.values() for column in row})
        scale = LinearSegmentedColormap.from_list("ours", [(0.23, 0.51, 0.77, 0.0), (0.23, 0.51, 0.77, 1.0)])
        axis.imshow([[row.get(column, 0.0) for column in columns] for row in rows.values()], cmap=scale, vmin=0, vmax=1, aspect="auto")
        axis.grid(False)
        axis.set_title(name)
        axis.set_xticks(range(len(columns)), columns, rotation=40, ha="right", fontsize=7.5)
        axis.set_yticks(range(len(rows)), list(rows), fontsize=8)
        for place, row in enumerate(rows.values()):
            for number, column in enumerate(columns):
                if row.get(column):
                    axis.text(number, place, f"{100 * row[column]:.0f}", ha="center", va="center", fontsize=6.5)

    return as_svg(name, draw, (9.4, 0.27 * len(rows) + 1.5))
