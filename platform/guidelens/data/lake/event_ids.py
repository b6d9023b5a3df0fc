"""Which keys a table holds, as sorted 128-bit hashes in id files beside the data: what makes "seen before" cheap to ask.

An id file is a table of 257 positions (where each first byte of a hash begins) and the ids in order, 16 bytes each. A task that asks
for a range of first bytes reads that range of each live file, so its memory is bounded however many ids there are. Files of like size
are merged, so that few are live. BLAKE2b at 128 bits: two keys of a lake of 1e12 rows share a hash with probability below 1e-14, and
nobody can make two that do; `hash()` would differ from process to process.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from guidelens.crash_points import reach
from guidelens.data.lake.lake import IdFile, Lake, Manifest
from guidelens.data.lake.staging import staging
from guidelens.errors import NotFoundError, StorageError
from guidelens.schemas.tables import Table
from guidelens.storage import Store

KEY_OF = {Table.EVENTS: "event_id", Table.QUARANTINE: "record_sha256", Table.QUERIES: "query"}
"""The tables with id files: those that are appended to."""
KEEPS_IDS = frozenset({Table.QUARANTINE})
"""What left quarantine by a replay has no row any more, but keeps its id, so that it stays out: there may be more ids than rows."""
FIRST_BYTES = 256
_HEADER_BYTES = 8 * (FIRST_BYTES + 1)
_ID_BYTES = 16
_MERGED_FILES = 8
LARGEST_MERGED = 4_000_000
"""Ids of the largest id file that merging makes."""

U64 = NDArray[np.uint64]


class Ids(NamedTuple):
    """Hashes as two uint64 each: the first and the last eight bytes."""

    high: U64
    low: U64

    def take(self, where: NDArray[Any]) -> "Ids":
        return Ids(self.high[where], self.low[where])


NO_IDS = Ids(np.zeros(0, np.uint64), np.zeros(0, np.uint64))


def hashed(keys: pa.ChunkedArray | pa.Array) -> Ids:
    """The ids of keys (strings, none null), in their order."""
    begun = hashlib.blake2b(digest_size=_ID_BYTES).copy  # a copy is made sooner than a new one
    digests = []
    for key in keys.cast(pa.binary()).to_pylist():
        one = begun()
        one.update(key)
        digests.append(one.digest())
    joined = b"".join(digests)
    return unpacked(joined)


def unpacked(data: bytes) -> Ids:
    pairs = np.frombuffer(data, dtype=">u8").reshape(-1, 2).astype(np.uint64)
    return Ids(np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1]))


def in_order(ids: Ids) -> NDArray[np.intp]:
    """Sorts ids; equal ones keep their order."""
    order = np.argsort(ids.high, kind="stable")
    high, low = ids.high[order], ids.low[order]
    if np.any((high[1:] == high[:-1]) & (low[1:] != low[:-1])):
        return np.lexsort((ids.low, ids.high))
    return order


def joined(parts: Iterable[Ids]) -> Ids:
    """All ids of the parts, sorted."""
    held = [NO_IDS, *parts]
    together = Ids(np.concatenate([part.high for part in held]), np.concatenate([part.low for part in held]))
    return together.take(in_order(together))


def is_among(ids: Ids, known: Ids) -> NDArray[np.bool_]:
    """Of each id whether `known`, which is sorted, holds it."""
    found = np.zeros(len(ids.high), dtype=np.bool_)
    if not len(known.high):
        return found
    at = np.searchsorted(known.high, ids.high)
    waiting = np.flatnonzero(at < len(known.high))
    while len(waiting):  # once more for each pair of known ids that share their first half: next to never
        here = at[waiting]
        same_high = known.high[here] == ids.high[waiting]
        same = same_high & (known.low[here] == ids.low[waiting])
        found[waiting[same]] = True
        at[waiting] += 1
        waiting = waiting[same_high & ~same & (here + 1 < len(known.high))]
    return found


def places_of(known: Ids, ids: Ids) -> NDArray[np.intp]:
    """Where in `ids` those stand that `known` holds. Both are sorted; takes time as the fewer of the two and what they share, not as both."""
    if len(known.high) >= len(ids.high):
        return np.flatnonzero(is_among(ids, known))
    first = np.searchsorted(ids.high, known.high)
    waiting = np.flatnonzero(first < len(ids.high))
    waiting = waiting[ids.high[first[waiting]] == known.high[waiting]]
    counts = np.searchsorted(ids.high, known.high[waiting], side="right") - first[waiting]
    owners = np.repeat(waiting, counts)
    places = first[owners] + np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.unique(places[ids.low[places] == known.low[owners]])


def starts_of(high: U64) -> NDArray[np.int64]:
    """Of sorted ids, where each first byte begins: (257,) positions, the last one their number."""
    edges = np.arange(1, FIRST_BYTES, dtype=np.uint64) << np.uint64(56)
    return np.concatenate([[0], np.searchsorted(high, edges), [len(high)]]).astype(np.int64)


class IdReader:
    """Reads ranges of id files. With `keeps`, whole files stay in memory: for a process that asks again and again."""

    def __init__(self, store: Store, keeps: bool = False) -> None:
        self._store = store
        self._kept: dict[str, Ids] | None = {} if keeps else None

    def known(self, file: IdFile, first: int, stop: int) -> Ids:
        """The file's ids whose first byte is in [first, stop), sorted."""
        if self._kept is None:
            return self._range(file, first, stop)
        if file.key not in self._kept:
            self._kept[file.key] = self._range(file, 0, FIRST_BYTES)
        whole = self._kept[file.key]
        starts = starts_of(whole.high)
        return Ids(whole.high[starts[first] : starts[stop]], whole.low[starts[first] : starts[stop]])

    def keep_only(self, files: Iterable[IdFile]) -> None:
        """Lets go of files that are live no more."""
        live = {file.key for file in files}
        if self._kept is not None:
            self._kept = {key: ids for key, ids in self._kept.items() if key in live}

    def _range(self, file: IdFile, first: int, stop: int) -> Ids:
        if (first, stop) == (0, FIRST_BYTES):
            return unpacked(self._store.read_bytes(file.key, file.size_bytes)[_HEADER_BYTES:])
        starts = np.frombuffer(self._store.read_range(file.key, 0, _HEADER_BYTES), dtype="<i8")
        return unpacked(self._store.read_range(file.key, _HEADER_BYTES + _ID_BYTES * int(starts[first]), _HEADER_BYTES + _ID_BYTES * int(starts[stop])))


def write_ids(store: Store, table: Table, ids: Ids) -> list[IdFile]:
    """Sorted ids as a file, none for no ids; live only once committed."""
    if not len(ids.high):
        return []
    pairs = np.empty((len(ids.high), 2), ">u8")
    pairs[:, 0], pairs[:, 1] = ids
    data = b"".join([starts_of(ids.high).astype("<i8").data, pairs.data])
    sha256 = hashlib.sha256(data).hexdigest()
    key = f"_ids/{table}/{sha256[:24]}.ids"
    reach("ids.before_file")
    store.write_bytes(key, data)
    reach("ids.after_file")
    return [IdFile(table=table, key=key, num_ids=len(ids.high), size_bytes=len(data), sha256=sha256)]


def live_ids(lake: Lake, base: Manifest, table: Table) -> list[IdFile]:
    """The table's id files as of a manifest, made from its rows where they are not complete: in a lake from before there were any."""
    files = base.ids_of(table)
    num_ids, rows = sum(file.num_ids for file in files), base.rows(table)
    if num_ids == rows or (num_ids > rows and table in KEEPS_IDS):
        return list(files)
    return made_of_rows(lake, base, table)


def made_of_rows(lake: Lake, base: Manifest, table: Table) -> list[IdFile]:
    """New id files of the table's rows as of a manifest; live only once committed."""
    made: list[IdFile] = []
    for data_file in base.of(table):
        made += write_ids(lake.store, table, joined([hashed(lake.read_arrow(data_file, [KEY_OF[table]])[KEY_OF[table]])]))
    return merged(lake.store, made)


def reindex(lake: Lake) -> Manifest:
    """Makes the id files of the newest version anew and commits them, where they differ from those it names.

    What left quarantine by a replay has no row any more: its ids stay where their file is whole.

    Raises:
        CommitConflictError: another writer committed meanwhile; let writers end, then do it again.
    """
    with staging(lake.store):  # so that nobody collects what is not committed yet
        base = lake.manifest()
        made = [file for table in KEY_OF for file in (_with_those_of_rows if table in KEEPS_IDS else made_of_rows)(lake, base, table)]
        return lake.commit(base, base.files, {"reindexed": sum(file.num_ids for file in made)}, made)


def _with_those_of_rows(lake: Lake, base: Manifest, table: Table) -> list[IdFile]:
    """The table's id files that are whole, and new ones for the rows whose ids they lack."""
    whole = [file for file in base.ids_of(table) if _is_whole(lake.store, file)]
    reader, found = IdReader(lake.store), list(whole)
    for data_file in base.of(table):
        ids = joined([hashed(lake.read_arrow(data_file, [KEY_OF[table]])[KEY_OF[table]])])
        lacking = np.ones(len(ids.high), np.bool_)
        for file in whole:
            lacking[places_of(reader.known(file, 0, FIRST_BYTES), ids)] = False
        found += write_ids(lake.store, table, ids.take(lacking))
    return merged(lake.store, found)


def _is_whole(store: Store, file: IdFile) -> bool:
    try:
        return hashlib.sha256(store.read_bytes(file.key, file.size_bytes)).hexdigest() == file.sha256
    except (NotFoundError, StorageError):
        return False


def merged(store: Store, files: Sequence[IdFile]) -> list[IdFile]:
    """The same ids in few files: eight small ones of like size become one, so that an id is rewritten about once per eightfold growth."""
    live = sorted(files, key=lambda file: (file.num_ids, file.key))
    while True:
        tiers: dict[int, list[IdFile]] = {}
        for file in live:
            tiers.setdefault(file.num_ids.bit_length() // 3, []).append(file)
        groups = (tier[:_MERGED_FILES] for tier in tiers.values() if len(tier) >= _MERGED_FILES)
        full = next((group for group in groups if sum(file.num_ids for file in group) <= LARGEST_MERGED), None)
        if full is None:
            return live
        reader = IdReader(store)
        together = write_ids(store, full[0].table, joined(reader.known(file, 0, FIRST_BYTES) for file in full))
        live = sorted([*(file for file in live if file not in full), *together], key=lambda file: (file.num_ids, file.key))


def without(store: Store, files: Sequence[IdFile], gone: Ids) -> list[IdFile]:
    """The files without some ids (`gone`, sorted); files without such an id stay as they are."""
    kept: list[IdFile] = []
    reader = IdReader(store)
    for file in files:
        ids = reader.known(file, 0, FIRST_BYTES)
        hit = is_among(ids, gone)
        kept += write_ids(store, file.table, ids.take(~hit)) if hit.any() else [file]
    return kept
