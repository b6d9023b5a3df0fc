"""The lake: Parquet tables under one URI, of which a numbered manifest says what is live.

Data files are written first, under names made of their content; the manifest is written last, by a conditional write. A
crash leaves files nobody names; two writers meet at the manifest, and the later one starts over from the newer state (docs/lake.md).
"""

import hashlib
import io
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, TypeVar

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from guidelens.config import S3Options
from guidelens.crash_points import reach
from guidelens.errors import AlreadyExistsError, CommitConflictError, ContractError, NotFoundError, StorageError
from guidelens.schemas.base import Frozen
from guidelens.schemas.tables import LAKE_SCHEMA_VERSION, PARTITIONED_BY_DATE, SCHEMAS, Table
from guidelens.storage import open_store

_MANIFESTS = "_manifests/"
_UNIQUE = frozenset({"event_id", "record_sha256", "row_sha256", "sha256"})
_PINS = "_pins/"
LiveFile = TypeVar("LiveFile", "DataFile", "IdFile")


class DataFile(Frozen):
    """One live Parquet file. `date` (YYYY-MM-DD, of event_ts) only in tables partitioned by date.

    since: when the oldest of its rows came into the lake; what is written in place of a file keeps its own. None before the commit.
    """

    table: Table
    key: str
    rows: int
    size_bytes: int
    sha256: str
    date: str | None = None
    since: datetime | None = None


class IdFile(Frozen):
    """Ids of rows of a table, `num_ids` of them, none of which another one of its live id files holds (see event_ids.py)."""

    table: Table
    key: str
    num_ids: int
    size_bytes: int
    sha256: str


class Manifest(Frozen):
    """What is live.

    Attributes:
        offsets: by partition of a stream (kafka://CLUSTER/TOPIC/PARTITION), up to where it was taken in: the offset to go on from.
        passing: one of a stream of small commits, which thinning (history.py) may remove.
        report: of the run that wrote it.
        writer: different in each attempt to write one.
        follows: the writer of the version before it that is not passing; empty for the first. None where it was not written down yet.
        key_id: of the key that all its pseudonyms are made with; empty in a lake from before keys could be rotated: the first.
        events_from: events that happened before that day (UTC) have expired and are not taken in.
    """

    version: int = 0
    schema_version: int = LAKE_SCHEMA_VERSION
    files: tuple[DataFile, ...] = ()
    ids: tuple[IdFile, ...] = ()
    offsets: dict[str, int] = {}
    passing: bool = False
    report: dict[str, Any] = {}
    writer: str = ""
    follows: str | None = None
    key_id: str = ""
    events_from: date | None = None

    def of(self, table: Table) -> tuple[DataFile, ...]:
        return tuple(file for file in self.files if file.table == table)

    def ids_of(self, table: Table) -> tuple[IdFile, ...]:
        return tuple(file for file in self.ids if file.table == table)

    def rows(self, table: Table) -> int:
        return sum(file.rows for file in self.of(table))

    @property
    def objects(self) -> tuple["DataFile | IdFile", ...]:
        """All that it names."""
        return (*self.files, *self.ids)

    @property
    def keys(self) -> set[str]:
        """Of all objects that it names."""
        return {file.key for file in self.objects}

    @property
    def snapshot_sha256(self) -> str:
        """Of the live files' contents, whatever run wrote them: equal for equal data."""
        return hashlib.sha256("\n".join(sorted(f"{file.key} {file.sha256}" for file in self.files)).encode()).hexdigest()


class Lake:
    """Reads snapshots of the lake at `uri` and commits new ones."""

    def __init__(self, uri: str, s3: S3Options | None = None) -> None:
        self.store = open_store(uri, s3)
        self.uri = self.store.uri

    def manifest(self, version: int | None = None) -> Manifest:
        """The newest manifest (version 0, without files, of an empty lake), or the one asked for.

        Raises:
            NotFoundError: there is no such version.
            ContractError: it was written by a newer GuideLens.
            StorageError: it is damaged.
        """
        if version is None:
            newest = max(self.store.keys(_MANIFESTS), default=None)
            if newest is None:
                return Manifest()
            key = newest
        else:
            key = _manifest_key(version)
        found = self._manifest_at(key)
        if found.schema_version > LAKE_SCHEMA_VERSION:
            raise ContractError(f"lake {self.uri} has schema {found.schema_version}; this GuideLens reads up to {LAKE_SCHEMA_VERSION}: upgrade it")
        return found

    def manifests(self) -> Iterator[Manifest]:
        """Every version, oldest first."""
        for key in self.store.keys(_MANIFESTS):
            yield self._manifest_at(key)

    def version_times(self) -> dict[int, datetime]:
        """When each version was written, by the store's clock."""
        return {int(entry.key.removeprefix(_MANIFESTS).removesuffix(".json")): entry.modified for entry in self.store.entries(_MANIFESTS)}

    def drop_version(self, version: int) -> None:
        """Removes an older version, but none of the files it names. Never the newest."""
        self.store.delete(_manifest_key(version))

    def pin(self, version: int) -> None:
        """Keeps a version for as long as the lake: a run was trained on it."""
        self.store.write_bytes(f"{_PINS}{version:012d}", b"")

    def pinned(self) -> set[int]:
        return {int(key.removeprefix(_PINS)) for key in self.store.keys(_PINS)}

    def _manifest_at(self, key: str) -> Manifest:
        try:
            return Manifest.model_validate_json(self.store.read_bytes(key))
        except ValidationError as error:
            raise StorageError(f"lake {self.uri}: {key} is damaged; restore it from a backup, or remove it to go back to the version before it") from error

    def replace_history(self, manifest: Manifest, files: Sequence[DataFile], ids: Sequence[IdFile]) -> None:
        """Makes an older version name other files: only for data that must no longer exist. Never for the newest version."""
        changed = manifest.model_copy(update={"files": _sorted(files), "ids": _sorted(ids)})
        self.store.write_bytes(_manifest_key(manifest.version), changed.model_dump_json().encode())

    def require(self, manifest: Manifest, table: Table) -> None:
        """Raises NotFoundError, with the remedy, where a table has no rows."""
        if manifest.rows(table) == 0:
            raise NotFoundError(f"lake {self.uri} holds no {table}; run `guidelens ingest` with them first")

    def read(self, table: Table, columns: Sequence[str] | None = None, *, manifest: Manifest | None = None) -> pl.DataFrame:
        """A table as of a manifest (the newest by default); an empty frame of the right schema where it has no rows."""
        live = (manifest or self.manifest()).of(table)
        schema = SCHEMAS[table]
        wanted = list(columns) if columns is not None else schema.names
        empty = pa.schema([schema.field(name) for name in wanted]).empty_table()
        joined = pa.concat_tables([empty, *(self.read_arrow(file, wanted) for file in live)], promote_options="default")
        return _frame(joined)

    def read_file(self, file: DataFile) -> pl.DataFrame:
        """The rows of one data file."""
        return _frame(self.read_arrow(file))

    def read_arrow(self, file: DataFile, columns: Sequence[str] | None = None) -> pa.Table:
        """One data file, or of its columns those asked for, in the table's types; null where a file of an older schema lacks them.

        Raises:
            StorageError: the file is not as it was written (its size and the checksum of each page read are compared).
        """
        return self._parsed(file.table, file.key, self.store.read_bytes(file.key, file.size_bytes), columns)

    def read_key(self, table: Table, key: str) -> pl.DataFrame:
        """The rows of a table's data file by its key, live or not."""
        return _frame(self._parsed(table, key, self.store.read_bytes(key)))

    def _parsed(self, table: Table, key: str, data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
        wanted = SCHEMAS[table].names if columns is None else list(columns)
        try:
            rows = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True).read(columns=wanted)
        except (OSError, pa.ArrowInvalid) as error:
            raise StorageError(f"lake {self.uri}: {key} is damaged ({error}); restore it from a backup") from error
        fields = [SCHEMAS[table].field(name) for name in wanted]
        columns_or_nulls = [rows[one.name].cast(one.type) if one.name in rows.column_names else pa.nulls(rows.num_rows, one.type) for one in fields]
        return pa.table(columns_or_nulls, schema=pa.schema(fields))

    def write(self, table: Table, rows: pa.Table) -> list[DataFile]:
        """Writes rows as data files (one a date where the table is partitioned); live only once committed.

        Raises:
            ContractError: the columns are not the table's.
        """
        schema = SCHEMAS[table]
        try:
            rows = rows.select(schema.names).cast(schema)
        except (pa.ArrowInvalid, KeyError, ValueError) as error:
            raise ContractError(f"table {table} takes the columns {schema.names}: {error}") from error
        if rows.num_rows == 0:
            return []
        if table not in PARTITIONED_BY_DATE:
            return [self.write_file(table, rows, None)]
        frame = _frame(rows)
        dates = frame["event_ts"].dt.date()
        parts = [(day, frame.filter(dates == day)) for day in sorted(dates.unique())]
        return [self.write_file(table, part.to_arrow().cast(schema), day.isoformat()) for day, part in parts]

    def write_file(self, table: Table, rows: pa.Table, day: str | None) -> DataFile:
        """One data file of rows in the table's schema, all of one date where the table is partitioned; live only once committed."""
        return self.write_pieces(table, [rows], day)

    def write_pieces(self, table: Table, pieces: Iterable[pa.Table], day: str | None) -> DataFile:
        """`write_file` of rows that come piece by piece, each a row group or more: of the pieces only one need be in memory."""
        schema, sink, num_rows = SCHEMAS[table].with_metadata({"guidelens.schema_version": str(LAKE_SCHEMA_VERSION)}), io.BytesIO(), 0
        # Without Arrow's own schema embeddings are plain lists: Arrow cannot read its fixed-size lists back where one is null.
        options: dict[str, Any] = {"compression": "zstd", "use_dictionary": _repeating(schema), "store_schema": False, "write_page_checksum": True}
        with pq.ParquetWriter(sink, schema, **options) as writer:
            for piece in pieces:
                num_rows += piece.num_rows
                writer.write_table(piece)
        data = sink.getvalue()
        sha256 = hashlib.sha256(data).hexdigest()
        folder = f"{table}/date={day}" if day else str(table)
        key = f"{folder}/{sha256[:24]}.parquet"
        self.store.write_bytes(key, data)
        return DataFile(table=table, key=key, rows=num_rows, size_bytes=len(data), sha256=sha256, date=day)

    def commit(
        self,
        base: Manifest,
        files: Sequence[DataFile],
        report: Mapping[str, Any],
        ids: Sequence[IdFile] | None = None,
        *,
        key_id: str | None = None,
        events_from: date | None = None,
        offsets: Mapping[str, int] | None = None,
        passing: bool = False,
    ) -> Manifest:
        """Makes `files` the whole live set, on top of `base`; writes nothing where that changes nothing.

        Args:
            ids: the live id files, `base`'s by default. Where they do not hold as many ids as their table has rows, the next ingest
                makes them anew from the rows.
            key_id, events_from: as in Manifest; `base`'s by default.
            offsets: where streams go on, in place of what `base` says of the same partitions.

        Raises:
            CommitConflictError: another writer committed after `base` was read; read again and redo.
        """
        live = _dated(files, base, datetime.now(UTC))
        live_ids = base.ids if ids is None else _sorted(ids)
        same_files = [*(file.key for file in live), *(file.key for file in live_ids)] == [file.key for file in base.objects]
        marks = {"key_id": base.key_id if key_id is None else key_id, "events_from": max(filter(None, (events_from, base.events_from)), default=None)}
        same_marks = (base.key_id, base.events_from) == (marks["key_id"], marks["events_from"])
        reached = {**base.offsets, **(offsets or {})}
        if same_files and reached == base.offsets and (same_marks or not base.version):
            return base
        manifest = Manifest(
            version=base.version + 1,
            files=live,
            ids=live_ids,
            offsets=reached,
            passing=passing,
            report=dict(report),
            writer=uuid.uuid4().hex,
            follows=base.follows if base.passing else base.writer,
            **marks,
        )
        reach("manifest.before")
        if any(True for _ in self.store.entries(_MANIFESTS, after=_manifest_key(base.version))):  # its successor's own number may be free again
            raise CommitConflictError(f"lake {self.uri}: another writer committed version {manifest.version} or a later one first")
        try:
            self.store.create_exclusive(_manifest_key(manifest.version), manifest.model_dump_json().encode())
        except AlreadyExistsError as error:
            raise CommitConflictError(f"lake {self.uri}: another writer committed version {manifest.version} first") from error
        reach("manifest.after")
        return manifest


def _dated(files: Sequence[DataFile], base: Manifest, now: datetime) -> tuple[DataFile, ...]:
    """The files, sorted; those new to the lake came in now."""
    known = {file.key: file for file in base.files}
    return _sorted([known[file.key] if file.key in known else file if file.since else file.model_copy(update={"since": now}) for file in files])


def _sorted(files: Sequence[LiveFile]) -> tuple[LiveFile, ...]:
    return tuple(sorted(files, key=lambda file: file.key))


def _frame(rows: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(rows)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _repeating(schema: pa.Schema) -> list[str]:
    """Columns whose values come again and again, which a dictionary makes small; of the others it is made for nothing."""
    repeats = (pa.types.is_string, pa.types.is_integer, pa.types.is_boolean)
    return [field.name for field in schema if field.name not in _UNIQUE and any(of_kind(field.type) for of_kind in repeats)]


def _manifest_key(version: int) -> str:
    return f"{_MANIFESTS}{version:012d}.json"
