"""Product vectors in PostgreSQL with pgvector: for catalogues that one process should not hold. The only importer of pg8000.

Filters are conditions of the same statement that looks for the nearest, and pgvector goes on looking until enough pass them
(`hnsw.iterative_scan`); few enough to compare are compared. Needs the extra `pgvector`, a driver in plain Python.
"""

# Letters: D = width.

import json
import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np
import pg8000.dbapi
import polars as pl
from numpy.typing import NDArray

from guidelens.errors import ConfigError
from guidelens.inference.search.words import normalized
from guidelens.schemas.search import SearchFilters

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
EXACT_UP_TO = 20_000
"""Products under the filters up to which they are compared one by one."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,50}")
_EF, _MAX_SCAN = 400, 200_000
_BATCH = 1000
_COLUMNS = 7
_VALUES = "(%s, %s::vector, array(select jsonb_array_elements_text(%s::jsonb)), %s::text, %s::bigint, %s::boolean, %s::jsonb)"


class PgVectors:
    """One table a release; what a product may be filtered by lies beside its vector."""

    def __init__(self, connection: Any, table: str, items: pl.DataFrame) -> None:
        self._connection, self._table, self._items = connection, table, items
        self._lock = threading.RLock()  # one transaction at a time on one connection

    @classmethod
    def open(cls, address: str, table: str, items: pl.DataFrame, width: int) -> Self:
        """Connects, and makes the table where it is not there yet. The password is PGPASSWORD's, as for every client of PostgreSQL.

        Args:
            address: postgresql://USER@HOST:PORT/DATABASE
            items: the item table, of which `add` takes what is filtered by.

        Raises:
            ConfigError: no server there, one without pgvector, or a table name that is none.
        """
        if _NAME.fullmatch(table) is None:
            raise ConfigError(f"a table of vectors must be named with small letters, digits and _, got {table!r}")
        parts = urlsplit(address)
        try:
            connection = pg8000.dbapi.connect(
                user=parts.username or "postgres", host=parts.hostname or "localhost", port=parts.port or 5432,
                database=parts.path.lstrip("/") or None, password=os.environ.get("PGPASSWORD"), timeout=10,
            )  # fmt: skip
            found = cls(connection, table, items)
            found._make(width)
        except (pg8000.dbapi.Error, OSError) as error:
            raise ConfigError(f"vectors need a PostgreSQL with the extension pgvector at {parts.hostname}:{parts.port or 5432}: {error}") from error
        return found

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        with self._lock:
            cursor = self._connection.cursor()
            try:
                yield cursor
                self._connection.commit()
            except BaseException:
                self._connection.rollback()
                raise
            finally:
                cursor.close()

    def _make(self, width: int) -> None:
        with self._transaction() as cursor:
            cursor.execute("create extension if not exists vector")
            cursor.execute(
                f"create table if not exists {self._table} (row bigint primary key, vector vector({int(width)}) not null, levels text[] not null,"
                " brand text, price_minor bigint, in_stock boolean not null, attributes jsonb not null)"
            )

    def index(self) -> None:
        """Makes the graph; faster after the first products are there than before."""
        with self._transaction() as cursor:
            self._index(cursor)

    def _index(self, cursor: Any) -> None:
        cursor.execute(f"create index if not exists {self._table}_near on {self._table} using hnsw (vector vector_cosine_ops)")
        cursor.execute(f"create index if not exists {self._table}_levels on {self._table} using gin (levels)")
        cursor.execute(f"analyze {self._table}")

    def fill(self, vectors: Floats) -> None:
        """Puts all products in, unless they are there; one process does it while others wait."""
        with self._transaction() as cursor:
            cursor.execute("select pg_advisory_xact_lock(hashtext(%s::text))", (self._table,))
            cursor.execute(f"select count(*) from {self._table}")
            if cursor.fetchone()[0] >= len(vectors):
                return
            self._add(cursor, np.arange(len(vectors)), vectors)
            self._index(cursor)

    def add(self, rows: Rows, vectors: Floats) -> None:
        with self._transaction() as cursor:
            self._add(cursor, rows, vectors)

    def _add(self, cursor: Any, rows: Rows, vectors: Floats) -> None:
        for start in range(0, len(rows), _BATCH):
            part = rows[start : start + _BATCH]
            described = [_described(item) for item in self._items[part.tolist()].iter_rows(named=True)]
            values = [
                value
                for row, vector, each in zip(part, vectors[start : start + _BATCH], described, strict=True)
                for value in (int(row), _literal(vector), *each)
            ]
            assert len(values) == _COLUMNS * len(part)
            cursor.execute(
                f"insert into {self._table} values {', '.join([_VALUES] * len(part))} on conflict (row) do update set vector = excluded.vector,"
                " levels = excluded.levels, brand = excluded.brand, price_minor = excluded.price_minor, in_stock = excluded.in_stock,"
                " attributes = excluded.attributes",
                values,
            )

    def remove(self, rows: Rows) -> None:
        with self._transaction() as cursor:
            cursor.execute(f"delete from {self._table} where row = any(%s)", ([int(row) for row in rows],))

    def search(self, query: Floats, k: int, filters: SearchFilters) -> tuple[Rows, Floats]:
        where, values = _condition(filters)
        with self._transaction() as cursor:
            cursor.execute(f"select count(*) from (select 1 from {self._table} where {where} limit {EXACT_UP_TO + 1}) passing", values)
            if cursor.fetchone()[0] <= EXACT_UP_TO:
                cursor.execute("set local enable_indexscan = off")
            else:
                cursor.execute(f"set local hnsw.ef_search = {_EF}")
                cursor.execute("set local hnsw.iterative_scan = strict_order")
                cursor.execute(f"set local hnsw.max_scan_tuples = {_MAX_SCAN}")
            near = _literal(query)
            cursor.execute(
                f"select row, 1 - (vector <=> %s::vector) from {self._table} where {where} order by vector <=> %s::vector, row limit {int(k)}",
                (near, *values, near),
            )
            found = cursor.fetchall()
        return np.array([row for row, _ in found], np.int64), np.array([cosine for _, cosine in found], np.float32)

    def close(self) -> None:
        self._connection.close()


def _described(item: dict[str, Any]) -> tuple[str, str | None, int | None, bool, str]:
    """levels (every run of a category's levels, joined; JSON), brand, price, stock and attributes (JSON), as they are filtered by."""
    levels = [normalized(level) for level in (item.get("category") or "").split("/") if level]
    runs = ["/".join(levels[at:end]) for at in range(len(levels)) for end in range(at + 1, len(levels) + 1)]
    attributes = json.loads(item.get("attributes_json") or "{}")
    plain = {key: normalized(str(value)) for key, value in attributes.items() if isinstance(value, str | int | float)}
    brand = item.get("brand")
    return json.dumps(runs), normalized(brand) if brand else None, item.get("price_minor"), item.get("stock") != 0, json.dumps(plain)


def _condition(filters: SearchFilters) -> tuple[str, list[object]]:
    parts, values = ["true"], list[object]()

    def need(text: str, *of: object) -> None:
        parts.append(text)
        values.extend(of)

    if filters.category is not None:
        need("levels @> array[%s::text]", "/".join(normalized(level) for level in filters.category.split("/") if level))
    if filters.brand:
        need("brand = any(%s::text[])", [normalized(each) for each in filters.brand])
    if filters.price_min_minor is not None:
        need("price_minor >= %s", filters.price_min_minor)
    if filters.price_max_minor is not None:
        need("price_minor <= %s", filters.price_max_minor)
    if filters.in_stock:
        need("in_stock")
    for key, wanted in filters.attributes.items():
        need("attributes ->> %s::text = any(%s::text[])", key, [normalized(each) for each in wanted])
    return " and ".join(parts), values


def _literal(vector: Sequence[float] | Floats) -> str:
    return "[" + ",".join(f"{value:.7g}" for value in vector) + "]"
