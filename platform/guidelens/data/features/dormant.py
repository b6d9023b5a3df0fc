"""Shoppers of whom nothing came for so long that their features were let go (config `retention.features_days`), until something comes again.

The horizon lies beside the feature tables, so that a materialization, whole or not, makes no rows of them. Knows nothing of Feast.
"""

from datetime import datetime
from pathlib import Path

import polars as pl

from guidelens.data.features.log import FeatureLog
from guidelens.schemas.base import Frozen

_FILE = "horizon.json"


class Horizon(Frozen):
    """shoppers_from: shoppers without a row stamped then or later have none at all."""

    shoppers_from: datetime


def horizon(folder: Path) -> datetime | None:
    """None where features were never let go."""
    try:
        return Horizon.model_validate_json((folder / _FILE).read_bytes()).shoppers_from
    except FileNotFoundError:
        return None


def move_horizon(folder: Path, to: datetime) -> datetime:
    """The horizon from now on: it never moves back, or what went would come again."""
    held = horizon(folder)
    moved = to if held is None else max(held, to)
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f".writing-{_FILE}"
    beside.write_text(Horizon(shoppers_from=moved).model_dump_json())
    beside.replace(folder / _FILE)
    return moved


def dormant(log: FeatureLog, shoppers_from: datetime | None) -> pl.Series:
    """The shopper_key of those with no moment that would stamp a row at or after the horizon."""
    if shoppers_from is None:
        return pl.Series("shopper_key", dtype=pl.String)
    newest = log.moments.group_by("shopper_key").agg(pl.col("t").max())
    return newest.filter(pl.col("t") < shoppers_from)["shopper_key"].sort()
