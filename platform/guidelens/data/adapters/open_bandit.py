"""Open Bandit Dataset (Saito et al., arXiv:2008.07146): impressions of a fashion shop under a random and a Thompson-sampling policy.

Every line is one impression with its place (of three), its true propensity and whether it was clicked; it becomes one request
of one slot. The policy (`random`, `bts`) is the event's `release`, so that estimates can tell the logs apart. The data set has no
persons: a "shopper" is everyone with the same four hashed features, which are kept in the order published as gender,
age_band, region and body, though what they mean is not published. A click has no time of its own: it gets its impression's.
The user-item affinities are left out: no contract has a place for them.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl

from guidelens.data.adapters.delimited import header_of, must, read_delimited, typed
from guidelens.data.adapters.source import AdaptedLog
from guidelens.errors import InputError
from guidelens.schemas.catalog import Product

POLICIES = ("random", "bts")
_NUM_PLACES = 3
_USER = tuple(f"user_feature_{k}" for k in range(4))
_PROFILE = dict(zip(("gender", "age_band", "region", "body"), _USER, strict=True))
_NEEDED = ("timestamp", "item_id", "position", "click", "propensity_score", *_USER)
_ITEM = tuple(f"item_feature_{k}" for k in range(4))
_HASH_SHOWN = 16
"""Characters kept of each hash in a shopper's id, which may have 128."""


class _Log(NamedTuple):
    policy: str
    campaign: str
    file: Path


def load(path: Path) -> AdaptedLog:
    """The data set in `path`: POLICY/CAMPAIGN/CAMPAIGN.csv with item_context.csv beside it, for one policy or both.

    Raises:
        InputError: neither policy is there, or a campaign lacks a file or a column.
    """
    logs = _logs(path)
    for log in logs:
        header_of(log.file, ",", _NEEDED)
    return AdaptedLog(products=_products(logs), events=lambda: _events(logs), shoppers=_shoppers(logs))


def _logs(path: Path) -> list[_Log]:
    found = [
        _Log(policy, folder.name, folder / f"{folder.name}.csv")
        for policy in POLICIES
        if (path / policy).is_dir()
        for folder in sorted((path / policy).iterdir())
        if folder.is_dir()
    ]
    if not found:
        raise InputError(f"--path must be the Open Bandit Dataset's folder with random/ or bts/ and a folder a campaign in it, got {path}")
    return found


def _products(logs: list[_Log]) -> tuple[Product, ...]:
    """Items by campaign. The hashes of item features differ between the policies' files: the first file's are kept."""
    products: dict[str, Product] = {}
    for log in logs:
        context = log.file.parent / "item_context.csv"
        header_of(context, ",", ("item_id", *_ITEM))
        with context.open(newline="", encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                name = f"{log.campaign}-{row['item_id']}"
                attributes = {feature: row[feature] for feature in _ITEM if row[feature]}
                made = Product(product_id=name, title=f"Fashion item {name}", category=f"fashion/{log.campaign}", attributes=attributes)
                products.setdefault(name, made)
    return tuple(products.values())


def _rows(log: _Log) -> Iterator[pl.DataFrame]:
    """Checked lines, with the request they stand for and their shopper."""
    names = [name or "number" for name in header_of(log.file, ",", _NEEDED)]
    for block in read_delimited(log.file, ",", names, header_lines=1):
        rows = typed(block.select("line", *_NEEDED), log.file, {"position": pl.Int32, "click": pl.Int32, "propensity_score": pl.Float64})
        must(rows, log.file, "click", pl.col("click").is_in([0, 1]), "0 or 1")
        must(rows, log.file, "position", pl.col("position").is_between(1, _NUM_PLACES), f"1 to {_NUM_PLACES}")
        must(rows, log.file, "propensity_score", (pl.col("propensity_score") > 0) & (pl.col("propensity_score") <= 1), "above 0 and at most 1")
        rows = rows.with_columns(event_ts=pl.col("timestamp").str.to_datetime("%Y-%m-%d %H:%M:%S%.f%:z", time_unit="us", time_zone="UTC", strict=False))
        must(rows, log.file, "timestamp", pl.col("event_ts").is_not_null(), "a time like 2019-11-24 00:03:13.442536+00:00")
        yield rows.with_columns(
            request_id=pl.format(f"{log.policy}-{log.campaign}-{{}}", pl.col("line") - 1),
            shopper_id=pl.concat_str([pl.col(name).str.slice(0, _HASH_SHOWN) for name in _USER], separator="-"),
        )


def _events(logs: list[_Log]) -> Iterator[pl.DataFrame]:
    for log in logs:
        for rows in _rows(log):
            shown = rows.select(
                pl.format("{}-impression", "request_id").alias("event_id"),
                "event_ts",
                "shopper_id",
                pl.col("request_id").alias("session_id"),
                pl.lit("impression").alias("type"),
                pl.format(f"{log.campaign}-{{}}", "item_id").alias("product_id"),
                "request_id",
                "position",
                pl.col("propensity_score").alias("propensity"),
                pl.lit(log.policy).alias("release"),
                "click",
            )
            clicked = shown.filter(pl.col("click") == 1).with_columns(
                pl.format("{}-click", "request_id").alias("event_id"), pl.lit("click").alias("type"), pl.lit(None, pl.Float64).alias("propensity")
            )
            yield pl.concat([shown, clicked]).drop("click")


def _shoppers(logs: list[_Log]) -> pl.DataFrame:
    """One row a combination of hashed features; as many as there are, which is hundreds."""
    found = pl.DataFrame(schema=dict.fromkeys(("shopper_id", *_PROFILE), pl.String))
    for log in logs:
        for rows in _rows(log):
            found = pl.concat([found, rows.select("shopper_id", **{name: pl.col(feature) for name, feature in _PROFILE.items()})]).unique("shopper_id")
    return found.sort("shopper_id")
