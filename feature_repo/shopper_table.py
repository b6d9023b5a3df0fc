"""The shopper table (parts.py): its newest rows before a moment, and what it becomes when rows from a moment on are replaced."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from feature_repo.parts import TIMESTAMP, by_month, parts_of, schema_path

TIME = pl.Datetime("us", "UTC")
KEY = ["shopper_key", TIMESTAMP]
_BEGINNING = datetime(1900, 1, 1, tzinfo=UTC)


def moments(shopper_keys: pl.Series, moment: datetime | None) -> pl.DataFrame:
    """shopper_key, since: one moment for all of them; none means all rows."""
    return pl.DataFrame({"shopper_key": shopper_keys}, schema={"shopper_key": pl.String}).with_columns(since=pl.lit(moment, TIME))


def newest_before(folder: Path, since: pl.DataFrame) -> pl.DataFrame:
    """Of each shopper (shopper_key, since) the newest row stamped before `since` (null: the newest of all), where there is one.

    Looks at the newest months first, and at no more of them than it takes.
    """
    sought, found = since, [pl.read_parquet(schema_path(folder), n_rows=0)]
    for month, part in reversed(parts_of(folder).items()):
        if sought.filter(pl.col("since").is_null() | (pl.col("since").dt.strftime("%Y-%m") >= month)).is_empty():
            continue
        rows = pl.read_parquet(part).join(sought, on="shopper_key")
        earlier = rows.filter(pl.col("since").is_null() | (pl.col(TIMESTAMP) < pl.col("since"))).drop("since")
        found.append(earlier.sort(TIMESTAMP).unique("shopper_key", keep="last", maintain_order=True))
        sought = sought.join(found[-1], on="shopper_key", how="anti")
    return pl.concat(found).sort("shopper_key")


def replaced(folder: Path, rows: pl.DataFrame, since: pl.DataFrame, until: datetime | None = None) -> tuple[dict[str, pl.DataFrame], pl.DataFrame]:
    """The months that change, and shopper_key, event_timestamp of the newest row that goes away of each shopper.

    Args:
        rows: what comes in place of the rows that go away.
        since: shopper_key, since: rows stamped from then on go away; null means all of the shopper's.
        until: rows stamped from then on stay.
    """
    added = by_month(rows) if len(rows) else {}
    stale = pl.col("__since").is_not_null() & (pl.col(TIMESTAMP) >= pl.col("__since"))
    if until is not None:
        stale &= pl.col(TIMESTAMP) < until
    whose = since.select("shopper_key", __since=pl.col("since").fill_null(_BEGINNING))
    first_month = whose["__since"].dt.strftime("%Y-%m").min()
    changed, gone = dict(added), [pl.DataFrame(schema={"shopper_key": pl.String, TIMESTAMP: TIME})]
    for month, part in parts_of(folder).items():
        if not isinstance(first_month, str) or month < first_month:
            continue
        held = pl.read_parquet(part).join(whose, on="shopper_key", how="left", maintain_order="left")
        leaves = held.select(stale).to_series()
        gone.append(held.filter(leaves).select(KEY))
        if leaves.any() or month in added:
            changed[month] = pl.concat([held.filter(~leaves).drop("__since"), *([added[month]] if month in added else [])]).sort(KEY)
    return changed, pl.concat(gone).group_by("shopper_key").agg(pl.col(TIMESTAMP).max())
