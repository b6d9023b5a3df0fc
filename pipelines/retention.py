"""Remove what is older than its table's time (config `retention`): from the lake, older versions and bytes included, and from the features."""

from datetime import UTC, date, datetime, timedelta

import click

from guidelens.config import Config, Home
from guidelens.schemas.base import Frozen
from pipelines.entry import config_options, emit, home_option, progress, run_command


class Expired(Frozen):
    """removed: rows by table, `feature_rows` of the home's shopper table, `online_shoppers` of its online store.

    events_from: events from before that day (UTC) are refused from now on; None: of any day are taken. features_from: shoppers of whom
    nothing was known then or later have no features; None: everybody has.
    """

    lake: str
    manifest: int
    removed: dict[str, int]
    events_from: date | None
    features_from: datetime | None


def run(home: Home, config: Config, lake: str | None = None, now: datetime | None = None) -> Expired:
    """Applies the configured times as of now. Killed at any point, it is finished by being run again.

    Raises:
        CommitConflictError: other writers of the lake were faster again and again.
        StorageError: somebody reads the online store without end, so that the bytes of removed rows stay in its log.
    """
    from guidelens.data.lake.lake import Lake
    from guidelens.data.privacy.retention import expire

    opened, now = Lake(lake or home.lake_uri, home.s3), now or datetime.now(UTC)
    done = expire(opened, config.retention, now, lambda files, of: progress(f"retention: {files} of {of} files") if files % 500 == 0 else None)
    features_from, rows, online = _expire_features(home, config, now)
    removed = {str(table): number for table, number in done.rows.items()} | {"feature_rows": rows, "online_shoppers": online}
    return Expired(
        lake=opened.uri,
        manifest=done.manifest.version,
        removed={name: number for name, number in removed.items() if number},
        events_from=done.manifest.events_from,
        features_from=features_from,
    )


def _expire_features(home: Home, config: Config, now: datetime) -> tuple[datetime | None, int, int]:
    """The horizon, and what went behind it: rows of the shopper table and shoppers of the online store.

    Online goes too what is older than the views' ttl: nobody reads it any more, but only Redis lets it go by itself.
    """
    import polars as pl

    from guidelens.data.features import log as feature_log
    from guidelens.data.features.dormant import dormant, horizon, move_horizon
    from guidelens.features import LOG, Features

    days, ttl = config.retention.features_days, config.features.shopper_ttl_days
    shoppers_from = horizon(home.feast) if days is None else move_horizon(home.feast, now - timedelta(days=days))
    has_log = feature_log.exists(home.feast / LOG)
    asleep = dormant(feature_log.load(home.feast / LOG), shoppers_from) if has_log else pl.Series("shopper_key", dtype=pl.String)
    unread = [now - timedelta(days=ttl)] if ttl else []
    before = max([*unread, *([shoppers_from] if shoppers_from else [])], default=None)
    return shoppers_from, *Features(home, config.features).let_go(asleep, before)


@click.group("retention", help=__doc__)
def command() -> None:
    pass


@command.command("apply", help="Remove it now. Times are set as --set retention.events_days=N; without any, all is kept.")
@click.option("--lake", default=None, metavar="URI", help="The home's by default.")
@config_options
@home_option
def apply_command(home: Home, config: Config, lake: str | None) -> None:
    emit(run(home, config, lake))


if __name__ == "__main__":
    run_command(command)
