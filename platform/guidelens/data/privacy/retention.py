"""What is too old leaves the lake, in every version: whole days of events with their ids, refused records, reviews, and frames of the log."""

from collections.abc import Callable
from datetime import datetime, timedelta

import polars as pl

from guidelens.config import RetentionConfig
from guidelens.data.lake.lake import DataFile, Lake, Manifest
from guidelens.data.lake.rewriting import Change, Rewritten, rewrite_every_version
from guidelens.data.lake.tables import delete
from guidelens.schemas.tables import Table


def expire(lake: Lake, retention: RetentionConfig, now: datetime, note: Callable[[int, int], None]) -> Rewritten:
    """Removes what is older than its table's time; events from before then are refused by every later ingest (`event_ts.expired`).

    Their ids go with them: an event that old can come twice only where it is refused both times.

    Raises:
        CommitConflictError: other writers were faster twelve times in a row.
    """
    events_from = None if retention.events_days is None else (now - timedelta(days=retention.events_days)).date()

    def change(file: DataFile, _named_by: Manifest) -> tuple[list[DataFile], int]:
        if file.table is Table.EVENTS and events_from is not None and file.date is not None and file.date < events_from.isoformat():
            return [], file.rows
        if file.table is Table.REVIEWS and retention.reviews_days is not None:
            return delete(lake, [file], pl.col("ts") < now - timedelta(days=retention.reviews_days))
        if file.table is Table.QUARANTINE and _is_old(file, retention.quarantine_days, now):
            return [], file.rows
        if file.table is Table.PHOTOS and _is_old(file, retention.frames_days, now):
            return delete(lake, [file], pl.col("product_id").is_null() & ~pl.col("is_catalogue_image"))
        return [file], 0

    return rewrite_every_version(lake, Change("expired", change, events_from=events_from), note)


def _is_old(file: DataFile, days: int | None, now: datetime) -> bool:
    """Files from before they were dated count from the next commit on, which dates what it writes."""
    return days is not None and file.since is not None and file.since < now - timedelta(days=days)
