"""One place for local paths and s3:// URIs: bytes in, bytes out, listings, and the conditional write commits rest on.

The only importer of boto3. Knows nothing of tables or manifests.
"""

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import pyarrow.fs as pafs

from guidelens.config import S3Options
from guidelens.crash_points import reach
from guidelens.errors import AlreadyExistsError, InputError, NotFoundError, StorageError

Answer = TypeVar("Answer")
_WRITING = ".writing-"
_ATTEMPTS = 12
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 5.0
_PASSING_STATUS = frozenset({408, 409, 429, 500, 502, 503, 504})
"""S3's 409 says that another conditional write of the key is under way: who asks again learns how it ended."""


class Entry(NamedTuple):
    """One stored object. modified: by the store's own clock."""

    key: str
    size_bytes: int
    modified: datetime


class Store(Protocol):
    """A folder or a bucket prefix. Keys are relative, joined by `/`, and made by us, never by a caller.

    reads_at_once: how many reads one reader has under way, so that they wait together.
    """

    uri: str
    reads_at_once: int

    def read_bytes(self, key: str, size_bytes: int | None = None) -> bytes:
        """The whole object. Given the size it must have, an object of another size is an error.

        Raises:
            NotFoundError: no such object.
            StorageError: the store did not answer, or with another number of bytes.
        """
        ...

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Bytes [start, stop). Raises like `read_bytes`, also where the object ends before `stop`."""
        ...

    def write_bytes(self, key: str, data: bytes, *, durable: bool = True) -> None:
        """Creates or replaces the object, atomically. Scratch that need not outlive a power cut is not `durable`."""
        ...

    def create_exclusive(self, key: str, data: bytes) -> None:
        """Creates the object where there is none.

        Raises:
            AlreadyExistsError: there is one, with other bytes: whoever gives bytes of its own knows that another was first.
        """
        ...

    def entries(self, prefix: str = "", after: str = "") -> Iterator[Entry]:
        """What is stored below `prefix` and sorts behind `after`, sorted by key."""
        ...

    def unfinished(self) -> Iterator[Entry]:
        """What writers that died in the middle of a write left; never read by anything."""
        ...

    def keys(self, prefix: str = "") -> Iterator[str]: ...
    def exists(self, key: str) -> bool: ...
    def size(self, key: str) -> int: ...
    def delete(self, key: str) -> None: ...


def open_store(uri: str, s3: S3Options | None = None) -> Store:
    """The store behind a local path or an `s3://bucket/prefix` URI. Nothing is created or contacted yet.

    Raises:
        InputError: the URI has another scheme, or no bucket.
    """
    if uri.startswith("s3://"):
        return S3Store(uri, s3 or S3Options())
    if "://" in uri:
        raise InputError(f"a location must be a local path or an s3:// URI, got {uri}")
    return LocalStore(uri)


class LocalStore:
    """A local folder. Writes are atomic (temporary file, fsync, rename), so that a crash leaves the old or the new bytes."""

    reads_at_once = 1
    """Threads would have nothing to wait for, and each keeps a heap of its own."""

    def __init__(self, uri: str) -> None:
        self.root = Path(uri).absolute()
        self.uri = str(self.root)

    def read_bytes(self, key: str, size_bytes: int | None = None) -> bytes:
        try:
            data = (self.root / key).read_bytes()
        except FileNotFoundError as error:
            raise NotFoundError(f"{key} does not exist in {self.uri}") from error
        return _whole(data, size_bytes, key, self.uri)

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        try:
            with (self.root / key).open("rb") as source:
                source.seek(start)
                data = source.read(stop - start)
        except FileNotFoundError as error:
            raise NotFoundError(f"{key} does not exist in {self.uri}") from error
        return _whole(data, stop - start, key, self.uri)

    def write_bytes(self, key: str, data: bytes, *, durable: bool = True) -> None:
        path = self.root / key
        self._written_beside(path, data, durable).replace(path)
        if durable:
            sync_folder(path.parent)

    def create_exclusive(self, key: str, data: bytes) -> None:
        path = self.root / key
        written = self._written_beside(path, data, durable=True)
        reach("create.written")
        try:
            os.link(written, path)
        except FileExistsError as error:
            if path.read_bytes() != data:
                raise AlreadyExistsError(f"{key} was already written to {self.uri}") from error
        finally:
            written.unlink()
        sync_folder(path.parent)

    def _written_beside(self, path: Path, data: bytes, durable: bool) -> Path:
        while True:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=_WRITING)
                break
            except FileNotFoundError:
                continue  # a `delete` found the folder empty in between
        with os.fdopen(descriptor, "wb") as sink:
            sink.write(data)
            if durable:
                sink.flush()
                os.fsync(sink.fileno())
        return Path(name)

    def entries(self, prefix: str = "", after: str = "") -> Iterator[Entry]:
        found = ((path.relative_to(self.root).as_posix(), path) for path in self._files(prefix) if not path.name.startswith(_WRITING))
        for name, path in sorted(pair for pair in found if pair[0].startswith(prefix) and pair[0] > after):
            entry = _entry(name, path)
            if entry is not None:
                yield entry

    def keys(self, prefix: str = "") -> Iterator[str]:
        return (entry.key for entry in self.entries(prefix))

    def unfinished(self) -> Iterator[Entry]:
        for path in self._files(""):
            entry = _entry(path.relative_to(self.root).as_posix(), path) if path.name.startswith(_WRITING) else None
            if entry is not None:
                yield entry

    def _files(self, prefix: str) -> Iterator[Path]:
        base = self.root / prefix if prefix.endswith("/") or not prefix else (self.root / prefix).parent
        return (Path(folder) / name for folder, _, names in os.walk(base) for name in names)  # folders that vanish meanwhile are passed over

    def exists(self, key: str) -> bool:
        return (self.root / key).is_file()

    def size(self, key: str) -> int:
        try:
            return (self.root / key).stat().st_size
        except FileNotFoundError as error:
            raise NotFoundError(f"{key} does not exist in {self.uri}") from error

    def delete(self, key: str) -> None:
        path = self.root / key
        path.unlink(missing_ok=True)
        for folder in path.parents:  # as in a bucket, a folder that holds nothing is not there
            if folder == self.root or not _removed(folder):
                return


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return False
    return True


def _entry(name: str, path: Path) -> Entry | None:
    """None where the file is gone again."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return Entry(name, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))


def sync_folder(folder: Path) -> None:
    """Makes what was created, renamed or removed in a folder last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _whole(data: bytes, size_bytes: int | None, key: str, uri: str) -> bytes:
    if size_bytes is not None and len(data) != size_bytes:
        raise StorageError(f"{uri}: {key} must have {size_bytes} bytes, got {len(data)}; restore it from a backup")
    return data


class S3Store:
    """A prefix of a bucket. The client is made on first use, so that a store may travel to Ray workers.

    What may pass (5xx, time-outs, cut connections, bodies cut short) is asked again, up to twelve times with growing pauses.
    """

    reads_at_once = 8

    def __init__(self, uri: str, options: S3Options) -> None:
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if not bucket:
            raise InputError(f"an s3:// URI must name a bucket, got {uri}")
        self.uri = uri.rstrip("/")
        self.bucket = bucket
        self.prefix = prefix.strip("/")
        self.options = options
        self._client: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None}

    @property
    def client(self) -> Any:
        if self._client is None:
            import boto3
            from botocore.config import Config as BotoConfig

            secret = self.options.secret_key
            access = self.options.access_key
            try:
                self._client = boto3.client(
                    "s3",
                    endpoint_url=self.options.endpoint_url,
                    region_name=self.options.region,
                    aws_access_key_id=access.get_secret_value() if access else None,
                    aws_secret_access_key=secret.get_secret_value() if secret else None,
                    config=BotoConfig(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=self.options.timeout_s, max_pool_connections=32),
                )
            except ValueError as error:
                raise InputError(f"the S3 endpoint (AWS_ENDPOINT_URL) must be a URL such as http://HOST:PORT, got {self.options.endpoint_url}") from error
        return self._client

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def _asked(self, key: str, ask: Callable[[], Answer]) -> Answer:
        """What the store answers, asked again while it fails in a way that may pass.

        Raises:
            NotFoundError, AlreadyExistsError, StorageError: what it answered in the end.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        for attempt in range(_ATTEMPTS):
            try:
                return ask()
            except (BotoCoreError, ClientError, _CutShortError) as error:
                if attempt == _ATTEMPTS - 1 or not _may_pass(error):
                    raise self._failure(error, key) from error
            time.sleep(random.uniform(0.5, 1) * min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**attempt))
        raise AssertionError("the last attempt returns or raises")

    def _failure(self, error: Exception, key: str) -> Exception:
        response = getattr(error, "response", {})
        code = str(response.get("Error", {}).get("Code", ""))
        if code in {"404", "NoSuchKey", "NoSuchBucket"}:
            return NotFoundError(f"{key} does not exist in {self.uri} ({code})")
        if _status(error) == 412:
            return AlreadyExistsError(f"{key} was already written to {self.uri}")
        return StorageError(f"{self.uri}: {key}: {error}")

    def read_bytes(self, key: str, size_bytes: int | None = None) -> bytes:
        return self._asked(key, lambda: self._got(key, size_bytes))

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        if start == stop:
            return b""
        return self._asked(key, lambda: self._got(key, stop - start, Range=f"bytes={start}-{stop - 1}"))

    def _got(self, key: str, size_bytes: int | None, **more: str) -> bytes:
        answer = self.client.get_object(Bucket=self.bucket, Key=self._key(key), **more)
        data: bytes = answer["Body"].read()
        expected = answer["ContentLength"] if size_bytes is None else size_bytes
        if len(data) != expected:
            raise _CutShortError(f"must have {expected} bytes, got {len(data)}")
        return data

    def write_bytes(self, key: str, data: bytes, *, durable: bool = True) -> None:
        self._asked(key, lambda: self._put(key, data))

    def create_exclusive(self, key: str, data: bytes) -> None:
        try:
            self._asked(key, lambda: self._put(key, data, IfNoneMatch="*"))
        except AlreadyExistsError:
            # The answer to an earlier attempt may have been lost: then it is our own write that is in the way.
            if self.read_bytes(key) != data:
                raise

    def _put(self, key: str, data: bytes, **more: str) -> None:
        reach("put.begun")
        if self.options.sse is not None:
            more["ServerSideEncryption"] = self.options.sse
        if self.options.sse_kms_key_id is not None:
            more["SSEKMSKeyId"] = self.options.sse_kms_key_id
        self.client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data, **more)

    def entries(self, prefix: str = "", after: str = "") -> Iterator[Entry]:
        cut = len(self.prefix) + 1 if self.prefix else 0
        asked: dict[str, Any] = {"Bucket": self.bucket, "Prefix": self._key(prefix), **({"StartAfter": self._key(after)} if after else {})}
        while True:
            page = self._asked(prefix, lambda: self.client.list_objects_v2(**asked))
            for found in page.get("Contents", ()):
                yield Entry(found["Key"][cut:], found["Size"], found["LastModified"])
            if not page.get("IsTruncated"):
                return
            asked["ContinuationToken"] = page["NextContinuationToken"]

    def keys(self, prefix: str = "") -> Iterator[str]:
        return (entry.key for entry in self.entries(prefix))

    def unfinished(self) -> Iterator[Entry]:
        return iter(())

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except NotFoundError:
            return False
        return True

    def size(self, key: str) -> int:
        length: int = self._asked(key, lambda: self.client.head_object(Bucket=self.bucket, Key=self._key(key)))["ContentLength"]
        return length

    def delete(self, key: str) -> None:
        self._asked(key, lambda: self.client.delete_object(Bucket=self.bucket, Key=self._key(key)))


class _CutShortError(Exception):
    """A body ended before its end, or is another one than was written."""


def _status(error: Exception) -> int:
    return int(getattr(error, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _may_pass(error: Exception) -> bool:
    from botocore import exceptions as known

    if isinstance(error, known.ClientError):
        return _status(error) in _PASSING_STATUS
    cut = (known.HTTPClientError, known.ConnectionError, known.IncompleteReadError, known.FlexibleChecksumError)
    return isinstance(error, (_CutShortError, *cut)) or type(error).__name__ == "ResponseParserError"


def arrow_filesystem(uri: str, s3: S3Options | None = None) -> tuple[pafs.FileSystem, str]:
    """pyarrow's filesystem for a URI and the path inside it; pyarrow does not read AWS_ENDPOINT_URL, so it is passed on."""
    if not uri.startswith("s3://"):
        return pafs.LocalFileSystem(), str(Path(uri).absolute())
    options = s3 or S3Options()
    given: dict[str, Any] = {"region": options.region, "endpoint_override": options.endpoint_url}
    if options.access_key and options.secret_key:
        given |= {"access_key": options.access_key.get_secret_value(), "secret_key": options.secret_key.get_secret_value()}
    known = {name: value for name, value in given.items() if value is not None}
    return pafs.S3FileSystem(**known), uri.removeprefix("s3://").rstrip("/")
