"""The lake: Parquet tables under one URI, of which a numbered manifest says what is live.

Data files are written first, under names made of their content; the manifest is written last, by a conditional write. A
crash leaves files nobody names; two writers meet at the manifest, and the later one starts over from the newer state.
"""

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from guidelens.config import S3Options
from guidelens.errors import AlreadyExistsError, CommitConflictError, ContractError, NotFoundError, StorageError
from guidelens.schemas.base import Frozen
from guidelens.schemas.tables import LAKE_SCHEMA_VERSION, PARTITIONED_BY_DATE, SCHEMAS, Table
from guidelens.storage import open_store

_MANIFESTS = "_manifests/"


class DataFile(Frozen):
    """One live Parquet file. `date` (YYYY-MM-DD, of event_ts) only in tables partitioned by date."""

    table: Table
    key: str
    rows: int
    size_bytes: int
    sha256: str
    date: str | None = None


class Manifest(Frozen):
    """What is live. `report` is the ingest report of the run that wrote it."""

    version: int = 0
    schema_version: int = LAKE_SCHEMA_VERSION
    files: tuple[DataFile, ...] = ()
    report: dict[str, Any] = {}

    def of(self, table: Table) -> tuple[DataFile, ...]:
        return tuple(file for file in self.files if file.table == table)

    def rows(self, table: Table) -> int:
        return sum(file.rows for file in self.of(table))

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

    def _manifest_at(self, key: str) -> Manifest:
        try:
            return Manifest.model_validate_json(self.store.read_bytes(key))
        except ValidationError as error:
            raise StorageError(f"lake {self.uri}: {key} is damaged; restore it from a backup, or remove it to go back to the version before it") from error

    def replace_history(self, manifest: Manifest, files: Sequence[DataFile]) -> None:
        """Makes an older version name other files: only for data that must no longer exist. Never for the newest version."""
        live = tuple(sorted(files, key=lambda file: file.key))
        self.store.write_bytes(_manifest_key(manifest.version), manifest.model_copy(update={"files": live}).model_dump_json().encode())

    def require(self, manifest: Manifest, table: Table) -> None:
        """Raises NotFoundError, with the remedy, where a table has no rows."""
        if manifest.rows(table) == 0:
            raise NotFoundError(f"lake {self.uri} holds no {table}; run `guidelens ingest` with them first")

    def read(self, table: Table, columns: Sequence[str] | None = None, *, manifest: Manifest | None = None) -> pl.DataFrame:
        """A table as of a manifest (the newest by default); an empty frame of the right schema where it has no rows."""
        live = (manifest or self.manifest()).of(table)
        schema = SCHEMAS[table]
        wanted = list(columns) if columns is not None else schema.names
        parts = [self._read_table(table, file.key, wanted) for file in live]
        empty = pa.schema([schema.field(name) for name in wanted]).empty_table()
        joined = pa.concat_tables([empty, *parts], promote_options="default")
        frame = pl.from_arrow(joined)
        assert isinstance(frame, pl.DataFrame)
        return frame

    def read_file(self, file: DataFile) -> pl.DataFrame:
        """The rows of one data file."""
        return self.read_key(file.table, file.key)

    def read_key(self, table: Table, key: str) -> pl.DataFrame:
        """The rows of a table's data file by its key, live or not."""
        frame = pl.from_arrow(self._read_table(table, key, SCHEMAS[table].names))
        assert isinstance(frame, pl.DataFrame)
        return frame

    def _read_table(self, table: Table, key: str, columns: Sequence[str]) -> pa.Table:
        """Of a file's columns those asked for, in the table's types."""
        rows = pq.read_table(io.BytesIO(self.store.read_bytes(key)), columns=list(columns))
        return rows.cast(pa.schema([SCHEMAS[table].field(name) for name in rows.column_names]))

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
            return [self._write_file(table, rows, None)]
        frame = pl.from_arrow(rows)
        assert isinstance(frame, pl.DataFrame)
        dates = frame["event_ts"].dt.strftime("%Y-%m-%d")
        parts = [(str(date), frame.filter(dates == date)) for date in sorted(dates.unique())]
        return [self._write_file(table, part.to_arrow().cast(schema), date) for date, part in parts]

    def _write_file(self, table: Table, rows: pa.Table, date: str | None) -> DataFile:
        rows = rows.replace_schema_metadata({"guidelens.schema_version": str(LAKE_SCHEMA_VERSION)})
        sink = io.BytesIO()
        # Without Arrow's own schema embeddings are plain lists: Arrow cannot read its fixed-size lists back where one is null.
        pq.write_table(rows, sink, compression="zstd", store_schema=False)
        data = sink.getvalue()
        sha256 = hashlib.sha256(data).hexdigest()
        folder = f"{table}/date={date}" if date else str(table)
        key = f"{folder}/{sha256[:24]}.parquet"
        self.store.write_bytes(key, data)
        return DataFile(table=table, key=key, rows=rows.num_rows, size_bytes=len(data), sha256=sha256, date=date)

    def commit(self, base: Manifest, files: Sequence[DataFile], report: Mapping[str, Any]) -> Manifest:
        """Makes `files` the whole live set, on top of `base`; writes nothing where that changes nothing.

        Raises:
            CommitConflictError: another writer committed after `base` was read; read again and redo.
        """
        live = tuple(sorted(files, key=lambda file: file.key))
        if live == base.files:
            return base
        manifest = Manifest(version=base.version + 1, files=live, report=dict(report))
        try:
            self.store.create_exclusive(_manifest_key(manifest.version), manifest.model_dump_json().encode())
        except AlreadyExistsError as error:
            raise CommitConflictError(f"lake {self.uri}: another writer committed version {manifest.version} first") from error
        return manifest


def _manifest_key(version: int) -> str:
    return f"{_MANIFESTS}{version:012d}.json"
