"""What does an event take up on its way: bytes as it comes, staged, in Parquet, as an id, in features, online; and what grows with the lake?

    python -m benchmarks.footprint [--rows 400000] [--out benchmarks/results]

Sizes are exact. Times are CPU seconds of one thread, of pieces that no other benchmark shows apart: a manifest of many files written and read,
ids compared with those of a growing lake, rows put online. Redis is a server of its own on loopback. `benchmarks.scale` extrapolates from these.
"""

import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np
import polars as pl

from benchmarks._results import keep, machine, today
from benchmarks.ingest import no_texts
from benchmarks.online_read import redis_server
from benchmarks.world import EVENTS_A_SESSION
from guidelens.config import FeatureConfig, Home, IngestConfig, S3Options, WorldSize
from guidelens.data.features.log import NOTHING_KNOWN, EventFiles, known_now
from guidelens.data.features.shoppers import shopper_rows
from guidelens.data.ingest.event_intake import EventIntake, EventSource
from guidelens.data.ingest.event_tasks import IdSlice, Judge, Judgement
from guidelens.data.ingest.intake import take_in
from guidelens.data.ingest.stages import in_driver
from guidelens.data.lake.event_ids import FIRST_BYTES, Ids, in_order, starts_of, write_ids
from guidelens.data.lake.lake import DataFile, IdFile, Lake, Manifest
from guidelens.data.lake.staging import staging
from guidelens.data.lake.tables import to_table
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
_KNOWN_AND_NEW_IDS = ((4_000_000, 1_000_000), (16_000_000, 1_000_000), (4_000_000, 4_000_000), (16_000_000, 4_000_000))
_IDS_A_FILE = 1_000_000
_ID_RANGES = 16
_EVENTS_A_SHOPPER = 80


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
    """rows: of the ingest whose bytes are counted. *_bytes: of one event, session of the features' log, row of the shopper table, shopper online."""

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
    event_memory_bytes: float
    session_log_bytes: float
    session_log_memory_bytes: float
    shopper_row_bytes: float
    shoppers: int
    online_bytes: float
    online_packed_bytes: float
    online_rows_per_cpu_s: float


class _Bytes(Frozen):
    raw: float
    staged: float
    parquet: float
    id: float
    id_file_entry: float


def a_shop(folder: Path, rows: int) -> int:
    """The events and shoppers of a week of a simulated shop; about `rows` events, which are returned exactly."""
    from guidelens.world.generate import generate

    size = WorldSize(num_products=2_000, num_shoppers=rows // _EVENTS_A_SHOPPER, num_sessions=rows // EVENTS_A_SESSION, num_days=7)
    return generate(size, 1, folder, num_workers=1, with_photos=False).num_events


def event_bytes(folder: Path, lake: Lake, rows: int) -> _Bytes:
    """Of an event of the shop, by taking all of them into the lake."""
    s3, config = S3Options(), IngestConfig()
    checker = Checker(Kind.EVENTS, Pseudonymizer(b"k" * 32), datetime.now(UTC))
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


def judging(known: int, new: int) -> Judging:
    """Ids at random, as hashes are; none of the new ones is known."""
    chance = np.random.default_rng(known)
    with tempfile.TemporaryDirectory(prefix="gl-footprint-") as name:
        lake = Lake(name)
        files = tuple(file for _ in range(known // _IDS_A_FILE) for file in write_ids(lake.store, Table.EVENTS, _drawn(chance, _IDS_A_FILE)))
        tasks = list(_judgements(lake, _drawn(chance, new), files))
        begun = time.process_time()
        found = [Judge(lake).judge(task) for task in tasks]
        cpu_s = time.process_time() - begun
        assert sum(one.num_ids for one in found) == new and not any(one.seen for one in found)
    return Judging(known=known, files=len(files), new=new, cpu_s=round(cpu_s, 3))


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
    sessions: int
    event_memory: float
    session_log: float
    session_log_memory: float
    shopper_row: float


def feature_bytes(folder: Path, lake: Lake) -> _FeatureBytes:
    """A session in the features' log, on disk and in memory, an event that rows are made of, in memory, and a row of the shopper table."""
    files, rows = EventFiles(lake, lake.manifest()), rows_of(lake)
    known, events = known_now(NOTHING_KNOWN, files, lake.read(Table.SHOPPERS)), files.read_all(list(files.files))
    known.pieces.write_parquet(folder / "sessions.parquet", compression="zstd")
    rows.write_parquet(folder / "rows.parquet", compression="zstd")
    return _FeatureBytes(
        sessions=known.pieces.height,
        event_memory=events.estimated_size() / events.height,
        session_log=(folder / "sessions.parquet").stat().st_size / known.pieces.height,
        session_log_memory=known.pieces.estimated_size() / known.pieces.height,
        shopper_row=(folder / "rows.parquet").stat().st_size / rows.height,
    )


def rows_of(lake: Lake) -> pl.DataFrame:
    """The shopper table of a lake."""
    events = in_sessions(lake.read(Table.EVENTS))
    return shopper_rows(visits(events), events, lake.read(Table.SHOPPERS))


class _Online(Frozen):
    shoppers: int
    bytes: float
    packed_bytes: float
    rows_per_cpu_s: float


def online(rows: pl.DataFrame) -> _Online:
    """A shopper in Redis, by its own count: in all views, and the packed row alone. And how many a second one core puts into all views."""
    import redis

    newest = rows.sort("event_timestamp").unique("shopper_key", keep="last", maintain_order=True)
    with redis_server() as port, tempfile.TemporaryDirectory(prefix="gl-footprint-") as name:
        home, server = Home(root=Path(name)), redis.Redis(host="127.0.0.1", port=port)
        features = Features(home, FeatureConfig(online_store="redis", redis_connection=f"127.0.0.1:{port}"))
        when = datetime(2025, 1, 1, tzinfo=UTC)
        product = pl.DataFrame({"product_id": ["p0"], "title": ["t"], "category": ["c"], "text_embedding": [[0.1] * TEXT_DIM], "known_ts": [when]})
        features.materialize(newest.head(1), _products(product), datetime.now(UTC))
        reader = features.online()
        half = newest.height // 2
        held = [_used(server)]
        for shopper_key, packed in newest.head(half).select("shopper_key", "packed").iter_rows():
            reader.push_shopper(shopper_key, packed)
        held.append(_used(server))
        begun = time.process_time()
        reader.load_shoppers(newest.slice(half))
        cpu_s = time.process_time() - begun
        held.append(_used(server))
    number = newest.height - half
    return _Online(shoppers=newest.height, bytes=(held[2] - held[1]) / number, packed_bytes=(held[1] - held[0]) / half, rows_per_cpu_s=number / cpu_s)


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
        f"| an event that features are made of, in memory | {found.event_memory_bytes:.0f} |",
        f"| a session in the features' log, on disk | {found.session_log_bytes:.0f} |",
        f"| the same in memory | {found.session_log_memory_bytes:.0f} |",
        f"| a row of the shopper table | {found.shopper_row_bytes:.0f} |",
        f"| a shopper in Redis, all views | {found.online_bytes:,.0f} |",
        f"| the packed row of it, which is what requests read | {found.online_packed_bytes:,.0f} |",
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


def measured(rows: int) -> Footprint:
    with tempfile.TemporaryDirectory(prefix="gl-footprint-") as name:
        folder, lake = Path(name), Lake(str(Path(name) / "lake"))
        progress(f"a shop of about {rows} events")
        number = a_shop(folder, rows)
        progress("taking it in")
        events = event_bytes(folder, lake, number)
        progress("features, offline and online")
        offline, in_redis = feature_bytes(folder, lake), online(rows_of(lake))
    progress("manifests of many files, and ids of a growing lake")
    manifests, judged = tuple(map(manifest_of, _MANIFEST_FILES)), tuple(judging(known, new) for known, new in _KNOWN_AND_NEW_IDS)
    return Footprint(
        machine=machine(),
        date=today(),
        command=f"python -m benchmarks.footprint --rows {rows}",
        rows=number,
        raw_bytes=round(events.raw, 1),
        staged_bytes=round(events.staged, 1),
        parquet_bytes=round(events.parquet, 1),
        id_bytes=round(events.id, 2),
        id_file_entry_bytes=round(events.id_file_entry, 1),
        manifests=manifests,
        judging=judged,
        sessions=offline.sessions,
        event_memory_bytes=round(offline.event_memory, 1),
        session_log_bytes=round(offline.session_log, 1),
        session_log_memory_bytes=round(offline.session_log_memory, 1),
        shopper_row_bytes=round(offline.shopper_row, 1),
        shoppers=in_redis.shoppers,
        online_bytes=round(in_redis.bytes),
        online_packed_bytes=round(in_redis.packed_bytes),
        online_rows_per_cpu_s=round(in_redis.rows_per_cpu_s),
    )


@click.command()
@click.option("--rows", default=400_000, show_default=True, type=click.IntRange(10_000), help="Events to take in.")
@click.option("--out", default=Path("benchmarks/results"), type=click.Path(file_okay=False, path_type=Path))
def command(rows: int, out: Path) -> None:
    """Measure and write benchmarks/results/footprint.{json,md}."""
    found = measured(rows)
    keep(found, as_markdown(found), out, "footprint")


if __name__ == "__main__":
    run_command(command)
