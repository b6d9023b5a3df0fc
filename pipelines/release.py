"""`guidelens release`: builds a run's bundle, registers it as a version, and lets the gate decide whether it may challenge."""

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from guidelens.bundle import BundleManifest, BundleOrigin, build_bundle, read_manifest
from guidelens.config import Home
from guidelens.evaluation.gate import Champion, judge, passed
from guidelens.evaluation.guide import Draws
from guidelens.evaluation.report import GateCheck, Report, read_report
from guidelens.registry import CHALLENGER, Registry
from guidelens.schemas.base import Frozen
from guidelens.schemas.ids import sub_seed
from pipelines.entry import emit, home_option, progress, run_command
from pipelines.promote import GATE_TAG
from pipelines.release_copy import BUNDLE_TAG, local_copy

if TYPE_CHECKING:
    from pipelines.run_files import RunFiles


class ReleaseResult(Frozen):
    """`alias`: `challenger` where the gate passed, else null. `path`: the verified copy that serving reads."""

    version: str
    gate: tuple[GateCheck, ...]
    alias: str | None
    path: str


class ReleaseLine(Frozen):
    """One registered version, as `release list` shows it."""

    version: str
    run: str
    gate: str
    aliases: tuple[str, ...]
    metrics: dict[str, float]


class ReleaseStatus(Frozen):
    """Who serves, who challenges, and the gate's verdict on the newest version."""

    champion: str | None
    challenger: str | None
    previous: str | None
    newest: str | None
    gate: tuple[GateCheck, ...]


def run(home: Home, run_id: str) -> ReleaseResult:
    """Releases a finished run. It is measured first where nobody has done so; only the alias `challenger` is set.

    Raises:
        NotFoundError: there is no such run.
        BundleError: the bundle does not verify, before or after its way through the registry.
    """
    from pipelines.gate_checks import champion_beside, parity_check
    from pipelines.run_files import open_run

    registry = Registry(home)
    report = _report(home, registry, run_id)
    with open_run(home, run_id) as files, tempfile.TemporaryDirectory(prefix="bundle-", dir=home.work) as scratch:
        built = Path(scratch) / "bundle"
        manifest = _build(files, report, built)
        artifact = _logged(registry, run_id, built, manifest, Path(scratch))
        version = registry.register(run_id, artifact)
        registry.tag_version(version, {BUNDLE_TAG: artifact})
        path, manifest = local_copy(registry, registry.version(version))
        progress(f"release: version {version}, {len(manifest.files)} files verified in {path}")
        champion = champion_beside(files, registry, version)
        checks = _judged(files, report, manifest, parity_check(files, path), champion)
    verdict = passed(checks)
    registry.tag_version(version, {GATE_TAG: "passed" if verdict else "failed", "checks": json.dumps([check.model_dump() for check in checks])})
    if verdict:
        registry.set_alias(CHALLENGER, version)
    for check in checks:
        progress(f"  {'skipped' if check.passed is None else 'passed ' if check.passed else 'FAILED '} {check.name}: {check.why}")
    return ReleaseResult(version=version, gate=checks, alias=CHALLENGER if verdict else None, path=str(path))


def _report(home: Home, registry: Registry, run_id: str) -> Report:
    """The run's report; a run that was not measured yet is measured now."""
    from pipelines import evaluate

    if not registry.has_artifact(run_id, evaluate.REPORT):
        progress("release: the run was not measured yet; evaluating it first")
        evaluate.run(home, run_id)
    home.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="report-", dir=home.work) as scratch:
        return read_report(registry.download(run_id, evaluate.REPORT, Path(scratch)) / "report.json")


def _build(files: "RunFiles", report: Report, dest: Path) -> BundleManifest:
    from pipelines.bundle_parts import models, thumbnails, with_device_encoder, with_index

    record = files.record
    with_index(files.fit, lambda: files.examples().of("val"))
    with_device_encoder(files.fit)
    origin = BundleOrigin(
        run_id=files.run_id,
        feature_service=record.feature_service,
        lake=record.lake,
        manifest_version=record.manifest,
        snapshot_sha256=record.snapshot_sha256,
        parts=record.parts.model_dump(),
        missing=record.missing,
        metrics=report.metrics(),
    )
    return build_bundle(files.fit, dest, origin, thumbnails(files), models(files))


def _logged(registry: Registry, run_id: str, built: Path, manifest: BundleManifest, scratch: Path) -> str:
    """The artifact that holds the bundle: an earlier one with the same files is used again, another one stays as it is."""
    number, name = 1, "bundle"
    while registry.has_artifact(run_id, name):
        if read_manifest(registry.download(run_id, name, scratch / f"earlier-{number}")) == manifest:
            return name
        number += 1
        name = f"bundle-{number}"
    registry.log_folder(run_id, built, name)
    return name


def _judged(files: "RunFiles", report: Report, manifest: BundleManifest, parity: GateCheck, champion: Champion | None) -> tuple[GateCheck, ...]:
    config = files.record.config
    draws = Draws(config.evaluate.num_bootstrap, sub_seed(config.seed, "gate"))
    whole = GateCheck(name="files", passed=True, why=f"{len(manifest.files)} files have their SHA-256, no pickle, finite weights")
    return (whole, parity, *judge(report, champion, config.gate, draws))


def status(home: Home) -> ReleaseStatus:
    """Aliases, and the newest version's checks."""
    registry = Registry(home)
    aliases, versions = registry.aliases(), registry.versions()
    newest = versions[-1] if versions else None
    checks = json.loads(newest.tags.get("checks", "[]")) if newest else []
    return ReleaseStatus(
        champion=aliases.get("champion"),
        challenger=aliases.get(CHALLENGER),
        previous=aliases.get("previous"),
        newest=newest.version if newest else None,
        gate=tuple(GateCheck.model_validate(check) for check in checks),
    )


def listed(home: Home) -> list[ReleaseLine]:
    """All versions, oldest first, with their runs' test metrics."""
    registry = Registry(home)
    return [
        ReleaseLine(
            version=found.version,
            run=found.run_id,
            gate=found.tags.get(GATE_TAG, "not judged"),
            aliases=found.aliases,
            metrics={name: value for name, value in registry.metrics(found.run_id).items() if name.startswith("test/")},
        )
        for found in registry.versions()
    ]


_run_option = click.option("--run", "run_id", metavar="RUN", help="MLflow run id, as `guidelens train` prints it.")


@click.group(name="release", invoke_without_command=True)
@_run_option
@home_option
@click.pass_context
def command(context: click.Context, run_id: str | None, home: Home) -> None:
    """Build a bundle of a run, register it, and let the gate decide whether it becomes the challenger."""
    if context.invoked_subcommand is not None:
        return
    if run_id is None:
        raise click.UsageError("release needs --run RUN, or one of the commands build, status, list")
    emit(run(home, run_id))


@command.command(name="build")
@click.option("--run", "run_id", required=True, metavar="RUN", help="MLflow run id, as `guidelens train` prints it.")
@home_option
def build(run_id: str, home: Home) -> None:
    """Release a run: the long form of `guidelens release --run RUN`."""
    emit(run(home, run_id))


@command.command(name="status")
@home_option
def show_status(home: Home) -> None:
    """Who serves, who challenges, and what the gate said of the newest version."""
    emit(status(home))


@command.command(name="list")
@home_option
def show_list(home: Home) -> None:
    """Every version with its gate, aliases and test metrics."""
    lines = listed(home)
    for line in lines:
        progress(f"{line.version:>4s}  {line.gate:10s} {', '.join(line.aliases) or '-':24s} run {line.run}")
    emit({"releases": [line.model_dump() for line in lines]})


if __name__ == "__main__":
    run_command(command)
