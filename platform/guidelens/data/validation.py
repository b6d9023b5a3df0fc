"""The contracts applied to raw records: each one becomes a row of its table or a problem with its original beside it.

Works on one batch of records at a time, on any worker. Knows nothing of the lake, of duplicates, or of who reads the files.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from guidelens.config import S3Options
from guidelens.data.catalog_rows import Row, product_row, review_row, shopper_row
from guidelens.data.pseudonyms import Pseudonymizer, PseudonymousEvent
from guidelens.data.reading import Problem, RawRecord, as_json, read_chunk
from guidelens.data.sources import Chunk, Kind
from guidelens.schemas.catalog import Product, Review, Shopper
from guidelens.schemas.events import Event, clock_problem
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
_EVENT = TypeAdapter(Event)
_PSEUDONYMOUS_EVENT = TypeAdapter(PseudonymousEvent)


def staged_schema(kind: Kind) -> pa.Schema:
    """A checked record: its table's columns, where it came from (`source` indexes the kind's files), and, refused, why.

    `raw` is the original where the record was refused or may still turn out to contradict another one; of events, only where refused.
    """
    columns = [field for field in SCHEMAS[TABLE_OF[kind]] if field.name not in NOT_STAGED]
    place = [("source", pa.int32()), ("offset", pa.int64()), ("rule", pa.string()), ("message", pa.string()), ("raw", pa.binary())]
    return pa.schema([*columns, *(pa.field(name, type_) for name, type_ in place)])


class Checker(NamedTuple):
    """What checking needs beside the records. `now`: the ingest's start, with zone. `from_inbox`: events hold pseudonyms already."""

    kind: Kind
    pseudonyms: Pseudonymizer
    now: datetime
    from_inbox: bool = False

    def check(self, records: Sequence[RawRecord], source: int) -> pa.Table:
        """One batch as a staged table, refused records at its end."""
        good: list[tuple[int, bytes, Any]] = []
        refused: list[dict[str, Any]] = []
        for record in records:
            found = self._checked(record)
            if isinstance(found, Problem):
                refused.append({"offset": record.offset, "rule": found.rule, "message": found.message, "raw": self._original(record)})
            else:
                good.append((record.offset, b"" if self.kind is Kind.EVENTS else self._original(record), found))
        schema = staged_schema(self.kind)
        rows = self._rows([model for _, _, model in good])
        given = {**rows, "offset": [offset for offset, _, _ in good], "raw": [raw or None for _, raw, _ in good]}
        parts = [_table(schema, given, len(good), source)]
        if refused:
            parts.append(_table(schema, {name: [row[name] for row in refused] for name in refused[0]}, len(refused), source))
        return pa.concat_tables(parts)

    def _checked(self, record: RawRecord) -> Any:
        if record.problem:
            return record.problem
        try:
            model = self._model(record)
        except ValidationError as error:
            return problem_of(error)
        except ValueError as error:
            return Problem("json.invalid", f"a record must be one JSON object, got {str(error)[:200]}")
        if isinstance(model, Event):
            late = clock_problem(model.event_ts, self.now)
            if late:
                return Problem("event_ts.in_future", late)
        return model

    def _model(self, record: RawRecord) -> Event | Product | Shopper | Review | Problem:
        if self.kind is Kind.EVENTS:
            adapter: TypeAdapter[Any] = _PSEUDONYMOUS_EVENT if self.from_inbox else _EVENT
            found: Event = adapter.validate_json(record.raw) if record.cells is None else adapter.validate_python(_given(record.cells))
            return found
        cells = record.cells if record.cells is not None else from_json(record.raw)
        if not isinstance(cells, dict):
            return Problem("json.invalid", f"a record must be one JSON object, got a {type(cells).__name__}")
        given = _given(cells)
        if self.kind is Kind.CATALOGUE:
            return Product.model_validate({name: _parsed(name, value) for name, value in given.items()})
        return Shopper.model_validate(given) if self.kind is Kind.SHOPPERS else Review.model_validate(given)

    def _rows(self, models: list[Any]) -> dict[str, Sequence[Any]]:
        if self.kind is Kind.EVENTS:
            return self._event_columns(models)
        makers: dict[Kind, Callable[[Any], Row]] = {
            Kind.CATALOGUE: product_row,
            Kind.SHOPPERS: lambda shopper: shopper_row(shopper, self.pseudonyms),
            Kind.REVIEWS: lambda review: review_row(review, self.pseudonyms),
        }
        rows = [makers[self.kind](model) for model in models]
        return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}

    def _event_columns(self, events: list[Event]) -> dict[str, Sequence[Any]]:
        """The events by column; when it was known defaults to when it happened."""
        fields = [event.__dict__ for event in events]
        columns: dict[str, Sequence[Any]] = {name: [event[name] for event in fields] for name in _EVENT_COLUMNS}
        columns["created_ts"] = [event["created_ts"] or event["event_ts"] for event in fields]
        if self.from_inbox:
            return columns | {name: [event[name] for event in fields] for name in ("shopper_key", "key_id", "is_anonymous", "anonymous_key")}
        key = self.pseudonyms.key
        columns["shopper_key"] = [key(event["anonymous_id"], anonymous=True) if event["shopper_id"] is None else key(event["shopper_id"]) for event in fields]
        columns["is_anonymous"] = [event["shopper_id"] is None for event in fields]
        columns["anonymous_key"] = [
            key(event["anonymous_id"], anonymous=True) if event["shopper_id"] is not None and event["anonymous_id"] is not None else None for event in fields
        ]
        return columns | {"key_id": [self.pseudonyms.key_id] * len(events)}

    def _original(self, record: RawRecord) -> bytes:
        """The record as it came, but shopper ids as pseudonyms; a CSV row of personal records as JSON, so that they can be found."""
        if self.kind in (Kind.CATALOGUE, Kind.PHOTOS):
            return record.raw or as_json(record.cells or {})
        raw = record.raw if record.cells is None else as_json(record.cells)
        return self.pseudonyms.scrub(raw)


def checked_tables(chunk: Chunk, checker: Checker, s3: S3Options) -> Iterator[pa.Table]:
    """A chunk's records, checked, as tables of bounded size in `staged_schema(checker.kind)`."""
    for records in read_chunk(chunk, s3):
        yield checker.check(records, chunk.source)


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


def problem_of(error: ValidationError) -> Problem:
    """The first broken rule as `field.rule`, and a sentence for the first three; values of shopper ids are not repeated."""
    found = error.errors(include_url=False, include_context=False)
    first = found[0]
    if first["type"] == "json_invalid":
        return Problem("json.invalid", f"a record must be one JSON object: {first['msg']}")
    return Problem(f"{_field(first['loc'])}.{first['type']}", "; ".join(_sentence(one) for one in found[:3]))


def _field(location: Iterable[object]) -> str:
    return ".".join(str(part) for part in location) or "record"


def _sentence(error: Any) -> str:
    field = _field(error["loc"])
    if field == "record" or error["type"] == "missing" or field.split(".")[0] in _HIDDEN:
        return f"{field}: {error['msg']}"
    return f"{field}: {error['msg']}, got {str(error['input'])[:80]!r}"
