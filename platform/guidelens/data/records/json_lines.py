"""Event lines read at once into columns, as far as they are plain enough that nobody could read them otherwise.

A line is plain where one regular expression, made of the contract, matches all of it: known keys with values of their kind and
canonical spelling. Every other line is left to the record-by-record way. Knows no rule but spelling: the values are checked as columns.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray
from pydantic_core import from_json

from guidelens.data.records.column_checks import COLUMN_TYPES
from guidelens.data.records.remarks import SEPARATOR, unknown_field
from guidelens.schemas.fields import Contract, ValueKind

_LINE_FEED, _QUOTE, _COLON = b'\n":'
_MAX_UNKNOWN = 64
_SAMPLED_LINES = 16
_ROUNDS = 4
_SPACE = r"[ \t\r\n]*"
# Escapes of what is no white space, no control character and no surrogate alone: most scripts, kana and CJK, full-width forms, emoji.
_ESCAPE = (
    r"\\(?:/|u(?:00[c-fC-F][0-9a-fA-F]|0[1-9a-fA-F][0-9a-fA-F]{2}|3[1-9a-fA-F][0-9a-fA-F]{2}|30[0-9a-fA-F][1-9a-fA-F]|[4-9a-cA-C][0-9a-fA-F]{3}|[fF]{2}0[0-9a-fA-F]"
    r"|[dD]8[0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}))"
)
# No text begins with a colon, so that `":` ends every key and nothing else.
_TEXT = rf'"(?:(?:[^"\\\s\p{{Cc}}:]|{_ESCAPE})(?:(?:[^"\\\p{{Cc}}]|{_ESCAPE})*(?:[^"\\\s\p{{Cc}}]|{_ESCAPE}))?)?"'
_INTEGER = r"(?:0|[1-9][0-9]{0,17})"
_NUMBER = rf"{_INTEGER}(?:\.[0-9]{{1,25}})?(?:[eE]-?[0-9]{{1,2}})?"
_MOMENT = r"(?:19[7-9][0-9]|20[0-9]{2})-[01][0-9]-[0-3][0-9]T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?(?:Z|[+-](?:0[0-9]|1[0-4]):[0-5][0-9])"
SPELLINGS: dict[ValueKind, str] = {"integer": _INTEGER, "number": _NUMBER, "moment": _MOMENT}
"""How values must be spelled for every reader to read the same."""
_VALUES: dict[ValueKind, str] = {"text": _TEXT, "integer": _INTEGER, "number": _NUMBER, "flag": "true|false", "moment": f'"{_MOMENT}"'}
_SCALAR = rf"(?:{_TEXT}|-?{_NUMBER}|true|false|null)"
_LIST = rf"\[{_SPACE}(?:{_SCALAR}(?:{_SPACE},{_SPACE}{_SCALAR})*)?{_SPACE}\]"
_PAIR = rf"{_TEXT}:{_SPACE}(?:{_SCALAR}|{_LIST})"
_OBJECT = rf"\{{{_SPACE}(?:{_PAIR}(?:{_SPACE},{_SPACE}{_PAIR})*)?{_SPACE}\}}"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class PlainLines(NamedTuple):
    """frame: the plain lines' fields by column, in COLUMN_TYPES, and `remarks`.
    rows: which lines of the block they are. starts: where each line of the block begins, and where the last one ends."""

    frame: pl.DataFrame
    rows: NDArray[np.int64]
    starts: NDArray[np.int64]


class PlainLineReader:
    """Reads blocks of one kind of lines; learns the names of unknown fields as it meets them.

    Args:
        renamed: field by the name that the lines give it.
    """

    def __init__(self, contract: Contract, renamed: Mapping[str, str], max_line_bytes: int) -> None:
        self._rules = {rule.name: rule for rule in contract.fields}
        self._fields: dict[str, str] = {**{name: name for name in self._rules}, **renamed}
        self._max_line_bytes = max_line_bytes
        self._learn(())

    def _learn(self, unknown: Sequence[str]) -> None:
        self._unknown = tuple(unknown)
        by_kind: dict[str, list[str]] = {}
        for given, name in self._fields.items():
            rule = self._rules[name]
            value = "|".join(f'"{re.escape(choice)}"' for choice in rule.choices) or _VALUES[rule.kind]
            value += f"|{_INTEGER}" if rule.takes_whole_numbers else ""
            by_kind.setdefault(value, []).append(re.escape(given))
        pairs = [f'"(?:{"|".join(names)})":{_SPACE}(?:{value}|null)' for value, names in by_kind.items()]
        if unknown:
            pairs.append(f'"(?:{"|".join(map(re.escape, unknown))})":{_SPACE}(?:{_SCALAR}|{_LIST}|{_OBJECT})')
        pair = f"(?:{'|'.join(pairs)})"
        self._plain = rf"^{_SPACE}\{{{_SPACE}{pair}(?:{_SPACE},{_SPACE}{pair})*{_SPACE}\}}{_SPACE}$"
        self._keys = f'"(?:{"|".join(map(re.escape, [*self._fields, *unknown]))})":'
        kinds: dict[ValueKind, pl.DataType] = {**COLUMN_TYPES, "moment": pl.String()}
        self._schema = {given: kinds[self._rules[name].kind] for given, name in self._fields.items()} | dict.fromkeys(unknown, pl.String())

    def read(self, block: bytes) -> PlainLines:
        """Of a block of whole lines (the last one may lack its line feed) those that are plain."""
        starts = _line_starts(block)
        lines = pa.Array.from_buffers(pa.binary(), len(starts) - 1, [None, pa.py_buffer(starts.astype(np.int32)), pa.py_buffer(block)])
        texts = _texts(lines)
        short = pl.Series(np.diff(starts) <= self._max_line_bytes)
        plain = self._plain_of(texts) & short
        rows = np.flatnonzero(plain.to_numpy())
        text = block if len(rows) == len(lines) else lines.filter(pa.array(plain.to_numpy())).buffers()[2].to_pybytes()
        frame, sure = self._frame(text, texts if len(rows) == len(lines) else texts.gather(rows))
        return PlainLines(frame if sure.all() else frame.filter(sure), rows[sure.to_numpy()], starts)

    def _plain_of(self, texts: pl.Series) -> pl.Series:
        """Which lines are plain. Where some are not, a few are looked at for unknown fields, and all tried again with those."""
        plain = texts.str.contains(self._plain).fill_null(False)
        for _ in range(_ROUNDS):
            odd = texts.filter(~plain)
            fresh = _unknown_names(odd, {*self._fields, *self._unknown})
            if not fresh or len(self._unknown) + len(fresh) > _MAX_UNKNOWN:
                break
            self._learn([*self._unknown, *fresh])
            plain = texts.str.contains(self._plain).fill_null(False)
        return plain

    def _frame(self, text: bytes, lines: pl.Series) -> tuple[pl.DataFrame, pl.Series]:
        """The fields of plain lines, and where they are sure: no field, nor its renamed form, is there twice (readers differ on which one
        counts), and times exist (no 30 February)."""
        frame = pl.read_ndjson(text, schema=self._schema) if text else pl.DataFrame(schema=self._schema)
        assert frame.height == len(lines), "a plain line is one object"
        sure = pl.repeat(True, frame.height, eager=True)
        if _num_keys(text) != sum(frame.height - frame[name].null_count() for name in self._fields):
            given = frame.select(pl.sum_horizontal(pl.col(name).is_not_null() for name in self._fields)).to_series()
            sure = (lines.str.count_matches('":', literal=True) == given) | self._once_among_others(lines)
        for called, name in self._fields.items():
            if called != name:
                sure = sure & ~(frame[called].is_not_null() & frame[name].is_not_null())
            if self._rules[name].kind == "moment":
                times = moments_of(frame[called])
                sure = sure & (times.is_not_null() | frame[called].is_null())
                frame = frame.with_columns(times)
        return self._named(frame), sure

    def _once_among_others(self, lines: pl.Series) -> pl.Series:
        """The same for lines with nulls or unknown fields: each key that a line holds is spelled once."""
        names = [*self._fields, *self._unknown]
        held = lines.to_frame("line").select(pl.sum_horizontal(pl.col("line").str.contains(f'"{name}":', literal=True) for name in names)).to_series()
        return lines.str.count_matches(self._keys) == held

    def _named(self, frame: pl.DataFrame) -> pl.DataFrame:
        """By the contract's names."""
        return frame.select(
            **{name: coalesced(name, self._fields) for name in self._rules}, remarks=remarks_of({name: pl.col(name).is_not_null() for name in self._unknown})
        )


def moments_of(texts: pl.Series) -> pl.Series:
    """Plainly spelled times; null where there is no such time."""
    return texts.str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False)


def coalesced(name: str, fields: Mapping[str, str]) -> pl.Expr:
    """A field under whichever name it was given."""
    return pl.coalesce(given for given, found in fields.items() if found == name)


def remarks_of(filled: Mapping[str, pl.Expr]) -> pl.Expr:
    """Remarks on the unknown fields whose expression is true in a row; null where there is none."""
    if not filled:
        return pl.lit(None, pl.String)
    joined = pl.concat_str(
        [pl.when(is_filled).then(pl.lit(unknown_field(name))) for name, is_filled in sorted(filled.items())], separator=SEPARATOR, ignore_nulls=True
    )
    return pl.when(joined != "").then(joined)


def _num_keys(text: bytes) -> int:
    """How many keys plain lines spell, nested ones too; no line spells fewer than it has fields that are not null."""
    found = np.frombuffer(text, np.uint8)
    return int(np.count_nonzero((found[:-1] == _QUOTE) & (found[1:] == _COLON)))


def _line_starts(block: bytes) -> NDArray[np.int64]:
    ends = np.flatnonzero(np.frombuffer(block, np.uint8) == _LINE_FEED) + 1
    tail = [] if block.endswith(b"\n") else [len(block)]
    return np.concatenate([[0], ends, tail]).astype(np.int64)


def _texts(lines: pa.Array) -> pl.Series:
    """Null where a line is no UTF-8."""
    try:
        return pl.Series(pl.from_arrow(lines)).cast(pl.String)
    except pl.exceptions.ComputeError:
        return pl.Series([_decoded(line) for line in lines.to_pylist()], dtype=pl.String)


def _decoded(line: bytes) -> str | None:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return None


def _unknown_names(lines: pl.Series, known: set[str]) -> list[str]:
    """Fields of a few of the lines that are not known and have plain names, in the order met."""
    found: dict[str, None] = {}
    for line in lines.drop_nulls().gather_every(max(1, len(lines) // _SAMPLED_LINES)).head(_SAMPLED_LINES):
        try:
            record = from_json(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            found |= dict.fromkeys(name for name in record if name not in known and _PLAIN_NAME.fullmatch(name))
    return list(found)
