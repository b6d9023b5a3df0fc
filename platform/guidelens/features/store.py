"""Feature tables and point-in-time frames through Feast, and the online store opened beside them."""

import contextlib
import importlib
import io
import string
import threading
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from guidelens.config import FEATURE_SERVICE, FeatureConfig, Home
from guidelens.data.features import log as feature_log
from guidelens.data.features.shoppers import ALWAYS
from guidelens.errors import FeatureStoreError, NotFoundError
from guidelens.features.online import STOCK_VIEW, OnlineReader
from guidelens.schemas.base import Frozen

SHOPPER_TABLE = "shopper"
LOG = "log"
"""Folder beside the tables: what the last materialization counted (data/features/log.py)."""
PRODUCT_TABLE = "product.parquet"
ENTITY_COLUMNS = ("shopper_key", "event_timestamp")

_CONTENT_VIEW = "product_content"


class MaterializeReport(Frozen):
    """rows: by feature view, rows in the offline tables. online: by feature view, entities loaded into the online store."""

    feature_service: str
    rows: dict[str, int]
    online: dict[str, int]


class ViewStatus(Frozen):
    """Of one feature view. newest: the time of its newest row; age_s: how long ago that was. ttl_s: None where rows never go stale."""

    entity: str
    rows: int
    newest: datetime | None
    age_s: float | None
    ttl_s: float | None
    online_entities: int


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
            store.apply([*definitions.ENTITIES, *definitions.views(timedelta(days=self.config.shopper_ttl_days)), *definitions.SERVICES])

    def materialize(self, shopper_rows: pl.DataFrame, product_rows: pl.DataFrame, as_of: datetime) -> MaterializeReport:
        """Replaces the feature tables and loads the newest row of each entity up to as_of into the online store.

        The catalogue is a snapshot: its newest rows are loaded whenever they became known. What was pushed online later than a row
        to be loaded stays; what came out of the tables before, and is newer than what they hold now, goes.
        """
        from feature_repo.parts import by_month, is_table, replace_table, write_parquet

        before = self.shopper_table(ENTITY_COLUMNS) if is_table(self.offline / SHOPPER_TABLE) else None
        replace_table(self.offline / SHOPPER_TABLE, by_month(shopper_rows))
        write_parquet(product_rows, self.offline / PRODUCT_TABLE)
        self.apply()
        if before is not None:
            self._retire(_newest_of_each(before), _newest_of_each(shopper_rows))
        newest = shopper_rows.filter(pl.col("event_timestamp") <= as_of).sort("event_timestamp").unique("shopper_key", keep="last").sort("shopper_key")
        self.online().load_shoppers(newest)
        self._load_products(product_rows, as_of)
        return self._report({"shopper": len(newest), "product": product_rows["product_id"].n_unique()})

    def update(self, shopper_rows: pl.DataFrame, since: pl.DataFrame, product_rows: pl.DataFrame | None, until: datetime | None = None) -> MaterializeReport:
        """Replaces the rows of some shoppers from a moment on, in the tables and online; the rest stays as it is.

        Args:
            shopper_rows: the rows as they are now; of shoppers in `since`, and none stamped before it.
            since: shopper_key, since: rows stamped from then on go away. A shopper left without rows goes offline.
            product_rows: the whole catalogue; None where it did not change.
            until: rows stamped from then on stay.
        """
        from feature_repo.parts import replace_parts, write_parquet
        from feature_repo.shopper_table import replaced

        months, gone = replaced(self.offline / SHOPPER_TABLE, shopper_rows, since, until)
        replace_parts(self.offline / SHOPPER_TABLE, months)
        self._load_shoppers(since["shopper_key"], gone)
        if product_rows is not None:
            write_parquet(product_rows, self.offline / PRODUCT_TABLE)
            self._load_products(product_rows, ALWAYS)
        return self._report({"shopper": len(since), "product": 0 if product_rows is None else len(product_rows)})

    def _load_products(self, product_rows: pl.DataFrame, otherwise: datetime) -> None:
        """otherwise: the time of a catalogue without rows."""
        with _quiet():
            self._store().materialize(ALWAYS, _newest(product_rows) or otherwise, feature_views=[_CONTENT_VIEW, STOCK_VIEW])

    def _load_shoppers(self, shopper_keys: pl.Series, gone: pl.DataFrame) -> None:
        """Loads the newest row of each of these shoppers. `gone`: shopper_key, event_timestamp of the newest row that went away."""
        from feature_repo.shopper_table import moments

        newest = self.shopper_rows_before(moments(shopper_keys, None))
        self._retire(gone, newest)
        self.online().load_shoppers(newest)

    def _retire(self, gone: pl.DataFrame, newest: pl.DataFrame) -> None:
        """Takes offline whose newest row went away with none as new left: what is online counts what the lake no longer holds.

        A row that is older would not overwrite it.
        """
        left = gone.join(newest.select("shopper_key", left="event_timestamp"), on="shopper_key", how="left")
        online = self.online()
        for key in left.filter(pl.col("left").is_null() | (pl.col("left") < pl.col("event_timestamp")))["shopper_key"]:
            online.forget(key)

    def _report(self, online: Mapping[str, int]) -> MaterializeReport:
        from feature_repo.parts import num_rows

        held = {"shopper": num_rows(self.offline / SHOPPER_TABLE), "product": pl.scan_parquet(self.offline / PRODUCT_TABLE).select(pl.len()).collect().item()}
        entities = {view.name: view.entities[0] for view in sorted(self._store().list_feature_views(), key=lambda view: str(view.name))}
        return MaterializeReport(
            feature_service=FEATURE_SERVICE,
            rows={name: held[entity] for name, entity in entities.items()},
            online={name: online[entity] for name, entity in entities.items()},
        )

    def status(self, now: datetime) -> dict[str, ViewStatus]:
        """Rows, age and online entities of each feature view.

        Raises:
            NotFoundError: nothing was materialized in this home yet.
        """
        self._require_tables()
        store = self._store()
        from feature_repo.parts import read_table

        stamps = {name: read_table(self.offline / table, ["event_timestamp"]) for name, table in (("shopper", SHOPPER_TABLE), ("product", PRODUCT_TABLE))}
        online = store._get_provider().online_store
        found = {}
        for view in sorted(store.list_feature_views(), key=lambda view: str(view.name)):
            rows = stamps[view.entities[0]]
            newest = _newest(rows)
            found[view.name] = ViewStatus(
                entity=view.entities[0],
                rows=len(rows),
                newest=newest,
                age_s=None if newest is None else (now - newest).total_seconds(),
                ttl_s=view.ttl.total_seconds() if view.ttl else None,
                online_entities=online.num_entities(store.config, view),
            )
        return found

    def shopper_rows_before(self, since: pl.DataFrame) -> pl.DataFrame:
        """Of each shopper (shopper_key, since) the newest row of the table stamped before `since` (null: the newest of all).

        Raises:
            NotFoundError: nothing was materialized in this home yet.
        """
        self._require_tables()
        from feature_repo.shopper_table import newest_before

        return newest_before(self.offline / SHOPPER_TABLE, since)

    def shopper_table(self, columns: Sequence[str]) -> pl.DataFrame:
        """All shopper rows, with the columns asked for.

        Raises:
            NotFoundError: nothing was materialized in this home yet.
        """
        self._require_tables()
        from feature_repo.parts import read_table

        return read_table(self.offline / SHOPPER_TABLE, columns)

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
        known: pl.DataFrame = store.get_historical_features(_entity_frame(entities), refs).to_polars()
        if len(known) != len(entities):
            raise FeatureStoreError(f"the feature store must answer {len(entities)} rows, got {len(known)}")
        return entities.with_columns(known["packed"])

    def products(self) -> pl.DataFrame:
        """The catalogue snapshot: views product_content and product_stock of every product, sorted by product_id.

        Returns:
            product_id, event_timestamp (known from) and the views' features; embeddings are float32 lists, null where missing.

        Raises:
            NotFoundError: nothing was materialized in this home yet.
        """
        self._require_tables()
        store = self._store()
        views = [store.get_feature_view(name) for name in (_CONTENT_VIEW, STOCK_VIEW)]
        features = list(dict.fromkeys(feature.name for view in views for feature in view.features))
        source = views[0].batch_source
        job = store._get_provider().offline_store.pull_all_from_table_or_query(
            store.config, source, views[0].join_keys, features, source.timestamp_field, source.created_timestamp_column
        )
        rows = pl.DataFrame(pl.from_arrow(job.to_arrow()))
        return rows.sort("event_timestamp", maintain_order=True).unique("product_id", keep="last").sort("product_id")

    def online(self) -> OnlineReader:
        """The online store, for any number of threads.

        Raises:
            NotFoundError: nothing was materialized in this home yet.
        """
        self._require_tables()
        return OnlineReader(self._store())

    def forget(self, *shopper_keys: str) -> int:
        """Removes shoppers from the feature tables and the online store; returns the rows removed, by table and view."""
        from feature_repo.parts import is_table, num_rows, replace_parts
        from feature_repo.shopper_table import moments, replaced

        folder = self.offline / SHOPPER_TABLE
        if not is_table(folder):
            return 0
        online, before = self.online(), num_rows(folder)
        removed = sum(online.forget(key) for key in shopper_keys)
        online.compact()
        months, _ = replaced(folder, pl.DataFrame(), moments(pl.Series(shopper_keys, dtype=pl.String), None))
        replace_parts(folder, months)
        feature_log.forget(self.home.feast / LOG, *shopper_keys)
        return before - num_rows(folder) + removed

    def let_go(self, shopper_keys: pl.Series, before: datetime | None) -> tuple[int, int]:
        """Removes these shoppers from the feature tables, and from the online store whoever has no row stamped `before` or later.

        Who has a newer row online than in the tables keeps it: something came since.

        Returns:
            Rows removed from the shopper table, and shoppers removed from the online store.
        """
        from feature_repo.parts import is_table, num_rows, replace_parts
        from feature_repo.shopper_table import moments, replaced

        folder = self.offline / SHOPPER_TABLE
        if not is_table(folder):
            return 0, 0
        held = num_rows(folder)
        months, _ = replaced(folder, pl.DataFrame(), moments(shopper_keys, None))
        replace_parts(folder, months)
        return held - num_rows(folder), 0 if before is None else self.online().expire(before)

    def forget_everybody(self) -> int:
        """Removes all shoppers: their rows are under names that mean nothing any more. Returns the rows removed, by table and view."""
        from feature_repo.parts import is_table, read_table

        folder = self.offline / SHOPPER_TABLE
        return self.forget(*read_table(folder, ["shopper_key"])["shopper_key"].unique()) if is_table(folder) else 0

    def _require_tables(self) -> None:
        from feature_repo.parts import is_table

        if not is_table(self.offline / SHOPPER_TABLE) or not (self.offline / PRODUCT_TABLE).exists():
            raise NotFoundError(f"the feature store in {self.home.feast} has no feature tables of this version; run `guidelens materialize` first")

    def _store(self) -> Any:
        with self._opening:
            if self._opened is None:
                self._opened = _open_store(self.home, self.config)
            return self._opened


def _entity_frame(entities: pl.DataFrame) -> Any:
    """As pandas, which Feast asks for; the keys stay in Arrow's memory, for a Python string each costs more than the join."""
    import pandas as pd
    import pyarrow as pa

    keys = entities["shopper_key"].to_arrow(compat_level=pl.CompatLevel.oldest())
    text = pd.ArrowDtype(pa.large_string())
    return pd.DataFrame({"shopper_key": pd.Series(keys, dtype=text), "event_timestamp": entities["event_timestamp"].to_pandas()})


def _newest_of_each(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.group_by("shopper_key").agg(pl.col("event_timestamp").max())


def _newest(rows: pl.DataFrame) -> datetime | None:
    found = rows["event_timestamp"].max()
    return found if isinstance(found, datetime) else None


def _open_store(home: Home, config: FeatureConfig) -> Any:
    """A FeatureStore of feature_repo/feature_store.yaml with `${GUIDELENS_HOME}` set to the home given."""
    feast = _import_feast()
    repo = feature_repo_path()
    text = string.Template((repo / "feature_store.yaml").read_text()).substitute(GUIDELENS_HOME=home.root)
    settings = yaml.safe_load(text)
    if config.online_store == "redis":
        settings["online_store"] = {"type": "feature_repo.redis_online_store.NewerWinsRedisOnlineStore", "connection_string": config.redis_connection}
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
