"""Shopper ids become keyed HMACs in the first step of everything. The key stays in the home, outside the lake.

Knows nothing of files that hold events; `inbox.py` and ingest store what this makes.
"""

import hashlib
import hmac
import json
import os
import re
import secrets
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from guidelens.errors import StorageError
from guidelens.schemas.events import Event, missing_fields

_KEY_FILE = "shopper.key"
_KEY_BYTES = 32
_REMEMBERED_KEYS = 200_000
_ID_IN_TEXT = re.compile(rb'"(shopper_id|anonymous_id)"\s*:\s*(?:"((?:[^"\\]|\\.)*)"?|([^",}\s]+))')


class PseudonymousEvent(Event):
    """An event whose shopper is known by pseudonym only: what the inbox stores. Keys as in the lake."""

    shopper_key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    key_id: Annotated[str, Field(min_length=1, max_length=64)]
    is_anonymous: bool
    anonymous_key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None

    @model_validator(mode="after")
    def _fields_of_the_type(self) -> Self:
        missing = missing_fields(self)
        if missing:
            raise ValueError(f"a {self.type} event needs {', '.join(missing)}")
        if self.shopper_id is not None or self.anonymous_id is not None:
            raise ValueError("a pseudonymous event must not hold shopper_id or anonymous_id")
        return self


class Pseudonymizer:
    """Turns shopper ids into keys: hex HMAC-SHA256, the same for the same id as long as the home keeps its key."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.key_id = hashlib.sha256(b"guidelens key id/" + key).hexdigest()[:16]
        self._cached = lru_cache(maxsize=_REMEMBERED_KEYS)(self._hmac)

    def __reduce__(self) -> tuple[type["Pseudonymizer"], tuple[bytes]]:
        return Pseudonymizer, (self._key,)

    @classmethod
    def open(cls, folder: Path) -> "Pseudonymizer":
        """The home's pseudonymizer; its key is made on first use (mode 0600), once, however many processes ask.

        Raises:
            StorageError: the key file is not one of ours.
        """
        path = folder / _KEY_FILE
        if not path.exists():
            _make_key(path)
        key = path.read_bytes()
        if len(key) != _KEY_BYTES:
            raise StorageError(f"{path} must hold {_KEY_BYTES} bytes, got {len(key)}; restore it from a backup, or pseudonyms will not match the lake's")
        return cls(key)

    def _hmac(self, message: str) -> str:
        return hmac.digest(self._key, message.encode("utf-8", "surrogatepass"), "sha256").hex()

    def key(self, shopper_id: str, *, anonymous: bool = False) -> str:
        """64 hex digits. A shopper_id and an anonymous_id of the same text are two people."""
        return self._cached(("anonymous/" if anonymous else "shopper/") + shopper_id.strip())

    def pseudonymize(self, event: Event) -> PseudonymousEvent:
        """The event with its shopper's key in place of the id; where both ids are given, a login, the anonymous one's key beside it."""
        anonymous = event.shopper_id is None
        named = event.anonymous_id if anonymous else event.shopper_id
        assert named is not None
        device = None if anonymous or event.anonymous_id is None else self.key(event.anonymous_id, anonymous=True)
        given = {name: value for name, value in event.__dict__.items() if name not in {"shopper_id", "anonymous_id"}}
        shopper_key = self.key(named, anonymous=anonymous)
        return PseudonymousEvent.model_construct(**given, shopper_key=shopper_key, key_id=self.key_id, is_anonymous=anonymous, anonymous_key=device)

    def scrub(self, raw: bytes) -> bytes:
        """Raw bytes with the values of `"shopper_id"` and `"anonymous_id"` replaced by keys, also where they are no valid JSON."""

        def replace(found: re.Match[bytes]) -> bytes:
            text = _unescaped(found[2]) if found[2] is not None else found[3].decode("utf-8", "replace")
            if found[2] is None and text == "null":
                return found[0]
            return b'"' + found[1] + b'": "hmac:' + self.key(text, anonymous=found[1] == b"anonymous_id").encode() + b'"'

        return _ID_IN_TEXT.sub(replace, raw)


def _unescaped(inside: bytes) -> str:
    """What a JSON string's characters between its quotes mean; where they mean nothing, the characters themselves."""
    text = inside.decode("utf-8", "replace")
    try:
        meant: str = json.loads(f'"{text}"', strict=False)
    except json.JSONDecodeError:
        return text
    return meant


def _make_key(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    written = path.with_name(f".writing-{secrets.token_hex(8)}")
    descriptor = os.open(written, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "wb") as sink:
        sink.write(secrets.token_bytes(_KEY_BYTES))
        sink.flush()
        os.fsync(sink.fileno())
    try:
        os.link(written, path)
    except FileExistsError:
        pass  # another process was first: its key is the home's
    finally:
        written.unlink()
