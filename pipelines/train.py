"""`guidelens train`: fits the recognizer and the joint guide model of a lake's snapshot, and tracks the run."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from guidelens.config import FEATURE_SERVICE, Config, Home
from guidelens.data.lake.lake import Lake, Manifest
from guidelens.errors import InputError, NotFoundError
from guidelens.evaluation import feature_snapshot
from guidelens.registry import Registry, flatten_params
from guidelens.schemas.base import Frozen
from guidelens.schemas.tables import Table
from pipelines import features
from pipelines.cluster import ray_session
from pipelines.entry import config_options, emit, home_option, progress, run_command
from pipelines.fit_parts import EXAMPLES, FitDone, FitParts, Parts
from pipelines.fit_recognizer import TRAINED
from pipelines.materialize import require_features_of

if TYPE_CHECKING:
    from guidelens.training.warm_start import WarmStart

FIT = "fit"


class FitRecord(Frozen):
    """fit.json: where a fit comes from, and what of it was trained or is absent, and why. `run_id` is MLflow's.

    missing: `events` where there is no guide model, else the tasks that it did not learn; `photos` where there is no recognizer.
    """

    schema_version: int = 1
    run_id: str
    parts: Parts
    missing: tuple[str, ...]
    lake: str
    manifest: int
    snapshot_sha256: str
    home: str
    feature_service: str
    num_products: int
    seed: int
    config: Config


class TrainResult(Frozen):
    """run: MLflow run id. metrics: the last value of each. parts: `trained` or `absent: reason`. examples: None without a log."""

    run: str
    metrics: dict[str, float]
    parts: Parts
    lake: str
    manifest: int
    fit: str
    examples: str | None


def run(
    home: Home, config: Config, lake: str | None = None, resume: str | None = None, manifest: int | None = None, warm_start: str | None = None
) -> TrainResult:
    """Fits everything the lake's snapshot allows and leaves it as artifact `fit` of an MLflow run.

    Args:
        lake: URI; the home's own by default.
        resume: an MLflow run that did not finish; goes on from its last checkpoint, with its own config, lake and snapshot.
        manifest: version of the lake to train on; the newest by default.
        warm_start: alias or version of a release, or a run, from whose guide model this one goes on; seeded weights by default.

    Raises:
        NotFoundError: the lake has no catalogue, nothing was materialized, or there is no such run, release or guide model.
        InputError: another snapshot was materialized, the run to resume did finish, or the model to go on from has another shape.
    """
    registry = Registry(home)
    if resume is not None:
        begun = _begun(home, registry, resume)
        lake_begun = Lake(begun.lake, home.s3)
        require_features_of(home, lake_begun, lake_begun.manifest(begun.manifest))
        registry.reopen(resume)
        return _fit(home, begun, lake_begun, registry, resume)
    opened = Lake(lake or home.lake_uri, home.s3)
    snapshot = opened.manifest(manifest)
    opened.require(snapshot, Table.PRODUCTS)
    require_features_of(home, opened, snapshot)
    tags = {"lake": opened.uri, "manifest": str(snapshot.version), "snapshot_sha256": snapshot.snapshot_sha256, "feature_service": FEATURE_SERVICE}
    started = None if warm_start is None else _run_of(registry, warm_start)
    if started is not None:
        tags["warm_start"] = started
    run_id = registry.start_run(f"train-{config.preset}", flatten_params(config), tags)
    return _fit(home, Begun(config=config, lake=opened.uri, manifest=snapshot.version, warm_start=started), opened, registry, run_id)


def _run_of(registry: Registry, given: str) -> str:
    """The run behind an alias or version; a run's own id is itself."""
    try:
        return registry.version(registry.resolve(given)).run_id
    except NotFoundError:
        registry.status(given)
        return given


class Begun(Frozen):
    """begun.json in the run's work folder: what a resumed training goes on with. warm_start: the run whose guide model it started from."""

    config: Config
    lake: str
    manifest: int
    warm_start: str | None = None


def _begun(home: Home, registry: Registry, run_id: str) -> Begun:
    status = registry.status(run_id)
    path = home.work / run_id / "begun.json"
    if status == "FINISHED":
        raise InputError(f"--resume must name a run that did not finish, got {run_id}, which did; leave --resume out to train anew")
    if not path.exists():
        raise NotFoundError(f"{path.parent} holds no checkpoints of run {run_id}; leave --resume out to train anew")
    return Begun.model_validate_json(path.read_text())


def _fit(home: Home, begun: Begun, lake: Lake, registry: Registry, run_id: str) -> TrainResult:
    """All parts of one run; whatever breaks it leaves the run FAILED and its checkpoints in place."""
    config, version = begun.config, begun.manifest
    work = home.work / run_id
    work.mkdir(parents=True, exist_ok=True)
    (work / "begun.json").write_text(begun.model_dump_json())
    try:
        snapshot = lake.manifest(version)
        lake.pin(version)
        fit_dir = work / FIT
        shutil.rmtree(fit_dir, ignore_errors=True)
        fit_dir.mkdir()
        start = _start(registry, begun, work)
        with ray_session():
            done = FitParts(home, config, lake, snapshot, work, fit_dir, start, lambda epoch, metrics: registry.log_metrics(run_id, metrics, epoch)).run()
        record = _record(home, config, lake, snapshot, run_id, done)
        (fit_dir / "fit.json").write_text(record.model_dump_json(indent=1))
        _track_the_rest(registry, run_id, done)
        registry.log_folder(run_id, fit_dir, FIT)
        feature_snapshot.save(features.snapshot(home, config), work / features.SNAPSHOT)
        registry.log_folder(run_id, work / features.SNAPSHOT, features.SNAPSHOT)
        registry.finish(run_id)
    except BaseException:
        registry.finish(run_id, "FAILED")
        raise
    progress(f"train: run {run_id} is finished: " + ", ".join(f"{part} {state}" for part, state in done.parts.model_dump().items()))
    examples = work / EXAMPLES
    return TrainResult(
        run=run_id,
        metrics=done.metrics,
        parts=done.parts,
        lake=lake.uri,
        manifest=version,
        fit=str(fit_dir),
        examples=str(examples) if examples.exists() else None,
    )


def _track_the_rest(registry: Registry, run_id: str, done: FitDone) -> None:
    """Metrics that were not told as their epoch ended: those of no epoch, and of epochs that a killed driver did not live to tell."""
    for step, metrics in done.by_epoch:
        if metrics and step not in [told for told, _ in registry.history(run_id, next(iter(metrics)))]:
            registry.log_metrics(run_id, metrics, step=step)


def _start(registry: Registry, begun: Begun, work: Path) -> "WarmStart | None":
    """The weights to go on from.

    Raises:
        NotFoundError: the run that was named has no guide model.
        InputError: it has another shape than `train.model` and `train.extra_tasks` give.
    """
    if begun.warm_start is None:
        return None
    import torch

    from guidelens.inference.guide_files import load_guide, load_items
    from guidelens.models.guide import GuideModel, GuideSpec
    from guidelens.training.warm_start import WarmStart, require_shape

    fit = registry.download(begun.warm_start, FIT, work / "warm_start")
    start, train = WarmStart.of(load_guide(fit)[0], load_items(fit)[1].product_ids), begun.config.train
    with torch.device("meta"):
        wanted = GuideModel(train.model, GuideSpec(num_products=1, extra_tasks=tuple(train.extra_tasks)))
    require_shape(wanted.state_dict(), start)
    progress(f"train: the guide goes on from run {begun.warm_start}")
    return start


def _missing(done: FitDone) -> tuple[str, ...]:
    of_guide = done.left_out if done.parts.guide == TRAINED else ("events",)
    return of_guide if done.parts.recognizer == TRAINED else (*of_guide, "photos")


def _record(home: Home, config: Config, lake: Lake, snapshot: Manifest, run_id: str, done: FitDone) -> FitRecord:
    return FitRecord(
        run_id=run_id,
        parts=done.parts,
        missing=_missing(done),
        lake=lake.uri,
        manifest=snapshot.version,
        snapshot_sha256=snapshot.snapshot_sha256,
        home=str(home.root),
        feature_service=FEATURE_SERVICE,
        num_products=done.num_products,
        seed=config.seed,
        config=config,
    )


@click.command("train")
@home_option
@config_options
@click.option("--lake", default=None, metavar="URI", help="Lake to read; the home's own by default.")
@click.option("--resume", default=None, metavar="RUN", help="Go on with a run that did not finish, from its last checkpoint.")
@click.option("--warm-start", default=None, metavar="ALIAS|VERSION|RUN", help="Start the guide model from a trained one, such as yesterday's champion.")
def command(home: Home, config: Config, lake: str | None, resume: str | None, warm_start: str | None) -> None:
    """Fit the recognizer and the joint guide model; track the run."""
    if resume is not None and warm_start is not None:
        raise click.UsageError("--resume goes on with a run as it was begun; leave --warm-start out")
    emit(run(home, config, lake=lake, resume=resume, warm_start=warm_start))


def examples_path(home: Home, run_id: str) -> Path:
    """Where a run's training examples lie, while its work folder is kept."""
    return home.work / run_id / EXAMPLES


if __name__ == "__main__":
    run_command(command)
