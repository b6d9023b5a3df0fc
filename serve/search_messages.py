"""What travels to the fusion deployment for a search. Knows nothing of Ray, HTTP or torch."""

from dataclasses import dataclass

from guidelens.inference.search.messages import SearchInput


@dataclass(frozen=True, slots=True)
class SearchCall:
    release: str
    asked: SearchInput


@dataclass(frozen=True, slots=True)
class SuggestCall:
    release: str
    text: str
    num: int


@dataclass(frozen=True, slots=True)
class Suggested:
    completions: tuple[str, ...]
    corrected: str | None
