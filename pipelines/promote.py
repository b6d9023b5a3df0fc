"""`guidelens promote`: a verified version becomes the champion; the old champion stays as `previous`."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import click

from guidelens.bundle import BundleManifest
from guidelens.config import Home
from guidelens.errors import ConfigError, GateError
from guidelens.registry import CHALLENGER, CHAMPION, PREVIOUS, ModelVersion, Registry
from guidelens.schemas.base import Frozen
from pipelines.entry import emit, home_option, progress, run_command
from pipelines.release_copy import local_copy

GATE_TAG = "gate"
BETTER_BY = ("test/ndcg_at_10", "test/recognition_top1")


class PromoteResult(Frozen):
    """Who serves now, and who did before. `promoted`: false where --if-better left things as they were."""

    champion: str
    previous: str | None
    promoted: bool = True


def run(home: Home, version: str, if_better: bool = False, force: str | None = None) -> PromoteResult:
    """Verifies the version's copy and moves the aliases; promoting the champion again changes nothing.

    Args:
        force: the reason for promoting a version whose gate failed; kept as a tag of the version.

    Raises:
        NotFoundError: there is no such version.
        BundleError: its files do not verify.
        GateError: its gate failed and no reason was given.
    """
    registry = Registry(home)
    found = registry.version(version)
    with promotion_lock(home):
        _, manifest = local_copy(registry, found)
        _check_gate(found, force)
        champion = registry.alias(CHAMPION)
        if champion == version:
            return PromoteResult(champion=version, previous=registry.alias(PREVIOUS))
        if if_better and champion is not None and not _is_better(registry, manifest, champion):
            progress(f"release {version} is not better than champion {champion}; nothing was changed")
            return PromoteResult(champion=champion, previous=registry.alias(PREVIOUS), promoted=False)
        if champion is not None:
            registry.set_alias(PREVIOUS, champion)
        registry.set_alias(CHAMPION, version)
        if registry.alias(CHALLENGER) == version:
            registry.remove_alias(CHALLENGER)
        registry.tag_version(version, {"promoted_at": datetime.now(UTC).isoformat(timespec="seconds"), **({"forced_because": force} if force else {})})
        return PromoteResult(champion=version, previous=champion)


@contextmanager
def promotion_lock(home: Home) -> Iterator[None]:
    """One promotion or rollback at a time: two aliases move together."""
    home.releases.mkdir(parents=True, exist_ok=True)
    with (home.releases / ".promotion.lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _check_gate(found: ModelVersion, force: str | None) -> None:
    verdict = found.tags.get(GATE_TAG)
    if verdict != "passed" and not force:
        said = f"its gate {verdict}" if verdict else "it never went through the gate"
        raise GateError(f"release {found.version} cannot be promoted: {said}; see `guidelens release status`, or give a reason with --force")


def _is_better(registry: Registry, manifest: BundleManifest, champion: str) -> bool:
    """By the first of BETTER_BY that both releases measured.

    Raises:
        BundleError: the champion's own files do not verify.
        ConfigError: they measured nothing in common.
    """
    theirs = local_copy(registry, registry.version(champion))[1].metrics
    for name in BETTER_BY:
        if name in manifest.metrics and name in theirs:
            progress(f"{name}: {manifest.metrics[name]:.4f}, champion {theirs[name]:.4f}")
            return manifest.metrics[name] > theirs[name]
    raise ConfigError(f"--if-better needs one of {', '.join(BETTER_BY)} of both releases, got none of champion {champion}; promote without it")


@click.command(name="promote")
@click.argument("version")
@click.option("--if-better", is_flag=True, help="Only where its main test metric is above the champion's.")
@click.option("--force", metavar="REASON", help="Promote although the gate failed, and say why.")
@home_option
def command(version: str, if_better: bool, force: str | None, home: Home) -> None:
    """Make VERSION the champion; the old champion is kept as `previous`.

    The copy in the home is verified first. A version whose gate failed is refused without --force REASON.
    """
    result = run(home, version, if_better, force)
    progress(f"champion is release {result.champion}, previous {result.previous or 'none'}")
    emit(result)


if __name__ == "__main__":
    run_command(command)
