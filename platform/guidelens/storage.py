"""One place for local paths and s3:// URIs: bytes in, bytes out, listings, and the conditional write commits rest on.

The only importer of boto3. Knows nothing of tables or manifests.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pyarrow.fs as pafs

from guidelens.config import S3Options
from guidelens.errors import AlreadyExistsError, InputError, NotFoundError, StorageError


class Store(Protocol):
    """A folder or a bucket prefix. Keys are relative, joined by `/`, and made by us, never by a caller."""

    uri: str

    def read_bytes(self, key: str) -> bytes: ...
    def write_bytes(self, key: str, data: bytes) -> None: ...
    def create_exclusive(self, key: str, data: bytes) -> None: ...
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

    def __init__(self, uri: str) -> None:
        self.root = Path(uri).absolute()
        self.uri = str(self.root)

    def read_bytes(self, key: str) -> bytes:
        try:
            return (self.root / key).read_bytes()
        except FileNotFoundError as error:
            raise NotFoundError(f"{key} does not exist in {self.uri}") from error

    def write_bytes(self, key: str, data: bytes) -> None:
        path = self.root / key
        self._written_beside(path, data).replace(path)

    def create_exclusive(self, key: str, data: bytes) -> None:
        path = self.root / key
        written = self._written_beside(path, data)
        try:
            os.link(written, path)
        except FileExistsError as error:
            raise AlreadyExistsError(f"{key} was already written to {self.uri}") from error
        finally:
            written.unlink()

    def _written_beside(self, path: Path, data: bytes) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
        with os.fdopen(descriptor, "wb") as sink:
            sink.write(data)
            sink.flush()
            os.fsync(sink.fileno())
        return Path(name)

    def keys(self, prefix: str = "") -> Iterator[str]:
        base = self.root / prefix if prefix.endswith("/") or not prefix else (self.root / prefix).parent
        found = (path for path in base.rglob("*") if path.is_file() and not path.name.startswith(".writing-"))
        names = (path.relative_to(self.root).as_posix() for path in found)
        yield from sorted(name for name in names if name.startswith(prefix))

    def exists(self, key: str) -> bool:
        return (self.root / key).is_file()

    def size(self, key: str) -> int:
        return (self.root / key).stat().st_size

    def delete(self, key: str) -> None:
        (self.root / key).unlink(missing_ok=True)


class S3Store:
    """A prefix of a bucket. The client is made on first use, so that a store may travel to Ray workers."""

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
                    config=BotoConfig(retries={"max_attempts": 6, "mode": "standard"}, connect_timeout=5, read_timeout=60),
                )
            except ValueError as error:
                raise InputError(f"the S3 endpoint (AWS_ENDPOINT_URL) must be a URL such as http://HOST:PORT, got {self.options.endpoint_url}") from error
        return self._client

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def _failure(self, error: Exception, key: str) -> Exception:
        response = getattr(error, "response", {})
        code = str(response.get("Error", {}).get("Code", ""))
        if code in {"404", "NoSuchKey", "NoSuchBucket"}:
            return NotFoundError(f"{key} does not exist in {self.uri} ({code})")
        return StorageError(f"{self.uri}: {key}: {error}")

    def read_bytes(self, key: str) -> bytes:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            body: bytes = self.client.get_object(Bucket=self.bucket, Key=self._key(key))["Body"].read()
        except (BotoCoreError, ClientError) as error:
            raise self._failure(error, key) from error
        return body

    def write_bytes(self, key: str, data: bytes) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self.client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data)
        except (BotoCoreError, ClientError) as error:
            raise self._failure(error, key) from error

    def create_exclusive(self, key: str, data: bytes) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self.client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data, IfNoneMatch="*")
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if status in {409, 412}:
                raise AlreadyExistsError(f"{key} was already written to {self.uri}") from error
            raise self._failure(error, key) from error
        except BotoCoreError as error:
            raise self._failure(error, key) from error

    def keys(self, prefix: str = "") -> Iterator[str]:
        from botocore.exceptions import BotoCoreError, ClientError

        cut = len(self.prefix) + 1 if self.prefix else 0
        try:
            for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self._key(prefix)):
                for entry in page.get("Contents", ()):
                    yield entry["Key"][cut:]
        except (BotoCoreError, ClientError) as error:
            raise self._failure(error, prefix) from error

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except NotFoundError:
            return False
        return True

    def size(self, key: str) -> int:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            length: int = self.client.head_object(Bucket=self.bucket, Key=self._key(key))["ContentLength"]
        except (BotoCoreError, ClientError) as error:
            raise self._failure(error, key) from error
        return length

    def delete(self, key: str) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self.client.delete_object(Bucket=self.bucket, Key=self._key(key))
        except (BotoCoreError, ClientError) as error:
            raise self._failure(error, key) from error


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
