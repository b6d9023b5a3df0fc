"""Events are taken in exactly once: whatever comes twice, late, broken, beside another writer or after a forgotten shopper."""

import json
import random
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from event_logs import NOW, PSEUDONYMS, SMALL, click, ingest, once_before_commit, outcome, troubled, write_log
from hypothesis import given, settings
from hypothesis import strategies as st

from guidelens.data.ingest import event_intake, event_tasks
from guidelens.data.ingest.event_intake import plan_files
from guidelens.data.ingest.event_parts import PartIndex
from guidelens.data.ingest.event_tasks import DAY_US
from guidelens.data.ingest.intake import Intake
from guidelens.data.lake import event_ids, staging
from guidelens.data.lake.digest import table_digest
from guidelens.data.lake.lake import Lake
from guidelens.data.privacy.forgetting import Person, forget_in_lake
from guidelens.data.records.settling import FileCounts
from guidelens.data.records.sources import Chunk, Kind, grouped
from guidelens.schemas.tables import Table


def ids_in(lake: Lake) -> list[str]:
    return sorted(lake.read(Table.EVENTS, ["event_id"])["event_id"])


def total(done: Intake) -> FileCounts:
    return done.reports[Kind.EVENTS].total


@given(st.integers(0, 10**9), st.integers(0, 120), st.sampled_from([SMALL, SMALL.model_copy(update={"event_chunk_bytes": 400, "event_ids_per_task": 1})]))
@settings(max_examples=15)
def test_the_lake_holds_what_the_plainest_program_says(tmp_path_factory: pytest.TempPathFactory, seed: int, size: int, config: Any) -> None:
    folder, rng = tmp_path_factory.mktemp("log"), random.Random(seed)
    paths = [write_log(folder / f"{name}.jsonl", troubled(rng, size, 1 + size // 2)) for name in "ba"]
    lake = Lake(str(folder / "lake"))
    first = ingest(lake, paths[:1], config).reports[Kind.EVENTS]
    second = ingest(lake, paths, config).reports[Kind.EVENTS]

    before, counts = outcome(paths[:1])
    after, counts_again = outcome(paths, list(before))
    assert first.files == {paths[0]: counts.get(paths[0], FileCounts())}
    assert second.files == {path: counts_again.get(path, FileCounts()) for path in paths}
    expected = before | after
    found = lake.read(Table.EVENTS)
    assert sorted(found["event_id"]) == sorted(expected)
    for row in found.select("event_id", "event_ts", "query").iter_rows(named=True):
        assert (row["event_ts"].isoformat(), row["query"]) == (expected[row["event_id"]]["event_ts"], expected[row["event_id"]].get("query"))
    queries = {event["query"] for event in expected.values() if "query" in event}
    assert set(lake.read(Table.QUERIES)["query"]) == queries
    assert lake.manifest().rows(Table.QUARANTINE) == second.total.quarantined


def test_small_files_are_staged_together_and_counted_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, lake = random.Random(8), Lake(str(tmp_path / "lake"))
    paths = [write_log(tmp_path / f"{name:03d}.jsonl", troubled(rng, 9, 60)) for name in range(150)]
    staged: list[PartIndex] = []
    real = event_tasks.Stager.stage

    def stage(self: event_tasks.Stager, numbered: tuple[int, Sequence[Chunk]]) -> list[PartIndex]:
        staged.extend(parts := real(self, numbered))
        return parts

    monkeypatch.setattr(event_tasks.Stager, "stage", stage)
    monkeypatch.setattr(event_tasks, "_PART_ROWS", 40)
    done = ingest(lake, paths, SMALL.model_copy(update={"event_chunk_bytes": 100_000}))
    accepted, counts = outcome(paths)
    assert done.reports[Kind.EVENTS].files == counts and ids_in(lake) == sorted(accepted)
    assert len(staged) < 75 and any(len(part.sources) > 2 for part in staged)
    quarantined = lake.read(Table.QUARANTINE, ["source"])["source"].value_counts().iter_rows()
    assert dict(quarantined) == {path: count.quarantined for path, count in counts.items() if count.quarantined}


def test_of_what_came_before_nothing_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known, new = ([click(f"{name}-{k}", k / 10_000) for k in range(2000)] for name in ("known", "new"))
    lake, read = Lake(str(tmp_path / "lake")), Counter[str]()
    config = SMALL.model_copy(update={"event_chunk_bytes": 10_000_000, "event_file_rows": 10_000})
    ingest(lake, [write_log(tmp_path / "a.jsonl", known)], config)
    real = event_tasks.read_segments

    def counted(store: Any, key: str, positions: Any) -> bytes:
        read[key.rsplit("/", 1)[1]] += len(positions) - 1
        return real(store, key, positions)

    monkeypatch.setattr(event_tasks, "read_segments", counted)
    paths = [write_log(tmp_path / "b.jsonl", [*known, click("late", 5)]), write_log(tmp_path / "c.jsonl", new)]
    monkeypatch.setattr(event_intake, "_SORTED_ROWS", 1500)
    done = ingest(lake, paths, config.model_copy(update={"event_file_rows": 1500}))
    assert total(done) == FileCounts(read=4001, accepted=2001, duplicate=2000)
    assert read["000000-0000"] <= 3 and read["000001-0000"] >= 4


def test_a_file_sorted_piece_by_piece_is_sorted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_intake, "_SORTED_ROWS", 70)
    rng = random.Random(4)
    events = [click(f"e-{k}", 1.5 * rng.random()) for k in range(3000)]
    paths = [write_log(tmp_path / f"{part}.jsonl", events[part::3]) for part in range(3)]
    lake = Lake(str(tmp_path / "lake"))
    ingest(lake, paths, SMALL.model_copy(update={"event_chunk_bytes": 60_000, "event_file_rows": 700}))
    files = lake.manifest().of(Table.EVENTS)
    assert ids_in(lake) == sorted(event["event_id"] for event in events) and len(files) < 8
    for file in files:
        rows = lake.read_file(file)
        assert rows.equals(rows.sort("event_ts", "created_ts", "event_id")) and set(rows["event_ts"].dt.date().cast(pl.String)) == {file.date}


def test_an_id_that_comes_again_late_and_on_another_day_is_a_duplicate(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    ingest(lake, [write_log(tmp_path / "a.jsonl", [click("e-1"), click("e-2", 5)])])
    done = ingest(lake, [write_log(tmp_path / "b.jsonl", [click("e-1", 9), click("e-3", -4)])])
    assert total(done) == FileCounts(read=2, accepted=1, duplicate=1)
    assert ids_in(lake) == ["e-1", "e-2", "e-3"]


def test_files_hold_one_day_each_in_order_of_time_and_about_as_many_rows_as_asked(tmp_path: Path) -> None:
    rng = random.Random(4)
    lake = Lake(str(tmp_path / "lake"))
    config = SMALL.model_copy(update={"event_chunk_bytes": 40_000, "event_file_rows": 1000})
    ingest(lake, [write_log(tmp_path / "a.jsonl", [click(f"e-{k}", 2 * rng.random()) for k in range(6000)])], config)
    files = lake.manifest().of(Table.EVENTS)
    assert {file.date for file in files} == {"2026-01-01", "2026-01-02"}
    assert all(700 <= file.rows <= 1300 for file in files)
    for file in files:
        rows = lake.read_file(file)
        assert rows.equals(rows.sort("event_ts", "created_ts", "event_id")) and set(rows["event_ts"].dt.date().cast(pl.String)) == {file.date}


def test_files_are_of_like_size_where_nights_are_quiet_and_parts_span_days(tmp_path: Path) -> None:
    rng, lake = random.Random(5), Lake(str(tmp_path / "lake"))
    noons = [day + 0.5 + 0.08 * max(-1.0, min(1.0, rng.gauss(0, 0.4))) for day in range(7) for _ in range(6000)]
    rng.shuffle(noons)  # as of one client after another: each part holds every day
    config = SMALL.model_copy(update={"event_chunk_bytes": 1_000_000, "event_file_rows": 1500})
    ingest(lake, [write_log(tmp_path / "a.jsonl", [click(f"e-{k}", day) for k, day in enumerate(noons)])], config)
    rows = [file.rows for file in lake.manifest().of(Table.EVENTS)]
    assert max(rows) < 1.6 * 1500


def test_the_same_input_gives_the_same_files_and_another_chunking_the_same_digest(tmp_path: Path) -> None:
    path = write_log(tmp_path / "a.jsonl", troubled(random.Random(5), 300, 200))
    lakes = [Lake(str(tmp_path / name)) for name in "abc"]
    for lake, config in zip(lakes, [SMALL, SMALL, SMALL.model_copy(update={"event_chunk_bytes": 700, "event_file_rows": 7})], strict=True):
        ingest(lake, [path], config)
    found = [lake.manifest().snapshot_sha256 for lake in lakes]
    assert found[0] == found[1] != found[2]
    assert len({table_digest(lake, Table.EVENTS) for lake in lakes}) == 1


def test_a_digest_sees_a_changed_a_missing_and_a_doubled_row(tmp_path: Path) -> None:
    logs = [[click("a"), click("b")], [click("a"), click("b", rating=3.0)], [click("a")], [click("a"), click("b"), click("c")]]
    found = set()
    for number, log in enumerate(logs):
        lake = Lake(str(tmp_path / str(number)))
        ingest(lake, [write_log(tmp_path / f"{number}.jsonl", log)])
        found.add(table_digest(lake, Table.EVENTS).hex)
    doubled = lake.commit(lake.manifest(), [*lake.manifest().files, *lake.manifest().files], {})
    found.add(table_digest(lake, Table.EVENTS, doubled).hex)
    assert len(found) == 5


def test_nothing_is_staged_any_more_after_an_ingest(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    ingest(lake, [write_log(tmp_path / "a.jsonl", [click("a")])])
    assert {key.split("/")[0] for key in lake.store.keys("")} == {"_manifests", "_ids", "events"}


def test_who_loses_the_race_takes_in_only_what_the_winner_did_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = str(tmp_path / "lake")
    mine, other = (write_log(tmp_path / f"{name}.jsonl", troubled(random.Random(seed), 80, 60)) for name, seed in (("a", 1), ("b", 2)))
    once_before_commit(monkeypatch, lambda: ingest(Lake(uri), [other]))
    done = ingest(Lake(uri), [mine])
    theirs, _ = outcome([other])
    expected, counts = outcome([mine], list(theirs))
    assert total(done) == counts[mine]
    assert ids_in(Lake(uri)) == sorted([*theirs, *expected])


def test_ingests_side_by_side_take_each_event_in_once(tmp_path: Path) -> None:
    uri = str(tmp_path / "lake")
    paths = [write_log(tmp_path / f"{seed}.jsonl", troubled(random.Random(seed), 60, 60)) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda path: ingest(Lake(uri), [path]), paths))
    expected, _ = outcome(paths)
    assert ids_in(Lake(uri)) == sorted(expected)
    assert sum(total(one).accepted for one in done) == len(expected)
    assert Lake(uri).manifest().version == 4


def test_an_ingest_whose_staging_was_removed_stages_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, real = Lake(str(tmp_path / "lake")), event_intake.EventIntake.settle
    path = write_log(tmp_path / "a.jsonl", [click("a"), click("b")])
    removed: list[bool] = []

    def settle(self: Any, base: Any) -> Any:
        if not removed:
            removed.append(True)
            staging.remove_parts(lake.store)
        return real(self, base)

    monkeypatch.setattr(event_intake.EventIntake, "settle", settle)
    assert total(ingest(lake, [path])).accepted == 2


def test_a_shopper_forgotten_while_an_ingest_runs_is_not_taken_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri, keys = str(tmp_path / "lake"), frozenset({PSEUDONYMS.key("s-gone")})
    path = write_log(tmp_path / "a.jsonl", [click("a", shopper="s-gone"), click("b"), click("a", 1)])
    once_before_commit(monkeypatch, lambda: forget_in_lake(Lake(uri), Person("s-gone", keys), NOW))
    done = ingest(Lake(uri), [path])
    assert (total(done), ids_in(Lake(uri))) == (FileCounts(read=3, accepted=2, quarantined=1), ["a", "b"])
    assert Lake(uri).read(Table.EVENTS).filter(pl.col("shopper_key").is_in(keys)).height == 0
    assert all(next(iter(keys)).encode() not in file.read_bytes() for file in Path(uri).rglob("*") if file.is_file() and "tombstones" not in file.parts)


def test_a_forgotten_shoppers_later_records_leave_no_content_where_they_are_broken(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    gone, stays = PSEUDONYMS.key("gone"), PSEUDONYMS.key("stays")
    forget_in_lake(lake, Person("gone", frozenset({gone})), NOW)
    broken = [click(f"e-{shopper}", shopper=shopper, stay_ms=-5, query=f"of {shopper}") for shopper in ("gone", "stays")]
    torn = [json.dumps(click("e-torn", shopper=shopper, query=f"torn {shopper}")).encode()[:-1] for shopper in ("gone", "stays")]
    (tmp_path / "log.csv").write_text('event_id,shopper_id,query\ne,gone,"of gone"?\ne,stays,"of stays"?\n')
    done = ingest(lake, [write_log(tmp_path / "log.jsonl", [*broken, *torn]), str(tmp_path / "log.csv")])
    assert done.reports[Kind.EVENTS].total == FileCounts(read=6, quarantined=6)
    kept = lake.read(Table.QUARANTINE)
    assert sorted(kept["rule"]) == ["csv.invalid", *["forgotten"] * 3, "json.invalid", "stay_ms.greater_than_equal"]
    everything = b"".join(path.read_bytes() for path in (tmp_path / "lake").rglob("*") if path.is_file() and "quarantine" in path.parts)
    said = "\n".join((row["raw"] or b"").decode() + row["message"] for row in kept.iter_rows(named=True))
    assert gone not in said and "of gone" not in said and "torn gone" not in said
    assert gone.encode() not in everything
    assert said.count(stays) == 3


def test_forgetting_takes_the_ids_of_the_shoppers_events_out_of_every_version(tmp_path: Path) -> None:
    lake, keys = Lake(str(tmp_path / "lake")), frozenset({PSEUDONYMS.key("s-gone")})
    ingest(lake, [write_log(tmp_path / "a.jsonl", [click("a", shopper="s-gone"), click("b")])])
    ingest(lake, [write_log(tmp_path / "b.jsonl", [click("c")])])
    forget_in_lake(lake, Person("s-gone", keys), NOW)
    gone = event_ids.hashed(pa.array(["a"]))
    needle = gone.high.astype(">u8").tobytes() + gone.low.astype(">u8").tobytes()
    on_disk = [lake.store.read_bytes(key) for key in lake.store.keys("_ids/")]
    assert on_disk and not any(needle in data for data in on_disk)
    assert sum(file.num_ids for file in lake.manifest().ids_of(Table.EVENTS)) == 2
    done = ingest(lake, [str(tmp_path / "a.jsonl")])
    assert total(done) == FileCounts(read=2, quarantined=1, duplicate=1)


def test_a_lake_from_before_there_were_ids_gets_them(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    path = write_log(tmp_path / "a.jsonl", troubled(random.Random(6), 100, 70))
    before = ingest(lake, [path]).manifest
    lake.store.write_bytes("_manifests/000000000001.json", before.model_copy(update={"ids": ()}).model_dump_json().encode())
    done = ingest(lake, [path, write_log(tmp_path / "b.jsonl", [click("new")])])
    assert total(done).accepted == 1
    assert sum(file.num_ids for file in lake.manifest().ids_of(Table.EVENTS)) == lake.manifest().rows(Table.EVENTS)


def test_many_small_ingests_keep_few_id_files(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    for number in range(20):
        ingest(lake, [write_log(tmp_path / "a.jsonl", [click(f"{number}-{k}") for k in range(3)])])
    assert len(lake.manifest().ids_of(Table.EVENTS)) < 10
    assert total(ingest(lake, [write_log(tmp_path / "a.jsonl", [click(f"{number}-0") for number in range(20)])])).accepted == 0


def test_a_process_that_lasts_reads_each_live_id_file_once_and_lets_go_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, read = Lake(str(tmp_path / "lake")), []
    reader = event_ids.IdReader(lake.store, keeps=True)
    real = event_ids.IdReader._range
    monkeypatch.setattr(event_ids.IdReader, "_range", lambda self, file, *ends: (read.append(file.key) if self is reader else None, real(self, file, *ends))[1])
    for number in range(12):
        log = [click(f"{number}-{k}") for k in range(3)] + [click("always")]
        done = total(ingest(lake, [write_log(tmp_path / "a.jsonl", log)], reader=reader))
        assert done == FileCounts(read=4, accepted=3 + (number == 0), duplicate=int(number > 0))
    assert read and len(read) == len(set(read))
    assert set(reader._kept or ()) <= set(read) and len(reader._kept or ()) < 10


def test_a_dead_runs_staging_is_removed_and_a_running_ones_is_not(tmp_path: Path) -> None:
    store = Lake(str(tmp_path)).store
    store.write_bytes("_staging/20260101T000000-dead/parts/0", b"x")
    with staging.staging(store) as prefix:
        store.write_bytes(f"{prefix}parts/0", b"x")
        later = datetime.now(UTC) + staging.STALE_AFTER / 2
        assert staging.remove_stale(store, later) == []
        assert set(staging.runs(store)) == {"_staging/20260101T000000-dead/", prefix}
    assert staging.remove_stale(store, datetime.now(UTC) + 2 * staging.STALE_AFTER) == ["_staging/20260101T000000-dead/"]
    assert list(store.keys()) == []


def test_a_lease_is_renewed_while_its_run_does_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "_RENEWED_EVERY_S", 0.01)
    store = Lake(str(tmp_path)).store
    with staging.staging(store) as prefix:
        while not store.exists(f"{prefix}lease"):
            pass
        assert prefix in staging.runs(store)


def test_groups_keep_the_order_and_the_bound_and_leave_unknown_sizes_alone() -> None:
    def chunk(number: int, size: int | None) -> Chunk:
        return Chunk(source=number, uri=str(number), format="jsonl", compression=None, start=0, stop=1, size_bytes=size)

    sizes = [10, 20, None, 30, 90, 200, 5, *[40] * 90]
    groups = grouped([chunk(number, size) for number, size in enumerate(sizes)], 100)
    assert [one.source for group in groups for one in group] == list(range(len(sizes)))
    assert [tuple(one.size_bytes for one in group) for group in groups[:6]] == [(10, 20), (None,), (30,), (90,), (200,), (5, 40, 40)]
    assert {len(group) for group in groups[6:]} == {2}
    few = [chunk(number, 10) for number in range(64)]
    assert len(grouped(few, 1_000_000)) == 32 and grouped([], 10) == []


spans = st.lists(st.tuples(st.integers(0, 4 * DAY_US), st.integers(0, DAY_US), st.integers(0, 3000)), min_size=1, max_size=12)


@given(spans, st.integers(1, 5000))
def test_stretches_cover_each_event_once(found: list[tuple[int, int, int]], file_rows: int) -> None:
    times = [np.array([[start, start + length]]) for start, length, _ in found]
    plan = plan_files(times, [np.array([kept]) for *_, kept in found], file_rows)
    for (start, length, kept), at in zip(found, [0.0, 0.5, 1.0] * 4, strict=False):
        if kept:
            assert sum(first <= start + int(at * length) < stop for planned in plan for first, stop in pairwise(planned.edges_us)) == 1
    for edges in ([*planned.edges_us] for planned in plan), ([planned.edges_us[0], *planned.cuts_us, planned.edges_us[-1]] for planned in plan):
        joined = [edge for of_one in edges for edge in of_one]
        assert joined == sorted(joined)


def test_ids_that_share_their_first_half_are_told_apart() -> None:
    high = np.array([7, 7, 7, 9], np.uint64)
    known = event_ids.Ids(high, np.array([1, 2, 3, 1], np.uint64))
    asked = event_ids.Ids(np.array([7, 7, 9, 9, 8], np.uint64), np.array([3, 4, 1, 2, 1], np.uint64))
    assert event_ids.is_among(asked, known).tolist() == [True, False, True, False, False]
    mixed = event_ids.Ids(np.array([5, 5, 5], np.uint64), np.array([2, 1, 2], np.uint64))
    assert mixed.take(event_ids.in_order(mixed)).low.tolist() == [1, 2, 2]


few = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=40)


@given(few, few)
def test_the_places_of_known_ids_are_where_each_of_them_stands(known: list[tuple[int, int]], asked: list[tuple[int, int]]) -> None:
    lists = sorted(known), sorted(asked)
    pairs = [event_ids.Ids(*np.array(list(zip(*held, strict=True)) or [[], []], np.uint64)) for held in lists]
    assert event_ids.places_of(*pairs).tolist() == [at for at, pair in enumerate(lists[1]) if pair in set(known)]


def test_many_id_files_are_merged_although_together_they_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_ids, "LARGEST_MERGED", 100)
    store = Lake(str(tmp_path)).store
    small = [file for start in range(0, 300, 10) for file in event_ids.write_ids(store, Table.EVENTS, event_ids.Ids(*np.full((2, 10), start, np.uint64)))]
    left = event_ids.merged(store, small)
    assert sorted(file.num_ids for file in left) == [10] * 6 + [80] * 3
    assert event_ids.joined(event_ids.IdReader(store).known(file, 0, 256) for file in left).low.tolist() == sorted([*range(0, 300, 10)] * 10)


def test_memory_of_the_plan_is_bits_not_events() -> None:
    bits = event_intake.Bits(10_000)
    bits.set(np.array([0, 9, 9_999], np.uint64))
    assert (bits.dropped, bits.packed.nbytes, bits.kept_by_step().tolist()) == (3, 1250, [254, *[256] * 38, 15])
