"""How do materialize and the point-in-time join grow? A log of 1x, 4x and 16x as many shoppers, in the same run.

    python -m benchmarks.features [--sessions 32000] [--out benchmarks/results]

Times: a full materialization (lake to Feast's tables and sqlite), an incremental one after a last day of log, and the join of all
slate-like requests with the packed row. The exponent b is that of seconds = a * size^b, by least squares on the logarithms; the
slope is the same between the last two sizes, where fixed costs weigh least. The join reads the shopper table from disk: its peers are
that reading alone, and polars' bare join_asof on the same columns in memory; a join of ten requests shows what does not grow with requests.
"""

import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import numpy as np
import polars as pl

from benchmarks._results import keep, machine, today
from guidelens.config import Home
from guidelens.data.lake.lake import Lake
from guidelens.data.lake.tables import append, to_table
from guidelens.features import Features
from guidelens.presets import tiny
from guidelens.schemas.base import Frozen
from guidelens.schemas.events import EventType
from guidelens.schemas.tables import TEXT_DIM, Table
from pipelines import materialize
from pipelines.entry import progress, run_command

SCALES = (1, 4, 16)
JOINED = 3
"""Times that a join is done; the quickest counts."""
DAYS = 90
SESSIONS_PER_SHOPPER = 10
EVENTS_PER_SESSION = 8
START = datetime(2025, 9, 1, tzinfo=UTC)


class Size(Frozen):
    """Seconds at one scale; read_share: of the log's events that the incremental run read; join_ten_s: of ten requests only."""

    scale: int
    events: int
    shopper_rows: int
    requests: int
    full_s: float
    incremental_s: float
    read_share: float
    join_s: float
    join_ten_s: float
    read_table_s: float
    bare_join_s: float


class Growth(Frozen):
    """Of one of the times. slope: between the last two sizes. s_per_million: seconds that a million more events (requests, for a join)
    cost between them."""

    exponent: float
    slope: float
    s_per_million: float


class Found(Frozen):
    machine: str
    date: str
    command: str
    sizes: tuple[Size, ...]
    full: Growth
    incremental: Growth
    join: Growth
    bare_join: Growth


def a_log(sessions: int, seed: int = 0) -> pl.DataFrame:
    """Sessions at even times over DAYS, of one shopper in SESSIONS_PER_SHOPPER each."""
    chance = np.random.default_rng(seed)
    number = sessions * EVENTS_PER_SESSION
    session = np.repeat(np.arange(sessions), EVENTS_PER_SESSION)
    starts = chance.integers(0, DAYS * 86_400 * 10**6, sessions)[session]
    times = pl.Series(starts + chance.integers(0, 600 * 10**6, number)).cast(pl.Duration("us")) + START
    kinds = np.array([EventType.IMPRESSION, EventType.CLICK, EventType.VIEW, EventType.AR_VIEW, EventType.AR_GESTURE, EventType.CART], dtype=object)
    found = pl.DataFrame(
        {
            "event_id": [f"e{k:010d}" for k in range(number)],
            "shopper_key": [f"{k:064x}" for k in session % max(sessions // SESSIONS_PER_SHOPPER, 1)],
            "session_id": [f"s{k}" for k in session],
            "type": [str(kind.value) for kind in chance.choice(kinds, number)],
            "product_id": [f"p{k}" for k in chance.integers(0, 240, number)],
            "stay_ms": chance.random(number) * 1e4,
            "view_ms": chance.random(number) * 1e4,
        }
    )
    times = times.dt.cast_time_unit("us")
    return found.with_columns(event_ts=times, created_ts=times, is_anonymous=pl.lit(False)).sort("event_ts", "created_ts", "event_id")


def measured(scale: int, sessions: int, root: Path) -> Size:
    home, log = Home(root=root), a_log(sessions)
    lake = Lake(home.lake_uri)
    product = pl.DataFrame({"product_id": ["p0"], "title": ["t"], "category": ["c"], "text_embedding": [[0.1] * TEXT_DIM], "known_ts": [START]})
    last_day = pl.col("event_ts") >= START + timedelta(days=DAYS - 1)
    files = [*lake.write(Table.PRODUCTS, to_table(Table.PRODUCTS, product)), *append(lake, lake.manifest(), Table.EVENTS, log.filter(~last_day))]
    lake.commit(lake.manifest(), files, {})
    config = tiny()
    full_s = _seconds(lambda: materialize.run(home, config))
    base = lake.manifest()
    lake.commit(base, [*(file for file in base.files if file.table is not Table.EVENTS), *append(lake, base, Table.EVENTS, log.filter(last_day))], {})
    began = time.perf_counter()
    done = materialize.run(home, config)
    incremental_s = time.perf_counter() - began
    assert done.mode == "incremental"
    features = Features(home, config.features)
    asked = log.filter(pl.col("type") == EventType.IMPRESSION).select("shopper_key", event_timestamp="event_ts")
    features.shopper_frame(asked.head(1))
    columns = ("shopper_key", "event_timestamp", "packed")
    rows = features.shopper_table(columns).sort("event_timestamp")
    sorted_asked = asked.sort("event_timestamp")
    found = Size(
        scale=scale,
        events=len(log),
        shopper_rows=len(rows),
        requests=len(asked),
        full_s=full_s,
        incremental_s=incremental_s,
        read_share=done.read.rows / done.read.of_rows,
        join_s=_quickest(lambda: features.shopper_frame(asked)),
        join_ten_s=_quickest(lambda: features.shopper_frame(asked.head(10))),
        read_table_s=_quickest(lambda: features.shopper_table(columns)),
        bare_join_s=_quickest(lambda: sorted_asked.join_asof(rows, on="event_timestamp", by="shopper_key", check_sortedness=False)),
    )
    progress(f"{scale}x: {found.model_dump_json()}")
    return found


def _quickest(work: Callable[[], object]) -> float:
    return min(_seconds(work) for _ in range(JOINED))


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def growth(sizes: list[Size], seconds: str, of: str = "events") -> Growth:
    """Of these seconds with the number of events, or of requests."""
    numbers, times = ([float(getattr(size, name)) for size in sizes] for name in (of, seconds))
    exponent = float(np.polyfit(np.log(numbers), np.log(times), 1)[0])
    slope = float(np.log(times[-1] / times[-2]) / np.log(numbers[-1] / numbers[-2]))
    return Growth(exponent=round(exponent, 3), slope=round(slope, 3), s_per_million=round(1e6 * (times[-1] - times[-2]) / (numbers[-1] - numbers[-2]), 3))


def as_markdown(found: Found) -> str:
    last, grown = found.sizes[-1], (found.full, found.incremental, found.join, found.bare_join)
    lines = [
        "# Features at 1x, 4x and 16x",
        "",
        f"`{found.command}`, {found.machine}, {found.date}. {DAYS} days of log; the incremental run takes in the last one.",
        "",
        "| scale | events | shopper rows | requests | full s | incremental s | events it read | join s | of ten requests | reading the table s | bare join_asof s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for size in found.sizes:
        lines.append(
            f"| {size.scale}x | {size.events:,} | {size.shopper_rows:,} | {size.requests:,} | {size.full_s:.2f} | {size.incremental_s:.2f} | "
            f"{100 * size.read_share:.0f} % | {size.join_s:.3f} | {size.join_ten_s:.3f} | {size.read_table_s:.3f} | {size.bare_join_s:.3f} |"
        )
    for name, cells in (
        ("exponent", [f"{one.exponent:.2f}" for one in grown]),
        ("slope, last two sizes", [f"{one.slope:.2f}" for one in grown]),
        ("s per million more", [f"{one.s_per_million:.2f}" for one in grown]),
    ):
        lines.append(f"| {name} | | | | {cells[0]} | {cells[1]} | | {cells[2]} | | | {cells[3]} |")
    share = last.join_s / (last.read_table_s + last.bare_join_s)
    return "\n".join(
        [
            *lines,
            "",
            f"A million more: events, or requests of the joins. At {last.scale}x the join takes {share:.1f} times reading its table and the bare join together.",
            "",
        ]
    )


@click.command()
@click.option("--sessions", default=32_000, show_default=True, type=click.IntRange(100), help="At 1x.")
@click.option("--out", default=Path("benchmarks/results"), type=click.Path(file_okay=False, path_type=Path))
def command(sessions: int, out: Path) -> None:
    """Measure and write benchmarks/results/features.{json,md}."""
    with tempfile.TemporaryDirectory(prefix="gl-features-") as warm_up:
        measured(0, 200, Path(warm_up))
    sizes = []
    for scale in SCALES:
        with tempfile.TemporaryDirectory(prefix="gl-features-") as root:
            sizes.append(measured(scale, sessions * scale, Path(root)))
    found = Found(
        machine=machine(),
        date=today(),
        command=f"python -m benchmarks.features --sessions {sessions}",
        sizes=tuple(sizes),
        full=growth(sizes, "full_s"),
        incremental=growth(sizes, "incremental_s"),
        join=growth(sizes, "join_s", "requests"),
        bare_join=growth(sizes, "bare_join_s", "requests"),
    )
    keep(found, as_markdown(found), out, "features")


if __name__ == "__main__":
    run_command(command)
