"""`guidelens ingest --follow`: the inbox, or Kafka topics, taken in as micro-batches until it is told to stop.

Each batch goes through the same intake as any other ingest (pipelines/ingest.py) and is committed by itself; what a batch that failed
was to read is still there for the next one. Between batches the lake is kept tidy: small files are merged, old versions thinned out.
"""

import logging
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from guidelens.config import Config, Home
from guidelens.data.inbox import segments
from guidelens.data.ingest.intake import drain_inbox
from guidelens.data.ingest.stages import EmbedHere, is_small, set_up_ray_data
from guidelens.data.lake import garbage, history
from guidelens.data.lake.compaction import compact, mergeable
from guidelens.data.lake.event_ids import IdReader
from guidelens.data.lake.lake import Lake
from guidelens.data.records.sources import IngestSources, Kind
from guidelens.errors import CallerError, ConfigError, GuideLensError
from guidelens.schemas.base import Frozen
from pipelines import materialize
from pipelines.cluster import ray_session
from pipelines.entry import progress
from pipelines.ingest import Ingest, IngestResult, inbox_sources

log = logging.getLogger(__name__)
_LONGEST_PAUSE_S = 60.0
_TIDY_EVERY_S = 3600.0


class FollowResult(Frozen):
    """What was done in all. batches: committed ones. failed: steps that were tried again later. lag_*_s: from when an event could first have
    been there to its commit, the worst of each batch. waiting: messages left in Kafka topics."""

    lake: str
    manifest: int
    seconds: float
    batches: int
    failed: int
    read: int
    accepted: int
    quarantined: int
    duplicate: int
    lag_median_s: float | None
    lag_max_s: float | None
    compacted_files: int
    materialized: int
    waiting: int | None


def run(
    home: Home,
    config: Config,
    sources: IngestSources,
    lake: str | None = None,
    *,
    every_s: float = 2.0,
    materialize_every_s: float | None = None,
    stopped: threading.Event | None = None,
) -> FollowResult:
    """Follows the Kafka topics that `sources` names, or the home's inbox where it names nothing.

    Args:
        stopped: ends it, once the batch under way is done. By default SIGINT and SIGTERM do.

    Raises:
        CallerError: the very first batch could not be read, for a reason that only the caller can mend.
    """
    if sources.names_something and not (sources.events and all(uri.startswith("kafka://") for uri in sources.events)):
        raise ConfigError("--follow takes the inbox (no source) or kafka:// events alone, got other sources; ingest those without --follow")
    set_up_ray_data()
    with ExitStack() as stack:
        ending = stopped or stack.enter_context(_until_signalled())
        follower = Follower(home, config, sources, lake, ending, stack)
        return follower.follow(every_s, materialize_every_s)


class Follower:
    """What a following process keeps from batch to batch: the text encoder, the lake's ids, counts."""

    def __init__(self, home: Home, config: Config, sources: IngestSources, lake: str | None, stopped: threading.Event, stack: ExitStack) -> None:
        self._home, self._config, self._sources, self._lake_uri, self._stopped = home, config, sources, lake, stopped
        self._lake = Lake(lake or home.lake_uri, home.s3)
        self._reader = IdReader(self._lake.store, keeps=True)
        self._embed = EmbedHere(config.ingest.encoders.text)
        self._stack, self._ray_is_up = stack, False
        self._totals = dict.fromkeys(("batches", "failed", "read", "accepted", "quarantined", "duplicate", "compacted_files", "materialized"), 0)
        self._lags: list[float] = []
        self._looked: float | None = None
        self._waiting: int | None = None

    def follow(self, every_s: float, materialize_every_s: float | None) -> FollowResult:
        """Batch after batch until stopped; the pause doubles from failure to failure."""
        begun, failures = time.monotonic(), 0
        tidy, features = _Due(_TIDY_EVERY_S), _Due(materialize_every_s)
        progress(f"follow: {', '.join(self._sources.events) or self._home.inbox} into {self._lake.uri} every {every_s:g} s")
        while not self._stopped.is_set():
            looked = time.monotonic()
            fine = self._tried("a batch", self._batch)
            if fine and not self._stopped.is_set():
                fine = self._tried("compaction", self._compact)
                if features.is_due():
                    fine = self._tried("materialize", self._materialize) and fine
                if tidy.is_due():
                    fine = self._tried("tidying", self._tidy) and fine
            failures = 0 if fine else failures + 1
            pause_s = every_s - (time.monotonic() - looked) if fine else min(every_s * 2**failures, _LONGEST_PAUSE_S)
            self._stopped.wait(max(pause_s, 0.0))
        return self._result(time.monotonic() - begun)

    def _tried(self, what: str, step: Callable[[], None]) -> bool:
        try:
            step()
        except (KeyboardInterrupt, SystemExit):  # a signal while Ray comes up, which answers it in its own ways; the batch waits for the next process
            self._stopped.set()
        except CallerError:
            if not self._totals["batches"] and self._looked is None:
                raise
            return self._failed(what)
        except Exception:  # noqa: BLE001 - whatever it was, it is named in the log and tried again: nothing is removed before its commit
            return self._failed(what)
        return True

    def _failed(self, what: str) -> bool:
        self._totals["failed"] += 1
        log.exception("follow: %s failed and is tried again; what it was to take in is still there", what)
        return False

    def _batch(self) -> None:
        looked = time.time()
        oldest = self._looked
        done = self._from_kafka() if self._sources.events else self._from_inbox()
        if done is None:
            self._looked = looked
            return
        lag_s = time.time() - (oldest if oldest is not None else looked)
        self._looked = looked
        self._count(done, lag_s)
        self._reader.keep_only(self._lake.manifest(done.manifest).ids)

    def _from_inbox(self) -> IngestResult | None:
        if not segments(self._home.inbox):
            return None
        return drain_inbox(self._home.inbox, self._taken_from)

    def _taken_from(self, sealed: Sequence[Path]) -> IngestResult | None:
        return self._take(inbox_sources(sealed), from_inbox=True) if sealed else None

    def _from_kafka(self) -> IngestResult | None:
        return self._take(self._sources, from_inbox=False)

    def _take(self, sources: IngestSources, from_inbox: bool) -> IngestResult | None:
        ingest = Ingest(self._home, self._config, self._lake_uri, embed=self._embed, reader=self._reader, passing=True)
        plan = ingest.plan(sources)
        if not plan.chunks and plan.offsets.items() <= self._lake.manifest().offsets.items():
            return None
        if not is_small(plan.size_bytes):
            self._start_ray()
        return ingest.take(sources, from_inbox=from_inbox, plan=plan)

    def _start_ray(self) -> None:
        """Once, to the end of the process: Ray remembers the first session's token. Signals stay ours."""
        if not self._ray_is_up:
            before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
            self._stack.enter_context(ray_session())
            for number, handler in before.items():
                signal.signal(number, handler)
            self._ray_is_up = True

    def _count(self, done: IngestResult, lag_s: float) -> None:
        for name in ("read", "accepted", "quarantined", "duplicate"):
            self._totals[name] += getattr(done, name).get(Kind.EVENTS, 0)
        self._totals["batches"] += 1
        self._lags.append(lag_s)
        self._waiting = done.waiting
        read, refused = done.read.get(Kind.EVENTS, 0), done.quarantined.get(Kind.EVENTS, 0)
        also = f", {refused} quarantined" if refused else ""
        also += "" if done.waiting is None else f", {done.waiting} waiting"
        progress(f"follow: version {done.manifest}: {read} events{also}, lag at most {lag_s:.1f} s; {self._totals['read']} in all")

    def _compact(self) -> None:
        rows = self._config.ingest.event_file_rows
        if mergeable(self._lake.manifest(), rows):
            found = compact(self._lake, rows, passing=True)
            self._totals["compacted_files"] += found.merged
            progress(f"follow: version {found.manifest}: {found.merged} files merged into {found.into}")

    def _materialize(self) -> None:
        materialize.run(self._home, self._config, self._lake_uri)
        self._totals["materialized"] += 1

    def _tidy(self) -> None:
        now = datetime.now(UTC)
        thinned = history.thin(self._lake, now)
        left = garbage.orphans(self._lake, now - garbage.GRACE, now)
        garbage.collect(self._lake, left)
        if thinned or left:
            progress(f"follow: {thinned} older versions thinned out, {len(left)} files that no version names removed")

    def _result(self, seconds: float) -> FollowResult:
        try:
            version = self._lake.manifest().version
        except (GuideLensError, OSError):
            log.exception("follow: the lake does not say its version")
            version = 0
        lags = {"lag_median_s": round(statistics.median(self._lags), 3), "lag_max_s": round(max(self._lags), 3)} if self._lags else {}
        return FollowResult(
            lake=self._lake.uri,
            manifest=version,
            seconds=round(seconds, 3),
            **self._totals,
            lag_median_s=lags.get("lag_median_s"),
            lag_max_s=lags.get("lag_max_s"),
            waiting=self._waiting,
        )


class _Due:
    """Whether `every_s` seconds have passed since it last said so; never where that is None."""

    def __init__(self, every_s: float | None) -> None:
        self._every_s = every_s
        self._last = time.monotonic()

    def is_due(self) -> bool:
        now = time.monotonic()
        if self._every_s is None or now - self._last < self._every_s:
            return False
        self._last = now
        return True


@contextmanager
def _until_signalled() -> Iterator[threading.Event]:
    """Set by SIGINT and SIGTERM."""
    stopped = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopped.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
