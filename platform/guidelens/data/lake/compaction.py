"""Small files of the lake merged into larger ones: what a day of micro-batches leaves becomes a few files a date again.

Eight small files of like size become one, so that a row is rewritten about once per eightfold growth. The merged bytes follow from
the files alone; rows, ids and digests stay the same. Older versions go on naming the old files (history.py).
"""

import random
import time
from collections.abc import Iterator, Sequence

import polars as pl

from guidelens.crash_points import reach
from guidelens.data.lake.lake import DataFile, Lake, Manifest
from guidelens.data.lake.staging import staging
from guidelens.data.lake.tables import to_table
from guidelens.data.lake.tombstones import forgotten_keys, sweep
from guidelens.errors import CommitConflictError, NotFoundError
from guidelens.schemas.base import Frozen
from guidelens.schemas.tables import Table

_ORDER = {
    Table.EVENTS: ("event_ts", "created_ts", "event_id"),
    Table.QUARANTINE: ("kind", "source", "offset", "record_sha256"),
    Table.QUERIES: ("query",),
}
"""The tables that are appended to, and the order of rows in a file."""
_LIKE_SIZED = 8
_LARGEST_BYTES = 64 * 1024 * 1024
_MAX_COMMITS = 12


class Compacted(Frozen):
    """Files that were merged and those they became, at the lake's version."""

    manifest: int
    merged: int
    into: int


def mergeable(manifest: Manifest, file_rows: int, everything: bool = False) -> list[list[DataFile]]:
    """Groups of small files of one table and date to merge: eight of like size, or with `everything` all of them where there are two.

    Args:
        file_rows: of a file that is large enough; one with half of that is left alone.
    """
    groups: dict[tuple[Table, str, int], list[DataFile]] = {}
    for file in manifest.files:
        if file.table in _ORDER and 2 * file.rows < file_rows and 2 * file.size_bytes < _LARGEST_BYTES:
            tier = 0 if everything else file.rows.bit_length() // 3
            groups.setdefault((file.table, file.date or "", tier), []).append(file)
    return [group for _, group in sorted(groups.items()) if len(group) >= (2 if everything else _LIKE_SIZED)]


def compact(lake: Lake, file_rows: int, *, everything: bool = False, passing: bool = False) -> Compacted:
    """Merges what is mergeable and commits; does nothing where nothing is.

    Raises:
        CommitConflictError: other writers were faster twelve times in a row.
    """
    forgotten: frozenset[str] | None = None
    with staging(lake.store):  # so that nobody collects what is not committed yet
        for attempt in range(_MAX_COMMITS):
            base = lake.manifest()
            now_forgotten = forgotten_keys(lake, base)
            if forgotten is not None and now_forgotten > forgotten:
                sweep(lake, now_forgotten - forgotten)
            forgotten = now_forgotten
            try:
                return _merged_once(lake, base, mergeable(base, file_rows, everything), file_rows, passing)
            except NotFoundError:
                if lake.manifest().version == base.version:
                    raise  # else a shopper was forgotten meanwhile, and with them a file that was to be merged
            except CommitConflictError:
                time.sleep(random.uniform(0, 0.1 * 2 ** min(attempt, 5)))
    raise CommitConflictError(f"lake {lake.uri}: other writers committed first {_MAX_COMMITS} times; compact again")


def _merged_once(lake: Lake, base: Manifest, groups: Sequence[Sequence[DataFile]], file_rows: int, passing: bool) -> Compacted:
    gone = {file.key for group in groups for file in group}
    made = [file for group in groups for file in _merged(lake, group, file_rows)]
    done = lake.commit(base, [*(file for file in base.files if file.key not in gone), *made], {"compacted": len(gone)}, passing=passing)
    return Compacted(manifest=done.version, merged=len(gone), into=len(made))


def _merged(lake: Lake, group: Sequence[DataFile], file_rows: int) -> Iterator[DataFile]:
    table = group[0].table
    rows = pl.concat([lake.read_file(file) for file in group]).sort(_ORDER[table])
    number = max(-(-rows.height // file_rows), -(-sum(file.size_bytes for file in group) // _LARGEST_BYTES))
    size = -(-rows.height // number)
    for start in range(0, rows.height, size):
        yield lake.write_file(table, to_table(table, rows.slice(start, size)), group[0].date)
        reach("compaction.file_written")
