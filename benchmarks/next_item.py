"""What is taken next? The next-item recipe beside classic recommenders and its own encoder alone, on a log in S3-Rec's format.

    python -m benchmarks.next_item --data Beauty.txt --attributes Beauty_item2attributes.json [--seeds 3] [--json OUT]

Leave-one-out over all items (benchmarks/_leave_one_out.py says how). The recipe is the same for every data set: its settings were chosen once, on
Beauty's validation items; on each data set its own validation items teach how the parts are put together, and nothing else. Intervals are a
bootstrap over seeds and shoppers together. Encoders, seeds and baselines are spread over processes of one thread each.
"""

# Letters: R = shoppers, S = seeds.

import json
import os
import time
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks._leave_one_out import LeaveOneOut, as_lines, gains, intervals, metric_rows, ranks, read
from benchmarks._results import machine, today
from guidelens.errors import GuideLensError
from guidelens.evaluation.bootstrap import Interval
from guidelens.models.baselines.hybrid import Hybrid
from guidelens.models.baselines.linear import ease
from guidelens.models.baselines.popularity import Popularity
from guidelens.models.baselines.recommender import Recommender
from guidelens.models.next_item import NextItem
from guidelens.models.next_item_hybrid import RecipeConfig, classic_parts, encoder, likeness, stacked
from guidelens.schemas.base import Frozen
from pipelines.entry import progress, run_command

_EASE_UP_TO = 25_000
_OURS = "guidelens"
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
RanksOf = dict[str, NDArray[np.int64]]


class Stacking(Frozen):
    """How a seed's stacking came out on the validation items. See `Stacked`."""

    recall: float
    held_out_nats: float
    epochs_kept: tuple[int, ...]


class NextItemStudy(Frozen):
    """metrics and gain_over: by recommender, then by metric. gain_over: ours minus theirs, on the same seeds and shoppers.

    minutes_a_seed: of the clock, for everything, over the seeds.
    """

    machine: str
    date: str
    command: str
    shoppers: int
    items: int
    seeds: int
    processes: int
    minutes_a_seed: float
    notes: tuple[str, ...]
    config: RecipeConfig
    metrics: dict[str, dict[str, Interval]]
    gain_over: dict[str, dict[str, Interval]]
    stacking: tuple[Stacking, ...]


def tested(recommender: Recommender, loo: LeaveOneOut, name: str) -> NDArray[np.int64]:
    """(R,) ranks of the test items."""
    begun = time.perf_counter()
    found = ranks(recommender, loo.test_histories, loo.test_targets)
    rows = metric_rows(found)
    figures = ", ".join(f"{metric.upper()} {rows[metric].mean():.4f}" for metric in ("hr@10", "ndcg@10"))
    progress(f"{name}: {figures}; all test items ranked in {time.perf_counter() - begun:.0f} s")
    return found


def without_training(loo: LeaveOneOut) -> RanksOf:
    """Ranks by the recommenders that draw nothing, so that one fit stands for all seeds."""
    parts = classic_parts(loo.train, likeness(loo.attributes_NF))
    found = {"popularity": tested(Popularity.fit(loo.train), loo, "popularity")}
    found |= {name: tested(parts[name], loo, name) for name in ("item_knn", "user_knn", "transitions")}
    graph = Hybrid.fit({name: parts[name] for name in ("transitions", "attributes")}, loo.train, loo.val_targets)
    return found | {"transitions_and_attributes": tested(graph, loo, "transitions and attributes")}


def by_ease(loo: LeaveOneOut) -> RanksOf:
    """Ranks by EASE, apart from the others because it alone is cubic in the catalogue."""
    num_products = loo.train.num_products
    progress(f"ease: a matrix of {num_products:,} x {num_products:,} is inverted ({4 * num_products**2 / 1e9:.1f} GB) ...")
    return {"ease": tested(ease(loo.train), loo, "ease")}


def notes(loo: LeaveOneOut) -> tuple[str, ...]:
    """What a reader of the figures should know of the data and of what was left out."""
    num_products, num_bare = loo.train.num_products, int((np.diff(loo.attributes_NF.indptr) == 0).sum())
    num_unseen = num_products - len(np.unique(loo.train.products))
    found = [f"{num_bare:,} of {num_products:,} items have no attributes."] if num_bare else []
    found += [f"{num_unseen:,} of {num_products:,} items are in no training history."] if num_unseen else []
    if num_products > _EASE_UP_TO:
        found.append(
            f"EASE is left out: it inverts a matrix of the catalogue squared, here {4 * num_products**2 / 1e9:.0f} GB; up to {_EASE_UP_TO:,} items it is run."
        )
    return tuple(found)


def trained(loo: LeaveOneOut, config: RecipeConfig, number: int, seed: int) -> NextItem:
    """One encoder of one seed."""
    return encoder(loo.train, loo.attributes_NF, config, number, seed=seed, progress=lambda said: progress(f"seed {seed}, {said}"))


def seeded(loo: LeaveOneOut, config: RecipeConfig, encoders: list[NextItem], seed: int) -> tuple[RanksOf, Stacking]:
    """Ranks by the recipe and by its first encoder alone (the one on thinned histories, which is not the sharper by itself: ADR 0165)."""
    told = f"seed {seed}, "
    ours = stacked(loo.train, loo.val_targets, loo.attributes_NF, encoders, config, seed=seed, progress=lambda said: progress(told + said))
    found = {name: tested(one, loo, told + name) for name, one in (("first_encoder", encoders[0]), (_OURS, ours))}
    return found, Stacking(recall=ours.recall, held_out_nats=ours.held_out_nats, epochs_kept=ours.epochs_kept)


def spread(loo: LeaveOneOut, config: RecipeConfig, num_seeds: int, processes: int) -> tuple[RanksOf, list[tuple[RanksOf, Stacking]]]:
    """Ranks by what draws nothing, and what `seeded` says of each seed. Every figure is the same for any number of processes.

    Raises:
        GuideLensError: a process was ended from outside.
    """
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    try:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            encoders = [[pool.submit(trained, loo, config, number, seed) for number in range(len(config.encoders))] for seed in range(num_seeds)]
            classic = [pool.submit(work, loo) for work in (without_training, by_ease) if work is not by_ease or loo.train.num_products <= _EASE_UP_TO]
            runs: list[Future[tuple[RanksOf, Stacking]]] = []
            for seed, fitted in enumerate(encoders):
                runs.append(pool.submit(seeded, loo, config, [one.result() for one in fitted], seed))
            fixed = {name: ranks_R for work in classic for name, ranks_R in work.result().items()}
            return fixed, [run.result() for run in runs]
    except BrokenProcessPool as error:
        raise GuideLensError(f"a process of the study was ended from outside, most likely for want of memory; run it with --processes 1 ({error})") from error


def studied(loo: LeaveOneOut, config: RecipeConfig, num_seeds: int, command: str, processes: int) -> NextItemStudy:
    said = notes(loo)
    for note in said:
        progress(note)
    begun = time.perf_counter()
    fixed, runs = spread(loo, config, num_seeds, processes)
    minutes = (time.perf_counter() - begun) / 60 / num_seeds
    found = {name: np.stack([ranks_R] * num_seeds) for name, ranks_R in fixed.items()}
    found |= {name: np.stack([run[name] for run, _ in runs]) for name in runs[0][0]}
    return NextItemStudy(
        machine=machine(),
        date=today(),
        command=command,
        shoppers=len(loo.train),
        items=loo.train.num_products,
        seeds=num_seeds,
        processes=processes,
        minutes_a_seed=minutes,
        notes=said,
        config=config,
        metrics={name: intervals(ranks_SR) for name, ranks_SR in found.items()},
        gain_over={name: gains(found[_OURS], ranks_SR) for name, ranks_SR in found.items() if name != _OURS},
        stacking=tuple(how for _, how in runs),
    )


def as_markdown(study: NextItemStudy) -> str:
    lines = [
        "# The next item",
        "",
        f"`{study.command}`, {study.machine}, {study.date}: {study.shoppers:,} shoppers, {study.items:,} items, {study.seeds} seeds, "
        f"{study.minutes_a_seed:.1f} minutes a seed in {study.processes} processes of one thread.",
        "Last item of each shopper ranked among all items not taken before; trained on all but the last two. 95 % intervals over seeds and shoppers.",
        *study.notes,
        "",
        *as_lines(study.metrics),
        "",
        "What the recipe gains over each, on the same seeds and shoppers:",
        "",
        *as_lines(study.gain_over),
    ]
    return "\n".join([*lines, ""])


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Lines of a shopper and its items, oldest first.")
@click.option("--attributes", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), help="JSON: attribute numbers by item.")
@click.option("--seeds", default=3, type=click.IntRange(min=1))
@click.option("--json", "out", default=None, type=click.Path(dir_okay=False, path_type=Path), help="File for the figures.")
@click.option("--processes", default=2, type=click.IntRange(min=1), help="Processes of one thread each.")
def command(data: Path, attributes: Path, seeds: int, out: Path | None, processes: int) -> None:
    """Train the recipe on a log, rank each shopper's last item, and print the table."""
    said = f"python -m benchmarks.next_item --data {data.name} --attributes {attributes.name} --seeds {seeds}"
    study = studied(read(data, attributes), RecipeConfig(), seeds, said, processes)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(study.model_dump(mode="json"), indent=1) + "\n")
    print(as_markdown(study))


if __name__ == "__main__":
    run_command(command)
