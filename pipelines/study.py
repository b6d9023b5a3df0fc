"""`guidelens study mtl`: sharing, balancing, weights and learning rates tried beside each other on one lake's rows, and one page about it."""

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from guidelens.config import FEATURE_SERVICE, Config, Home, TaskName
from guidelens.errors import ConfigError
from guidelens.schemas.base import Frozen
from pipelines.entry import config_options, emit, home_option, progress, run_command

if TYPE_CHECKING:
    from guidelens.data.examples import Examples
    from guidelens.training.study import Study, StudyPlan
    from guidelens.training.trials import Trial, TrialResult

STUDY = "study"


class StudyResult(Frozen):
    """study: path of study.json, with study.html beside it; also kept in MLflow as artifact `study` of `run`. best: name of the choice that
    validation preferred; settings: what `guidelens train` takes to train it."""

    study: str
    run: str
    best: str
    settings: tuple[str, ...]
    metrics: dict[str, float]


def run(home: Home, config: Config, plan: "StudyPlan", lake: str | None = None) -> StudyResult:
    """Runs the study on the newest snapshot of a lake and leaves its page in the home and in MLflow.

    Raises:
        NotFoundError: the lake has no catalogue, or nothing was materialized.
        ConfigError: the log holds labels of fewer than two tasks.
    """
    from guidelens.registry import Registry, flatten_params

    registry = Registry(home)
    run_id = registry.start_run(f"study-mtl-{config.preset}", flatten_params(config), {"study": "mtl", "feature_service": FEATURE_SERVICE})
    out, scratch = home.root / "studies" / run_id, home.work / f"study-{run_id}"
    try:
        study = _studied(home, config, plan, lake, scratch)
        out.mkdir(parents=True)
        _write(study, config, out)
        shutil.rmtree(scratch, ignore_errors=True)
        metrics = _metrics(study)
        registry.log_metrics(run_id, metrics)
        registry.log_folder(run_id, out, STUDY)
        registry.finish(run_id)
    except BaseException:
        registry.finish(run_id, "FAILED")
        raise
    return StudyResult(study=str(out / "study.json"), run=run_id, best=study.best, settings=_to_train(study), metrics=metrics)


def _to_train(study: "Study") -> tuple[str, ...]:
    return tuple(part for name, value in study.best_settings.items() for part in ("--set", f"{name}={value}"))


def _studied(home: Home, config: Config, plan: "StudyPlan", lake: str | None, scratch: Path) -> "Study":
    from guidelens.data.lake.lake import Lake
    from guidelens.models.items import Catalogue
    from guidelens.models.outcomes import with_targets
    from guidelens.schemas.tables import Table
    from guidelens.training.study import run_study
    from guidelens.training.trials import run_trials
    from pipelines.cluster import ray_session
    from pipelines.fit_parts import item_table, read_examples
    from pipelines.materialize import require_features_of

    opened = Lake(lake or home.lake_uri, home.s3)
    snapshot = opened.manifest(None)
    opened.require(snapshot, Table.PRODUCTS)
    require_features_of(home, opened, snapshot)
    catalogue = Catalogue.of_table(item_table(home, config, opened, snapshot))
    examples, _ = read_examples(home, config, opened, snapshot, catalogue)
    examples = with_targets(examples, catalogue, config)
    tasks = _comparable(config, examples)
    told = _Told()

    def fitted(trials: "Sequence[Trial]") -> "list[TrialResult]":
        told.expect(len(trials))
        return run_trials(examples, catalogue, trials, scratch / str(told.rounds), told.one)

    with ray_session():
        return run_study(plan, config, tasks, fitted, {split: len(examples.of(split)) for split in ("train", "val", "test")})


def _comparable(config: Config, examples: "Examples") -> tuple[TaskName, ...]:
    """The tasks that can be learned, chosen by and measured: those of which every part of the log holds a label."""
    from pipelines.fit_parts import learnable

    found = [task for task, weight in learnable(config, examples.of("train")).items() if weight > 0]
    for part, named in (("val", "validation"), ("test", "test")):
        for task in [task for task in found if task not in examples.of(part).labelled]:
            progress(f"study: {task} is left out: the log's {named} part holds no label of it")
            found.remove(task)
    return tuple(found)


class _Told:
    """Progress: a line a trial, with the time that the rest may take."""

    def __init__(self) -> None:
        self.rounds, self.done, self.total, self.start = 0, 0, 0, time.monotonic()

    def expect(self, total: int) -> None:
        self.rounds, self.done, self.total, self.start = self.rounds + 1, 0, total, time.monotonic()

    def one(self, result: "TrialResult") -> None:
        self.done += 1
        left = (time.monotonic() - self.start) / self.done * (self.total - self.done)
        shown = result.diverged or ", ".join(f"{name} {value:.4f}" for name, value in result.metrics["val"].items())
        progress(f"study: {self.done} of {self.total}: {result.trial.name}, seed {result.trial.seed}: {shown} (some {left / 60:.0f} min left of this round)")


def _metrics(study: "Study") -> dict[str, float]:
    """delta-m on test of every finalist, and its bounds where there are seeds enough, by MLflow name."""
    found = {}
    for final in study.finals:
        if final.delta_m is not None:
            name = "best" if final.name == study.best else final.name.removeprefix("joint ").replace(" ", ".")
            found[f"delta_m.{name}"] = final.delta_m.value
            if final.delta_m.low is not None and final.delta_m.high is not None:
                found |= {f"delta_m.{name}.low": final.delta_m.low, f"delta_m.{name}.high": final.delta_m.high}
    return found


def _write(study: "Study", config: Config, out: Path) -> None:
    from guidelens.evaluation.study_html import FinalRow, StudyPage, TriedRow, render
    from guidelens.training.study import METRIC_OF

    (out / "study.json").write_text(json.dumps(study.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n")
    prefix = "gradient_cosine."
    tried = tuple(
        TriedRow(
            name=row.name.removeprefix("joint "),
            group=row.name.split()[2],
            metrics=row.metrics,
            delta_m=row.delta_m,
            on_front=row.on_front,
            seconds=row.seconds,
            cosines={name.removeprefix(prefix).replace(".", " / "): value for name, value in row.signals.items() if name.startswith(prefix)},
            least_expert=row.signals.get("expert_share.least"),
        )
        for row in study.tried
    )
    page = StudyPage(
        title="Learning the tasks together",
        lead=f"{len(study.tried)} joint trials on {study.rows['train']:,} training rows · preset {config.preset}, seed {config.seed} · finals over seeds "
        + ", ".join(str(seed) for seed in study.plan.seeds),
        best=study.best,
        tried=tried,
        finals=tuple(FinalRow(name=row.name, metrics=row.metrics, delta_m=row.delta_m) for row in study.finals),
        singles={METRIC_OF[task]: value for task, value in study.singles_val.items()},
        notes=(
            "More joint trials than single-task ones were compared on validation; the test figures of the finals are what to trust.",
            f"The tuned single tasks: {', '.join(study.singles.values())}.",
            f"To train the best on validation: guidelens train --preset {config.preset} {' '.join(_to_train(study))}",
            *((f"Left out, since their losses became no numbers: {', '.join(study.diverged)}.",) if study.diverged else ()),
        ),
    )
    (out / "study.html").write_text(render(page))


def _listed(_context: click.Context, option: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(part.strip() for part in value.split(",") if part.strip())


@click.group(name="study")
def command() -> None:
    """Try choices beside each other, honestly."""


@command.command(name="mtl")
@home_option
@config_options
@click.option("--lake", default=None, metavar="URI", help="Lake to read; the home's own by default.")
@click.option("--sharing", default=None, metavar="A,B", callback=_listed, help="Ways of sharing to try.  [default: shared_bottom,mmoe,ple]")
@click.option("--balancing", default=None, metavar="A,B", callback=_listed, help="Balancers to try.  [default: all]")
@click.option("--learning-rates", default=None, metavar="A,B", callback=_listed, help="Learning rates to try each with.  [default: 0.001,0.002,0.004]")
@click.option(
    "--num-experts", default=None, metavar="A,B", callback=_listed, help="Numbers of experts to try with mmoe and ple.  [default: the one configured]"
)
@click.option("--lambda-draws", default=None, type=click.IntRange(min=0), help="Sets of fixed task weights to try beside equal ones.  [default: 8]")
@click.option("--finalists", default=None, type=click.IntRange(min=1), help="Joint choices that are fitted with every seed.  [default: 4]")
@click.option("--seeds", default=None, metavar="A,B", callback=_listed, help="Seeds of the finals.  [default: 0,1,2]")
def mtl(home: Home, config: Config, lake: str | None, **choices: object) -> None:
    """Joint models beside tuned single tasks: Pareto plots, delta-m, what the gradients do.

    Trials are Ray Tune's: on a cluster as many run at once as there are CPUs.
    """
    from pydantic import ValidationError

    from guidelens.training.study import StudyPlan

    try:
        plan = StudyPlan.model_validate({name: value for name, value in choices.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        if first["type"] == "value_error":
            raise ConfigError(f"{option}: {first['ctx']['error']}") from error
        raise ConfigError(f"{option}: {first['msg']}, got {first['input']!r}") from error
    emit(run(home, config, plan, lake))


if __name__ == "__main__":
    run_command(command)
