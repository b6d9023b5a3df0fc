"""`guidelens materialize`: point-in-time features of the lake into Feast's tables and its online store."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import click
import polars as pl

from guidelens.config import Config, Home
from guidelens.data.consent import as_consented, consented, consents
from guidelens.data.lake import Lake, Manifest
from guidelens.data.product_features import PHOTO_COLUMNS, product_rows
from guidelens.data.shopper_features import declined, known_ts, shopper_rows
from guidelens.data.visits import visits
from guidelens.errors import InputError, NotFoundError
from guidelens.schemas.base import Frozen
from guidelens.schemas.tables import Table
from pipelines.entry import config_options, emit, home_option, progress, run_command

if TYPE_CHECKING:
    from guidelens.features import OnlineReader

_EVENT_COLUMNS = (
    *("event_id", "event_ts", "created_ts", "shopper_key", "is_anonymous", "session_id", "type", "product_id"),
    *("browse_ms", "stay_ms", "depth", "view_ms", "outcome", "consent"),
)
_MARK = "materialized.json"


class Materialized(Frozen):
    """materialized.json beside the feature tables: the snapshot they hold."""

    lake: str
    manifest: int
    snapshot_sha256: str


class MaterializeResult(Frozen):
    """rows: by feature view, rows of the offline table. online: by feature view, entities loaded into the online store."""

    feature_service: str
    rows: dict[str, int]
    online: dict[str, int]
    as_of: datetime
    lake: str
    manifest: int


def run(home: Home, config: Config, lake: str | None = None, as_of: datetime | None = None, manifest: int | None = None) -> MaterializeResult:
    """Computes features of everything known by as_of and loads the newest of each shopper and product.

    Args:
        lake: URI; the home's own by default.
        manifest: version of the lake to read; the newest by default.
        as_of: by default the moment by which all of the lake's log was known, or its catalogue where it has no log.

    Raises:
        NotFoundError: the lake holds no products.
    """
    from guidelens.features import Features

    opened = Lake(lake or home.lake_uri, home.s3)
    snapshot = opened.manifest(manifest)
    opened.require(snapshot, Table.PRODUCTS)
    products = opened.read(Table.PRODUCTS, manifest=snapshot)
    forgotten = opened.read(Table.TOMBSTONES, ["shopper_key"], manifest=snapshot)["shopper_key"]
    events, shoppers = _log(opened, snapshot, forgotten)
    until = as_of or _newest(events, shoppers, products)
    known_by = until + timedelta(microseconds=1)  # rows are stamped a microsecond after what they count
    progress(f"materialize: {len(events):,} events and {len(shoppers):,} shoppers known by {until.isoformat()}")
    events = events.filter(known_ts() <= until)
    rows = shopper_rows(visits(events), events, shoppers).filter(pl.col("event_timestamp") <= known_by)
    photos = opened.read(Table.PHOTOS, PHOTO_COLUMNS, manifest=snapshot)
    progress(f"materialize: {len(rows):,} shopper rows and {len(products):,} products into Feast")
    mark = home.feast / _MARK
    mark.unlink(missing_ok=True)
    features = Features(home, config.features)
    report = features.materialize(rows, product_rows(products, photos), known_by)
    _take_offline(features.online(), [*forgotten, *declined(shoppers)])
    mark.write_text(Materialized(lake=opened.uri, manifest=snapshot.version, snapshot_sha256=snapshot.snapshot_sha256).model_dump_json())
    progress(f"materialize: {report.online['shopper_packed']:,} shoppers and {report.online['product_content']:,} products are online")
    return MaterializeResult(
        feature_service=report.feature_service, rows=report.rows, online=report.online, as_of=until, lake=opened.uri, manifest=snapshot.version
    )


def materialized(home: Home) -> Materialized:
    """The snapshot that the feature tables hold.

    Raises:
        NotFoundError: nothing was materialized, or not to its end.
    """
    path = home.feast / _MARK
    if not path.exists():
        raise NotFoundError(f"the feature store in {home.feast} holds no features; run `guidelens materialize` first")
    return Materialized.model_validate_json(path.read_bytes())


def require_features_of(home: Home, lake: Lake, snapshot: Manifest) -> None:
    """Features of another snapshot would give the log's newest requests the shopper and products of an older one.

    Raises:
        NotFoundError: nothing was materialized.
        InputError: another snapshot was.
    """
    held = materialized(home)
    if held.snapshot_sha256 != snapshot.snapshot_sha256:
        raise InputError(
            f"features must be of the snapshot to train on, version {snapshot.version} of {lake.uri}, got version {held.manifest} of {held.lake}; "
            "run `guidelens materialize` and train on the newest version"
        )


def _take_offline(online: "OnlineReader", shopper_keys: Sequence[str]) -> None:
    """Loading adds and replaces rows only: those of shoppers who declined or asked to be forgotten since the last time must be removed."""
    for key in shopper_keys:
        online.forget(key)


def _log(lake: Lake, manifest: Manifest, forgotten: pl.Series) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Events and shoppers, without those who asked to be forgotten, and without what happened while a shopper did not consent."""
    kept = ~pl.col("shopper_key").is_in(forgotten.implode())
    said = consents(lake, manifest)
    events = lake.read(Table.EVENTS, _EVENT_COLUMNS, manifest=manifest).filter(kept & pl.col("consent").fill_null(True))
    return consented(events, said), as_consented(lake.read(Table.SHOPPERS, manifest=manifest).filter(kept), said)


def _newest(events: pl.DataFrame, shoppers: pl.DataFrame, products: pl.DataFrame) -> datetime:
    """When the last of the log was known; of the catalogue where there is no log."""
    of_log = pl.concat([events.select(t=known_ts()), shoppers.select(t="created_ts")])["t"].max()
    found = of_log if of_log is not None else products["known_ts"].max()
    assert isinstance(found, datetime)
    return found


def _parsed_time(_context: click.Context, _option: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError as error:
        raise InputError(f"--as-of must be a time such as 2026-03-01T00:00:00Z, got {value!r}") from error
    if found.tzinfo is None:
        raise InputError(f"--as-of must carry a zone, got {value!r}; append Z for UTC")
    return found


@click.command("materialize")
@click.option("--lake", default=None, help="URI of the lake.  [default: the home's]")
@click.option("--as-of", default=None, metavar="TIME", callback=_parsed_time, help="RFC 3339; count what was known by then.  [default: all]")
@home_option
@config_options
def command(home: Home, config: Config, lake: str | None, as_of: datetime | None) -> None:
    """Compute point-in-time features and load the online store."""
    emit(run(home, config, lake, as_of))


if __name__ == "__main__":
    run_command(command)
