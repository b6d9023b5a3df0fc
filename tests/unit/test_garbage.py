"""What nobody names is found and removed; what somebody names, or may yet name, is not."""

import os
from datetime import UTC, datetime
from pathlib import Path

from event_logs import click, ingest, write_log

from guidelens.config import Home
from guidelens.data.lake.lake import Lake
from guidelens.data.lake.staging import staging
from guidelens.schemas.tables import Table
from pipelines.lake import describe, digest, gc


def test_leftovers_of_dead_writers_are_removed_once_they_are_old_enough(home: Home, tmp_path: Path) -> None:
    lake = Lake(home.lake_uri)
    ingest(lake, [write_log(tmp_path / "a.jsonl", [click("a"), click("b")])])
    first = digest(home)
    left = lake.read_arrow(lake.manifest().of(Table.EVENTS)[0]).slice(1)
    lake.write(Table.EVENTS, left)
    half = Path(lake.uri) / "events" / ".writing-half"
    half.write_bytes(b"ha")

    assert gc(home, None, 1.0, remove=True).orphans == 0
    os.utime(half, (0, datetime.now(UTC).timestamp() - 60))
    listed = gc(home, None, 0.0, remove=False)
    assert (listed.orphans, listed.removed) == (2, False)
    with staging(lake.store):
        lake.write(Table.EVENTS, left)  # renewed by a run under way
        assert gc(home, None, 0.0, remove=True).orphans == 1
    assert gc(home, None, 0.0, remove=True).orphans == 1
    assert gc(home, None, 0.0, remove=False).orphans == 0
    assert digest(home) == first


def test_a_dead_runs_staging_counts_as_leftover_after_an_hour(home: Home) -> None:
    store = Lake(home.lake_uri).store
    store.write_bytes("_staging/20260101T000000-dead/parts/0", b"x")
    assert gc(home, None, 0.0, remove=True).stagings == 0
    path = Path(home.lake_uri) / "_staging/20260101T000000-dead/parts/0"
    os.utime(path, (0, datetime(2026, 1, 1, tzinfo=UTC).timestamp()))
    assert gc(home, None, 0.0, remove=True).stagings == 1
    assert not path.exists()


def test_a_description_names_what_the_digest_counts(home: Home, tmp_path: Path) -> None:
    ingest(Lake(home.lake_uri), [write_log(tmp_path / "a.jsonl", [click("a"), click("b", type="?")])])
    assert digest(home).rows == {name: table.rows for name, table in describe(home).tables.items()} == {"events": 1, "quarantine": 1}
