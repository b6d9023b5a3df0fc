"""Feast's sqlite online store, in which a newer value is never overwritten by an older one.

Feast's own lets the last writer win: a materialization would take back what a shopper's events have just pushed.
"""

import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Literal

from feast.feature_view import FeatureView
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.sqlite import SqliteOnlineStore, SqliteOnlineStoreConfig, _table_id
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RepoConfig

from feature_repo.moments import microseconds

_BUSY_TIMEOUT_MS = 10_000
_EXPIRED_AT_ONCE = 1_000


class NewerWinsSqliteOnlineStoreConfig(SqliteOnlineStoreConfig):  # type: ignore[misc]
    type: Literal["feature_repo.sqlite_online_store.NewerWinsSqliteOnlineStore"] = "feature_repo.sqlite_online_store.NewerWinsSqliteOnlineStore"


class NewerWinsSqliteOnlineStore(SqliteOnlineStore):  # type: ignore[misc]
    """Compares in whole microseconds; an equal time overwrites, so that a repaired row can be loaded again.

    Feast keeps `event_ts` in whole seconds and never reads `created_ts`: the microseconds of the event go there.
    """

    _conn: sqlite3.Connection | None = None

    def _get_conn(self, config: RepoConfig) -> sqlite3.Connection:
        if self._conn is None:
            connection: sqlite3.Connection = super()._get_conn(config)
            connection.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
            connection.execute("PRAGMA journal_mode=WAL")  # readers go on while a materialization writes
            connection.execute("PRAGMA synchronous=NORMAL")
            self._conn = connection
        return self._conn

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[tuple[EntityKey, dict[str, Value], datetime, datetime | None]],
        progress: Callable[[int], Any] | None,
    ) -> None:
        name = _table(config, table)
        upsert = (
            f'INSERT INTO "{name}" (entity_key, feature_name, value, event_ts, created_ts) VALUES (?, ?, ?, ?, ?) '
            "ON CONFLICT(entity_key, feature_name) DO UPDATE SET value = excluded.value, event_ts = excluded.event_ts, created_ts = excluded.created_ts "
            f'WHERE excluded.created_ts >= "{name}".created_ts'
        )
        rows = []
        for entity_key, values, timestamp, _ in data:
            key = serialize_entity_key(entity_key, entity_key_serialization_version=config.entity_key_serialization_version)
            micros = microseconds(timestamp)
            rows += [(key, feature, value.SerializeToString(), micros // 1_000_000, micros) for feature, value in values.items()]
        connection = self._get_conn(config)
        with connection:
            connection.executemany(upsert, rows)
        if progress:
            progress(len(data))

    def forget_entity(self, config: RepoConfig, views: Sequence[FeatureView], key: EntityKey) -> int:
        """Removes an entity from all views; returns of how many."""
        name = serialize_entity_key(key, entity_key_serialization_version=config.entity_key_serialization_version)
        connection, held = self._get_conn(config), 0
        with connection:
            for view in views:
                held += connection.execute(f'DELETE FROM "{_table(config, view)}" WHERE entity_key = ?', (name,)).rowcount > 0
        return held

    def expire_entities(self, config: RepoConfig, views: Sequence[FeatureView], before: datetime) -> int:
        """Removes the entities of which none of the views holds a value stamped `before` or later; returns how many. A push meanwhile is kept."""
        names, connection = [_table(config, view) for view in views], self._get_conn(config)
        stamps = " UNION ALL ".join(f'SELECT entity_key, created_ts FROM "{name}"' for name in names)
        stale = f"SELECT entity_key FROM ({stamps}) GROUP BY entity_key HAVING MAX(created_ts) < ?"
        keys = [key for (key,) in connection.execute(stale, (microseconds(before),))]
        newer = " OR ".join(f'EXISTS (SELECT 1 FROM "{name}" WHERE entity_key = ?1 AND created_ts >= ?2)' for name in names)
        gone = 0
        for start in range(0, len(keys), _EXPIRED_AT_ONCE):
            with connection:  # one transaction: the first DELETE keeps writers out until its end
                for key in keys[start : start + _EXPIRED_AT_ONCE]:
                    asked = (key, microseconds(before))
                    gone += sum(connection.execute(f'DELETE FROM "{name}" WHERE entity_key = ?1 AND NOT ({newer})', asked).rowcount for name in names) > 0
        return gone

    def num_entities(self, config: RepoConfig, view: FeatureView) -> int:
        """Entities that have a row of the view."""
        (found,) = self._get_conn(config).execute(f'SELECT COUNT(DISTINCT entity_key) FROM "{_table(config, view)}"').fetchone()
        return int(found)


def _table(config: RepoConfig, view: FeatureView) -> str:
    return str(_table_id(config.project, view, config.registry.enable_online_feature_view_versioning))
