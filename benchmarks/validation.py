"""How fast are events read, checked and pseudonymized, beside a bare polars program that reads the same lines and checks a part of it?

    python -m benchmarks.validation [--out benchmarks/results]

One thread, CPU time, the best of some rounds in turn, one process. The peer reads typed columns with polars, parses the two times, checks the
bounds of four fields and the types' names, and drops repeated ids; it finds no refused line's reason, offset or original, and keys no shopper.
"""

import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import click

from benchmarks._results import keep, machine, today
from guidelens.config import S3Options, WorldSize
from guidelens.schemas.base import Frozen
from pipelines.entry import progress, run_command

_WORLD = WorldSize(num_products=60, num_shoppers=300, num_sessions=2500, num_frames=20, views_per_product=2, num_days=28, reference_sessions=1000)
_ROUNDS = 3
_MODEL_ROWS = 5_000
_THREADS = "POLARS_MAX_THREADS"


class Way(Frozen):
    """Microseconds of CPU a row. share: the bare program's over it, so that 1 is as fast."""

    way: str
    rows: int
    us_per_row: float
    share: float


class ValidationStudy(Frozen):
    machine: str
    date: str
    command: str
    ways: tuple[Way, ...]


def bare_polars(lines: bytes) -> int:
    """Rows that a plain program keeps."""
    import polars as pl

    from guidelens.data.records.column_checks import COLUMN_TYPES, event_contract
    from guidelens.schemas.events import EventType

    rules = event_contract(from_inbox=False).fields
    schema = {rule.name: pl.String() if rule.kind == "moment" else COLUMN_TYPES[rule.kind] for rule in rules}
    frame = pl.read_ndjson(lines, schema=schema)
    times = [pl.col(name).str.to_datetime("%+", time_unit="us", time_zone="UTC") for name in ("event_ts", "created_ts")]
    fits = [pl.col("position").is_between(1, 10_000), pl.col("propensity").is_between(0, 1), pl.col("browse_ms").is_between(0, 86_400_000)]
    kept = frame.with_columns(times).filter(
        pl.col("event_id").str.len_chars() <= 128, pl.col("type").is_in([str(kind) for kind in EventType]), *(one.fill_null(True) for one in fits)
    )
    return kept.unique("event_id", keep="first").height


def checked(file: Path, model_only: bool = False) -> int:
    """Rows of a file as ingest checks them, or record by record with the model."""
    from guidelens.data.pseudonyms import Pseudonymizer
    from guidelens.data.records.reading import read_chunk
    from guidelens.data.records.sources import Kind, chunks_of, record_files
    from guidelens.data.records.validation import Checker, checked_tables

    s3, checker = S3Options(), Checker(Kind.EVENTS, Pseudonymizer(b"k" * 32), datetime.now(UTC))
    chunks = chunks_of(record_files(Kind.EVENTS, (str(file),), s3), 16 << 20, s3)
    if model_only:
        return sum(checker.check(records, 0).num_rows for chunk in chunks for records in read_chunk(chunk, s3))
    return sum(table.num_rows for chunk in chunks for table in checked_tables(chunk, checker, s3))


def written(folder: Path) -> dict[str, Path]:
    """The same events as several shops would write them, by what is said of it."""
    import polars as pl

    from guidelens.world.generate import generate

    generate(_WORLD, 1, folder / "world", num_workers=1)
    lines = [line for path in sorted((folder / "world" / "events").iterdir()) for line in path.read_bytes().splitlines()]
    texts = {
        "JSONL": lines,
        "JSONL, 1 line in 100 broken": [line[: len(line) // 2] if number % 100 == 0 else line for number, line in enumerate(lines)],
        "JSONL, two unknown fields": [line[:-1] + b',"app_version":"4.2.0","ab":{"arm":1}}' for line in lines],
        "JSONL, Chinese in escapes": [line[:-1] + b"," + json.dumps({"query": "红色的木椅子"}).encode()[1:] for line in lines],
        "JSONL, the model alone": lines[:_MODEL_ROWS],
    }
    files = {}
    for number, (name, text) in enumerate(texts.items()):
        files[name] = folder / f"{number}.jsonl"
        files[name].write_bytes(b"\n".join(text) + b"\n")
    files["JSONL, gzip"] = folder / "packed.jsonl.gz"
    files["JSONL, gzip"].write_bytes(gzip.compress(files["JSONL"].read_bytes(), 5))
    rows = pl.read_ndjson(files["JSONL"], infer_schema_length=None)
    rows.write_csv(folder / "events.csv")
    times = [pl.col(name).str.to_datetime("%+", time_unit="us", time_zone="UTC") for name in ("event_ts", "created_ts")]
    rows.with_columns(times).write_parquet(folder / "events.parquet")
    return files | {"Parquet": folder / "events.parquet", "CSV": folder / "events.csv"}


def measured(folder: Path) -> tuple[Way, ...]:
    files = written(folder)
    plain = files["JSONL"].read_bytes()
    work: dict[str, Callable[[], int]] = {"bare polars": lambda: bare_polars(plain)}
    work |= {name: lambda file=file, name=name: checked(file, name.endswith("alone")) for name, file in files.items()}  # type: ignore[misc]
    best: dict[str, tuple[float, int]] = {}
    for _ in range(_ROUNDS):
        for name, run in work.items():
            begun = time.process_time()
            rows = run()
            best[name] = min(best.get(name, (float("inf"), 0)), ((time.process_time() - begun) / rows, rows))
    bare = best["bare polars"][0]
    return tuple(Way(way=name, rows=rows, us_per_row=seconds * 1e6, share=bare / seconds) for name, (seconds, rows) in best.items())


def as_markdown(found: ValidationStudy) -> str:
    lines = [
        "# Reading and checking events",
        "",
        f"`{found.command}`, {found.machine}, {found.date}; one thread, microseconds of CPU a row, the best of {_ROUNDS} rounds. "
        "Share: rows/s beside the bare program's in the same run.",
        "",
        "| | rows | us/row | share of bare polars |",
        "|---|---|---|---|",
        *(f"| {way.way} | {way.rows:,} | {way.us_per_row:.2f} | {way.share:.2f} |" for way in found.ways),
    ]
    return "\n".join([*lines, ""])


@click.command()
@click.option("--out", default=Path("benchmarks/results"), type=click.Path(file_okay=False, path_type=Path))
def command(out: Path) -> None:
    """Measure, and write benchmarks/results/validation.{json,md}."""
    if os.environ.get(_THREADS) != "1":  # polars reads it once, when it is imported
        sys.exit(subprocess.run([sys.executable, "-m", "benchmarks.validation", "--out", str(out)], env={**os.environ, _THREADS: "1"}, check=False).returncode)
    with tempfile.TemporaryDirectory(prefix="gl-validation-") as folder:
        progress("events are simulated, then read in each way ...")
        found = ValidationStudy(
            machine=machine(),
            date=today(),
            command="python -m benchmarks.validation",
            ways=measured(Path(folder)),
        )
    keep(found, as_markdown(found), out, "validation")


if __name__ == "__main__":
    run_command(command)
