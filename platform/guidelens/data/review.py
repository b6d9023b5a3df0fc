"""Frames that showed nothing of the catalogue, kept for a person to say what they show: one file each, without a word on who sent it.

An entry is the frame's embedding and what was guessed. The frame itself lies beside it only where its shopper agreed, encrypted (AES-256-GCM, key in
the home's keys) and until the entry expires, labelled or not. Writers and readers need no lock: an entry appears whole, by one rename.
"""

import base64
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray
from pydantic import ValidationError

from guidelens.errors import InputError, NotFoundError, StorageError
from guidelens.schemas.base import Frozen
from guidelens.schemas.tables import IMAGE_DIM

KEY_FILE = "review.aes"
_NONCE_BYTES, _KEY_BYTES = 12, 32
Floats = NDArray[np.float32]


class Guess(Frozen):
    product_id: str
    confidence: float


class ReviewEntry(Frozen):
    """One frame. margin: evidence above what "in the catalogue" needs, negative. product_id: what a person said it shows. image_encoder: what made the embedding."""

    entry_id: str
    seen_ts: datetime
    expires_ts: datetime
    release: str
    image_encoder: str
    guesses: tuple[Guess, ...]
    margin: float
    has_frame: bool
    embedding_base64: str
    product_id: str | None = None

    @property
    def embedding(self) -> Floats:
        return np.frombuffer(base64.b64decode(self.embedding_base64), dtype="<f4").astype(np.float32)


class ReviewQueue:
    """The entries in a folder.

    Args:
        keys: folder of the home's keys; the queue's own key is made there (mode 0600) when the first frame is kept.
    """

    def __init__(self, folder: Path, keys: Path) -> None:
        self._folder, self._key_file = folder, keys / KEY_FILE

    def add(
        self,
        embedding: Floats,
        *,
        release: str,
        image_encoder: str,
        guesses: tuple[Guess, ...],
        margin: float,
        keep_days: float,
        frame: bytes | None = None,
        now: datetime | None = None,
    ) -> ReviewEntry:
        """Keeps one; `frame` only where it may be kept."""
        seen = now or datetime.now(UTC)
        entry = ReviewEntry(
            entry_id=f"{seen:%Y%m%d}-{secrets.token_hex(6)}",
            seen_ts=seen,
            expires_ts=seen + timedelta(days=keep_days),
            release=release,
            image_encoder=image_encoder,
            guesses=guesses,
            margin=margin,
            has_frame=frame is not None,
            embedding_base64=base64.b64encode(np.ascontiguousarray(embedding, dtype="<f4").tobytes()).decode(),
        )
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if frame is not None:
            nonce = secrets.token_bytes(_NONCE_BYTES)
            self._write(self._frame_path(entry.entry_id), nonce + AESGCM(self._key(make=True)).encrypt(nonce, frame, entry.entry_id.encode()))
        self._save(entry)
        return entry

    def entries(self, now: datetime | None = None) -> list[ReviewEntry]:
        """Those that have not expired, oldest first; expired ones are removed, and so is what a killed writer left."""
        when, found = now or datetime.now(UTC), []
        for entry in self._read_all():
            if entry.expires_ts <= when:
                self._remove(entry.entry_id)
            else:
                found.append(entry)
        known = {entry.entry_id for entry in found}
        for path in self._folder.glob("*.frame") if self._folder.is_dir() else ():
            if path.stem not in known and path.stat().st_mtime < (when - timedelta(hours=1)).timestamp():
                path.unlink(missing_ok=True)
        return sorted(found, key=lambda entry: (entry.seen_ts, entry.entry_id))

    def entry(self, entry_id: str) -> ReviewEntry:
        """Raises NotFoundError where there is none, or it has expired."""
        for found in self.entries():
            if found.entry_id == entry_id:
                return found
        raise NotFoundError(f"review entry {entry_id[:80]!r} does not exist, or has expired; `guidelens review list` shows those that are there")

    def frame(self, entry_id: str) -> bytes:
        """The frame's bytes as they were sent.

        Raises:
            NotFoundError: no such entry, or one whose shopper did not agree that the frame is kept.
            StorageError: the key or the file is not what it was.
        """
        if not self.entry(entry_id).has_frame:
            raise NotFoundError(f"review entry {entry_id} has no frame: its shopper did not agree to its being kept; its guesses and embedding are there")
        sealed = self._frame_path(entry_id).read_bytes()
        try:
            return AESGCM(self._key(make=False)).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], entry_id.encode())
        except InvalidTag as error:
            raise StorageError(
                f"the frame of review entry {entry_id} cannot be opened with {self._key_file}; restore the key from a backup, or drop the entry"
            ) from error

    def label(self, entry_id: str, product_id: str) -> ReviewEntry:
        """Says what an entry shows; the next ingest takes it in."""
        entry = self.entry(entry_id).model_copy(update={"product_id": product_id})
        self._save(entry)
        return entry

    def drop(self, entry_id: str) -> None:
        """Raises NotFoundError where there is none."""
        self.entry(entry_id)
        self._remove(entry_id)

    def labelled(self) -> list[ReviewEntry]:
        return [entry for entry in self.entries() if entry.product_id is not None]

    def remove(self, entries: list[ReviewEntry]) -> None:
        for entry in entries:
            self._remove(entry.entry_id)

    def _read_all(self) -> Iterator[ReviewEntry]:
        for path in sorted(self._folder.glob("*.json")) if self._folder.is_dir() else ():
            try:
                entry = ReviewEntry.model_validate_json(path.read_bytes())
            except FileNotFoundError:  # another process removed it
                continue
            except ValidationError as error:
                raise StorageError(f"{path}: is no review entry: {error.errors()[0]['msg']}; remove it") from error
            if entry.embedding.shape != (IMAGE_DIM,):
                raise StorageError(f"{path}: its embedding must have {IMAGE_DIM} numbers, got {entry.embedding.size}; remove it")
            yield entry

    def _path(self, entry_id: str) -> Path:
        return self._folder / f"{entry_id}.json"

    def _frame_path(self, entry_id: str) -> Path:
        return self._folder / f"{entry_id}.frame"

    def _save(self, entry: ReviewEntry) -> None:
        self._write(self._path(entry.entry_id), entry.model_dump_json().encode())

    def _remove(self, entry_id: str) -> None:
        """The frame first: what is left of a removal that died is an entry that expires."""
        self._frame_path(entry_id).unlink(missing_ok=True)
        self._path(entry_id).unlink(missing_ok=True)

    def _write(self, path: Path, data: bytes) -> None:
        """Whole or not at all; readable by its owner only."""
        written = path.with_name(f".writing-{secrets.token_hex(8)}")
        descriptor = os.open(written, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "wb") as sink:
            sink.write(data)
        written.rename(path)

    def _key(self, *, make: bool) -> bytes:
        if make and not self._key_file.exists():
            self._key_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            written = self._key_file.with_name(f".writing-{secrets.token_hex(8)}")
            descriptor = os.open(written, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with os.fdopen(descriptor, "wb") as sink:
                sink.write(secrets.token_bytes(_KEY_BYTES))
            with suppress(FileExistsError):  # another process was first: its key is the queue's
                os.link(written, self._key_file)
            written.unlink()
        try:
            key = self._key_file.read_bytes()
        except OSError as error:
            raise StorageError(f"{self._key_file} cannot be read: {error.strerror}; restore it from a backup, or drop the entries with frames") from error
        if len(key) != _KEY_BYTES:
            raise StorageError(f"{self._key_file} must hold {_KEY_BYTES} bytes, got {len(key)}; restore it from a backup")
        return key


def check_label(product_id: str, known: set[str]) -> None:
    """Raises InputError where the catalogue does not hold the product."""
    if product_id not in known:
        raise InputError(f"a label must name a product of the lake's catalogue, got {product_id!r}; ingest it first, or `guidelens catalogue add` it")
