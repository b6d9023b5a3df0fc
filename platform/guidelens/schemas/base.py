"""The two pydantic bases all contracts build on, and the one way to tell a time."""

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

_NUMBER = re.compile(r"\s*[-+]?\d+(\.\d*)?\s*")


def refuse_number(value: object) -> object:
    """pydantic reads numbers as seconds or milliseconds since 1970, and so the day "20260301" as one of August 1970."""
    if isinstance(value, int | float) or (isinstance(value, str) and _NUMBER.fullmatch(value)):
        raise PydanticCustomError("rfc3339", "a time must be RFC 3339 with a zone, such as 2026-03-01T00:00:00Z")
    return value


Moment = Annotated[AwareDatetime, Field(ge=datetime(1970, 1, 1, tzinfo=UTC), lt=datetime(2200, 1, 1, tzinfo=UTC)), BeforeValidator(refuse_number)]
"""A time with a zone, kept to the microsecond: RFC 3339 where it is text. Years before 1970 and after 2199 are mistakes."""


def whole_number_as_text(value: object) -> object:
    """The id 17 is the id "17": databases and data frames keep ids as whole numbers. A float may have lost digits, and is none."""
    if isinstance(value, float):
        raise PydanticCustomError("id_type", "an id must be text or a whole number; numbers with gaps are exported as floats, export them as text")
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


NO_CONTROL_CHARACTERS = r"^[^\x00-\x1f\x7f-\x9f]*$"
Id = Annotated[str, Field(min_length=1, max_length=128, pattern=NO_CONTROL_CHARACTERS), BeforeValidator(whole_number_as_text)]
"""Text, or a whole number, which is its digits. Compared character by character: no case folding, no normalization, surrounding white space is not part of it."""


class Frozen(BaseModel):
    """Immutable, and refuses fields it does not know: for configs and for what we write ourselves."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Record(BaseModel):
    """Immutable, and ignores fields it does not know: for what others send us, so that a field they add breaks nothing."""

    model_config = ConfigDict(frozen=True, extra="ignore", str_strip_whitespace=True)
