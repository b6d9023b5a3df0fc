"""The scratch space of one ingest inside the lake: `_staging/RUN/`, alive as long as its lease is renewed, removed with the run.

A run that dies leaves its staging behind; a later run, or `guidelens lake gc`, removes it once nothing in it was written for an hour.
"""

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from guidelens.crash_points import reach
from guidelens.errors import StorageError
from guidelens.storage import Store

_ROOT = "_staging/"
PARTS = "parts/"
_RENEWED_EVERY_S = 60.0
_DELETES_AT_ONCE = 8
STALE_AFTER = timedelta(hours=1)


@contextmanager
def staging(store: Store) -> Iterator[str]:
    """The prefix of a staging of one's own (it ends with a slash)."""
    prefix = f"{_ROOT}{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:12]}/"
    store.write_bytes(f"{prefix}begun", b"", durable=False)
    ended = threading.Event()
    heart = threading.Thread(target=_renewing, args=(store, f"{prefix}lease", ended), daemon=True)
    heart.start()
    try:
        yield prefix
    finally:
        ended.set()
        heart.join()
        reach("staging.before_removal")
        _remove(store, prefix)
        reach("staging.after_removal")


def _renewing(store: Store, key: str, ended: threading.Event) -> None:
    while not ended.wait(_RENEWED_EVERY_S):
        try:
            store.write_bytes(key, datetime.now(UTC).isoformat().encode(), durable=False)
        except (StorageError, OSError):
            continue  # the next renewal is a minute away, the end of the lease an hour


class Run(NamedTuple):
    """begun, written: when the first and the latest of its objects were written, by the store's clock."""

    begun: datetime
    written: datetime


def runs(store: Store) -> dict[str, Run]:
    """The stagings that are there, by prefix."""
    found: dict[str, Run] = {}
    for entry in store.entries(_ROOT):
        prefix = _ROOT + entry.key.removeprefix(_ROOT).split("/", 1)[0] + "/"
        known = found.get(prefix, Run(entry.modified, entry.modified))
        found[prefix] = Run(min(known.begun, entry.modified), max(known.written, entry.modified))
    return found


def is_stale(run: Run, now: datetime) -> bool:
    return run.written < now - STALE_AFTER


def remove_stale(store: Store, now: datetime) -> list[str]:
    """Removes what dead runs left; the prefixes. A run that was only asleep so long finds nothing, fails, and is run again."""
    stale = [prefix for prefix, run in runs(store).items() if is_stale(run, now)]
    for prefix in stale:
        _remove(store, prefix)
    return stale


def remove_parts(store: Store) -> None:
    """Removes what any run has staged, dead or not; one under way stages again."""
    for prefix in runs(store):
        _remove(store, f"{prefix}{PARTS}")


def _remove(store: Store, prefix: str) -> None:
    with ThreadPoolExecutor(_DELETES_AT_ONCE) as pool:  # for waiting: an object store takes its time for each
        list(pool.map(store.delete, list(store.keys(prefix))))
