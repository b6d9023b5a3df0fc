"""What does Ray Train cost over a bare loop, what does a second worker bring, and where does a step's time go?

    python -m benchmarks.training [--home HOME] [--run RUN] [--repeats 3] [--epochs 6] [--out benchmarks/results]

On a finished run's rows: the joint model's training steps in this process, then under Ray Train with one and with two workers, in turn, at one
global batch and one torch thread a worker. Compared are steady epochs of steps (the first one of each is left out); a checkpoint,
validation and start-up are not in them. A second worker gets a core of its own only where two are free.
"""

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import click
import polars as pl

from benchmarks._results import keep, machine, today
from benchmarks.ablation import champion_run
from guidelens.config import Config
from guidelens.data.examples import Examples
from guidelens.inference.guide_files import ITEMS
from guidelens.models.items import Catalogue
from guidelens.schemas.base import Frozen
from guidelens.training.data import FitData, FitJob, Place
from guidelens.training.device import compute_repeatably
from guidelens.training.fit import fit_guide
from guidelens.training.learner import Learner
from pipelines.cluster import ray_session
from pipelines.entry import open_home, progress, run_command
from pipelines.run_files import open_run

PARTS = ("forward", "backward", "workers", "optimizer")


class Way(Frozen):
    """Steady epochs of one way of training: median seconds, every one of them, rows a second, and the share of a step's parts."""

    seconds: float
    every: tuple[float, ...]
    rows_per_second: float
    parts: dict[str, float]


class Measured(Frozen):
    """ways: `bare`, `1 worker`, `2 workers`."""

    machine: str
    date: str
    command: str
    rows: int
    global_batch_size: int
    ways: dict[str, Way]
    cost_of_ray_train: float
    speed_of_two_workers: float


Epochs = list[tuple[float, dict[str, float]]]


def bare(examples: Examples, catalogue: Catalogue, config: Config, job: FitJob) -> Epochs:
    """Seconds and signals of each epoch in this process."""
    compute_repeatably(num_threads=1)
    data = FitData.of(examples, catalogue, job.model.num_profile_buckets)
    learner = Learner(job, data, config.train, config.seed, Place(), lambda _tensor: None)
    found: Epochs = []
    for epoch in range(config.train.epochs):
        start = time.perf_counter()
        learner.epoch(epoch)
        seconds = time.perf_counter() - start
        learner.validate()
        found.append((seconds, learner.signals()))
    return found


def with_ray(examples: Examples, catalogue: Catalogue, config: Config, job: FitJob, num_workers: int) -> Epochs:
    folder = Path(tempfile.mkdtemp(prefix="gl-training-"))
    try:
        workers = config.model_copy(update={"train": config.train.model_copy(update={"num_workers": num_workers})})
        fitted = fit_guide(examples, catalogue, workers, [job], folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return [(losses.signals["epoch_seconds"], losses.signals) for losses in fitted.history]


def summed_up(epochs: Epochs, rows: int) -> Way:
    steady = [seconds for seconds, _ in epochs]
    parts = {name: sum(signals[f"step_seconds.{name}"] for _, signals in epochs) / sum(steady) for name in PARTS}
    return Way(seconds=statistics.median(steady), every=tuple(round(one, 4) for one in steady), rows_per_second=rows / statistics.median(steady), parts=parts)


def as_markdown(found: Measured) -> str:
    lines = [
        "# Training steps",
        "",
        f"`{found.command}`, {found.machine}, {found.date}. {found.rows:,} training rows in global batches of {found.global_batch_size}; one torch thread a worker.",
        "",
        "| way | median seconds of an epoch's steps | rows per second | " + " | ".join(PARTS) + " | the rest |",
        "|---|---|---|" + "---|" * (len(PARTS) + 1),
    ]
    for name, way in found.ways.items():
        shares = [f"{100 * way.parts[part]:.0f} %" for part in PARTS]
        lines.append(f"| {name} | {way.seconds:.3f} | {way.rows_per_second:,.0f} | " + " | ".join(shares) + f" | {100 * (1 - sum(way.parts.values())):.0f} % |")
    return "\n".join(
        [
            *lines,
            "",
            f"Ray Train with one worker takes {found.cost_of_ray_train:.3f} times the bare loop's time; two workers are {found.speed_of_two_workers:.2f} times as fast as one.",
            "`workers`: gradients summed over workers, waiting for the slower one included. The rest: choosing rows, counting labels, the loop itself.",
            "",
        ]
    )


def measure(examples: Examples, catalogue: Catalogue, config: Config, repeats: int) -> Mapping[str, Epochs]:
    job = FitJob(name="guide", lambdas=config.train.lambdas, model=config.train.model)
    found: dict[str, Epochs] = {"bare": [], "1 worker": [], "2 workers": []}
    with ray_session():
        for repeat in range(repeats):
            progress(f"training: round {repeat + 1} of {repeats}")
            found["bare"] += bare(examples, catalogue, config, job)[1:]
            for num_workers in (1, 2):
                found["1 worker" if num_workers == 1 else "2 workers"] += with_ray(examples, catalogue, config, job, num_workers)[1:]
    return found


@click.command()
@click.option("--home", default=Path(".guidelens"), show_default=True, type=click.Path(file_okay=False, path_type=Path), help="A home with a finished run.")
@click.option("--run", "run_id", default=None, help="A finished training run of that home.  [default: the champion's]")
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--epochs", default=6, show_default=True, type=click.IntRange(min=2))
@click.option("--global-batch-size", default=None, type=click.IntRange(min=2), help="Rows of a step over all workers.  [default: the run's]")
@click.option("--out", default=Path("benchmarks/results"), type=click.Path(file_okay=False, path_type=Path))
def command(home: Path, run_id: str | None, repeats: int, epochs: int, global_batch_size: int | None, out: Path) -> None:
    """Time training steps bare and under Ray Train, and write benchmarks/results/training.{json,md}."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    opened = open_home(home)
    with open_run(opened, run_id or champion_run(opened)) as files:
        examples, catalogue = files.examples(), Catalogue.of_table(pl.read_parquet(files.fit / ITEMS))
        config = files.record.config
    size = global_batch_size or config.train.global_batch_size
    config = config.model_copy(
        update={"train": config.train.model_copy(update={"epochs": epochs, "patience": 0, "telemetry": True, "global_batch_size": size})}
    )
    rows = len(examples.of("train"))
    ways = {name: summed_up(found, rows) for name, found in measure(examples, catalogue, config, repeats).items()}
    found = Measured(
        machine=machine(),
        date=today(),
        command=f"python -m benchmarks.training --repeats {repeats} --epochs {epochs} --global-batch-size {size}",
        rows=rows,
        global_batch_size=config.train.global_batch_size,
        ways=ways,
        cost_of_ray_train=ways["1 worker"].seconds / ways["bare"].seconds,
        speed_of_two_workers=ways["1 worker"].seconds / ways["2 workers"].seconds,
    )
    keep(found, as_markdown(found), out, "training")


if __name__ == "__main__":
    run_command(command)
