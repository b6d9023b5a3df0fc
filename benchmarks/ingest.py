"""How fast are events taken in, beside a bare polars program that scans, checks, drops duplicates and writes? And in how much memory?

    python -m benchmarks.ingest [--rows 100000,1000000,4000000,10000000] [--out benchmarks/results]

The log is a small simulated shop's, cloned with other event ids. Each measurement is a process of its own, once what it imports is loaded
and, through Ray, once a small log was taken in a few times by the same session, so that each of its worker processes has loaded the code:
what is measured is the work, Ray's own processes' included, and what the start costs is a line of its own. "1 core" is one worker where the
driver, Ray and the worker share a core; one worker and two have both cores. CPU time is that of the process and all of its children. The
peer keeps the whole log in memory, checks less (what polars can say in expressions), quarantines nothing, remembers no ids and commits
nothing.
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks._processes import family, stat_of
from benchmarks._results import keep, machine, today
from guidelens.config import IngestConfig, S3Options, WorldSize
from guidelens.errors import GuideLensError
from guidelens.schemas.base import Frozen
from guidelens.schemas.tables import TEXT_DIM
from pipelines.entry import progress, run_command

_WORLD = WorldSize(num_products=60, num_shoppers=400, num_sessions=1500, num_frames=20, views_per_product=2, num_days=28, reference_sessions=1000)
_SAMPLED_EVERY_S = 0.05
_START, _ONE_CORE = "Ray's start", "1 core"
_NUM_WORKERS = {_ONE_CORE: 1, "1 worker": 1, "2 workers": 2, _START: 2}
_ALONE, _TOGETHER = "one process", "2 processes"
_ALSO = "1 worker"
_FASTER_THAN = {_TOGETHER: _ALONE, "2 workers": _ONE_CORE}
_WAYS = ("polars", "check only", _ALONE, _TOGETHER, *_NUM_WORKERS)
_WARM_ROWS = 110_000
_WARM_LOG_ROWS, _WARM_RUNS = 600_000, 3
"""Enough for each pass to have several tasks, and often enough for Ray to have used all of its idle worker processes."""
_IDLE_SHARE = 0.05
_IDLE_PATIENCE_S = 30.0


class Measured(Frozen):
    """One way to take in one log. peak_mb: of resident memory, driver and workers together (Ray's own processes apart)."""

    way: str
    rows: int
    seconds: float
    cpu_seconds: float
    peak_mb: float

    @property
    def rows_per_cpu_second(self) -> float:
        return self.rows / self.cpu_seconds


class IngestStudy(Frozen):
    machine: str
    date: str
    command: str
    measured: tuple[Measured, ...]


def write_logs(folder: Path, rows: int) -> None:
    """Files of about `rows` events in all."""
    from guidelens.world.generate import generate

    generate(_WORLD, 1, folder / "world", num_workers=1)
    lines = [line for path in sorted((folder / "world" / "events").iterdir()) for line in path.read_bytes().splitlines(keepends=True)]
    (folder / "events").mkdir()
    for clone in range(-(-rows // len(lines))):
        mark = b'"event_id":"%d-' % clone
        wanted = lines[: rows - clone * len(lines)]
        text = b"".join(wanted).replace(b'"event_id": "', b'"event_id":"').replace(b'"event_id":"', mark)
        (folder / "events" / f"{clone:05d}.jsonl").write_bytes(text)


def bare_polars(folder: Path) -> None:
    """Scan, check, pseudonymize, drop duplicates, sort, and write a file a day."""
    import polars as pl

    from guidelens.data.pseudonyms import Pseudonymizer
    from guidelens.schemas.tables import SCHEMAS, Table

    kinds = {"string": pl.String, "int32": pl.Int32, "int64": pl.Int64, "double": pl.Float64}
    named = {
        field.name: kinds.get(str(field.type), pl.String) for field in SCHEMAS[Table.EVENTS] if field.name not in {"shopper_key", "key_id", "is_anonymous"}
    }
    schema = named | {"shopper_id": pl.String, "anonymous_id": pl.String}
    rows = pl.scan_ndjson(folder / "events" / "*.jsonl", schema=schema)
    needs_product = pl.col("type").is_in(["impression", "view", "click", "cart", "purchase", "return"])
    fine = (
        pl.col("event_id").str.len_chars().is_between(1, 128)
        & pl.col("session_id").str.len_chars().is_between(1, 128)
        & (pl.col("shopper_id").is_not_null() | pl.col("anonymous_id").is_not_null())
        & (~needs_product | pl.col("product_id").is_not_null())
        & pl.all_horizontal(
            (pl.col(name) >= 0).fill_null(True) for name in ("position", "browse_ms", "stay_ms", "depth", "view_ms", "step_index", "value_minor")
        )
        & pl.all_horizontal(pl.col(name).is_between(0, 1).fill_null(True) for name in ("propensity", "step_propensity"))
    )
    times = [pl.col(name).str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False) for name in ("event_ts", "created_ts")]
    found = rows.with_columns(*times).filter(fine & pl.col("event_ts").is_not_null()).collect()
    found = found.unique("event_id", keep="first", maintain_order=True)
    whose = found.select(pl.coalesce("shopper_id", "anonymous_id").alias("whose"), "shopper_id").unique()
    key = Pseudonymizer(b"k" * 32).key
    keys = whose.with_columns(shopper_key=pl.Series([key(name, anonymous=shopper is None) for name, shopper in whose.iter_rows()]))
    found = (
        found.with_columns(whose=pl.coalesce("shopper_id", "anonymous_id"))
        .join(keys.select("whose", "shopper_key"), on="whose")
        .drop("shopper_id", "anonymous_id", "whose")
    )
    found = found.sort("event_ts", "created_ts", "event_id")
    for (day,), part in found.group_by(pl.col("event_ts").dt.date()):
        part.write_parquet(folder / f"{day}.parquet", compression="zstd")


def _ours(folder: Path, num_workers: int) -> None:
    """The events' part of `guidelens ingest`; 0 workers: all in this process."""
    from guidelens.data.ingest.event_intake import EventIntake, EventSource
    from guidelens.data.ingest.intake import take_in
    from guidelens.data.ingest.stages import OnRay, in_driver
    from guidelens.data.lake.lake import Lake
    from guidelens.data.lake.staging import staging
    from guidelens.data.pseudonyms import Pseudonymizer
    from guidelens.data.records.sources import Kind, chunks_of, record_files
    from guidelens.data.records.validation import Checker

    lake, config, s3 = Lake(str(folder / "lake")), IngestConfig(), S3Options()
    files = record_files(Kind.EVENTS, (str(folder / "events"),), s3)
    checker = Checker(Kind.EVENTS, Pseudonymizer(b"k" * 32), datetime.now(UTC))
    with staging(lake.store) as prefix:
        source = EventSource(chunks_of(files, config.event_chunk_bytes, s3), [file.uri for file in files], checker, s3, prefix)
        run = OnRay(num_workers) if num_workers else in_driver
        take_in(lake, {}, no_texts, datetime.now(UTC), EventIntake(lake, source, config, run), pseudonyms=checker.pseudonyms)


def no_texts(texts: Sequence[str]) -> tuple[dict[str, NDArray[np.float32]], str]:
    """In place of the text encoder, which is not what is measured."""
    return {text: np.zeros(TEXT_DIM, np.float32) for text in texts}, "none"


def _check_only(folder: Path) -> None:
    """What any ingest pays for these contracts, whoever settles and writes."""
    from guidelens.data.pseudonyms import Pseudonymizer
    from guidelens.data.records.sources import Kind, chunks_of, record_files
    from guidelens.data.records.validation import Checker, checked_tables

    checker = Checker(Kind.EVENTS, Pseudonymizer(b"k" * 32), datetime.now(UTC))
    for chunk in chunks_of(record_files(Kind.EVENTS, (str(folder / "events"),), S3Options()), IngestConfig().event_chunk_bytes, S3Options()):
        for _ in checked_tables(chunk, checker, S3Options()):
            pass


def measure_here(way: str, folder: Path, rows: int) -> Measured:
    """Runs one way in this process and its children, warm."""
    from guidelens.data.ingest.stages import set_up_ray_data
    from pipelines.cluster import NUM_LOGICAL_CPUS, ray_session

    with tempfile.TemporaryDirectory(prefix="gl-ingest-", dir=folder) as name:
        warm = Path(name)
        write_logs(warm, _WARM_LOG_ROWS if way in _NUM_WORKERS and way != _START else _WARM_ROWS)
        if way not in _NUM_WORKERS:
            bare_polars(warm)
            _ours(warm, 0)
            with _watched(way, rows) as found:
                {"polars": bare_polars, "check only": _check_only, _ALONE: lambda log: _ours(log, 0)}[way](folder)
            return found[0]
        if way == _ONE_CORE:
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        with ExitStack() as session:
            with _watched(_START, _WARM_ROWS) as begun:
                session.enter_context(ray_session())
                set_up_ray_data()
                _ours(warm, NUM_LOGICAL_CPUS)
            for _ in range(_WARM_RUNS if way != _START else 0):
                shutil.rmtree(warm / "lake")
                _ours(warm, NUM_LOGICAL_CPUS)
            _until_idle()
            with _watched(way, rows) as found:
                if way != _START:
                    _ours(folder, _NUM_WORKERS[way])
            return begun[0] if way == _START else found[0]


def _until_idle() -> None:
    """Waits for what was started and still works, such as idle workers that import."""
    until = time.perf_counter() + _IDLE_PATIENCE_S
    while time.perf_counter() < until:
        cpu = _cpu_seconds()
        time.sleep(1.0)
        if _cpu_seconds() - cpu < _IDLE_SHARE:
            return
    raise GuideLensError(f"Ray's processes must come to rest before a measurement, they did not within {_IDLE_PATIENCE_S:.0f} s; run on a quiet machine")


@contextmanager
def _watched(way: str, rows: int) -> Iterator[list[Measured]]:
    """Measures what is done inside; the list holds the measurement at the end."""
    found: list[Measured] = []
    with _sampled() as peaks:
        cpu, start = _cpu_seconds(), time.perf_counter()
        yield found
        seconds, used = time.perf_counter() - start, _cpu_seconds() - cpu
    found.append(Measured(way=way, rows=rows, seconds=round(seconds, 2), cpu_seconds=round(used, 2), peak_mb=round(max(peaks))))


@contextmanager
def _sampled() -> Iterator[list[float]]:
    """Collects the resident megabytes of this process and its workers."""
    peaks, ended = [_resident_mb()], threading.Event()

    def sample() -> None:
        while not ended.wait(_SAMPLED_EVERY_S):
            peaks.append(_resident_mb())

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    yield peaks
    ended.set()
    thread.join()


def _resident_mb() -> float:
    """Of this process and Ray's workers; not of Ray's store, raylet and agents, which do not grow with the rows."""
    total = 0
    for process in family(os.getpid()):
        try:
            if process == os.getpid() or Path(f"/proc/{process}/cmdline").read_text().startswith("ray::"):
                resident, shared = Path(f"/proc/{process}/statm").read_text().split()[1:3]
                total += (int(resident) - int(shared)) * resource.getpagesize()
        except OSError:
            continue
    return total / 1e6


def _cpu_seconds() -> float:
    """Of this process and all below it, ended ones too."""
    total = 0
    for process in family(os.getpid()):
        try:
            total += sum(int(ticks) for ticks in stat_of(process)[11:15])
        except OSError:
            continue
    return total / os.sysconf("SC_CLK_TCK")


def study(sizes: tuple[int, ...], repeats: int, peer_rows: int) -> list[Measured]:
    """The least CPU time of `repeats` runs of each way and size: other work on the machine only adds to it."""
    found = []
    for rows in sizes:
        with tempfile.TemporaryDirectory(prefix="gl-ingest-") as name:
            folder = Path(name)
            write_logs(folder, rows)
            for way in _WAYS:
                if (way == "polars" and rows > peer_rows) or (way == _START and rows != sizes[0]):
                    continue
                measure = _side_by_side if way == _TOGETHER else partial(_in_a_process, way)
                runs = [measure(folder, rows) for _ in range(repeats)]
                found.append(min(runs, key=lambda run: run.cpu_seconds))
                progress(f"{rows} events, {way}: {found[-1].rows_per_cpu_second:,.0f} rows per CPU second, {found[-1].seconds} s, {found[-1].peak_mb:.0f} MB")
    return found


def _side_by_side(folder: Path, rows: int) -> Measured:
    """Two processes at once with half of the files each, into lakes of their own: what the machine gives at best, without Ray."""
    with tempfile.TemporaryDirectory(prefix="gl-ingest-", dir=folder) as name, ThreadPoolExecutor(2) as pool:
        halves = [Path(name) / half for half in "ab"]
        for half in halves:
            (half / "events").mkdir(parents=True)
        for number, file in enumerate(sorted((folder / "events").iterdir())):
            (halves[number % 2] / "events" / file.name).symlink_to(file)
        found = list(pool.map(lambda half: _in_a_process(_ALONE, half, rows // 2), halves))
    return Measured(
        way=_TOGETHER,
        rows=rows,
        seconds=max(one.seconds for one in found),
        cpu_seconds=sum(one.cpu_seconds for one in found),
        peak_mb=sum(one.peak_mb for one in found),
    )


def _in_a_process(way: str, folder: Path, rows: int) -> Measured:
    with tempfile.TemporaryDirectory(prefix="gl-ingest-", dir=folder) as lake:
        (Path(lake) / "events").symlink_to(folder / "events")
        line = [sys.executable, "-m", "benchmarks.ingest", "--way", way, "--folder", lake, "--rows", str(rows)]
        threads = {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1"}
        done = subprocess.run(line, capture_output=True, text=True, check=False, env=os.environ | threads)
    if done.returncode:
        raise GuideLensError(f"{way} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return Measured.model_validate_json(done.stdout.splitlines()[-1])


def as_markdown(found: IngestStudy) -> str:
    lines = [
        "# Taking in events",
        "",
        f"`{found.command}`, {found.machine}, {found.date}. Shares are of bare polars at the same number of events, or at the most it was given.",
        "Two processes without Ray, with a lake and half of the files each, are what the machine gives two workers at best. One core: driver, Ray",
        "and one worker on the same core; one worker and two have both. In brackets: as fast as one worker that leaves the driver a core of its own.",
        "",
        "| events | way | rows per CPU second | share of bare polars | seconds | times as fast as on one core | peak MB |",
        "|---|---|---|---|---|---|---|",
    ]
    by_way = {(one.way, one.rows): one for one in found.measured}
    for one in found.measured:
        peer = max((other for other in found.measured if other.way == "polars" and other.rows <= one.rows), key=lambda other: other.rows, default=one)
        share, alone = one.rows_per_cpu_second / peer.rows_per_cpu_second, by_way.get((_FASTER_THAN.get(one.way, ""), one.rows))
        also = by_way.get((_ALSO, one.rows)) if one.way == "2 workers" else None
        faster = " ".join([*([f"{alone.seconds / one.seconds:.2f}"] if alone else []), *([f"({also.seconds / one.seconds:.2f})"] if also else [])])
        rates = f"{one.rows_per_cpu_second:,.0f} | {share:.2f}" if one.way != _START else " | "
        lines.append(f"| {one.rows:,} | {one.way} | {rates} | {one.seconds} | {faster} | {one.peak_mb:.0f} |")
    return "\n".join([*lines, ""])


@click.command()
@click.option("--rows", default="100000,1000000,4000000,10000000", show_default=True, help="Numbers of events.")
@click.option("--repeats", default=2, show_default=True, type=click.IntRange(1), help="Runs of each; the one with the least CPU time counts.")
@click.option("--peer-rows", default=4_000_000, show_default=True, help="No more to bare polars, which holds them all in memory.")
@click.option("--out", default=Path("benchmarks/results"), type=click.Path(file_okay=False, path_type=Path))
@click.option("--way", type=click.Choice(_WAYS), default=None, hidden=True)
@click.option("--folder", type=click.Path(path_type=Path), default=None, hidden=True)
def command(rows: str, repeats: int, peer_rows: int, out: Path, way: str | None, folder: Path | None) -> None:
    """Measure and write benchmarks/results/ingest.{json,md}."""
    sizes = tuple(int(size) for size in rows.split(","))
    if way is not None and folder is not None:
        print(measure_here(way, folder, sizes[0]).model_dump_json())
        return
    found = IngestStudy(
        machine=machine(),
        date=today(),
        command=f"python -m benchmarks.ingest --rows {rows} --repeats {repeats} --peer-rows {peer_rows}",
        measured=tuple(study(sizes, repeats, peer_rows)),
    )
    keep(found, as_markdown(found), out, "ingest")


if __name__ == "__main__":
    run_command(command)
