"""Compaction changes how the lake's rows are stored, never which they are; thinning removes versions that nobody needs."""

import os
import random
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from crashing import Step
from event_logs import NOW, PSEUDONYMS, SMALL, click, ingest, once_before_commit, troubled, write_log
from hypothesis import given, settings
from hypothesis import strategies as st
from test_crashes import Crasher, crasher  # noqa: F401 - a fixture

from guidelens.data.lake import history
from guidelens.data.lake.compaction import compact, mergeable
from guidelens.data.lake.digest import Digest, table_digest
from guidelens.data.lake.history import thin
from guidelens.data.lake.lake import Lake
from guidelens.data.lake.staging import staging
from guidelens.data.privacy.forgetting import Person, forget_in_lake
from guidelens.errors import CommitConflictError, NotFoundError
from guidelens.schemas.tables import Table

TABLES = (Table.EVENTS, Table.QUARANTINE, Table.QUERIES)


def digests(lake: Lake) -> list[Digest]:
    return [table_digest(lake, table) for table in TABLES]


def dripped(folder: Path, seed: int, batches: int) -> Lake:
    """A lake of many small ingests."""
    rng, lake = random.Random(seed), Lake(str(folder / "lake"))
    for number in range(batches):
        ingest(lake, [write_log(folder / "log.jsonl", troubled(rng, rng.randrange(1, 9), 10**6))])
        assert lake.manifest().version <= number + 1
    return lake


@given(st.integers(0, 10**9), st.integers(0, 12), st.booleans(), st.sampled_from([5, 40, 250_000]))
@settings(max_examples=8)
def test_no_row_comes_or_goes_and_files_become_few(tmp_path_factory: pytest.TempPathFactory, seed: int, batches: int, everything: bool, file_rows: int) -> None:
    lake = dripped(tmp_path_factory.mktemp("drip"), seed, batches)
    before, digested = lake.manifest(), digests(lake)
    done = compact(lake, file_rows, everything=everything)
    after = lake.manifest()
    assert (digests(lake), after.ids, after.version) == (digested, before.ids, done.manifest)
    assert len(before.files) - done.merged + done.into == len(after.files)
    if everything and file_rows == 250_000:
        places = [(file.table, file.date) for file in after.files]
        assert len(places) == len(set(places))
    for file in after.of(Table.EVENTS):
        rows = lake.read_file(file)
        assert (
            rows.equals(rows.sort("event_ts", "created_ts", "event_id"))
            and (rows["event_ts"].dt.date() == datetime.fromisoformat(file.date or "").date()).all()
        )


def test_the_same_files_become_the_same_bytes(tmp_path: Path) -> None:
    dripped(tmp_path, 3, 9)
    lakes = [Lake(str(shutil.copytree(tmp_path / "lake", tmp_path / name))) for name in "ab"]
    for lake in lakes:
        compact(lake, 250_000, everything=True)
    assert lakes[0].manifest().snapshot_sha256 == lakes[1].manifest().snapshot_sha256


def test_a_stream_of_batches_keeps_files_few_and_rewrites_little(tmp_path: Path) -> None:
    lake, written = Lake(str(tmp_path / "lake")), 0
    for number in range(40):
        ingest(lake, [write_log(tmp_path / "log.jsonl", [click(f"e-{number}-{k}", k / 100) for k in range(5)])])
        if mergeable(lake.manifest(), 250_000):
            before = {file.key for file in lake.manifest().files}
            compact(lake, 250_000)
            written += sum(file.rows for file in lake.manifest().files if file.key not in before)
    assert len(lake.manifest().of(Table.EVENTS)) <= 14
    assert written <= 2 * 200  # each row about once for every eightfold growth


def test_nothing_to_merge_commits_nothing(tmp_path: Path) -> None:
    lake = dripped(tmp_path, 1, 3)
    before = lake.manifest()
    assert compact(lake, 250_000).merged == 0
    assert lake.manifest() == before


def test_who_ingests_meanwhile_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = dripped(tmp_path, 5, 6)
    events = lake.manifest().rows(Table.EVENTS)
    once_before_commit(monkeypatch, lambda: ingest(lake, [write_log(tmp_path / "b.jsonl", [click("new")])]))
    assert compact(lake, 250_000, everything=True).merged
    assert lake.manifest().rows(Table.EVENTS) == events + 1


def test_a_shopper_forgotten_meanwhile_is_in_no_merged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake(str(tmp_path / "lake"))
    for number in range(10):
        ingest(lake, [write_log(tmp_path / "a.jsonl", [click(f"e-{number}", shopper=f"s-{number % 2}")])])
    key = PSEUDONYMS.key("s-1")
    once_before_commit(monkeypatch, lambda: forget_in_lake(lake, Person("s-1", frozenset({key})), NOW))
    compact(lake, 250_000, everything=True)
    assert lake.manifest().rows(Table.EVENTS) == 5
    found = [name for name in lake.store.keys("events/") if key in lake.read_key(Table.EVENTS, name)["shopper_key"]]
    assert not found


@pytest.mark.drill
@pytest.mark.parametrize("point", ["compaction.file_written", "manifest.before", "create.written", "manifest.after"])
def test_compaction_killed_at_any_point_leaves_the_rows_as_they_were(crasher: Crasher, tmp_path: Path, point: str) -> None:  # noqa: F811
    for seed in range(50 if os.environ.get("GUIDELENS_DRILL") else 1):
        folder = tmp_path / str(seed)
        folder.mkdir()
        lake = dripped(folder, seed, 14)
        digested = digests(lake)
        step = Step(verb="compact", lake=lake.uri, crash=(point, 1, str(folder / "mark")))
        assert crasher.take(step) == -9
        assert digests(lake) == digested
        assert crasher.take(step) == 0
        assert digests(lake) == digested and not mergeable(lake.manifest(), SMALL.event_file_rows)


def aged(monkeypatch: pytest.MonkeyPatch, hours: dict[int, float]) -> None:
    """Versions as old as told; others are new."""
    real = Lake.version_times
    monkeypatch.setattr(Lake, "version_times", lambda self: {version: NOW - timedelta(hours=hours.get(version, 0)) for version in real(self)})


def passing(lake: Lake, versions: int) -> None:
    for number in range(versions):
        lake.commit(lake.manifest(), lake.manifest().files, {}, offsets={"stream": number}, passing=True)


def test_old_versions_of_a_stream_go_but_for_one_an_hour_and_those_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = dripped(tmp_path, 1, 2)
    passing(lake, 8)
    lake.pin(4)
    aged(monkeypatch, {1: 9.5, 2: 9.5, 3: 9.4, 4: 9.4, 5: 9.3, 6: 9.2, 7: 3.9, 8: 3.7})
    assert thin(lake, NOW) == 3
    assert [manifest.version for manifest in lake.manifests()] == [1, 2, 4, 6, 8, 9, 10]
    with pytest.raises(NotFoundError):
        lake.manifest(3)


def test_no_version_goes_while_a_run_from_before_it_is_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake(str(tmp_path / "lake"))
    passing(lake, 5)
    later = datetime.now(UTC) + timedelta(minutes=30)
    monkeypatch.setattr(history, "KEPT_WHOLE", timedelta(minutes=-60))
    with staging(lake.store):
        aged_to = dict.fromkeys(range(1, 6), later)
        monkeypatch.setattr(Lake, "version_times", lambda self: aged_to)
        assert thin(lake, later) == 0
    assert thin(lake, later) == 4


def test_a_writer_that_fell_behind_cannot_take_the_number_of_a_version_that_was_removed(tmp_path: Path) -> None:
    lake = dripped(tmp_path, 1, 1)
    behind = lake.manifest()
    passing(lake, 3)
    lake.drop_version(behind.version + 1)
    with pytest.raises(CommitConflictError):
        lake.commit(behind, [], {})
