"""`guidelens materialize`: point-in-time features of the lake into Feast's tables and its online store.

A run remembers what it counted (data/features/log.py); the next one makes the rows that changed since, out of the event files
those depend on, and leaves the rest as it is.
"""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, NamedTuple

import click
import polars as pl
from pydantic import ValidationError

from guidelens.config import Config, Home
from guidelens.data import sessions as sessions_module
from guidelens.data import visits as visits_module
from guidelens.data.features import log as feature_log
from guidelens.data.features import products as product_features
from guidelens.data.features import shoppers as shopper_features
from guidelens.data.features.dormant import dormant, horizon
from guidelens.data.features.log import BEGINNING, NOTHING_KNOWN, EventFiles, FeatureLog, files_needed, known_by, known_now, newest_known, stale_since
from guidelens.data.features.products import PHOTO_COLUMNS, product_rows
from guidelens.data.features.shoppers import Resumed, declined, needed_since, shopper_rows
from guidelens.data.lake.lake import Lake, Manifest
from guidelens.data.privacy import consent as consent_module
from guidelens.data.privacy.consent import as_consented, refusals_changed
from guidelens.data.sessions import identity_links, in_sessions, with_owned
from guidelens.data.visits import visits
from guidelens.errors import InputError, NotFoundError
from guidelens.features import LOG, Features, MaterializeReport, feature_repo_path
from guidelens.schemas import packed
from guidelens.schemas.base import Frozen
from guidelens.schemas.tables import Table
from pipelines.entry import config_options, emit, home_option, progress, run_command

_MARK = "materialized.json"
_UNDER_WAY = "materializing.json"


class Materialized(Frozen):
    """materialized.json beside the feature tables: the snapshot they hold.

    whole: all of the snapshot's log is counted, so that a later run may go on from here. made_by: a digest of the code and views that
    make rows, loaded_as: one of `features.*`; where either is another, all rows are made again. catalogue: the files of the product rows.
    """

    lake: str
    manifest: int
    snapshot_sha256: str
    as_of: datetime
    whole: bool = False
    made_by: str = ""
    loaded_as: str = ""
    catalogue: tuple[str, ...] = ()


class ReadCounts(Frozen):
    """Of the lake's event files: how many were read, with their rows and bytes, and how many there are."""

    files: int
    rows: int
    bytes: int
    of_files: int
    of_rows: int
    of_bytes: int


class MaterializeResult(Frozen):
    """rows: by feature view, rows of the offline table. online: by feature view, entities loaded into the online store.

    full_because: why every row was made again; None where only some were. changed_shoppers: whose rows were made again;
    changed_consents: of how many a refusal came, ended, or was moved since the last run (0 of a full one).
    lag_s: how long before the end of this run the newest of the log was known.
    """

    feature_service: str
    mode: Literal["full", "incremental", "backfill"]
    full_because: str | None
    rows: dict[str, int]
    online: dict[str, int]
    changed_shoppers: int
    changed_consents: int
    read: ReadCounts
    as_of: datetime
    lag_s: float
    lake: str
    manifest: int


class Span(NamedTuple):
    """Rows stamped from `start` on, and before `end` where there is one."""

    start: datetime
    end: datetime | None


class _Inputs(NamedTuple):
    """A snapshot as features see it: who asked to be forgotten is in none of it, nor is what happened without consent."""

    lake: Lake
    snapshot: Manifest
    events: EventFiles
    shoppers: pl.DataFrame
    products: pl.DataFrame
    forgotten: pl.Series
    before: FeatureLog
    log: FeatureLog
    shoppers_from: datetime | None

    @property
    def rowless(self) -> pl.Series:
        """The shopper_key of those who get no row: they declined, or nothing came of them since the horizon."""
        return pl.concat([declined(self.shoppers), dormant(self.log, self.shoppers_from)]).unique()


def run(
    home: Home,
    config: Config,
    lake: str | None = None,
    as_of: datetime | None = None,
    manifest: int | None = None,
    *,
    full: bool = False,
    backfill: Span | None = None,
) -> MaterializeResult:
    """Makes the features of everything known by as_of, and loads the newest of each shopper and product.

    Args:
        lake: URI; the home's own by default.
        manifest: version of the lake to read; the newest by default.
        as_of: by default the moment by which all of the lake's log was known, or its catalogue where it has no log.
        full: makes every row again, also where only some changed.
        backfill: makes the rows of this time again too, of all shoppers.

    Raises:
        NotFoundError: the lake holds no products; or, for a backfill, nothing was materialized of it before.
    """
    opened = Lake(lake or home.lake_uri, home.s3)
    snapshot = opened.manifest(manifest)
    opened.require(snapshot, Table.PRODUCTS)
    held = _left_by_the_last(home)
    full_because = "--full was given" if full else _not_resumable(home, config, opened, held)
    inputs = _inputs(home, opened, snapshot, resume=full_because is None)
    newest = newest_known(inputs.log, inputs.products)
    until = as_of or newest
    if full_because is None and until < newest:
        full_because = "--as-of lies before the newest of the log"
    if backfill is not None and full_because is not None:
        raise NotFoundError(
            f"a backfill needs whole feature tables of {opened.uri} in {home.feast}, but {full_because}; run `guidelens materialize --full` first"
        )
    features = Features(home, config.features)
    if held is None or full_because is not None:
        progress(f"materialize: full, because {full_because}")
        report, changed = _make_all(home, features, inputs, until)
        consents_changed = 0
    else:
        report, changed = _make_changed(home, features, inputs, held, backfill)
        consents_changed = len(refusals_changed(inputs.before.refusals, inputs.log.refusals))
    _remember(home, config, inputs, until, whole=until >= newest)
    mode: Literal["full", "incremental", "backfill"] = "full" if full_because else "incremental" if backfill is None else "backfill"
    found = MaterializeResult(
        **report.model_dump(),
        mode=mode,
        full_because=full_because,
        changed_shoppers=changed,
        changed_consents=consents_changed,
        read=_read_counts(inputs.events),
        as_of=until,
        lag_s=(datetime.now(UTC) - until).total_seconds(),
        lake=opened.uri,
        manifest=snapshot.version,
    )
    progress(_in_a_line(found))
    return found


def _in_a_line(done: MaterializeResult) -> str:
    read, of_consents = done.read, f", and consent of {done.changed_consents:,}" if done.changed_consents else ""
    made = f"{done.changed_shoppers:,} shoppers changed{of_consents}" if done.mode != "full" else f"all rows of {done.changed_shoppers:,} shoppers"
    return f"materialize: {done.mode}, {made}; read {read.rows:,} of {read.of_rows:,} events; {done.online['shopper_packed']:,} loaded"


def _inputs(home: Home, lake: Lake, snapshot: Manifest, *, resume: bool) -> _Inputs:
    forgotten = lake.read(Table.TOMBSTONES, ["shopper_key"], manifest=snapshot)["shopper_key"]
    events = EventFiles(lake, snapshot)
    shoppers = as_consented(lake.read(Table.SHOPPERS, manifest=snapshot), events.said).filter(~pl.col("shopper_key").is_in(forgotten.implode()))
    before = feature_log.load(home.feast / LOG) if resume else NOTHING_KNOWN
    log = known_now(before, events, shoppers).without(forgotten)
    return _Inputs(lake, snapshot, events, shoppers, lake.read(Table.PRODUCTS, manifest=snapshot), forgotten, before, log, horizon(home.feast))


def _make_all(home: Home, features: Features, inputs: _Inputs, until: datetime) -> tuple[MaterializeReport, int]:
    """Every row anew; where this breaks off, the next run starts anew too."""
    log = known_by(_of_the_kept(inputs, list(inputs.events.files)), until)
    events = in_sessions(with_owned(log, identity_links(log)))
    rows_known_by = until + timedelta(microseconds=1)  # rows are stamped a microsecond after what they count
    progress(f"materialize: {len(log):,} events and {len(inputs.shoppers):,} shoppers known by {until.isoformat()}")
    has_rows = (pl.col("event_timestamp") <= rows_known_by) & ~pl.col("shopper_key").is_in(inputs.rowless.implode())
    rows = shopper_rows(visits(events), events, inputs.shoppers).filter(has_rows)
    for name in (_MARK, _UNDER_WAY):
        (home.feast / name).unlink(missing_ok=True)
    report = features.materialize(rows, _product_rows(inputs), rows_known_by)
    _take_offline(features, [*inputs.forgotten, *declined(inputs.shoppers)])
    return report, rows["shopper_key"].n_unique()


def _make_changed(home: Home, features: Features, inputs: _Inputs, held: Materialized, backfill: Span | None) -> tuple[MaterializeReport, int]:
    """The rows that the snapshot changes, then those to backfill; where this breaks off, the next run does it over."""
    mark = home.feast / _MARK
    if mark.exists():
        mark.replace(home.feast / _UNDER_WAY)  # nobody may train on tables under way
    since = _whole_of_who_slept(stale_since(inputs.before, inputs.log), inputs)
    products = None if held.catalogue == _catalogue(inputs.snapshot) else _product_rows(inputs)
    report = features.update(_changed_rows(features, inputs, since), since, products)
    if backfill is not None:
        everybody = pl.concat([inputs.log.sessions["shopper_key"], inputs.log.profiles["shopper_key"]]).drop_nulls().unique().sort()
        since = pl.DataFrame({"shopper_key": everybody}).with_columns(since=pl.lit(backfill.start, pl.Datetime("us", "UTC")))
        report = features.update(_changed_rows(features, inputs, since, backfill.end), since, None, backfill.end)
    _take_offline(features, [*inputs.forgotten, *_declined_since(inputs, since)])
    return report, len(since)


def _whole_of_who_slept(since: pl.DataFrame, inputs: _Inputs) -> pl.DataFrame:
    """Who was or is past the horizon has all rows or none."""
    slept = pl.concat([dormant(log, inputs.shoppers_from) for log in (inputs.before, inputs.log)])
    whole = pl.when(pl.col("shopper_key").is_in(slept.implode())).then(pl.lit(BEGINNING, pl.Datetime("us", "UTC")))
    return since.with_columns(since=whole.otherwise("since"))


def _declined_since(inputs: _Inputs, since: pl.DataFrame) -> set[str]:
    """Who declined and may have a row online: it was theirs before they did, or was pushed for an event that came in since."""
    seen = inputs.log.withheld.join(inputs.before.withheld, on=["file", "shopper_key"], how="anti")
    return set(declined(inputs.shoppers)) & {*since["shopper_key"], *seen["shopper_key"]}


def _changed_rows(features: Features, inputs: _Inputs, since: pl.DataFrame, until: datetime | None = None) -> pl.DataFrame:
    """The rows of these shoppers (shopper_key, since) from `since` on, and before `until`. Of who gets no row nothing is read."""
    since = since.filter(~pl.col("shopper_key").is_in(inputs.rowless.implode()))
    sessions = inputs.log.sessions.drop("digest").join(since.select("shopper_key"), on="shopper_key", how="semi")
    asked = sessions if until is None else sessions.filter(pl.col("start_ts") < until)
    keys = files_needed(inputs.log, inputs.events, needed_since(since, asked))
    if until is not None:
        keys = [key for key in keys if (inputs.events.files[key].date or "") <= until.strftime("%Y-%m-%d")]
    events = inputs.log.of_people(_of_the_kept(inputs, keys), since["shopper_key"])
    resumed = Resumed(since, sessions, features.shopper_rows_before(since))
    rows = shopper_rows(visits(events), events, inputs.shoppers, resumed)
    return rows if until is None else rows.filter(pl.col("event_timestamp") < until)


def _of_the_kept(inputs: _Inputs, keys: Sequence[str]) -> pl.DataFrame:
    return inputs.events.read_all(keys).filter(~pl.col("shopper_key").is_in(inputs.forgotten.implode()))


def _product_rows(inputs: _Inputs) -> pl.DataFrame:
    return product_rows(inputs.products, inputs.lake.read(Table.PHOTOS, PHOTO_COLUMNS, manifest=inputs.snapshot))


def _catalogue(snapshot: Manifest) -> tuple[str, ...]:
    return tuple(sorted(file.key for table in (Table.PRODUCTS, Table.PHOTOS) for file in snapshot.of(table)))


def _take_offline(features: Features, shopper_keys: Sequence[str]) -> None:
    """Loading adds and replaces rows only: those of shoppers who declined or asked to be forgotten since the last time must be removed."""
    online = features.online()
    for key in shopper_keys:
        online.forget(key)


def _made_by() -> str:
    """Changes whenever rows are made by other code, or into other views."""
    found = hashlib.sha256(pl.__version__.encode())
    modules = (shopper_features, visits_module, sessions_module, product_features, packed, feature_log, consent_module)
    makers = [Path(str(module.__file__)) for module in modules]
    for source in (*makers, feature_repo_path() / "definitions.py"):
        found.update(source.read_bytes())
    return found.hexdigest()


def _loaded_as(config: Config) -> str:
    """A digest: a connection may hold a password."""
    return hashlib.sha256(config.features.model_dump_json().encode()).hexdigest()


def _left_by_the_last(home: Home) -> Materialized | None:
    return _mark_at(home.feast / _MARK) or _mark_at(home.feast / _UNDER_WAY)


def _not_resumable(home: Home, config: Config, lake: Lake, held: Materialized | None) -> str | None:
    """Why a run cannot go on from what the last one left; None where it can."""
    if held is None or not feature_log.exists(home.feast / LOG):
        return "no earlier run of this version left tables to go on from"
    if held.lake != lake.uri:
        return f"the last run was of another lake, {held.lake}"
    if not held.whole:
        return "the last run counted only a part of the log (--as-of)"
    if held.made_by != _made_by():
        return "the code, the views or the polars that make rows are not those of the last run"
    return None if held.loaded_as == _loaded_as(config) else "features.* is set otherwise than at the last run"


def _mark_at(path: Path) -> Materialized | None:
    """None also where another GuideLens wrote it: its tables have another layout."""
    try:
        return Materialized.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _remember(home: Home, config: Config, inputs: _Inputs, until: datetime, whole: bool) -> None:
    feature_log.save(inputs.log, home.feast / LOG)
    held = Materialized(
        lake=inputs.lake.uri,
        manifest=inputs.snapshot.version,
        snapshot_sha256=inputs.snapshot.snapshot_sha256,
        as_of=until,
        whole=whole,
        made_by=_made_by(),
        loaded_as=_loaded_as(config),
        catalogue=_catalogue(inputs.snapshot),
    )
    (home.feast / _MARK).write_text(held.model_dump_json())
    (home.feast / _UNDER_WAY).unlink(missing_ok=True)


def _read_counts(events: EventFiles) -> ReadCounts:
    read, there = events.were_read, tuple(events.files.values())
    return ReadCounts(
        files=len(read),
        rows=sum(file.rows for file in read),
        bytes=sum(file.size_bytes for file in read),
        of_files=len(there),
        of_rows=sum(file.rows for file in there),
        of_bytes=sum(file.size_bytes for file in there),
    )


def materialized(home: Home) -> Materialized:
    """The snapshot that the feature tables hold.

    Raises:
        NotFoundError: nothing was materialized, or not to its end.
    """
    held = _mark_at(home.feast / _MARK)
    if held is None:
        raise NotFoundError(f"the feature store in {home.feast} holds no features; run `guidelens materialize` first")
    return held


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


def parsed_time(_context: click.Context, option: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    name = f"--{(option.name or '').replace('_', '-')}"
    try:
        found = datetime.fromisoformat(value)
    except ValueError as error:
        raise InputError(f"{name} must be a time such as 2026-03-01T00:00:00Z, got {value!r}") from error
    if found.tzinfo is None:
        raise InputError(f"{name} must carry a zone, got {value!r}; append Z for UTC")
    return found.astimezone(UTC)


@click.command("materialize")
@click.option("--lake", default=None, help="URI of the lake.  [default: the home's]")
@click.option("--as-of", default=None, metavar="TIME", callback=parsed_time, help="RFC 3339; count what was known by then.  [default: all]")
@click.option("--full", is_flag=True, help="Make every row again, not only those that changed.")
@click.option("--backfill-from", default=None, metavar="TIME", callback=parsed_time, help="Make the rows stamped from then on again, of all shoppers.")
@click.option("--backfill-to", default=None, metavar="TIME", callback=parsed_time, help="End of the backfill.  [default: the newest row]")
@home_option
@config_options
def command(
    home: Home, config: Config, lake: str | None, as_of: datetime | None, full: bool, backfill_from: datetime | None, backfill_to: datetime | None
) -> None:
    """Compute point-in-time features and load the online store."""
    if backfill_from is None and backfill_to is not None:
        raise InputError(f"--backfill-to {backfill_to.isoformat()} must come with --backfill-from")
    if backfill_from is not None and (full or as_of is not None):
        raise InputError("--backfill-from must come without --full and --as-of; a full run makes all rows")
    span = None if backfill_from is None else Span(backfill_from, backfill_to)
    emit(run(home, config, lake, as_of, full=full, backfill=span))


if __name__ == "__main__":
    run_command(command)
