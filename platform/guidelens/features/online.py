"""The online store, read and written a row at a time: what a request needs."""

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from guidelens.data.features.shoppers import ALWAYS
from guidelens.data.features.updates import advanced
from guidelens.data.pseudonyms import PseudonymousEvent
from guidelens.errors import StorageError
from guidelens.schemas.packed import PACKED_DTYPE

PACKED_VIEW = "shopper_packed"
STOCK_VIEW = "product_stock"
_WRITTEN_AT_ONCE = 200
"""Rows: of many more values at once, Python spends most of the time looking for garbage among them."""


class StockAndPrice(NamedTuple):
    """Of one product; None where the catalogue does not say. price_minor in minor units of currency."""

    stock: int | None
    price_minor: int | None
    currency: str | None


class OnlineReader:
    """Reads and pushes single rows, through Feast's online store without its per-call overhead. Thread-safe.

    Each call takes one read or write of the store: 0.3-3 ms, so call it from a thread where nothing may block.
    """

    def __init__(self, store: Any, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._store = store
        self._online = store._get_provider().online_store
        self._views = {view.name: view for view in store.list_feature_views()}
        self._lock = threading.Lock()
        self._now = now

    def shopper(self, shopper_key: str) -> bytes | None:
        """The shopper's packed row (schemas/packed.py), None where the store has none that is younger than the view's ttl."""
        view = self._views[PACKED_VIEW]
        key = entity_key("shopper_key", shopper_key)
        with self._lock:
            ((_, values),) = self._online.online_read(self._store.config, view, [key], ["packed"])
        if values is None or not values["packed"].HasField("bytes_val"):
            return None
        packed = bytes(values["packed"].bytes_val)
        return packed if not view.ttl or self._now() <= _as_of(packed) + view.ttl else None

    def stock_and_price(self, product_ids: Sequence[str]) -> dict[str, StockAndPrice]:
        """Stock and price by product, in one multi-get; products of which the store knows neither are left out."""
        if not product_ids:
            return {}
        keys = [entity_key("product_id", product_id) for product_id in product_ids]
        with self._lock:
            found = self._online.online_read(self._store.config, self._views[STOCK_VIEW], keys, ["stock", "price_minor", "currency"])
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

        row = (entity_key("shopper_key", shopper_key), {"packed": Value(bytes_val=packed)}, _as_of(packed), None)
        with self._lock:
            self._online.online_write_batch(self._store.config, self._views[PACKED_VIEW], [row], None)

    def load_shoppers(self, rows: pl.DataFrame) -> None:
        """Writes rows of the shopper table into all shopper views, as a materialization does; rows newer than these stay."""
        from feature_repo.entity_rows import entity_rows

        for view in self._shopper_views():
            for batch in rows.iter_slices(_WRITTEN_AT_ONCE):
                data = entity_rows(batch, view)
                with self._lock:
                    self._online.online_write_batch(self._store.config, view, data, None)

    def _shopper_views(self) -> list[Any]:
        return [view for view in self._views.values() if view.entities == ["shopper"]]

    def observe(self, events: Sequence[PseudonymousEvent]) -> None:
        """Counts new events into their shoppers' rows (data/features/updates.py), a shopper that has none gets one.

        Events must not have been observed before; of two processes observing one shopper at one time, one's may be lost
        until the next materialization.
        """
        for shopper_key in sorted({event.shopper_key for event in events}):
            mine = [event for event in events if event.shopper_key == shopper_key]
            self.push_shopper(shopper_key, advanced(self.shopper(shopper_key), mine))

    def forget(self, shopper_key: str) -> int:
        """Removes the shopper's rows of all views; returns how many there were."""
        with self._lock:
            held: int = self._online.forget_entity(self._store.config, self._shopper_views(), entity_key("shopper_key", shopper_key))
        return held

    def expire(self, before: datetime) -> int:
        """Removes the shoppers of whom no view holds a row stamped `before` or later, with the bytes; returns how many there were."""
        with self._lock:
            gone: int = self._online.expire_entities(self._store.config, self._shopper_views(), before)
        if gone:
            self.compact()
        return gone

    def compact(self) -> None:
        """Leaves nothing of removed rows in the store's files: sqlite keeps the bytes of freed pages, and of all in its log.

        Raises:
            StorageError: somebody reads without end, so that the log cannot be emptied.
        """
        from feast.infra.online_stores.sqlite import SqliteOnlineStore

        if isinstance(self._online, SqliteOnlineStore):
            with self._lock:
                connection = self._online._get_conn(self._store.config)
                connection.execute("VACUUM")
                (is_busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if is_busy:
                raise StorageError("the online store's log must be emptied of removed rows, but a reader holds it; run this again")


def _as_of(packed: bytes) -> datetime:
    return ALWAYS + timedelta(microseconds=int(np.frombuffer(packed, dtype=PACKED_DTYPE)[0]["as_of_us"]))


def _any_value(values: Any) -> bool:
    """Whether an entity was found: sqlite answers None for one it does not know, Redis a row of unset values."""
    return values is not None and any(value.WhichOneof("val") for value in values.values())


def entity_key(join_key: str, value: str) -> Any:
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    return EntityKey(join_keys=[join_key], entity_values=[Value(string_val=value)])
