"""What forgetting a shopper leaves behind in the lake: nothing but the tombstone."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from byte_search import found_in
from event_logs import PSEUDONYMS, click, ingest, write_log
from model_samples import sample_examples

from guidelens.config import Home
from guidelens.data.lake.lake import Lake
from guidelens.data.lake.staging import staging
from guidelens.data.lake.tombstones import forgotten_keys
from guidelens.data.privacy.forgetting import Person, forget_in_lake, with_devices
from guidelens.schemas.tables import SCHEMAS, Table
from pipelines.fit_parts import EXAMPLES
from pipelines.forget import forget_examples

NOW = datetime(2026, 1, 2, tzinfo=UTC)
GONE = frozenset({"gone" * 16})


def rows(table: Table, *found: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(found), schema=SCHEMAS[table])


def event(name: str, key: str) -> dict[str, Any]:
    return {"event_id": name, "event_ts": datetime(2026, 1, 1, tzinfo=UTC), "shopper_key": key}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(str(tmp_path))
    first = lake.commit(lake.manifest(), lake.write(Table.EVENTS, rows(Table.EVENTS, event("a", *GONE), event("b", "stays"))), {})
    lake.commit(first, [*first.files, *lake.write(Table.EVENTS, rows(Table.EVENTS, event("c", "stays")))], {})
    return lake


def keys_on_disk(lake: Lake) -> set[str]:
    return set().union(*(lake.read_key(Table.EVENTS, key)["shopper_key"] for key in lake.store.keys("events/")))


def test_live_and_older_versions_lose_the_shopper_and_keep_the_others(lake: Lake) -> None:
    assert forget_in_lake(lake, Person("raw", GONE), NOW)[Table.EVENTS] == 1
    assert lake.read(Table.EVENTS)["event_id"].sort().to_list() == ["b", "c"]
    assert lake.read(Table.EVENTS, manifest=lake.manifest(1))["event_id"].to_list() == ["b"]
    assert keys_on_disk(lake) == {"stays"}


def test_the_shoppers_device_is_taken_from_the_events_of_others(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "other"))
    lake.commit(
        lake.manifest(), lake.write(Table.EVENTS, rows(Table.EVENTS, event("a", "stays") | {"anonymous_key": next(iter(GONE))}, event("b", "stays"))), {}
    )
    assert forget_in_lake(lake, Person("raw", GONE), NOW)[Table.EVENTS] == 1
    assert lake.read(Table.EVENTS).sort("event_id").select("event_id", "anonymous_key").rows() == [("a", None), ("b", None)]
    assert all(next(iter(GONE)).encode() not in lake.store.read_bytes(key) for key in lake.store.keys("events/"))


def test_texts_that_only_the_shopper_searched_for_are_removed_from_every_version(lake: Lake) -> None:
    asked = [event("g", *GONE) | {"query": "my own words"}, event("h", *GONE) | {"query": "red shoes"}, event("i", "stays") | {"query": "red shoes"}]
    base = lake.manifest()
    texts = [{"query": text, "text_encoder": "t"} for text in ("my own words", "red shoes")]
    files = [*lake.write(Table.EVENTS, rows(Table.EVENTS, *asked)), *lake.write(Table.QUERIES, rows(Table.QUERIES, *texts))]
    before = lake.commit(base, [*base.files, *files], {})
    assert forget_in_lake(lake, Person("raw", GONE), NOW)[Table.QUERIES] == 1
    assert lake.read(Table.QUERIES)["query"].to_list() == ["red shoes"]
    assert lake.read(Table.QUERIES, manifest=lake.manifest(before.version))["query"].to_list() == ["red shoes"]
    assert len(list(lake.store.keys("queries/"))) == 1


def test_a_tombstone_is_written_once(lake: Lake) -> None:
    forget_in_lake(lake, Person("raw", GONE), NOW)
    version = lake.manifest().version
    forget_in_lake(lake, Person("raw", GONE), NOW)
    assert lake.manifest().version == version
    assert forgotten_keys(lake, lake.manifest()) == GONE


def test_files_that_an_overtaken_ingest_left_are_deleted_if_they_hold_the_shopper(lake: Lake) -> None:
    (left,) = lake.write(Table.EVENTS, rows(Table.EVENTS, event("c", "left by a dead run")))
    os.utime(Path(lake.uri) / left.key, (0, NOW.timestamp()))
    with staging(lake.store):
        lake.write(Table.EVENTS, rows(Table.EVENTS, event("d", *GONE)))
        lake.write(Table.EVENTS, rows(Table.EVENTS, event("e", "being written")))
        forget_in_lake(lake, Person("raw", GONE), NOW)
    assert keys_on_disk(lake) == {"stays", "being written"}


@pytest.mark.parametrize(
    ("raw", "is_kept"),
    [
        (b'{"shopper_id": "hmac:' + next(iter(GONE)).encode() + b'"', False),
        (b"shopper s-1, cut off", False),
        (b"shopper s-17, another", True),
        (b"shopper is-1, another", True),
    ],
)
def test_quarantined_originals_that_name_the_shopper_are_emptied(lake: Lake, raw: bytes, is_kept: bool) -> None:
    base = lake.manifest()
    record = {"record_sha256": "1", "kind": "events", "source": "f", "offset": 0, "rule": "json.invalid", "message": "no", "raw": raw}
    lake.commit(base, [*base.files, *lake.write(Table.QUARANTINE, rows(Table.QUARANTINE, record))], {})
    assert forget_in_lake(lake, Person("s-1", GONE), NOW)[Table.QUARANTINE] == int(not is_kept)
    (left,) = lake.read(Table.QUARANTINE)["raw"].to_list()
    assert left == (raw if is_kept else None)


def test_an_id_in_json_escapes_is_found_too(lake: Lake) -> None:
    base = lake.manifest()
    record = {"record_sha256": "1", "kind": "events", "source": "f", "offset": 0, "rule": "json.invalid", "message": "no"}
    raws = [rb'{"user": "\u5f20\u4e09"', rb'{"user": "\u5F20\u4E09"', "张三".encode(), rb'{"user": "\u5f20"']
    found = [record | {"record_sha256": str(number), "raw": raw} for number, raw in enumerate(raws)]
    lake.commit(base, [*base.files, *lake.write(Table.QUARANTINE, rows(Table.QUARANTINE, *found))], {})
    assert forget_in_lake(lake, Person("张三", GONE), NOW)[Table.QUARANTINE] == 3
    assert lake.read(Table.QUARANTINE)["raw"].drop_nulls().to_list() == raws[3:]


def test_forgetting_goes_on_when_another_writer_commits_meanwhile(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    real_commit, raced = Lake.commit, []

    def commit(self: Lake, *args: Any, **marks: Any) -> Any:
        if not raced:
            raced.append(True)
            base = self.manifest()
            real_commit(self, base, [*base.files, *self.write(Table.EVENTS, rows(Table.EVENTS, event("d", *GONE), event("e", "late")))], {})
        return real_commit(self, *args, **marks)

    monkeypatch.setattr(Lake, "commit", commit)
    forget_in_lake(lake, Person("raw", GONE), NOW)
    assert lake.read(Table.EVENTS).filter(pl.col("shopper_key").is_in(GONE)).height == 0
    assert keys_on_disk(lake) == {"stays", "late"}


def test_a_runs_examples_that_hold_the_shopper_are_deleted_and_others_stay(home: Home) -> None:
    whose, others = home.work / "a" / EXAMPLES, home.work / "b" / EXAMPLES
    examples = sample_examples(40)
    examples.save(whose)
    examples.take(examples.shopper_key != "k-3").save(others)
    assert forget_examples(home, frozenset({"k-3"})) == 2
    assert (whose.exists(), others.exists()) == (False, True)


def cookie(name: str, day: float, session: str, device: str = "cookie") -> dict[str, Any]:
    return click(name, day, session_id=session) | {"shopper_id": None, "anonymous_id": device}


def person(name: str) -> Person:
    return Person(name, frozenset({PSEUDONYMS.key(name), PSEUDONYMS.key(name, anonymous=True)}))


def test_a_device_that_only_the_shopper_logged_in_on_is_forgotten_along_and_stays_out(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    ingest(lake, [write_log(tmp_path / "a.jsonl", [cookie("before", 0, "v1"), click("other", 1, "s-2"), cookie("else", 1, "v9", "another")])])
    ingest(lake, [write_log(tmp_path / "b.jsonl", [click("login", 1, session_id="v2", anonymous_id="cookie"), cookie("after", 2, "v3")])])
    found = with_devices(lake, person("s-1"))
    assert found.keys == person("s-1").keys | {PSEUDONYMS.key("cookie", anonymous=True)}
    assert forget_in_lake(lake, found, NOW)[Table.EVENTS] == 3
    assert found_in(tmp_path / "lake", found.keys).keys() == {lake.manifest().of(Table.TOMBSTONES)[0].key}
    ingest(lake, [write_log(tmp_path / "c.jsonl", [cookie("late", 5, "v4"), click("later", 5, "s-1")])])
    assert lake.read(Table.EVENTS)["event_id"].sort().to_list() == ["else", "other"]


def test_of_a_shared_device_go_the_sessions_that_were_the_shoppers(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    mine, theirs = click("mine", 1, session_id="v2", anonymous_id="cookie"), click("theirs", 3, "s-2", session_id="v4", anonymous_id="cookie")
    ingest(lake, [write_log(tmp_path / "a.jsonl", [cookie("before", 0, "v1"), mine, cookie("between", 2, "v3"), theirs, cookie("after", 4, "v5")])])
    found = with_devices(lake, person("s-1"))
    assert (found.keys, {session for _, session in found.sessions}) == (person("s-1").keys, {"v1", "v3"})
    forget_in_lake(lake, found, NOW)
    assert lake.read(Table.EVENTS)["event_id"].sort().to_list() == ["after", "theirs"]
    assert with_devices(lake, person("s-2")).keys > person("s-2").keys


def test_a_device_that_is_asked_for_by_its_own_id_leaves_others_logins_without_its_name(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    ingest(lake, [write_log(tmp_path / "a.jsonl", [cookie("before", 0, "v1"), click("login", 1, anonymous_id="cookie")])])
    assert forget_in_lake(lake, with_devices(lake, person("cookie")), NOW)[Table.EVENTS] == 2
    assert lake.read(Table.EVENTS).select("event_id", "anonymous_key").rows() == [("login", None)]
    assert set(found_in(tmp_path / "lake", person("cookie").keys)) == {file.key for file in lake.manifest().of(Table.TOMBSTONES)}


def test_a_forget_that_died_after_its_commit_still_knows_the_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    lake = Lake(str(tmp_path / "lake"))
    ingest(lake, [write_log(tmp_path / "a.jsonl", [cookie("before", 0, "v1"), click("login", 1, anonymous_id="cookie"), click("b", 1, "s-2")])])
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Lake, "replace_history", dies)
        forget_in_lake(lake, with_devices(lake, person("s-1")), NOW)
    forget_in_lake(lake, with_devices(lake, person("s-1")), NOW)
    device = PSEUDONYMS.key("cookie", anonymous=True)
    assert set(found_in(tmp_path / "lake", {device, "before"})) == {file.key for file in lake.manifest().of(Table.TOMBSTONES)}
