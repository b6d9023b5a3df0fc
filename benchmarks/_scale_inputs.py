"""What `benchmarks.scale` takes from other benchmarks' results: which figures, and at which size each was measured. No script of its own."""

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from guidelens.errors import NotFoundError
from guidelens.schemas.base import Frozen, Record

_WAY = "2 workers"
Result = TypeVar("Result", bound=Record)


class Input(Frozen):
    """One measured figure. measured_at: by what, and at which size."""

    name: str
    figure: str
    measured_at: str


class _Ingested(Record):
    way: str
    rows: int
    cpu_seconds: float
    peak_mb: float


class Ingest(Record):
    measured: tuple[_Ingested, ...]

    @property
    def largest(self) -> _Ingested:
        return max((one for one in self.measured if one.way == _WAY), key=lambda one: one.rows)

    @property
    def rate(self) -> float:
        """Events a CPU second."""
        return self.largest.rows / self.largest.cpu_seconds


class ManifestSize(Record):
    files: int
    bytes: int
    read_cpu_s: float

    @property
    def bytes_a_file(self) -> float:
        return self.bytes / self.files

    @property
    def read_s_a_file(self) -> float:
        return self.read_cpu_s / self.files


class _Judging(Record):
    known: int
    new: int
    cpu_s: float


class Footprint(Record):
    rows: int
    raw_bytes: float
    staged_bytes: float
    parquet_bytes: float
    id_bytes: float
    id_file_entry_bytes: float
    manifests: tuple[ManifestSize, ...]
    judging: tuple[_Judging, ...]
    sessions: int
    event_memory_bytes: float
    session_log_memory_bytes: float
    shopper_row_bytes: float
    shoppers: int
    online_bytes: float
    online_packed_bytes: float
    online_rows_per_cpu_s: float

    @property
    def largest_manifest(self) -> ManifestSize:
        return max(self.manifests, key=lambda one: one.files)

    @property
    def judge_ns_an_id(self) -> float:
        """What one more known id costs an ingest, with the most new ids that were tried."""
        new = max(one.new for one in self.judging)
        first, *_, last = sorted((one for one in self.judging if one.new == new), key=lambda one: one.known)
        return 1e9 * (last.cpu_s - first.cpu_s) / (last.known - first.known)


class _FeatureSize(Record):
    events: int
    incremental_s: float
    read_share: float


class Features(Record):
    sizes: tuple[_FeatureSize, ...]

    @property
    def us_an_event(self) -> float:
        """What one more event read costs an incremental materialization: the two largest sizes' difference."""
        small, large = self.sizes[-2:]
        return 1e6 * (large.incremental_s - small.incremental_s) / (large.events * large.read_share - small.events * small.read_share)


class Streaming(Record):
    messages: int
    kafka_per_s: float


class Results(Frozen):
    """Of the other benchmarks; streaming's is not there before it was run."""

    ingest: Ingest
    footprint: Footprint
    features: Features
    streaming: Streaming | None


def read_results(folder: Path) -> Results:
    """Raises NotFoundError, with the command, where a benchmark was not run."""
    return Results(
        ingest=_read(folder, "ingest", Ingest),
        footprint=_read(folder, "footprint", Footprint),
        features=_read(folder, "features", Features),
        streaming=_read(folder, "streaming", Streaming) if (folder / "streaming.json").is_file() else None,
    )


def _read(folder: Path, name: str, kind: type[Result]) -> Result:
    try:
        return kind.model_validate_json((folder / f"{name}.json").read_bytes())
    except (FileNotFoundError, ValidationError) as error:
        raise NotFoundError(f"{folder / name}.json must hold what `python -m benchmarks.{name}` writes; run that first") from error


def inputs_of(found: Results) -> Iterator[Input]:
    foot, rows = found.footprint, found.ingest.largest.rows
    size = f"footprint, {foot.rows:,} events"
    yield Input(name="events a CPU second, all of ingest", figure=f"{found.ingest.rate:,.0f}", measured_at=f"ingest, {rows:,} events, {_WAY} on Ray")
    yield Input(name="memory of such an ingest, MB", figure=f"{found.ingest.largest.peak_mb:,.0f}", measured_at="the same")
    yield Input(name="bytes an event as JSON", figure=f"{foot.raw_bytes:.0f}", measured_at=size)
    yield Input(name="bytes an event staged", figure=f"{foot.staged_bytes:.0f}", measured_at=size)
    yield Input(name="bytes an event in Parquet", figure=f"{foot.parquet_bytes:.1f}", measured_at=size)
    yield Input(name="bytes an event in id files", figure=f"{foot.id_bytes:.1f}", measured_at=size)
    largest = foot.largest_manifest
    of_manifest = f"footprint, a manifest of {largest.files:,} files"
    yield Input(name="bytes a data file in the manifest", figure=f"{largest.bytes_a_file:.0f}", measured_at=of_manifest)
    yield Input(name="CPU us a file to read the manifest", figure=f"{1e6 * largest.read_s_a_file:.1f}", measured_at=of_manifest)
    yield Input(name="bytes an id file in the manifest", figure=f"{foot.id_file_entry_bytes:.0f}", measured_at=size)
    known = max(one.known for one in foot.judging)
    yield Input(name="CPU ns an id known so far, an ingest", figure=f"{foot.judge_ns_an_id:.0f}", measured_at=f"footprint, up to {known:,} known ids")
    newest = found.features.sizes[-1]
    yield Input(
        name="us an event that features read", figure=f"{found.features.us_an_event:.1f}", measured_at=f"features, {newest.events:,} events, one process"
    )
    yield Input(name="bytes an event that features hold in memory", figure=f"{foot.event_memory_bytes:.0f}", measured_at=size)
    yield Input(
        name="bytes a session in the features' log, in memory",
        figure=f"{foot.session_log_memory_bytes:.0f}",
        measured_at=f"footprint, {foot.sessions:,} sessions",
    )
    yield Input(name="bytes a row of the shopper table", figure=f"{foot.shopper_row_bytes:.0f}", measured_at=size)
    in_redis = f"footprint, {foot.shoppers:,} shoppers in Redis"
    yield Input(name="bytes a shopper online", figure=f"{foot.online_bytes:,.0f}", measured_at=in_redis)
    yield Input(name="bytes of the packed row alone", figure=f"{foot.online_packed_bytes:,.0f}", measured_at=in_redis)
    yield Input(name="shoppers put online a CPU second", figure=f"{foot.online_rows_per_cpu_s:,.0f}", measured_at=in_redis)
    if found.streaming is None:
        yield Input(name="Kafka messages read a second", figure="not measured", measured_at="run `python -m benchmarks.streaming`")
    else:
        at = f"streaming, {found.streaming.messages:,} messages of mock brokers in memory"
        yield Input(name="Kafka messages read a second", figure=f"{found.streaming.kafka_per_s:,.0f}", measured_at=at)
