"""Records against their contracts: what is refused, by which rule, and what is kept of it."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidelens.config import S3Options
from guidelens.data.pseudonyms import Pseudonymizer
from guidelens.data.records.raw_records import RawRecord
from guidelens.data.records.sources import Kind, chunks_of, record_files
from guidelens.data.records.validation import Checker, checked_tables, staged_schema
from guidelens.schemas.events import Event

PSEUDONYMS = Pseudonymizer(b"k" * 32)
NOW = datetime(2026, 2, 1, tzinfo=UTC)
CLICK = {"event_id": "e-1", "event_ts": "2026-01-01T08:00:00+08:00", "shopper_id": "s-1", "session_id": "x", "type": "click", "product_id": "p-1"}
PRODUCT = {"product_id": "p-1", "title": "Chair", "category": "home/chairs"}


def check(kind: Kind, *records: bytes | dict[str, Any], from_inbox: bool = False) -> list[dict[str, Any]]:
    """Bytes are lines; dicts are cells."""
    raw = [RawRecord(number, record) if isinstance(record, bytes) else RawRecord(number, b"", record) for number, record in enumerate(records)]
    rows: list[dict[str, Any]] = Checker(kind, PSEUDONYMS, NOW, from_inbox).check(raw, 0).to_pylist()
    return sorted(rows, key=lambda row: row["offset"])


def line(record: dict[str, Any], **changes: Any) -> bytes:
    return json.dumps({name: value for name, value in (record | changes).items() if value is not ...}).encode()


def test_a_valid_event_becomes_a_row_in_utc_under_a_pseudonym() -> None:
    (row,) = check(Kind.EVENTS, line(CLICK))
    assert row["rule"] is None and row["raw"] is None
    assert row["event_ts"] == datetime(2026, 1, 1, tzinfo=UTC)
    assert row["created_ts"] == row["event_ts"]
    assert (row["shopper_key"], row["is_anonymous"], row["key_id"]) == (PSEUDONYMS.key("s-1"), False, PSEUDONYMS.key_id)


def test_an_anonymous_event_is_marked_as_such() -> None:
    (row,) = check(Kind.EVENTS, line(CLICK, shopper_id=..., anonymous_id="cookie"))
    assert (row["shopper_key"], row["is_anonymous"]) == (PSEUDONYMS.key("cookie", anonymous=True), True)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"event_id": ""}, "event_id.string_too_short"),
        ({"event_id": ...}, "event_id.missing"),
        ({"event_ts": "2026-01-01T08:00:00"}, "event_ts.timezone_aware"),
        ({"event_ts": "2026-02-01T00:11:00Z"}, "event_ts.in_future"),
        ({"event_ts": "20260101"}, "event_ts.rfc3339"),
        ({"event_ts": 1767225600}, "event_ts.rfc3339"),
        ({"created_ts": "1767225600.5"}, "created_ts.rfc3339"),
        ({"type": "nonsense"}, "type.enum"),
        ({"product_id": ...}, "record.value_error"),
        ({"shopper_id": ...}, "record.value_error"),
        ({"propensity": 0}, "propensity.greater_than"),
        ({"position": 1.5}, "position.int_from_float"),
    ],
)
def test_an_event_that_breaks_a_rule_is_refused_by_its_name(changes: dict[str, Any], rule: str) -> None:
    (row,) = check(Kind.EVENTS, line(CLICK, **changes))
    assert row["rule"] == rule
    assert row["event_id"] is None
    assert row["message"]


def test_a_clock_within_the_tolerance_is_believed() -> None:
    (row,) = check(Kind.EVENTS, line(CLICK, event_ts="2026-02-01T00:09:00Z"))
    assert row["rule"] is None


def test_what_is_said_of_a_clock_does_not_depend_on_when_the_ingest_ran() -> None:
    records = [RawRecord(0, line(CLICK, event_ts="2126-01-01T00:00:00+08:00"))]
    one, other = (Checker(Kind.EVENTS, PSEUDONYMS, NOW + timedelta(hours=hours)).check(records, 0).to_pylist() for hours in (0, 5))
    assert one == other
    assert "2126-01-01T00:00:00+08:00" in one[0]["message"]


def test_a_refused_event_keeps_its_original_but_not_the_shoppers_id() -> None:
    (row,) = check(Kind.EVENTS, line(CLICK, shopper_id="secret-17", type="nonsense"))
    assert b"secret-17" not in row["raw"]
    assert json.loads(row["raw"]) == CLICK | {"type": "nonsense", "shopper_id": f"hmac:{PSEUDONYMS.key('secret-17')}"}


def test_a_message_does_not_repeat_a_shopper_id() -> None:
    (row,) = check(Kind.EVENTS, line(CLICK, shopper_id="secret" * 40))
    assert row["rule"] == "shopper_id.string_too_long"
    assert "secret" not in row["message"]


def test_an_event_from_parquet_follows_the_same_rules() -> None:
    fine = CLICK | {"event_ts": datetime(2026, 1, 1, tzinfo=UTC), "position": None}
    good, bad = check(Kind.EVENTS, fine, fine | {"event_ts": datetime(2026, 1, 1)})
    assert good["rule"] is None
    assert bad["rule"] == "event_ts.timezone_aware"
    assert json.loads(bad["raw"])["shopper_id"] == f"hmac:{PSEUDONYMS.key('s-1')}"


def test_what_the_inbox_holds_is_not_keyed_twice() -> None:
    made = PSEUDONYMS.pseudonymize(Event.model_validate(CLICK))
    good, bad = check(Kind.EVENTS, made.model_dump_json(exclude_none=True).encode(), line(CLICK), from_inbox=True)
    assert good["shopper_key"] == PSEUDONYMS.key("s-1")
    assert bad["rule"] == "shopper_key.missing"


def test_a_products_attributes_get_canonical_names_and_columns() -> None:
    (row,) = check(Kind.CATALOGUE, line(PRODUCT, attributes={"颜色": "红", "Color": "red", "Material": ["oak", "steel"], "legs": 4}))
    assert (row["colour"], row["material"], row["size"]) == ("红", "oak/steel", None)
    assert json.loads(row["attributes_json"]) == {"colour": "红", "material": ["oak", "steel"], "legs": 4}


def test_csv_cells_make_the_same_product_as_json() -> None:
    cells = PRODUCT | {"price_minor": "1999", "attributes": '{"colour": "red"}', "facts": None, "images": "a.jpg; b.jpg", "brand": None}
    as_json = line(PRODUCT, price_minor=1999, attributes={"colour": "red"}, images=["a.jpg", "b.jpg"])
    one, other = check(Kind.CATALOGUE, cells, as_json)
    assert one["rule"] is None and one["row_sha256"] == other["row_sha256"]


def test_images_are_called_as_the_folder_calls_them() -> None:
    one, other = check(Kind.CATALOGUE, PRODUCT | {"images": "./a.jpg;b/c.jpg"}, line(PRODUCT, images=["./a.jpg", "b/c.jpg"]))
    assert one["images"] == other["images"] == ["a.jpg", "b/c.jpg"]


def test_attributes_that_are_no_json_are_refused() -> None:
    (row,) = check(Kind.CATALOGUE, PRODUCT | {"attributes": "red, oak"})
    assert row["rule"] == "attributes.dict_type"


def test_a_shopper_in_csv_is_quarantined_under_a_pseudonym() -> None:
    (row,) = check(Kind.SHOPPERS, {"shopper_id": "secret-17", "height_cm": "tall"})
    assert row["rule"] == "height_cm.float_parsing"
    assert b"secret-17" not in row["raw"]


@pytest.mark.parametrize("row", ['e-1,secret-7,"trailing"x', "e-1,,secret-7,extra,2026-01-01T00:00:00Z", '"secret-7', "secret-7"])
def test_a_line_of_csv_that_is_no_row_keeps_no_shoppers_id(tmp_path: Path, row: str) -> None:
    (tmp_path / "e.csv").write_text(f"event_id,shopper_id,query\n{row}\n")
    (chunk,) = chunks_of(record_files(Kind.EVENTS, (str(tmp_path),), S3Options()), 1 << 20, S3Options())
    ((refused,),) = [table.to_pylist() for table in checked_tables(chunk, Checker(Kind.EVENTS, PSEUDONYMS, NOW), S3Options()) if table.num_rows]
    assert refused["rule"].startswith("csv.")
    assert b"secret-7" not in refused["raw"] and "secret-7" not in refused["message"]
    assert PSEUDONYMS.key("secret-7").encode() in refused["raw"], "so that forgetting finds it"


def test_a_review_keeps_its_shopper_by_pseudonym_only() -> None:
    (row,) = check(Kind.REVIEWS, {"review_id": "r", "product_id": "p", "shopper_id": "secret-17", "ts": "2026-01-01T00:00:00Z", "rating": "4.5"})
    assert (row["shopper_key"], row["rating"]) == (PSEUDONYMS.key("secret-17"), 4.5)
    assert b"secret-17" not in row["raw"]


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=4).map(lambda x: json.dumps(x).encode()),
        )
    )
)
def test_any_bytes_come_out_as_one_row_each(lines: list[bytes]) -> None:
    for kind in (Kind.EVENTS, Kind.CATALOGUE, Kind.SHOPPERS, Kind.REVIEWS):
        checked: pa.Table = Checker(kind, PSEUDONYMS, NOW).check([RawRecord(number, text) for number, text in enumerate(lines)], 3)
        assert checked.schema == staged_schema(kind)
        assert sorted(checked["offset"].to_pylist()) == list(range(len(lines)))
        assert checked["rule"].null_count == 0


@given(
    st.dictionaries(
        st.sampled_from(sorted(Event.model_fields)), st.none() | st.text() | st.integers() | st.floats() | st.sampled_from(["click", "2026-01-01T00:00:00Z"])
    )
)
def test_any_event_object_comes_out_as_one_row(record: dict[str, Any]) -> None:
    assert len(check(Kind.EVENTS, line(CLICK | record), CLICK | record)) == 2
