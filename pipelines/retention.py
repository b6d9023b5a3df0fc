"""Remove what is older than its table's time (config `retention`) from the lake, older versions and bytes included."""

from datetime import UTC, date, datetime

import click

from guidelens.config import Config, Home
from guidelens.schemas.base import Frozen
from pipelines.entry import config_options, emit, home_option, progress, run_command


class Expired(Frozen):
    """removed: rows by table. events_from: events from before that day (UTC) are refused from now on; None: of any day are taken."""

    lake: str
    manifest: int
    removed: dict[str, int]
    events_from: date | None


def run(home: Home, config: Config, lake: str | None = None) -> Expired:
    """Applies the configured times as of now.

    Raises:
        CommitConflictError: other writers of the lake were faster again and again.
    """
    from guidelens.data.lake.lake import Lake
    from guidelens.data.privacy.retention import expire

    opened = Lake(lake or home.lake_uri, home.s3)
    done = expire(opened, config.retention, datetime.now(UTC), lambda files, of: progress(f"retention: {files} of {of} files") if files % 500 == 0 else None)
    removed = {str(table): number for table, number in done.rows.items() if number}
    return Expired(lake=opened.uri, manifest=done.manifest.version, removed=removed, events_from=done.manifest.events_from)


@click.group("retention", help=__doc__)
def command() -> None:
    pass


@command.command("apply", help="Remove it now. Times are set as --set retention.events_days=N; without any, all is kept.")
@click.option("--lake", default=None, metavar="URI", help="The home's by default.")
@config_options
@home_option
def apply_command(home: Home, config: Config, lake: str | None) -> None:
    emit(run(home, config, lake))


if __name__ == "__main__":
    run_command(command)
