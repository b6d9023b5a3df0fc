"""Event logs for the tests of ingest: random ones with all the usual trouble, what must become of them, and an ingest without Ray."""

import json
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from guidelens.config import IngestConfig, S3Options
from guidelens.data.ingest.event_intake import EventIntake, EventSource, Run
from guidelens.data.ingest.intake import Intake, StagedKind, take_in
from guidelens.data.ingest.stages import in_driver
from guidelens.data.lake.event_ids import IdReader
from guidelens.data.lake.lake import Lake
from guidelens.data.lake.staging import remove_stale, staging
from guidelens.data.pseudonyms import Pseudonymizer
from guidelens.data.records.settling import FileCounts
from guidelens.data.records.sources import Kind, chunks_of, record_files
from guidelens.data.records.validation import Checker, checked_tables
from guidelens.schemas.tables import TEXT_DIM

SMALL = IngestConfig(event_chunk_bytes=2000, event_file_rows=12, event_ids_per_task=20)
"""A few dozen events are several chunks, ranges of ids and files."""
PSEUDONYMS = Pseudonymizer(b"k" * 32)
NOW = datetime(2026, 6, 1, tzinfo=UTC)
START_S = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


def click(event_id: str, day: float = 0.0, shopper: str = "s-1", **more: Any) -> dict[str, Any]:
    stamp = datetime.fromtimestamp(START_S + 86_400 * day, UTC).isoformat()
    return {"event_id": event_id, "event_ts": stamp, "shopper_id": shopper, "session_id": "x", "type": "click", "product_id": "p"} | more


def write_log(path: Path, records: Sequence[dict[str, Any] | bytes]) -> str:
    path.write_bytes(b"".join((record if isinstance(record, bytes) else json.dumps(record).encode()) + b"\n" for record in records))
    return str(path)


def troubled(rng: random.Random, size: int, ids: int) -> list[dict[str, Any] | bytes]:
    """Events out of order over three days, some of them twice, on another day or broken, some searches."""
    found: list[dict[str, Any] | bytes] = []
    for _ in range(size):
        event = click(f"e-{rng.randrange(ids)}", 3 * rng.random(), f"s-{rng.randrange(4)}")
        kind = rng.random()
        if kind < 0.1:
            found.append(json.dumps(event | {"type": "?"}).encode() if kind < 0.05 else b"{broken")
        else:
            found.append(event | {"type": "search", "query": f"q {rng.randrange(3)}"} if kind > 0.9 else event)
    return found


def outcome(paths: Sequence[str], before: Sequence[str] = ()) -> tuple[dict[str, dict[str, Any]], dict[str, FileCounts]]:
    """The events that must be in the lake by id, and the counts by file: the plainest program that says it."""
    accepted: dict[str, dict[str, Any]] = {}
    counts: dict[str, FileCounts] = {}
    known = set(before)
    for path in paths:
        for line in Path(path).read_bytes().splitlines():
            try:
                event = json.loads(line)
                verdict = "quarantined" if event["type"] == "?" else "duplicate" if event["event_id"] in known else "accepted"
            except ValueError:
                verdict = "quarantined"
            if verdict == "accepted":
                accepted[event["event_id"]] = event
                known.add(event["event_id"])
            counts[path] = counts.get(path, FileCounts()) + FileCounts(**{"read": 1, verdict: 1})
    return accepted, counts


def ingest(
    lake: Lake,
    paths: Sequence[str],
    config: IngestConfig = SMALL,
    run: Run = in_driver,
    s3: S3Options | None = None,
    from_inbox: bool = False,
    reader: IdReader | None = None,
    pseudonyms: Pseudonymizer = PSEUDONYMS,
    shoppers: str | None = None,
) -> Intake:
    """What `guidelens ingest --events` does, in this process unless `run` says otherwise, with texts embedded as constants."""
    options = s3 or S3Options()
    remove_stale(lake.store, datetime.now(UTC))
    files = record_files(Kind.EVENTS, tuple(paths), options)
    checker = Checker(Kind.EVENTS, pseudonyms, NOW, from_inbox)
    staged = {} if shoppers is None else {Kind.SHOPPERS: shopper_records(shoppers, pseudonyms)}
    with staging(lake.store) as prefix:
        source = EventSource(chunks_of(files, config.event_chunk_bytes, options), [file.uri for file in files], checker, options, prefix)
        return take_in(lake, staged, constant_texts, NOW, EventIntake(lake, source, config, run, reader=reader), pseudonyms=pseudonyms)


def shopper_records(path: str, pseudonyms: Pseudonymizer = PSEUDONYMS, now: datetime = NOW) -> StagedKind:
    """The records of a shoppers file, checked."""
    (file,) = record_files(Kind.SHOPPERS, (path,), S3Options())
    checker = Checker(Kind.SHOPPERS, pseudonyms, now)
    tables = [table for chunk in chunks_of([file], 1 << 20, S3Options()) for table in checked_tables(chunk, checker, S3Options())]
    frame = pl.from_arrow(pa.concat_tables(tables))
    assert isinstance(frame, pl.DataFrame)
    return StagedKind(frame, [path])


def constant_texts(texts: Sequence[str]) -> tuple[dict[str, Any], str]:
    return {text: np.full(TEXT_DIM, 0.5, np.float32) for text in texts}, "constant"


def once_before_commit(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], object]) -> None:
    """Has something else happen just before the next commit, once."""
    real, raced = Lake.commit, []

    def commit(self: Lake, *args: Any, **how: Any) -> Any:
        if not raced:
            raced.append(True)
            meanwhile()
        return real(self, *args, **how)

    monkeypatch.setattr(Lake, "commit", commit)
