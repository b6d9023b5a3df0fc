"""Which way of learning the tasks together is best on the simulated shop, and does any beat tuned single tasks? The grid of `guidelens study mtl`.

    python -m benchmarks.study [--world 1000] [--seeds 0,1,2,3,4] [--balancing A,B] [--learning-rates A,B] [--lambda-draws N] [--out benchmarks/results]

One shop's log is taken in, and the verb's grid is run on it: every way of sharing with every balancer at every learning rate, sets of fixed
weights, and single tasks at every rate; by default all that the verb tries. Choices are made on validation with one seed; the finalists and the tuned single tasks are then
fitted with every seed of weights and measured on the test part. Means over a row of the grid say what a choice is worth whatever it goes with.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from benchmarks._results import keep, machine, today
from benchmarks._shops import taken_in
from guidelens.config import Home
from guidelens.evaluation.multitask import SeedInterval
from guidelens.presets import load
from guidelens.schemas.base import Frozen
from guidelens.training.study import Study, StudyPlan, Tried
from pipelines import study as verb
from pipelines.cluster import ray_session
from pipelines.entry import run_command

_SHOWN = 10
_WHOLE = StudyPlan()


class StudyOfRecord(Frozen):
    machine: str
    date: str
    command: str
    world: int
    study: Study


def studied(world: int, plan: StudyPlan) -> Study:
    with tempfile.TemporaryDirectory(prefix="gl-study-") as name:
        config, home = load("laptop", seed=world), Home(root=Path(name) / "home")
        with ray_session():
            taken_in(home, config, Path(name))
            done = verb.run(home, config, plan)
        return Study.model_validate_json(Path(done.study).read_bytes())


def by_choice(tried: Sequence[Tried], choices: Sequence[str]) -> list[tuple[str, int, float, float]]:
    """Of each choice: name, trials, mean and best delta-m of the trials whose name holds it."""
    found = [(choice, [one.delta_m for one in tried if f" {choice} " in f"{one.name} "]) for choice in choices]
    return [(choice, len(values), float(np.mean(values)), max(values)) for choice, values in found if values]


def as_markdown(found: StudyOfRecord) -> str:
    study, plan = found.study, found.study.plan
    names = sorted({name for final in study.finals for name in final.metrics})
    lines = [
        "# A study of multi-task learning",
        "",
        f"`{found.command}`, {found.machine}, {found.date}. The world of seed {found.world}, preset laptop; rows "
        + ", ".join(f"{split} {rows:,}" for split, rows in study.rows.items())
        + f". {len(study.tried)} joint trials; best on validation: {study.best}.",
        "Delta-m: mean relative gain over the tuned single tasks, above 0 joint learning helps. 95 % intervals, Student's t over seeds of weights "
        + f"({', '.join(map(str, plan.seeds))}) on this one shop.",
        *([f"Left out, their losses being no numbers: {', '.join(study.diverged)}."] if study.diverged else []),
        "",
        "## Finals, on the test part",
        "",
        f"| choice | {' | '.join(names)} | delta-m, % |",
        f"|---|{'---|' * (len(names) + 1)}",
    ]
    for final in study.finals:
        cells = [_interval(final.metrics[name]) if name in final.metrics else "" for name in names]
        gain = final.delta_m
        shown = _interval(gain, 100, 2) if gain else ""
        lines.append(f"| {final.name} | {' | '.join(cells)} | {shown} |")
    lines += ["", f"## The search, on validation: the {_SHOWN} best", "", "| choice | delta-m, % | on the Pareto front | seconds |", "|---|---|---|---|"]
    for one in sorted(study.tried, key=lambda one: -one.delta_m)[:_SHOWN]:
        lines.append(f"| {one.name} | {100 * one.delta_m:+.2f} | {'yes' if one.on_front else ''} | {one.seconds:.0f} |")
    lines += ["", "## Choice by choice, on validation", "", "| choice | trials | mean delta-m, % | best |", "|---|---|---|---|"]
    for choice, trials, mean, best in by_choice(study.tried, [*plan.sharing, *plan.balancing, *(f"rate {rate:g}" for rate in plan.learning_rates)]):
        lines.append(f"| {choice} | {trials} | {100 * mean:+.2f} | {100 * best:+.2f} |")
    return "\n".join([*lines, ""])


def _interval(figure: SeedInterval, scale: float = 1.0, digits: int = 4) -> str:
    value, *bounds = (None if one is None else f"{scale * one:.{digits}f}" for one in (figure.value, figure.low, figure.high))
    return f"{value} [{bounds[0]}, {bounds[1]}]" if None not in bounds else str(value)


@click.command()
@click.option("--world", default=1000, show_default=True, type=click.IntRange(0), help="Seed of the shop.")
@click.option("--seeds", default="0,1,2,3,4", show_default=True, help="Seeds of the finals' weights.")
@click.option("--balancing", default=",".join(_WHOLE.balancing), show_default=True)
@click.option("--learning-rates", default=",".join(f"{rate:g}" for rate in _WHOLE.learning_rates), show_default=True)
@click.option("--lambda-draws", default=_WHOLE.lambda_draws, show_default=True)
@click.option("--out", default=Path("benchmarks/results"), type=click.Path(file_okay=False, path_type=Path))
def command(world: int, seeds: str, balancing: str, learning_rates: str, lambda_draws: int, out: Path) -> None:
    """Run the grid and write benchmarks/results/study.{json,md}."""
    given = {"seeds": seeds.split(","), "balancing": balancing.split(","), "learning_rates": learning_rates.split(",")}
    plan = StudyPlan.model_validate({**given, "lambda_draws": lambda_draws})
    line = f"python -m benchmarks.study --world {world} --seeds {seeds} --balancing {balancing} --learning-rates {learning_rates} --lambda-draws {lambda_draws}"
    found = StudyOfRecord(machine=machine(), date=today(), command=line, world=world, study=studied(world, plan))
    keep(found, as_markdown(found), out, "study")


if __name__ == "__main__":
    run_command(command)
