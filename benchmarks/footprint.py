"""What does an event take up on its way: bytes as it comes, staged, in Parquet, as an id, in features, online; and what grows with the lake?

    python -m benchmarks.footprint [--rows 400000] [--shoppers 5000] [--out benchmarks/results]

Sizes are exact. Times are CPU seconds of one thread, of pieces that no other benchmark shows apart: a manifest of many files written and read,
ids compared with those of a growing lake, rows put online. Redis is a server of its own on loopback. `benchmarks.scale` extrapolates from these.
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np
import polars as pl

from benchmarks._results import keep, machine, today
from benchmarks.features import EVENTS_PER_SESSION, a_log
from benchmarks.ingest import no_texts, write_logs
from benchmarks.online_read import redis_server
from guidelens.config import FeatureConfig, Home, IngestConfig, S3Options
from guidelens.data.features.log import NOTHING_KNOWN, EventFiles, known_now
from guidelens.data.features.shoppers import shopper_rows
from guidelens.data.ingest.event_intake import EventIntake, EventSource
from guidelens.data.ingest.event_tasks import IdSlice, Judge, Judgement
from guidelens.data.ingest.intake import take_in
from guidelens.data.ingest.stages import in_driver
from guidelens.data.lake.event_ids import FIRST_BYTES, IdFile, Ids, in_order, starts_of, write_ids
from guidelens.data.lake.lake import DataFile, Lake, Manifest
from guidelens.data.lake.staging import staging
from guidelens.data.lake.tables import append, to_table
from guidelens.data.pseudonyms import Pseudonymizer
from guidelens.data.records.sources import Kind, chunks_of, record_files
from guidelens.data.records.validation import Checker
from guidelens.data.sessions import in_sessions
from guidelens.data.visits import visits
from guidelens.features import Features
from guidelens.schemas.base import Frozen
from guidelens.schemas.tables import SCHEMAS, TEXT_DIM, Table
from pipelines.entry import progress, run_command

_MANIFEST_FILES = (1_000, 10_000, 100_000)
_KNOWN_IDS = (4_000_000, 16_000_000)
_IDS_A_FILE = 1_000_000
_NEW_IDS = 4_000_000
_ID_RANGES = 16
_SESSIONS = 20_000


class ManifestSize(Frozen):
    """A manifest of so many data files of events, and what it takes to write and read it."""

    files: int
    bytes: int
    write_cpu_s: float
    read_cpu_s: float


class Judging(Frozen):
    """New ids of one ingest compared with those that a lake's id files hold."""

    known: int
    files: int
    new: int
    cpu_s: float


class Footprint(Frozen):
    """rows: of the ingest whose bytes are counted. *_bytes: a row of it, a session of the features' log, a row of the shopper table, a shopper online."""

    machine: str
    date: str
    command: str
    rows: int
    raw_bytes: float
    staged_bytes: float
    parquet_bytes: float
    id_bytes: float
    id_file_entry_bytes: float
    manifests: tuple[ManifestSize, ...]
    judging: tuple[Judging, ...]
    sessions: int
    session_log_bytes: float
    session_log_memory_bytes: float
    shopper_row_bytes: float
    shoppers: int
    online_bytes: float
    online_rows_per_cpu_s: float


class _Bytes(Frozen):
    raw: float
    staged: float
    parquet: float
    id: float
    id_file_entry: float


def event_bytes(rows: int) -> _Bytes:
    """Of an event of the ingest benchmark's log, by taking it in."""
    with tempfile.TemporaryDirectory(prefix="gl-footprint-") as name:
        folder, s3, config = Path(name), S3Options(), IngestConfig()
        write_logs(folder, rows)
        lake, checker = Lake(str(folder / "lake")), Checker(Kind.EVENTS, Pseudonymizer(b"k" * 32), datetime.now(UTC))
        files = record_files(Kind.EVENTS, (str(folder / "events"),), s3)
        with staging(lake.store) as prefix:
            source = EventSource(chunks_of(files, config.event_chunk_bytes, s3), [file.uri for file in files], checker, s3, prefix)
            intake = EventIntake(lake, source, config, in_driver)
            intake.stage(frozenset())
            staged = sum(entry.size_bytes for entry in lake.store.entries(prefix))
            manifest = take_in(lake, {}, no_texts, datetime.now(UTC), intake, pseudonyms=checker.pseudonyms).manifest
        taken, ids = manifest.rows(Table.EVENTS), manifest.ids_of(Table.EVENTS)
        return _Bytes(
            raw=sum(file.stat().st_size for file in (folder / "events").iterdir()) / rows,
            staged=staged / rows,
            parquet=sum(file.size_bytes for file in manifest.of(Table.EVENTS)) / taken,
            id=sum(file.size_bytes for file in ids) / taken,
            id_file_entry=sum(len(file.model_dump_json()) + 1 for file in ids) / len(ids),
        )


def manifest_of(num_files: int) -> ManifestSize:
    key = "events/date=2026-03-01/{:024x}.parquet"
    since = datetime(2026, 3, 2, tzinfo=UTC)
    files = tuple(
        DataFile(table=Table.EVENTS, key=key.format(k), rows=250_000, size_bytes=7_654_321, sha256=f"{k:064x}", date="2026-03-01", since=since)
        for k in range(num_files)
    )
    manifest = Manifest(version=1, files=files)
    begun = time.process_time()
    written = manifest.model_dump_json().encode()
    write_cpu_s = time.process_time() - begun
    begun = time.process_time()
    read = Manifest.model_validate_json(written)
    read_cpu_s = time.process_time() - begun
    assert len(read.files) == num_files
    return ManifestSize(files=num_files, bytes=len(written), write_cpu_s=round(write_cpu_s, 4), read_cpu_s=round(read_cpu_s, 4))


def judging(known: int) -> Judging:
    """Ids at random, as hashes are; none of the new ones is known."""
    chance = np.random.default_rng(known)
    with tempfile.TemporaryDirectory(prefix="gl-footprint-") as name:
        lake = Lake(name)
        files = tuple(file for _ in range(known // _IDS_A_FILE) for file in write_ids(lake.store, Table.EVENTS, _drawn(chance, _IDS_A_FILE)))
        tasks = list(_judgements(lake, _drawn(chance, _NEW_IDS), files))
        begun = time.process_time()
        found = [Judge(lake).judge(task) for task in tasks]
        cpu_s = time.process_time() - begun
        assert sum(one.num_ids for one in found) == _NEW_IDS and not any(one.seen for one in found)
    return Judging(known=known, files=len(files), new=_NEW_IDS, cpu_s=round(cpu_s, 3))


def _drawn(chance: np.random.Generator, number: int) -> Ids:
    ids = Ids(*chance.integers(0, 2**64, (2, number), dtype=np.uint64))
    return ids.take(in_order(ids))


def _judgements(lake: Lake, new: Ids, known: tuple[IdFile, ...]) -> Iterator[Judgement]:
    staged = np.stack([new.high, new.low, np.arange(len(new.high), dtype=np.uint64)], axis=1).astype("<u8")
    lake.store.write_bytes("part", staged.tobytes())
    starts, edges = starts_of(new.high) * staged.strides[0], np.linspace(0, FIRST_BYTES, _ID_RANGES + 1).astype(int).tolist()
    for first, stop in pairwise(edges):
        yield Judgement(Table.EVENTS, first, stop, (IdSlice(0, "part", int(starts[first]), int(starts[stop])),), known)


class _FeatureBytes(Frozen):
    session_log: float
    session_log_memory: float
    shopper_row: float


def feature_bytes(sessions: int) -> _FeatureBytes:
    """A session in the features' log, on disk and in memory, and a row of the shopper table."""
    with tempfile.TemporaryDirectory(prefix="gl-footprint-") as name:
        lake, log = Lake(name), a_log(sessions)
        lake.commit(lake.manifest(), append(lake, lake.manifest(), Table.EVENTS, log), {})
        known = known_now(NOTHING_KNOWN, EventFiles(lake, lake.manifest()), lake.read(Table.SHOPPERS))
        rows = _rows_of(log)
        known.pieces.write_parquet(Path(name) / "sessions.parquet", compression="zstd")
        rows.write_parquet(Path(name) / "rows.parquet", compression="zstd")
        return _FeatureBytes(
            session_log=(Path(name) / "sessions.parquet").stat().st_size / sessions,
            session_log_memory=known.pieces.estimated_size() / sessions,
            shopper_row=(Path(name) / "rows.parquet").stat().st_size / rows.height,
        )


def _rows_of(log: pl.DataFrame) -> pl.DataFrame:
    nobody = pl.from_arrow(SCHEMAS[Table.SHOPPERS].empty_table())
    events = in_sessions(log.with_columns(browse_ms=pl.lit(None, pl.Float64), depth=pl.lit(None, pl.Int32), outcome=pl.lit(None, pl.String)))
    assert isinstance(nobody, pl.DataFrame)
    return shopper_rows(visits(events), events, nobody)


class _Online(Frozen):
    bytes: float
    rows_per_cpu_s: float


def online(shoppers: int) -> _Online:
    """A shopper's rows of all views in Redis, by its own count, and how many shoppers a second one core puts there."""
    import redis

    with redis_server() as port, tempfile.TemporaryDirectory(prefix="gl-footprint-") as name:
        home, server = Home(root=Path(name)), redis.Redis(host="127.0.0.1", port=port)
        rows = _rows_of(a_log(10 * shoppers)).sort("event_timestamp").unique("shopper_key", keep="last", maintain_order=True)
        features = Features(home, FeatureConfig(online_store="redis", redis_connection=f"127.0.0.1:{port}"))
        when = datetime(2025, 9, 1, tzinfo=UTC)
        product = pl.DataFrame({"product_id": ["p0"], "title": ["t"], "category": ["c"], "text_embedding": [[0.1] * TEXT_DIM], "known_ts": [when]})
        features.materialize(rows.head(1), _products(product), when + timedelta(days=400))
        reader = features.online()
        reader.load_shoppers(rows.head(10))
        before, begun = _used(server), time.process_time()
        reader.load_shoppers(rows.slice(10))
        cpu_s, held = time.process_time() - begun, _used(server) - before
    number = rows.height - 10
    return _Online(bytes=held / number, rows_per_cpu_s=number / cpu_s)


def _products(products: pl.DataFrame) -> pl.DataFrame:
    from guidelens.data.features.products import product_rows

    frame = pl.from_arrow(to_table(Table.PRODUCTS, products))
    photos = pl.from_arrow(SCHEMAS[Table.PHOTOS].empty_table())
    assert isinstance(frame, pl.DataFrame) and isinstance(photos, pl.DataFrame)
    return product_rows(frame, photos)


def _used(server: Any) -> int:
    return int(server.info("memory")["used_memory_dataset"])


def as_markdown(found: Footprint) -> str:
    lines = [
        "# What an event takes up",
        "",
        f"`{found.command}`, {found.machine}, {found.date}.",
        "",
        "| | bytes |",
        "|---|---|",
        f"| an event as a line of JSON | {found.raw_bytes:.0f} |",
        f"| staged, while it is taken in | {found.staged_bytes:.0f} |",
        f"| in the lake's Parquet | {found.parquet_bytes:.1f} |",
        f"| its id | {found.id_bytes:.1f} |",
        f"| an id file in the manifest | {found.id_file_entry_bytes:.0f} |",
        f"| a session of {EVENTS_PER_SESSION} events in the features' log, on disk | {found.session_log_bytes:.0f} |",
        f"| the same in memory | {found.session_log_memory_bytes:.0f} |",
        f"| a row of the shopper table | {found.shopper_row_bytes:.0f} |",
        f"| a shopper in Redis, all views | {found.online_bytes:,.0f} |",
        "",
        f"Of {found.rows:,} events, {found.sessions:,} sessions and {found.shoppers:,} shoppers. {found.online_rows_per_cpu_s:,.0f} shoppers are put online a CPU second.",
        "",
        "| data files in a manifest | MB | bytes a file | CPU s to write | CPU s to read |",
        "|---|---|---|---|---|",
        *(f"| {one.files:,} | {one.bytes / 1e6:.1f} | {one.bytes / one.files:.0f} | {one.write_cpu_s} | {one.read_cpu_s} |" for one in found.manifests),
        "",
        "| ids known | in files | new ids | CPU s to judge them |",
        "|---|---|---|---|",
        *(f"| {one.known:,} | {one.files} | {one.new:,} | {one.cpu_s} |" for one in found.judging),
    ]
    return "\n".join([*lines, ""])


def measured(rows: int, shoppers: int, known: Sequence[int]) -> Footprint:
    progress(f"taking in {rows} events")
    events = event_bytes(rows)
    progress("manifests of many files, and ids of a growing lake")
    manifests, judged = tuple(map(manifest_of, _MANIFEST_FILES)), tuple(map(judging, known))
    progress("features, offline and online")
    offline, in_redis = feature_bytes(_SESSIONS), online(shoppers)
    return Footprint(
        machine=machine(),
        date=today(),
        command=f"python -m benchmarks.footprint --rows {rows} --shoppers {shoppers}",
        rows=rows,
        raw_bytes=round(events.raw, 1),
        staged_bytes=round(events.staged, 1),
        parquet_bytes=round(events.parquet, 1),
        id_bytes=round(events.id, 2),
        id_file_entry_bytes=round(events.id_file_entry, 1),
        manifests=manifests,
        judging=judged,
        sessions=_SESSIONS,
        session_log_bytes=round(offline.session_log, 1),
        session_log_memory_bytes=round(offline.session_log_memory, 1),
        shopper_row_bytes=round(offline.shopper_row, 1),
        shoppers=shoppers,
        online_bytes=round(in_redis.bytes, 1),
        online_rows_per_cpu_s=round(in_redis.rows_per_cpu_s),
    )


@click.command()
@click.option("--rows", default=400_000, show_default=True, type=click.IntRange(1000), help="Events to take in.")
@click.option("--shoppers", default=5_000, show_default=True, type=click.IntRange(100), help="Shoppers to put online.")
@click.option("--out", default=Path("benchmarks/results"), type=click.Path(file_okay=False, path_type=Path))
def command(rows: int, shoppers: int, out: Path) -> None:
    """Measure and write benchmarks/results/footprint.{json,md}."""
    found = measured(rows, shoppers, _KNOWN_IDS)
    keep(found, as_markdown(found), out, "footprint")


if __name__ == "__main__":
    run_command(command)
