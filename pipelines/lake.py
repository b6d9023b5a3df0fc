"""Describe the lake's tables."""

import click

from guidelens.config import Home
from guidelens.schemas.base import Frozen
from pipelines.entry import emit, home_option, progress, run_command


class TableDescription(Frozen):
    """dates: first and last day of a table partitioned by date."""

    rows: int
    files: int
    size_bytes: int
    dates: tuple[str, str] | None = None


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


if __name__ == "__main__":
    run_command(command)
