"""Small frames for tests: rows as dicts, everything not named is null. Events are as data.sessions puts them, one client each."""

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pyarrow as pa

from guidelens.schemas.tables import SCHEMAS, Table

START = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def event(seconds: float, kind: str, session: str = "s1", shopper: str = "a", **fields: Any) -> dict[str, Any]:
    given = {"event_ts": at(seconds), "type": kind, "session_id": session, "shopper_key": shopper, "is_anonymous": False}
    return given | fields


def frame(rows: list[dict[str, Any]], table: Table = Table.EVENTS) -> pl.DataFrame:
    schema = SCHEMAS[table]
    if table is Table.EVENTS:
        rows = [{"event_id": f"e{i:05d}", "created_ts": row["event_ts"]} | row for i, row in enumerate(rows)]
    found = pl.from_arrow(pa.Table.from_pylist(rows, schema=schema))
    assert isinstance(found, pl.DataFrame)
    return found.with_columns(client_session_id="session_id", asked_as="shopper_key") if table is Table.EVENTS else found
