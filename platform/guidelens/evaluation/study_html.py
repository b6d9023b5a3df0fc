"""study.html: a study of multi-task learning as one page. Rows come in as plain values, so that it knows nothing of training."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from guidelens.evaluation.multitask import HIGHER_IS_BETTER, SeedInterval
from guidelens.evaluation.pages import filled
from guidelens.evaluation.plots import MANY, OTHER, OURS, as_svg, shortened
from guidelens.schemas.base import Frozen

NAMES = {"ndcg_at_10": "NDCG@10 (T1)", "interest_mse": "interest MSE (T2)", "plan_loss": "plan cross-entropy (T3)"}


class TriedRow(Frozen):
    """A joint trial on validation. group: what it is coloured by (its balancing). least_expert: the largest share that any task gives the expert
    used least, after the last epoch; None where there are no experts."""

    name: str
    group: str
    metrics: dict[str, float]
    delta_m: float
    on_front: bool
    seconds: float
    cosines: dict[str, float]
    least_expert: float | None = None


class FinalRow(Frozen):
    """A choice over seeds, on the test part."""

    name: str
    metrics: dict[str, SeedInterval]
    delta_m: SeedInterval | None


class StudyPage(Frozen):
    """singles: the single tasks' validation metric, each tuned."""

    title: str
    lead: str
    best: str
    tried: tuple[TriedRow, ...]
    finals: tuple[FinalRow, ...]
    singles: dict[str, float]
    notes: tuple[str, ...]

    @property
    def num_seeds(self) -> int:
        return max((len(interval.by_seed) for row in self.finals for interval in row.metrics.values()), default=0)


def render(page: StudyPage) -> str:
    """A self-contained page: no script, no font, no picture from elsewhere."""
    metrics = [name for name in HIGHER_IS_BETTER if all(name in row.metrics for row in page.tried)]
    fronts = [Markup(_front(page, one, other)) for number, one in enumerate(metrics) for other in metrics[number + 1 :]]
    plots = {"fronts": fronts, "gains": Markup(_gains(page.finals)), "cosines": Markup(_cosines(page.tried))}
    rows = sorted(page.tried, key=lambda row: -row.delta_m)
    return filled("study.html.j2", page=page, rows=rows, metrics=metrics, names=NAMES, plots=plots)


def _front(page: StudyPage, across: str, up: str) -> str:
    """Trials by two metrics, those on the front ringed; dashed lines are the tuned single tasks."""

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        groups = sorted({row.group for row in page.tried})
        for place, group in enumerate(groups):
            rows = [row for row in page.tried if row.group == group]
            axis.scatter([row.metrics[across] for row in rows], [row.metrics[up] for row in rows], s=22, color=MANY[place % len(MANY)], label=group)
        ringed = [row for row in page.tried if row.on_front]
        axis.scatter([row.metrics[across] for row in ringed], [row.metrics[up] for row in ringed], s=70, facecolors="none", edgecolors=OURS, linewidths=1.2)
        for name, line in ((across, axis.axvline), (up, axis.axhline)):
            if name in page.singles:
                line(page.singles[name], color=OTHER, linewidth=1.0, linestyle="--")
        for name, invert in ((across, axis.invert_xaxis), (up, axis.invert_yaxis)):
            if not HIGHER_IS_BETTER[name]:
                invert()
        axis.locator_params(axis="x", nbins=5)
        axis.set_xlabel(NAMES[across])
        axis.set_ylabel(NAMES[up])
        axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        axis.set_title("better: right and up")

    return as_svg(f"{across} and {up}", draw, (5.4, 3.2))


def _gains(finals: Sequence[FinalRow]) -> str:
    """Delta-m of each choice over seeds, with its interval and every seed's own value."""
    rows = [(row.name, row.delta_m) for row in finals if row.delta_m is not None]

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        for place, (_, gain) in enumerate(rows):
            axis.barh(place, 100 * gain.value, color=OURS, height=0.5)
            if gain.low is not None and gain.high is not None:
                reach = [[100 * (gain.value - gain.low)], [100 * (gain.high - gain.value)]]
                axis.errorbar(100 * gain.value, place, xerr=reach, color=OTHER, linewidth=1.2, capsize=3)
            axis.scatter([100 * value for value in gain.by_seed], [place] * len(gain.by_seed), s=9, color=OTHER)
        axis.axvline(0, color=OTHER, linewidth=0.8)
        axis.set_yticks(range(len(rows)), [shortened(name) for name, _ in rows])
        axis.invert_yaxis()
        axis.grid(False, axis="y")
        axis.set_xlabel("delta-m against tuned single tasks, %")

    return as_svg("delta-m", draw, (6.4, 0.42 * len(rows) + 0.9))


def _cosines(tried: Sequence[TriedRow]) -> str:
    """The tasks' gradient cosines at the end of training: a dot a trial."""
    pairs: Mapping[str, list[float]] = {
        pair: [row.cosines[pair] for row in tried if pair in row.cosines] for pair in sorted({pair for row in tried for pair in row.cosines})
    }

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        for place, values in enumerate(pairs.values()):
            axis.scatter(values, [place] * len(values), s=12, color=OURS, alpha=0.6)
        axis.axvline(0, color=OTHER, linewidth=0.8)
        axis.set_yticks(range(len(pairs)), list(pairs))
        axis.set_xlim(-1, 1)
        axis.set_xticks((-1, -0.5, 0, 0.5, 1))
        axis.grid(False, axis="y")
        axis.set_xlabel("cosine of the gradients, shared weights")

    return as_svg("gradient cosines", draw, (5.2, 0.42 * max(1, len(pairs)) + 0.9))
