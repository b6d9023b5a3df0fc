"""Shopper ids become keyed HMACs in the first step of everything. The key stays in the home, outside the lake.

Knows nothing of files that hold events; `inbox.py` and ingest store what this makes.
"""

import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, TypeAdapter, model_validator
from pydantic_core import from_json

from guidelens.errors import StorageError
from guidelens.schemas.base import Id
from guidelens.schemas.events import NAMES_OF_SHOPPER, Event, missing_fields

_KEY_FILE = "shopper.key"
_KEY_BYTES = 32
_REMEMBERED_KEYS = 200_000
_SQUEEZED_IDS = frozenset(name.replace("_", "") for name in NAMES_OF_SHOPPER)
UNUSABLE = "unusable:"
_SCRUBBED = re.compile(r"hmac:([0-9a-f]{64})")
_ID = TypeAdapter(Id)


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

    def key_in(self, scrubbed: str) -> str | None:
        """The key that `scrub` put in place of an id; None where the text is none of its."""
        found = _SCRUBBED.fullmatch(scrubbed)
        return found[1] if found else None

    def scrub(self, raw: bytes, renamed: Mapping[str, str] | None = None) -> bytes:
        """Raw bytes with the values of `"shopper_id"` and `"anonymous_id"`, however spelled, replaced by keys, also where they are no valid JSON.

        An id becomes `hmac:KEY`; what is no valid id becomes `unusable:KEY`, which is none either, so that the record stays refused.

        Args:
            renamed: which of the two a field of another name holds.
        """
        names = {_squeezed(given): name for given, name in (renamed or {}).items()}

        def replace(found: re.Match[bytes]) -> bytes:
            name, value = _squeezed(_unescaped(found["name"])), found["value"]
            if value == b"null":
                return found[0]
            kept = "hmac" if _is_id(value) else UNUSABLE[:-1]
            key = self.key(
                _unescaped(value[1:].removesuffix(b'"')) if value.startswith(b'"') else _unescaped(value), anonymous="anonymous" in names.get(name, name)
            )
            return found[0][: -len(value)] + f'"{kept}:{key}"'.encode()

        return _field_in_text(frozenset(names)).sub(replace, raw)


@lru_cache(maxsize=16)
def _field_in_text(names: frozenset[str]) -> re.Pattern[bytes]:
    """Finds fields that hold a shopper's id, their names in any case, with any separators, plain or in JSON's escapes."""
    spelled = [
        r"(?:[_\-. ]|\\u005f|\\u002d)*".join(rf"(?:{re.escape(one)}|\\u{ord(one):04x}|\\u{ord(one.upper()):04x})" for one in name)
        for name in sorted(names | _SQUEEZED_IDS)
    ]
    return re.compile(rf'"(?P<name>(?i:{"|".join(spelled)}))"\s*:\s*(?P<value>"(?:[^"\\]|\\.)*"?|[^",}}\s]+)'.encode())


def _squeezed(name: str) -> str:
    """`shopperId`, `Shopper-ID` and `shopper_id` are one name."""
    return re.sub(r"[\W_]", "", name).lower()


def _is_id(value: bytes) -> bool:
    """Whether a JSON value is an id that the contract takes."""
    try:
        _ID.validate_python(_stripped(from_json(value)))
    except ValueError:
        return False
    return True


def _stripped(value: object) -> object:
    return value.strip() if isinstance(value, str) else value


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
