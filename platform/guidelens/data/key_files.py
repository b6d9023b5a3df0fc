"""The home's pseudonym keys: one file each, oldest first, readable by their owner only. None is ever changed or removed.

Pseudonyms are chained through all of them (pseudonyms.py), so that a lost one cannot be done without.
"""

import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

from guidelens.errors import AlreadyExistsError, StorageError
from guidelens.storage import sync_folder

KEY_BYTES = 32
_FIRST = "shopper.key"
_LATER = re.compile(r"shopper-(\d{4})\.key")


def read_keys(folder: Path) -> tuple[bytes, ...]:
    """All keys; the first is made (mode 0600) where there is none yet, once, however many processes ask.

    Raises:
        StorageError: a key file is not one of ours, or one is missing.
    """
    if not (folder / _FIRST).exists():
        _make_first(folder)
    numbers = sorted(int(found[1]) for found in map(_LATER.fullmatch, key_names(folder)) if found)
    if numbers != list(range(2, len(numbers) + 2)):
        raise StorageError(f"{folder} must hold every key since {_FIRST}, got numbers {numbers}; restore the others from a backup")
    return tuple(_read(folder / name) for name in [_FIRST, *map(_named, numbers)])


def key_names(folder: Path) -> list[str]:
    """The names of the key files."""
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".key")


def add_key(folder: Path) -> int:
    """Makes the next key; its number.

    Raises:
        StorageError: another process did at the same time.
    """
    number = len(read_keys(folder)) + 1
    try:
        _make(folder / _named(number))
    except AlreadyExistsError as error:
        raise StorageError(f"{folder}: another process made key {number} at the same time; see `guidelens keys list`") from error
    return number


def _named(number: int) -> str:
    return f"shopper-{number:04d}.key"


def _read(path: Path) -> bytes:
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise StorageError(f"{path} must hold {KEY_BYTES} bytes, got {len(key)}; restore it from a backup, or pseudonyms will not match the lake's")
    return key


def _make_first(folder: Path) -> None:
    with suppress(AlreadyExistsError):  # another process was first: its key is the home's
        _make(folder / _FIRST)


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    written = path.with_name(f".writing-{secrets.token_hex(8)}")
    descriptor = os.open(written, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "wb") as sink:
        sink.write(secrets.token_bytes(KEY_BYTES))
        sink.flush()
        os.fsync(sink.fileno())
    try:
        os.link(written, path)
    except FileExistsError as error:
        raise AlreadyExistsError(f"{path} exists") from error
    finally:
        written.unlink()
    sync_folder(path.parent)
