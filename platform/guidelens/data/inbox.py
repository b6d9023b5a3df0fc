"""The event inbox: append-only segment files that the served graph writes and the next ingest drains.

`append` returns once the events are on disk (fsync). Each process writes its own segment; under a short lock a drain
seals a segment by renaming it, and the writer opens a new one. What was sealed is deleted only after ingest committed it, so
that a crash leads to duplicates, which the lake counts, and never to loss. Knows nothing of the lake.
"""

import fcntl
import json
import os
import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic_core import from_json

from guidelens.data.pseudonyms import Pseudonymizer, PseudonymousEvent
from guidelens.schemas.base import Frozen
from guidelens.storage import sync_folder

_OPEN, _SEALED = ".open.jsonl", ".sealed.jsonl"
_REMEMBERED_IDS = 200_000
_EVENT_ID = re.compile(rb'^\{"event_id":"((?:[^"\\]|\\.)*)"')


class AppendResult(Frozen):
    """accepted: the events that were new, in order; duplicate: how many were not."""

    accepted: tuple[PseudonymousEvent, ...]
    duplicate: int


class Inbox:
    """One process's handle on the inbox in `folder`; made on first append. Threads may share it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._segment: Path | None = None
        self._descriptor = -1
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._read_to: dict[str, int] = {}

    def append(self, events: Sequence[PseudonymousEvent]) -> AppendResult:
        """Stores the events not seen before, durably, in order; event_id decides, among the 200,000 most recent.

        Raises:
            OSError: the disk did not take them; none is acknowledged.
        """
        lines = [event.model_dump_json(exclude_none=True).encode() + b"\n" for event in events]
        with self._lock:
            self._catch_up()
            fresh: dict[bytes, bytes] = {}
            accepted: list[PseudonymousEvent] = []
            for event, line in zip(events, lines, strict=True):
                found = _id_of(line)
                if found not in self._seen and found not in fresh:
                    fresh[found] = line
                    accepted.append(event)
            if fresh:
                self._write(b"".join(fresh.values()))
                self._remember(fresh)
        return AppendResult.model_construct(accepted=tuple(accepted), duplicate=len(lines) - len(fresh))

    def close(self) -> None:
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
            self._descriptor, self._segment = -1, None

    def _remember(self, ids: dict[bytes, bytes]) -> None:
        self._seen.update(dict.fromkeys(ids))
        while len(self._seen) > _REMEMBERED_IDS:
            self._seen.popitem(last=False)

    def _catch_up(self) -> None:
        """Learns the ids that other processes wrote since the last look."""
        for path in segments(self.folder):
            name = _stem(path)
            start = self._read_to.get(name, 0)
            try:
                with path.open("rb") as source:
                    source.seek(start)
                    data = source.read()
            except FileNotFoundError:
                continue
            complete = data[: data.rfind(b"\n") + 1]
            self._read_to[name] = start + len(complete)
            self._remember({_id_of(line): b"" for line in complete.splitlines()})

    def _write(self, data: bytes) -> None:
        while True:
            if self._descriptor < 0:
                self._open_segment()
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            try:
                if self._still_open():
                    _write_all(self._descriptor, data)
                    os.fsync(self._descriptor)
                    return
            finally:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = -1

    def _still_open(self) -> bool:
        """Whether no drain has sealed the segment since it was opened. Asked under its lock."""
        assert self._segment is not None
        return self._segment.exists()

    def _open_segment(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        number = max((int(path.name.split("-")[0]) for path in segments(self.folder)), default=0) + 1
        self._segment = self.folder / f"{number:08d}-{secrets.token_hex(8)}{_OPEN}"
        self._descriptor = os.open(self._segment, os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_WRONLY, 0o600)
        sync_folder(self.folder)


def segments(folder: Path) -> list[Path]:
    """All segment files, sealed or still written to, in order."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.name.endswith((_OPEN, _SEALED)))


@contextmanager
def draining(folder: Path) -> Iterator[list[Path]]:
    """Seals what is there and yields the sealed segments; one drain at a time. Call `remove` once they are committed."""
    if not folder.is_dir():
        yield []
        return
    with (folder / ".drain.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for path in segments(folder):
            if path.name.endswith(_OPEN):
                _seal(path)
        yield [path for path in segments(folder) if path.name.endswith(_SEALED)]


def remove(sealed: Sequence[Path]) -> None:
    for path in sealed:
        path.unlink(missing_ok=True)


def forget(folder: Path, shopper_keys: frozenset[str], pseudonyms: Pseudonymizer) -> int:
    """Deletes the waiting events of shoppers, under whichever key they were written; how many there were. Others' logins lose the names of their devices."""
    removed = 0
    with draining(folder) as sealed:
        for path in sealed:
            lines = path.read_bytes().splitlines(keepends=True)
            kept = [_without(line, shopper_keys, pseudonyms) for line in lines]
            removed += sum(line is None for line in kept)
            if kept != lines:
                _replace(path, b"".join(line for line in kept if line is not None))
    return removed


def _without(line: bytes, shopper_keys: frozenset[str], pseudonyms: Pseudonymizer) -> bytes | None:
    """The line without a device that is to be forgotten; None where all of it is. A line cut short by a crash holds no event yet and goes too."""
    try:
        event = from_json(line)
    except ValueError:
        return None
    names = {name: pseudonyms.later_names(event[name], event["key_id"]) for name in ("shopper_key", "anonymous_key") if event.get(name)}
    if shopper_keys.intersection(names["shopper_key"]):
        return None
    if shopper_keys.intersection(names.get("anonymous_key", ())):
        return json.dumps({name: value for name, value in event.items() if name != "anonymous_key"}, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    return line


def _seal(path: Path) -> None:
    with path.open("rb") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        path.rename(path.with_name(path.name.removesuffix(_OPEN) + _SEALED))
    sync_folder(path.parent)


def _replace(path: Path, data: bytes) -> None:
    written = path.with_name(f".writing-{secrets.token_hex(8)}")
    with written.open("wb") as sink:
        sink.write(data)
        sink.flush()
        os.fsync(sink.fileno())
    written.replace(path)
    sync_folder(path.parent)


def _id_of(line: bytes) -> bytes:
    found = _EVENT_ID.match(line)
    return found[1] if found else line


def _stem(path: Path) -> str:
    return path.name.removesuffix(_OPEN).removesuffix(_SEALED)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
