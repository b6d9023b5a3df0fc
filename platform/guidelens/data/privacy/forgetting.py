"""Forgetting a shopper in the lake: a tombstone, every row rewritten away, older versions too, and the old bytes deleted.

After it, no live or older version of the lake holds a row of the shopper. Knows nothing of the inbox or the feature store.
"""

import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

import polars as pl

from guidelens.data.lake.lake import DataFile, Lake, Manifest
from guidelens.data.lake.rewriting import Change, rewrite_every_version
from guidelens.data.lake.tables import append, delete, rewrite
from guidelens.data.lake.tombstones import PERSONAL, forgotten_keys, sweep
from guidelens.data.sessions import client_sessions, identity_links, owned
from guidelens.schemas.tables import Table

_LINKING = ("event_id", "event_ts", "created_ts", "shopper_key", "is_anonymous", "anonymous_key", "session_id", "type")


class Person(NamedTuple):
    """Everything one shopper is called.

    shopper_id: as the shop says it; only quarantined originals that are no valid records may hold it. keys: the pseudonyms in use, which
    the tombstone keeps. old_keys: those under earlier keys. sessions: (anonymous_key, session_id) of devices that others log in on too.
    """

    shopper_id: str
    keys: frozenset[str]
    old_keys: frozenset[str] = frozenset()
    sessions: frozenset[tuple[str, str]] = frozenset()

    @property
    def every_key(self) -> frozenset[str]:
        return self.keys | self.old_keys


def with_devices(lake: Lake, person: Person) -> Person:
    """The person with the anonymous ids that their logins made theirs, as any version of the lake tells (sessions.py).

    Of a device that nobody else logged in on, everything is theirs; of a shared one, the sessions known before it was.
    """
    devices = _rows_where(lake, pl.col("shopper_key").is_in(sorted(person.keys)))["anonymous_key"].drop_nulls().unique().sort()
    rows = _rows_where(lake, pl.col("anonymous_key").is_in(devices.implode()) | pl.col("shopper_key").is_in(devices.implode()))
    links = identity_links(rows).filter(pl.col("shopper_key").is_in(sorted(person.keys)))
    alone = frozenset(links.filter(pl.col("shared_ts").is_null())["anonymous_key"])
    shared = owned(client_sessions(rows), links.filter(pl.col("shared_ts").is_not_null()))
    return person._replace(keys=person.keys | alone, sessions=frozenset(shared.select("shopper_key", "session_id").iter_rows()))


def forget_in_lake(lake: Lake, person: Person, now: datetime) -> dict[Table, int]:
    """Rows removed from the live tables; in quarantine, records whose content was removed. Zeros for a shopper who is not there.

    Raises:
        CommitConflictError: other writers were faster twelve times in a row.
    """
    holds = _mentions(person)
    change = Change("forgotten", lambda file, _: _without(lake, file, person, holds), lambda base: _new_tombstones(lake, base, person.keys, now))
    removed = rewrite_every_version(lake, change).rows
    sweep(lake, person.every_key)
    return {table: removed.get(table, 0) for table in (*PERSONAL, Table.QUARANTINE, Table.QUERIES)}


def _rows_where(lake: Lake, wanted: pl.Expr) -> pl.DataFrame:
    """Events of all versions, each once."""
    files = {file.key: file for manifest in lake.manifests() for file in manifest.of(Table.EVENTS)}
    return pl.concat([lake.read(Table.EVENTS, _LINKING, manifest=Manifest()), *_filtered(lake, files, wanted)]).unique("event_id")


def _filtered(lake: Lake, files: dict[str, DataFile], wanted: pl.Expr) -> Iterator[pl.DataFrame]:
    for file in files.values():
        yield lake.read(Table.EVENTS, _LINKING, manifest=Manifest(files=(file,))).filter(wanted)


def _new_tombstones(lake: Lake, base: Manifest, keys: frozenset[str], now: datetime) -> list[DataFile]:
    fresh = sorted(keys - forgotten_keys(lake, base))
    rows = pl.DataFrame({"shopper_key": fresh, "asked_ts": [now] * len(fresh)}, schema={"shopper_key": pl.String, "asked_ts": pl.Datetime("us", "UTC")})
    return append(lake, Manifest(), Table.TOMBSTONES, rows)


def _without(lake: Lake, file: DataFile, person: Person, holds: re.Pattern[bytes]) -> tuple[list[DataFile], int]:
    """Files in place of one, and how many of its rows named the shopper."""
    is_theirs = pl.col("shopper_key").is_in(sorted(person.every_key)).fill_null(False)
    if file.table is Table.EVENTS:
        return _without_events(lake, file, person, is_theirs)
    if file.table in PERSONAL:
        return delete(lake, [file], is_theirs)
    if file.table is Table.QUARANTINE:
        return rewrite(lake, [file], lambda rows: _emptied(rows, holds), lambda rows: sum(_hits(rows, holds)))
    return [file], 0


def _without_events(lake: Lake, file: DataFile, person: Person, is_theirs: pl.Expr) -> tuple[list[DataFile], int]:
    """Without the shopper's events; others' logins on a device that is asked to be forgotten lose its name."""
    names_device = pl.col("anonymous_key").is_in(sorted(person.every_key)).fill_null(False)
    sessions = pl.DataFrame(sorted(person.sessions), schema={"shopper_key": pl.String, "session_id": pl.String}, orient="row")

    def change(rows: pl.DataFrame) -> pl.DataFrame:
        rows = _with_devices_column(rows)
        kept = rows.filter(~is_theirs).join(sessions, on=["shopper_key", "session_id"], how="anti", maintain_order="left")
        return kept.with_columns(anonymous_key=pl.when(~names_device).then("anonymous_key"))

    def affected(rows: pl.DataFrame) -> int:
        rows = _with_devices_column(rows)
        of_sessions = rows.filter(~is_theirs & ~names_device).join(sessions, on=["shopper_key", "session_id"], how="semi")
        return rows.filter(is_theirs | names_device).height + of_sessions.height

    return rewrite(lake, [file], change, affected)


def _with_devices_column(rows: pl.DataFrame) -> pl.DataFrame:
    """A file of an older schema lacks the column."""
    return rows if "anonymous_key" in rows.columns else rows.with_columns(anonymous_key=pl.lit(None, pl.String))


def _mentions(person: Person) -> re.Pattern[bytes]:
    """Finds a pseudonym, or the id as a whole word, plain or in JSON's escapes."""
    plain, escaped = person.shopper_id.strip(), json.dumps(person.shopper_id.strip())[1:-1]
    spelled = re.escape(plain.encode()) + rb"|(?i:" + re.escape(escaped.encode()) + b")"
    names = [re.escape(key.encode()) for key in sorted(person.every_key)]
    return re.compile(rb"(?<![\w-])(?:" + spelled + rb")(?![\w-])|" + b"|".join(names))


def _hits(rows: pl.DataFrame, holds: re.Pattern[bytes]) -> list[bool]:
    return [
        any(part is not None and holds.search(part) is not None for part in (raw, message.encode()))
        for raw, message in rows.select("raw", "message").iter_rows()
    ]


def _emptied(rows: pl.DataFrame, holds: re.Pattern[bytes]) -> pl.DataFrame:
    hit = pl.Series("hit", _hits(rows, holds), dtype=pl.Boolean)
    return rows.with_columns(
        raw=pl.when(~hit).then(pl.col("raw")),
        message=pl.when(hit).then(pl.lit("the content was removed: the shopper asked to be forgotten")).otherwise(pl.col("message")),
    )
