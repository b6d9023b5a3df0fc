"""Accepted, duplicate or quarantined: exactly one, whatever comes twice or contradicts itself."""

import polars as pl
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from guidelens.data.records.settling import FileCounts, quarantine_rows, settle_rows
from guidelens.data.records.sources import Kind
from guidelens.data.records.validation import staged_schema


def staged(kind: Kind, *rows: dict[str, object]) -> pl.DataFrame:
    table = pa.Table.from_pylist([{"source": 0, "offset": number, **row} for number, row in enumerate(rows)], schema=staged_schema(kind))
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def product(product_id: str, content: str, **more: object) -> dict[str, object]:
    return {"product_id": product_id, "row_sha256": content, **more}


def known(**contents: str) -> pl.DataFrame:
    return pl.DataFrame({"product_id": list(contents), "row_sha256": list(contents.values())}, schema={"product_id": pl.String, "row_sha256": pl.String})


def test_a_changed_row_is_accepted_and_an_unchanged_one_is_not() -> None:
    settled = settle_rows(staged(Kind.CATALOGUE, product("a", "1"), product("b", "2"), product("c", "3")), "product_id", known(a="1", b="0"))
    assert settled.accepted["product_id"].to_list() == ["b", "c"]
    assert settled.counts == {0: FileCounts(read=3, accepted=2, duplicate=1)}


def test_a_repeated_row_is_a_duplicate_and_a_contradicting_one_is_refused() -> None:
    rows = staged(Kind.CATALOGUE, product("a", "1"), product("a", "1"), product("a", "2", raw=b"other"))
    settled = settle_rows(rows, "product_id", known())
    assert settled.accepted["row_sha256"].to_list() == ["1"]
    assert settled.counts == {0: FileCounts(read=3, accepted=1, quarantined=1, duplicate=1)}
    (row,) = quarantine_rows(Kind.CATALOGUE, settled.refused, ["file"]).to_dicts()
    assert (row["rule"], row["raw"]) == ("product_id.contradicted", b"other")


def test_records_refused_at_two_places_are_two_rows_of_quarantine() -> None:
    bad = {"rule": "json.invalid", "message": "no", "raw": b"x"}
    rows = quarantine_rows(Kind.EVENTS, staged(Kind.EVENTS, bad, bad), ["file"])
    assert rows["record_sha256"].n_unique() == 2


records = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 2), st.sampled_from(["fine", "fine", "bad"])), max_size=12)


@given(records, st.dictionaries(st.sampled_from("abcd"), st.sampled_from("012")))
def test_taking_in_the_same_rows_again_accepts_nothing(found: list[tuple[str, int, str]], before: dict[str, str]) -> None:
    frame = staged(Kind.CATALOGUE, *(product(name, str(content)) for name, content, _ in found))
    first = settle_rows(frame, "product_id", known(**before))
    after = before | dict(first.accepted.select("product_id", "row_sha256").iter_rows())
    again = sum(settle_rows(frame, "product_id", known(**after)).counts.values(), FileCounts())
    assert again.accepted == 0
    assert again.read == len(found)
