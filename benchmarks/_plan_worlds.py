"""A simulated shop's plans: its log taken in and learned from as a shop's own would be, then policies valued in it. No script of its own."""

# Letters: B = AR sessions of the test part.

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from guidelens.config import Config, Home, PlanLearning
from guidelens.data.examples import Examples
from guidelens.data.lake.lake import Lake
from guidelens.data.records.sources import IngestSources
from guidelens.evaluation.plan_policies import ActedSteps, FollowedPlans, GreedyGuide
from guidelens.evaluation.plans import as_scores, measure_likeness, on_logged_histories, open_loop, with_plans
from guidelens.evaluation.report import PlanScores
from guidelens.features import Features
from guidelens.inference.guide_files import ITEMS
from guidelens.inference.scorer import GuideScorer
from guidelens.models.items import Catalogue
from guidelens.models.outcomes import with_targets
from guidelens.models.plans.asked import StepPolicy
from guidelens.models.plans.baselines import SmallDecoder, log_baselines
from guidelens.schemas.base import Frozen
from guidelens.training.data import FitJob
from guidelens.training.fit import fit_guide
from guidelens.training.publish import publish
from guidelens.world import ArSessions, World, generate
from guidelens.world.parameters import WorldParameters
from guidelens.world.policy import GuidePolicy
from pipelines import ingest, materialize
from pipelines.fit_parts import read_examples

BEAM = 8


class Valued(Frozen):
    """One policy in one world, minor units a session: carried out closed loop, and its plans made at the start (greedy, and by a beam)."""

    closed_loop: float
    open_loop: float | None = None
    beam: float | None = None
    scores: PlanScores | None = None


@dataclass(frozen=True)
class Learned:
    """A fitted model of one world's log, and the rows it comes from. items: the file of its products."""

    world: World
    items: Path
    scorer: GuideScorer
    examples: Examples
    config: Config


def learn(config: Config, parameters: WorldParameters, folder: Path) -> Learned:
    """Draws the world of the config's seed without photos, takes its log in, and fits the joint model. Inside a Ray session."""
    drawn = generate(config.demo.world, config.seed, folder / "world", parameters=parameters, events_format="parquet", with_photos=False)
    home = Home(root=(folder / "home").absolute())
    ingest.run(home, config, IngestSources(catalogue=str(drawn.catalogue)))
    taken = ingest.run(home, config, IngestSources(shoppers=str(drawn.shoppers), events=(str(drawn.events),)))
    materialize.run(home, config, manifest=taken.manifest)
    items = Features(home, config.features).products().sort("product_id")
    catalogue, lake = Catalogue.of_table(items), Lake(home.lake_uri, home.s3)
    examples, medians = read_examples(home, config, lake, lake.manifest(taken.manifest), catalogue)
    examples = with_targets(examples, catalogue, config)
    jobs = [FitJob(name="guide", lambdas=dict(config.train.lambdas), model=config.train.model)]
    fit = folder / "fit"
    fit.mkdir()
    items.write_parquet(fit / ITEMS)
    publish(fit_guide(examples, catalogue, config, jobs, folder / "work"), jobs, examples, catalogue, medians, fit)
    return Learned(World.open(drawn.root), fit / ITEMS, GuideScorer.load(fit), examples, config)


def policies(learned: Learned) -> dict[str, StepPolicy]:
    """The joint model, the log's baselines, and the small decoder once for each other way to make its target weights."""
    examples, catalogue, config = learned.examples, learned.scorer.catalogue, learned.config
    shape = config.train.model
    found: dict[str, StepPolicy] = {"model": learned.scorer, **log_baselines(examples, catalogue, shape, config.seed)}
    train = examples.take((examples.split == "train") & (examples.targets.sum(axis=(1, 2)) > 0))
    found["small_fitted_q"] = SmallDecoder(train, catalogue, shape, config.seed)
    weighted = config.train.model_copy(update={"plan_learning": PlanLearning(targets="advantage")})
    train = with_targets(train, catalogue, config.model_copy(update={"train": weighted}))
    found["small_advantage"] = SmallDecoder(train, catalogue, shape, config.seed)
    return found


def values(learned: Learned, rollouts: int, seed: int) -> dict[str, Valued]:
    """Every policy on the test part's AR sessions, with common random numbers."""
    known = set(learned.world.ar_session_ids)
    planned = with_plans(learned.examples.of("test"))
    planned = planned.take(np.flatnonzero([session in known for session in planned.session_id]))
    sessions = learned.world.ar_sessions(planned.session_id.tolist())
    found = _of_the_world(learned, planned, sessions, rollouts, seed)
    for name, policy in policies(learned).items():
        followed = {way: width for way, width in (("open_loop", 1), ("beam", BEAM)) if not name.startswith("small")}
        plans = {way: FollowedPlans(open_loop(policy, planned, width, sessions.base)) for way, width in followed.items()}
        found[name] = Valued(
            closed_loop=_mean(learned.world, GreedyGuide(policy, planned), sessions, rollouts, seed),
            **{way: _mean(learned.world, guide, sessions, rollouts, seed, closed_loop=False) for way, guide in plans.items()},
            scores=_scores(policy, planned),
        )
    return found


def _of_the_world(learned: Learned, planned: Examples, sessions: ArSessions, rollouts: int, seed: int) -> dict[str, Valued]:
    world = learned.world
    own: Mapping[str, GuidePolicy] = {"script": world.script_policy(sessions), "fixed": world.fixed_plan_policy(sessions)}
    found = {
        "logging": Valued(closed_loop=float(world.logging_value(sessions, seed, rollouts).mean())),
        "reference": Valued(closed_loop=float(world.reference_value(sessions, seed, rollouts).mean())),
        "oracle": Valued(closed_loop=float(world.oracle_value(sessions).mean())),
    }
    for name, guide in own.items():
        value = _mean(world, guide, sessions, rollouts, seed)
        found[name] = Valued(closed_loop=value, open_loop=value, scores=_scores(ActedSteps(guide, learned.scorer.catalogue), planned))
    return found


def _mean(world: World, guide: GuidePolicy, sessions: ArSessions, rollouts: int, seed: int, *, closed_loop: bool = True) -> float:
    earned_B: NDArray[np.float64] = world.value(guide, sessions, seed, rollouts, closed_loop=closed_loop)
    return float(earned_B.mean())


def _scores(policy: StepPolicy, planned: Examples) -> PlanScores:
    return as_scores(measure_likeness(policy, planned, on_logged_histories(policy, planned)))


def one_world(config: Config, parameters: WorldParameters, rollouts: int) -> tuple[dict[str, Valued], dict[str, int]]:
    """Values by policy, and how much there was to learn from and to value on."""
    with tempfile.TemporaryDirectory(prefix="gl-plans-") as folder:
        learned = learn(config, parameters, Path(folder))
        train, test = (with_plans(learned.examples.of(split)) for split in ("train", "test"))
        counts = {"train_sessions": len(train), "train_kept": int(train.kept.sum()), "test_sessions": len(test)}
        return values(learned, rollouts, config.seed), counts
