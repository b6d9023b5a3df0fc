"""What is taken next? The next-item recipe beside classic recommenders and its own encoder alone, on a log in S3-Rec's format.

    python -m benchmarks.next_item --data Beauty.txt --attributes Beauty_item2attributes.json [--seeds 3] [--json OUT]

Leave-one-out over all items (benchmarks/_leave_one_out.py says how). The recipe is the same for every data set: its settings were chosen once, on
Beauty's validation items; on each data set its own validation items set how loud each part is, and nothing else. Intervals are a bootstrap
over seeds and shoppers together.
"""

# Letters: R = shoppers, S = seeds.

import json
import time
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks._leave_one_out import LeaveOneOut, as_lines, gains, intervals, metric_rows, ranks, read
from benchmarks._results import machine, today
from guidelens.evaluation.bootstrap import Interval
from guidelens.models.baselines.hybrid import Hybrid
from guidelens.models.baselines.linear import ease
from guidelens.models.baselines.recommender import Recommender
from guidelens.models.next_item_hybrid import RecipeConfig, classic_parts, encoder_parts, mixed
from guidelens.schemas.base import Frozen
from pipelines.entry import progress, run_command

_EASE_UP_TO = 13_000
_OURS = "guidelens"


class Weights(Frozen):
    """How loud each part of a seed's hybrid came out: at a history of average length, and the change a unit of log-length."""

    at_average_length: dict[str, float]
    change_by_length: dict[str, float]


class NextItemStudy(Frozen):
    """metrics and gain_over: by recommender, then by metric. gain_over: ours minus theirs, on the same seeds and shoppers."""

    machine: str
    date: str
    command: str
    shoppers: int
    items: int
    seeds: int
    minutes_a_seed: float
    config: RecipeConfig
    metrics: dict[str, dict[str, Interval]]
    gain_over: dict[str, dict[str, Interval]]
    weights: tuple[Weights, ...]


def tested(recommender: Recommender, loo: LeaveOneOut, name: str) -> NDArray[np.int64]:
    """(R,) ranks of the test items."""
    begun = time.perf_counter()
    found = ranks(recommender, loo.test_histories, loo.test_targets)
    rows = metric_rows(found)
    figures = ", ".join(f"{metric.upper()} {rows[metric].mean():.4f}" for metric in ("hr@10", "ndcg@10"))
    progress(f"{name}: {figures}; all test items ranked in {time.perf_counter() - begun:.0f} s")
    return found


def without_training(loo: LeaveOneOut) -> dict[str, NDArray[np.int64]]:
    """Ranks by the recommenders that draw nothing, so that one fit stands for all seeds."""
    parts = classic_parts(loo.train, loo.attributes_NF)
    graph = Hybrid.fit({name: parts[name] for name in ("transitions", "attributes")}, loo.train, loo.val_targets)
    found = {name: tested(parts[name], loo, name) for name in ("popularity", "item_knn", "user_knn", "transitions")}
    found["transitions_and_attributes"] = tested(graph, loo, "transitions and attributes")
    if loo.train.num_products <= _EASE_UP_TO:
        progress("ease: one matrix as large as the catalogue squared is inverted ...")
        found["ease"] = tested(ease(loo.train), loo, "ease")
    return found


def seeded(loo: LeaveOneOut, config: RecipeConfig, seed: int) -> tuple[dict[str, NDArray[np.int64]], Weights]:
    """Ranks by the recipe and by its first encoder alone."""
    encoders = encoder_parts(loo.train, loo.attributes_NF, config, seed=seed, progress=lambda said: progress(f"seed {seed}, {said}"))
    ours = mixed(classic_parts(loo.train, loo.attributes_NF) | encoders, loo.train, loo.val_targets, seed=seed)
    found = {name: tested(one, loo, f"seed {seed}, {name}") for name, one in (("encoder_alone", encoders["encoder_0"]), (_OURS, ours))}
    loud = Weights(
        at_average_length=dict(zip(ours.parts, ours.weights_S.tolist(), strict=True)),
        change_by_length=dict(zip(ours.parts, ours.slopes_S.tolist(), strict=True)),
    )
    return found, loud


def studied(loo: LeaveOneOut, config: RecipeConfig, num_seeds: int, command: str) -> NextItemStudy:
    begun = time.perf_counter()
    runs = [seeded(loo, config, seed) for seed in range(num_seeds)]
    minutes = (time.perf_counter() - begun) / 60 / num_seeds
    found = {name: np.stack([ranks_R] * num_seeds) for name, ranks_R in without_training(loo).items()}
    found |= {name: np.stack([run[name] for run, _ in runs]) for name in runs[0][0]}
    return NextItemStudy(
        machine=machine(),
        date=today(),
        command=command,
        shoppers=len(loo.train),
        items=loo.train.num_products,
        seeds=num_seeds,
        minutes_a_seed=minutes,
        config=config,
        metrics={name: intervals(ranks_SR) for name, ranks_SR in found.items()},
        gain_over={name: gains(found[_OURS], ranks_SR) for name, ranks_SR in found.items() if name != _OURS},
        weights=tuple(loud for _, loud in runs),
    )


def as_markdown(study: NextItemStudy) -> str:
    lines = [
        "# The next item",
        "",
        f"`{study.command}`, {study.machine}, {study.date}: {study.shoppers:,} shoppers, {study.items:,} items, {study.seeds} seeds, "
        f"{study.minutes_a_seed:.1f} minutes a seed.",
        "Last item of each shopper ranked among all items not taken before; trained on all but the last two. 95 % intervals over seeds and shoppers.",
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
@click.option("--threads", default=2, type=click.IntRange(min=1), help="Threads of torch.")
def command(data: Path, attributes: Path, seeds: int, out: Path | None, threads: int) -> None:
    """Train the recipe on a log, rank each shopper's last item, and print the table."""
    torch.set_num_threads(threads)
    said = f"python -m benchmarks.next_item --data {data.name} --attributes {attributes.name} --seeds {seeds}"
    study = studied(read(data, attributes), RecipeConfig(), seeds, said)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(study.model_dump(mode="json"), indent=1) + "\n")
    print(as_markdown(study))


if __name__ == "__main__":
    run_command(command)
