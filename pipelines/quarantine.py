"""List, show and replay rejected records."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from guidelens.config import Config, Home
from guidelens.data.records.sources import Kind
from guidelens.schemas.base import Frozen
from pipelines.cluster import ray_session
from pipelines.entry import config_options, emit, home_option, progress, rename_option, run_command, with_renames

if TYPE_CHECKING:
    import polars as pl

    from guidelens.data.ingest.event_intake import EventIntake
    from guidelens.data.lake.lake import Lake
    from guidelens.data.records.replay import Good
    from guidelens.data.records.validation import Checker

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


class QuarantineReplayed(Frozen):
    """Counts by kind. tried = released + left; released = accepted + duplicate + forgotten. manifest: the lake's version after it.

    released: no longer in quarantine. duplicate: the lake had the record already. forgotten: of a shopper who asked to be.
    """

    lake: str
    manifest: int
    tried: dict[Kind, int]
    released: dict[Kind, int]
    left: dict[Kind, int]
    accepted: dict[Kind, int]
    duplicate: dict[Kind, int]
    forgotten: dict[Kind, int]


def _read(home: Home, lake: str | None, kind: str | None, rule: str | None, source: str | None) -> "tuple[str, pl.DataFrame]":
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

    uri, rows = _read(home, lake, kind, rule, source)
    is_file = pl.col("kind").is_in([str(Kind.PHOTOS), str(Kind.MODELS)]) & ~pl.col("source").str.ends_with(".csv")
    rows = rows.with_columns(source=pl.when(is_file).then(pl.col("source").str.replace(r"/[^/]*$", "")).otherwise("source"))
    order = ["kind", "records", "source", "rule"]
    counted = rows.group_by("kind", "source", "rule").agg(records=pl.len()).sort(order, descending=[False, True, False, False])
    return QuarantineList(lake=uri, records=rows.height, groups=tuple(QuarantineGroup(**row) for row in counted.iter_rows(named=True)))


def run_show(
    home: Home, lake: str | None = None, kind: str | None = None, rule: str | None = None, source: str | None = None, limit: int = 20
) -> QuarantineShown:
    """The first `limit` refused records with their originals."""
    uri, rows = _read(home, lake, kind, rule, source)
    shown = [row | {"raw": None if row["raw"] is None else row["raw"].decode("utf-8", "backslashreplace")} for row in rows.head(limit).iter_rows(named=True)]
    return QuarantineShown(lake=uri, records=tuple(QuarantinedRecord(**row) for row in shown))


def run_replay(
    home: Home, config: Config, lake: str | None = None, kind: str | None = None, rule: str | None = None, source: str | None = None
) -> QuarantineReplayed:
    """Checks refused records again, with `ingest.rename` applied, and takes those in that are good now; one commit also takes them out of quarantine.

    Raises:
        CommitConflictError: other writers were faster again and again.
    """
    from guidelens.data.lake.lake import Lake
    from guidelens.data.pseudonyms import Pseudonymizer
    from guidelens.data.records.replay import REPLAYED, tried_again
    from guidelens.data.records.validation import Checker

    opened = Lake(lake or home.lake_uri, home.s3)
    _, rows = _read(home, lake, kind, rule, source)
    by_kind = {one: rows.filter(rows["kind"] == str(one)) for one in REPLAYED if one in set(rows["kind"])}
    pseudonyms, now = Pseudonymizer.open(home.keys), datetime.now(UTC)
    checkers = {one: Checker(one, pseudonyms, now, renamed=config.ingest.rename, replayed=True) for one in by_kind}
    good = {one: tried_again(found, checkers[one]) for one, found in by_kind.items()}
    manifest, counts = _taken_in(opened, home, config, good, checkers, now) if any(found.ids for found in good.values()) else (opened.manifest().version, {})
    return QuarantineReplayed(
        lake=opened.uri,
        manifest=manifest,
        tried={one: found.height for one, found in by_kind.items()},
        released={one: len(found.ids) for one, found in good.items()},
        left={one: by_kind[one].height - len(found.ids) for one, found in good.items()},
        accepted={one: counts.get(one, (0, 0, 0))[0] for one in good},
        duplicate={one: counts.get(one, (0, 0, 0))[1] for one in good},
        forgotten={one: counts.get(one, (0, 0, 0))[2] for one in good},
    )


def _taken_in(
    lake: "Lake", home: Home, config: Config, good: "Mapping[Kind, Good]", checkers: "Mapping[Kind, Checker]", now: datetime
) -> tuple[int, dict[Kind, tuple[int, int, int]]]:
    """The manifest's version, and accepted, duplicate and refused (forgotten) by kind."""
    from guidelens.data.ingest.intake import StagedKind, take_in
    from guidelens.data.ingest.stages import embed_texts, quiet
    from guidelens.data.records.replay import LABEL

    staged: dict[Kind, StagedKind] = {kind: StagedKind(found.rows, [LABEL]) for kind, found in good.items() if kind is not Kind.EVENTS and found.ids}
    released = frozenset(record for found in good.values() for record in found.ids)
    with ray_session(), _events(lake, home, config, good, checkers) as events:
        quiet()
        done = take_in(
            lake, staged, lambda texts: embed_texts(texts, config.ingest), now, events, released, pseudonyms=next(iter(checkers.values())).pseudonyms
        )
    totals = {kind: report.total for kind, report in done.reports.items()}
    return done.manifest.version, {kind: (total.accepted, total.duplicate, total.quarantined) for kind, total in totals.items()}


@contextmanager
def _events(lake: "Lake", home: Home, config: Config, good: "Mapping[Kind, Good]", checkers: "Mapping[Kind, Checker]") -> "Iterator[EventIntake | None]":
    """The good events as an intake of a file of their originals, which hold no shopper's id; None where there are none."""
    from guidelens.data.ingest.event_intake import EventIntake, EventSource
    from guidelens.data.ingest.stages import run_for
    from guidelens.data.lake.staging import staging
    from guidelens.data.records.replay import LABEL, as_lines
    from guidelens.data.records.sources import chunks_of, record_files

    found = good.get(Kind.EVENTS)
    if found is None or not found.ids:
        yield None
        return
    home.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.work, prefix="replay-") as folder, staging(lake.store) as prefix:
        (Path(folder) / "events.jsonl").write_bytes(as_lines(found.originals))
        files = record_files(Kind.EVENTS, (folder,), home.s3)
        source = EventSource(chunks_of(files, config.ingest.event_chunk_bytes, home.s3), [LABEL], checkers[Kind.EVENTS], home.s3, prefix)
        yield EventIntake(lake, source, config.ingest, run_for(sum(file.size_bytes for file in files), config.ingest))


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
    done = run_replay(home, with_renames(config, rename), lake, kind, rule, source)
    for one, tried in done.tried.items():
        progress(
            f"{one}: {tried} tried, {done.accepted[one]} accepted, {done.duplicate[one]} known already, {done.forgotten[one]} forgotten, {done.left[one]} left"
        )
    emit(done)


def _printable(text: str) -> str:
    """The beginning, with what a terminal would obey rather than show as escapes: originals are whatever anyone sent."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text[:_PRINTED_CHARACTERS])


if __name__ == "__main__":
    run_command(command)
