"""`guidelens rollback`: the previous champion comes back."""

import click

from guidelens.config import Home
from guidelens.errors import NotFoundError
from guidelens.registry import CHAMPION, PREVIOUS, Registry
from pipelines.entry import emit, home_option, progress, run_command
from pipelines.promote import PromoteResult, promotion_lock
from pipelines.release_copy import local_copy


def run(home: Home) -> PromoteResult:
    """Swaps `champion` and `previous`, once the previous champion's files verify.

    Raises:
        NotFoundError: there is no previous champion.
        BundleError: its files do not verify; nothing was changed.
    """
    registry = Registry(home)
    with promotion_lock(home):
        champion, previous = registry.alias(CHAMPION), registry.alias(PREVIOUS)
        if champion is None or previous is None:
            raise NotFoundError(f"{home.root} has no previous champion to go back to; `guidelens release list` shows the versions")
        local_copy(registry, registry.version(previous))
        registry.set_alias(CHAMPION, previous)
        registry.set_alias(PREVIOUS, champion)
    return PromoteResult(champion=previous, previous=champion)


@click.command(name="rollback")
@home_option
def command(home: Home) -> None:
    """Bring the previous champion back; the current one becomes `previous`, so that a second rollback undoes the first."""
    result = run(home)
    progress(f"champion is release {result.champion}, previous {result.previous}")
    emit(result)


if __name__ == "__main__":
    run_command(command)
