"""The two pydantic bases all contracts build on."""

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Immutable, and refuses fields it does not know: for configs and for what we write ourselves."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Record(BaseModel):
    """Immutable, and ignores fields it does not know: for what others send us, so that a field they add breaks nothing."""

    model_config = ConfigDict(frozen=True, extra="ignore", str_strip_whitespace=True)
