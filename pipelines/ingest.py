"""Take catalogue, photos, shoppers, reviews and events into the lake. Without a source: drain the event inbox."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from guidelens.config import Config, Home
from guidelens.data.sources import IngestSources, Kind
from guidelens.errors import ConfigError
from guidelens.schemas.base import Frozen
from pipelines.cluster import ray_session
from pipelines.entry import config_options, emit, home_option, progress, rename_option, run_command, with_renames

if TYPE_CHECKING:
    from guidelens.data.event_intake import EventIntake
    from guidelens.data.intake import Intake, StagedKind

_SHOWN_RULES = 5
_RECORD_KINDS = (Kind.CATALOGUE, Kind.SHOPPERS, Kind.REVIEWS)
_PROGRESS_EVERY_S = 5.0


class IngestResult(Frozen):
    """Counts by kind, for the kinds that were given; read = accepted + quarantined + duplicate. manifest: the lake's version after it.
    remarks: on how many records each was made, of kinds with any: unknown fields, wrong clocks, unknown products."""

    lake: str
    manifest: int
    read: dict[Kind, int]
    accepted: dict[Kind, int]
    quarantined: dict[Kind, int]
    duplicate: dict[Kind, int]
    remarks: dict[Kind, dict[str, int]] = {}


def run(home: Home, config: Config, sources: IngestSources, lake: str | None = None) -> IngestResult:
    """Ingests the sources, or the home's inbox where none is named, into `lake` (the home's by default).

    Raises:
        InputError: a source does not exist or has a format that is not read.
        CommitConflictError: other writers were faster again and again.
    """
    from guidelens.data.intake import drain_inbox
    from guidelens.data.stages import quiet

    with ray_session():
        quiet()
        if sources.names_something:
            return _Ingest(home, config, lake).take(sources, from_inbox=False)
        return drain_inbox(
            home.inbox, lambda sealed: _Ingest(home, config, lake).take(IngestSources(events=tuple(str(path) for path in sealed)), from_inbox=True)
        )


class _Ingest:
    """One run of the verb: stages each kind with Ray Data, then commits once."""

    def __init__(self, home: Home, config: Config, lake: str | None) -> None:
        from guidelens.data.lake import Lake
        from guidelens.data.pseudonyms import Pseudonymizer

        self.home, self.config = home, config
        self.lake: Lake = Lake(lake or home.lake_uri, home.s3)
        self.pseudonyms: Pseudonymizer = Pseudonymizer.open(home.keys)
        self.now = datetime.now(UTC)

    def take(self, sources: IngestSources, from_inbox: bool) -> IngestResult:
        from guidelens.data.intake import take_in
        from guidelens.data.stages import embed_texts
        from guidelens.data.staging import remove_stale, staging

        remove_stale(self.lake.store, self.now)
        staged = {kind: self._records(kind, sources) for kind in _RECORD_KINDS if sources.files_of(kind)}
        if sources.photos:
            staged[Kind.PHOTOS] = self._photos(sources, staged.get(Kind.CATALOGUE))
            models = self._models(sources.photos, staged.get(Kind.CATALOGUE))
            staged |= {} if models is None else {Kind.MODELS: models}
        rates = _Rates()
        with staging(self.lake.store) as prefix, _timed("settle and commit"):
            events = self._events(sources, from_inbox, prefix, rates) if sources.events or from_inbox else None
            done = take_in(self.lake, staged, lambda texts: embed_texts(texts, self.config.ingest), self.now, events, pseudonyms=self.pseudonyms)
            rates.end()
        return self._result(done)

    def _events(self, sources: IngestSources, from_inbox: bool, prefix: str, rates: "_Rates") -> "EventIntake":
        from guidelens.data.event_intake import EventIntake, EventSource
        from guidelens.data.sources import chunks_of, record_files
        from guidelens.data.stages import run_for
        from guidelens.data.validation import Checker

        files = record_files(Kind.EVENTS, sources.events, self.home.s3)
        chunks = chunks_of(files, self.config.ingest.event_chunk_bytes, self.home.s3)
        checker = Checker(Kind.EVENTS, self.pseudonyms, self.now, from_inbox, {} if from_inbox else self.config.ingest.rename)
        source = EventSource(chunks, [file.uri for file in files], checker, self.home.s3, prefix)
        return EventIntake(self.lake, source, self.config.ingest, run_for(files, self.config.ingest), rates)

    def _records(self, kind: Kind, sources: IngestSources) -> "StagedKind":
        from guidelens.data.intake import StagedKind
        from guidelens.data.sources import chunks_of, record_files
        from guidelens.data.stages import check_records
        from guidelens.data.validation import Checker

        files = record_files(kind, sources.files_of(kind), self.home.s3)
        chunks = chunks_of(files, self.config.ingest.event_chunk_bytes, self.home.s3)
        checker = Checker(kind, self.pseudonyms, self.now, renamed=self.config.ingest.rename)
        with _timed(f"{kind}: check") as took:
            rows = check_records(chunks, checker, self.home.s3, self.config.ingest)
            took(rows.height)
        return StagedKind(rows, [file.uri for file in files])

    def _photos(self, sources: IngestSources, catalogue: "StagedKind | None") -> "StagedKind":
        from guidelens.data.intake import StagedKind, known_photos
        from guidelens.data.photos import plan_photos
        from guidelens.data.stages import embed_photos

        assert sources.photos is not None
        base = self.lake.manifest()
        images = {product: tuple(paths or ()) for product, paths in self._of_products("images", catalogue).items()}
        plan = plan_photos(sources, images, known_photos(self.lake, base), self.home.s3)
        if plan.missing:
            progress(f"photos: {len(plan.missing)} images that products name are not in {sources.photos}, the first is {plan.missing[0]}")
        with _timed("photos: read, decode, embed") as took:
            rows = embed_photos(plan.tasks, plan.contents, sources.photos, self.home.s3, self.config.ingest)
            took(rows.height)
        return StagedKind(rows, plan.uris, plan.refused)

    def _models(self, folder: str, catalogue: "StagedKind | None") -> "StagedKind | None":
        """The 3-D models that products name; None where none is there."""
        from guidelens.data.intake import StagedKind
        from guidelens.data.models_3d import read_models
        from guidelens.schemas.tables import Table

        named = [path for path in self._of_products("model_3d", catalogue).values() if path]
        if not named:
            return None
        known = dict(self.lake.read(Table.MODELS, ["path", "row_sha256"]).iter_rows())
        found = read_models(folder, named, known, self.home.s3)
        if found.missing:
            progress(f"models: {len(found.missing)} models that products name are not in {folder}, the first is {found.missing[0]}")
        return StagedKind(found.rows, [folder]) if found.rows.height else None

    def _of_products(self, column: str, catalogue: "StagedKind | None") -> dict[str, Any]:
        """A column of each product of the lake and of the catalogue being ingested, which replaces the lake's rows."""
        from guidelens.schemas.tables import Table

        values = dict(self.lake.read(Table.PRODUCTS, ["product_id", column]).iter_rows())
        if catalogue is not None:
            brought = catalogue.rows.filter(catalogue.rows["rule"].is_null()).sort("source", "offset", descending=True)
            values |= dict(brought.select("product_id", column).iter_rows())
        return values

    def _result(self, done: "Intake") -> IngestResult:
        totals = {kind: report.total for kind, report in done.reports.items()}
        for kind, total in totals.items():
            progress(f"{kind}: {total.read} read, {total.accepted} accepted, {total.quarantined} quarantined, {total.duplicate} duplicate")
            if total.quarantined:
                rules = ", ".join(f"{rule} {number}" for rule, number in list(done.reports[kind].rules.items())[:_SHOWN_RULES])
                progress(f"{kind}: refused for {rules}; `guidelens quarantine show --kind {kind}` has reasons and originals")
        for kind, report in done.reports.items():
            for remark, number in sorted(report.remarks.items(), key=lambda pair: -pair[1])[:_SHOWN_RULES]:
                progress(f"{kind}: {remark}: {number} records")
        return IngestResult(
            lake=self.lake.uri,
            manifest=done.manifest.version,
            read={kind: total.read for kind, total in totals.items()},
            accepted={kind: total.accepted for kind, total in totals.items()},
            quarantined={kind: total.quarantined for kind, total in totals.items()},
            duplicate={kind: total.duplicate for kind, total in totals.items()},
            remarks={kind: report.remarks for kind, report in done.reports.items() if report.remarks},
        )


class _Rates:
    """A progress line about every five seconds: what is being done, how many rows of it are done, and at which rate."""

    def __init__(self) -> None:
        self._what, self._rows = "", 0
        self._begun = self._said = time.perf_counter()

    def __call__(self, what: str, rows: int) -> None:
        if what != self._what:
            self.end()
            self._what = what
        self._rows += rows
        if time.perf_counter() - self._said >= _PROGRESS_EVERY_S:
            self._say()

    def end(self) -> None:
        """The last line of what was being done; what is told next began now."""
        if self._rows:
            self._say()
        self._what, self._rows, self._begun = "", 0, time.perf_counter()

    def _say(self) -> None:
        self._said = time.perf_counter()
        took = self._said - self._begun
        progress(f"{self._what}: {took:.1f} s, {self._rows} rows, {self._rows / max(took, 1e-9):,.0f} rows/s")


@contextmanager
def _timed(what: str) -> Iterator[Callable[[int], None]]:
    """A progress line with the time and, once told the number of rows, the rate."""
    start, rows = time.perf_counter(), [0]
    yield lambda number: rows.__setitem__(0, number)
    took = time.perf_counter() - start
    progress(f"{what}: {took:.1f} s" + (f", {rows[0]} rows, {rows[0] / max(took, 1e-9):,.0f} rows/s" if rows[0] else ""))


@click.command("ingest", help=__doc__)
@click.option("--lake", default=None, metavar="URI", help="Lake to write to; the home's by default.")
@click.option("--catalogue", default=None, metavar="FILE", help="Products: Parquet, JSONL or CSV.")
@click.option("--photos", default=None, metavar="DIR|URI", help="Photos, with an optional photos.csv (path,product_id).")
@click.option("--events", multiple=True, metavar="FILE|DIR", help="Events: JSONL, CSV (.gz/.zst) or Parquet; repeatable.")
@click.option("--shoppers", default=None, metavar="FILE", help="Shoppers: Parquet, JSONL or CSV.")
@click.option("--reviews", default=None, metavar="FILE", help="Reviews: Parquet, JSONL or CSV.")
@rename_option
@click.option("--adapter", default=None, metavar="NAME", help="Read a known data set at --path instead.")
@click.option("--path", "path", default=None, type=click.Path(path_type=Path), help="Where the adapter's data set lies.")
@config_options
@home_option
def command(
    home: Home,
    config: Config,
    lake: str | None,
    catalogue: str | None,
    photos: str | None,
    events: tuple[str, ...],
    shoppers: str | None,
    reviews: str | None,
    adapter: str | None,
    path: Path | None,
    rename: dict[str, str],
) -> None:
    config = with_renames(config, rename)
    if (adapter is None) != (path is None):
        raise ConfigError(f"--adapter and --path go together, got --adapter {adapter} --path {path}")
    sources = IngestSources(catalogue=catalogue, photos=photos, events=events, shoppers=shoppers, reviews=reviews)
    if adapter is not None and path is not None:
        if sources.names_something:
            raise ConfigError("--adapter brings its own sources; leave out --catalogue, --photos, --events, --shoppers and --reviews")
        from guidelens.data.adapters import load as load_adapter

        sources = load_adapter(adapter, path).write(home.work / "adapters" / adapter, progress)
    emit(run(home, config, sources, lake))


if __name__ == "__main__":
    run_command(command)
