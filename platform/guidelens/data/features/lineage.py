"""From a feature value back to the events it was made of, and from those to files and ingest runs."""

from datetime import datetime, timedelta
from typing import Any

import polars as pl

from guidelens.data.features.shoppers import known_ts
from guidelens.data.lake.lake import Lake, Manifest
from guidelens.data.visits import of_the_session, with_products_in_view
from guidelens.errors import InputError
from guidelens.schemas.base import Frozen
from guidelens.schemas.events import EventType
from guidelens.schemas.packed import AR_FEATURES, AR_WINDOWS_H, PROFILE_FIELDS, PROFILE_VALUES, RECENT_VALUES, TYPE_OF_COUNT, WINDOW_FEATURES, WINDOWS_H

RECENT = ("recent_products", "recent_ts_us", *(f"recent_{name}" for name in RECENT_VALUES))
_DURATIONS_AND_DEPTH = ("browse_ms", "stay_ms", "view_ms", "depth")


class SourceRun(Frozen):
    """The lake version that first named a file, and the sources its ingest read events from."""

    version: int
    sources: tuple[str, ...]


def contributing(events: pl.DataFrame, row: dict[str, Any], feature: str | None) -> pl.DataFrame:
    """Those of one shopper's events that a row, or one feature of it, was made of, oldest first.

    Args:
        events: all events of the shopper.
        row: of the shopper table, by column.
        feature: a window, AR or recent feature; None for all of them.

    Raises:
        InputError: there is no such feature, or it is a profile's, which comes from the shoppers table.
    """
    if feature in (*PROFILE_FIELDS, *PROFILE_VALUES):
        raise InputError(f"--feature {feature} is of the shopper's profile: it comes from the lake's shoppers table, not from events")
    if feature is not None and feature not in (*WINDOW_FEATURES, *AR_FEATURES, *RECENT):
        raise InputError(f"--feature must be one of the shopper table's, got {feature}; such as {WINDOW_FEATURES[0]}, {AR_FEATURES[0]} or {RECENT[0]}")
    at: datetime = row["event_timestamp"]
    own = with_products_in_view(of_the_session(events))
    over = own.filter(known_ts().max().over("session_id") < at)
    if feature is None:
        counted = pl.col("event_ts") > at - timedelta(hours=max(*WINDOWS_H, *AR_WINDOWS_H))
        chosen = over.filter(counted | _of_recent_visits(over, row))
    elif feature in RECENT:
        chosen = over.filter(_of_recent_visits(over, row))
    else:
        name, _, hours = feature.rpartition("_")
        chosen = over.filter((pl.col("event_ts") > at - timedelta(hours=int(hours.removesuffix("h")))) & _adds_to(name))
    return chosen.sort("event_ts", "created_ts", "event_id")


def _adds_to(name: str) -> pl.Expr:
    if name in _DURATIONS_AND_DEPTH:
        return (pl.col(name) > 0).fill_null(False)
    if name in TYPE_OF_COUNT:
        return pl.col("type") == TYPE_OF_COUNT[name]
    return (pl.col("type") == EventType.STEP_OUTCOME) & pl.col("outcome").eq_missing(name.removeprefix("outcome_"))


def _of_recent_visits(events: pl.DataFrame, row: dict[str, Any]) -> pl.Expr:
    """Events of a session and product whose visit the row lists: a visit ends with its last event of the product."""
    ends = events.group_by("session_id", "product_id").agg(pl.col("event_ts").max().dt.epoch("us").alias("end_us"))
    listed = pl.DataFrame({"product_id": row["recent_products"], "end_us": row["recent_ts_us"]}, schema={"product_id": pl.String, "end_us": pl.Int64})
    keys = ends.join(listed, on=["product_id", "end_us"], how="semi").select(key=pl.concat_str("session_id", pl.lit("\n"), "product_id"))["key"]
    return pl.concat_str("session_id", pl.lit("\n"), "product_id").is_in(keys.implode()).fill_null(False)


def source_runs(lake: Lake, snapshot: Manifest, keys: frozenset[str]) -> dict[str, SourceRun]:
    """Of each file, the run that brought it. Reads the lake's versions, oldest first."""
    found: dict[str, SourceRun] = {}
    for manifest in lake.manifests():
        fresh = keys.intersection(file.key for file in manifest.files) - found.keys()
        found |= dict.fromkeys(fresh, SourceRun(version=manifest.version, sources=_sources(manifest)))
        if len(found) == len(keys) or manifest.version >= snapshot.version:
            break
    return found


def _sources(manifest: Manifest) -> tuple[str, ...]:
    """What an ingest report names as the files its events came from; none of a version that some other job wrote."""
    events = manifest.report.get("events")
    files = events.get("files") if isinstance(events, dict) else None
    return tuple(sorted(files)) if isinstance(files, dict) else ()
