"""Look at the features: how fresh they are, whether online equals offline, whether they drifted, and what one was made of."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import polars as pl

from guidelens.config import Config, Home
from guidelens.data.features import log as feature_log
from guidelens.data.features.checks import Comparison, compared, lacking_rows, recounted
from guidelens.data.features.lineage import SourceRun, contributing, source_runs
from guidelens.data.features.log import EventFiles
from guidelens.data.lake.lake import Lake
from guidelens.data.pseudonyms import Pseudonymizer
from guidelens.data.sessions import identity_links, in_sessions, with_owned
from guidelens.errors import FeatureStoreError, NotFoundError
from guidelens.evaluation import feature_snapshot
from guidelens.evaluation.drift import drift
from guidelens.evaluation.drift_html import render
from guidelens.features import ENTITY_COLUMNS, LOG, Features, ViewStatus
from guidelens.schemas.base import Frozen
from guidelens.schemas.packed import PACKED_DTYPE
from pipelines.entry import config_options, emit, home_option, progress, run_command
from pipelines.materialize import materialized, parsed_time

SNAPSHOT = "features"
"""Artifact folder of a run: the snapshot of the features it was trained on."""


class FeatureStatus(Frozen):
    """lag_s: how long before now the newest of the log was known."""

    lake: str
    manifest: int
    as_of: datetime
    lag_s: float
    views: dict[str, ViewStatus]


class CheckResult(Frozen):
    """online_newer: shoppers whose online row counts events that came after the last materialization, and is not compared.
    lacking_rows: sessions of these shoppers that should have made a row and did not."""

    shoppers: int
    online_newer: int
    online_equals_offline: Comparison
    recount: Comparison
    lacking_rows: int


class DriftResult(Frozen):
    drifted: bool
    features: tuple[str, ...]
    report: str
    json_report: str


class Contribution(Frozen):
    event_id: str
    event_ts: datetime
    type: str
    session_id: str
    product_id: str | None
    file: str


class Explanation(Frozen):
    """values: the row's, or the one feature's. files: of the lake, with the run that brought each."""

    shopper_key: str
    known_from: datetime
    values: dict[str, Any]
    events: tuple[Contribution, ...]
    files: dict[str, SourceRun]


def status(home: Home, config: Config) -> FeatureStatus:
    """Age and size of each feature view.

    Raises:
        NotFoundError: nothing was materialized.
    """
    held, now = materialized(home), datetime.now(UTC)
    views = Features(home, config.features).status(now)
    return FeatureStatus(lake=held.lake, manifest=held.manifest, as_of=held.as_of, lag_s=(now - held.as_of).total_seconds(), views=views)


def check(home: Home, config: Config, shoppers: int) -> CheckResult:
    """Online against offline, and rows against a recount of the lake, for a sample of shoppers.

    Raises:
        NotFoundError: nothing was materialized.
    """
    held, features = materialized(home), Features(home, config.features)
    table = features.shopper_table((*ENTITY_COLUMNS, "packed"))
    keys = table["shopper_key"].unique().sort()
    keys = keys.sample(min(shoppers, len(keys)), seed=config.seed)
    rows = table.filter(pl.col("shopper_key").is_in(keys.implode())).sort(ENTITY_COLUMNS)
    newest = rows.unique("shopper_key", keep="last", maintain_order=True)
    if ttl_days := config.features.shopper_ttl_days:
        newest = newest.filter(pl.col("event_timestamp") > datetime.now(UTC) - timedelta(days=ttl_days))  # older is not there, online
    online = features.online()
    pairs = [(online.shopper(key), packed) for key, packed in newest.select("shopper_key", "packed").iter_rows()]
    settled = [(left, right) for left, right in pairs if left is None or _as_of_us(left) <= _as_of_us(right)]
    lake = Lake(held.lake, home.s3)
    files = EventFiles(lake, lake.manifest(held.manifest))
    log = feature_log.known_by(files.read_all(list(files.files)), held.as_of)
    events = in_sessions(with_owned(log, identity_links(log))).filter(pl.col("shopper_key").is_in(keys.implode()))
    return CheckResult(
        shoppers=len(newest),
        online_newer=len(pairs) - len(settled),
        online_equals_offline=compared([left for left, _ in settled], [right for _, right in settled]),
        recount=recounted(rows, events),
        lacking_rows=lacking_rows(rows, events),
    )


def _as_of_us(packed: bytes) -> int:
    offset = PACKED_DTYPE.fields["as_of_us"][1] if PACKED_DTYPE.fields else 0
    return int.from_bytes(packed[offset : offset + 8], "little", signed=True)


def snapshot(home: Home, config: Config, as_of: datetime | None = None) -> feature_snapshot.FeatureSnapshot:
    """What the features looked like at a time, by default that of the last materialization."""
    sessions = feature_log.load(home.feast / LOG).pieces
    log_start = sessions["start_ts"].min()
    table = Features(home, config.features).shopper_table((*ENTITY_COLUMNS, *feature_snapshot.COLUMNS))
    return feature_snapshot.snapshot_of(table, as_of or materialized(home).as_of, log_start if isinstance(log_start, datetime) else None)


def compare(home: Home, config: Config, reference: feature_snapshot.FeatureSnapshot, out: Path, at: datetime | None = None) -> DriftResult:
    """Holds the features of a time against a snapshot; writes drift.json and drift.html."""
    current = snapshot(home, config, at)
    names = tuple(f"{about.days} days up to {about.as_of:%Y-%m-%d %H:%M} UTC" for about in (reference.about, current.about))
    found = drift(reference.rows, current.rows, (names[0], names[1]), left_out=feature_snapshot.not_comparable(reference.about, current.about))
    out.mkdir(parents=True, exist_ok=True)
    (out / "drift.json").write_text(found.model_dump_json(indent=1))
    (out / "drift.html").write_text(render(found))
    drifted = tuple(one.feature for one in found.features if one.drifted)
    return DriftResult(drifted=found.drifted, features=drifted, report=str(out / "drift.html"), json_report=str(out / "drift.json"))


def explain(home: Home, config: Config, shopper: str, at: datetime | None = None, feature: str | None = None) -> Explanation:
    """What the shopper's row at a time, or one feature of it, was made of.

    Args:
        shopper: shopper_id or anonymous_id as the shop says it, or a pseudonym.

    Raises:
        NotFoundError: nothing is known of the shopper then.
        InputError: there is no such feature.
        FeatureStoreError: the lake has moved on since the last materialization, and no longer explains the row.
    """
    held, features = materialized(home), Features(home, config.features)
    pseudonyms = Pseudonymizer.open(home.keys)
    asked = pl.DataFrame({"shopper_key": [pseudonyms.key(shopper), pseudonyms.key(shopper, anonymous=True), shopper]})
    # A row stamped t is known from t on.
    rows = features.shopper_rows_before(asked.unique().with_columns(since=pl.lit(at, pl.Datetime("us", "UTC")) + pl.duration(microseconds=1)))
    if rows.is_empty():
        raise NotFoundError(
            f"nothing is known of shopper {shopper} {'at any time' if at is None else f'at {at.isoformat()}'}; materialize, or ask for a later time"
        )
    row = rows.to_dicts()[0]
    lake = Lake(held.lake, home.s3)
    manifest = lake.manifest(held.manifest)
    files = EventFiles(lake, manifest)
    log, person = feature_log.load(home.feast / LOG), pl.Series([row["shopper_key"]])
    asked_as = log.clients.filter(pl.col("shopper_key") == row["shopper_key"])["asked_as"].unique().implode()
    keys = log.pieces.filter(pl.col("shopper_key").is_in(asked_as))["file"].unique().sort()
    if not set(keys) <= files.files.keys():
        raise FeatureStoreError(f"lake {lake.uri} no longer holds the files of version {held.manifest}; run `guidelens materialize` first")
    nothing = files.read_all([]).with_columns(file=pl.lit(""))
    mine = [files.read(key).filter(pl.col("shopper_key").is_in(asked_as)).with_columns(file=pl.lit(key)) for key in keys]
    chosen = contributing(log.of_people(pl.concat([nothing, *mine]), person), row, feature)
    told = chosen.select("event_id", "event_ts", "type", "session_id", "product_id", "file").to_dicts()
    named = [feature] if feature is not None else [name for name in row if name not in (*ENTITY_COLUMNS, "packed")]
    return Explanation(
        shopper_key=row["shopper_key"],
        known_from=row["event_timestamp"],
        values={name: row[name] for name in named},
        events=tuple(Contribution.model_validate(one) for one in told),
        files=source_runs(lake, manifest, frozenset(chosen["file"].unique())),
    )


@click.group("features", help=__doc__)
def command() -> None:
    pass


@command.command("status", help="As-of, age, rows and online entities of each feature view.")
@home_option
@config_options
def status_command(home: Home, config: Config) -> None:
    found = status(home, config)
    progress(f"{'view':<18} {'rows':>10} {'online':>9}  {'newest row':<20} {'age':>12}")
    for name, view in found.views.items():
        newest = "-" if view.newest is None else f"{view.newest:%Y-%m-%d %H:%M:%S}"
        age = "-" if view.age_s is None else f"{view.age_s / 3600:,.1f} h"
        progress(f"{name:<18} {view.rows:>10,} {view.online_entities:>9,}  {newest:<20} {age:>12}")
    emit(found)


@command.command("check", help="Compare online with offline, and rows with a recount of the lake, for a sample of shoppers.")
@click.option("--shoppers", default=200, show_default=True, type=click.IntRange(1))
@home_option
@config_options
def check_command(home: Home, config: Config, shoppers: int) -> None:
    found = check(home, config, shoppers)
    emit(found)
    if not (found.online_equals_offline.equal and found.recount.equal) or found.lacking_rows:
        raise FeatureStoreError("features differ (see `different` and `lacking_rows` in the result); run `guidelens materialize --full`")


@command.command("drift", help="Compare the features of a time with those a run was trained on, or of an earlier time; HTML and JSON.")
@click.option("--run", "run_id", default=None, metavar="RUN", help="Compare with the features this run was trained on.")
@click.option("--reference", default=None, metavar="TIME", callback=parsed_time, help="Compare with the features of this time instead.")
@click.option("--at", default=None, metavar="TIME", callback=parsed_time, help="The time to look at.  [default: the last materialization's]")
@click.option("--out", default=Path("out/drift"), show_default=True, type=click.Path(file_okay=False, path_type=Path))
@home_option
@config_options
def drift_command(home: Home, config: Config, run_id: str | None, reference: datetime | None, at: datetime | None, out: Path) -> None:
    if (run_id is None) == (reference is None):
        raise click.UsageError("give either --run RUN or --reference TIME")
    before = _snapshot_of_run(home, run_id) if run_id is not None else snapshot(home, config, reference)
    found = compare(home, config, before, out.absolute(), at)
    progress(f"drift: {', '.join(found.features) or 'none'}; see {found.report}")
    emit(found)


def _snapshot_of_run(home: Home, run_id: str) -> feature_snapshot.FeatureSnapshot:
    from guidelens.registry import Registry

    return feature_snapshot.load(Registry(home).download(run_id, SNAPSHOT, home.work / run_id / "reference"))


@command.command("explain", help="What a shopper's features were made of: events, with the lake's files and the runs that brought them.")
@click.argument("shopper")
@click.option("--at", default=None, metavar="TIME", callback=parsed_time, help="As known at this time.  [default: the newest row]")
@click.option("--feature", default=None, metavar="NAME", help="One feature of the shopper table, such as clicks_24h.  [default: all]")
@home_option
@config_options
def explain_command(home: Home, config: Config, shopper: str, at: datetime | None, feature: str | None) -> None:
    found = explain(home, config, shopper, at, feature)
    for one in found.events:
        progress(
            f"{one.event_ts:%Y-%m-%d %H:%M:%S}  {one.type:<12} {one.product_id or '-':<16} {one.event_id:<24} {one.file} (version {found.files[one.file].version})"
        )
    emit(found)


if __name__ == "__main__":
    run_command(command)
