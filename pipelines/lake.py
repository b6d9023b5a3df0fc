"""Describe the lake's tables, prove what they hold, and clear what crashed writers left."""

from datetime import UTC, datetime, timedelta

import click

from guidelens.config import Home
from guidelens.data.garbage import GRACE
from guidelens.schemas.base import Frozen
from pipelines.entry import emit, home_option, progress, run_command


class TableDescription(Frozen):
    """dates: first and last day of a table partitioned by date."""

    rows: int
    files: int
    size_bytes: int
    dates: tuple[str, str] | None = None


class LakeDigest(Frozen):
    """digests: of each table's rows, equal for equal rows however they are stored."""

    lake: str
    manifest: int
    rows: dict[str, int]
    digests: dict[str, str]


class LakeGarbage(Frozen):
    """Objects that no version names, and stagings of dead runs. removed: whether they are gone now."""

    lake: str
    orphans: int
    size_bytes: int
    stagings: int
    removed: bool


class LakeDescription(Frozen):
    lake: str
    manifest: int
    snapshot_sha256: str
    tables: dict[str, TableDescription]


def run(home: Home, lake: str | None = None) -> LakeDescription:
    """The newest version's tables; those without rows are left out."""
    from guidelens.data.lake import Lake
    from guidelens.schemas.tables import Table

    opened = Lake(lake or home.lake_uri, home.s3)
    manifest = opened.manifest()
    tables = {}
    for table in Table:
        files = manifest.of(table)
        dates = sorted(file.date for file in files if file.date is not None)
        if files:
            tables[str(table)] = TableDescription(
                rows=manifest.rows(table), files=len(files), size_bytes=sum(file.size_bytes for file in files), dates=(dates[0], dates[-1]) if dates else None
            )
    return LakeDescription(lake=opened.uri, manifest=manifest.version, snapshot_sha256=manifest.snapshot_sha256, tables=tables)


def run_digest(home: Home, lake: str | None = None) -> LakeDigest:
    """Reads every table whole."""
    from guidelens.data.digest import table_digest
    from guidelens.data.lake import Lake
    from guidelens.schemas.tables import Table

    opened = Lake(lake or home.lake_uri, home.s3)
    manifest = opened.manifest()
    found = {str(table): table_digest(opened, table, manifest) for table in Table if manifest.of(table)}
    return LakeDigest(
        lake=opened.uri,
        manifest=manifest.version,
        rows={name: digest.rows for name, digest in found.items()},
        digests={name: digest.hex for name, digest in found.items()},
    )


def run_gc(home: Home, lake: str | None, grace_h: float, remove: bool) -> LakeGarbage:
    """Lists, and with `remove` deletes, what crashed writers left more than `grace_h` hours ago."""
    from guidelens.data.garbage import collect, orphans
    from guidelens.data.lake import Lake
    from guidelens.data.staging import is_stale, remove_stale, runs

    opened, now = Lake(lake or home.lake_uri, home.s3), datetime.now(UTC)
    found = orphans(opened, now - timedelta(hours=grace_h), now)
    stale = [prefix for prefix, run in runs(opened.store).items() if is_stale(run, now)]
    if remove:
        collect(opened, found)
        stale = remove_stale(opened.store, now)
    return LakeGarbage(lake=opened.uri, orphans=len(found), size_bytes=sum(entry.size_bytes for entry in found), stagings=len(stale), removed=remove)


@click.group("lake", help=__doc__)
def command() -> None:
    pass


@command.command("describe", help="Rows, files, bytes and days of each table.")
@click.option("--lake", default=None, metavar="URI", help="The home's by default.")
@home_option
def describe(home: Home, lake: str | None) -> None:
    found = run(home, lake)
    progress(f"{'table':<12} {'rows':>10} {'files':>6} {'bytes':>12}  days")
    for name, table in found.tables.items():
        days = " to ".join(table.dates) if table.dates else ""
        progress(f"{name:<12} {table.rows:>10} {table.files:>6} {table.size_bytes:>12}  {days}")
    emit(found)


@command.command("digest", help="One number a table: equal for equal rows, however they are stored.")
@click.option("--lake", default=None, metavar="URI", help="The home's by default.")
@home_option
def digest(home: Home, lake: str | None) -> None:
    emit(run_digest(home, lake))


@command.command("gc", help="List, or remove, files that crashed writers left.")
@click.option("--lake", default=None, metavar="URI", help="The home's by default.")
@click.option(
    "--grace-h",
    default=GRACE.total_seconds() / 3600,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Leave files alone that are younger than so many hours.",
)
@click.option("--remove", is_flag=True, help="Remove them; without it they are only counted.")
@home_option
def gc(home: Home, lake: str | None, grace_h: float, remove: bool) -> None:
    emit(run_gc(home, lake, grace_h, remove))


if __name__ == "__main__":
    run_command(command)
