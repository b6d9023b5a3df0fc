"""Files of other times: fields added, renamed and removed, and lakes of the schema before this one."""

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_event_columns import CLICK, jsonl, judged_alike
from test_validation import NOW, PRODUCT, PSEUDONYMS, check, line

from guidelens.data.lake.lake import DataFile, Lake
from guidelens.data.records.sources import Kind
from guidelens.data.records.validation import Checker
from guidelens.errors import ConfigError
from guidelens.presets import load
from guidelens.schemas.tables import SCHEMAS, Table


def without(name: str, **more: Any) -> dict[str, Any]:
    return {key: value for key, value in CLICK.items() if key != name} | more


def test_a_removed_optional_field_is_null_and_a_removed_needed_one_a_refusal(tmp_path: Path) -> None:
    full = {**CLICK, "browse_ms": 3.5}
    rows = judged_alike(jsonl(tmp_path / "e.jsonl", full, CLICK, without("session_id")))
    assert [row["browse_ms"] for row in rows] == [3.5, None, None]
    assert [row["rule"] for row in rows] == [None, None, "session_id.missing"]


@pytest.mark.parametrize(
    ("name", "given"),
    [("session_id", "sessionId"), ("event_ts", "event_time"), ("product_id", "ProductID"), ("event_id", "eventid"), ("shopper_id", "shopper")],
)
def test_a_refusal_names_the_likely_new_name_of_a_missing_field(tmp_path: Path, name: str, given: str) -> None:
    (row,) = judged_alike(jsonl(tmp_path / "e.jsonl", without(name, **{given: CLICK[name]})))
    assert row["message"].endswith(f"the record has {given}, which is no field: if it is {name}, ingest with --rename {given}={name}")
    renamed = Checker(Kind.EVENTS, PSEUDONYMS, NOW, renamed={given: name})
    (row,) = judged_alike(jsonl(tmp_path / "e.jsonl", without(name, **{given: CLICK[name]})), renamed)
    assert row["rule"] is None


def test_a_field_that_resembles_nothing_is_no_hint(tmp_path: Path) -> None:
    (row,) = judged_alike(jsonl(tmp_path / "e.jsonl", without("session_id", weather="rain")))
    assert row["message"] == "session_id: Field required"


def test_catalogues_are_renamed_and_remarked_on_too() -> None:
    cells = {"product_id": "p-1", "name": "Chair", "category": "home", "supplier": "x", "empty": None}
    (row,) = Checker(Kind.CATALOGUE, PSEUDONYMS, NOW, renamed={"name": "title"}).check([_record(cells)], 0).to_pylist()
    assert (row["rule"], row["title"], row["remarks"]) == (None, "Chair", "unknown field supplier")


def _record(cells: dict[str, Any]) -> Any:
    from guidelens.data.records.raw_records import RawRecord

    return RawRecord(0, b"", cells)


def test_renames_of_what_is_no_field_or_is_one_are_a_callers_mistake() -> None:
    assert load("tiny", ['ingest.rename={"uid": "shopper_id"}']).ingest.rename == {"uid": "shopper_id"}
    with pytest.raises(ConfigError, match="must name fields of a contract, got 'shopper'"):
        load("tiny", ['ingest.rename={"uid": "shopper"}'])
    with pytest.raises(ConfigError, match="must not rename a known field, got 'session_id'"):
        load("tiny", ['ingest.rename={"session_id": "request_id"}'])


def test_files_of_an_older_schema_are_read_with_nulls_for_what_they_lack(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    older = pa.schema([field for field in SCHEMAS[Table.EVENTS] if field.name not in {"device", "rating"}])
    rows = pa.Table.from_pylist([{"event_id": "e-1", "event_ts": NOW, "shopper_key": "k", "type": "click"}], schema=older)
    sink = io.BytesIO()
    pq.write_table(rows, sink, store_schema=False)
    lake.store.write_bytes("events/date=2026-02-01/old.parquet", sink.getvalue())
    file = DataFile(table=Table.EVENTS, key="events/date=2026-02-01/old.parquet", rows=1, size_bytes=len(sink.getvalue()), sha256="0", date="2026-02-01")
    newer = pa.Table.from_pylist([{"event_id": "e-2", "event_ts": NOW, "device": "ar"}], schema=SCHEMAS[Table.EVENTS])
    lake.commit(lake.manifest(), [file, *lake.write(Table.EVENTS, newer)], {})
    found = lake.read(Table.EVENTS).sort("event_id")
    assert found.columns == SCHEMAS[Table.EVENTS].names
    assert found.select("event_id", "device", "rating").rows() == [("e-1", None, None), ("e-2", "ar", None)]


# What a value may be.


@pytest.mark.parametrize("text", ["红色的椅子", "👩‍👩‍👧", "e\u0301", "\u202eabc\u202c", "\u200bx", "a\u0000b"])
def test_texts_are_kept_as_they_are(tmp_path: Path, text: str) -> None:
    (row,) = judged_alike(jsonl(tmp_path / "e.jsonl", {**CLICK, "type": "search", "query": text}))
    assert row["query"] == text


@pytest.mark.parametrize("text", ["红色", "👩‍👩‍👧", "e\u0301", "\u202eabc"])
def test_ids_of_any_script_are_compared_character_by_character(tmp_path: Path, text: str) -> None:
    (row,) = judged_alike(jsonl(tmp_path / "e.jsonl", {**CLICK, "event_id": f" {text} ", "product_id": text}))
    assert (row["event_id"], row["product_id"]) == (text, text)


@pytest.mark.parametrize("text", ["a\u0000b", "a\tb", "a\nb", "a\u0085b", "\u007f"])
def test_control_characters_in_an_id_are_refused(tmp_path: Path, text: str) -> None:
    rows = judged_alike(jsonl(tmp_path / "e.jsonl", *({**CLICK, name: text} for name in ("event_id", "product_id", "session_id", "shopper_id"))))
    assert {row["rule"].split(".")[1] for row in rows} == {"string_pattern_mismatch"}
    assert all("must not hold control characters" in row["message"] for row in rows)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"browse_ms": -1}, "browse_ms.greater_than_equal"),
        ({"stay_ms": 86_400_001}, "stay_ms.less_than_equal"),
        ({"value_minor": 10**10 + 1}, "value_minor.less_than_equal"),
        ({"value_minor": -1}, "value_minor.greater_than_equal"),
        ({"value_minor": 19.99}, "value_minor.int_from_float"),
        ({"gesture": "wink"}, "gesture.enum"),
        ({"channel": ""}, "channel.enum"),
        ({"session_id": "  "}, "session_id.string_too_short"),
        ({"event_ts": "1969-12-31T23:59:59Z"}, "event_ts.greater_than_equal"),
        ({"created_ts": "2026-02-01T00:10:01Z"}, "created_ts.in_future"),
        ({"product_id": "not-in-any-catalogue"}, None),
        ({"event_ts": "2026-01-01T05:45:00+05:45"}, None),
        ({"query": ""}, None),
    ],
)
def test_what_an_event_may_say(tmp_path: Path, changes: dict[str, Any], rule: str | None) -> None:
    (row,) = judged_alike(jsonl(tmp_path / "e.jsonl", {**CLICK, **changes}))
    assert row["rule"] == rule


@pytest.mark.parametrize(
    ("price", "rule"),
    [(10**10, None), (10**10 + 1, "price_minor.less_than_equal"), (-1, "price_minor.greater_than_equal"), (10**30, "price_minor.less_than_equal")],
)
def test_absurd_prices_are_refused(price: int, rule: str | None) -> None:
    (row,) = check(Kind.CATALOGUE, line(PRODUCT, price_minor=price))
    assert row["rule"] == rule


@pytest.mark.parametrize("changes", [{"attributes": {"weight": float("nan")}}, {"facts": {"x": [1, float("inf")]}}])
def test_what_no_json_can_hold_is_no_attribute_and_no_fact(changes: dict[str, Any]) -> None:
    (row,) = check(Kind.CATALOGUE, line(PRODUCT, **changes))
    assert row["rule"] == f"{next(iter(changes))}.json_values"
