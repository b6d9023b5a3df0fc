"""Does a lake hold what its manifests say? Every byte of the files is read: nothing else ever compares their SHA-256.

Sizes and hashes of data and id files, ids against rows, the chain of versions. Reads a piece of a few files at a time, so memory is bounded
(with `deep`, by the largest files). Knows nothing of what rows mean; writes nothing.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from guidelens.data.lake.event_ids import FIRST_BYTES, KEEPS_IDS, KEY_OF, U64, IdReader, Ids, hashed, joined
from guidelens.data.lake.lake import DataFile, IdFile, Lake, Manifest
from guidelens.errors import ContractError, NotFoundError, StorageError
from guidelens.schemas.base import Frozen
from guidelens.schemas.tables import Table

_READS_AT_ONCE = 8
_PIECE_BYTES = 8 * 1024 * 1024
_IDS_AT_ONCE = 4_000_000
_FROM_BACKUP = "restore it from a backup"
_FROM_ROWS = "make the ids anew from the rows: `guidelens lake reindex`"


class Problem(Frozen):
    """file: its key in the lake."""

    file: str
    wrong: str
    remedy: str


class Verified(Frozen):
    """versions: how many manifests the chain has. files, id_files, size_bytes: what was read, of the newest version or of every one."""

    ok: bool
    lake: str
    manifest: int
    versions: int
    files: int
    id_files: int
    size_bytes: int
    every_version: bool
    deep: bool
    problems: tuple[Problem, ...]


class Note(NamedTuple):
    """How many files and bytes were read, of how many."""

    files: int
    of_files: int
    size_bytes: int
    of_bytes: int


def _silent(_note: Note) -> None:
    pass


def verify(lake: Lake, *, every_version: bool = False, deep: bool = False, note: Callable[[Note], None] = _silent) -> Verified:
    """Reads what the newest version names, or what every version does.

    Args:
        deep: also compares the ids of the rows with those of the id files, and looks for an id that is there twice.

    Raises:
        NotFoundError: the lake is empty.
    """
    stored = sorted(lake.version_times())
    if not stored:
        raise NotFoundError(f"lake {lake.uri} is empty; run `guidelens ingest` first, or name another one with --lake")
    wanted, problems = stored if every_version else stored[-1:], [*_chain_problems(lake, stored)]
    named = {file.key: file for manifest in _readable(lake, wanted) for file in manifest.objects}
    read = list(_read(lake, list(named.values()), deep, note))
    still_named: set[str] = set()
    for manifest in _readable(lake, wanted):  # anew: a shopper who was forgotten meanwhile took files along
        still_named |= manifest.keys
        problems += _count_problems(manifest, {file.key: file for file in read})
    problems += [problem for file in read for problem in file.problems if problem.file in still_named]
    if deep:
        problems += _twice(lake, stored[-1], {file.key for file in read if file.problems})
    return Verified(
        ok=not problems,
        lake=lake.uri,
        manifest=stored[-1],
        versions=len(stored),
        files=sum(isinstance(file, DataFile) for file in named.values()),
        id_files=sum(isinstance(file, IdFile) for file in named.values()),
        size_bytes=sum(file.size_bytes for file in named.values()),
        every_version=every_version,
        deep=deep,
        problems=tuple(problems),
    )


def _readable(lake: Lake, versions: Iterable[int]) -> Iterator[Manifest]:
    """One at a time, without those that are damaged (`_chain_problems` tells of them) or were thinned meanwhile."""
    for version in versions:
        try:
            yield lake.manifest(version)
        except (NotFoundError, StorageError, ContractError):
            continue


def _chain_problems(lake: Lake, stored: Sequence[int]) -> Iterator[Problem]:
    """Manifests that cannot be read, are not the one their name says, or do not follow the one before; versions that a run needs and that are gone."""
    writer: str | None = ""
    for version in stored:
        key = f"_manifests/{version:012d}.json"
        try:
            manifest = lake.manifest(version)
        except NotFoundError:
            continue
        except (StorageError, ContractError) as error:
            yield Problem(file=key, wrong=f"cannot be read: {error}", remedy=f"{_FROM_BACKUP}, or remove it to go without this version")
            writer = None
            continue
        if manifest.version != version:
            yield Problem(file=key, wrong=f"holds version {manifest.version}", remedy=_FROM_BACKUP)
        elif None not in (writer, manifest.follows) and manifest.follows != writer:
            wrong = "does not follow the version before it: one between them is lost, or one of the two is not what was committed"
            yield Problem(file=key, wrong=wrong, remedy="restore _manifests/ from a backup; each version that is there is whole by itself")
        writer = manifest.follows if manifest.passing else manifest.writer
    for version in sorted(lake.pinned() - set(stored)):
        wrong = f"a run was trained on version {version}, which is gone"
        yield Problem(
            file=f"_pins/{version:012d}", wrong=wrong, remedy=f"restore _manifests/{version:012d}.json from a backup; without it the run cannot be repeated"
        )


class _Read(NamedTuple):
    """One file after it was read. total: the sum of its ids; None where it was not taken."""

    key: str
    problems: tuple[Problem, ...]
    total: int | None = None


def _read(lake: Lake, files: Sequence[DataFile | IdFile], deep: bool, note: Callable[[Note], None]) -> Iterator[_Read]:
    """Several files at a time, because an object store takes its time for each."""
    of_bytes, size_bytes = sum(file.size_bytes for file in files), 0
    with ThreadPoolExecutor(_READS_AT_ONCE) as pool:
        for number, (file, read) in enumerate(zip(files, pool.map(lambda file: _read_one(lake, file, deep), files), strict=True), 1):
            size_bytes += file.size_bytes
            note(Note(number, len(files), size_bytes, of_bytes))
            yield read


def _read_one(lake: Lake, file: DataFile | IdFile, deep: bool) -> _Read:
    remedy = f"{_FROM_BACKUP}, or {_FROM_ROWS}" if isinstance(file, IdFile) else _FROM_BACKUP
    try:
        wrong = _wrong_bytes(lake, file)
        if wrong is None and deep and file.table in KEY_OF:
            ids, wrong = _ids_in(lake, file) if isinstance(file, IdFile) else _ids_of_rows(lake, file)
            if wrong is None:
                return _Read(file.key, (), _total(ids))
    except NotFoundError:
        wrong = "is missing"
    except (StorageError, OSError) as error:
        wrong = f"cannot be read: {error}"
    return _Read(file.key, (Problem(file=file.key, wrong=wrong, remedy=remedy),) if wrong else ())


def _wrong_bytes(lake: Lake, file: DataFile | IdFile) -> str | None:
    size = lake.store.size(file.key)
    if size != file.size_bytes:
        return f"has {size} bytes; the manifest says {file.size_bytes}"
    sha256 = hashlib.sha256()
    for start in range(0, size, _PIECE_BYTES):
        sha256.update(lake.store.read_range(file.key, start, min(size, start + _PIECE_BYTES)))
    return None if sha256.hexdigest() == file.sha256 else f"has the SHA-256 {sha256.hexdigest()}; the manifest says {file.sha256}"


def _ids_in(lake: Lake, file: IdFile) -> tuple[Ids, str | None]:
    ids = IdReader(lake.store).known(file, 0, FIRST_BYTES)
    if len(ids.high) != file.num_ids:
        return ids, f"holds {len(ids.high)} ids; the manifest says {file.num_ids}"
    is_above = (ids.high[1:] > ids.high[:-1]) | ((ids.high[1:] == ids.high[:-1]) & (ids.low[1:] > ids.low[:-1]))
    return ids, None if is_above.all() else "holds ids out of order or twice"


def _ids_of_rows(lake: Lake, file: DataFile) -> tuple[Ids, str | None]:
    ids = hashed(lake.read_arrow(file, [KEY_OF[file.table]])[KEY_OF[file.table]])
    return ids, None if len(ids.high) == file.rows else f"holds {len(ids.high)} rows; the manifest says {file.rows}"


def _total(ids: Ids) -> int:
    """The sum of 128-bit ids: equal for equal ids in whatever order, and by accident for no others."""
    return (_sum(ids.high) << 64) + _sum(ids.low)


def _sum(numbers: U64) -> int:
    """Halves are summed apart, which is exact below 2^32 numbers."""
    half = np.uint64(32)
    return (int((numbers >> half).sum()) << 32) + int((numbers & np.uint64(2**32 - 1)).sum())


def _count_problems(manifest: Manifest, read: dict[str, _Read]) -> Iterator[Problem]:
    """Tables of which the id files do not hold the rows' ids; a version from before there were id files has none to compare."""
    key = f"_manifests/{manifest.version:012d}.json"
    for table in KEY_OF:
        files, id_files = manifest.of(table), manifest.ids_of(table)
        if not id_files:
            continue
        rows, num_ids = manifest.rows(table), sum(file.num_ids for file in id_files)
        of_rows, of_ids = _sum_of(read, files), _sum_of(read, id_files)
        if num_ids < rows or (num_ids > rows and table not in KEEPS_IDS):
            yield Problem(file=key, wrong=f"has {num_ids} ids for {rows} rows of {table}", remedy=_FROM_ROWS)
        elif num_ids == rows and None not in (of_rows, of_ids) and of_rows != of_ids:
            yield Problem(file=key, wrong=f"the id files of {table} hold other ids than its rows", remedy=_FROM_ROWS)


def _sum_of(read: dict[str, _Read], files: Iterable[DataFile | IdFile]) -> int | None:
    totals = [read[file.key].total if file.key in read else None for file in files]
    return None if None in totals else sum(total for total in totals if total is not None)


def _twice(lake: Lake, version: int, damaged: set[str]) -> Iterator[Problem]:
    """Ids that two of the newest version's id files hold: a range of first bytes at a time."""
    by_table: defaultdict[Table, list[IdFile]] = defaultdict(list)
    for manifest in _readable(lake, [version]):
        for file in manifest.ids:
            if file.key not in damaged:
                by_table[file.table].append(file)
    for table, files in by_table.items():
        try:
            repeated = _repeated(lake, files)
        except NotFoundError:
            continue  # the version was rewritten meanwhile
        if repeated:
            remedy = f"{_FROM_ROWS}; where that does not help, rows are there twice, which no ingest does: please report it"
            yield Problem(file=f"_manifests/{version:012d}.json", wrong=f"{repeated} ids of {table} stand in two id files", remedy=remedy)


def _repeated(lake: Lake, files: Sequence[IdFile]) -> int:
    reader, repeated = IdReader(lake.store), 0
    ranges = min(FIRST_BYTES, -(-sum(file.num_ids for file in files) // _IDS_AT_ONCE))
    for first, stop in pairwise(np.linspace(0, FIRST_BYTES, ranges + 1).round().astype(int).tolist()):
        ids = joined(reader.known(file, first, stop) for file in files)
        repeated += int(((ids.high[1:] == ids.high[:-1]) & (ids.low[1:] == ids.low[:-1])).sum())
    return repeated
