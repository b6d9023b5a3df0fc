"""Take catalogue, photos, shoppers, reviews and events into the lake. Without a source: drain the event inbox."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import click

from guidelens.config import Config, Home
from guidelens.data.records.sources import IngestSources, Kind
from guidelens.errors import ConfigError, ContractError, StorageError
from guidelens.schemas.base import Frozen
from pipelines.cluster import ray_session
from pipelines.entry import config_options, emit, home_option, progress, rename_option, run_command, with_renames

if TYPE_CHECKING:
    from guidelens.data.ingest.event_intake import EventIntake
    from guidelens.data.ingest.intake import EmbedTexts, Intake, StagedKind
    from guidelens.data.lake.event_ids import IdReader
    from guidelens.data.records.kafka_source import KafkaPlan
    from guidelens.data.records.sources import Chunk

_SHOWN_RULES = 5
_RECORD_KINDS = (Kind.CATALOGUE, Kind.SHOPPERS, Kind.REVIEWS)
_PROGRESS_EVERY_S = 5.0


class PartitionRead(Frozen):
    """Of a partition of a stream: the offsets [first, next) were read, `lost` before them were gone."""

    first: int
    next: int
    lost: int


class IngestResult(Frozen):
    """Counts by kind, for the kinds that were given; read = accepted + quarantined + duplicate. manifest: the lake's version after it.
    remarks: on how many records each was made, of kinds with any: unknown fields, wrong clocks, unknown products. partitions: of Kafka
    sources. waiting: messages that came to them meanwhile; None where the brokers would not say. reviewed: frames that people labelled, now photos."""

    lake: str
    manifest: int
    read: dict[Kind, int]
    accepted: dict[Kind, int]
    quarantined: dict[Kind, int]
    duplicate: dict[Kind, int]
    remarks: dict[Kind, dict[str, int]] = {}
    partitions: dict[str, PartitionRead] = {}
    waiting: int | None = None
    reviewed: int = 0


class EventPlan(NamedTuple):
    """What events there are to read."""

    chunks: list["Chunk"]
    uris: list[str]
    size_bytes: int
    kafka: list["KafkaPlan"]

    @property
    def offsets(self) -> dict[str, int]:
        return {uri: offset for plan in self.kafka for uri, offset in plan.offsets.items()}


def run(home: Home, config: Config, sources: IngestSources, lake: str | None = None) -> IngestResult:
    """Ingests the sources, or the home's inbox where none is named, into `lake` (the home's by default).

    Raises:
        InputError: a source does not exist or has a format that is not read.
        CommitConflictError: other writers were faster again and again.
    """
    from guidelens.data.ingest.intake import drain_inbox
    from guidelens.data.ingest.stages import set_up_ray_data

    with ray_session():
        set_up_ray_data()
        reviewed = Ingest(home, config, lake).take_reviewed()
        if sources.names_something:
            done = Ingest(home, config, lake).take(sources)
        else:
            done = drain_inbox(home.inbox, lambda sealed: Ingest(home, config, lake).take(inbox_sources(sealed), from_inbox=True))
        return done.model_copy(update={"reviewed": reviewed})


def inbox_sources(sealed: Sequence[Path]) -> IngestSources:
    return IngestSources(events=tuple(str(path) for path in sealed))


class Ingest:
    """One run of the verb: stages each kind with Ray Data, then commits once.

    Args:
        embed: of texts; by Ray where none is given. reader: of id files. Both are for a process that ingests again and again.
        passing: this is one of a stream of small commits.
    """

    def __init__(
        self, home: Home, config: Config, lake: str | None, *, embed: "EmbedTexts | None" = None, reader: "IdReader | None" = None, passing: bool = False
    ) -> None:
        from guidelens.data.ingest.stages import embed_texts
        from guidelens.data.lake.lake import Lake
        from guidelens.data.pseudonyms import Pseudonymizer
        from guidelens.encoders.backbones import require_packages

        require_packages(config.ingest.encoders)
        self.home, self.config, self.passing = home, config, passing
        self.embed: EmbedTexts = embed or (lambda texts: embed_texts(texts, config.ingest))
        self.reader = reader
        self.lake: Lake = Lake(lake or home.lake_uri, home.s3)
        self.pseudonyms: Pseudonymizer = Pseudonymizer.open(home.keys)
        self.now = datetime.now(UTC)

    def plan(self, sources: IngestSources) -> EventPlan:
        """Looks where events lie, and reads none.

        Raises:
            InputError: a source is not there, or not of a form that is read.
            StorageError: a store or a broker did not answer.
        """
        from guidelens.data.records.kafka_source import is_kafka, plan_kafka
        from guidelens.data.records.sources import chunks_of, record_files

        streams = [uri for uri in sources.events if is_kafka(uri)]
        files = record_files(Kind.EVENTS, tuple(uri for uri in sources.events if not is_kafka(uri)), self.home.s3)
        chunks = chunks_of(files, self.config.ingest.event_chunk_bytes, self.home.s3)
        uris, size_bytes = [file.uri for file in files], sum(file.size_bytes for file in files)
        known = self.lake.manifest().offsets if streams else {}
        kafka = [plan_kafka(uri, self.home.kafka, known, sources.begin, sources.skip_lost) for uri in streams]
        for plan in kafka:
            chunks += plan.chunks(len(uris))
            uris += [part.uri for part in plan.partitions]
            size_bytes += plan.size_bytes
        return EventPlan(chunks, uris, size_bytes, kafka)

    def take(self, sources: IngestSources, *, from_inbox: bool = False, plan: EventPlan | None = None, all_or_nothing: bool = False) -> IngestResult:
        """Takes the sources in, of the events what `plan` says, where one was made.

        Raises:
            ContractError: `all_or_nothing`, and a record that is no event would go to quarantine; nothing was changed.
        """
        from guidelens.data.ingest.intake import take_in
        from guidelens.data.lake.staging import remove_stale, staging

        remove_stale(self.lake.store, self.now)
        staged = {kind: self._records(kind, sources) for kind in _RECORD_KINDS if sources.files_of(kind)}
        if sources.photos:
            staged[Kind.PHOTOS] = self._photos(sources, staged.get(Kind.CATALOGUE))
            models = self._models(sources.photos, staged.get(Kind.CATALOGUE))
            staged |= {} if models is None else {Kind.MODELS: models}
        if all_or_nothing:
            _require_all(staged)
        plan, rates = plan or self.plan(sources), _Rates()
        with staging(self.lake.store) as prefix, nullcontext() if self.passing else _timed("all of it, commit included"):
            events = self._events(plan, from_inbox, prefix, rates) if sources.events or from_inbox else None
            done = take_in(self.lake, staged, self.embed, self.now, events, pseudonyms=self.pseudonyms, passing=self.passing)
            rates.end()
        return self._result(done, plan)

    def take_reviewed(self) -> int:
        """Takes what people said of unknown frames in as photos, by their embeddings alone, and removes them from the queue; how many those were."""
        from guidelens.data.ingest.intake import StagedKind, take_in
        from guidelens.data.ingest.reviewed import photos_of
        from guidelens.data.review import ReviewQueue

        queue = ReviewQueue(self.home.review, self.home.keys)
        entries = queue.labelled()
        if not entries:
            return 0
        take_in(self.lake, {Kind.PHOTOS: StagedKind(photos_of(entries), ["review", "review"])}, self.embed, self.now, pseudonyms=self.pseudonyms)
        queue.remove(entries)
        progress(f"review: {len(entries)} frames that people labelled are photos now")
        return len(entries)

    def _events(self, plan: EventPlan, from_inbox: bool, prefix: str, rates: "_Rates") -> "EventIntake":
        from guidelens.data.ingest.event_intake import EventIntake, EventSource
        from guidelens.data.ingest.stages import run_for
        from guidelens.data.records.validation import Checker

        checker = Checker(Kind.EVENTS, self.pseudonyms, self.now, from_inbox, {} if from_inbox else self.config.ingest.rename)
        source = EventSource(plan.chunks, plan.uris, checker, self.home.s3, prefix, plan.offsets)
        return EventIntake(self.lake, source, self.config.ingest, run_for(plan.size_bytes, self.config.ingest), rates, self.reader)

    def _records(self, kind: Kind, sources: IngestSources) -> "StagedKind":
        from guidelens.data.ingest.intake import StagedKind
        from guidelens.data.ingest.stages import check_records
        from guidelens.data.records.sources import chunks_of, record_files
        from guidelens.data.records.validation import Checker

        files = record_files(kind, sources.files_of(kind), self.home.s3)
        chunks = chunks_of(files, self.config.ingest.event_chunk_bytes, self.home.s3)
        checker = Checker(kind, self.pseudonyms, self.now, renamed=self.config.ingest.rename)
        with _timed(f"{kind}: check") as took:
            rows = check_records(chunks, checker, self.home.s3, self.config.ingest)
            took(rows.height)
        return StagedKind(rows, [file.uri for file in files])

    def _photos(self, sources: IngestSources, catalogue: "StagedKind | None") -> "StagedKind":
        from guidelens.data.images.photos import plan_photos
        from guidelens.data.ingest.intake import StagedKind, images_of_products, known_photos
        from guidelens.data.ingest.stages import embed_photos

        assert sources.photos is not None
        base = self.lake.manifest()
        images = images_of_products(self.lake, None if catalogue is None else catalogue.rows)
        plan = plan_photos(sources, images, known_photos(self.lake, base), self.home.s3)
        if plan.missing and sources.photo_list is None:
            progress(f"photos: {len(plan.missing)} images that products name are not in {sources.photos}, the first is {plan.missing[0]}")
        with _timed("photos: read, decode, embed") as took:
            rows = embed_photos(plan.tasks, plan.contents, sources.photos, self.home.s3, self.config.ingest)
            took(rows.height)
        return StagedKind(rows, plan.uris, plan.refused)

    def _models(self, folder: str, catalogue: "StagedKind | None") -> "StagedKind | None":
        """The 3-D models that products name; None where none is there."""
        from guidelens.data.images.models_3d import read_models
        from guidelens.data.ingest.intake import StagedKind, known_models, of_products

        named = [path for path in of_products(self.lake, "model_3d", None if catalogue is None else catalogue.rows).values() if path]
        if not named:
            return None
        found = read_models(folder, named, known_models(self.lake), self.home.s3)
        if found.missing:
            progress(f"models: {len(found.missing)} models that products name are not in {folder}, the first is {found.missing[0]}")
        return StagedKind(found.rows, [folder]) if found.rows.height else None

    def _result(self, done: "Intake", plan: EventPlan) -> IngestResult:
        totals = {kind: report.total for kind, report in done.reports.items()}
        if not self.passing:
            self._tell(done)
        parts = {part.uri: part for each in plan.kafka for part in each.partitions}
        return IngestResult(
            lake=self.lake.uri,
            manifest=done.manifest.version,
            read={kind: total.read for kind, total in totals.items()},
            accepted={kind: total.accepted for kind, total in totals.items()},
            quarantined={kind: total.quarantined for kind, total in totals.items()},
            duplicate={kind: total.duplicate for kind, total in totals.items()},
            remarks={kind: report.remarks for kind, report in done.reports.items() if report.remarks},
            partitions={uri: PartitionRead(first=part.start, next=part.stop, lost=part.lost) for uri, part in parts.items()},
            waiting=_waiting(plan) if plan.kafka else None,
        )

    def _tell(self, done: "Intake") -> None:
        for kind, report in done.reports.items():
            total = report.total
            progress(f"{kind}: {total.read} read, {total.accepted} accepted, {total.quarantined} quarantined, {total.duplicate} duplicate")
            if total.quarantined:
                rules = ", ".join(f"{rule} {number}" for rule, number in list(report.rules.items())[:_SHOWN_RULES])
                progress(f"{kind}: refused for {rules}; `guidelens quarantine show --kind {kind}` has reasons and originals")
        for kind, report in done.reports.items():
            for remark, number in sorted(report.remarks.items(), key=lambda pair: -pair[1])[:_SHOWN_RULES]:
                progress(f"{kind}: {remark}: {number} records")


def _require_all(staged: "Mapping[Kind, StagedKind]") -> None:
    for kind, brought in staged.items():
        for rows in (brought.rows, brought.refused_labels):
            refused = None if rows is None else rows.filter(rows["rule"].is_not_null())
            if refused is not None and refused.height:
                raise ContractError(f"{kind}: {refused['message'][0]} ({refused['rule'][0]}); nothing was changed")


def _waiting(plan: EventPlan) -> int | None:
    """What came meanwhile; also tells consumer groups. The commit is done: brokers that do not answer any more change nothing."""
    from guidelens.data.records.kafka_source import show_progress, waiting

    try:
        for each in plan.kafka:
            show_progress(each)
        return sum(waiting(each) for each in plan.kafka)
    except StorageError as error:
        progress(f"events: taken in, but the brokers did not say what waits: {error}")
        return None


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
        if self._rows and time.perf_counter() - self._said >= _PROGRESS_EVERY_S:
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
@click.option("--events", multiple=True, metavar="FILE|DIR|kafka://HOST:PORT/TOPIC", help="Events: JSONL, CSV (.gz/.zst), Parquet or Kafka; repeatable.")
@click.option("--shoppers", default=None, metavar="FILE", help="Shoppers: Parquet, JSONL or CSV.")
@click.option("--reviews", default=None, metavar="FILE", help="Reviews: Parquet, JSONL or CSV.")
@rename_option
@click.option("--adapter", default=None, metavar="NAME", help="Read a known data set at --path instead.")
@click.option("--path", "path", default=None, type=click.Path(path_type=Path), help="Where the adapter's data set lies.")
@click.option("--from", "begin", type=click.Choice(["earliest", "latest"]), default="earliest", show_default=True, help="Of Kafka topics new to the lake.")
@click.option("--skip-lost", is_flag=True, help="Go on where a Kafka topic no longer has the next offset.")
@click.option("--follow", is_flag=True, help="Keep taking in the inbox, or Kafka topics, until SIGINT or SIGTERM.")
@click.option("--every", default=2.0, show_default=True, type=click.FloatRange(min=0.1), help="With --follow: seconds from batch to batch.")
@click.option("--materialize-every", default=None, type=click.FloatRange(min=1), metavar="SECONDS", help="With --follow: also compute features so often.")
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
    begin: Literal["earliest", "latest"],
    skip_lost: bool,
    follow: bool,
    every: float,
    materialize_every: float | None,
) -> None:
    config = with_renames(config, rename)
    if (adapter is None) != (path is None):
        raise ConfigError(f"--adapter and --path go together, got --adapter {adapter} --path {path}")
    sources = IngestSources(catalogue=catalogue, photos=photos, events=events, shoppers=shoppers, reviews=reviews, begin=begin, skip_lost=skip_lost)
    if follow:
        if adapter is not None:
            raise ConfigError(f"--follow takes the inbox or kafka:// events, got --adapter {adapter}; ingest that without --follow")
        from pipelines import follow as following

        emit(following.run(home, config, sources, lake, every_s=every, materialize_every_s=materialize_every))
        return
    if adapter is not None and path is not None:
        if sources.names_something:
            raise ConfigError("--adapter brings its own sources; leave out --catalogue, --photos, --events, --shoppers and --reviews")
        from guidelens.data.adapters import load as load_adapter

        sources = load_adapter(adapter, path).write(home.work / "adapters" / adapter, progress)
    emit(run(home, config, sources, lake))


if __name__ == "__main__":
    run_command(command)
