"""A new key changes every pseudonym and nothing else: who is one stays one, who was forgotten stays forgotten."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from byte_search import found_in
from event_logs import NOW, PSEUDONYMS, click, ingest, write_log

from guidelens.data.inbox import Inbox
from guidelens.data.key_files import add_key
from guidelens.data.lake.digest import table_digest
from guidelens.data.lake.lake import Lake
from guidelens.data.privacy.forgetting import Person, forget_in_lake
from guidelens.data.privacy.rekeying import rekey
from guidelens.data.pseudonyms import LiveKeys, Pseudonymizer
from guidelens.data.records.settling import FileCounts
from guidelens.data.records.sources import Kind
from guidelens.errors import ConfigError, StorageError
from guidelens.schemas.events import Event
from guidelens.schemas.tables import Table

ROTATED = Pseudonymizer(b"k" * 32, b"l" * 32)
TWICE = Pseudonymizer(b"k" * 32, b"l" * 32, b"m" * 32)


def silent(_done: int, _of: int) -> None:
    pass


@pytest.fixture
def paths(tmp_path: Path) -> tuple[str, str]:
    log = [click("a", shopper="s-one"), click("b", shopper="s-two", anonymous_id="cookie"), click("c", type="?", shopper="s-one"), b'{"shopper_id": "s-two", ']
    shoppers = [{"shopper_id": "s-one", "created_ts": "2025-12-01T08:00:00+08:00", "consent": True}, {"shopper_id": "s-two", "height_cm": 170.5}]
    return write_log(tmp_path / "events.jsonl", log), write_log(tmp_path / "shoppers.jsonl", shoppers)


@pytest.fixture
def lake(tmp_path: Path, paths: tuple[str, str]) -> Lake:
    """Two versions, with a login, a broken record, a refused one and shopper records."""
    lake = Lake(str(tmp_path / "lake"))
    ingest(lake, [paths[0]], shoppers=paths[1])
    ingest(lake, [write_log(tmp_path / "more.jsonl", [click("d", 1, shopper="s-one")])])
    return lake


def old_names() -> list[str]:
    return [PSEUDONYMS.key("s-one"), PSEUDONYMS.key("s-two"), PSEUDONYMS.key("cookie", anonymous=True)]


def keys_of(lake: Lake, table: Table, version: int | None = None) -> set[str]:
    return set(lake.read(table, ["shopper_key"], manifest=lake.manifest(version))["shopper_key"])


def test_no_file_of_any_version_holds_a_pseudonym_of_the_old_key(lake: Lake, tmp_path: Path) -> None:
    assert len(found_in(tmp_path / "lake", old_names())) > 3
    rekey(lake, ROTATED, silent)
    assert found_in(tmp_path / "lake", old_names()) == {}
    new = {ROTATED.key("s-one"), ROTATED.key("s-two")}
    assert [keys_of(lake, Table.EVENTS, 1), keys_of(lake, Table.EVENTS), keys_of(lake, Table.SHOPPERS)] == [new] * 3
    assert set(lake.read(Table.EVENTS)["key_id"]) == {ROTATED.key_id}
    assert lake.read(Table.EVENTS)["anonymous_key"].drop_nulls().to_list() == [ROTATED.key("cookie", anonymous=True)]


def test_what_was_known_before_is_known_after(lake: Lake, paths: tuple[str, str]) -> None:
    rekey(lake, ROTATED, silent)
    version = lake.manifest().version
    again = ingest(lake, [paths[0]], pseudonyms=ROTATED, shoppers=paths[1])
    assert again.reports[Kind.EVENTS].total == FileCounts(read=4, duplicate=2, quarantined=2)
    assert again.reports[Kind.SHOPPERS].total == FileCounts(read=2, duplicate=2)
    assert (lake.manifest().version, lake.read(Table.QUARANTINE).height) == (version, 2)


def test_rows_do_not_depend_on_whether_they_came_before_or_after_the_rotation(lake: Lake, paths: tuple[str, str], tmp_path: Path) -> None:
    fresh = Lake(str(tmp_path / "fresh"))
    ingest(fresh, [paths[0], str(tmp_path / "more.jsonl")], pseudonyms=TWICE, shoppers=paths[1])
    rekey(lake, ROTATED, silent)
    rekey(lake, TWICE, silent)
    for table in (Table.EVENTS, Table.SHOPPERS, Table.CONSENTS, Table.QUARANTINE):
        assert table_digest(lake, table, lake.manifest()).hex == table_digest(fresh, table, fresh.manifest()).hex, table


def test_a_second_application_changes_nothing_and_a_lost_race_is_run_again(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, raced = Lake.commit, []

    def commit(self: Lake, *args: Any, **marks: Any) -> Any:
        if not raced:
            raced.append(True)
            ingest(lake, [write_log(tmp_path / "race.jsonl", [click("z", 2, shopper="s-one")])])
        return real(self, *args, **marks)

    monkeypatch.setattr(Lake, "commit", commit)
    rekey(lake, ROTATED, silent)
    assert found_in(tmp_path / "lake", old_names()) == {}
    assert lake.read(Table.EVENTS).filter(pl.col("shopper_key") == ROTATED.key("s-one"))["event_id"].sort().to_list() == ["a", "d", "z"]
    version = lake.manifest().version
    assert set(rekey(lake, ROTATED, silent).rows.values()) == {0} and lake.manifest().version == version


def test_a_rotation_that_dies_before_older_versions_are_done_is_finished_by_the_next(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Lake, "replace_history", dies)
        rekey(lake, ROTATED, silent)
    assert found_in(tmp_path / "lake", old_names())
    rekey(lake, ROTATED, silent)
    assert found_in(tmp_path / "lake", old_names()) == {}


def test_nothing_is_taken_in_under_another_key_than_the_lakes(lake: Lake, paths: tuple[str, str]) -> None:
    """Neither with a key that was made and not applied, nor with the old one after: the forgotten would be strangers."""
    with pytest.raises(ConfigError, match="keys apply"):
        ingest(lake, [paths[0]], pseudonyms=ROTATED)
    rekey(lake, ROTATED, silent)
    with pytest.raises(ConfigError, match="keys apply"):
        ingest(lake, [paths[0]])


def test_a_lake_under_a_key_that_the_home_lost_is_refused(lake: Lake) -> None:
    with pytest.raises(StorageError, match="backup"):
        rekey(lake, Pseudonymizer(b"x" * 32, b"y" * 32), silent)


def test_an_event_that_waited_in_the_inbox_joins_its_shoppers_history(lake: Lake, tmp_path: Path) -> None:
    waiting = [click("w", shopper="s-one"), click("v", shopper="s-two", anonymous_id="cookie")]
    Inbox(tmp_path / "inbox").append([PSEUDONYMS.pseudonymize(Event.model_validate(event)) for event in waiting])
    rekey(lake, ROTATED, silent)
    (segment,) = (tmp_path / "inbox").glob("*.jsonl")
    ingest(lake, [str(segment)], from_inbox=True, pseudonyms=ROTATED)
    rows = lake.read(Table.EVENTS).filter(pl.col("event_id").is_in(["w", "v"])).sort("event_id")
    assert rows["shopper_key"].to_list() == [ROTATED.key("s-two"), ROTATED.key("s-one")]
    assert (rows["anonymous_key"].to_list()[0], set(rows["key_id"])) == (ROTATED.key("cookie", anonymous=True), {ROTATED.key_id})


def test_a_tombstone_holds_under_the_next_key(lake: Lake, paths: tuple[str, str]) -> None:
    forget_in_lake(lake, Person("s-one", frozenset({PSEUDONYMS.key("s-one")})), NOW)
    rekey(lake, ROTATED, silent)
    assert keys_of(lake, Table.TOMBSTONES) == {ROTATED.key("s-one")}
    ingest(lake, [paths[0]], pseudonyms=ROTATED, shoppers=paths[1])
    assert keys_of(lake, Table.EVENTS) == keys_of(lake, Table.SHOPPERS) == {ROTATED.key("s-two")}


def test_keys_are_numbered_and_kept_for_their_owner_only(tmp_path: Path) -> None:
    live = LiveKeys(tmp_path)
    before = live().key("s-one")
    assert [add_key(tmp_path), add_key(tmp_path)] == [2, 3]
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == dict.fromkeys(
        ("shopper.key", "shopper-0002.key", "shopper-0003.key"), 0o600
    )
    opened = Pseudonymizer.open(tmp_path)
    assert opened.every_key("s-one") == opened.later_names(before, opened.key_ids[0])
    assert opened.carried(before, opened.key_ids[0]) == opened.key("s-one") == live().key("s-one") != before
    (tmp_path / "shopper-0002.key").unlink()
    with pytest.raises(StorageError, match="restore"):
        Pseudonymizer.open(tmp_path)


def test_a_scrubbed_original_is_carried_over(lake: Lake) -> None:
    rekey(lake, ROTATED, silent)
    raws = [json.dumps(raw.decode()) for raw in lake.read(Table.QUARANTINE)["raw"]]
    assert any(ROTATED.key("s-two") in raw for raw in raws) and any(ROTATED.key("s-one") in raw for raw in raws)
