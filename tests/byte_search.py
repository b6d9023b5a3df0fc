"""Looks for texts in everything that a folder holds: the bytes of each file, and what is inside Parquet, sqlite, zstd and gzip.

A needle is looked for as UTF-8, UTF-16 and UTF-32 (as numpy keeps texts), in JSON's escapes, percent-encoded and, where it is hex digits, as the bytes they stand for.
"""

import gzip
import io
import json
import sqlite3
import urllib.parse
from collections.abc import Iterable, Iterator
from pathlib import Path

import polars as pl
import zstandard


def found_in(folder: Path, needles: Iterable[str]) -> dict[str, list[str]]:
    """Needles by the file (relative) that holds them, of files that hold any."""
    spelled = {needle: _spellings(needle) for needle in needles}
    found: dict[str, list[str]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        held = b"\n".join([str(path.relative_to(folder)).encode(), *_contents(path)])
        hits = [needle for needle, forms in spelled.items() if any(form in held for form in forms)]
        if hits:
            found[str(path.relative_to(folder))] = hits
    return found


def _spellings(needle: str) -> set[bytes]:
    forms = {needle.encode(), needle.encode("utf-16-le"), needle.encode("utf-32-le"), json.dumps(needle)[1:-1].encode(), urllib.parse.quote(needle).encode()}
    if len(needle) == 64 and set(needle) <= set("0123456789abcdef"):
        forms.add(bytes.fromhex(needle))
    return forms


def _contents(path: Path) -> Iterator[bytes]:
    """A file's bytes and, where it is a known container, what it contains."""
    data = path.read_bytes()
    yield data
    if data.startswith(b"PAR1"):
        yield _as_text(pl.read_parquet(io.BytesIO(data)).rows())
    elif data.startswith(b"SQLite format 3\0"):
        yield from _cells(path)
    elif data.startswith(b"\x28\xb5\x2f\xfd"):
        yield zstandard.ZstdDecompressor().decompressobj().decompress(data)
    elif data.startswith(b"\x1f\x8b"):
        yield gzip.decompress(data)


def _cells(path: Path) -> Iterator[bytes]:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            yield _as_text(connection.execute(f'SELECT * FROM "{table}"').fetchall())
    finally:
        connection.close()


def _as_text(value: object) -> bytes:
    """Every text and all bytes inside rows, one after another."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, dict):
        return b"\n".join(_as_text(one) for one in value.values())
    if isinstance(value, list | tuple):
        return b"\n".join(_as_text(one) for one in value)
    return str(value).encode("utf-8", "surrogatepass")
