"""What the last materialization knew of the log, by session: enough to tell whose rows a new snapshot changes, from when on, and
which event files those rows depend on. Pure frames; knows nothing of Feast.

Sessions are compared by a digest of their events, so that files rewritten with the same events (a shopper forgotten, files merged)
change nobody else's rows. Events count as the shoppers' consent has it now: where that changed, the files that hold their events are read again.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import polars as pl

from guidelens.data.features.shoppers import ALWAYS
from guidelens.data.lake.lake import DataFile, Lake, Manifest
from guidelens.data.privacy.consent import consented, consents, refusals, refusals_changed
from guidelens.data.sessions import client_sessions, identity_links, joined, known_ts, owned
from guidelens.data.visits import of_the_session
from guidelens.schemas.packed import PROFILE_FIELDS
from guidelens.schemas.tables import Table

EVENT_COLUMNS = (
    *("event_id", "event_ts", "created_ts", "shopper_key", "is_anonymous", "anonymous_key", "session_id", "type", "product_id"),
    *("browse_ms", "stay_ms", "depth", "view_ms", "outcome"),
)
"""What shopper rows are made of; a session's digest covers all of it."""

BEGINNING = datetime(1900, 1, 1, tzinfo=UTC)
"""Before any row."""

_FILES = ("sessions.parquet", "logins.parquet", "profiles.parquet", "withheld.parquet", "refusals.parquet", "pending.parquet")
_SESSION = ["shopper_key", "session_id"]
_TIME = pl.Datetime("us", "UTC")
_PIECES: dict[str, pl.DataType] = {
    "file": pl.String(),
    "shopper_key": pl.String(),
    "session_id": pl.String(),
    "is_anonymous": pl.Boolean(),
    "start_ts": _TIME,
    "end_ts": _TIME,
    "known_from": _TIME,
    "digest": pl.UInt64(),
}
_LOGINS: dict[str, pl.DataType] = {
    "file": pl.String(),
    "anonymous_key": pl.String(),
    "shopper_key": pl.String(),
    "is_anonymous": pl.Boolean(),
    "event_ts": _TIME,
    "created_ts": _TIME,
    "event_id": pl.String(),
}
_PROFILES: dict[str, pl.DataType] = {"shopper_key": pl.String(), "created_ts": _TIME, "digest": pl.UInt64()}
_WITHHELD: dict[str, pl.DataType] = {"file": pl.String(), "shopper_key": pl.String()}
_REFUSALS: dict[str, pl.DataType] = {"shopper_key": pl.String(), "from_ts": _TIME, "until_ts": _TIME}
_PENDING: dict[str, pl.DataType] = {"shopper_key": pl.String(), "since": _TIME}


@dataclass(frozen=True)
class FeatureLog:
    """pieces: file, shopper_key, session_id, is_anonymous, start_ts, end_ts, known_from, digest: what each event file holds of each
    client session. logins: of each file, the events that name an anonymous id and a shopper. profiles: shopper_key, created_ts, digest.
    withheld: file, shopper_key: whose events of the file are in none of this for want of consent. refusals: those that decided it.
    pending: shopper_key, since: rows still made of somebody who was taken out of this since (`forget`)."""

    pieces: pl.DataFrame
    logins: pl.DataFrame
    profiles: pl.DataFrame
    withheld: pl.DataFrame
    refusals: pl.DataFrame
    pending: pl.DataFrame

    @cached_property
    def clients(self) -> pl.DataFrame:
        """Client sessions under each who has features of them: asked_as (the key of their events), shopper_key, client_session_id,
        session_id (`data.sessions.joined`), linked_ts (null where it is the same key), start_ts, known_from, digest."""
        times = (pl.col("start_ts").min(), pl.col("end_ts").max(), pl.col("known_from").max())
        sent = self.pieces.drop_nulls("shopper_key").group_by(_SESSION).agg(pl.col("is_anonymous").first(), *times, pl.col("digest").sum())
        mine = sent.with_columns(asked_as="shopper_key", linked_ts=pl.lit(None, _TIME))
        copies = owned(sent, identity_links(self.logins)).with_columns(asked_as="shopper_key", shopper_key="owner")
        copies = copies.with_columns(known_from=pl.max_horizontal("known_from", pl.col("linked_ts") + pl.duration(microseconds=1)))
        all_of_them = pl.concat([mine, copies.select(mine.columns)])
        named = joined(all_of_them.group_by(_SESSION).agg(*times)).select(*_SESSION, "joined_id")
        return all_of_them.join(named, on=_SESSION).rename({"session_id": "client_session_id", "joined_id": "session_id"})

    @cached_property
    def sessions(self) -> pl.DataFrame:
        """shopper_key, session_id, start_ts, known_from, digest."""
        digest = pl.col("digest").sum() + pl.col("client_session_id").hash(seed=2).sum()
        return self.clients.group_by(_SESSION).agg(pl.col("start_ts").min(), pl.col("known_from").max(), digest)

    @cached_property
    def moments(self) -> pl.DataFrame:
        """shopper_key, t: when each shopper's rows are stamped; where the shopper did not decline."""
        of_profiles = self.profiles.select("shopper_key", t=pl.col("created_ts").fill_null(ALWAYS))
        return pl.concat([self.sessions.select("shopper_key", t="known_from"), of_profiles])

    def of_people(self, events: pl.DataFrame, shopper_keys: pl.Series) -> pl.DataFrame:
        """Events of these shoppers as `in_sessions(with_owned(...))` puts them, also where `events` is only a part of the log."""
        wanted = self.clients.filter(pl.col("shopper_key").is_in(shopper_keys.implode()))
        renamed = events.rename({"shopper_key": "asked_as", "session_id": "client_session_id"})
        found = renamed.join(wanted.select("asked_as", "shopper_key", "client_session_id", "session_id", "linked_ts"), on=["asked_as", "client_session_id"])
        return found.with_columns(created_ts=pl.max_horizontal("created_ts", "linked_ts")).drop("linked_ts")

    def without(self, shopper_keys: pl.Series) -> "FeatureLog":
        gone = shopper_keys.implode()
        kept = ~pl.col("shopper_key").is_in(gone).fill_null(False)
        logins = self.logins.filter(kept, ~pl.col("anonymous_key").is_in(gone))
        return FeatureLog(self.pieces.filter(kept), logins, *(frame.filter(kept) for frame in (self.profiles, self.withheld, self.refusals, self.pending)))


NOTHING_KNOWN = FeatureLog(*(pl.DataFrame(schema=schema) for schema in (_PIECES, _LOGINS, _PROFILES, _WITHHELD, _REFUSALS, _PENDING)))


class EventFiles:
    """A snapshot's event files, each read at most once, without what happened while a shopper did not consent (`said`); says what was read."""

    def __init__(self, lake: Lake, snapshot: Manifest) -> None:
        self.files = {file.key: file for file in snapshot.of(Table.EVENTS)}
        self._lake = lake
        self._snapshot = snapshot
        self.said = consents(lake, snapshot)
        self._held: dict[str, pl.DataFrame] = {}
        self._withheld: dict[str, pl.DataFrame] = {}

    def read(self, key: str) -> pl.DataFrame:
        if key not in self._held:
            alone = self._snapshot.model_copy(update={"files": (self.files[key],)})
            events = self._lake.read(Table.EVENTS, [*EVENT_COLUMNS, "consent"], manifest=alone)
            linked = events.filter(pl.col("consent").fill_null(True)).drop("consent")
            self._held[key] = consented(linked, self.said)
            self._withheld[key] = _withheld(linked, self._held[key], key)
        return self._held[key]

    def withheld(self, key: str) -> pl.DataFrame:
        """file, shopper_key of those of whose events in the file `read` leaves some out, for want of consent."""
        self.read(key)
        return self._withheld[key]

    def read_all(self, keys: Sequence[str]) -> pl.DataFrame:
        nothing = self._lake.read(Table.EVENTS, EVENT_COLUMNS, manifest=Manifest())
        return pl.concat([nothing, *(self.read(key) for key in sorted(keys))])

    @property
    def dates(self) -> pl.DataFrame:
        """file, date: the day (UTC) of each file's events."""
        found = pl.DataFrame({"file": list(self.files), "date": [file.date for file in self.files.values()]}, schema={"file": pl.String, "date": pl.String})
        return found.with_columns(pl.col("date").str.to_date("%Y-%m-%d"))

    @property
    def were_read(self) -> tuple[DataFile, ...]:
        return tuple(self.files[key] for key in sorted(self._held))


def known_now(before: FeatureLog, events: EventFiles, shoppers: pl.DataFrame) -> FeatureLog:
    """The log as the snapshot holds it; of the event files, those that `before` knows are not read again."""
    refused = refusals(events.said)
    known = events.files.keys() & set(before.pieces["file"].unique()) - _counted_otherwise(before, refused, events)
    fresh = [key for key in events.files if key not in known]
    kept = pl.col("file").is_in(list(known))
    pieces = pl.concat([before.pieces.filter(kept), *(_pieces(events.read(key), key) for key in fresh)])
    logins = pl.concat([before.logins.filter(kept), *(_logins(events.read(key), key) for key in fresh)])
    withheld = pl.concat([before.withheld.filter(kept), *(events.withheld(key) for key in fresh)])
    return FeatureLog(pieces, logins, _profiles(shoppers), withheld, refused, NOTHING_KNOWN.pending)


def _counted_otherwise(before: FeatureLog, refused: pl.DataFrame, events: EventFiles) -> set[str]:
    """Keys of the files in which a shopper has events from the time for which what they said of consent changed."""
    changed = refusals_changed(before.refusals, refused)
    if changed.is_empty():
        return set()
    whose = pl.concat([frame.select(list(_WITHHELD)) for frame in (before.pieces, before.logins, before.withheld)])
    held = whose.join(changed, on="shopper_key").join(events.dates, on="file")
    return set(held.filter((pl.col("date") >= pl.col("from_ts").dt.date()).fill_null(True))["file"])


def _withheld(linked: pl.DataFrame, used: pl.DataFrame, key: str) -> pl.DataFrame:
    left_out = linked.select("event_id", "shopper_key").join(used.select("event_id"), on="event_id", how="anti")
    return left_out.select("shopper_key").unique().select(pl.lit(key).alias("file"), "shopper_key").sort("shopper_key")


def _logins(events: pl.DataFrame, key: str) -> pl.DataFrame:
    both = events.filter(pl.col("anonymous_key").is_not_null()).with_columns(file=pl.lit(key))
    return both.select(list(_LOGINS)).cast(_LOGINS)  # type: ignore[arg-type]


def _pieces(events: pl.DataFrame, key: str) -> pl.DataFrame:
    """One row a session. A file without any keeps one row of nobody, so that it counts as known."""
    mine = of_the_session(events)
    digests = mine.with_columns(digest=pl.struct(EVENT_COLUMNS).hash(seed=1)).group_by(_SESSION).agg(pl.col("digest").sum())
    found = client_sessions(mine).join(digests, on=_SESSION).sort(_SESSION)
    if found.is_empty():
        return pl.DataFrame([{"file": key}], schema=_PIECES)
    return found.with_columns(file=pl.lit(key)).select(list(_PIECES)).cast(_PIECES)  # type: ignore[arg-type]


def _profiles(shoppers: pl.DataFrame) -> pl.DataFrame:
    counted = [*PROFILE_FIELDS, "height_cm", "created_ts", "consent"]
    return shoppers.unique("shopper_key", keep="last").select("shopper_key", "created_ts", digest=pl.struct(counted).hash(seed=1)).sort("shopper_key")


def newest_known(events: FeatureLog, products: pl.DataFrame) -> datetime:
    """When the last of the log was known that rows can tell of (a login may be told by a return); of the catalogue where there is no log."""
    of_sessions = events.pieces.select(pl.col("known_from") - pl.duration(microseconds=1))
    found = pl.concat([of_sessions["known_from"], events.logins.select(t=known_ts())["t"], events.profiles["created_ts"]]).max()
    newest = found if found is not None else products["known_ts"].max()
    assert isinstance(newest, datetime)
    return newest


def stale_since(before: FeatureLog, now: FeatureLog) -> pl.DataFrame:
    """Whose rows change, and from when on: shopper_key, since. Rows stamped before `since` stay as they are.

    A session counts from the moment it is over, so one that was changed, added or taken away changes no row before the earlier
    of the two moments it was over at. A changed profile changes all of the shopper's rows.
    """
    both = before.sessions.join(now.sessions, on=_SESSION, how="full", coalesce=True)
    changed = both.filter(~pl.col("digest").eq_missing(pl.col("digest_right")) | ~pl.col("known_from").eq_missing(pl.col("known_from_right")))
    by_session = changed.group_by("shopper_key").agg(pl.min_horizontal("known_from", "known_from_right").min().alias("since"))
    profiles = before.profiles.join(now.profiles, on="shopper_key", how="full", coalesce=True)
    by_profile = profiles.filter(~pl.col("digest").eq_missing(pl.col("digest_right"))).select("shopper_key", since=pl.lit(BEGINNING, _TIME))
    found = pl.concat([by_session, by_profile, before.pending]).group_by("shopper_key").agg(pl.col("since").min())
    return _from_the_first_moment(found, before, now).sort("shopper_key")


def _from_the_first_moment(stale: pl.DataFrame, before: FeatureLog, now: FeatureLog) -> pl.DataFrame:
    """Of shoppers without rows so far, `since` is their first row: there is none before to replace."""
    had_rows = pl.concat([before.sessions["shopper_key"], before.profiles["shopper_key"]]).unique()
    first = now.moments.group_by("shopper_key").agg(pl.col("t").min())
    is_new = ~pl.col("shopper_key").is_in(had_rows.implode()) & pl.col("t").is_not_null()
    joined = stale.join(first, on="shopper_key", how="left")
    return joined.select("shopper_key", pl.when(is_new).then("t").otherwise("since").alias("since"))


def files_needed(log: FeatureLog, events: EventFiles, needed: pl.DataFrame) -> list[str]:
    """Keys of the files that hold an event of these shoppers (shopper_key, needed_ts) of the day of needed_ts or later."""
    whose = log.clients.select("asked_as", "shopper_key").unique().join(needed, on="shopper_key").select("asked_as", "needed_ts")
    held = log.pieces.join(whose, left_on="shopper_key", right_on="asked_as").join(events.dates, on="file")
    late_enough = pl.col("date") >= pl.col("needed_ts").dt.date()
    return sorted(held.filter(late_enough.fill_null(True))["file"].unique())


def known_by(events: pl.DataFrame, until: datetime) -> pl.DataFrame:
    return events.filter(known_ts() <= until)


def exists(folder: Path) -> bool:
    return all((folder / name).is_file() for name in _FILES)


def load(folder: Path) -> FeatureLog:
    return FeatureLog(*(pl.read_parquet(folder / name) for name in _FILES))


def save(log: FeatureLog, folder: Path) -> None:
    """Replaces the log as a whole; killed on the way, it leaves none, never parts of two."""
    beside = folder.with_name(f".writing-{folder.name}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    for name, held in zip(_FILES, fields(log), strict=True):
        getattr(log, held.name).write_parquet(beside / name, compression="zstd")
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)


def forget(folder: Path, *shopper_keys: str) -> None:
    """Takes shoppers out; whose rows that changes, such as of who logged in on the same device, the next run makes again."""
    if exists(folder):
        held, gone = load(folder), pl.Series(shopper_keys, dtype=pl.String)
        left = held.without(gone)
        save(replace(left, pending=stale_since(held, left).filter(~pl.col("shopper_key").is_in(gone.implode()))), folder)
