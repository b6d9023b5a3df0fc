"""Does each input move its task? The joint model fitted again without X1 (behaviour), X2 (product content) or X3 (AR), on a finished run's rows.

    python -m benchmarks.ablation [--home HOME] [--run RUN] [--world DIR] [--out benchmarks/results]

Same rows, targets, seed and epochs; only the inputs differ. Differences are per request or session, with intervals by a bootstrap
over shoppers. `--world` is the simulated shop the run's log came from: the plan is then valued in it, closed loop.
"""

import shutil
import tempfile
from pathlib import Path

import click
import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks._results import keep, machine, today
from guidelens.config import Config, Home, Modality
from guidelens.data.examples import Examples
from guidelens.data.visits import InterestMedians
from guidelens.errors import NotFoundError
from guidelens.evaluation.bootstrap import Interval
from guidelens.evaluation.guide import Draws
from guidelens.evaluation.plan_policies import GreedyGuide
from guidelens.evaluation.plans import with_plans
from guidelens.evaluation.ranking import clicked_requests, score_requests
from guidelens.inference.guide_files import ITEMS
from guidelens.inference.scorer import GuideScorer
from guidelens.models.items import Catalogue
from guidelens.registry import CHAMPION, Registry
from guidelens.schemas.base import Frozen
from guidelens.training.data import FitJob
from guidelens.training.fit import fit_guide
from guidelens.training.publish import publish
from guidelens.world import World
from pipelines.cluster import ray_session
from pipelines.entry import open_home, run_command
from pipelines.run_files import open_run

REMOVED: tuple[Modality, ...] = ("x1", "x2", "x3")
ROLLOUTS = 8
METRICS = {
    "ndcg_at_10": ("T1", "NDCG@10 of the clicked products among all products", +1),
    "click_loss": ("T1", "cross-entropy of a click on what was shown, nats", -1),
    "interest_mse": ("T2", "squared error of interest", -1),
    "plan_value": ("T3", "minor units an AR session earns, simulated, closed loop", +1),
}
EXPECTED = {"x1": ("ndcg_at_10", "click_loss", "interest_mse"), "x2": ("ndcg_at_10", "click_loss"), "x3": ("plan_value",)}


class Cell(Frozen):
    """One metric of the model without one input: its mean, and by how much leaving the input out made it worse (> 0: worse)."""

    mean: float
    worse_by: Interval


class Ablation(Frozen):
    machine: str
    date: str
    run: str
    seed: int
    preset: str
    full: dict[str, float]
    without: dict[str, dict[str, Cell]]


def per_row(scorer: GuideScorer, test: Examples, world: World | None) -> dict[str, tuple[NDArray[np.float64], NDArray[np.object_]]]:
    """Each metric as (values, shopper keys), a row a request or session."""
    rows, _ = clicked_requests(test)
    found = {"ndcg_at_10": (score_requests(scorer, test).ndcg, test.shopper_key[rows])}
    shown, observed, slates = test.slate_rows >= 0, test.interest_observed, scorer.slate_scores(test)
    losses = -np.log(np.where(test.click > 0, slates.click, 1 - slates.click)[shown].astype(np.float64))
    found["click_loss"] = (losses, np.repeat(test.shopper_key, shown.sum(axis=1)))
    errors = np.square(slates.interest - test.interest)[observed].astype(np.float64)
    found["interest_mse"] = (errors, np.repeat(test.shopper_key, observed.sum(axis=1)))
    if world is not None:
        known = set(world.ar_session_ids)
        planned = with_plans(test.take(np.array([session in known for session in test.session_id], dtype=np.bool_)))
        sessions = world.ar_sessions(planned.session_id.tolist())
        found["plan_value"] = (world.value(GreedyGuide(scorer, planned), sessions, seed=0, rollouts=ROLLOUTS), planned.shopper_key)
    return found


def ablate(examples: Examples, items: Path, config: Config, folder: Path, world: World | None) -> tuple[dict[str, float], dict[str, dict[str, Cell]]]:
    """Fits the full model and one without each input; means of the full one, and the others beside it."""
    catalogue = Catalogue.of_table(pl.read_parquet(items))
    shape, lambdas = config.train.model, dict(config.train.lambdas)
    jobs = [FitJob(name="full", lambdas=lambdas, model=shape)]
    jobs += [FitJob(name=f"without_{name}", lambdas=lambdas, model=shape.model_copy(update={"without": (name,)})) for name in REMOVED]
    with ray_session():
        fitted = fit_guide(examples, catalogue, config, jobs, folder / "work")
    publish(fitted, jobs, examples, catalogue, InterestMedians(), folder / "fit")
    shutil.copy(items, folder / "fit" / ITEMS)
    test, draws = examples.of("test"), Draws(config.evaluate.num_bootstrap, config.seed)
    rows = {job.name: per_row(GuideScorer.load(folder / "fit", job.name), test, world) for job in jobs}
    full = rows.pop("full")
    without = {}
    for name, found in rows.items():
        without[name.removeprefix("without_")] = {
            metric: Cell(mean=float(values.mean()), worse_by=_worse(metric, full[metric][0], values, keys, draws)) for metric, (values, keys) in found.items()
        }
    return {metric: float(values.mean()) for metric, (values, _) in full.items()}, without


def _worse(metric: str, full: NDArray[np.float64], less: NDArray[np.float64], keys: NDArray[np.object_], draws: Draws) -> Interval:
    return draws.gain(full, less, keys) if METRICS[metric][2] > 0 else draws.gain(less, full, keys)


def as_markdown(found: Ablation) -> str:
    """A table a person reads: rows are inputs left out, cells how much worse a metric got, with its 95 % interval."""
    metrics = list(found.full)
    lines = [
        "# What each input is worth",
        "",
        f"`python -m benchmarks.ablation` on run {found.run} (preset {found.preset}, seed {found.seed}), {found.machine}, {found.date}.",
        "Cells: by how much leaving the input out made the metric worse (95 % interval over shoppers; above 0 means that the input helps).",
        "",
        "| input left out | " + " | ".join(f"{METRICS[metric][0]}: {METRICS[metric][1]}" for metric in metrics) + " |",
        "|---" * (len(metrics) + 1) + "|",
        "| none (the metric itself) | " + " | ".join(f"{found.full[metric]:.4g}" for metric in metrics) + " |",
    ]
    for name, cells in found.without.items():
        shown = [f"{cells[metric].worse_by.value:+.4g} [{cells[metric].worse_by.low:+.4g}, {cells[metric].worse_by.high:+.4g}]" for metric in metrics]
        marked = [f"**{text}**" if metric in EXPECTED[name] else text for metric, text in zip(metrics, shown, strict=True)]
        lines.append(f"| {name.upper()} | " + " | ".join(marked) + " |")
    return "\n".join([*lines, "", "Bold: the task that the input is there for.", ""])


def champion_run(home: Home) -> str:
    """The run behind the home's champion.

    Raises:
        NotFoundError: the home has none.
    """
    registry = Registry(home)
    version = registry.alias(CHAMPION) if (home.root / "mlflow.db").exists() else None
    if version is None:
        raise NotFoundError(f"{home.root} has no champion whose rows can be fitted again; run `make demo` first, or name --home and --run")
    return registry.version(version).run_id


@click.command()
@click.option("--home", default=Path(".guidelens"), show_default=True, type=click.Path(file_okay=False, path_type=Path), help="A home with a finished run.")
@click.option("--run", "run_id", default=None, help="A finished training run of that home.  [default: the champion's]")
@click.option(
    "--world", default=None, type=click.Path(exists=True, file_okay=False, path_type=Path), help="The simulated shop of its log.  [default: the demo's]"
)
@click.option("--out", default=Path("benchmarks/results"), type=click.Path(file_okay=False, path_type=Path))
def command(home: Path, run_id: str | None, world: Path | None, out: Path) -> None:
    """Fit the joint model without each input and write benchmarks/results/ablation.{json,md}."""
    opened: Home = open_home(home)
    run_id = run_id or champion_run(opened)
    drawn = opened.root / "demo"
    world = world or (drawn if (drawn / "truth" / "world.json").exists() else None)
    folder = Path(tempfile.mkdtemp(prefix="gl-ablation-"))
    try:
        with open_run(opened, run_id) as files:
            config = files.record.config
            full, without = ablate(files.examples(), files.fit / ITEMS, config, folder, World.open(world) if world else None)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    found = Ablation(machine=machine(), date=today(), run=run_id, seed=config.seed, preset=config.preset, full=full, without=without)
    keep(found, as_markdown(found), out, "ablation")


if __name__ == "__main__":
    run_command(command)
