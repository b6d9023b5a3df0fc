"""How well is interest (T2) told, beside the simulated shop's hidden truth and beside what can be told at all?

    python -m benchmarks.interest [--seeds 1000-1004] [--preset laptop] [--out benchmarks/results]

A seed draws another shop, log and split; its log is taken in without photos and the joint model is fitted, as `benchmarks.plans` does. The
log knows interest from the visits of products that were clicked, through noisy times, some cut off. The truth is the world's latent interest
of the session's shopper in each product shown, without the noise of the moment: no table holds it.

What observables allow is estimated by a model of the same family and inputs that is taught the truth itself, of every product shown in the
training part. It is a lower bound: a better family might tell more from the same inputs. Spearman's rank correlation is over all pairs of
request and product that the test part showed; calibration and squared error over the pairs whose interest the log holds.
"""

# Letters: R = rows of the test part, K = places of a slate, N = products.

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks._plan_worlds import Learned, learn
from benchmarks._results import keep, machine, today
from benchmarks.seeds import Figure, figure_of, figure_rows, parse_seeds
from guidelens.config import Config
from guidelens.data.examples import Examples
from guidelens.evaluation.calibration import regression
from guidelens.inference.scorer import GuideScorer
from guidelens.presets import load
from guidelens.schemas.base import Frozen
from guidelens.training.data import FitJob
from guidelens.training.fit import fit_guide
from guidelens.training.publish import publish
from guidelens.world.parameters import WORLD_V1
from pipelines.cluster import ray_session
from pipelines.entry import progress, run_command

Floats = NDArray[np.floating]
ALONE = {"recommendation": 0.0, "interest": 1.0, "plan": 0.0}
MODEL, SINGLE, TAUGHT, OF_PRODUCT = "the joint model", "interest alone", "the same inputs, taught the truth", "the product's mean interest"


class InterestStudy(Frozen):
    """spearman: with the latent truth, by who tells it. share: of what observables allow. mse_ratio: the joint model's squared error over the
    training mean's; ece: expected calibration error; both against what the log observed. pairs: by seed, observed for training, shown for testing."""

    machine: str
    date: str
    command: str
    seeds: tuple[int, ...]
    spearman: dict[str, Figure]
    share: Figure
    mse_ratio: Figure
    ece: Figure
    pairs: tuple[tuple[int, int], ...]


def truth_of(learned: Learned, part: Examples) -> NDArray[np.float32]:
    """(R, K) latent interest of what was shown; NaN at padded places."""
    row_of = {product_id: row for row, product_id in enumerate(learned.world.product_ids)}
    world_row_N = np.array([row_of[product_id] for product_id in learned.scorer.catalogue.product_ids], dtype=np.int64)
    latent_RN = learned.world.expectations(part.session_id.tolist()).interest
    shown_RK = np.take_along_axis(latent_RN, world_row_N[np.maximum(part.slate_rows, 0)], axis=1)
    return np.where(part.slate_rows >= 0, shown_RK, np.nan).astype(np.float32)


def measure(learned: Learned, folder: Path) -> dict[str, float]:
    """One world's figures by name: Spearman's correlations by who tells, `mse_ratio` and `ece`."""
    train, test = learned.examples.of("train"), learned.examples.of("test")
    taught = dataclasses.replace(learned.examples, interest=truth_of(learned, learned.examples), interest_observed=learned.examples.slate_rows >= 0)
    told_RK = {
        MODEL: learned.scorer.slate_scores(test).interest,
        SINGLE: _alone(learned, learned.examples, folder / "single").slate_scores(test).interest,
        TAUGHT: _alone(learned, taught, folder / "taught").slate_scores(test).interest,
        OF_PRODUCT: _product_means(train, len(learned.scorer.catalogue))[np.maximum(test.slate_rows, 0)],
    }
    shown_RK, truth_RK = test.slate_rows >= 0, truth_of(learned, test)
    found = {name: float(spearmanr(told[shown_RK], truth_RK[shown_RK]).statistic) for name, told in told_RK.items()}
    seen_RK = test.interest_observed & shown_RK
    known = train.interest[train.interest_observed & (train.slate_rows >= 0)]
    against = regression(told_RK[MODEL][seen_RK].astype(np.float64), test.interest[seen_RK].astype(np.float64), float(known.mean()))
    return found | {"mse_ratio": against.mse / against.constant_mse, "ece": against.calibration.ece}


def _alone(learned: Learned, examples: Examples, folder: Path) -> GuideScorer:
    """A model of the same shape, fitted to these rows' interest and nothing else."""
    catalogue, config, medians = learned.scorer.catalogue, learned.config, learned.scorer.header.medians
    jobs = [FitJob(name="guide", lambdas=ALONE, model=config.train.model)]
    fit = folder / "fit"
    fit.mkdir(parents=True)
    publish(fit_guide(examples, catalogue, config, jobs, folder / "work"), jobs, examples, catalogue, medians, fit)
    (fit / learned.items.name).write_bytes(learned.items.read_bytes())
    return GuideScorer.load(fit)


def _product_means(train: Examples, num_products: int) -> Floats:
    """(N,) mean observed interest in each product, drawn to the mean of all as if it had been observed ten times more."""
    seen_RK = train.interest_observed & (train.slate_rows >= 0)
    rows, interest = train.slate_rows[seen_RK], train.interest[seen_RK].astype(np.float64)
    total, count = np.bincount(rows, interest, num_products), np.bincount(rows, minlength=num_products)
    means: Floats = (total + 10 * interest.mean()) / (count + 10)
    return means


def one_world(config: Config) -> tuple[dict[str, float], tuple[int, int]]:
    with tempfile.TemporaryDirectory(prefix="gl-interest-") as name:
        learned = learn(config, WORLD_V1, Path(name))
        train, test = learned.examples.of("train"), learned.examples.of("test")
        pairs = int((train.interest_observed & (train.slate_rows >= 0)).sum()), int((test.slate_rows >= 0).sum())
        return measure(learned, Path(name)), pairs


def study(seeds: Sequence[int], preset: str, line: str) -> InterestStudy:
    """One world a seed, one after another, in one Ray session."""
    found, pairs = [], []
    with ray_session():
        for seed in seeds:
            measured, counts = one_world(load(preset, seed=seed))
            found.append(measured)
            pairs.append(counts)
            progress(f"seed {seed}: " + ", ".join(f"{name} {value:.4f}" for name, value in measured.items()))
    figures = {name: figure_of([one[name] for one in found]) for name in found[0]}
    return InterestStudy(
        machine=machine(),
        date=today(),
        command=line,
        seeds=tuple(seeds),
        spearman={name: figures[name] for name in (MODEL, SINGLE, TAUGHT, OF_PRODUCT)},
        share=figure_of([one[MODEL] / one[TAUGHT] for one in found]),
        mse_ratio=figures["mse_ratio"],
        ece=figures["ece"],
        pairs=tuple(pairs),
    )


def as_markdown(found: InterestStudy) -> str:
    observed, shown = (", ".join(f"{pair[place]:,}" for pair in found.pairs) for place in (0, 1))
    rows = {f"Spearman with the latent truth: {name}": figure for name, figure in found.spearman.items()}
    rows |= {"share of what observables allow": found.share, "squared error over a constant's": found.mse_ratio, "expected calibration error": found.ece}
    lines = [
        "# Interest in the simulated shop",
        "",
        f"`{found.command}`, {found.machine}, {found.date}. Seeds {', '.join(map(str, found.seeds))}; pairs observed for training {observed}; "
        f"shown in the test part {shown}. 95 % intervals, Student's t over seeds.",
        "",
        *figure_rows(rows, ".3f"),
        "",
        "The model taught the truth sees what the others see; it estimates, from below, what these inputs allow.",
        "",
    ]
    return "\n".join(lines)


@click.command()
@click.option("--seeds", default="1000-1004", show_default=True, callback=parse_seeds)
@click.option("--preset", default="laptop", show_default=True)
@click.option("--out", default=Path("benchmarks/results"), type=click.Path(file_okay=False, path_type=Path))
def command(seeds: tuple[int, ...], preset: str, out: Path) -> None:
    """Measure interest against the hidden truth and write benchmarks/results/interest.{json,md}."""
    found = study(seeds, preset, f"python -m benchmarks.interest --seeds {','.join(map(str, seeds))} --preset {preset}")
    keep(found, as_markdown(found), out, "interest")


if __name__ == "__main__":
    run_command(command)
