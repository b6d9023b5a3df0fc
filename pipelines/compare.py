"""`guidelens compare`: two runs side by side, with paired differences on the test requests they share, as a table and a page."""

from pathlib import Path

import click
import numpy as np

from guidelens.config import Config, ExtraTask, Home
from guidelens.data.examples import Examples
from guidelens.evaluation.comparison import Compared, compare_rows
from guidelens.evaluation.comparison_html import ComparePage, Setting, render
from guidelens.evaluation.extra_tasks import extra_rows
from guidelens.evaluation.metric_rows import MetricRows, metric_rows
from guidelens.evaluation.ranking import clicked_requests
from guidelens.evaluation.slices import MIN_REQUESTS, slices
from guidelens.inference.scorer import GuideScorer
from guidelens.registry import Registry, flatten_params
from guidelens.schemas.base import Frozen
from guidelens.schemas.ids import sub_seed
from pipelines.entry import emit, home_option, progress, run_command
from pipelines.run_files import RunFiles, open_run

RANKED = "NDCG@10"
LABELS = {
    "interest squared error": ("interest_weights",),
    "purchase log-loss": ("purchase_window_h",),
    "plan value, estimated": ("margin_share", "plan_costs"),
}
"""Metrics by the settings of `train` that make what they are measured against."""


class CompareResult(Frozen):
    """metrics: paired ones, then recorded ones. unpaired_because: why none is paired; empty where some are. notes: what of them was left
    out. settings: those that differ. page: the HTML page, with compare.json beside it."""

    first: str
    second: str
    metrics: tuple[Compared, ...]
    slices: tuple[Compared, ...]
    unpaired_because: str
    notes: tuple[str, ...]
    settings: tuple[Setting, ...]
    page: str


def run(home: Home, first: str, second: str) -> CompareResult:
    """Compares two finished runs of a home.

    Raises:
        NotFoundError: there is no such run.
        InputError: a run did not finish.
    """
    registry = Registry(home)
    with open_run(home, first) as a, open_run(home, second) as b:
        why, page = _why_unpaired(a, b), None
        if not why:
            page = _paired(a, b)
        settings = _differing(a, b)
    recorded = [registry.metrics(run_id) for run_id in (first, second)]
    names = sorted(name for name in {*recorded[0], *recorded[1]} if name.startswith("test/"))
    empty = ComparePage(first=first, second=second, shared_requests=0, unpaired_because=why, paired=(), slices=(), recorded=())
    page = (page or empty).model_copy(
        update={
            "recorded": tuple(Compared(name=name, first=recorded[0].get(name), second=recorded[1].get(name)) for name in names),
            "settings": settings,
        }
    )
    path = _written(page, home.work / "compare" / f"{first}-{second}")
    return CompareResult(
        first=first,
        second=second,
        metrics=(*page.paired, *page.recorded),
        slices=page.slices,
        unpaired_because=why,
        notes=page.notes,
        settings=settings,
        page=str(path),
    )


def _differing(a: RunFiles, b: RunFiles) -> tuple[Setting, ...]:
    """What the runs were set to, where that differs, and the snapshots they were trained on."""
    one, other = ({"lake": f"version {files.record.manifest} of {files.record.lake}", **flatten_params(files.record.config)} for files in (a, b))
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    return tuple(Setting(name=name, first=str(one.get(name, "")), second=str(other.get(name, ""))) for name in names)


def _relabelled(a: Config, b: Config) -> dict[str, str]:
    """By metric, why it cannot be paired: its labels are those of the first run, and the second one learned others."""
    found = {}
    for metric, names in LABELS.items():
        differ = [f"train.{name}" for name in names if getattr(a.train, name) != getattr(b.train, name)]
        if differ:
            found[metric] = f"{metric} is left out: the runs' labels differ by {' and '.join(differ)}"
    return found


def _written(page: ComparePage, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "compare.json").write_text(page.model_dump_json(indent=1) + "\n")
    path = folder / "compare.html"
    path.write_text(render(page))
    return path


def _why_unpaired(a: RunFiles, b: RunFiles) -> str:
    if not (a.has_guide and b.has_guide):
        return "a run has no guide model"
    if GuideScorer.load(a.fit).catalogue.product_ids != GuideScorer.load(b.fit).catalogue.product_ids:
        return "the runs' catalogues differ"
    if len(_shared(a, b)) == 0:
        return "the runs share no test request"
    return ""


def _shared(a: RunFiles, b: RunFiles) -> Examples:
    """The first run's test rows that are test rows of the second one too."""
    mine, theirs = a.examples().of("test"), b.examples().of("test")
    return mine.take(np.flatnonzero(np.isin(mine.request_id.astype(str), theirs.request_id.astype(str))))


def _paired(a: RunFiles, b: RunFiles) -> ComparePage:
    """What the shared rows can tell and both runs learned."""
    shared, seed = _shared(a, b), sub_seed(a.record.seed, "compare")
    progress(f"compare: {len(shared)} shared test requests")
    relabelled = _relabelled(a.record.config, b.record.config)
    tasks = _tasks_of_both(a.record.config, b.record.config)
    rows = []
    for files in (a, b):
        scorer = GuideScorer.load(files.fit)
        every = {**metric_rows(scorer, shared), **extra_rows(scorer, tasks, a.examples().of("train"), shared)}
        rows.append({name: of for name, of in every.items() if name not in relabelled})
    parts = [_by_slice(shared, of_run[RANKED]) if RANKED in of_run else {} for of_run in rows]
    return ComparePage(
        first=a.run_id,
        second=b.run_id,
        shared_requests=len(shared),
        unpaired_because="",
        paired=compare_rows(rows[0], rows[1], seed),
        slices=compare_rows(parts[0], parts[1], seed),
        recorded=(),
        notes=tuple(relabelled.values()),
    )


def _tasks_of_both(a: Config, b: Config) -> dict[str, ExtraTask]:
    """The tasks that both configs add, by one name and with one label."""
    both = {name: (one, b.train.extra_tasks[name]) for name, one in a.train.extra_tasks.items() if name in b.train.extra_tasks}
    return {name: one for name, (one, other) in both.items() if (one.label, one.loss) == (other.label, other.loss) and min(one.weight, other.weight) > 0}


def _by_slice(shared: Examples, ranked: MetricRows) -> dict[str, MetricRows]:
    """The ranking metric's rows of each slice that has enough of them."""
    masks = slices(shared.take(clicked_requests(shared)[0]))
    return {
        name: ranked._replace(value_R=ranked.value_R[mask], shopper_R=ranked.shopper_R[mask]) for name, mask in masks.items() if int(mask.sum()) >= MIN_REQUESTS
    }


def _line(row: Compared) -> str:
    values = " ".join(f"{value:10.4f}" if value is not None else f"{'–':>10s}" for value in (row.first, row.second))
    if row.difference is None or row.test is None:
        return f"{row.name:34s} {values}"
    sure = f"{row.verdict} is better" if row.verdict in ("first", "second") else ""
    return f"{row.name:34s} {values}   {row.difference.value:+.4f} [{row.difference.low:+.4f}, {row.difference.high:+.4f}]  p {row.test.p_holm:.3f}  {sure}"


@click.command(name="compare")
@click.argument("first")
@click.argument("second")
@home_option
def command(first: str, second: str, home: Home) -> None:
    """Show runs FIRST and SECOND side by side, and leave a page about them in the home.

    Differences (second minus first) are paired on the test requests that both runs have, with 95 % intervals over shoppers and
    p-values corrected for all metrics shown (Holm).
    """
    result = run(home, first, second)
    if result.unpaired_because:
        progress(f"recorded metrics only: {result.unpaired_because}")
    for note in result.notes:
        progress(note)
    for row in (*result.metrics, *result.slices):
        progress(_line(row))
    progress(f"page: {result.page}")
    emit(result)


if __name__ == "__main__":
    run_command(command)
