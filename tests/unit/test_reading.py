"""Every record of a file is read exactly once, whatever the chunks, and nothing in a file stops the reading."""

import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guidelens.config import S3Options
from guidelens.data.records import reading
from guidelens.data.records.raw_records import MAX_RECORD_BYTES, RawRecord
from guidelens.data.records.reading import read_chunk
from guidelens.data.records.sources import IngestSources, Kind, chunks_of, record_files
from guidelens.errors import InputError

S3 = S3Options()


def records(path: Path, kind: Kind = Kind.EVENTS, chunk_bytes: int = 16 << 20) -> list[RawRecord]:
    files = record_files(kind, (str(path),), S3)
    return [record for chunk in chunks_of(files, chunk_bytes, S3) for batch in read_chunk(chunk, S3) for record in batch]


@given(lines=st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line)), chunk_bytes=st.integers(1, 40), ends=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_chunks_of_any_size_hold_each_line_once(tmp_path: Path, lines: list[bytes], chunk_bytes: int, ends: bool) -> None:
    file = tmp_path / "e.jsonl"
    file.write_bytes(b"\n".join(lines) + (b"\n" if ends else b""))
    whole, cut = records(file), records(file, chunk_bytes=chunk_bytes)
    assert cut == whole
    assert [record.raw for record in whole] == [
        kept
        for kept in ((line.removeprefix(b"\xef\xbb\xbf") if not number else line).rstrip(b"\r") for number, line in enumerate(lines))
        if line_is_record(kept)
    ]


@given(lengths=st.lists(st.integers(1, 60), max_size=12), chunk_bytes=st.integers(1, 80))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_lines_longer_than_a_block_and_than_a_record_are_read_once_too(tmp_path: Path, lengths: list[int], chunk_bytes: int) -> None:
    (tmp_path / "e.jsonl").write_bytes(b"".join(b"x" * length + b"\n" for length in lengths))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(reading, "_BLOCK_BYTES", 16)
        patched.setattr(reading, "MAX_RECORD_BYTES", 20)
        found = records(tmp_path, chunk_bytes=chunk_bytes)
    starts = [sum(length + 1 for length in lengths[:number]) for number in range(len(lengths))]
    assert [(record.offset, record.problem is not None) for record in found] == [(at, length + 1 > 20) for at, length in zip(starts, lengths, strict=True)]


def line_is_record(line: bytes) -> bool:
    return bool(line.strip())


def test_offsets_say_where_a_line_begins(tmp_path: Path) -> None:
    (tmp_path / "e.jsonl").write_bytes(b'{"a":1}\n\n{"b":2}\n')
    assert [(record.offset, record.raw) for record in records(tmp_path)] == [(0, b'{"a":1}'), (9, b'{"b":2}')]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_lines_read_like_plain_ones(tmp_path: Path, suffix: str) -> None:
    plain = b"".join(b'{"n": %d}\n' % number for number in range(2000))
    pack = gzip.compress if suffix == ".gz" else zstandard.ZstdCompressor().compress
    (tmp_path / f"e.jsonl{suffix}").write_bytes(pack(plain[:9000]) + pack(plain[9000:]))
    assert b"\n".join(record.raw for record in records(tmp_path)) + b"\n" == plain


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_cut_off_compressed_file_gives_its_lines_and_one_problem(tmp_path: Path, suffix: str) -> None:
    plain = b"".join(b'{"n": "%s"}\n' % bytes(f"{number * 7919:x}", "ascii") for number in range(50_000))
    packed = gzip.compress(plain) if suffix == ".gz" else zstandard.ZstdCompressor().compress(plain)
    (tmp_path / f"e.jsonl{suffix}").write_bytes(packed[: len(packed) // 2])
    found = records(tmp_path)
    assert [record.problem.rule for record in found if record.problem] == ["file.damaged"]
    whole = plain.splitlines()
    good = [record.raw for record in found if not record.problem]
    assert good == whole[: len(good)]
    assert len(good) > len(whole) // 4, "what lies before the damage is read"


def test_a_file_that_is_not_what_its_name_says_is_one_problem(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(b"not gzip at all")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 nope")
    assert [record.problem.rule for record in records(tmp_path) if record.problem] == ["file.damaged", "file.damaged"]


def test_an_endless_line_is_one_problem_and_the_next_line_is_read(tmp_path: Path) -> None:
    (tmp_path / "e.jsonl").write_bytes(b"x" * (9 * MAX_RECORD_BYTES) + b'\n{"a":1}\n')
    found = records(tmp_path)
    assert [record.problem.rule if record.problem else record.raw for record in found] == ["record.too_long", b'{"a":1}']


def test_parquet_rows_are_read_by_name_and_number(tmp_path: Path) -> None:
    pq.write_table(pa.table({"event_id": [f"e-{n}" for n in range(10)]}), tmp_path / "e.parquet", row_group_size=3)
    found = records(tmp_path, chunk_bytes=1)
    assert [(record.offset, record.cells) for record in found] == [(n, {"event_id": f"e-{n}"}) for n in range(10)]


def test_csv_cells_keep_their_original_text(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_bytes('\ufeffproduct_id,title\np-1,"a ""big""\nchair"\np-2,\n'.encode())
    found = records(tmp_path / "c.csv", Kind.CATALOGUE)
    assert [record.cells for record in found] == [{"product_id": "p-1", "title": 'a "big"\nchair'}, {"product_id": "p-2", "title": None}]
    assert found[0].raw == b'p-1,"a ""big""\nchair"'


def test_csv_rows_of_other_widths_and_encodings_are_problems(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_bytes(b"product_id,title\np-1,a,b\np-2,\xe9t\xe9\np-3,fine\n")
    found = records(tmp_path / "c.csv", Kind.CATALOGUE)
    assert [record.problem.rule if record.problem else record.cells for record in found] == [
        "csv.columns",
        "csv.encoding",
        {"product_id": "p-3", "title": "fine"},
    ]


@pytest.mark.parametrize("broken", ['p-2,"never closed', 'p-2,"closed" early', 'p-2,"a", "b'])
def test_a_quote_in_the_wrong_place_costs_its_own_line_only(tmp_path: Path, broken: str) -> None:
    rows = [f"p-{number},title {number}" for number in range(3, 5000)]
    (tmp_path / "c.csv").write_text("\n".join(["product_id,title", "p-1,fine", broken, *rows, 'p-5000,"two\nlines"', ""]))
    found = records(tmp_path / "c.csv", Kind.CATALOGUE)
    assert [(record.offset, record.raw.decode()) for record in found if record.problem] == [(1, broken)]
    assert {record.problem.rule for record in found if record.problem} <= {"csv.invalid", "csv.columns"}
    assert [record.offset for record in found] == list(range(len(rows) + 3))
    assert found[-1].cells == {"product_id": "p-5000", "title": "two\nlines"}


def test_a_broken_line_of_csv_is_named_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text('product_id,title\np-1,"two\nlines"\np-2,"x" y\n')
    assert [record.problem.message.split(":")[0] for record in records(tmp_path / "c.csv", Kind.CATALOGUE) if record.problem] == ["line 4"]


def test_an_endless_line_of_csv_is_one_problem_and_the_next_row_is_read(tmp_path: Path) -> None:
    endless = b"x" * (2 * MAX_RECORD_BYTES)
    (tmp_path / "c.csv").write_bytes(b'product_id,title\np-1,"open\np-2,' + endless + b"\np-3,fine\n")
    found = records(tmp_path / "c.csv", Kind.CATALOGUE)
    assert [record.problem.rule if record.problem else record.cells for record in found] == [
        "csv.invalid",
        "record.too_long",
        {"product_id": "p-3", "title": "fine"},
    ]


def test_damage_within_a_row_of_many_lines_is_said(tmp_path: Path) -> None:
    noise = "\n".join(f"{number * 7919 % 1_000_003:x}" for number in range(30_000))
    packed = gzip.compress(f'product_id,title\np-1,chair\np-2,"{noise}"\n'.encode())
    (tmp_path / "c.csv.gz").write_bytes(packed[: len(packed) * 3 // 4])
    found = records(tmp_path / "c.csv.gz", Kind.CATALOGUE)
    assert [record.problem.rule if record.problem else record.cells for record in found] == [{"product_id": "p-1", "title": "chair"}, "file.damaged"]


def test_a_cell_of_half_a_record_is_read(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_bytes(b"product_id,title\np-1," + b"x" * (MAX_RECORD_BYTES // 2) + b"\n")
    assert [len(record.cells["title"]) for record in records(tmp_path / "c.csv", Kind.CATALOGUE) if record.cells] == [MAX_RECORD_BYTES // 2]


@pytest.mark.parametrize("first_line", [b'product_id,"ti"tle', "product_id,备注".encode("gbk"), "product_id,title".encode("utf-16")])
def test_csv_without_a_readable_first_line_is_one_problem(tmp_path: Path, first_line: bytes) -> None:
    (tmp_path / "c.csv").write_bytes(first_line + b"\np-1,chair\n")
    assert [record.problem.rule for record in records(tmp_path / "c.csv", Kind.CATALOGUE) if record.problem] == ["csv.header"]


def test_white_space_around_cells_is_no_part_of_them(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("product_id , title\n p-1 ,  a chair \n")
    assert [record.cells for record in records(tmp_path / "c.csv", Kind.CATALOGUE)] == [{"product_id": "p-1", "title": "a chair"}]


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_other_separators_than_commas_are_named(tmp_path: Path, separator: str) -> None:
    (tmp_path / "c.csv").write_text(f"product_id{separator}title\np-1{separator}chair\n")
    (found,) = records(tmp_path / "c.csv", Kind.CATALOGUE)
    assert found.problem is not None and (found.problem.rule, repr(separator) in found.problem.message) == ("csv.header", True)


def test_a_value_that_python_cannot_hold_leaves_the_row_its_other_cells(tmp_path: Path) -> None:
    times = pa.array([2**62, 0], pa.int64()).cast(pa.timestamp("ms", "UTC"))
    pq.write_table(pa.table({"event_id": ["e-1", "e-2"], "event_ts": times}), tmp_path / "e.parquet")
    first, second = records(tmp_path)
    assert first.problem is not None and first.problem.rule == "parquet.value"
    assert first.cells == {"event_id": "e-1", "event_ts": str(2**62)}
    assert second.problem is None


def test_events_in_a_format_that_is_not_read_are_a_callers_mistake(tmp_path: Path) -> None:
    (tmp_path / "events.xlsx").write_text("event_id\n1\n")
    with pytest.raises(InputError, match="events must be csv, jsonl, parquet"):
        records(tmp_path / "events.xlsx")
    with pytest.raises(InputError, match="does not exist"):
        records(tmp_path / "none.jsonl")


def test_a_folder_is_read_in_the_order_of_names_and_hidden_files_are_passed_over(tmp_path: Path) -> None:
    for name, text in (("b.jsonl", "2"), ("a/c.jsonl", "1"), (".hidden.jsonl", "3"), ("notes.txt", "4")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(text) + "\n")
    assert [record.raw for record in records(tmp_path)] == [b'"1"', b'"2"']


def test_a_lone_carriage_return_does_not_end_a_line(tmp_path: Path) -> None:
    (tmp_path / "e.jsonl").write_bytes(io.BytesIO(b'{"a":\r1}\r\n{"b":2}').getvalue())
    assert [record.raw for record in records(tmp_path)] == [b'{"a":\r1}', b'{"b":2}']


def test_sources_are_absolute_wherever_they_were_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sources = IngestSources(catalogue="c.csv", photos="./p", events=("sub/e", "s3://b/e"), reviews="s3://b/r.csv")
    assert (sources.catalogue, sources.photos, sources.reviews) == (f"{tmp_path}/c.csv", f"{tmp_path}/p", "s3://b/r.csv")
    assert sources.events == (f"{tmp_path}/sub/e", "s3://b/e")
    assert sources.shoppers is None
