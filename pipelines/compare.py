"""`guidelens compare`: two runs side by side, with paired differences on the test requests they share."""

import click
import numpy as np
from numpy.typing import NDArray

from guidelens.config import TASKS, Home
from guidelens.data.examples import Examples
from guidelens.evaluation.bootstrap import Interval
from guidelens.evaluation.guide import Draws
from guidelens.evaluation.plans import on_logged_histories, open_loop, with_plans
from guidelens.evaluation.ranking import clicked_requests, score_requests
from guidelens.evaluation.sequence import lengths, match_rows
from guidelens.inference.scorer import GuideScorer
from guidelens.registry import Registry
from guidelens.schemas.base import Frozen
from guidelens.schemas.ids import sub_seed
from guidelens.schemas.steps import MAX_STEPS
from pipelines.entry import emit, home_option, progress, run_command
from pipelines.run_files import RunFiles, open_run


class Compared(Frozen):
    """One metric of both runs. `difference`: second minus first, paired on shared test rows; null where only recorded."""

    name: str
    first: float | None
    second: float | None
    difference: Interval | None = None


class CompareResult(Frozen):
    """`unpaired_because`: why no metric has a difference; empty where they have."""

    first: str
    second: str
    metrics: tuple[Compared, ...]
    unpaired_because: str


def run(home: Home, first: str, second: str) -> CompareResult:
    """Compares two finished runs of a home.

    Raises:
        NotFoundError: there is no such run.
        InputError: a run did not finish.
    """
    registry = Registry(home)
    with open_run(home, first) as a, open_run(home, second) as b:
        why = _why_unpaired(a, b)
        paired = {} if why else _paired(a, b)
    recorded = [registry.metrics(run_id) for run_id in (first, second)]
    names = sorted(name for name in {*recorded[0], *recorded[1]} if name.startswith("test/"))
    rows = [
        *(Compared(name=name, first=pair[0], second=pair[1], difference=pair[2]) for name, pair in paired.items()),
        *(Compared(name=name, first=recorded[0].get(name), second=recorded[1].get(name)) for name in names),
    ]
    return CompareResult(first=first, second=second, metrics=tuple(rows), unpaired_because=why)


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


Pair = tuple[float, float, Interval]


def _paired(a: RunFiles, b: RunFiles) -> dict[str, Pair]:
    """Means of both runs and their paired difference, a metric; only those that the shared rows can tell and both runs learned."""
    shared = _shared(a, b)
    models = GuideScorer.load(a.fit), GuideScorer.load(b.fit)
    draws = Draws(a.record.config.evaluate.num_bootstrap, sub_seed(a.record.seed, "compare"))
    found: dict[str, Pair] = {}
    rows_R, _ = clicked_requests(shared)
    learned = {task for task in TASKS if all(model.header.learned(task) for model in models)}
    if len(rows_R) and "recommendation" in learned:
        scored = [score_requests(model, shared) for model in models]
        found["NDCG@10"] = _pair(scored[0].ndcg, scored[1].ndcg, shared.shopper_key[rows_R], draws)
        found["recall@10"] = _pair(scored[0].recall, scored[1].recall, shared.shopper_key[rows_R], draws)
    seen_RK = shared.interest_observed & (shared.slate_rows >= 0)
    if seen_RK.any() and "interest" in learned:
        errors = [(model.slate_scores(shared).interest[seen_RK] - shared.interest[seen_RK]).astype(np.float64) ** 2 for model in models]
        found["interest squared error"] = _pair(errors[0], errors[1], np.repeat(shared.shopper_key, seen_RK.sum(axis=1)), draws)
    planned = with_plans(shared)
    if len(planned) and "plan" in learned:
        matches = [_match(model, planned) for model in models]
        found["plan edit similarity"] = _pair(matches[0], matches[1], planned.shopper_key, draws)
        accuracies = [_accuracy(model, planned) for model in models]
        found["plan step accuracy"] = _pair(accuracies[0], accuracies[1], planned.shopper_key, draws)
    return found


def _pair(first_R: NDArray[np.float64], second_R: NDArray[np.float64], clusters_R: NDArray[np.object_], draws: Draws) -> Pair:
    return float(first_R.mean()), float(second_R.mean()), draws.gain(second_R, first_R, clusters_R)


def _match(model: GuideScorer, planned: Examples) -> NDArray[np.float64]:
    there_BS = np.arange(MAX_STEPS) < lengths(planned.steps)[:, None]
    return match_rows(np.where(there_BS, open_loop(model, planned), -1), planned.steps)


def _accuracy(model: GuideScorer, planned: Examples) -> NDArray[np.float64]:
    """(B,) share of a plan's steps that the model's likeliest step equals, given what was logged before."""
    there_BS = planned.steps >= 0
    right_BS = (on_logged_histories(model, planned).argmax(axis=2) == planned.steps) & there_BS
    return np.asarray(right_BS.sum(axis=1) / there_BS.sum(axis=1), dtype=np.float64)


def _line(row: Compared) -> str:
    values = " ".join(f"{value:10.4f}" if value is not None else f"{'–':>10s}" for value in (row.first, row.second))
    if row.difference is None:
        return f"{row.name:34s} {values}"
    sure = " *" if row.difference.excludes_zero() else ""
    return f"{row.name:34s} {values}   {row.difference.value:+.4f} [{row.difference.low:+.4f}, {row.difference.high:+.4f}]{sure}"


@click.command(name="compare")
@click.argument("first")
@click.argument("second")
@home_option
def command(first: str, second: str, home: Home) -> None:
    """Show runs FIRST and SECOND side by side.

    Differences (second minus first) are paired on the test requests that both runs have, with 95 % intervals; a star marks
    those that exclude zero.
    """
    result = run(home, first, second)
    if result.unpaired_because:
        progress(f"recorded metrics only: {result.unpaired_because}")
    for row in result.metrics:
        progress(_line(row))
    emit(result)


if __name__ == "__main__":
    run_command(command)
