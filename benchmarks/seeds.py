"""How good is it, and how sure is that? The whole demo once a seed, each in a home of its own; means over seeds with 95 % intervals.

    python -m benchmarks.seeds [--seeds 1000-1004] [--data grocery-store --path DIR] [--out benchmarks/results]

Seeds below 1000 are for development (settings were chosen on them), so they are refused here. A seed draws another shop: other products,
shoppers, log and split, and other starting weights. Of grocery-store only the shoppers and the weights are drawn.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from benchmarks._results import keep, machine, today
from guidelens.errors import ConfigError, GuideLensError
from guidelens.evaluation.multitask import over_seeds
from guidelens.evaluation.report import Report, read_report
from guidelens.schemas.base import Frozen
from pipelines.entry import progress, run_command

FIRST_REPORTED = 1000
MIN_SEEDS = 3


class Figure(Frozen):
    """One metric over seeds: mean and its 95 % interval (Student's t), and the value of each seed."""

    mean: float
    low: float
    high: float
    by_seed: tuple[float, ...]


class SeedStudy(Frozen):
    machine: str
    date: str
    command: str
    seeds: tuple[int, ...]
    seconds: tuple[float, ...]
    figures: dict[str, Figure]


def numbers(report: Report) -> dict[str, float]:
    """What is quoted of one report, by the name it is quoted under; what this source does not have is left out."""
    assert report.recognition and report.ranking and report.interest and report.plan and report.serving, "a finished demo fills every section"
    found: dict[str, float | None] = {
        "recognition top-1": report.recognition.top1,
        "recognition top-5": report.recognition.top5,
        "NDCG@10": report.ranking.model.ndcg_at_10,
        **{f"NDCG@10, {name}": scores.ndcg_at_10 for name, scores in report.ranking.baselines.items()},
        "NDCG@10, gain over single-task": report.ranking.model.ndcg_at_10 - report.ranking.baselines["single_task"].ndcg_at_10,
        "interest MSE": report.interest.mse,
        "interest MSE, constant": report.interest.constant_mse,
        "interest MSE, single-task": report.interest.single_task_mse,
        "interest calibration error": report.interest.ece,
        "plan value": report.plan.value,
        "plan value, logging guide": report.plan.logging_value,
        "plan value, script": report.plan.script_value,
        "plan value, best fixed plan": report.plan.fixed_value,
        "plan value, single-task": report.plan.single_task_value,
        "plan value, reference": report.plan.reference_value,
        "plan value, oracle": report.plan.oracle_value,
        "plan value, share of the gap to the reference closed": report.plan.gap_closed,
        "illegal plans": report.plan.illegal,
        "failed requests": float(report.serving.failed),
    }
    return {name: value for name, value in found.items() if value is not None}


def study(seeds: Sequence[int], arguments: Sequence[str], jobs: int) -> tuple[dict[str, Figure], tuple[float, ...]]:
    """Runs the demo for each seed, `jobs` at a time; figures over seeds, and the seconds of each run's stages."""
    with ThreadPoolExecutor(jobs) as pool:
        reports = list(pool.map(lambda seed: _demo(seed, arguments), seeds))
    rows = [numbers(report) for report in reports]
    figures = {name: figure_of([row[name] for row in rows]) for name in rows[0]}
    return figures, tuple(round(sum(stage.seconds for stage in report.stages), 1) for report in reports)


def _demo(seed: int, arguments: Sequence[str]) -> Report:
    with tempfile.TemporaryDirectory(prefix="gl-seeds-") as folder:
        line = [sys.executable, "-m", "pipelines.cli", "demo", "--seed", str(seed), "--home", f"{folder}/home", "--out", f"{folder}/out", *arguments]
        progress(f"seed {seed} ...")
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode:
            raise GuideLensError(f"the demo of seed {seed} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        report = read_report(Path(json.loads(done.stdout.splitlines()[-1])["report"]))
    progress(f"seed {seed}: " + ", ".join(f"{name} {value:.4g}" for name, value in numbers(report).items()))
    return report


def figure_of(values: Sequence[float]) -> Figure:
    """Mean and interval of at least two seeds' values."""
    found = over_seeds(values)
    assert found.low is not None and found.high is not None, "two seeds or more"
    return Figure(mean=found.value, low=found.low, high=found.high, by_seed=found.by_seed)


def figure_rows(figures: Mapping[str, Figure], digits: str = ".4g") -> list[str]:
    """A Markdown table of figures, a line each."""
    lines = ["| | mean | interval | by seed |", "|---|---|---|---|"]
    for name, figure in figures.items():
        by_seed = ", ".join(f"{value:{digits}}" for value in figure.by_seed)
        lines.append(f"| {name} | {figure.mean:{digits}} | {figure.low:{digits}} to {figure.high:{digits}} | {by_seed} |")
    return lines


def as_markdown(found: SeedStudy) -> str:
    lines = [
        f"# Figures over {len(found.seeds)} seeds",
        "",
        f"`{found.command}`, {found.machine}, {found.date}; a run took {min(found.seconds):.0f}-{max(found.seconds):.0f} s. Seeds: "
        f"{', '.join(map(str, found.seeds))}. Intervals: 95 %, Student's t over seeds.",
        "",
    ]
    return "\n".join([*lines, *figure_rows(found.figures), ""])


def parse_seeds(_context: click.Context, _parameter: click.Parameter, given: str) -> tuple[int, ...]:
    """`1000-1004` or `1000,1003,1007`.

    Raises:
        ConfigError: not such a list, fewer than MIN_SEEDS, or a development seed among them.
    """
    try:
        first, dash, last = given.partition("-")
        seeds = tuple(range(int(first), int(last) + 1)) if dash else tuple(map(int, given.split(",")))
    except ValueError as error:
        raise ConfigError(f"--seeds must be FIRST-LAST or a list with commas, got {given!r}") from error
    if len(set(seeds)) < MIN_SEEDS or min(seeds) < FIRST_REPORTED:
        raise ConfigError(f"--seeds must be at least {MIN_SEEDS} different ones from {FIRST_REPORTED} on, got {given!r}")
    return seeds


@click.command()
@click.option("--seeds", default="1000-1004", show_default=True, callback=parse_seeds)
@click.option("--data", default="world", show_default=True, help="The demo's source.")
@click.option("--path", default=None, help="The source's folder, where it has one.")
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(1), help="Demos side by side; each takes about 5 GB.")
@click.option("--out", default=Path("benchmarks/results"), type=click.Path(file_okay=False, path_type=Path))
def command(seeds: tuple[int, ...], data: str, path: str | None, jobs: int, out: Path) -> None:
    """Run the demo once a seed and write benchmarks/results/seeds-SOURCE.{json,md}."""
    figures, seconds = study(seeds, ("--data", data, *(("--path", path) if path else ())), jobs)
    found = SeedStudy(
        machine=machine(),
        date=today(),
        command=f"python -m benchmarks.seeds --seeds {','.join(map(str, seeds))}{f' --data {data} --path DIR' if path else ''} --jobs {jobs}",
        seeds=seeds,
        seconds=seconds,
        figures=figures,
    )
    keep(found, as_markdown(found), out, f"seeds-{data}")


if __name__ == "__main__":
    run_command(command)
