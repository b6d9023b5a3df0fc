"""Changes that every version of the lake must undergo, because what was there must exist no more: forgetting, expiry, other pseudonyms.

A commit changes what is live; then older versions are made to name changed files too, and the files that held the old rows are deleted.
A reader that opened an older version before may find a file gone and must open it again.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import NamedTuple

import polars as pl

from guidelens.crash_points import reach
from guidelens.data.lake.event_ids import KEY_OF, Ids, hashed, is_among, joined, without, write_ids
from guidelens.data.lake.garbage import collect, orphans
from guidelens.data.lake.lake import DataFile, IdFile, Lake, Manifest
from guidelens.data.lake.staging import remove_parts, runs, staging
from guidelens.data.lake.tables import delete
from guidelens.errors import CommitConflictError
from guidelens.schemas.tables import Table

ChangeFile = Callable[[DataFile, Manifest], tuple[list[DataFile], int]]
"""The files in place of one that a manifest names, and how many of its rows changed: none leaves it as it is."""
_MAX_COMMITS = 12


def _nothing(_base: Manifest) -> list[DataFile]:
    return []


def _silent(_done: int, _of: int) -> None:
    pass


class Change(NamedTuple):
    """change: of any data file of any version. added: new live files. key_id, events_from: as in Manifest. loses_events: whether rows
    of events go, and with them the texts that nobody else searched for. said: what the manifest's report calls it."""

    said: str
    change: ChangeFile
    added: Callable[[Manifest], list[DataFile]] = _nothing
    key_id: str | None = None
    events_from: date | None = None
    loses_events: bool = True


class Rewritten(NamedTuple):
    """rows: changed in the live tables, by table."""

    manifest: Manifest
    rows: dict[Table, int]


def rewrite_every_version(lake: Lake, change: Change, note: Callable[[int, int], None] = _silent) -> Rewritten:
    """Commits the change, applies it to older versions and deletes what held the old rows.

    What runs under way have staged is removed: they stage again. So are the leftovers of dead writers. Killed at any point, it is
    finished by being run again.

    Args:
        note: told after each live file how many are done, of how many.

    Raises:
        CommitConflictError: other writers were faster twelve times in a row.
    """
    with staging(lake.store) as own:
        for attempt in range(_MAX_COMMITS):
            base = lake.manifest()
            rewriting = _Rewriting(lake, change)
            live, rows = rewriting.live(base, note)
            try:
                report = {change.said: sum(rows.values())}
                ids = rewriting.ids(base)
                committed = lake.commit(base, [*live, *change.added(base)], report, ids, key_id=change.key_id, events_from=change.events_from)
            except CommitConflictError:
                time.sleep(random.uniform(0, 0.1 * 2 ** min(attempt, 5)))
                continue
            reach("rewrite.committed")
            rewriting.clean_history(committed)
            remove_parts(lake.store)
            collect(lake, orphans(lake, runs(lake.store)[own].begun, datetime.now(UTC)))
            return Rewritten(committed, rows)
    raise CommitConflictError(f"lake {lake.uri}: other writers committed first {_MAX_COMMITS} times; run it again")


class _Rewriting:
    """One attempt. changed: what became of each file key that changed."""

    def __init__(self, lake: Lake, change: Change) -> None:
        self._lake, self._change = lake, change
        self._same: set[str] = set()
        self.changed: dict[str, list[DataFile]] = {}

    def live(self, base: Manifest, note: Callable[[int, int], None]) -> tuple[list[DataFile], dict[Table, int]]:
        """The newest version's files, changed, and by table how many rows that concerned."""
        kept: list[DataFile] = []
        rows: Counter[Table] = Counter()
        for done, file in enumerate(base.files, 1):
            after, number = self._changed(file, base)
            kept += after
            rows[file.table] += number
            note(done, len(base.files))
        if rows[Table.EVENTS] and self._change.loses_events:
            kept = self._without_orphans(kept, rows)
        return kept, dict(rows)

    def ids(self, manifest: Manifest) -> list[IdFile]:
        """The manifest's id files for the keys that its changed files hold."""
        kept: list[IdFile] = []
        for table, key in KEY_OF.items():
            changed = [file for file in manifest.of(table) if file.key in self.changed]
            before = joined(self._ids_of([file], key) for file in changed)
            after = joined(self._ids_of(self.changed[file.key], key) for file in changed)
            files: Sequence[IdFile] = manifest.ids_of(table)
            gone, come = before.take(~is_among(before, after)), after.take(~is_among(after, before))
            kept += [*(without(self._lake.store, files, gone) if len(gone.high) else files), *write_ids(self._lake.store, table, come)]
        return kept

    def clean_history(self, newest: Manifest) -> None:
        """Rewrites older manifests to name changed files, then deletes the files that nothing names any more."""
        older = [manifest for manifest in self._lake.manifests() if manifest.version < newest.version]
        self._same |= newest.keys
        for manifest in older:
            for file in manifest.files:
                self._changed(file, manifest)
        old_ids: set[str] = set()
        for manifest in older:
            marked = manifest if self._change.key_id is None else manifest.model_copy(update={"key_id": self._change.key_id})
            if marked != manifest or any(file.key in self.changed for file in manifest.files):
                ids = self.ids(manifest)
                old_ids |= {file.key for file in manifest.ids} - {file.key for file in ids}
                self._lake.replace_history(marked, _replaced(manifest.files, self.changed), ids)
        reach("rewrite.history_replaced")
        for key in [*self.changed, *(old_ids - newest.keys)]:
            self._lake.store.delete(key)

    def _changed(self, file: DataFile, manifest: Manifest) -> tuple[list[DataFile], int]:
        if file.key in self.changed or file.key in self._same:
            return self.changed.get(file.key, [file]), 0
        after, number = self._change.change(file, manifest)
        if number:
            self.changed[file.key] = after
        else:
            self._same.add(file.key)
        return after, number

    def _ids_of(self, files: Sequence[DataFile], key: str) -> Ids:
        return joined(hashed(self._lake.read_arrow(file, [key])[key]) for file in files)

    def _without_orphans(self, files: list[DataFile], rows: Counter[Table]) -> list[DataFile]:
        """The files without the texts of searches that nobody else made. Older versions hold no events that the newest one lacks."""
        events = [file for file in files if file.table is Table.EVENTS]
        used = pl.concat(
            [pl.Series("query", [], dtype=pl.String), *(pl.Series(pl.from_arrow(self._lake.read_arrow(file, ["query"])["query"])) for file in events)]
        )
        kept: list[DataFile] = []
        for file in files:
            after, number = delete(self._lake, [file], ~pl.col("query").is_in(used.unique().implode())) if file.table is Table.QUERIES else ([file], 0)
            if number:
                self.changed[file.key] = after
                rows[Table.QUERIES] += number
            kept += after
        return kept


def _replaced(files: tuple[DataFile, ...], changed: Mapping[str, list[DataFile]]) -> list[DataFile]:
    return [after for file in files for after in changed.get(file.key, [file])]
