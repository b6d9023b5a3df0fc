"""What an ingest is given, and its cutting into chunks that workers read apart. Reads listings, never contents."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Literal

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from pydantic import field_validator

from guidelens.config import KafkaOptions, S3Options
from guidelens.errors import InputError, StorageError
from guidelens.schemas.base import Frozen
from guidelens.storage import arrow_filesystem

Format = Literal["jsonl", "csv", "parquet", "kafka"]
Compression = Literal["gzip", "zstd"]
_FORMATS: dict[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}
_COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
_UNPACKED = 8
"""How many times larger lines of events are, about, than their packed file."""
_FEWEST_GROUPS = 32
"""So that a few workers end at about the same time."""


class Kind(StrEnum):
    """What can be brought. The words of the ingest's counts."""

    CATALOGUE = "catalogue"
    PHOTOS = "photos"
    MODELS = "models"
    EVENTS = "events"
    SHOPPERS = "shoppers"
    REVIEWS = "reviews"


class IngestSources(Frozen):
    """Local paths, made absolute (a record's place must not depend on who reads it where), or s3:// URIs. `photo_list`: a CSV `path,product_id` that says which photos of the folder to take and what
    they show (no product: unlabelled), in place of its photos.csv. Events may also be kafka:// URIs: `begin` and `skip_lost` are for those
    (kafka_source.py)."""

    catalogue: str | None = None
    photos: str | None = None
    photo_list: str | None = None
    events: tuple[str, ...] = ()
    shoppers: str | None = None
    reviews: str | None = None
    begin: Literal["earliest", "latest"] = "earliest"
    skip_lost: bool = False

    @field_validator("catalogue", "photos", "photo_list", "shoppers", "reviews")
    @classmethod
    def _absolute(cls, uri: str | None) -> str | None:
        return uri if uri is None or "://" in uri else str(Path(uri).absolute())

    @field_validator("events")
    @classmethod
    def _all_absolute(cls, uris: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(uri if "://" in uri else str(Path(uri).absolute()) for uri in uris)

    @property
    def names_something(self) -> bool:
        return any((self.catalogue, self.photos, self.events, self.shoppers, self.reviews))

    def files_of(self, kind: Kind) -> tuple[str, ...]:
        single = {Kind.CATALOGUE: self.catalogue, Kind.SHOPPERS: self.shoppers, Kind.REVIEWS: self.reviews}
        if kind is Kind.EVENTS:
            return self.events
        found = single.get(kind)
        return (found,) if found else ()


class SourceFile(Frozen):
    """A file to read. `uri` is what reports and quarantine call it; `path` is what the file system takes."""

    uri: str
    path: str
    size_bytes: int


class Chunk(Frozen):
    """A part of a source that is read by one task: bytes [start, stop) of plain JSONL, row groups of Parquet, offsets of a Kafka partition
    (which `kafka` tells how to reach), else the whole file. size_bytes: about how much that is once unpacked; None where nobody knows."""

    source: int
    uri: str
    format: Format
    compression: Compression | None
    start: int
    stop: int
    size_bytes: int | None = None
    kafka: KafkaOptions | None = None


def list_files(uri: str, s3: S3Options) -> list[SourceFile]:
    """The file at `uri`, or all files below it, hidden ones left out, sorted by path.

    Raises:
        InputError: nothing is there.
        StorageError: the store did not answer.
    """
    filesystem, root = arrow_filesystem(uri, s3)
    try:
        found = filesystem.get_file_info(root)
        if found.type == pafs.FileType.NotFound:
            raise InputError(f"{uri} does not exist; name a file, a folder or an s3:// prefix")
        if found.type == pafs.FileType.File:
            return [SourceFile(uri=uri, path=root, size_bytes=found.size)]
        infos = filesystem.get_file_info(pafs.FileSelector(root, recursive=True))
    except (OSError, pa.ArrowInvalid) as error:
        raise StorageError(f"{uri} could not be listed: {error}") from error
    below = [(info.path[len(root) :].lstrip("/"), info) for info in infos if info.type == pafs.FileType.File]
    shown = [(name, info) for name, info in below if not any(part.startswith(".") for part in name.split("/"))]
    return [SourceFile(uri=f"{uri.rstrip('/')}/{name}", path=info.path, size_bytes=info.size) for name, info in sorted(shown, key=lambda pair: pair[0])]


def record_files(kind: Kind, uris: tuple[str, ...], s3: S3Options) -> list[SourceFile]:
    """The record files that `uris` (files and folders) name; in a folder, files of other formats are passed over.

    Raises:
        InputError: a named file has another format, or a folder holds none.
    """
    files: list[SourceFile] = []
    for uri in uris:
        listed = list_files(uri, s3)
        readable = [file for file in listed if format_of(file.uri) is not None]
        if not readable:
            formats = ", ".join(sorted(set(_FORMATS.values())))
            raise InputError(f"{kind} must be {formats} (JSONL and CSV also .gz or .zst), got {uri}; convert it")
        files += readable
    return files


def format_of(uri: str) -> tuple[Format, Compression | None] | None:
    """Format and compression by the name's suffixes; None where they are not ours."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(uri).suffixes]
    compression = _COMPRESSIONS.get(suffixes[-1]) if suffixes else None
    if compression:
        suffixes = suffixes[:-1]
    found = _FORMATS.get(suffixes[-1]) if suffixes else None
    if found is None or (found == "parquet" and compression):
        return None
    return found, compression


def chunks_of(files: list[SourceFile], chunk_bytes: int, s3: S3Options) -> list[Chunk]:
    """Chunks of about `chunk_bytes`, in the order of the files; a chunk's `source` is its file's index."""
    chunks: list[Chunk] = []
    for source, file in enumerate(files):
        known = format_of(file.uri)
        assert known is not None
        if known == ("jsonl", None):
            bounds = [(start, min(start + chunk_bytes, file.size_bytes)) for start in range(0, file.size_bytes, chunk_bytes)]
            sized: list[tuple[int, int, int | None]] = [(start, stop, stop - start) for start, stop in bounds]
        elif known[0] == "parquet":
            sized = _row_group_bounds(file, chunk_bytes, s3)
        else:
            sized = [(0, file.size_bytes, file.size_bytes * (_UNPACKED if known[1] else 1))]
        chunks += [
            Chunk(source=source, uri=file.uri, format=known[0], compression=known[1], start=start, stop=stop, size_bytes=size) for start, stop, size in sized
        ]
    return chunks


def grouped(chunks: Sequence[Chunk], most_bytes: int) -> list[tuple[Chunk, ...]]:
    """Chunks in their order, those of small files together: about `most_bytes` a group, less where that would make few groups.

    A chunk of unknown size is a group of its own.
    """
    most_bytes = min(most_bytes, sum(chunk.size_bytes or 0 for chunk in chunks) // _FEWEST_GROUPS)
    groups: list[list[Chunk]] = []
    room = 0
    for chunk in chunks:
        size = most_bytes if chunk.size_bytes is None else chunk.size_bytes
        if not groups or size > room:
            groups.append([])
            room = most_bytes
        groups[-1].append(chunk)
        room = 0 if chunk.size_bytes is None else room - size
    return [tuple(group) for group in groups]


def _row_group_bounds(file: SourceFile, chunk_bytes: int, s3: S3Options) -> list[tuple[int, int, int | None]]:
    """Ranges of row groups of about `chunk_bytes`, and their size; one range that any reader will refuse where the footer is damaged."""
    filesystem, _ = arrow_filesystem(file.uri, s3)
    try:
        with filesystem.open_input_file(file.path) as opened:
            footer = pq.ParquetFile(opened).metadata
    except (OSError, pa.ArrowInvalid):
        return [(0, 1, None)]
    bounds: list[tuple[int, int, int | None]] = []
    start, held = 0, 0
    for group in range(footer.num_row_groups):
        held += footer.row_group(group).total_byte_size
        if held >= chunk_bytes or group == footer.num_row_groups - 1:
            bounds.append((start, group + 1, held))
            start, held = group + 1, 0
    return bounds
