"""What the features of a time looked like: one row a shopper, without who it is, and statistics of each feature.

A run keeps one of the features it was trained on; later ones are held against it (drift.py).
"""

from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import polars as pl

from guidelens.errors import NotFoundError
from guidelens.schemas.base import Frozen
from guidelens.schemas.packed import AR_FEATURES, PROFILE_FIELDS, PROFILE_VALUES, WINDOW_FEATURES

SNAPSHOT_DAYS = 7
"""Whole weeks, so that weekdays weigh the same in every snapshot."""
COLUMNS = (*PROFILE_FIELDS, *PROFILE_VALUES, *WINDOW_FEATURES, *AR_FEATURES)
_QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
_ABOUT, _ROWS = "statistics.json", "sample.parquet"
_TENURE = "tenure_days"


class FeatureStatistics(Frozen):
    """quantiles: of the values there, at 0, .01, .05, .25, .5, .75, .95, .99 and 1; shares: of categories, of all shoppers."""

    missing_share: float
    quantiles: tuple[float, ...] | None = None
    shares: dict[str, float] | None = None


class SnapshotAbout(Frozen):
    """log_start: when the first session of the log began; windows that reach before it count less than they will."""

    as_of: datetime
    days: int
    shoppers: int
    log_start: datetime | None
    features: dict[str, FeatureStatistics]


class FeatureSnapshot(NamedTuple):
    about: SnapshotAbout
    rows: pl.DataFrame


def snapshot_of(table: pl.DataFrame, as_of: datetime, log_start: datetime | None) -> FeatureSnapshot:
    """The newest row of each shopper seen in the SNAPSHOT_DAYS before as_of.

    Args:
        table: shopper_key, event_timestamp and COLUMNS.
    """
    inside = pl.col("event_timestamp").is_between(as_of - timedelta(days=SNAPSHOT_DAYS), as_of, closed="right")
    newest = table.filter(inside).sort("event_timestamp").unique("shopper_key", keep="last").sort("shopper_key")
    rows = newest.select(COLUMNS).sample(fraction=1.0, shuffle=True, seed=1)  # not in the order of the shoppers' keys
    statistics = {name: _statistics(rows[name]) for name in COLUMNS}
    return FeatureSnapshot(SnapshotAbout(as_of=as_of, days=SNAPSHOT_DAYS, shoppers=len(rows), log_start=log_start, features=statistics), rows)


def _statistics(values: pl.Series) -> FeatureStatistics:
    missing_share = values.null_count() / max(len(values), 1)
    if values.dtype == pl.String:
        counts = dict(values.drop_nulls().value_counts(sort=True).iter_rows())
        return FeatureStatistics(missing_share=missing_share, shares={name: count / len(values) for name, count in counts.items()})
    there = values.drop_nulls().cast(pl.Float64)
    quantiles = tuple(found for q in _QUANTILES if (found := there.quantile(q, "linear")) is not None)
    return FeatureStatistics(missing_share=missing_share, quantiles=quantiles or None)


def not_comparable(first: SnapshotAbout, second: SnapshotAbout) -> dict[str, str]:
    """Features that differ between two times without anybody behaving differently, with the reason."""
    reasons = {_TENURE: "grows by itself"}
    for name in (*WINDOW_FEATURES, *AR_FEATURES):
        hours = int(name.rpartition("_")[2].removesuffix("h"))
        reach = timedelta(days=SNAPSHOT_DAYS, hours=hours)
        if any(about.log_start is not None and about.as_of - reach < about.log_start for about in (first, second)):
            reasons[name] = "the window reaches before the log's beginning"
    return reasons


def save(snapshot: FeatureSnapshot, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _ABOUT).write_text(snapshot.about.model_dump_json(indent=1))
    snapshot.rows.write_parquet(folder / _ROWS)


def load(folder: Path) -> FeatureSnapshot:
    """Raises NotFoundError where the folder holds none."""
    if not (folder / _ABOUT).exists():
        raise NotFoundError(f"{folder} holds no feature snapshot; one is kept by `guidelens train`")
    return FeatureSnapshot(SnapshotAbout.model_validate_json((folder / _ABOUT).read_bytes()), pl.read_parquet(folder / _ROWS))
