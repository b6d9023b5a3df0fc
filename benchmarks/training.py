"""What does Ray Train cost over a bare loop, what does a second worker bring, and where does a step's time go?

    python -m benchmarks.training [--home HOME] [--run RUN] [--times 4] [--repeats 3] [--epochs 3] [--batches 256,1024] [--out benchmarks/results]

On a finished run's rows, laid `--times` end to end so that an epoch is long beside its edges, at each batch: the joint model's training steps in this process, then under Ray Train with one worker, with two at the
same global batch (strong scaling) and with two at the same batch a worker (weak scaling), in turn, with one torch thread a worker; and two
workers that own the rows of the products' tables. Two bare loops at once, which share nothing, show what the machine can give to two workers
of that batch each. Compared are steady epochs of steps (the first one of each is left out); validation and start-up are not in them, nor is what a checkpoint
keeps the loop waiting for: it is uploaded during the epoch that follows. A second worker gets a core of its own only where two are free.
"""

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import click
import polars as pl
import pyarrow as pa

from benchmarks._results import keep, machine, today
from benchmarks.ablation import champion_run
from guidelens.config import Config
from guidelens.data.examples import Examples
from guidelens.inference.guide_files import ITEMS
from guidelens.models.items import Catalogue
from guidelens.schemas.base import Frozen
from guidelens.training.data import FitData, FitJob, Place
from guidelens.training.device import compute_repeatably, keep_freed_memory
from guidelens.training.fit import fit_guide
from guidelens.training.learner import Learner
from pipelines.cluster import ray_session
from pipelines.entry import open_home, progress, run_command
from pipelines.run_files import open_run

PARTS = ("forward", "backward", "workers", "optimizer")
BARE, ONE, TWO, APART = "bare", "1 worker", "2 workers", "2 bare loops at once"


class Way(Frozen):
    """Steady epochs of one way of training: median and least seconds of a step, every epoch's seconds, rows a second, and the share of a step's parts.

    batch: rows of a step over all workers. sharding: as in `train.sharding`.
    """

    name: str
    num_workers: int
    batch: int
    sharding: str
    step_ms: float
    least_step_ms: float
    every: tuple[float, ...]
    rows_per_second: float
    parts: dict[str, float]


class Scaling(Frozen):
    """How many times one worker's rows a second two workers take, medians and best epochs of each.

    kind: `strong` (the same global batch) or `weak` (the same batch a worker). batch: of the one worker. limit: what two bare loops at once take.
    """

    kind: str
    batch: int
    speed: float
    speed_of_best: float
    limit: float


class Measured(Frozen):
    """rows: of an epoch, `times` those of the run. load: processes that were running or waiting, on average over the minute before the first and the last round."""

    machine: str
    date: str
    command: str
    rows: int
    times: int
    load: tuple[float, float]
    ways: tuple[Way, ...]
    cost_of_ray_train: dict[int, float]
    scaling: tuple[Scaling, ...]


class Key(NamedTuple):
    """One way of training. batch: rows of a step over all workers."""

    name: str
    num_workers: int
    batch: int
    sharding: str = "replicated"


Epochs = list[tuple[float, dict[str, float]]]


def end_to_end(examples: Examples, times: int) -> Examples:
    """The same rows `times` over, one after another."""
    return Examples.of_table(pa.concat_tables([examples.table()] * times), examples.frames, examples.queries)


def bare(examples: Examples, catalogue: Catalogue, config: Config, job: FitJob) -> Epochs:
    """Seconds and signals of each epoch but the first, in this process."""
    compute_repeatably(num_threads=1)
    keep_freed_memory()
    data = FitData.of(examples, catalogue, job.model.num_profile_buckets)
    learner = Learner(job, data, config.train, config.seed, Place(), lambda _tensor: None)
    found: Epochs = []
    for epoch in range(config.train.epochs):
        start = time.perf_counter()
        learner.epoch(epoch)
        seconds = time.perf_counter() - start
        learner.validate()
        found.append((seconds, learner.signals()))
    return found[1:]


def two_at_once(examples: Examples, catalogue: Catalogue, config: Config, job: FitJob) -> Epochs:
    """`bare` in two processes that know nothing of each other, each with half of the global batch; as two workers that took turns with every row."""
    train = config.train.model_copy(update={"global_batch_size": config.train.global_batch_size // 2})
    own = config.model_copy(update={"train": train})
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as both:
        found = [both.submit(bare, examples, catalogue, own, job) for _ in range(2)]
        return [(seconds / 2, {name: value / 2 for name, value in signals.items()}) for one in found for seconds, signals in one.result()]


def with_ray(examples: Examples, catalogue: Catalogue, config: Config, job: FitJob) -> Epochs:
    """The same under Ray Train, with `train.num_workers`."""
    folder = Path(tempfile.mkdtemp(prefix="gl-training-"))
    try:
        fitted = fit_guide(examples, catalogue, config, [job], folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return [(losses.signals["epoch_seconds"], losses.signals) for losses in fitted.history[1:]]


def ways_of(batches: Sequence[int]) -> list[Key]:
    """Bare and one worker at each batch; two workers, and two bare loops, at each batch and at twice each; tables owned by rows at the first batch."""
    found: list[Key] = []
    for batch in batches:
        found += [Key(BARE, 1, batch), Key(ONE, 1, batch), *(Key(name, 2, times * batch) for name in (TWO, APART) for times in (1, 2))]
    return list(dict.fromkeys([*found, Key(TWO, 2, batches[0], "rows")]))


def measure(examples: Examples, catalogue: Catalogue, config: Config, ways: Sequence[Key], repeats: int) -> dict[Key, Epochs]:
    """Steady epochs of each way, the ways in turn in every round."""
    job = FitJob(name="guide", lambdas=config.train.lambdas, model=config.train.model)
    found: dict[Key, Epochs] = {way: [] for way in ways}
    with ray_session():
        for repeat in range(repeats):
            progress(f"training: round {repeat + 1} of {repeats}")
            for way in ways:
                settings = {"global_batch_size": way.batch, "num_workers": way.num_workers, "sharding": way.sharding}
                own = config.model_copy(update={"train": config.train.model_copy(update=settings)})
                run = {BARE: bare, APART: two_at_once}.get(way.name, with_ray)
                found[way] += run(examples, catalogue, own, job)
    return found


def summed_up(way: Key, epochs: Epochs, rows: int) -> Way:
    steady = [seconds for seconds, _ in epochs]
    steps = -(-rows // way.batch)
    return Way(
        **way._asdict(),
        step_ms=1000 * statistics.median(steady) / steps,
        least_step_ms=1000 * min(steady) / steps,
        every=tuple(round(one, 4) for one in steady),
        rows_per_second=rows / statistics.median(steady),
        parts={name: sum(signals[f"step_seconds.{name}"] for _, signals in epochs) / sum(steady) for name in PARTS},
    )


def scaling_of(ways: Sequence[Way], batches: Sequence[int]) -> tuple[Scaling, ...]:
    by_key = {(way.name, way.num_workers, way.batch): way for way in ways if way.sharding == "replicated"}
    found = []
    for batch in batches:
        one = by_key[ONE, 1, batch]
        for kind, times in (("strong", 1), ("weak", 2)):
            two, apart = by_key[TWO, 2, times * batch], by_key[APART, 2, times * batch]
            best, limit = times * one.least_step_ms / two.least_step_ms, times * one.step_ms / apart.step_ms
            found.append(Scaling(kind=kind, batch=batch, speed=times * one.step_ms / two.step_ms, speed_of_best=best, limit=limit))
    return tuple(found)


def as_markdown(found: Measured) -> str:
    lines = [
        "# Training steps",
        "",
        f"`{found.command}`, {found.machine}, {found.date}. {found.rows:,} training rows ({found.times} times those of the run); one torch thread a worker; "
        f"load {found.load[0]:.1f} before the first round, {found.load[1]:.1f} at the end of the last.",
        "",
        "| way | rows of a step | median step, ms | least, ms | rows per second | " + " | ".join(PARTS) + " | the rest |",
        "|---|---|---|---|---|" + "---|" * (len(PARTS) + 1),
    ]
    for way in found.ways:
        name = way.name if way.sharding == "replicated" else f"{way.name}, rows owned"
        shares = [f"{100 * way.parts[part]:.0f} %" for part in PARTS]
        cells = [name, f"{way.batch:,}", f"{way.step_ms:.1f}", f"{way.least_step_ms:.1f}", f"{way.rows_per_second:,.0f}", *shares]
        lines.append("| " + " | ".join(cells) + f" | {100 * (1 - sum(way.parts.values())):.0f} % |")
    lines += ["", f"| two workers beside one | rows of a step | times as fast | by the best epochs | {APART} |", "|---|---|---|---|---|"]
    for one in found.scaling:
        batch = f"{one.batch:,} over both" if one.kind == "strong" else f"{one.batch:,} each"
        lines.append(f"| {one.kind} scaling | {batch} | {one.speed:.2f} | {one.speed_of_best:.2f} | {one.limit:.2f} |")
    costs = ", ".join(f"{cost:.3f} times at {batch:,} rows" for batch, cost in found.cost_of_ray_train.items())
    return "\n".join(
        [
            *lines,
            "",
            f"Ray Train with one worker takes the bare loop's time {costs}.",
            "`workers`: gradients summed over workers, waiting for the slower one included. The rest: choosing rows, the loop itself.",
            "",
        ]
    )


@click.command()
@click.option("--home", default=Path(".guidelens"), show_default=True, type=click.Path(file_okay=False, path_type=Path), help="A home with a finished run.")
@click.option("--run", "run_id", default=None, help="A finished training run of that home.  [default: the champion's]")
@click.option("--times", default=4, show_default=True, type=click.IntRange(min=1), help="How often an epoch goes over the run's rows.")
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--epochs", default=3, show_default=True, type=click.IntRange(min=2), help="Of each way in each round; the first one is not counted.")
@click.option("--batches", default="256,1024", show_default=True, help="Rows of a step, over all workers.")
@click.option("--out", default=Path("benchmarks/results"), type=click.Path(file_okay=False, path_type=Path))
def command(home: Path, run_id: str | None, times: int, repeats: int, epochs: int, batches: str, out: Path) -> None:
    """Time training steps bare and under Ray Train, and write benchmarks/results/training.{json,md}."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    opened = open_home(home)
    with open_run(opened, run_id or champion_run(opened)) as files:
        examples, catalogue = files.examples(), Catalogue.of_table(pl.read_parquet(files.fit / ITEMS))
        config = files.record.config
    examples = end_to_end(examples, times)
    config = config.model_copy(update={"train": config.train.model_copy(update={"epochs": epochs, "patience": 0, "telemetry": True})})
    sizes, rows, load = [int(size) for size in batches.split(",")], len(examples.of("train")), os.getloadavg()[0]
    ways = tuple(summed_up(way, found, rows) for way, found in measure(examples, catalogue, config, ways_of(sizes), repeats).items())
    median = {(way.name, way.batch): way.step_ms for way in ways}
    found = Measured(
        machine=machine(),
        date=today(),
        command=f"python -m benchmarks.training --times {times} --repeats {repeats} --epochs {epochs} --batches {batches}",
        rows=rows,
        times=times,
        load=(load, os.getloadavg()[0]),
        ways=ways,
        cost_of_ray_train={size: median[ONE, size] / median[BARE, size] for size in sizes},
        scaling=scaling_of(ways, sizes),
    )
    keep(found, as_markdown(found), out, "training")


if __name__ == "__main__":
    run_command(command)
