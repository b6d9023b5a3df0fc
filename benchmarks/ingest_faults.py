"""What does it cost to take events in over an S3 API of which 30 % of the answers fail? Beside the same without faults.

    python -m benchmarks.ingest_faults [--rows 200000] [--out benchmarks/results]

The store is moto's server on loopback, behind the proxy of the tests (5xx, answers lost after the write, silence, bodies cut short,
409). Both runs go through it and must end with the same files.
"""

import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import click

from benchmarks._results import keep, machine, today
from benchmarks.ingest import no_texts, write_logs
from guidelens.config import IngestConfig, S3Options
from guidelens.data.ingest.event_intake import EventIntake, EventSource
from guidelens.data.ingest.intake import take_in
from guidelens.data.ingest.stages import in_driver
from guidelens.data.lake.lake import Lake, Manifest
from guidelens.data.lake.staging import staging
from guidelens.data.pseudonyms import Pseudonymizer
from guidelens.data.records.sources import Kind, chunks_of, record_files
from guidelens.data.records.validation import Checker
from guidelens.errors import GuideLensError
from guidelens.schemas.base import Frozen
from pipelines.entry import run_command
from tests.faulty_s3 import BUCKET, Faults, faulty, s3_api

_SHARE = 0.3
_CONFIG = IngestConfig(event_chunk_bytes=256 * 1024)


class FaultStudy(Frozen):
    """faults: how often each was injected. ratio: of the times, with faults over without."""

    machine: str
    date: str
    command: str
    rows: int
    seconds_without: float
    seconds_with: float
    ratio: float
    faults: dict[str, int]


def timed(folder: Path, uri: str, api: S3Options, faults: Faults) -> tuple[float, Manifest]:
    with faulty(api, faults) as options:
        lake, start = Lake(uri, options), time.perf_counter()
        files = record_files(Kind.EVENTS, (str(folder / "events"),), S3Options())
        checker = Checker(Kind.EVENTS, Pseudonymizer(b"k" * 32), datetime.now(UTC))
        with staging(lake.store) as prefix:
            source = EventSource(chunks_of(files, _CONFIG.event_chunk_bytes, S3Options()), [file.uri for file in files], checker, S3Options(), prefix)
            done = take_in(lake, {}, no_texts, datetime.now(UTC), EventIntake(lake, source, _CONFIG, in_driver), pseudonyms=checker.pseudonyms)
        return time.perf_counter() - start, done.manifest


def as_markdown(found: FaultStudy) -> str:
    met = ", ".join(f"{name} {number}" for name, number in sorted(found.faults.items()))
    return f"""# Taking in events over a failing S3 API

`{found.command}`, {found.machine}, {found.date}.

{found.rows:,} events: {found.seconds_without:.1f} s without faults, {found.seconds_with:.1f} s with ({found.ratio:.2f}x), the same files. Injected: {met}.
"""


@click.command()
@click.option("--rows", default=200_000, show_default=True, type=click.IntRange(1))
@click.option("--out", default=Path("benchmarks/results"), type=click.Path(file_okay=False, path_type=Path))
def command(rows: int, out: Path) -> None:
    """Measure and write benchmarks/results/ingest_faults.{json,md}."""
    with tempfile.TemporaryDirectory(prefix="gl-faults-") as name, s3_api() as api:
        write_logs(Path(name), rows)
        faults = Faults(seed=1, share=_SHARE)
        timed(Path(name), f"s3://{BUCKET}/warm", api, Faults())
        calm, without = timed(Path(name), f"s3://{BUCKET}/calm", api, Faults())
        rough, with_faults = timed(Path(name), f"s3://{BUCKET}/rough", api, faults)
    if without.snapshot_sha256 != with_faults.snapshot_sha256 or not faults.seen:
        raise GuideLensError(f"the runs must end with the same files, and meet faults, got {len(without.files)} and {len(with_faults.files)}, {faults.seen}")
    found = FaultStudy(
        machine=machine(),
        date=today(),
        command=f"python -m benchmarks.ingest_faults --rows {rows}",
        rows=rows,
        seconds_without=round(calm, 2),
        seconds_with=round(rough, 2),
        ratio=round(rough / calm, 2),
        faults=dict(Counter(faults.seen)),
    )
    keep(found, as_markdown(found), out, "ingest_faults")


if __name__ == "__main__":
    run_command(command)
