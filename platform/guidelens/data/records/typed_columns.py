"""Columns of Parquet and cells of CSV as columns of the event contract, as far as their values can be read in one way only.

A value that is not plainly of its field's kind leaves its row in doubt; a column of another kind leaves them all.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from guidelens.data.records.column_checks import COLUMN_TYPES
from guidelens.data.records.json_lines import SPELLINGS, coalesced, moments_of, remarks_of
from guidelens.schemas.fields import TIMESTAMP, Contract, FieldRule

_EXACT = 2**53
"""Whole numbers up to here are the same in float64."""


class _Column(NamedTuple):
    values: pl.Series
    in_doubt: pl.Series


def typed_frame(contract: Contract, given: Mapping[str, pa.Array], renamed: Mapping[str, str], num_rows: int) -> pl.DataFrame | None:
    """The contract's columns in COLUMN_TYPES, `remarks` and `in_doubt`; None where all rows are.

    Args:
        renamed: field by the name that the file gives it.
    """
    rules = {rule.name: rule for rule in contract.fields}
    fields = {name: name for name in rules} | dict(renamed)
    columns: dict[str, pl.Series] = {}
    doubts = [pl.repeat(False, num_rows, eager=True)]
    for name, field in fields.items():
        found = _column(given[name], rules[field]) if name in given else _Column(_nulls(rules[field], num_rows), doubts[0])
        if found is None:
            return None
        columns[name] = found.values
        doubts.append(found.in_doubt)
    frame = pl.DataFrame(columns)
    doubts += [frame[old].is_not_null() & frame[new].is_not_null() for old, new in fields.items() if old != new]
    unread = pl.DataFrame({name: _series(pc.is_valid(values)) for name, values in given.items() if name not in fields})
    named = remarks_of({name: pl.col(name) for name in unread.columns})
    return frame.select(**{name: coalesced(name, fields) for name in rules}).with_columns(
        remarks=unread.select(named).to_series() if unread.width else pl.Series([None] * num_rows, dtype=pl.String),
        in_doubt=pl.DataFrame({str(number): one.fill_null(False) for number, one in enumerate(doubts)}).select(pl.any_horizontal(pl.all())).to_series(),
    )


def cell_arrays(rows: Sequence[dict[str, Any]]) -> dict[str, pa.Array]:
    """Rows of text cells as columns."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: pa.array([row.get(name) for row in rows], pa.string()) for name in names}


def _nulls(rule: FieldRule, num_rows: int) -> pl.Series:
    return pl.Series(rule.name, [None], dtype=COLUMN_TYPES[rule.kind]).new_from_index(0, num_rows)


def _series(array: pa.Array) -> pl.Series:
    return pl.Series(pl.from_arrow(array))


def _column(array: pa.Array, rule: FieldRule) -> _Column | None:
    if pa.types.is_null(array.type):
        return _Column(_nulls(rule, len(array)), pl.repeat(False, len(array), eager=True))
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type) or pa.types.is_string_view(array.type):
        return _from_text(array, rule)
    makers = {"integer": _from_number, "number": _from_number, "moment": _from_timestamp}
    if rule.kind == "flag" and pa.types.is_boolean(array.type):
        return _certain(_series(array))
    if rule.takes_whole_numbers and pa.types.is_integer(array.type):
        return _certain(_series(array).cast(pl.String))
    return makers[rule.kind](array, rule) if rule.kind in makers else None


def _certain(values: pl.Series) -> _Column:
    return _Column(values, pl.repeat(False, len(values), eager=True))


def _from_text(array: pa.Array, rule: FieldRule) -> _Column | None:
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:  # no UTF-8
        return None
    texts = _series(array)
    if rule.kind == "text":
        return _Column(texts, texts != texts.str.strip_chars())
    if rule.kind == "flag":
        return _Column(_nulls(rule, len(texts)), texts.is_not_null())
    plain = texts.str.contains(f"^(?:{SPELLINGS[rule.kind]})$")
    kept = texts.to_frame("text").select(pl.when(plain).then("text")).to_series()
    values = moments_of(kept) if rule.kind == "moment" else kept.cast(COLUMN_TYPES[rule.kind], strict=False)
    return _Column(values, texts.is_not_null() & values.is_null())


def _from_number(array: pa.Array, rule: FieldRule) -> _Column | None:
    if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
        return None
    given = _series(array)
    values = given.cast(COLUMN_TYPES[rule.kind], strict=False)
    same = (given == given.floor()) & (given.abs() <= _EXACT) if given.dtype.is_float() and rule.kind == "integer" else values.is_not_null()
    if given.dtype.is_integer() and rule.kind == "number":
        same = values.is_between(-_EXACT, _EXACT)
    return _Column(values, given.is_not_null() & ~same.fill_null(False))


def _from_timestamp(array: pa.Array, rule: FieldRule) -> _Column | None:
    if not pa.types.is_timestamp(array.type) or array.type.tz is None:
        return None
    try:
        pa.scalar(0, array.type).as_py()  # a zone that nobody knows
        cut = array.cast(TIMESTAMP, safe=array.type.unit != "ns")
    except (pa.ArrowException, ValueError, LookupError):
        return None
    return _certain(_series(cut).cast(COLUMN_TYPES[rule.kind]))
