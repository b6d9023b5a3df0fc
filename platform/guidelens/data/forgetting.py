"""Forgetting a shopper in the lake: a tombstone, every row rewritten away, older versions too, and the old bytes deleted.

After it, no live or older version of the lake holds a row of the shopper. A reader that opened an older version before may find a
file gone and must open it again. Knows nothing of the inbox or the feature store.
"""

import json
import random
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime

import polars as pl

from guidelens.crash_points import reach
from guidelens.data.event_ids import KEY_OF, Ids, hashed, is_among, joined, without
from guidelens.data.garbage import collect, orphans
from guidelens.data.lake import DataFile, IdFile, Lake, Manifest
from guidelens.data.settling import without_device
from guidelens.data.staging import remove_parts, runs, staging
from guidelens.data.tables import append, delete, rewrite
from guidelens.data.tombstones import forgotten_keys
from guidelens.errors import CommitConflictError
from guidelens.schemas.tables import Table

_PERSONAL = (Table.EVENTS, Table.SHOPPERS, Table.REVIEWS)
_MAX_COMMITS = 12


def forget_in_lake(lake: Lake, shopper_id: str, keys: frozenset[str], now: datetime) -> dict[Table, int]:
    """Rows removed from the live tables; in quarantine, records whose content was removed. Zeros for a shopper who is not there.

    What runs under way have staged is removed: they stage again, without the shopper. So are the leftovers of dead writers.

    Args:
        shopper_id: as the shop says it; only quarantined originals that are no valid records may hold it.
        keys: the shopper's pseudonyms.

    Raises:
        CommitConflictError: other writers were faster twelve times in a row.
    """
    with staging(lake.store) as own:
        return _forget(lake, shopper_id, keys, now, own)


def _forget(lake: Lake, shopper_id: str, keys: frozenset[str], now: datetime, own: str) -> dict[Table, int]:
    for attempt in range(_MAX_COMMITS):
        base = lake.manifest()
        cleaned: dict[str, list[DataFile]] = {}
        live, removed = _cleaned(lake, base.files, shopper_id, keys, cleaned)
        live += _tombstones(lake, base, keys, now)
        try:
            committed = lake.commit(base, live, {"forgotten": sum(removed.values())}, _cleaned_ids(lake, base, cleaned))
        except CommitConflictError:
            time.sleep(random.uniform(0, 0.1 * 2 ** min(attempt, 5)))
            continue
        reach("forget.committed")
        _clean_history(lake, committed, shopper_id, keys, cleaned)
        remove_parts(lake.store)
        sweep(lake, keys)
        collect(lake, orphans(lake, runs(lake.store)[own].begun, datetime.now(UTC)))
        return removed
    raise CommitConflictError(f"lake {lake.uri}: other writers committed first {_MAX_COMMITS} times; run forget again")


def _tombstones(lake: Lake, base: Manifest, keys: frozenset[str], now: datetime) -> list[DataFile]:
    """The tombstone files, with one more where a key is new."""
    fresh = sorted(keys - forgotten_keys(lake, base))
    rows = pl.DataFrame({"shopper_key": fresh, "asked_ts": [now] * len(fresh)}, schema={"shopper_key": pl.String, "asked_ts": pl.Datetime("us", "UTC")})
    return append(lake, base, Table.TOMBSTONES, rows)


def _cleaned(
    lake: Lake, files: tuple[DataFile, ...], shopper_id: str, keys: frozenset[str], cleaned: dict[str, list[DataFile]]
) -> tuple[list[DataFile], dict[Table, int]]:
    """All files but the tombstones, without the shopper. `cleaned` notes what became of each file key that changed."""
    kept: list[DataFile] = []
    removed = dict.fromkeys((*_PERSONAL, Table.QUARANTINE, Table.QUERIES), 0)
    for file in files:
        if file.table is Table.TOMBSTONES:
            continue
        after, number = _cleaned_file(lake, file, shopper_id, keys)
        if number:
            cleaned[file.key] = after
            removed[file.table] += number
        kept += after
    return (_without_orphans(lake, kept, cleaned, removed) if removed[Table.EVENTS] else kept), removed


def _cleaned_ids(lake: Lake, manifest: Manifest, cleaned: Mapping[str, list[DataFile]]) -> list[IdFile]:
    """A manifest's id files without the ids of the rows that cleaned files lost."""
    kept: list[IdFile] = []
    for table, key in KEY_OF.items():
        gone = [_lost_ids(lake, file, cleaned[file.key], key) for file in manifest.of(table) if file.key in cleaned]
        kept += without(lake.store, manifest.ids_of(table), joined(gone)) if gone else manifest.ids_of(table)
    return kept


def _lost_ids(lake: Lake, before: DataFile, after: list[DataFile], key: str) -> Ids:
    ids = hashed(lake.read_arrow(before, [key])[key])
    left = joined(hashed(lake.read_arrow(file, [key])[key]) for file in after)
    return ids.take(~is_among(ids, left))


def _without_orphans(lake: Lake, files: list[DataFile], cleaned: dict[str, list[DataFile]], removed: dict[Table, int]) -> list[DataFile]:
    """The files without the texts of searches that nobody else made. Older versions hold no events that the newest one lacks."""
    used = pl.concat([pl.Series("query", [], dtype=pl.String), *(lake.read_file(file)["query"] for file in files if file.table is Table.EVENTS)])
    kept: list[DataFile] = []
    for file in files:
        after, number = delete(lake, [file], ~pl.col("query").is_in(used.unique().implode())) if file.table is Table.QUERIES else ([file], 0)
        if number:
            cleaned[file.key] = after
            removed[Table.QUERIES] += number
        kept += after
    return kept


def _cleaned_file(lake: Lake, file: DataFile, shopper_id: str, keys: frozenset[str]) -> tuple[list[DataFile], int]:
    if file.table is Table.EVENTS:
        return rewrite(lake, [file], lambda rows: without_device(rows.filter(~_is_of(rows, keys, "shopper_key")), keys), lambda rows: _named(rows, keys))
    if file.table in _PERSONAL:
        return delete(lake, [file], pl.col("shopper_key").is_in(sorted(keys)))
    if file.table is Table.QUARANTINE:
        holds = _mentions(shopper_id, keys)
        return rewrite(lake, [file], lambda rows: _emptied(rows, holds), lambda rows: sum(_hits(rows, holds)))
    return [file], 0


def _is_of(rows: pl.DataFrame, keys: frozenset[str], column: str) -> pl.Series:
    """Of each row whether the column holds one of the keys; a file of an older schema may lack the column."""
    return rows[column].is_in(sorted(keys)).fill_null(False) if column in rows.columns else pl.Series([False]).new_from_index(0, rows.height)


def _named(rows: pl.DataFrame, keys: frozenset[str]) -> int:
    """How many events are the shopper's, or were made by another one on the shopper's device."""
    return int((_is_of(rows, keys, "shopper_key") | _is_of(rows, keys, "anonymous_key")).sum())


def _mentions(shopper_id: str, keys: frozenset[str]) -> re.Pattern[bytes]:
    """Finds a pseudonym, or the id as a whole word, plain or in JSON's escapes."""
    plain, escaped = shopper_id.strip(), json.dumps(shopper_id.strip())[1:-1]
    spelled = re.escape(plain.encode()) + rb"|(?i:" + re.escape(escaped.encode()) + b")"
    names = [re.escape(key.encode()) for key in sorted(keys)]
    return re.compile(rb"(?<![\w-])(?:" + spelled + rb")(?![\w-])|" + b"|".join(names))


def _hits(rows: pl.DataFrame, holds: re.Pattern[bytes]) -> list[bool]:
    return [
        any(part is not None and holds.search(part) is not None for part in (raw, message.encode()))
        for raw, message in rows.select("raw", "message").iter_rows()
    ]


def _emptied(rows: pl.DataFrame, holds: re.Pattern[bytes]) -> pl.DataFrame:
    hit = pl.Series("hit", _hits(rows, holds), dtype=pl.Boolean)
    return rows.with_columns(
        raw=pl.when(~hit).then(pl.col("raw")),
        message=pl.when(hit).then(pl.lit("the content was removed: the shopper asked to be forgotten")).otherwise(pl.col("message")),
    )


def _clean_history(lake: Lake, newest: Manifest, shopper_id: str, keys: frozenset[str], cleaned: dict[str, list[DataFile]]) -> None:
    """Rewrites older manifests to name cleaned files, then deletes the files that nothing names any more."""
    versions = [manifest for manifest in lake.manifests() if manifest.version < newest.version]
    checked = {file.key for file in newest.files}
    for manifest in versions:
        for file in manifest.files:
            if file.key not in checked and file.key not in cleaned:
                checked.add(file.key)
                after, number = _cleaned_file(lake, file, shopper_id, keys)
                if number:
                    cleaned[file.key] = after
    old_ids: set[str] = set()
    for manifest in versions:
        if any(file.key in cleaned for file in manifest.files):
            ids = _cleaned_ids(lake, manifest, cleaned)
            old_ids |= {file.key for file in manifest.ids} - {file.key for file in ids}
            lake.replace_history(manifest, _replaced(manifest.files, cleaned), ids)
    reach("forget.history_replaced")
    for key in [*cleaned, *(old_ids - {file.key for file in newest.ids})]:
        lake.store.delete(key)


def _replaced(files: tuple[DataFile, ...], cleaned: Mapping[str, list[DataFile]]) -> list[DataFile]:
    return [after for file in files for after in cleaned.get(file.key, [file])]


def sweep(lake: Lake, keys: frozenset[str]) -> None:
    """Deletes data files that no version names and that hold a forgotten shopper: what crashed or overtaken ingests left.

    Safe beside running ingests once the tombstone is committed: whoever prepared such a file must redo it without the shopper.
    """
    named = {file.key for manifest in lake.manifests() for file in manifest.files}
    for table in _PERSONAL:
        for key in lake.store.keys(f"{table}/"):
            if key not in named and _named(lake.read_key(table, key), keys):
                lake.store.delete(key)
