"""The lake's commits: data first, manifest last, one winner."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from guidelens.data.lake.lake import Lake, Manifest
from guidelens.errors import AlreadyExistsError, CommitConflictError, ContractError, NotFoundError, StorageError
from guidelens.schemas.tables import SCHEMAS, TEXT_DIM, Table
from guidelens.storage import LocalStore


def events(*rows: tuple[str, int]) -> pa.Table:
    """Events of (event_id, microseconds)."""
    schema = SCHEMAS[Table.EVENTS]
    given = {"event_id": [row[0] for row in rows], "event_ts": [row[1] for row in rows]}
    return pa.table({name: given.get(name, [None] * len(rows)) for name in schema.names}, schema=schema)


DAY = 86_400_000_000


def test_events_are_partitioned_by_their_utc_day(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    files = lake.write(Table.EVENTS, events(("a", 0), ("b", DAY - 1), ("c", DAY)))
    assert [(file.date, file.rows) for file in files] == [("1970-01-01", 2), ("1970-01-02", 1)]


def test_what_is_not_committed_is_not_read(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    files = lake.write(Table.EVENTS, events(("a", 0)))
    assert lake.read(Table.EVENTS).height == 0
    lake.commit(lake.manifest(), files, {})
    assert lake.read(Table.EVENTS, ["event_id"])["event_id"].to_list() == ["a"]


def test_a_commit_that_changes_nothing_writes_no_version(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    files = lake.write(Table.EVENTS, events(("a", 0)))
    first = lake.commit(lake.manifest(), files, {})
    assert lake.commit(first, lake.write(Table.EVENTS, events(("a", 0))), {}) == first
    assert lake.manifest().version == 1


def test_the_second_of_two_writers_is_refused(tmp_path: Path) -> None:
    lake, base = Lake(str(tmp_path)), Lake(str(tmp_path)).manifest()
    lake.commit(base, lake.write(Table.EVENTS, events(("a", 0))), {})
    with pytest.raises(CommitConflictError, match="version 1"):
        lake.commit(base, lake.write(Table.EVENTS, events(("b", 0))), {})
    assert lake.read(Table.EVENTS, ["event_id"])["event_id"].to_list() == ["a"]


def test_an_older_version_stays_readable(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    first = lake.commit(lake.manifest(), lake.write(Table.EVENTS, events(("a", 0))), {})
    lake.commit(first, [*first.files, *lake.write(Table.EVENTS, events(("b", DAY)))], {})
    assert lake.read(Table.EVENTS, manifest=lake.manifest(1)).height == 1
    assert lake.read(Table.EVENTS).height == 2
    with pytest.raises(NotFoundError):
        lake.manifest(9)


def test_other_columns_than_the_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="event_id"):
        Lake(str(tmp_path)).write(Table.EVENTS, pa.table({"id": ["a"]}))


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:]], ids=["cut short", "one bit"])
def test_a_damaged_data_file_is_an_error_not_other_rows(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    lake = Lake(str(tmp_path))
    (file,) = lake.write(Table.EVENTS, events(*((f"event {number}", number) for number in range(50))))
    (tmp_path / file.key).write_bytes(damage((tmp_path / file.key).read_bytes()))
    with pytest.raises(StorageError, match="backup"):
        lake.read_file(file)


def test_a_local_exclusive_write_has_one_winner(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    store.create_exclusive("x/one", b"first")
    with pytest.raises(AlreadyExistsError):
        store.create_exclusive("x/one", b"second")
    assert store.read_bytes("x/one") == b"first"
    assert list(store.keys()) == ["x/one"]


def test_rows_without_an_embedding_come_back_as_they_went_in(tmp_path: Path) -> None:
    vector = [0.5] * TEXT_DIM
    rows = [{"product_id": f"p{k}", "text_embedding": vector, "text_zh_embedding": given} for k, given in enumerate([None, vector, None, None, vector, None])]
    lake = Lake(str(tmp_path / "lake"))
    files = lake.write(Table.PRODUCTS, pa.Table.from_pylist(rows, schema=SCHEMAS[Table.PRODUCTS]))
    found = lake.read(Table.PRODUCTS, manifest=lake.commit(Manifest(), files, {}))
    assert found["text_zh_embedding"].to_list() == [row["text_zh_embedding"] for row in rows]
    assert found.schema["text_zh_embedding"] == pl.Array(pl.Float32, TEXT_DIM)
