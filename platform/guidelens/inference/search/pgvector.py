"""Product vectors in PostgreSQL with pgvector: for catalogues that one process should not hold. The only importer of psycopg.

Filters are conditions of the same statement that looks for the nearest, and pgvector goes on looking until enough pass them
(`hnsw.iterative_scan`); few enough to compare are compared. Needs the extra `pgvector`.
"""

# Letters: D = width.

import json
import re
import threading
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import polars as pl
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from guidelens.errors import ConfigError
from guidelens.inference.search.words import normalized
from guidelens.schemas.search import SearchFilters

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
EXACT_UP_TO = 20_000
"""Products under the filters up to which they are compared one by one."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,50}")
_EF, _MAX_SCAN = 400, 200_000
_BATCH = 5000


class PgVectors:
    """One table a release; what a product may be filtered by lies beside its vector."""

    def __init__(self, connection: "psycopg.Connection[Any]", table: str, items: pl.DataFrame) -> None:
        self._connection, self._table, self._items = connection, sql.Identifier(table), items
        self._lock = threading.Lock()  # one transaction at a time on one connection

    @classmethod
    def open(cls, address: str, table: str, items: pl.DataFrame, width: int) -> Self:
        """Connects, and makes the table where it is not there yet.

        Args:
            address: postgresql://…
            items: the item table, of which `add` takes what is filtered by.

        Raises:
            ConfigError: no server there, one without pgvector, or a table name that is none.
        """
        if _NAME.fullmatch(table) is None:
            raise ConfigError(f"a table of vectors must be named with small letters, digits and _, got {table!r}")
        try:
            connection = psycopg.connect(address, autocommit=True)
            connection.execute("create extension if not exists vector")
        except psycopg.Error as error:
            raise ConfigError(f"vectors need a PostgreSQL with the extension pgvector at {_without_secret(address)}: {error}") from error
        found = cls(connection, table, items)
        found._make(width)
        return found

    def _make(self, width: int) -> None:
        self._connection.execute(
            sql.SQL(
                "create table if not exists {table} (row bigint primary key, vector vector({width}) not null, levels text[] not null, brand text, price_minor bigint,"
                " in_stock boolean not null, attributes jsonb not null)"
            ).format(table=self._table, width=sql.Literal(width))
        )

    def index(self) -> None:
        """Makes the graph; faster after the first products are there than before."""
        self._connection.execute(
            sql.SQL("create index if not exists {name} on {table} using hnsw (vector vector_cosine_ops)").format(name=self._named("near"), table=self._table)
        )
        self._connection.execute(
            sql.SQL("create index if not exists {name} on {table} using gin (levels)").format(name=self._named("levels"), table=self._table)
        )
        self._connection.execute(sql.SQL("analyze {table}").format(table=self._table))

    def fill(self, vectors: Floats) -> None:
        """Puts all products in, unless they are there; one process does it while others wait."""
        with self._connection.transaction():
            self._connection.execute("select pg_advisory_xact_lock(hashtext(%s))", (self._table.as_string(None),))
            held = self._connection.execute(sql.SQL("select count(*) from {table}").format(table=self._table)).fetchone()
            if held is not None and held[0] >= len(vectors):
                return
            for start in range(0, len(vectors), _BATCH):
                rows = np.arange(start, min(start + _BATCH, len(vectors)))
                self.add(rows, vectors[rows])
            self.index()

    def _named(self, what: str) -> sql.Identifier:
        return sql.Identifier(f"{self._table.as_string(None).strip(chr(34))}_{what}")

    def add(self, rows: Rows, vectors: Floats) -> None:
        known = self._items[rows.tolist()]
        described = [_described(row) for row in known.iter_rows(named=True)]
        statement = sql.SQL(
            "insert into {table} values (%s, %s, %s, %s, %s, %s, %s) on conflict (row) do update set vector = excluded.vector, levels = excluded.levels,"
            " brand = excluded.brand, price_minor = excluded.price_minor, in_stock = excluded.in_stock, attributes = excluded.attributes"
        ).format(table=self._table)
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.executemany(statement, [(int(row), _literal(vector), *each) for row, vector, each in zip(rows, vectors, described, strict=True)])

    def remove(self, rows: Rows) -> None:
        self._connection.execute(sql.SQL("delete from {table} where row = any(%s)").format(table=self._table), (rows.tolist(),))

    def search(self, query: Floats, k: int, filters: SearchFilters) -> tuple[Rows, Floats]:
        condition, values = _condition(filters)
        parts = {"table": self._table, "where": condition}
        with self._lock, self._connection.transaction():
            few = self._connection.execute(
                sql.SQL("select count(*) from (select 1 from {table} where {where} limit %s) passing").format(**parts), (*values, EXACT_UP_TO + 1)
            ).fetchone()
            if few is not None and few[0] <= EXACT_UP_TO:
                self._connection.execute("set local enable_indexscan = off")
            else:
                self._connection.execute(sql.SQL("set local hnsw.ef_search = {}").format(sql.Literal(_EF)))
                self._connection.execute("set local hnsw.iterative_scan = strict_order")
                self._connection.execute(sql.SQL("set local hnsw.max_scan_tuples = {}").format(sql.Literal(_MAX_SCAN)))
            found = self._connection.execute(
                sql.SQL("select row, 1 - (vector <=> %s::vector) from {table} where {where} order by vector <=> %s::vector, row limit %s").format(**parts),
                (_literal(query), *values, _literal(query), k),
            ).fetchall()
        return np.array([row for row, _ in found], np.int64), np.array([cosine for _, cosine in found], np.float32)

    def close(self) -> None:
        self._connection.close()


def _described(item: dict[str, Any]) -> tuple[list[str], str | None, int | None, bool, str]:
    """levels (every run of a category's levels, joined), brand, price, stock and attributes, as they are filtered by."""
    levels = [normalized(level) for level in (item.get("category") or "").split("/") if level]
    runs = ["/".join(levels[at:end]) for at in range(len(levels)) for end in range(at + 1, len(levels) + 1)]
    attributes = json.loads(item.get("attributes_json") or "{}")
    plain = {key: normalized(str(value)) for key, value in attributes.items() if isinstance(value, str | int | float)}
    brand = item.get("brand")
    return runs, normalized(brand) if brand else None, item.get("price_minor"), item.get("stock") != 0, json.dumps(plain, ensure_ascii=False)


def _condition(filters: SearchFilters) -> tuple[sql.Composable, list[object]]:
    parts: list[sql.Composable] = [sql.SQL("true")]
    values: list[object] = []

    def need(text: str, value: object) -> None:
        parts.append(sql.SQL(text))
        values.append(value)

    if filters.category is not None:
        need("levels @> array[%s]", "/".join(normalized(level) for level in filters.category.split("/") if level))
    if filters.brand:
        need("brand = any(%s)", [normalized(each) for each in filters.brand])
    if filters.price_min_minor is not None:
        need("price_minor >= %s", filters.price_min_minor)
    if filters.price_max_minor is not None:
        need("price_minor <= %s", filters.price_max_minor)
    if filters.in_stock:
        parts.append(sql.SQL("in_stock"))
    for key, wanted in filters.attributes.items():
        parts.append(sql.SQL("attributes ->> %s = any(%s)"))
        values += [key, [normalized(each) for each in wanted]]
    return sql.SQL(" and ").join(parts), values


def _literal(vector: Sequence[float] | Floats) -> str:
    return "[" + ",".join(f"{value:.7g}" for value in vector) + "]"


def _without_secret(address: str) -> str:
    return re.sub(r"//[^@/]*@", "//", address)
