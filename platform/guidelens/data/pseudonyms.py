"""Shopper ids become keyed HMACs in the first step of everything. The keys stay in the home, outside the lake.

A home's second key turns each pseudonym of the first into another one, the third those of the second: so rows are carried over to a new
key without the ids behind them (docs/privacy.md). Knows nothing of files that hold events; `inbox.py` and ingest store what this makes.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from functools import lru_cache, reduce
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, TypeAdapter, model_validator
from pydantic_core import from_json

from guidelens.data.key_files import key_names, read_keys
from guidelens.errors import StorageError
from guidelens.schemas.base import Id
from guidelens.schemas.events import NAMES_OF_SHOPPER, Event, missing_fields

_REMEMBERED_KEYS = 20_000
_SQUEEZED_IDS = frozenset(name.replace("_", "") for name in NAMES_OF_SHOPPER)
UNUSABLE = "unusable:"
TELLING_FIELDS = ("query", "frame_id")
"""What may tell who somebody is: not kept of an event without consent."""
_SCRUBBED = re.compile(r"hmac:([0-9a-f]{64})")
_IN_ORIGINAL = re.compile(rb'(?<=")(hmac|unusable):([0-9a-f]{64})(?=")')
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
    """Turns shopper ids into keys: hex HMAC-SHA256, the same for the same id as long as the home makes no further key."""

    def __init__(self, key: bytes, *later: bytes) -> None:
        """later: the keys made after the first, in order; the last one is in use."""
        self._keys = (key, *later)
        self.key_ids = tuple(hashlib.sha256(b"guidelens key id/" + one).hexdigest()[:16] for one in self._keys)
        self._cached = lru_cache(maxsize=_REMEMBERED_KEYS)(self._newest)

    def __reduce__(self) -> tuple[type["Pseudonymizer"], tuple[bytes, ...]]:
        return Pseudonymizer, self._keys

    @classmethod
    def open(cls, folder: Path) -> "Pseudonymizer":
        """The home's pseudonymizer; its first key is made on first use.

        Raises:
            StorageError: a key file is not one of ours, or one is missing.
        """
        return cls(*read_keys(folder))

    @property
    def key_id(self) -> str:
        """Of the key in use."""
        return self.key_ids[-1]

    def key(self, shopper_id: str, *, anonymous: bool = False) -> str:
        """64 hex digits. A shopper_id and an anonymous_id of the same text are two people."""
        return self._cached(("anonymous/" if anonymous else "shopper/") + shopper_id.strip())

    def every_key(self, shopper_id: str, *, anonymous: bool = False) -> tuple[str, ...]:
        """What the id was called under each key, the oldest first; the last is `key`."""
        first = _hmac(self._keys[0], ("anonymous/" if anonymous else "shopper/") + shopper_id.strip())
        return tuple(accumulate(self._keys[1:], _next, initial=first))

    def carried(self, key: str, key_id: str) -> str:
        """A pseudonym made under an earlier key as it is under the one in use.

        Raises:
            StorageError: the home has no such key.
        """
        return reduce(_next, self._keys[self._place(key_id) + 1 :], key)

    def later_names(self, key: str, key_id: str) -> tuple[str, ...]:
        """What a pseudonym made under a key is called under that one and each later one."""
        return tuple(accumulate(self._keys[self._place(key_id) + 1 :], _next, initial=key))

    def carried_original(self, raw: bytes, key_id: str) -> bytes:
        """A scrubbed original as it is under the key in use."""
        return _IN_ORIGINAL.sub(lambda found: found[1] + b":" + self.carried(found[2].decode(), key_id).encode(), raw)

    def unlinked(self, what: str, name: str) -> str:
        """A name in place of a session's or request's that cannot be told to be its, and is the same each time: 64 hex digits."""
        return self._cached(f"unlinked {what}/{name}")

    def _newest(self, message: str) -> str:
        return reduce(_next, self._keys[1:], _hmac(self._keys[0], message))

    def _place(self, key_id: str) -> int:
        if key_id not in self.key_ids:
            raise StorageError(f"the home's keys must hold the one of id {key_id}, got {', '.join(self.key_ids)}; restore its file from a backup")
        return self.key_ids.index(key_id)

    def pseudonymize(self, event: Event) -> PseudonymousEvent:
        """The event with its shopper's key in place of the id; where both ids are given, a login, the anonymous one's key beside it."""
        event = self.without_links(event)
        anonymous = event.shopper_id is None
        named = event.anonymous_id if anonymous else event.shopper_id
        assert named is not None
        device = None if anonymous or event.anonymous_id is None else self.key(event.anonymous_id, anonymous=True)
        given = {name: value for name, value in event.__dict__.items() if name not in {"shopper_id", "anonymous_id"}}
        shopper_key = self.key(named, anonymous=anonymous)
        return PseudonymousEvent.model_construct(**given, shopper_key=shopper_key, key_id=self.key_id, is_anonymous=anonymous, anonymous_key=device)

    def without_links(self, event: Event) -> Event:
        """An event with `consent` false as that of somebody who did nothing else but its session; any other as it is."""
        if event.consent is not False or isinstance(event, PseudonymousEvent):
            return event
        session = self.unlinked("session", event.session_id)
        request = None if event.request_id is None else self.unlinked("request", event.request_id)
        given = {"shopper_id": None, "anonymous_id": session, "session_id": session, "request_id": request}
        return event.model_copy(update=given | dict.fromkeys(TELLING_FIELDS))

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

        scrubbed = _field_in_text(frozenset(names)).sub(replace, raw)
        # What was no JSON for its unusable id would be JSON now, and good if another id counts: none does.
        return _IN_ORIGINAL.sub(rb"unusable:\2", scrubbed) if f'"{UNUSABLE}'.encode() in scrubbed else scrubbed


def keys_in(original: bytes) -> set[str]:
    """The keys that `scrub` put in place of ids."""
    return {found[2].decode() for found in _IN_ORIGINAL.finditer(original)}


class LiveKeys:
    """A folder's pseudonymizer for a process that lasts: opened again when a key was made."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._opened = Pseudonymizer.open(folder)
        self._held = key_names(folder)

    def __call__(self) -> Pseudonymizer:
        found = key_names(self._folder)
        if found != self._held:
            self._opened, self._held = Pseudonymizer.open(self._folder), found
        return self._opened


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


def _hmac(key: bytes, message: str) -> str:
    return hmac.digest(key, message.encode("utf-8", "surrogatepass"), "sha256").hex()


def _next(pseudonym: str, key: bytes) -> str:
    return _hmac(key, f"carried/{pseudonym}")
