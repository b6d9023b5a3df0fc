"""Damage of each kind to a lake is found and named, on a local disk and over the S3 API; a sound lake is found sound."""

import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from event_logs import PSEUDONYMS, ingest, troubled, write_log
from faulty_s3 import BUCKET, s3_api

from guidelens.config import Home, S3Options
from guidelens.data.lake import verification
from guidelens.data.lake.compaction import compact
from guidelens.data.lake.event_ids import IdReader, Ids, reindex, write_ids
from guidelens.data.lake.history import thin
from guidelens.data.lake.lake import IdFile, Lake, Manifest
from guidelens.data.lake.tables import to_table
from guidelens.data.lake.verification import Note, Verified, verify
from guidelens.data.privacy.forgetting import Person, forget_in_lake
from guidelens.errors import NotFoundError
from guidelens.schemas.tables import Table
from pipelines.lake import command


@pytest.fixture(scope="module")
def api() -> Iterator[S3Options]:
    with s3_api() as options:
        yield options


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("logs")
    return [write_log(folder / f"{name}.jsonl", troubled(random.Random(name), 60, 80)) for name in "ab"]


@pytest.fixture(scope="module")
def master(logs: list[str], tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Three versions: two ingests with the usual trouble, and merged files."""
    made = Lake(str(tmp_path_factory.mktemp("master")))
    for log in logs:
        ingest(made, [log])
    compact(made, 1000, everything=True)
    return made


@pytest.fixture(params=["local", "s3"])
def lake(request: pytest.FixtureRequest, tmp_path: Path, api: S3Options, master: Lake) -> Lake:
    """A copy to damage."""
    copy = Lake(str(tmp_path / "lake") if request.param == "local" else f"s3://{BUCKET}/{tmp_path.name}", api)
    for entry in master.store.entries():
        copy.store.write_bytes(entry.key, master.store.read_bytes(entry.key))
    return copy


def event_ids(lake: Lake) -> tuple[IdFile, Ids]:
    """The largest id file of events, and what it holds."""
    file = max(lake.manifest().ids_of(Table.EVENTS), key=lambda file: file.num_ids)
    return file, IdReader(lake.store).known(file, 0, 256)


def damage(lake: Lake, key: str, change: Callable[[bytes], bytes]) -> str:
    lake.store.write_bytes(key, change(lake.store.read_bytes(key)))
    return key


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def found(lake: Lake, *, every_version: bool = False, deep: bool = False) -> list[tuple[str, str]]:
    done = verify(lake, every_version=every_version, deep=deep)
    assert done.ok == (not done.problems)
    assert all(problem.remedy for problem in done.problems)
    return [(problem.file, problem.wrong) for problem in done.problems]


@pytest.mark.parametrize("deep", [False, True])
def test_a_sound_lake_has_no_problem_and_every_byte_was_read(lake: Lake, deep: bool) -> None:
    notes: list[Note] = []
    manifest = lake.manifest()
    done = verify(lake, deep=deep, note=notes.append)
    assert (done.ok, done.problems, done.manifest, done.versions) == (True, (), 3, 3)
    assert (done.files, done.id_files) == (len(manifest.files), len(manifest.ids))
    assert done.size_bytes == sum(lake.store.size(key) for key in manifest.keys) == notes[-1].size_bytes == notes[-1].of_bytes
    every = verify(lake, every_version=True, deep=deep)
    assert every.ok and every.files > done.files


@pytest.mark.parametrize("kind", ["data", "ids"])
def test_a_flipped_byte_a_lost_one_and_a_missing_file_are_told_apart(lake: Lake, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "_PIECE_BYTES", 1000)  # several pieces a file
    manifest = lake.manifest()
    key = (manifest.files if kind == "data" else manifest.ids)[0].key
    whole = lake.store.read_bytes(key)
    damage(lake, key, flipped)
    ((file, wrong),) = found(lake)
    assert file == key and wrong.startswith("has the SHA-256")
    damage(lake, key, lambda _: whole[:-1])
    assert found(lake) == [(key, f"has {len(whole) - 1} bytes; the manifest says {len(whole)}")]
    lake.store.delete(key)
    assert found(lake) == found(lake, deep=True) == [(key, "is missing")]
    lake.store.write_bytes(key, whole)
    assert found(lake, deep=True) == []


def test_damage_to_an_older_version_is_found_when_every_version_is_read(lake: Lake) -> None:
    old = next(file.key for file in lake.manifest(1).files if file.key not in lake.manifest().keys)
    damage(lake, old, flipped)
    assert found(lake) == []
    assert [file for file, _ in found(lake, every_version=True)] == [old]


def test_an_id_file_that_lost_an_id_is_found_by_the_count(lake: Lake) -> None:
    base, (file, ids) = lake.manifest(), event_ids(lake)
    fewer = write_ids(lake.store, Table.EVENTS, Ids(ids.high[1:], ids.low[1:]))
    lake.commit(base, base.files, {}, [*(other for other in base.ids if other != file), *fewer])
    rows = base.rows(Table.EVENTS)
    assert found(lake) == [("_manifests/000000000004.json", f"has {rows - 1} ids for {rows} rows of events")]


def test_an_id_file_with_another_id_is_found_by_the_ids_and_made_anew(lake: Lake) -> None:
    base, (file, ids) = lake.manifest(), event_ids(lake)
    ids.low[-1] ^= 1
    other = write_ids(lake.store, Table.EVENTS, ids)
    lake.commit(base, base.files, {}, [*(one for one in base.ids if one != file), *other])
    assert found(lake) == []
    assert found(lake, deep=True) == [("_manifests/000000000004.json", "the id files of events hold other ids than its rows")]
    assert reindex(lake).version == 5
    assert found(lake, deep=True) == []
    assert reindex(lake).version == 5


def test_a_damaged_id_file_is_made_anew_and_then_knows_every_event(lake: Lake, logs: list[str]) -> None:
    damage(lake, event_ids(lake)[0].key, lambda data: data[:2056] + bytes(len(data) - 2056))
    reindex(lake)
    assert found(lake, deep=True) == []
    again = ingest(lake, logs)
    assert again.reports["events"].total.accepted == 0


def test_what_was_replayed_keeps_its_id_through_a_check_and_a_reindex(lake: Lake) -> None:
    base = lake.manifest()
    rows = lake.read(Table.QUARANTINE)
    left = lake.write(Table.QUARANTINE, to_table(Table.QUARANTINE, rows.slice(1)))
    replayed = lake.commit(base, [*(file for file in base.files if file.table is not Table.QUARANTINE), *left], {})
    assert found(lake, deep=True) == []
    assert reindex(lake).ids_of(Table.QUARANTINE) == replayed.ids_of(Table.QUARANTINE)
    for file in replayed.ids_of(Table.QUARANTINE):
        damage(lake, file.key, flipped)
    reindex(lake)
    assert found(lake, deep=True) == []
    assert sum(file.num_ids for file in lake.manifest().ids_of(Table.QUARANTINE)) == rows.height - 1, "with its file, the id of what has no row is lost"


def test_an_id_that_two_files_hold_is_found(lake: Lake) -> None:
    base, (_, ids) = lake.manifest(), event_ids(lake)
    twice = write_ids(lake.store, Table.EVENTS, ids.take(np.arange(1)))
    lake.commit(base, base.files, {}, [*base.ids, *twice])
    assert "1 ids of events stand in two id files" in {wrong for _, wrong in found(lake, deep=True)}


def test_an_id_file_out_of_order_is_found(lake: Lake) -> None:
    base, (file, ids) = lake.manifest(), event_ids(lake)
    other = write_ids(lake.store, Table.EVENTS, Ids(ids.high[::-1].copy(), ids.low[::-1].copy()))
    lake.commit(base, base.files, {}, [*(one for one in base.ids if one != file), *other])
    assert found(lake, deep=True) == [(other[0].key, "holds ids out of order or twice")]


def test_a_lost_damaged_or_exchanged_version_breaks_the_chain(lake: Lake) -> None:
    second = "_manifests/000000000002.json"
    whole = lake.store.read_bytes(second)
    lake.store.delete(second)
    ((file, wrong),) = found(lake)
    assert (file, wrong.split(":")[0]) == ("_manifests/000000000003.json", "does not follow the version before it")
    lake.store.write_bytes(second, whole[:-20])
    ((file, wrong),) = found(lake)
    assert file == second and wrong.startswith("cannot be read")
    lake.store.write_bytes(second, json.dumps(json.loads(whole) | {"writer": "another"}).encode())
    assert [file for file, _ in found(lake)] == ["_manifests/000000000003.json"]
    lake.store.write_bytes(second, lake.store.read_bytes("_manifests/000000000003.json"))
    assert (second, "holds version 3") in found(lake)


def test_a_damaged_newest_version_is_a_problem_not_an_end(lake: Lake) -> None:
    damage(lake, "_manifests/000000000003.json", lambda data: data[:50])
    assert [file for file, _ in found(lake)] == ["_manifests/000000000003.json"]


def test_a_version_that_a_run_was_trained_on_is_missed(lake: Lake) -> None:
    lake.pin(2)
    assert found(lake) == []
    lake.pin(9)
    assert found(lake) == [("_pins/000000000009", "a run was trained on version 9, which is gone")]


def test_thinning_compacting_and_forgetting_keep_the_chain(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    for number in range(12):
        ingest(lake, [write_log(tmp_path / f"{number}.jsonl", troubled(random.Random(number), 20, 400))])
        base = lake.manifest()
        if number % 3:  # the same again as a stream's, so that thinning takes the first of the two
            lake.store.write_bytes(f"_manifests/{base.version:012d}.json", base.model_copy(update={"passing": True}).model_dump_json().encode())
    assert thin(lake, datetime.now(UTC) + timedelta(hours=3)) == 8 - 1
    compact(lake, 1000, everything=True)
    forget_in_lake(lake, Person("s-3", frozenset({PSEUDONYMS.key("s-3")})), datetime(2026, 6, 2, tzinfo=UTC))
    assert found(lake, every_version=True, deep=True) == []
    lake.drop_version(7)  # the fourth of those that are no stream's
    assert [wrong.split(":")[0] for _, wrong in found(lake)] == ["does not follow the version before it"]


def test_what_a_forget_takes_meanwhile_is_no_problem(lake: Lake) -> None:
    person = Person("s-3", frozenset({PSEUDONYMS.key("s-3")}))
    notes: list[Note] = []

    def forgetting(note: Note) -> None:
        notes.append(note)
        if len(notes) == 1:
            forget_in_lake(lake, person, datetime(2026, 6, 2, tzinfo=UTC))

    assert verify(lake, every_version=True, deep=True, note=forgetting).problems == ()
    assert notes[-1].files == notes[-1].of_files


def test_a_lake_from_before_there_were_ids_or_a_chain_is_sound(lake: Lake) -> None:
    for manifest in list(lake.manifests()):
        older = Manifest(**manifest.model_dump(exclude={"ids", "follows"}))
        lake.store.write_bytes(f"_manifests/{manifest.version:012d}.json", older.model_dump_json().encode())
    assert found(lake, every_version=True, deep=True) == []


def test_the_verb_ends_with_1_where_there_is_a_problem(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    home = Home(root=tmp_path)
    lake = Lake(home.lake_uri)
    ingest(lake, [write_log(tmp_path / "a.jsonl", troubled(random.Random(0), 30, 30))])
    assert ended(home) == 0
    assert Verified.model_validate_json(capfd.readouterr().out.splitlines()[-1]).ok
    key = damage(lake, lake.manifest().files[0].key, flipped)
    assert ended(home) == 1
    out, err = capfd.readouterr()
    (problem,) = Verified.model_validate_json(out.splitlines()[-1]).problems
    assert (problem.file, problem.remedy) == (key, "restore it from a backup")
    assert f"PROBLEM {key}" in err and "verify: " in err


def ended(home: Home) -> int:
    with pytest.raises(SystemExit) as stop:
        command.main(["verify", "--deep", "--home", str(home.root)], standalone_mode=False)
    return int(stop.value.code or 0)


def test_an_empty_lake_is_a_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="run `guidelens ingest` first"):
        verify(Lake(str(tmp_path)))
