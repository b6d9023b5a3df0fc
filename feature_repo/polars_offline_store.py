"""Feast's offline store on Parquet files and polars' as-of join.

Feast's own file store loses and merges rows where one entity meets many at one time, and drops rows older than the first
feature row. Here each row asked for comes back once, in its place, with nulls where nothing was known.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from feast.data_source import DataSource
from feast.feature_view import FeatureView
from feast.infra.offline_stores.file_source import FileSource, SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df
from feast.infra.registry.base_registry import BaseRegistry
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from feast.saved_dataset import SavedDatasetStorage

from feature_repo.parts import by_month, read_table, replace_table, schema_path, write_parquet

_MICROSECONDS = pl.Datetime("us", "UTC")
_ROW = "__row"
_KNOWN = "__known"


class PolarsOfflineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]
    """root: absolute folder that the sources' paths are relative to."""

    type: Literal["feature_repo.polars_offline_store.PolarsOfflineStore"] = "feature_repo.polars_offline_store.PolarsOfflineStore"
    root: str


class PolarsRetrievalJob(RetrievalJob):  # type: ignore[misc]
    """Computes when asked for its result."""

    def __init__(
        self, compute: Callable[[], pl.DataFrame], root: Path, full_feature_names: bool, on_demand: list[Any], metadata: RetrievalMetadata | None
    ) -> None:
        self._compute = compute
        self._root = root
        self._full_feature_names = full_feature_names
        self._on_demand = on_demand
        self._metadata = metadata

    def to_polars(self) -> pl.DataFrame:
        """The result without a copy; `to_arrow` spells strings and bytes as every Arrow reader knows them, which copies them."""
        return self._compute()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._to_arrow_internal(timeout).to_pandas()

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._compute().to_arrow(compat_level=pl.CompatLevel.oldest())

    @property
    def full_feature_names(self) -> bool:
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[Any]:
        return self._on_demand

    @property
    def metadata(self) -> RetrievalMetadata | None:
        return self._metadata

    def persist(self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        if not isinstance(storage, SavedDatasetFileStorage):
            raise TypeError(f"a saved dataset of this store must lie in a file, got {type(storage).__name__}; use SavedDatasetFileStorage")
        path = self._root / storage.file_options.uri
        if path.exists() and not allow_overwrite:
            raise FileExistsError(f"{path} exists; pass allow_overwrite=True to replace it")
        write_parquet(self._compute(), path)


class PolarsOfflineStore(OfflineStore):  # type: ignore[misc]
    """A row with `event_timestamp` t is known from t on: an entity at time T gets the newest row with t <= T.

    Rows of one entity and one timestamp tie by the source's created timestamp, then by their place in the file (the later
    one wins). A view's ttl of 0 means that rows stay known for ever; else a row older than T - ttl is null.
    """

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        **_unused: Any,
    ) -> RetrievalJob:
        if not isinstance(entity_df, pd.DataFrame):
            raise TypeError(f"entity_df must be a pandas DataFrame with the entities' keys and an event_timestamp, got {type(entity_df).__name__}")
        entities = pl.from_pandas(entity_df)
        timestamp = infer_event_timestamp_from_entity_df(dict(zip(entity_df.columns, entity_df.dtypes, strict=True)))
        wanted = [(view, _features_of(view, feature_refs)) for view in feature_views]

        def compute() -> pl.DataFrame:
            asked = entities.with_row_index(_ROW).with_columns(_as_utc(entities, timestamp).alias(_KNOWN)).sort(_KNOWN, maintain_order=True)
            for view, features in wanted:
                asked = _join_as_of(asked, _read(config, view.batch_source, _columns_of(view, features)), view, features, full_feature_names)
            return asked.sort(_ROW).drop(_ROW, _KNOWN)

        times = _as_utc(entities, timestamp)
        keys = [name for name in entities.columns if name != timestamp]
        metadata = RetrievalMetadata(features=feature_refs, keys=keys, min_event_timestamp=times.min(), max_event_timestamp=times.max())
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        return PolarsRetrievalJob(compute, _root(config), full_feature_names, on_demand, metadata)

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        order = [timestamp_field, *([created_timestamp_column] if created_timestamp_column else [])]

        def compute() -> pl.DataFrame:
            rows = _between(_read(config, data_source, [*join_key_columns, *feature_name_columns, *order]), timestamp_field, start_date, end_date)
            newest = rows.sort(order, maintain_order=True).unique(join_key_columns, keep="last", maintain_order=True)
            return newest.select(*join_key_columns, *feature_name_columns, *order)

        return PolarsRetrievalJob(compute, _root(config), False, [], None)

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        order = [timestamp_field, *([created_timestamp_column] if created_timestamp_column else [])]

        def compute() -> pl.DataFrame:
            columns = [*join_key_columns, *feature_name_columns, *order]
            return _between(_read(config, data_source, columns), timestamp_field, start_date, end_date).select(*columns)

        return PolarsRetrievalJob(compute, _root(config), False, [], None)

    @staticmethod
    def offline_write_batch(config: RepoConfig, feature_view: FeatureView, table: pa.Table, progress: Callable[[int], Any] | None) -> None:
        path = _path(config, feature_view.batch_source)
        before = read_table(path)
        added = pl.DataFrame(pl.from_arrow(table))
        if set(added.columns) != set(before.columns):
            raise ValueError(f"rows for {path.name} must have the columns {before.columns}, got {added.columns}")
        both = pl.concat([before, added.select(before.columns).cast(before.schema)])
        if path.is_file():
            write_parquet(both, path)
        else:
            replace_table(path, by_month(both))
        if progress:
            progress(table.num_rows)

    def validate_data_source(self, config: RepoConfig, data_source: DataSource) -> None:
        path = _path(config, data_source)
        if not path.exists():
            raise FileNotFoundError(f"{data_source.name}: {path} does not exist; run `guidelens materialize`")

    def get_table_column_names_and_types_from_data_source(self, config: RepoConfig, data_source: DataSource) -> list[tuple[str, str]]:
        schema = pq.read_schema(schema_path(_path(config, data_source)))
        return list(zip(schema.names, map(str, schema.types), strict=True))


def _root(config: RepoConfig) -> Path:
    return Path(config.offline_store.root)


def _path(config: RepoConfig, source: DataSource) -> Path:
    if not isinstance(source, FileSource):
        raise TypeError(f"source {source.name} must be a FileSource, got {type(source).__name__}")
    return _root(config) / str(source.path)


def _read(config: RepoConfig, source: DataSource, columns: Sequence[str]) -> pl.DataFrame:
    """The columns asked for, of those the source's field mapping renames by their new name."""
    stored = {new: old for old, new in dict(source.field_mapping).items()}
    distinct = dict.fromkeys(columns)
    return read_table(_path(config, source), [stored.get(name, name) for name in distinct]).rename(dict(source.field_mapping), strict=False)


def _as_utc(frame: pl.DataFrame, name: str) -> pl.Series:
    """A column of times as UTC microseconds; times without a zone are taken to be UTC."""
    times = frame[name]
    if times.dtype == pl.String:
        return times.str.to_datetime("%+", time_unit="us", time_zone="UTC")
    if isinstance(times.dtype, pl.Datetime) and times.dtype.time_zone is None:
        times = times.dt.replace_time_zone("UTC")
    return times.cast(_MICROSECONDS)


def _between(rows: pl.DataFrame, timestamp: str, start: datetime | None, end: datetime | None) -> pl.DataFrame:
    if start is not None:
        rows = rows.filter(pl.col(timestamp) >= pl.lit(start.astimezone(UTC), _MICROSECONDS))
    if end is not None:
        rows = rows.filter(pl.col(timestamp) <= pl.lit(end.astimezone(UTC), _MICROSECONDS))
    return rows


def _features_of(view: FeatureView, feature_refs: Sequence[str]) -> list[str]:
    prefix = f"{view.projection.name_to_use()}:"
    return [ref.removeprefix(prefix) for ref in feature_refs if ref.startswith(prefix)]


def _columns_of(view: FeatureView, features: Sequence[str]) -> list[str]:
    source = view.batch_source
    created = [source.created_timestamp_column] if source.created_timestamp_column else []
    return [*(column.name for column in view.entity_columns), source.timestamp_field, *created, *features]


def _join_as_of(asked: pl.DataFrame, rows: pl.DataFrame, view: FeatureView, features: list[str], full_names: bool) -> pl.DataFrame:
    """`asked`, sorted by `__known`, with a view's features as known by then."""
    key_map = view.projection.join_key_map
    keys = {column.name: key_map.get(column.name, column.name) for column in view.entity_columns}
    names = {feature: f"{view.projection.name_to_use()}__{feature}" if full_names else feature for feature in features}
    clash = sorted(set(names.values()) & set(asked.columns))
    if clash:
        raise ValueError(f"features {clash} come from two places; pass full_feature_names=True")
    source = view.batch_source
    order = [source.timestamp_field, *([source.created_timestamp_column] if source.created_timestamp_column else [])]
    known = rows.drop_nulls(list(keys)).sort(order, maintain_order=True)
    known = known.unique([*keys, source.timestamp_field], keep="last", maintain_order=True)
    stamped = pl.col(source.timestamp_field).cast(_MICROSECONDS).alias("__stamp")
    known = known.select(*(pl.col(key).alias(name) for key, name in keys.items()), stamped, *(pl.col(old).alias(new) for old, new in names.items()))
    joined = asked.join_asof(known, left_on=_KNOWN, right_on="__stamp", by=list(keys.values()), strategy="backward", check_sortedness=False, coalesce=False)
    if view.ttl:
        fresh = pl.col("__stamp") >= pl.col(_KNOWN) - pl.lit(view.ttl)
        joined = joined.with_columns(pl.when(fresh).then(pl.col(name)).alias(name) for name in names.values())
    return joined.drop("__stamp")
