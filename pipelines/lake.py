"""Describe the lake's tables, and report on the data in them."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from guidelens.config import Home
from guidelens.schemas.base import Frozen
from pipelines.entry import emit, home_option, progress, run_command

if TYPE_CHECKING:
    from guidelens.data.description import LakeDescription


class LakeReport(Frozen):
    """Paths of the page and of the numbers on it."""

    lake: str
    manifest: int
    report: Path
    numbers: Path


def describe(home: Home, lake: str | None = None, version: int | None = None) -> "LakeDescription":
    """The tables of a version, by default the newest; those without rows are left out."""
    from guidelens.data.description import describe_tables
    from guidelens.data.lake import Lake

    opened = Lake(lake or home.lake_uri, home.s3)
    return describe_tables(opened, opened.manifest(version))


def report(home: Home, out: Path, lake: str | None = None) -> LakeReport:
    """Writes data.html and data.json into `out`.

    Raises:
        NotFoundError: the lake is empty.
    """
    from guidelens.data.description import describe_data
    from guidelens.data.lake import Lake
    from guidelens.errors import NotFoundError
    from guidelens.evaluation.data_html import render

    opened = Lake(lake or home.lake_uri, home.s3)
    manifest = opened.manifest()
    if not manifest.version:
        raise NotFoundError(f"lake {opened.uri} is empty; run `guidelens ingest` first")
    found = describe_data(opened, manifest)
    out.mkdir(parents=True, exist_ok=True)
    page, numbers = out / "data.html", out / "data.json"
    numbers.write_text(found.model_dump_json(indent=1))
    page.write_text(render(found), encoding="utf-8")
    return LakeReport(lake=opened.uri, manifest=manifest.version, report=page.absolute(), numbers=numbers.absolute())


@click.group("lake", help=__doc__)
def command() -> None:
    pass


_lake_option = click.option("--lake", default=None, metavar="URI", help="The home's by default.")


@command.command("describe", help="Rows, files, bytes and days of each table.")
@_lake_option
@click.option("--version", default=None, type=click.IntRange(min=1), help="A version of the lake; the newest by default.")
@home_option
def describe_command(home: Home, lake: str | None, version: int | None) -> None:
    found = describe(home, lake, version)
    progress(f"{'table':<12} {'rows':>10} {'files':>6} {'bytes':>12}  days")
    for name, table in found.tables.items():
        days = " to ".join(table.dates) if table.dates else ""
        progress(f"{name:<12} {table.rows:>10} {table.files:>6} {table.size_bytes:>12}  {days}")
    emit(found)


@command.command("report", help="A page about the data: events by day, the catalogue, what was refused, what each ingest brought.")
@_lake_option
@click.option("--out", default=Path("out/data"), show_default=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of data.html and data.json.")
@home_option
def report_command(home: Home, lake: str | None, out: Path) -> None:
    emit(report(home, out, lake))


if __name__ == "__main__":
    run_command(command)
