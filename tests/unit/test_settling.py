"""Accepted, duplicate or quarantined: exactly one, whatever comes twice or contradicts itself."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from guidelens.data.settling import FileCounts, quarantine_rows, settle_events, settle_rows
from guidelens.data.sources import Kind
from guidelens.data.validation import staged_schema

START = datetime(2026, 1, 1, tzinfo=UTC)


def staged(kind: Kind, *rows: dict[str, object]) -> pl.DataFrame:
    table = pa.Table.from_pylist([{"source": 0, "offset": number, **row} for number, row in enumerate(rows)], schema=staged_schema(kind))
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def event(event_id: str, seconds: int = 0, **more: object) -> dict[str, object]:
    return {"event_id": event_id, "event_ts": START + timedelta(seconds=seconds), "created_ts": START, "shopper_key": "k", **more}


def ids(*known: str) -> pl.Series:
    return pl.Series("event_id", known, dtype=pl.String)


def product(product_id: str, content: str, **more: object) -> dict[str, object]:
    return {"product_id": product_id, "row_sha256": content, **more}


def known(**contents: str) -> pl.DataFrame:
    return pl.DataFrame({"product_id": list(contents), "row_sha256": list(contents.values())}, schema={"product_id": pl.String, "row_sha256": pl.String})


def test_the_first_event_of_an_id_counts_and_rows_come_in_order_of_time() -> None:
    settled = settle_events(staged(Kind.EVENTS, event("b", 5), event("a", 3), event("b", 1), event("c", 2)), ids("c"), frozenset())
    assert settled.accepted.select("event_id", "event_ts").rows() == [("a", START + timedelta(seconds=3)), ("b", START + timedelta(seconds=5))]
    assert settled.counts == {0: FileCounts(read=4, accepted=2, duplicate=2)}


def test_counts_are_kept_by_file() -> None:
    rows = staged(Kind.EVENTS, event("a"), event("a", source=1), {"rule": "json.invalid", "message": "no", "raw": b"x", "source": 1})
    settled = settle_events(rows, ids(), frozenset())
    assert settled.counts == {0: FileCounts(read=1, accepted=1), 1: FileCounts(read=2, quarantined=1, duplicate=1)}


def test_a_forgotten_shoppers_event_is_refused_and_not_kept() -> None:
    settled = settle_events(staged(Kind.EVENTS, event("a", shopper_key="gone", raw=b"secret"), event("b")), ids(), frozenset({"gone"}))
    assert settled.accepted["event_id"].to_list() == ["b"]
    (row,) = quarantine_rows(Kind.EVENTS, settled.refused, ["file"]).to_dicts()
    assert (row["rule"], row["raw"]) == ("forgotten", None)
    assert "gone" not in str(row)


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
    rows = quarantine_rows(Kind.EVENTS, settle_events(staged(Kind.EVENTS, bad, bad), ids(), frozenset()).refused, ["file"])
    assert rows["record_sha256"].n_unique() == 2


records = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 2), st.sampled_from(["fine", "fine", "bad"])), max_size=12)


@given(records, st.sets(st.sampled_from("abcd")), st.booleans())
def test_read_is_accepted_plus_quarantined_plus_duplicate_in_any_order(found: list[tuple[str, int, str]], before: set[str], forgets: bool) -> None:
    rows = [event(name, source=source) if state == "fine" else {"rule": "r", "message": "m", "source": source} for name, source, state in found]
    frame, forgotten = staged(Kind.EVENTS, *rows), frozenset({"k"} if forgets else ())
    settled = settle_events(frame, ids(*before), forgotten)
    turned = settle_events(frame.reverse(), ids(*before), forgotten)
    assert settled.counts == turned.counts and settled.accepted.equals(turned.accepted)
    total = sum(settled.counts.values(), FileCounts())
    assert total.read == len(found) == total.accepted + total.quarantined + total.duplicate
    assert (total.accepted, total.quarantined) == (settled.accepted.height, settled.refused.height)


@given(records, st.dictionaries(st.sampled_from("abcd"), st.sampled_from("012")))
def test_taking_in_the_same_rows_again_accepts_nothing(found: list[tuple[str, int, str]], before: dict[str, str]) -> None:
    frame = staged(Kind.CATALOGUE, *(product(name, str(content)) for name, content, _ in found))
    first = settle_rows(frame, "product_id", known(**before))
    after = before | dict(first.accepted.select("product_id", "row_sha256").iter_rows())
    again = sum(settle_rows(frame, "product_id", known(**after)).counts.values(), FileCounts())
    assert again.accepted == 0
    assert again.read == len(found)
