"""The page about two runs: a verdict a metric, with plots of the paired differences."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from guidelens.evaluation.bootstrap import FEW_CLUSTERS
from guidelens.evaluation.comparison import Compared
from guidelens.evaluation.pages import filled
from guidelens.evaluation.plots import HIGH, LOW, OTHER, forest
from guidelens.schemas.base import Frozen

_COLOURS = {"second": HIGH, "first": LOW}


class Setting(Frozen):
    """What two runs were set to, where they differ; empty where one has no such setting."""

    name: str
    first: str
    second: str


class ComparePage(Frozen):
    """What the page shows. paired: metrics on shared test rows; slices: NDCG@10 of parts of them; recorded: as the runs have them.
    notes: what of the pairs was left out, and why. settings: those that differ."""

    first: str
    second: str
    shared_requests: int
    unpaired_because: str
    paired: tuple[Compared, ...]
    slices: tuple[Compared, ...]
    recorded: tuple[Compared, ...]
    notes: tuple[str, ...] = ()
    settings: tuple[Setting, ...] = ()


def render(page: ComparePage) -> str:
    """A self-contained page: no script, no font, no picture from elsewhere."""
    plots: dict[str, Any] = {
        "paired": Markup(_forest("differences", page.paired, "change for the better, % of the first run's value")),
        "slices": Markup(_forest("differences by slice", page.slices, "change for the better, % of the first run's NDCG@10")),
    }
    counts = {"judged": sum(bool(row.verdict) for row in page.paired)} | {
        verdict: sum(row.verdict == verdict for row in page.paired) for verdict in ("second", "first", "neither")
    }
    return filled("compare.html.j2", {"chance": chance}, page=page, plots=plots, counts=counts, few=FEW_CLUSTERS)


def chance(p: float) -> str:
    return "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def _forest(name: str, rows: Sequence[Compared], unit: str) -> str:
    """Differences in shares of the first run's value, turned so that right is better; metrics of which more is no better, and those whose first
    value is, or may well be, about 0, are left out."""
    drawn = []
    for row in rows:
        if row.difference is None or not row.first or not row.is_relative or row.is_higher_better is None:
            continue
        scale = (100 if row.is_higher_better else -100) / abs(row.first)
        ends = sorted((row.difference.low * scale, row.difference.high * scale))
        drawn.append((row.name, row.difference.value * scale, ends[0], ends[1], _COLOURS.get(row.verdict, OTHER)))
    return forest(name, drawn, unit) if drawn else ""
