"""Events checked as columns and events judged one by one by the model: the same rows, refusals and values, whatever comes."""

import json
import os
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AfterValidator, Field, model_validator

from guidelens.config import S3Options
from guidelens.data.pseudonyms import Pseudonymizer
from guidelens.data.records.column_checks import event_contract
from guidelens.data.records.event_columns import EventColumns
from guidelens.data.records.json_lines import PlainLineReader
from guidelens.data.records.raw_records import RawRecord
from guidelens.data.records.reading import Lines, read_chunk
from guidelens.data.records.remarks import SKEWED, count_remarks
from guidelens.data.records.sources import Kind, chunks_of, record_files
from guidelens.data.records.validation import Checker, checked_tables, staged_schema
from guidelens.schemas.base import Record
from guidelens.schemas.events import Event
from guidelens.schemas.fields import contract_of

S3 = S3Options()
PSEUDONYMS = Pseudonymizer(b"k" * 32)
NOW = datetime(2026, 2, 1, tzinfo=UTC)
TIME = "2026-01-01T08:00:00.250000+08:00"
CLICK = {"event_id": "e-1", "event_ts": TIME, "shopper_id": "s-1", "session_id": "x", "type": "click", "product_id": "p-1"}
EVENTS: list[dict[str, Any]] = [
    CLICK,
    {**CLICK, "type": "impression", "request_id": "q", "position": 3, "propensity": 0.0058506, "browse_ms": 1249.0, "release": "7"},
    {**CLICK, "type": "search", "query": "红色的 chair 😀", "frame_id": "frames/a.jpg", "created_ts": "2026-01-01T00:00:01Z", "channel": "mini_program"},
    {**CLICK, "type": "ar_gesture", "gesture": "walk_around", "device": "ar+front", "anonymous_id": "cookie-7"},
    {**CLICK, "type": "guide_step", "step": "show_3d", "step_index": 0, "step_propensity": 1},
    {**CLICK, "type": "purchase", "value_minor": 129900, "shopper_id": None, "anonymous_id": "cookie-7"},
    {**CLICK, "type": "view", "stay_ms": 12.5, "depth": 4, "rating": 4.5, "note": "of another team", "context": {"ip": "10.0.0.1", "tags": ["a", 1]}},
]


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.to_pylist()
    return sorted(rows, key=lambda row: row["offset"])


def judged_alike(file: Path, checker: Checker | None = None, chunk_bytes: int = 1 << 20) -> list[dict[str, Any]]:
    """A file's staged rows as ingest makes them, once they have been seen to be those that the model alone makes."""
    checker = checker or Checker(Kind.EVENTS, PSEUDONYMS, NOW)
    chunks = chunks_of(record_files(Kind.EVENTS, (str(file),), S3), chunk_bytes, S3)
    fast = [table for chunk in chunks for table in checked_tables(chunk, checker, S3)]
    slow = [checker.check(records, chunk.source) for chunk in chunks for records in read_chunk(chunk, S3)]
    empty = staged_schema(Kind.EVENTS).empty_table()
    rows = rows_of(pa.concat_tables([empty, *fast]))
    pairs = zip(rows, rows_of(pa.concat_tables([empty, *slow])), strict=True)
    differences = [(one["offset"], name, one[name], other[name]) for one, other in pairs for name in one if repr(one[name]) != repr(other[name])]
    assert differences == []
    return rows


def jsonl(file: Path, *lines: bytes | dict[str, Any]) -> Path:
    file.write_bytes(b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines))
    return file


def num_certain(data: bytes) -> int:
    return EventColumns(NOW, False, {}).sort(Lines(0, data)).certain.height


def test_plain_events_of_every_kind_need_no_model(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "e.jsonl", *EVENTS)
    rows = judged_alike(file)
    assert [row["rule"] for row in rows] == [None] * len(EVENTS)
    assert num_certain(file.read_bytes()) == len(EVENTS)


@pytest.mark.parametrize(
    "written",
    [
        lambda event: json.dumps(event, ensure_ascii=False),
        lambda event: json.dumps(event, separators=(",", ":")),
        lambda event: json.dumps({**dict.fromkeys(Event.model_fields), **event}),
        lambda event: "\t" + json.dumps(event) + " \r",
        lambda event: json.dumps(dict(reversed(event.items()))),
        lambda event: json.dumps(event).replace("/", "\\/"),
    ],
    ids=["utf-8", "compact", "every null", "crlf", "other order", "php slashes"],
)
def test_events_as_any_writer_spells_them_need_no_model(tmp_path: Path, written: Callable[[dict[str, Any]], str]) -> None:
    file = jsonl(tmp_path / "e.jsonl", *(written(event).encode() for event in EVENTS))
    judged_alike(file)
    assert num_certain(file.read_bytes()) == len(EVENTS)


ODD_VALUES: list[str] = [
    *(
        "null",
        "true",
        "false",
        '"true"',
        '""',
        '" "',
        '"x"',
        '" x"',
        '"x\\u3000"',
        '"\\u00a0x"',
        '"x\\n"',
        '"a\\u0000b"',
        '"a\\u0085b"',
        '"a\u0085b"',
        '"\u2028"',
    ),
    *(
        '"\\ud83d\\ude00"',
        '"\\ud83d"',
        '"\\ude00\\ud83d"',
        '"\\u202eabc"',
        '"e\u0301"',
        '"😀"',
        '"中文"',
        '":x"',
        '"a\\"b"',
        '"a\\\\b"',
        '"\\/"',
        '"\ufeffx"',
        '"\x7f"',
    ),
    *(
        "0",
        "-0",
        "-0.0",
        "1",
        "-1",
        "3",
        "3.0",
        "3.5",
        "1e2",
        "1E2",
        "1e-400",
        "1e400",
        "0.1e1",
        "01",
        "1.",
        ".5",
        "+1",
        "1_000",
        '"1_000"',
        '"3"',
        '" 3 "',
        '"3.0"',
    ),
    *("9007199254740993", "12345678901234567890", "123456789012345678901234567890", "-9223372036854775809", "2147483648", "10000000001", "86400000.0001"),
    *("0.1000000000000000055511151231257827", "5e-324", "NaN", "Infinity", "-Infinity", '"NaN"', '"inf"', "1.0000000000000000000001"),
    *(
        "[]",
        "{}",
        "[1]",
        '{"a": 1}',
        '{"event_id": "other"}',
        '[{"type": "cart"}]',
        '"click"',
        '"cart"',
        '"CLICK"',
        '"impression "',
        '"none"',
        '"tap"',
        '"app"',
    ),
    *(f'"{"x" * 64}"', f'"{"x" * 65}"', f'"{"x" * 128}"', f'"{"x" * 129}"', f'"{"中" * 128}"', f'"{"中" * 129}"', f'"{"😀" * 64}"', f'"{"x" * 2001}"'),
    *(
        '"2026-01-01T00:00:00Z"',
        '"2026-01-01T00:00:00z"',
        '"2026-01-01t00:00:00Z"',
        '"2026-01-01 00:00:00+00:00"',
        '"2026-01-01T00:00:00"',
        '"2026-01-01T00:00Z"',
    ),
    *('"2026-01-01T00:00:00.1234567Z"', '"2026-01-01T00:00:00.999999999Z"', '"2025-12-31T23:59:60Z"', '"2025-02-29T00:00:00Z"', '"2025-02-30T00:00:00Z"'),
    *('"2026-01-01T24:00:00Z"', '"2026-01-01T00:00:00+14:00"', '"2026-01-01T00:00:00-14:59"', '"2026-01-01T00:00:00+15:00"', '"2026-01-01T00:00:00+0800"'),
    *(
        '"2026-01-01T00:00:00-00:00"',
        '"2026-00-01T00:00:00Z"',
        '"2026-01-00T00:00:00Z"',
        '"2026-01-01T00:00:00,5Z"',
        '"2026-W01-1T00:00:00Z"',
        '"20260101T000000Z"',
    ),
    *(
        '"0001-01-01T00:00:00+08:00"',
        '"9999-12-31T23:59:59-08:00"',
        '"1969-12-31T23:59:59Z"',
        '"1970-01-01T00:00:00+00:01"',
        '"2199-12-31T23:59:59Z"',
        '"2262-04-12T00:00:00Z"',
    ),
    *(
        '"2026-02-01T00:10:00Z"',
        '"2026-02-01T00:10:00.000001Z"',
        '"2026-02-01T00:09:59Z"',
        '"2025-12-31T23:50:00.250000Z"',
        '"2025-12-31T23:50:00.249999Z"',
        "1767225600",
        '"1767225600"',
    ),
]


def test_every_field_with_every_odd_value_is_judged_alike(tmp_path: Path) -> None:
    lines = []
    for event in (CLICK, EVENTS[1], EVENTS[4]):
        for name in [*Event.model_fields, "unknown", "shopper_key"]:
            rest = json.dumps({key: value for key, value in event.items() if key != name})[:-1]
            lines += [f'{rest}, "{name}": {value}}}'.encode() for value in ODD_VALUES]
    rows = judged_alike(jsonl(tmp_path / "e.jsonl", *lines))
    assert len(rows) == len(lines)


@pytest.mark.parametrize("name", ["position", "event_id", "type", "event_ts", "shopper_id", "note"])
@pytest.mark.parametrize(("one", "other"), [("3", "4"), ('"a"', '"b"'), ("null", '"b"'), ('"b"', "null"), ("null", "null"), ("3", '"x"'), (f'"{TIME}"', "1")])
def test_of_a_field_given_twice_the_last_one_counts(tmp_path: Path, name: str, one: str, other: str) -> None:
    rest = {key: value for key, value in EVENTS[1].items() if key != name}
    lines = [f'{{"{name}": {first}, {json.dumps(rest)[1:-1]}, "{name}": {second}}}'.encode() for first, second in ((one, other), (other, one))]
    twice = judged_alike(jsonl(tmp_path / "e.jsonl", *lines, json.dumps({**EVENTS[1], "depth": None}).encode()))
    once = judged_alike(jsonl(tmp_path / "o.jsonl", *(f'{{{json.dumps(rest)[1:-1]}, "{name}": {last}}}'.encode() for last in (other, one))))
    said = [[{key: row[key] for key in row if key not in ("offset", "raw")} for row in rows] for rows in (twice[:2], once)]
    assert said[0] == said[1]


def test_lines_that_are_no_events_keep_their_place_among_those_that_are(tmp_path: Path) -> None:
    odd = [
        b"",
        b"  ",
        b"\r",
        b"null",
        b"[]",
        b'"x"',
        b"{",
        b"{}",
        b"\xff\xfe",
        b'{"event_id": "\xff"}',
        b"\xef\xbb\xbf{}",
        b"x" * 2_000_000,
        b"[" * 5000,
        b"\x00",
    ]
    plain = [json.dumps(event).encode() for event in EVENTS]
    lines = [line for pair in zip(odd, plain * 2, strict=True) for line in pair]
    rows = judged_alike(jsonl(tmp_path / "e.jsonl", b"\xef\xbb\xbf" + plain[0], *lines), chunk_bytes=3_000_000)
    text = (tmp_path / "e.jsonl").read_bytes()
    for row in rows:
        line = text[row["offset"] : text.index(b"\n", row["offset"])].rstrip(b"\r")
        line = line if row["offset"] else line.removeprefix(b"\xef\xbb\xbf")
        assert row["raw"] is None or row["rule"] == "record.too_long" or row["raw"] == PSEUDONYMS.scrub(line)


@pytest.mark.parametrize("chunk_bytes", [100, 1000])
def test_chunks_of_any_size_give_the_same_rows(tmp_path: Path, chunk_bytes: int) -> None:
    file = jsonl(tmp_path / "e.jsonl", *EVENTS, b"", b"nonsense", *EVENTS)
    assert judged_alike(file, chunk_bytes=chunk_bytes) == judged_alike(file)


_TOKENS = [value.encode() for value in ODD_VALUES] + [f'"{name}"'.encode() for name in Event.model_fields] + [b",", b":", b"{", b"}", b'"', b"\\", b" ", b"\n"]


def _mutated(rng: random.Random, line: bytes) -> bytes:
    """The line with one to three accidents: bytes changed, cut, doubled, or tokens put in their place."""
    for _ in range(rng.randint(1, 3)):
        start = rng.randrange(len(line) + 1)
        stop = min(len(line), start + rng.choice([0, 1, 1, 2, 5, 20]))
        accident = rng.random()
        if accident < 0.4:
            line = line[:start] + rng.choice(_TOKENS) + line[stop:]
        elif accident < 0.6:
            line = line[:start] + bytes([rng.randrange(256)]) + line[stop:]
        elif accident < 0.8:
            line = line[:start] + line[stop:]
        else:
            line = line[:stop] + line[start:]
    return line


def _with_another_value(rng: random.Random, event: dict[str, Any]) -> bytes:
    chosen = rng.sample([*Event.model_fields, "unknown", "shopperId"], rng.randint(1, 3))
    pairs = [f'"{name}": {json.dumps(value)}' for name, value in event.items() if name not in chosen or rng.random() < 0.1]
    pairs += [f'"{name}": {rng.choice(ODD_VALUES)}' for name in chosen]
    rng.shuffle(pairs)
    return ("{" + ", ".join(pairs) + "}").encode()


def test_tens_of_thousands_of_broken_events_are_judged_alike(tmp_path: Path) -> None:
    """20,000 (10 times as many under `make drill`): no crash, none accepted that the model refuses, each refused one kept and still refused."""
    rng, number = random.Random(0), 20_000 * (10 if os.environ.get("GUIDELENS_DRILL") else 1)
    lines = [
        _mutated(rng, json.dumps(rng.choice(EVENTS)).encode()) if rng.random() < 0.5 else _with_another_value(rng, rng.choice(EVENTS)) for _ in range(number)
    ]
    rows = judged_alike(jsonl(tmp_path / "e.jsonl", *lines))
    refused = [row for row in rows if row["rule"] is not None]
    assert len(rows) >= number and len(refused) > number // 4 and all(row["raw"] for row in refused)
    again = Checker(Kind.EVENTS, PSEUDONYMS, NOW, replayed=True).check([RawRecord(row["offset"], row["raw"]) for row in refused], 0).to_pylist()
    assert [row for row in again if row["rule"] is None] == []


_values = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["click", TIME, "x" * 129, "s ", 3, 3.0])


@given(st.lists(st.dictionaries(st.sampled_from([*Event.model_fields, "unknown"]), _values, max_size=4), max_size=5), st.booleans())
@settings(max_examples=50)
def test_any_values_are_judged_alike(tmp_path_factory: pytest.TempPathFactory, changes: list[dict[str, Any]], ascii_only: bool) -> None:
    lines = [json.dumps(rng_event | change, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass") for change in changes for rng_event in (CLICK, EVENTS[1])]
    judged_alike(jsonl(tmp_path_factory.mktemp("any") / "e.jsonl", *lines))


# Rows of Parquet and CSV.


def parquet(file: Path, columns: dict[str, Any], row_group_size: int = 4) -> Path:
    pq.write_table(pa.table(columns), file, row_group_size=row_group_size)
    return file


def test_ids_that_are_whole_numbers_are_their_digits_in_every_format(tmp_path: Path) -> None:
    ids = {"event_id": 10**15 + 1, "shopper_id": 7, "session_id": 0, "product_id": 42}
    texts = judged_alike(jsonl(tmp_path / "t.jsonl", {**CLICK, **{name: str(value) for name, value in ids.items()}}))
    line = json.dumps({**CLICK, **ids}).encode() + b"\n"
    assert judged_alike(jsonl(tmp_path / "n.jsonl", line)) == texts
    assert num_certain(line) == 1, "numbers need no model either"
    numbers = columns_of([{**CLICK, **ids}], event_ts=pa.string())
    assert judged_alike(parquet(tmp_path / "n.parquet", numbers)) == texts


def test_ids_that_are_floats_are_refused_with_a_remedy(tmp_path: Path) -> None:
    (row,) = judged_alike(parquet(tmp_path / "f.parquet", columns_of([{**CLICK, "product_id": 42.0}])))
    assert (row["rule"], "export them as text" in row["message"]) == ("product_id.id_type", True)


def columns_of(events: list[dict[str, Any]], **types: pa.DataType) -> dict[str, pa.Array]:
    names = {name: None for event in events for name in event}
    return {name: pa.array([event.get(name) for event in events], types.get(name)) for name in names}


UTC_MICROS = pa.timestamp("us", "UTC")
TIMES = [datetime(2026, 1, 1, 0, 0, second, 123456, tzinfo=UTC) for second in range(6)]


def typed_events(number: int = 6) -> dict[str, Any]:
    events = [{**EVENTS[row], "event_id": f"e-{row}"} for row in range(number)]
    return columns_of(events, context=pa.string(), note=pa.string()) | {"event_ts": pa.array(TIMES[:number], UTC_MICROS)}


def certain_rows(file: Path) -> int:
    from guidelens.data.records.reading import read_blocks

    columns = EventColumns(NOW, False, {})
    chunks = chunks_of(record_files(Kind.EVENTS, (str(file),), S3), 1 << 20, S3)
    return sum(columns.sort(block).certain.height for chunk in chunks for block in read_blocks(chunk, S3))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"type": lambda old: old.dictionary_encode()},
        {"event_id": lambda old: old.cast(pa.large_string()), "session_id": lambda old: old.cast(pa.string_view())},
        {"position": lambda old: pa.array([None, 1.0, 3.0, None, 5.0, None])},
        {"position": lambda old: pa.array([None, 1, 3, None, 5, None], pa.uint8())},
        {"event_ts": lambda old: old.cast(pa.timestamp("ms", "Asia/Shanghai"), safe=False)},
        {"event_ts": lambda old: old.cast(pa.timestamp("s", "-05:30"), safe=False)},
        {"event_ts": lambda old: pa.array([value.as_py().isoformat() for value in old])},
        {"propensity": lambda old: pa.array([0.1, None, 0.5, 1.0, None, 0.25], pa.float32())},
        {"depth": lambda old: pa.nulls(6), "extra": lambda old: pa.array([[{"a": 1}], None, [], [], [], None])},
        {"browse_ms": lambda old: pa.array([1, 2, 3, 4, 5, None], pa.int16())},
    ],
)
def test_parquet_of_any_sensible_types_needs_no_model(tmp_path: Path, changes: dict[str, Callable[[Any], Any]]) -> None:
    columns = typed_events()
    columns |= {name: change(columns.get(name)) for name, change in changes.items()}
    file = parquet(tmp_path / "e.parquet", columns)
    rows = judged_alike(file)
    assert [(row["offset"], row["rule"]) for row in rows] == [(number, None) for number in range(6)]
    assert certain_rows(file) == 6


@pytest.mark.parametrize(
    "changes",
    [
        {"event_ts": pa.array([time.replace(tzinfo=None) for time in TIMES])},
        {"event_ts": pa.array([time.date() for time in TIMES])},
        {"event_ts": pa.array([1_767_225_600] * 6)},
        {"event_ts": pa.array([1_767_225_600_123_456_789 + row for row in range(6)], pa.timestamp("ns", "UTC"))},
        {"event_ts": pa.array([10**15, -(10**15), 0, -1, 10**12, None], pa.timestamp("s", "UTC"))},
        {"event_ts": pa.array([2**62, -(2**62), 0, -1, 10**15, None], pa.timestamp("us", "UTC"))},
        {"event_ts": pa.array([0] * 6, pa.timestamp("us", "Nowhere/Special"))},
        {"position": pa.array([1.5, float("nan"), float("inf"), -0.0, 1e300, 2.0])},
        {"position": pa.array([True, False, None, True, True, True])},
        {"position": pa.array(["1", " 2", "3.0", "", "x", None])},
        {"position": pa.array([Decimal(1), Decimal(2), None, Decimal(4), Decimal(5), Decimal(6)])},
        {"value_minor": pa.array([2**64 - 1, 1, 0, None, 10**10, 10**10 + 1], pa.uint64())},
        {"browse_ms": pa.array([2**53 + 1, -1, 0, 86_400_000, 86_400_001, None])},
        {"browse_ms": pa.array([float("nan"), float("inf"), -0.0, 5e-324, 86_400_000.1, None])},
        {"propensity": pa.array([0.1, float("nan"), 0.0, 1.0000001, float("inf"), 1e-30], pa.float32())},
        {"event_id": pa.array([1, 2, 3, 4, 5, 6])},
        {"event_id": pa.array([b"a", b"b", b"\xff", b"", None, b"f"])},
        {"event_id": pa.array([" a", "b ", "c\x00", "", "x" * 129, "中" * 128])},
        {"type": pa.array(["click", "CLICK", "click ", "", None, "view"]).dictionary_encode()},
        {"shopper_id": pa.array([{"id": 1}] * 6)},
        {"gesture": pa.array([["tap"]] * 6)},
        {"shopper_id": pa.array([None] * 6), "anonymous_id": pa.array(["a", None, " ", "b", "c", "d"])},
        {"unknown": pa.array([float("nan")] * 6), "shopperId": pa.array(["a", None] * 3)},
        {"attributes": pa.array([[("a", 1)]] * 6, pa.map_(pa.string(), pa.int64())), "when": pa.array([0] * 6, pa.duration("s"))},
    ],
)
def test_parquet_of_any_types_is_judged_alike(tmp_path: Path, changes: dict[str, pa.Array]) -> None:
    rows = judged_alike(parquet(tmp_path / "e.parquet", typed_events() | changes))
    assert [row["offset"] for row in rows] == list(range(6))
    assert all(row["raw"] for row in rows if row["rule"])


def test_naive_times_are_refused_with_a_reason(tmp_path: Path) -> None:
    rows = judged_alike(parquet(tmp_path / "e.parquet", typed_events() | {"event_ts": pa.array([time.replace(tzinfo=None) for time in TIMES])}))
    assert {row["rule"] for row in rows} == {"event_ts.timezone_aware"}


def test_two_columns_of_one_name_are_refused_and_lose_nothing(tmp_path: Path) -> None:
    table = pa.table([*typed_events().values(), pa.array(["a"] * 6)], names=[*typed_events(), "event_id"])
    pq.write_table(table, tmp_path / "e.parquet")
    rows = judged_alike(tmp_path / "e.parquet")
    assert [row["rule"] for row in rows] == ["parquet.columns"] * 6


def csv_text(events: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for event in events for name in event if name != "context"))
    quoted = ['"{}"'.format(str("" if event.get(name) is None else event[name]).replace('"', '""')) for event in events for name in names]
    rows = [",".join(quoted[start : start + len(names)]) for start in range(0, len(quoted), len(names))]
    return "\n".join([",".join(names), *rows]) + "\n"


def test_events_come_in_csv_too(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text(csv_text(EVENTS), encoding="utf-8")
    rows = judged_alike(tmp_path / "e.csv")
    assert [(row["offset"], row["rule"]) for row in rows] == [(number, None) for number in range(len(EVENTS))]
    assert certain_rows(tmp_path / "e.csv") == len(EVENTS)


def test_odd_cells_of_csv_are_judged_alike(tmp_path: Path) -> None:
    odd = [json.loads(value) if value.startswith('"') and "\\ud" not in value.lower() else value for value in ODD_VALUES]
    events = [{**event, name: value} for event in (CLICK, EVENTS[1]) for name in [*Event.model_fields, "unknown"] for value in odd if "\x00" not in str(value)]
    text = csv_text(events).encode("utf-8", "surrogatepass") + b"too,few\n" + b'"\xff"' + b",x" * 40 + b"\n"
    (tmp_path / "e.csv").write_bytes(text)
    rows = judged_alike(tmp_path / "e.csv")
    assert len(rows) == len(events) + 2


# Renamed fields, and the model as the one definition.


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "csv"])
def test_a_renamed_field_is_read_as_what_it_is_now_called(tmp_path: Path, suffix: str) -> None:
    events = [{("uid" if name == "shopper_id" else name): value for name, value in event.items()} for event in (CLICK, EVENTS[1], EVENTS[2])]
    both = [{**CLICK, "uid": "s-2"}]
    checker = Checker(Kind.EVENTS, PSEUDONYMS, NOW, renamed={"uid": "shopper_id", "titel": "title"})
    file = tmp_path / f"e.{suffix}"
    if suffix == "jsonl":
        jsonl(file, *events, *both)
    elif suffix == "parquet":
        parquet(file, columns_of([*events, *both]))
    else:
        file.write_text(csv_text([*events, *both]), encoding="utf-8")
    rows = judged_alike(file, checker)
    assert [(row["rule"], row["remarks"]) for row in rows] == [(None, None)] * 3 + [("shopper_id.renamed_twice", None)]
    assert rows[0]["shopper_key"] == PSEUDONYMS.key("s-1")
    assert b"s-1" not in rows[3]["raw"] and b"s-2" not in rows[3]["raw"]


def test_unknown_fields_are_ignored_but_named(tmp_path: Path) -> None:
    lines = [{**CLICK, "note": "x"}, {**CLICK, "note": None}, {**CLICK, "zone": {"a": 1}, "note": 1}, {**CLICK, "note": "x", "type": "nonsense"}, CLICK]
    rows = judged_alike(jsonl(tmp_path / "e.jsonl", *lines))
    noted = ["unknown field note", None, "unknown field note\nunknown field zone", "unknown field note", None]
    assert [row["remarks"] for row in rows] == noted
    assert count_remarks(pa.chunked_array([noted])) == {"unknown field note": 3, "unknown field zone": 1}


def test_an_event_known_before_it_happened_is_taken_and_remarked_on(tmp_path: Path) -> None:
    times = {"event_ts": "2026-01-01T12:00:00Z"}
    lines = [{**CLICK, **times, "created_ts": f"2026-01-01T11:{minute}Z"} for minute in ("50:00", "49:59")]
    rows = judged_alike(jsonl(tmp_path / "e.jsonl", *lines, {**CLICK, **times, "created_ts": "2026-01-01T00:00:00Z", "note": 1}))
    assert [(row["rule"], row["remarks"]) for row in rows] == [(None, None), (None, SKEWED), (None, f"unknown field note\n{SKEWED}")]


def test_what_the_inbox_holds_is_judged_alike(tmp_path: Path) -> None:
    stored = [PSEUDONYMS.pseudonymize(Event.model_validate({**event, "event_id": f"e-{row}"})) for row, event in enumerate(EVENTS)]
    lines = [event.model_dump_json(exclude_none=True).encode() for event in stored]
    bad = [lines[0].replace(b'"is_anonymous":false', b'"is_anonymous":%s' % value) for value in (b"1", b'"no"', b"null", b"2")]
    rows = judged_alike(jsonl(tmp_path / "e.jsonl", *lines, *bad, json.dumps(CLICK).encode()), Checker(Kind.EVENTS, PSEUDONYMS, NOW, from_inbox=True))
    assert [row["rule"] for row in rows[: len(lines)]] == [None] * len(lines)
    assert EventColumns(NOW, True, {}).sort(Lines(0, b"\n".join(lines))).certain.height == len(lines)


class _Wider(Event):
    level: Annotated[int, Field(ge=0)] | None = None


def test_a_field_added_to_the_model_is_read_and_checked_without_more_code() -> None:
    reader = PlainLineReader(contract_of(_Wider), {}, 1000)
    read = reader.read(json.dumps({**CLICK, "level": 3}).encode())
    assert read.frame["level"].to_list() == [3]


@pytest.mark.parametrize(
    "asked", [list[str], Decimal, Annotated[int, Field(multiple_of=2)], Annotated[str, AfterValidator(str.upper)], dict[str, int], timedelta]
)
def test_a_field_that_no_check_can_be_made_of_is_an_error(asked: Any) -> None:
    made = type("Made", (Record,), {"__annotations__": {"field": asked | None}})
    with pytest.raises(TypeError, match=r"Made.field (asks|has)"):
        contract_of(made)


def test_a_rule_over_fields_that_no_check_can_be_made_of_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stricter(Event):
        @model_validator(mode="after")
        def _never(self) -> "Stricter":
            raise ValueError("no")

    monkeypatch.setattr("guidelens.data.records.column_checks.Event", Stricter)
    with pytest.raises(TypeError, match="_never"):
        event_contract(from_inbox=False)
