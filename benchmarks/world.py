"""What does a large world cost? Memory and events a CPU-second as the log grows, beside what writing the same lines alone costs.

    python -m benchmarks.world [--most 10600000] [--out benchmarks/results]

Each world is drawn by `guidelens world generate` with two workers. CPU seconds are of all its processes, told by the system; memory is
what they hold together, sampled, and, as a check on the sampling, the most that one of them ever held, told by the system. Each
number of shoppers is drawn with few events and with ten times as many. The limit is polars writing the second world's events, once they
are in memory, as lines of JSON.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import click
import polars as pl

from benchmarks._processes import sampled_memory_mb
from benchmarks._results import keep, machine, today
from guidelens.errors import GuideLensError
from guidelens.schemas.base import Frozen
from pipelines.entry import progress, run_command

EVENTS_A_SESSION = 17
_WORKERS = 2
_SHOPPERS_AND_EVENTS = ((10_000, 100_000), (10_000, 1_000_000), (100_000, 1_060_000), (100_000, 10_600_000))


class Drawn(Frozen):
    """One world. cpu_s and memory are of whole processes, imports included (`empty` has almost nothing else).

    peak_mb: of all processes together, at the worst of ten moments a second. largest_process_mb: of the one that ever held most.
    """

    shoppers: int
    events: int
    bytes: int
    files: int
    cpu_s: float
    wall_s: float
    peak_mb: float
    largest_process_mb: float


class WorldStudy(Frozen):
    machine: str
    date: str
    command: str
    empty: Drawn
    worlds: tuple[Drawn, ...]
    write_alone_events_per_cpu_s: float

    def rate(self, drawn: Drawn) -> float:
        """Events a CPU-second, what an empty world costs taken off."""
        return drawn.events / (drawn.cpu_s - self.empty.cpu_s)


def draw(shoppers: int, events: int, out: Path) -> Drawn:
    """Draws a world of about `events` events in processes of its own.

    Raises:
        GuideLensError: the process failed.
    """
    sessions = max(100, round(events / EVENTS_A_SESSION))
    line = [sys.executable, "-m", "pipelines.cli", "world", "generate", "--out", str(out), "--seed", "1000", "--workers", str(_WORKERS), "--no-photos"]
    start = time.perf_counter()
    with (out.parent / "stdout").open("w+") as told:
        process = subprocess.Popen(
            [*line, "--shoppers", str(shoppers), "--sessions", str(sessions)],
            stdout=told,
            env={**os.environ, "POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
        with sampled_memory_mb(process.pid) as held_mb:
            _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        told.seek(0)
        if process.returncode:
            raise GuideLensError(f"a world of {shoppers} shoppers ended with {process.returncode}")
        result = json.loads(told.read().splitlines()[-1])
    files = list((out / "events").iterdir())
    return Drawn(
        shoppers=shoppers,
        events=result["num_events"],
        bytes=sum(file.stat().st_size for file in files),
        files=len(files),
        cpu_s=round(used.ru_utime + used.ru_stime, 2),
        wall_s=round(time.perf_counter() - start, 1),
        peak_mb=round(max(held_mb), 1),
        largest_process_mb=round(used.ru_maxrss / 1024, 1),
    )


def write_alone(events: Path, sink: Path) -> float:
    """Events a CPU-second of writing what `events` holds, already in memory, as lines of JSON."""
    frames = [pl.read_ndjson(file, infer_schema_length=None) for file in sorted(events.iterdir())]
    start = time.process_time()
    for frame in frames:
        frame.write_ndjson(sink)
    return sum(frame.height for frame in frames) / (time.process_time() - start)


def _apart(events: Path, sink: Path) -> float:
    """`write_alone` in a process of its own: what this one holds would count as its children's peak memory."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(write_alone, events, sink).result()


def study(sizes: Sequence[tuple[int, int]]) -> WorldStudy:
    drawn = []
    with tempfile.TemporaryDirectory(prefix="gl-world-") as folder:
        empty = draw(20, 0, Path(folder) / "empty")
        for number, (shoppers, events) in enumerate(sizes):
            out = Path(folder) / "world"
            drawn.append(draw(shoppers, events, out))
            progress(f"{shoppers} shoppers: {drawn[-1]}")
            if number <= 1:
                alone = _apart(out / "events", Path(folder) / "alone.jsonl")
    return WorldStudy(
        machine=machine(),
        date=today(),
        command=f"python -m benchmarks.world --most {max(events for _, events in sizes)}",
        empty=empty,
        worlds=tuple(drawn),
        write_alone_events_per_cpu_s=round(alone),
    )


def as_markdown(found: WorldStudy) -> str:
    few = {one.shoppers: one for one in reversed(found.worlds)}
    lines = [
        "# A world's cost",
        "",
        f"`{found.command}`, {found.machine}, {found.date}. {_WORKERS} workers. Writing the same events alone (polars, from memory): "
        f"{found.write_alone_events_per_cpu_s:,.0f} events a CPU-second. An empty world takes {found.empty.cpu_s} CPU-seconds (taken off the rates) and "
        f"{found.empty.peak_mb:,.0f} MB, in one process. Memory is what all processes hold together, at its highest; the largest process by the system's count.",
        "",
        "| shoppers | events | files | MB written | events a CPU-second | of writing alone | peak memory MB | against fewest events | largest process MB | wall s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in found.worlds:
        rate = found.rate(one)
        lines.append(
            f"| {one.shoppers:,} | {one.events:,} | {one.files} | {one.bytes / 1e6:,.0f} | {rate:,.0f} | {rate / found.write_alone_events_per_cpu_s:.2f} | "
            f"{one.peak_mb:,.0f} | {one.peak_mb / few[one.shoppers].peak_mb:.2f} | {one.largest_process_mb:,.0f} | {one.wall_s:.0f} |"
        )
    return "\n".join([*lines, ""])


@click.command()
@click.option("--most", default=10_600_000, show_default=True, type=click.IntRange(min=100_000), help="Leave out worlds of more events.")
@click.option("--out", default=Path("benchmarks/results"), type=click.Path(file_okay=False, path_type=Path))
def command(most: int, out: Path) -> None:
    """Draw worlds of growing size and write benchmarks/results/world.{json,md}."""
    found = study([size for size in _SHOPPERS_AND_EVENTS if size[1] <= most])
    keep(found, as_markdown(found), out, "world")


if __name__ == "__main__":
    run_command(command)
