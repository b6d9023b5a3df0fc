"""The feature store of a home: feature tables, point-in-time frames, the online store. The only importer of feast here.

feast takes seconds to import, so it is imported when a store is opened, once a process.
"""

import contextlib
import importlib
import io
import string
import threading
import warnings
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import yaml

from guidelens.config import FEATURE_SERVICE, FeatureConfig, Home
from guidelens.data.pseudonyms import PseudonymousEvent
from guidelens.data.shopper_features import ALWAYS
from guidelens.data.shopper_updates import advanced
from guidelens.errors import FeatureStoreError, NotFoundError
from guidelens.schemas.base import Frozen
from guidelens.schemas.packed import PACKED_DTYPE

SHOPPER_TABLE = "shopper.parquet"
PRODUCT_TABLE = "product.parquet"
ENTITY_COLUMNS = ("shopper_key", "event_timestamp")

_PACKED_VIEW = "shopper_packed"
_STOCK_VIEW = "product_stock"
_CONTENT_VIEW = "product_content"


class MaterializeReport(Frozen):
    """rows: by feature view, rows in the offline tables. online: by feature view, entities loaded into the online store."""

    feature_service: str
    rows: dict[str, int]
    online: dict[str, int]


class StockAndPrice(NamedTuple):
    """Of one product; None where the catalogue does not say. price_minor in minor units of currency."""

    stock: int | None
    price_minor: int | None
    currency: str | None


def feature_repo_path() -> Path:
    """The folder a Feast client of one's own takes as repo_path, with GUIDELENS_HOME set."""
    import feature_repo  # the package itself imports nothing

    return Path(str(feature_repo.__file__)).parent


class Features:
    """Feast, opened on first use with the repository's own feature_store.yaml and this home."""

    def __init__(self, home: Home, config: FeatureConfig) -> None:
        self.home = home
        self.config = config
        self._opened: Any = None
        self._opening = threading.Lock()

    @property
    def offline(self) -> Path:
        return self.home.feast / "offline"

    def apply(self) -> None:
        """Registers entities, views and services, and makes the online tables."""
        store = self._store()
        from feature_repo import definitions

        self.home.feast.mkdir(parents=True, exist_ok=True)
        with _quiet():
            store.apply([*definitions.ENTITIES, *definitions.VIEWS, *definitions.SERVICES])

    def materialize(self, shopper_rows: pl.DataFrame, product_rows: pl.DataFrame, as_of: datetime) -> MaterializeReport:
        """Replaces the feature tables and loads the newest row of each entity up to as_of into the online store.

        The catalogue is a snapshot: its newest rows are loaded whenever they became known. What the online store holds that
        is newer than a row to be loaded stays.
        """
        store = self._store()
        from feature_repo.polars_offline_store import write_parquet

        write_parquet(shopper_rows, self.offline / SHOPPER_TABLE)
        write_parquet(product_rows, self.offline / PRODUCT_TABLE)
        self.apply()
        tables = {"shopper": shopper_rows, "product": product_rows}
        newest_product = product_rows["event_timestamp"].max()
        ends = {"shopper": as_of, "product": newest_product if isinstance(newest_product, datetime) else as_of}
        rows, online = {}, {}
        for view in sorted(store.list_feature_views(), key=lambda view: str(view.name)):
            table, end = tables[view.entities[0]], ends[view.entities[0]]
            with _quiet():
                store.materialize(ALWAYS, end, feature_views=[view.name])
            rows[view.name] = len(table)
            online[view.name] = table.filter(pl.col("event_timestamp") <= end)[view.join_keys[0]].n_unique() if len(table) else 0
        return MaterializeReport(feature_service=FEATURE_SERVICE, rows=rows, online=online)

    def shopper_frame(self, entities: pl.DataFrame) -> pl.DataFrame:
        """The shopper features of service guide_v1 as known at each row's time.

        Args:
            entities: shopper_key, event_timestamp (UTC) and any columns to carry along; rows may repeat.

        Returns:
            The same rows in the same order, with `packed` (binary; null where nothing was known yet).

        Raises:
            NotFoundError: nothing was materialized in this home yet.
        """
        self._require_tables()
        if entities.is_empty():
            return entities.with_columns(pl.lit(None, pl.Binary).alias("packed"))
        store = self._store()
        service = store.get_feature_service(FEATURE_SERVICE)
        refs = [
            f"{projection.name}:{feature.name}"
            for projection in service.feature_view_projections
            if store.get_feature_view(projection.name).entities == ["shopper"]
            for feature in projection.features
        ]
        known = store.get_historical_features(entities.select(ENTITY_COLUMNS).to_pandas(), refs).to_arrow()
        if known.num_rows != len(entities):
            raise FeatureStoreError(f"the feature store must answer {len(entities)} rows, got {known.num_rows}")
        return entities.with_columns(pl.DataFrame(pl.from_arrow(known.select(["packed"]))))

    def products(self) -> pl.DataFrame:
        """The catalogue snapshot: views product_content and product_stock of every product, sorted by product_id.

        Returns:
            product_id, event_timestamp (known from) and the views' features; embeddings are float32 lists, null where missing.

        Raises:
            NotFoundError: nothing was materialized in this home yet.
        """
        self._require_tables()
        store = self._store()
        views = [store.get_feature_view(name) for name in (_CONTENT_VIEW, _STOCK_VIEW)]
        features = list(dict.fromkeys(feature.name for view in views for feature in view.features))
        source = views[0].batch_source
        job = store._get_provider().offline_store.pull_all_from_table_or_query(
            store.config, source, views[0].join_keys, features, source.timestamp_field, source.created_timestamp_column
        )
        rows = pl.DataFrame(pl.from_arrow(job.to_arrow()))
        return rows.sort("event_timestamp", maintain_order=True).unique("product_id", keep="last").sort("product_id")

    def online(self) -> "OnlineReader":
        """The online store, for any number of threads.

        Raises:
            NotFoundError: nothing was materialized in this home yet.
        """
        self._require_tables()
        return OnlineReader(self._store())

    def forget(self, *shopper_keys: str) -> int:
        """Removes shoppers from the feature tables and the online store; returns the rows removed, by table and view."""
        path = self.offline / SHOPPER_TABLE
        if not path.exists():
            return 0
        online = self.online()
        removed = sum(online.forget(key) for key in shopper_keys)
        online.compact()
        from feature_repo.polars_offline_store import write_parquet

        rows = pl.read_parquet(path)
        kept = rows.filter(~pl.col("shopper_key").is_in(shopper_keys))
        if len(kept) < len(rows):
            write_parquet(kept, path)
        return len(rows) - len(kept) + removed

    def forget_everybody(self) -> int:
        """Removes all shoppers: their rows are under names that mean nothing any more."""
        path = self.offline / SHOPPER_TABLE
        return self.forget(*pl.read_parquet(path, columns=["shopper_key"])["shopper_key"].unique()) if path.exists() else 0

    def _require_tables(self) -> None:
        for name in (SHOPPER_TABLE, PRODUCT_TABLE):
            if not (self.offline / name).exists():
                raise NotFoundError(f"the feature store in {self.home.feast} has no {name}; run `guidelens materialize` first")

    def _store(self) -> Any:
        with self._opening:
            if self._opened is None:
                self._opened = _open_store(self.home, self.config)
            return self._opened


class OnlineReader:
    """Reads and pushes single rows, through Feast's online store without its per-call overhead. Thread-safe.

    Each call takes one read or write of the store: 0.3-3 ms, so call it from a thread where nothing may block.
    """

    def __init__(self, store: Any) -> None:
        self._store = store
        self._online = store._get_provider().online_store
        self._views = {view.name: view for view in store.list_feature_views()}
        self._lock = threading.Lock()

    def shopper(self, shopper_key: str) -> bytes | None:
        """The shopper's packed row (schemas/packed.py), None where the store has none."""
        with self._lock:
            ((_, values),) = self._online.online_read(self._store.config, self._views[_PACKED_VIEW], [_entity_key("shopper_key", shopper_key)], ["packed"])
        if values is None or not values["packed"].HasField("bytes_val"):
            return None
        return bytes(values["packed"].bytes_val)

    def stock_and_price(self, product_ids: Sequence[str]) -> dict[str, StockAndPrice]:
        """Stock and price by product, in one multi-get; products of which the store knows neither are left out."""
        if not product_ids:
            return {}
        keys = [_entity_key("product_id", product_id) for product_id in product_ids]
        with self._lock:
            found = self._online.online_read(self._store.config, self._views[_STOCK_VIEW], keys, ["stock", "price_minor", "currency"])
        known = ((product_id, values) for product_id, (_, values) in zip(product_ids, found, strict=True) if _any_value(values))
        return {
            product_id: StockAndPrice(
                values["stock"].int64_val if values["stock"].HasField("int64_val") else None,
                values["price_minor"].int64_val if values["price_minor"].HasField("int64_val") else None,
                values["currency"].string_val if values["currency"].HasField("string_val") else None,
            )
            for product_id, values in known
        }

    def push_shopper(self, shopper_key: str, packed: bytes) -> None:
        """Writes a packed row, stamped with the as_of inside it; a row newer than that stays."""
        from feast.protos.feast.types.Value_pb2 import Value

        as_of_us = int(np.frombuffer(packed, dtype=PACKED_DTYPE)[0]["as_of_us"])
        row = (_entity_key("shopper_key", shopper_key), {"packed": Value(bytes_val=packed)}, ALWAYS + timedelta(microseconds=as_of_us), None)
        with self._lock:
            self._online.online_write_batch(self._store.config, self._views[_PACKED_VIEW], [row], None)

    def observe(self, events: Sequence[PseudonymousEvent]) -> None:
        """Counts new events into their shoppers' rows (data/shopper_updates.py), a shopper that has none gets one.

        Events must not have been observed before; of two processes observing one shopper at one time, one's may be lost
        until the next materialization.
        """
        for shopper_key in sorted({event.shopper_key for event in events}):
            mine = [event for event in events if event.shopper_key == shopper_key]
            self.push_shopper(shopper_key, advanced(self.shopper(shopper_key), mine))

    def forget(self, shopper_key: str) -> int:
        """Removes the shopper's rows of all views; returns how many there were."""
        from feast.infra.online_stores.redis import RedisOnlineStore

        key = _entity_key("shopper_key", shopper_key)
        views = [view for view in self._views.values() if view.entities == ["shopper"]]
        with self._lock:
            if isinstance(self._online, RedisOnlineStore):
                return _forget_in_redis(self._online, self._store.config, key, views)
            return _forget_in_sqlite(self._online, self._store.config, key, views)

    def compact(self) -> None:
        """Leaves nothing of removed rows in the store's files: sqlite keeps the bytes of freed pages."""
        from feast.infra.online_stores.sqlite import SqliteOnlineStore

        if isinstance(self._online, SqliteOnlineStore):
            with self._lock:
                self._online._get_conn(self._store.config).execute("VACUUM")


def _any_value(values: Any) -> bool:
    """Whether an entity was found: sqlite answers None for one it does not know, Redis a row of unset values."""
    return values is not None and any(value.WhichOneof("val") for value in values.values())


def _entity_key(join_key: str, value: str) -> Any:
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    return EntityKey(join_keys=[join_key], entity_values=[Value(string_val=value)])


def _forget_in_redis(online: Any, config: Any, key: Any, views: Sequence[Any]) -> int:
    """Redis keeps all views of an entity under one key."""
    from feast.infra.online_stores.helpers import _redis_key

    name = _redis_key(config.project, key, config.entity_key_serialization_version)
    client = online._get_client(config.online_store)
    held = sum(bool(client.hexists(name, f"_ts:{view.name}")) for view in views)
    client.delete(name)
    return held


def _forget_in_sqlite(online: Any, config: Any, key: Any, views: Sequence[Any]) -> int:
    from feast.infra.key_encoding_utils import serialize_entity_key

    name = serialize_entity_key(key, config.entity_key_serialization_version)
    connection, held = online._get_conn(config), 0
    with connection:
        for view in views:
            held += connection.execute(f'DELETE FROM "{config.project}_{view.name}" WHERE entity_key = ?', (name,)).rowcount > 0
    return held


def _open_store(home: Home, config: FeatureConfig) -> Any:
    """A FeatureStore of feature_repo/feature_store.yaml with `${GUIDELENS_HOME}` set to the home given."""
    feast = _import_feast()
    repo = feature_repo_path()
    text = string.Template((repo / "feature_store.yaml").read_text()).substitute(GUIDELENS_HOME=home.root)
    settings = yaml.safe_load(text)
    if config.online_store == "redis":
        settings["online_store"] = {"type": "redis", "connection_string": config.redis_connection}
    return feast.FeatureStore(config=feast.RepoConfig(**settings, repo_path=repo))


def _import_feast() -> Any:
    """feast, without the run-time type checks of its own arguments: decorating them takes two thirds of its import.

    What it imports turns every DeprecationWarning on for the whole process; the filters are put back.
    """
    import typeguard

    decorate = typeguard.typechecked
    typeguard.typechecked = lambda target: target  # type: ignore[assignment]
    try:
        with warnings.catch_warnings():
            return importlib.import_module("feast")
    finally:
        typeguard.typechecked = decorate


def _quiet() -> contextlib.redirect_stdout[io.StringIO]:
    """Feast prints what it does, in colour, to stdout: that belongs to the verb's last line."""
    return contextlib.redirect_stdout(io.StringIO())
