"""The two pydantic bases all contracts build on, and the one way to tell a time."""

import re
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict
from pydantic_core import PydanticCustomError

_NUMBER = re.compile(r"\s*[-+]?\d+(\.\d*)?\s*")


def _no_number(value: object) -> object:
    """pydantic reads numbers as seconds or milliseconds since 1970, and so the day "20260301" as one of August 1970."""
    if isinstance(value, int | float) or (isinstance(value, str) and _NUMBER.fullmatch(value)):
        raise PydanticCustomError("rfc3339", "a time must be RFC 3339 with a zone, such as 2026-03-01T00:00:00Z")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_no_number)]
"""A time with a zone: RFC 3339 where it is text."""


class Frozen(BaseModel):
    """Immutable, and refuses fields it does not know: for configs and for what we write ourselves."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Record(BaseModel):
    """Immutable, and ignores fields it does not know: for what others send us, so that a field they add breaks nothing."""

    model_config = ConfigDict(frozen=True, extra="ignore", str_strip_whitespace=True)
