"""List, show and replay rejected records."""

from typing import TYPE_CHECKING

import click

from guidelens.config import Config, Home
from guidelens.data.records.sources import Kind
from guidelens.schemas.base import Frozen
from pipelines import quarantine_replay
from pipelines.entry import config_options, emit, home_option, progress, rename_option, run_command, with_renames

if TYPE_CHECKING:
    import polars as pl

_PRINTED_CHARACTERS = 300


class QuarantineGroup(Frozen):
    """source: the file; of photos and models, which are a file each, their folder."""

    kind: str
    source: str
    rule: str
    records: int


class QuarantineList(Frozen):
    lake: str
    records: int
    groups: tuple[QuarantineGroup, ...]


class QuarantinedRecord(Frozen):
    """raw: the original as text, bytes that are no UTF-8 as \\xNN; null where it was not kept."""

    record_sha256: str
    kind: str
    source: str
    offset: int
    rule: str
    message: str
    raw: str | None


class QuarantineShown(Frozen):
    lake: str
    records: tuple[QuarantinedRecord, ...]


def read_quarantine(home: Home, lake: str | None, kind: str | None, rule: str | None, source: str | None) -> "tuple[str, pl.DataFrame]":
    """The lake's URI and its refused records of a kind, a rule and sources whose name holds a text, as far as these are given."""
    import polars as pl

    from guidelens.data.lake.lake import Lake
    from guidelens.schemas.tables import Table

    opened = Lake(lake or home.lake_uri, home.s3)
    rows = opened.read(Table.QUARANTINE)
    for column, wanted in (("kind", kind), ("rule", rule)):
        if wanted is not None:
            rows = rows.filter(pl.col(column) == wanted)
    if source is not None:
        rows = rows.filter(pl.col("source").str.contains(source, literal=True))
    return opened.uri, rows.sort("kind", "source", "offset")


def run_list(home: Home, lake: str | None = None, kind: str | None = None, rule: str | None = None, source: str | None = None) -> QuarantineList:
    """How many records were refused, by kind, source and rule, the commonest first."""
    import polars as pl

    uri, rows = read_quarantine(home, lake, kind, rule, source)
    is_file = pl.col("kind").is_in([str(Kind.PHOTOS), str(Kind.MODELS)]) & ~pl.col("source").str.ends_with(".csv")
    rows = rows.with_columns(source=pl.when(is_file).then(pl.col("source").str.replace(r"/[^/]*$", "")).otherwise("source"))
    order = ["kind", "records", "source", "rule"]
    counted = rows.group_by("kind", "source", "rule").agg(records=pl.len()).sort(order, descending=[False, True, False, False])
    return QuarantineList(lake=uri, records=rows.height, groups=tuple(QuarantineGroup(**row) for row in counted.iter_rows(named=True)))


def run_show(
    home: Home, lake: str | None = None, kind: str | None = None, rule: str | None = None, source: str | None = None, limit: int = 20
) -> QuarantineShown:
    """The first `limit` refused records with their originals."""
    uri, rows = read_quarantine(home, lake, kind, rule, source)
    first = rows.select(list(QuarantinedRecord.model_fields)).head(limit)
    shown = [row | {"raw": None if row["raw"] is None else row["raw"].decode("utf-8", "backslashreplace")} for row in first.iter_rows(named=True)]
    return QuarantineShown(lake=uri, records=tuple(QuarantinedRecord(**row) for row in shown))


@click.group("quarantine", help=__doc__)
def command() -> None:
    pass


_KIND = click.Option(["--kind"], type=click.Choice([str(kind) for kind in Kind]), default=None, help="Only this kind.")
_RULE = click.Option(["--rule"], default=None, help="Only this rule.")
_SOURCE = click.Option(["--source"], default=None, help="Only sources whose name holds this text.")
_LAKE = click.Option(["--lake"], default=None, metavar="URI", help="The home's by default.")


@command.command("list", help="Refused records by kind, source and rule.", params=[_KIND, _RULE, _SOURCE, _LAKE])
@home_option
def list_groups(home: Home, kind: str | None, rule: str | None, source: str | None, lake: str | None) -> None:
    found = run_list(home, lake, kind, rule, source)
    for group in found.groups:
        progress(f"{group.kind:<10} {group.records:>8}  {group.rule}  {_printable(group.source)}")
    emit(found)


@command.command("show", help="Refused records with their originals.", params=[_KIND, _RULE, _SOURCE, _LAKE])
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
@home_option
def show(home: Home, kind: str | None, rule: str | None, source: str | None, lake: str | None, limit: int) -> None:
    found = run_show(home, lake, kind, rule, source, limit)
    for record in found.records:
        progress(f"{_printable(record.source)} at {record.offset}: {record.rule}\n  {_printable(record.message)}\n  {_printable(record.raw or '')}")
    emit(found)


@command.command("replay", help="Check refused records again; take in those that are good now.", params=[_KIND, _RULE, _SOURCE, _LAKE])
@rename_option
@config_options
@home_option
def replay(home: Home, config: Config, kind: str | None, rule: str | None, source: str | None, lake: str | None, rename: dict[str, str]) -> None:
    _, rows = read_quarantine(home, lake, kind, rule, source)
    done = quarantine_replay.run(home, with_renames(config, rename), rows, lake)
    for one, tried in done.tried.items():
        progress(
            f"{one}: {tried} tried, {done.accepted[one]} accepted, {done.duplicate[one]} known already, {done.forgotten[one]} forgotten, {done.left[one]} left"
        )
        for broken, why in done.reasons[one].items():
            progress(f"{one}: {why.records} left for {broken}, the first at {_printable(why.first)}: {_printable(why.message)}")
    emit(done)


def _printable(text: str) -> str:
    """The beginning, with what a terminal would obey rather than show as escapes: originals are whatever anyone sent."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text[:_PRINTED_CHARACTERS])


if __name__ == "__main__":
    run_command(command)
