"""Describe the lake's tables, report on the data in them, prove what they hold, merge small files, and clear what crashed writers left."""

import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from guidelens.config import Config, Home
from guidelens.data.lake.garbage import GRACE
from guidelens.schemas.base import Frozen
from pipelines.entry import config_options, emit, home_option, progress, run_command

if TYPE_CHECKING:
    from guidelens.data.lake.compaction import Compacted
    from guidelens.data.lake.description import LakeDescription
    from guidelens.data.lake.verification import Note, Verified


_SHOWN_VERSIONS = 10
_PROGRESS_EVERY_S = 5.0


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


class LakeReport(Frozen):
    """Paths of the page and of the numbers on it."""

    lake: str
    manifest: int
    report: Path
    numbers: Path


def describe(home: Home, lake: str | None = None, version: int | None = None) -> "LakeDescription":
    """The tables of a version, by default the newest; those without rows are left out."""
    from guidelens.data.lake.description import describe_tables
    from guidelens.data.lake.lake import Lake

    opened = Lake(lake or home.lake_uri, home.s3)
    return describe_tables(opened, opened.manifest(version))


def report(home: Home, out: Path, lake: str | None = None) -> LakeReport:
    """Writes data.html and data.json into `out`.

    Raises:
        NotFoundError: the lake is empty.
    """
    from guidelens.data.lake.description import describe_data
    from guidelens.data.lake.lake import Lake
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


def digest(home: Home, lake: str | None = None) -> LakeDigest:
    """Reads every table whole."""
    from guidelens.data.lake.digest import table_digest
    from guidelens.data.lake.lake import Lake
    from guidelens.schemas.tables import Table

    opened = Lake(lake or home.lake_uri, home.s3)
    manifest = opened.manifest()
    found = {str(table): table_digest(opened, table, manifest) for table in Table if manifest.of(table)}
    return LakeDigest(
        lake=opened.uri,
        manifest=manifest.version,
        rows={name: one.rows for name, one in found.items()},
        digests={name: one.hex for name, one in found.items()},
    )


class LakeIndexed(Frozen):
    """ids: by table, what its id files hold now."""

    lake: str
    manifest: int
    ids: dict[str, int]


def verify(home: Home, lake: str | None = None, *, every_version: bool = False, deep: bool = False) -> "Verified":
    """Reads every byte of the newest version, or of all; a line for each problem goes to stderr."""
    from guidelens.data.lake.lake import Lake
    from guidelens.data.lake.verification import verify as verify_lake

    found = verify_lake(Lake(lake or home.lake_uri, home.s3), every_version=every_version, deep=deep, note=_Told())
    for problem in found.problems:
        progress(f"PROBLEM {problem.file} {problem.wrong}\n     -> {problem.remedy}")
    return found


class _Told:
    """A progress line about every five seconds, and a last one."""

    def __init__(self) -> None:
        self._said = time.perf_counter()

    def __call__(self, note: "Note") -> None:
        if time.perf_counter() - self._said >= _PROGRESS_EVERY_S or note.files == note.of_files:
            self._said = time.perf_counter()
            progress(f"verify: {note.files} of {note.of_files} files, {note.size_bytes / 1e6:,.1f} of {note.of_bytes / 1e6:,.1f} MB")


def reindex(home: Home, lake: str | None = None) -> LakeIndexed:
    """Makes the id files anew from the rows of the newest version."""
    from guidelens.data.lake.event_ids import KEY_OF
    from guidelens.data.lake.event_ids import reindex as reindex_lake
    from guidelens.data.lake.lake import Lake

    opened = Lake(lake or home.lake_uri, home.s3)
    done = reindex_lake(opened)
    return LakeIndexed(lake=opened.uri, manifest=done.version, ids={str(table): sum(file.num_ids for file in done.ids_of(table)) for table in KEY_OF})


def gc(home: Home, lake: str | None, grace_h: float, remove: bool) -> LakeGarbage:
    """Lists, and with `remove` deletes, what crashed writers left more than `grace_h` hours ago."""
    from guidelens.data.lake.garbage import collect, orphans
    from guidelens.data.lake.lake import Lake
    from guidelens.data.lake.staging import is_stale, remove_stale, runs

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


def run_compact(home: Home, config: Config, lake: str | None = None) -> "Compacted":
    """Merges small files, as many as there are, into as few as `ingest.event_file_rows` allows."""
    from guidelens.data.lake.compaction import compact
    from guidelens.data.lake.lake import Lake

    return compact(Lake(lake or home.lake_uri, home.s3), config.ingest.event_file_rows, everything=True)


_lake_option = click.option("--lake", default=None, metavar="URI", help="The home's by default.")


@command.command("describe", help="Rows, files, bytes and days of each table.")
@_lake_option
@click.option("--version", default=None, type=click.IntRange(min=1), help="A version of the lake; the newest by default.")
@home_option
def describe_command(home: Home, lake: str | None, version: int | None) -> None:
    found = describe(home, lake, version)
    progress(f"{'table':<12} {'rows':>10} {'files':>6} {'parts':>6} {'bytes':>12}  days")
    for name, table in found.tables.items():
        days = " to ".join(table.dates) if table.dates else ""
        progress(f"{name:<12} {table.rows:>10} {table.files:>6} {table.partitions:>6} {table.size_bytes:>12}  {days}")
    for one in found.runs[-_SHOWN_VERSIONS:]:
        brought = ", ".join(f"{counts['accepted']} of {counts['read']} {kind}" for kind, counts in one.counts.items())
        progress(f"version {one.version}: {one.rows} rows in {one.files} files" + (f"; took in {brought}" if brought else ""))
    emit(found)


@command.command("report", help="A page about the data: events by day, the catalogue, what was refused, what each ingest brought.")
@_lake_option
@click.option("--out", default=Path("out/data"), show_default=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of data.html and data.json.")
@home_option
def report_command(home: Home, lake: str | None, out: Path) -> None:
    emit(report(home, out, lake))


@command.command("digest", help="One number a table: equal for equal rows, however they are stored.")
@_lake_option
@home_option
def digest_command(home: Home, lake: str | None) -> None:
    emit(digest(home, lake))


@command.command("verify", help="Read every byte and compare it with what the manifests say; exit code 1 where there is a problem.")
@_lake_option
@click.option("--every-version", is_flag=True, help="Of every version, not of the newest one only.")
@click.option("--deep", is_flag=True, help="Also compare each row's id with the id files.")
@home_option
def verify_command(home: Home, lake: str | None, every_version: bool, deep: bool) -> None:
    found = verify(home, lake, every_version=every_version, deep=deep)
    emit(found)
    sys.exit(not found.ok)


@command.command("reindex", help="Make the id files anew from the rows, after they were damaged.")
@_lake_option
@home_option
def reindex_command(home: Home, lake: str | None) -> None:
    emit(reindex(home, lake))


@command.command("compact", help="Merge small files; rows and older versions stay as they are.")
@_lake_option
@config_options
@home_option
def compact_command(home: Home, config: Config, lake: str | None) -> None:
    emit(run_compact(home, config, lake))


@command.command("gc", help="List, or remove, files that crashed writers left.")
@_lake_option
@click.option(
    "--grace-h",
    default=GRACE.total_seconds() / 3600,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Leave files alone that are younger than so many hours.",
)
@click.option("--remove", is_flag=True, help="Remove them; without it they are only counted.")
@home_option
def gc_command(home: Home, lake: str | None, grace_h: float, remove: bool) -> None:
    emit(gc(home, lake, grace_h, remove))


if __name__ == "__main__":
    run_command(command)
