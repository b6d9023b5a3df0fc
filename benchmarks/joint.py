"""Do the two tasks help each other on real ratings? One joint model against its own single-task controls and the classic estimates.

    python -m benchmarks.joint --data DIR [--seeds 3] [--splits 1] [--json OUT] [--on validation]

DIR is a MovieLens folder in any form the adapter reads (RecBole's atomic files or GroupLens' own); T1 is a like (a rating of 4 or more,
AUC), T2 the rating (RMSE). Rows are dealt 8:1:1 at random by one fixed seed; models see the training part only. The recipe is
RatingTrainConfig's defaults, chosen on the validation part, and is not changed for the data at hand. A tenth of the rows says little of small
gains: with more splits rows are dealt anew, by the seeds that follow, and figures are means over the splits.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks._results import keep, machine, today
from guidelens.data.adapters import movielens
from guidelens.data.ratings import Ratings, random_split
from guidelens.evaluation.bootstrap import Interval
from guidelens.evaluation.ratings import Metric, difference, interval, like_auc, mean_of, rmse, within
from guidelens.models.rating_baselines import Biases, RatingKnn
from guidelens.schemas.base import Frozen
from guidelens.training.ratings import RatingLoss, RatingTrainConfig, fit_ratings
from pipelines.entry import progress, run_command

SPLIT, SPLIT_SEED = (8, 1, 1), 2020
NUM_BOOTSTRAP = 1000
JOINT, WITHOUT_TIMES = "joint", "joint, without times"
CONTROLS: dict[str, dict[RatingLoss, float]] = {
    "single task: like": {"like": 1.0},
    "single task: rating": {"rating": 1.0},
    "levels of the rating alone": {"like": 1.0, "levels": 3.0},
}
"""The same model with some of its losses left out."""
AIM_AUC, AIM_RMSE = 0.800, 0.915
_SHOWN = 5


class Said(NamedTuple):
    """(R,) what a model says of the held-back rows; None for a task it was not fitted to."""

    rating: NDArray[np.floating] | None
    like: NDArray[np.floating] | None


class Figure(Frozen):
    """A metric, mean over seeds and splits, with its 95 % interval over shoppers; by_seed: of each model fitted, split by split."""

    mean: Interval
    by_seed: tuple[float, ...]


class Row(Frozen):
    """One model. A metric of a task that it was not fitted to is None."""

    auc: Figure | None
    rmse: Figure | None
    seconds: float


class JointStudy(Frozen):
    """gains: of the joint model over another, above 0 where it is better; auc as a difference, rmse as how much lower. splits: seeds of the deals."""

    machine: str
    date: str
    command: str
    judged_on: str
    ratings: dict[str, int]
    seeds: tuple[int, ...]
    splits: tuple[int, ...]
    recipe: RatingTrainConfig
    rows: dict[str, Row]
    gains: dict[str, dict[str, Interval]]
    reached: dict[str, bool]


Models = Mapping[str, Sequence[Said]]
"""By name; one of each seed, or the only one of a model without a seed."""


class Judged(NamedTuple):
    """A split's judged rows and what the models fitted to its training part say of them."""

    rows: Ratings
    said: Models


def fit_all(train: Ratings, validation: Ratings, judged: Ratings, recipe: RatingTrainConfig, seeds: Sequence[int]) -> tuple[Models, dict[str, float]]:
    """What every model says of `judged`, and the seconds a fit of it took. `validation` chooses among the baselines' settings."""
    found: dict[str, list[Said]] = {}
    seconds: dict[str, float] = {}

    def note(name: str, make: Callable[[], Said]) -> None:
        start = time.perf_counter()
        found.setdefault(name, []).append(make())
        seconds[name] = round(seconds.get(name, 0.0) + time.perf_counter() - start, 1)
        progress(f"{name}: {seconds[name]:.0f} s so far")

    note("constant", lambda: _both(np.full(len(judged), train.rating_R.mean())))
    note("biases", lambda: _both(Biases.fit(train).predict(judged)))
    note("nearest neighbours (KNNBaseline)", lambda: _both(_best_knn(train, validation).predict(judged)))
    for seed in seeds:
        note(JOINT, partial(_fitted, train, judged, recipe, seed))
        for name, lambdas in CONTROLS.items():
            note(name, partial(_fitted, train, judged, recipe.model_copy(update={"lambdas": lambdas}), seed))
        note(WITHOUT_TIMES, partial(_fitted, _timeless(train), _timeless(judged), recipe, seed))
    return found, {name: round(total / len(found[name]), 1) for name, total in seconds.items()}


def _both(rating_R: NDArray[np.floating]) -> Said:
    """A model of ratings alone ranks likes by the rating."""
    return Said(rating_R, rating_R)


def _best_knn(train: Ratings, validation: Ratings) -> RatingKnn:
    every = np.ones(len(validation))
    return min(RatingKnn.candidates(train), key=lambda knn: rmse(knn.predict(validation), validation.rating_R)(every))


def _fitted(train: Ratings, judged: Ratings, recipe: RatingTrainConfig, seed: int) -> Said:
    said = fit_ratings(train, recipe, seed).predict(judged)
    weights = recipe.lambdas
    return Said(said.rating if weights.get("rating") or weights.get("levels") else None, said.like if weights.get("like") else None)


def _timeless(ratings: Ratings) -> Ratings:
    return dataclasses.replace(ratings, time_R=np.zeros_like(ratings.time_R))


def judge(judged: Sequence[Judged], seconds: Mapping[str, float], liked: float) -> tuple[dict[str, Row], dict[str, dict[str, Interval]]]:
    """Every model's figures, and the joint model's gains over each other one. A shopper who is drawn is drawn with the rows of all splits."""
    shopper_R = np.concatenate([split.rows.shopper_R for split in judged])
    metrics: dict[str, dict[str, list[Metric]]] = {"auc": {}, "rmse": {}}
    start = 0
    for asked, found in judged:
        place = slice(start, start := start + len(asked))
        lowest, highest = float(asked.rating_R.min()), float(asked.rating_R.max())
        for name, said in found.items():
            if (scores := [some.like for some in said if some.like is not None]) and np.ptp(scores[0]) > 0:
                metrics["auc"].setdefault(name, []).extend(within(like_auc(like_R, asked.rating_R >= liked), place) for like_R in scores)
            if ratings := [some.rating for some in said if some.rating is not None]:
                metrics["rmse"].setdefault(name, []).extend(within(rmse(rating_R.clip(lowest, highest), asked.rating_R), place) for rating_R in ratings)

    def sure(metric: Metric) -> Interval:
        return interval(metric, shopper_R, num_bootstrap=NUM_BOOTSTRAP, seed=SPLIT_SEED)

    every = np.ones(len(shopper_R))
    figures = {
        kind: {name: Figure(mean=sure(mean_of(some)), by_seed=tuple(m(every) for m in some)) for name, some in of.items()} for kind, of in metrics.items()
    }
    rows = {name: Row(auc=figures["auc"].get(name), rmse=figures["rmse"].get(name), seconds=seconds[name]) for name in judged[0].said}
    gains: dict[str, dict[str, Interval]] = {}
    for kind, of in metrics.items():
        ours = mean_of(of[JOINT])
        for name in of.keys() - {JOINT}:
            theirs = mean_of(of[name])
            gains.setdefault(name, {})[kind] = sure(difference(ours, theirs) if kind == "auc" else difference(theirs, ours))
    return rows, {name: gains[name] for name in rows if name in gains}


def reached(rows: Mapping[str, Row], gains: Mapping[str, Mapping[str, Interval]]) -> dict[str, bool]:
    """Each aim by its words; "surely" where the interval of the gain excludes 0."""
    auc, error = rows[JOINT].auc, rows[JOINT].rmse
    assert auc is not None and error is not None, "the joint model has both tasks"
    like, rating = gains["single task: like"]["auc"], gains["single task: rating"]["rmse"]
    return {
        f"AUC >= {AIM_AUC}": auc.mean.value >= AIM_AUC,
        f"RMSE <= {AIM_RMSE}": error.mean.value <= AIM_RMSE,
        "AUC above the single task's": like.value > 0,
        "AUC surely above the single task's": like.low > 0,
        "RMSE below the single task's": rating.value > 0,
        "RMSE surely below the single task's": rating.low > 0,
    }


def as_markdown(found: JointStudy) -> str:
    counts = ", ".join(f"{count:,} {name}" for name, count in found.ratings.items())
    lines = [
        "# Likes and ratings from one model",
        "",
        f"`{found.command}`, {found.machine}, {found.date}. {counts}; judged on the {found.judged_on} part. Seeds: {', '.join(map(str, found.seeds))}. Rows dealt by the seeds {', '.join(map(str, found.splits))}.",
        "Intervals: 95 %, by drawing shoppers anew; gains are the joint model's, above 0 where it is better. Seconds: one fit with its predictions.",
        "",
        "| | AUC of a like | RMSE of the rating | joint model's gain in AUC | joint model's gain in RMSE | s |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in found.rows.items():
        gains = found.gains.get(name, {})
        lines.append(f"| {name} | {_figure(row.auc)} | {_figure(row.rmse)} | {_gain(gains.get('auc'))} | {_gain(gains.get('rmse'))} | {row.seconds:.1f} |")
    lines += ["", *(f"- {aim}: {'yes' if yes else 'no'}" for aim, yes in found.reached.items()), ""]
    return "\n".join(lines)


def _figure(figure: Figure | None) -> str:
    if figure is None:
        return ""
    by_seed = f"; {', '.join(f'{value:.4f}' for value in figure.by_seed)}" if 1 < len(figure.by_seed) <= _SHOWN else ""
    return f"{figure.mean.value:.4f} [{figure.mean.low:.4f}, {figure.mean.high:.4f}]{by_seed}"


def _gain(gain: Interval | None) -> str:
    return "" if gain is None else f"{gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="A MovieLens folder.")
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(1), help="How many seeds, from 0 on.")
@click.option("--splits", default=1, show_default=True, type=click.IntRange(1), help=f"How often the rows are dealt, from seed {SPLIT_SEED} on.")
@click.option("--on", "judged_on", default="test", show_default=True, type=click.Choice(["validation", "test"]), help="The part that is judged.")
@click.option("--json", "json_file", default=None, type=click.Path(dir_okay=False, path_type=Path), help="Write the figures there too.")
@click.option("--out", default=Path("benchmarks/results"), type=click.Path(file_okay=False, path_type=Path), help="Where joint.{json,md} go.")
def command(data: Path, seeds: int, splits: int, judged_on: str, json_file: Path | None, out: Path) -> None:
    """Fit and judge all models on a MovieLens folder and write joint.{json,md}; with more than one split, joint-splits.{json,md}."""
    torch.set_num_threads(1)
    ratings, recipe = Ratings.of_log(movielens.load(data)), RatingTrainConfig()
    judged: list[Judged] = []
    deals = range(SPLIT_SEED, SPLIT_SEED + splits)
    for deal in deals:
        progress(f"split {deal - SPLIT_SEED + 1} of {splits}")
        train, validation, test = (ratings.take(rows) for rows in random_split(len(ratings), SPLIT, deal))
        held_back = {"validation": validation, "test": test}[judged_on]
        said, seconds = fit_all(train, validation, held_back, recipe, range(seeds))
        judged.append(Judged(held_back, said))
    rows, gains = judge(judged, seconds, recipe.model.liked)
    given = f"{'' if splits == 1 else f' --splits {splits}'}{'' if judged_on == 'test' else f' --on {judged_on}'}"
    found = JointStudy(
        machine=machine(),
        date=today(),
        command=f"python -m benchmarks.joint --data DIR --seeds {seeds}{given}",
        judged_on=judged_on,
        ratings={"shoppers": len(ratings.shopper_SF), "products": len(ratings.product_PF), "ratings": len(ratings), "for training": len(train)},
        seeds=tuple(range(seeds)),
        splits=tuple(deals),
        recipe=recipe,
        rows=rows,
        gains=gains,
        reached=reached(rows, gains),
    )
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(found.model_dump_json(indent=1) + "\n")
    keep(found, as_markdown(found), out, "joint" if splits == 1 else "joint-splits")


if __name__ == "__main__":
    run_command(command)
