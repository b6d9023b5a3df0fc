"""The report's plots as inline SVG that follows the page's light or dark colours. Knows nothing of HTML around them."""

import io
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from guidelens.evaluation.bootstrap import Interval
from guidelens.evaluation.calibration import Calibration
from guidelens.evaluation.report import Confusion, Curve

_INK, _LINE = "#010203", "#040506"
OURS, OTHER, LOW, HIGH = "#3b82c4", "#8a929c", "#c98a3a", "#4f9d69"
SERIES = (OURS, LOW, HIGH, "#9a6fc4", "#c65b5b", OTHER)
MANY = (*SERIES, "#2f9e9e", "#b0894f")
"""Colours where as many as eight lie in one plot."""
_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.edgecolor": _LINE,
    "grid.color": _LINE,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
}


def as_svg(name: str, draw: Callable[[Any], None], size: tuple[float, float]) -> str:
    """Draws on a fresh Agg figure; `name` salts the ids, so that many plots live in one page. The same input gives the same text."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        sink = io.StringIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from font")  # text stays text: the reader's browser has the fonts
            figure.savefig(sink, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = sink.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = text.replace(_INK, "currentColor").replace(_LINE, "var(--line)")
    return text.replace("<svg ", f'<svg class="plot" role="img" aria-label="{name}" ', 1)


def losses(curves: Sequence[Curve]) -> str:
    """One panel a task (the name's last part), one line a split or model (what stands before it)."""
    tasks = sorted({_task(curve) for curve in curves})

    def draw(figure: Any) -> None:
        axes = figure.subplots(1, len(tasks), squeeze=False)[0]
        for axis, task in zip(axes, tasks, strict=True):
            for number, curve in enumerate(curve for curve in curves if _task(curve) == task):
                axis.plot(curve.steps, curve.values, color=SERIES[number % len(SERIES)], marker="o", markersize=3, linewidth=1.6, label=_split(curve))
            axis.set_title(task)
            axis.set_xlabel("epoch")
            axis.xaxis.get_major_locator().set_params(integer=True)
            axis.legend(fontsize=8)

    return as_svg("losses", draw, (2.9 * len(tasks) + 0.3, 2.5))


def _task(curve: Curve) -> str:
    return curve.name.rpartition("/")[2].removeprefix("loss_").replace("_", " ")


def _split(curve: Curve) -> str:
    return curve.name.rpartition("/")[0].replace("/", " ") or "loss"


def bars(name: str, rows: Sequence[tuple[str, Interval, str]], unit: str, zero: bool = True) -> str:
    """Horizontal bars with 95 % intervals, the first row on top; each row is (label, interval, colour)."""

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        for place, (_, interval, colour) in enumerate(rows):
            axis.barh(place, interval.value, color=colour, height=0.62)
            reach = [[max(0.0, interval.value - interval.low)], [max(0.0, interval.high - interval.value)]]
            axis.errorbar(interval.value, place, xerr=reach, color=_INK, linewidth=1.1, capsize=3)
            axis.annotate(_figure(interval.value), (max(interval.high, interval.value), place), (5, 0), textcoords="offset points", va="center", fontsize=8.5)
        axis.set_yticks(range(len(rows)), [label for label, _, _ in rows])
        axis.invert_yaxis()
        axis.grid(False, axis="y")
        axis.set_xlabel(unit)
        axis.margins(x=0.14)
        if zero:
            axis.axvline(0, color=_INK, linewidth=0.8)

    return as_svg(name, draw, (4.6, 0.42 * len(rows) + 0.75))


def forest(name: str, rows: Sequence[tuple[str, float, float, float, str]], unit: str, truth: float | None = 0.0) -> str:
    """Estimates as dots with their intervals, the first row on top; each row is (label, value, low, high, colour), and there is at least one.

    Intervals that would dwarf most others are cut at the edge, with an arrow. `truth`: a line to hold them against.
    """
    values = sorted(value for _, value, *_ in rows)
    reach = sorted(max(value - low, high - value) for _, value, low, high, _ in rows)
    centre = values[len(values) // 2] if truth is None else truth
    width = 1.15 * max(abs(values[0] - centre), abs(values[-1] - centre), reach[(3 * len(reach)) // 4]) or 1.0

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        for place, (_, value, low, high, colour) in enumerate(rows):
            ends = [max(low, centre - width), min(high, centre + width)]
            axis.plot(ends, [place, place], color=colour, linewidth=1.8, solid_capstyle="butt")
            axis.plot([value], [place], color=colour, marker="o", markersize=5)
            for end, cut, mark in ((ends[0], low < ends[0], "<"), (ends[1], high > ends[1], ">")):
                if cut:
                    axis.plot([end], [place], color=colour, marker=mark, markersize=4.5)
        if truth is not None:
            axis.axvline(truth, color=_INK, linewidth=0.8)
        axis.set_yticks(range(len(rows)), [label for label, *_ in rows])
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.grid(False, axis="y")
        axis.set_xlabel(unit)

    return as_svg(name, draw, (5.2, 0.32 * len(rows) + 0.8))


def _figure(value: float) -> str:
    digits = 3 if abs(value) < 1 else max(0, 2 - int(math.log10(abs(value))))
    return f"{value:.{digits}f}"


def reliability(name: str, found: Calibration, label: str) -> str:
    """Observed against predicted, a dot a bin of (nearly) equal mass, the diagonal as truth."""

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        top = max([b.predicted for b in found.bins] + [b.observed for b in found.bins]) * 1.08 or 1.0
        axis.plot([0, top], [0, top], color=_LINE, linewidth=1.4)
        axis.plot([b.predicted for b in found.bins], [b.observed for b in found.bins], color=OURS, marker="o", markersize=4.5, linewidth=1.4)
        axis.set_xlabel(f"predicted {label}")
        axis.set_ylabel("observed")
        axis.set_xlim(0, top)
        axis.set_ylim(0, top)
        axis.set_aspect("equal")

    return as_svg(name, draw, (3.1, 3.0))


def gains(points: Sequence[tuple[float, float]]) -> str:
    """Share of the clicks that lie in the best share of impressions, beside what chance would put there."""

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        axis.plot([0, 1], [0, 1], color=_LINE, linewidth=1.4)
        axis.plot([0.0, *(shown for shown, _ in points)], [0.0, *(captured for _, captured in points)], color=OURS, marker="o", markersize=3.5, linewidth=1.4)
        axis.set_xlabel("impressions, best first")
        axis.set_ylabel("clicks among them")
        axis.set_xlim(0, 1)
        axis.set_ylim(0, 1)
        axis.set_aspect("equal")

    return as_svg("cumulative gains", draw, (3.1, 3.0))


def matrix(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Row-normalized confusion, a cell with its count where there is room."""

    def draw(figure: Any) -> None:
        from matplotlib.colors import LinearSegmentedColormap

        axis = figure.subplots()
        shares = [[count / max(1, sum(row)) for count in row] for row in counts]
        scale = LinearSegmentedColormap.from_list("ours", [(0.23, 0.51, 0.77, 0.0), (0.23, 0.51, 0.77, 1.0)])
        axis.imshow(shares, cmap=scale, vmin=0, vmax=1, aspect="auto")
        axis.grid(False)
        axis.set_xticks(range(len(labels)), labels, rotation=40, ha="right", fontsize=7.5)
        axis.set_yticks(range(len(labels)), labels, fontsize=7.5)
        axis.set_xlabel("answered")
        axis.set_ylabel("shown")
        if len(labels) <= 12:
            for row, line in enumerate(counts):
                for column, count in enumerate(line):
                    if count:
                        axis.text(column, row, str(count), ha="center", va="center", fontsize=7.5)

    side = min(6.4, 1.6 + 0.24 * len(labels))
    return as_svg("confusion", draw, (side + 0.6, side))


def by_input(name: str, rows: Sequence[tuple[str, Mapping[str, float]]], inputs: Sequence[str], *, is_signed: bool) -> str:
    """A number for each input that a product's request had: a line a product, what is below 0 in the other colour."""
    top = max((abs(value) for _, found in rows for value in found.values()), default=0.0) or 1.0

    def draw(figure: Any) -> None:
        from matplotlib.colors import LinearSegmentedColormap

        axis = figure.subplots()
        scale = LinearSegmentedColormap.from_list("effects", [(0.79, 0.54, 0.23, 1.0), (0.5, 0.5, 0.5, 0.0), (0.23, 0.51, 0.77, 1.0)])
        axis.imshow([[found.get(one, math.nan) for one in inputs] for _, found in rows], cmap=scale, vmin=-top, vmax=top, aspect="auto")
        axis.grid(False)
        axis.set_xticks(range(len(inputs)), inputs, fontsize=8)
        axis.set_yticks(range(len(rows)), [shortened(title) for title, _ in rows], fontsize=8)
        for row, (_, found) in enumerate(rows):
            for column, one in enumerate(inputs):
                if one in found:
                    axis.text(column, row, f"{found[one]:{'+' if is_signed else ''}.2f}", ha="center", va="center", fontsize=8)

    return as_svg(name, draw, (1.9 + 0.72 * len(inputs), 0.34 * len(rows) + 0.6))


def confused_pairs(pairs: Sequence[Confusion]) -> str:
    """The most frequent wrong answers: what was shown, and what was answered."""

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        axis.barh(range(len(pairs)), [pair.count for pair in pairs], color=LOW, height=0.6)
        axis.set_yticks(range(len(pairs)), [f"{shortened(pair.truth)} → {shortened(pair.predicted)}" for pair in pairs], fontsize=8)
        axis.invert_yaxis()
        axis.grid(False, axis="y")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set_xlabel("photos")

    return as_svg("confused pairs", draw, (5.2, 0.28 * len(pairs) + 0.8))


def shortened(text: str) -> str:
    """At most 24 characters."""
    return text if len(text) <= 24 else text[:23] + "…"


def latency(stages_ms: dict[str, float]) -> str:
    """Median milliseconds of each stage of a request."""

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        names = list(stages_ms)
        axis.barh(range(len(names)), [stages_ms[name] for name in names], color=[OTHER if name == "total" else OURS for name in names], height=0.6)
        for place, name in enumerate(names):
            axis.annotate(f"{stages_ms[name]:.1f}", (stages_ms[name], place), (5, 0), textcoords="offset points", va="center", fontsize=8.5)
        axis.set_yticks(range(len(names)), names)
        axis.invert_yaxis()
        axis.grid(False, axis="y")
        axis.margins(x=0.14)
        axis.set_xlabel("ms, median")

    return as_svg("latency", draw, (4.6, 0.36 * len(stages_ms) + 0.75))
