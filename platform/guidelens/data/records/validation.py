"""The contracts applied to raw records: each one becomes a row of its table or a problem with its original beside it.

The pydantic models judge, record by record; events that certainly keep their contract are taken as whole columns (event_columns.py),
with the same outcome. Works on any worker. Knows nothing of the lake, of duplicates, or of who reads the files.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from guidelens.config import S3Options
from guidelens.data.pseudonyms import UNUSABLE, Pseudonymizer, PseudonymousEvent
from guidelens.data.records.catalog_rows import Row, product_row, review_row, shopper_row
from guidelens.data.records.event_columns import KEYED_COLUMNS, EventColumns, Sorted, carried, keyed
from guidelens.data.records.json_lines import SPELLINGS
from guidelens.data.records.raw_records import Problem, RawRecord, as_json
from guidelens.data.records.reading import read_blocks
from guidelens.data.records.remarks import SEPARATOR, SKEWED, joined, unknown_field
from guidelens.data.records.sources import Chunk, Kind
from guidelens.schemas.base import NO_CONTROL_CHARACTERS
from guidelens.schemas.catalog import LabelledPhoto, Product, Review, Shopper
from guidelens.schemas.events import CLOCK_TOLERANCE, Event, EventType, clock_problem, is_skewed
from guidelens.schemas.tables import SCHEMAS, Table

TABLE_OF: dict[Kind, Table] = {
    Kind.CATALOGUE: Table.PRODUCTS,
    Kind.PHOTOS: Table.PHOTOS,
    Kind.MODELS: Table.MODELS,
    Kind.EVENTS: Table.EVENTS,
    Kind.SHOPPERS: Table.SHOPPERS,
    Kind.REVIEWS: Table.REVIEWS,
}
NOT_STAGED = frozenset({"text_embedding", "text_zh_embedding", "text_encoder", "known_ts"})
"""Columns that are filled when a row is written, not when it is checked."""
_HIDDEN = frozenset({"shopper_id", "anonymous_id", "shopper_key"})
_EVENT_COLUMNS = tuple(name for name in SCHEMAS[Table.EVENTS].names if name not in {"created_ts", "shopper_key", "key_id", "is_anonymous", "anonymous_key"})
_MODELS: dict[Kind, type[BaseModel]] = {
    Kind.CATALOGUE: Product,
    Kind.PHOTOS: LabelledPhoto,
    Kind.EVENTS: Event,
    Kind.SHOPPERS: Shopper,
    Kind.REVIEWS: Review,
}
_SIMILAR = 0.7
_SNIFFED_BYTES = 64
_TYPES = frozenset(EventType)
_PLAIN_MOMENT = re.compile(SPELLINGS["moment"])


def staged_schema(kind: Kind) -> pa.Schema:
    """A checked record: its table's columns, where it came from (`source` indexes the kind's files), and, refused, why.

    `raw` is the original where the record was refused or may still turn out to contradict another one; of events, only where refused.
    `remarks` says what is odd about a record that is no reason to refuse it (remarks.py).
    """
    columns = [field for field in SCHEMAS[TABLE_OF[kind]] if field.name not in NOT_STAGED]
    place = [("source", pa.int32()), ("offset", pa.int64()), ("rule", pa.string()), ("message", pa.string()), ("raw", pa.binary())]
    place.append(("remarks", pa.string()))
    return pa.schema([*columns, *(pa.field(name, type_) for name, type_ in place)])


class _Judged(NamedTuple):
    """One record's model, or its problem."""

    record: RawRecord
    found: Any
    remarks: str | None


class Checker(NamedTuple):
    """What checking needs beside the records.

    now: the ingest's start, with zone. from_inbox: events hold pseudonyms already. renamed: field by the name that files give it.
    replayed: the records come from quarantine, so that shopper ids of the form `hmac:KEY` are pseudonyms already.
    """

    kind: Kind
    pseudonyms: Pseudonymizer
    now: datetime
    from_inbox: bool = False
    renamed: Mapping[str, str] = {}
    replayed: bool = False

    @property
    def model(self) -> type[BaseModel]:
        return PseudonymousEvent if self.from_inbox else _MODELS[self.kind]

    @property
    def renames(self) -> dict[str, str]:
        """The renamed fields that records of this kind have."""
        return {given: name for given, name in self.renamed.items() if name in self.model.model_fields}

    def check(self, records: Sequence[RawRecord], source: int) -> pa.Table:
        """One batch as a staged table, refused records at its end. The models judge each one."""
        judged = [self._judged(record) for record in records]
        good = [one for one in judged if not isinstance(one.found, Problem)]
        refused = [one for one in judged if isinstance(one.found, Problem)]
        schema = staged_schema(self.kind)
        keeps_original = self.kind is not Kind.EVENTS
        given: dict[str, Sequence[Any]] = {
            **self._rows([one.found for one in good]),
            "offset": [one.record.offset for one in good],
            "raw": [self._original(one.record) or None if keeps_original else None for one in good],
            "remarks": [one.remarks for one in good],
        }
        why: dict[str, Sequence[Any]] = {
            "offset": [one.record.offset for one in refused],
            "rule": [one.found.rule for one in refused],
            "message": [one.found.message for one in refused],
            "raw": [self._original(one.record) for one in refused],
            "remarks": [one.remarks for one in refused],
        }
        return pa.concat_tables([_table(schema, given, len(good), source), _table(schema, why, len(refused), source)])

    def certain(self, sorted_events: Sorted, source: int) -> pa.Table:
        """Events that are known to keep their contract, as a staged table."""
        events = sorted_events.certain
        schema = staged_schema(self.kind)
        if events.height == 0:
            return schema.empty_table()
        events = carried(events, self.pseudonyms) if self.from_inbox else keyed(events, self.pseudonyms)
        skewed = pl.when(pl.col("event_ts") - pl.col("created_ts") > CLOCK_TOLERANCE).then(pl.lit(SKEWED))
        remarks = pl.concat_str(pl.col("remarks"), skewed, separator=SEPARATOR, ignore_nulls=True)
        whole = events.with_columns(
            remarks=pl.when(remarks != "").then(remarks),
            created_ts=pl.coalesce("created_ts", "event_ts"),
            source=pl.lit(source, pl.Int32),
            **{name: pl.lit(None, pl.String) for name in ("rule", "message")},
        ).with_columns(raw=pl.lit(None, pl.Binary))
        return whole.select(schema.names).to_arrow().cast(schema)

    def _judged(self, record: RawRecord) -> _Judged:
        if record.problem:
            return _Judged(record, record.problem, None)
        try:
            cells = record.cells if record.cells is not None else from_json(record.raw)
        except ValueError as error:
            hint = "; the file seems to be UTF-16: save it as UTF-8" if b"\0" in record.raw[:_SNIFFED_BYTES] else ""
            return _Judged(record, Problem("json.invalid", f"a record must be one JSON object, got {str(error)[:200]}{hint}"), None)
        if not isinstance(cells, dict):
            return _Judged(record, Problem("json.invalid", f"a record must be one JSON object, got a {type(cells).__name__}"), None)
        given = _given(cells)
        unread = tuple(sorted(name for name in given if name not in self.model.model_fields and name not in self.renames))
        found = self._model(given, unread)
        skewed = [SKEWED] if isinstance(found, Event) and is_skewed(found.event_ts, found.created_ts) else []
        return _Judged(record, found, joined([*map(unknown_field, unread), *skewed]))

    def _model(self, given: dict[str, Any], unread: tuple[str, ...]) -> Any:
        both = [(old, new) for old, new in self.renames.items() if old in given and new in given]
        if both:
            old, new = both[0]
            return Problem(f"{new}.renamed_twice", f"{new}: the record has it and also {old}, which the ingest reads as {new}; keep one")
        named = {self.renames.get(name, name): value for name, value in given.items()}
        lost = [name for name, value in named.items() if self.replayed and isinstance(value, str) and value.startswith(UNUSABLE)]
        if lost:
            return Problem(f"{lost[0]}.unusable", f"{lost[0]}: the original was no id and is not kept; send the record again")
        if self.kind is Kind.CATALOGUE:
            named = {name: _parsed(name, value) for name, value in named.items()}
        try:
            model = self.model.model_validate(named)
        except ValidationError as error:
            return _with_hint(problem_of(error), tuple(name for name in self.model.model_fields if name not in named), unread)
        late = clock_problem(model, self.now) if isinstance(model, Event) else None
        return Problem(f"{late[0]}.in_future", late[1]) if late else model

    def _rows(self, models: list[Any]) -> dict[str, Sequence[Any]]:
        if self.kind is Kind.EVENTS:
            return self._event_columns(models)
        makers: dict[Kind, Callable[[Any], Row]] = {
            Kind.CATALOGUE: product_row,
            Kind.SHOPPERS: lambda shopper: shopper_row(shopper, self._key, self.pseudonyms.key_id),
            Kind.REVIEWS: lambda review: review_row(review, self._key),
        }
        rows = [makers[self.kind](model) for model in models]
        return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}

    def _event_columns(self, events: list[Event]) -> dict[str, Sequence[Any]]:
        """The events by column; when it was known defaults to when it happened."""
        fields = [self.pseudonyms.without_links(event).__dict__ for event in events]
        columns: dict[str, Sequence[Any]] = {name: [event[name] for event in fields] for name in _EVENT_COLUMNS}
        columns["created_ts"] = [event["created_ts"] or event["event_ts"] for event in fields]
        if self.from_inbox:
            made = pl.DataFrame(
                {name: [event[name] for event in fields] for name in KEYED_COLUMNS},
                schema={**dict.fromkeys(KEYED_COLUMNS, pl.String), "is_anonymous": pl.Boolean},
            )
            return columns | carried(made, self.pseudonyms).to_dict(as_series=False)
        key = self._key
        columns["shopper_key"] = [key(event["anonymous_id"], anonymous=True) if event["shopper_id"] is None else key(event["shopper_id"]) for event in fields]
        columns["is_anonymous"] = [event["shopper_id"] is None for event in fields]
        columns["anonymous_key"] = [
            key(event["anonymous_id"], anonymous=True) if event["shopper_id"] is not None and event["anonymous_id"] is not None else None for event in fields
        ]
        return columns | {"key_id": [self.pseudonyms.key_id] * len(events)}

    def _key(self, shopper_id: str, *, anonymous: bool = False) -> str:
        known = self.pseudonyms.key_in(shopper_id) if self.replayed else None
        return known or self.pseudonyms.key(shopper_id, anonymous=anonymous)

    def _original(self, record: RawRecord) -> bytes:
        """The record as it came, but shopper ids as pseudonyms; a row of CSV or Parquet as JSON, so that it can be read again without its header."""
        if self.replayed or self.kind in (Kind.CATALOGUE, Kind.PHOTOS):
            return as_json(record.cells) if record.cells is not None and record.problem is None else record.raw or as_json(record.cells or {})
        if record.torn:
            return as_json({"torn": [self._hidden(piece) for piece in record.torn]})
        raw = record.raw if record.cells is None else as_json(record.cells)  # of a row, ids can only be found by their columns
        return self.pseudonyms.scrub(raw, {given: name for given, name in self.renames.items() if name in _HIDDEN})

    def _hidden(self, piece: str) -> str:
        """A piece of a line of CSV, any of which may be an id: as a pseudonym, unless it is plainly something else."""
        told = piece.strip()
        return told if not told or told in _TYPES or _PLAIN_MOMENT.fullmatch(told) else f"{UNUSABLE}{self.pseudonyms.key(told)}"


def checked_tables(chunk: Chunk, checker: Checker, s3: S3Options) -> Iterator[pa.Table]:
    """A chunk's records, checked, as tables of bounded size in `staged_schema(checker.kind)`."""
    columns = EventColumns(checker.now, checker.from_inbox, checker.renames) if checker.kind is Kind.EVENTS and not checker.replayed else None
    for block in read_blocks(chunk, s3):
        if columns is None:
            yield checker.check(block if isinstance(block, list) else block.records(), chunk.source)
            continue
        found = columns.sort(block)
        yield pa.concat_tables([checker.certain(found, chunk.source), checker.check(found.others, chunk.source)])


def _table(schema: pa.Schema, given: dict[str, Sequence[Any]], num_rows: int, source: int) -> pa.Table:
    columns = []
    for field in schema:
        if field.name == "source":
            columns.append(pa.repeat(pa.scalar(source, pa.int32()), num_rows))
        elif field.name in given:
            columns.append(pa.array(given[field.name], field.type))
        else:
            columns.append(pa.nulls(num_rows, field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _given(cells: dict[str, Any]) -> dict[str, Any]:
    """Without empty values: what a CSV cell or a Parquet null says nothing of keeps its default."""
    return {name: value for name, value in cells.items() if value is not None}


def _parsed(name: str, value: Any) -> Any:
    """`attributes` and `facts` are JSON text in CSV and Parquet; Parquet maps come as pairs."""
    if name not in {"attributes", "facts"}:
        return value
    if isinstance(value, str):
        try:
            return json.loads(value) if value.strip() else {}
        except json.JSONDecodeError:
            return value
    if isinstance(value, list) and all(isinstance(pair, tuple) for pair in value):
        return dict(value)
    return {key: item for key, item in value.items() if item is not None} if isinstance(value, dict) else value


def _with_hint(problem: Problem, absent: tuple[str, ...], unread: tuple[str, ...]) -> Problem:
    """The problem, with the likely new name of a field that it misses."""
    found = [(unknown, field) for unknown, field in _likely(absent, unread) if re.search(rf"\b{field}\b", problem.message)]
    if not found:
        return problem
    unknown, field = found[0]
    return problem._replace(message=f"{problem.message}; the record has {unknown}, which is no field: if it is {field}, ingest with --rename {unknown}={field}")


@lru_cache(maxsize=1000)
def _likely(absent: tuple[str, ...], unread: tuple[str, ...]) -> list[tuple[str, str]]:
    """Pairs of an unknown name and the absent field that it resembles."""
    plain = {re.sub(r"[\W_]", "", name).lower(): name for name in reversed(absent)}
    likely = [(name, get_close_matches(re.sub(r"[\W_]", "", name).lower(), list(plain), 1, _SIMILAR)) for name in unread]
    return [(name, plain[found[0]]) for name, found in likely if found]


def problem_of(error: ValidationError) -> Problem:
    """The first broken rule as `field.rule`, and a sentence for the first three; values of shopper ids are not repeated."""
    found = error.errors(include_url=False, include_context=False)
    first = found[0]
    return Problem(f"{_field(first['loc'])}.{first['type']}", "; ".join(_sentence(one) for one in found[:3]))


def _field(location: Iterable[object]) -> str:
    return ".".join(str(part) for part in location) or "record"


def _sentence(error: Any) -> str:
    field = _field(error["loc"])
    if NO_CONTROL_CHARACTERS in error["msg"]:
        return f"{field}: an id must not hold control characters"
    if field == "record" or error["type"] == "missing" or field.split(".")[0] in _HIDDEN:
        return f"{field}: {error['msg']}"
    return f"{field}: {error['msg']}, got {str(error['input'])[:80]!r}"
