"""When a rule holds for a request: what a rule may ask of it, and what every rule has."""

import itertools
from datetime import UTC, datetime
from typing import Annotated, Self

from pydantic import Field, model_validator

from guidelens.schemas.base import Frozen, Moment
from guidelens.schemas.events import Channel
from guidelens.schemas.packed import decode

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
CategoryPath = Annotated[str, Field(min_length=1, max_length=500)]


class Situation(Frozen):
    """What decides whether a rule holds for a request. category: of the product in view, empty where nothing is.

    num_visits: known of the shopper, 0 of one nobody knows. profile: `stable_hash` of each value in the order of PROFILE_FIELDS, 0 where
    unknown; empty of one nobody knows.
    """

    now_us: int
    channel: str = ""
    category: str = ""
    device: str = ""
    text: str = ""
    num_visits: int = 0
    profile: tuple[int, ...] = ()

    @classmethod
    def of(cls, now_us: int, channel: str, category: str, device: str, text: str | None, packed: bytes | None) -> Self:
        """packed: the shopper's row, None where nothing may be read or known of them."""
        if packed is None:
            return cls(now_us=now_us, channel=channel, category=category, device=device, text=text or "")
        row = decode([packed])[0][0]
        known = {"num_visits": int(row["num_recent"]), "profile": tuple(row["profile_ids"].tolist())}
        return cls(now_us=now_us, channel=channel, category=category, device=device, text=text or "", **known)


class Scope(Frozen):
    """When a rule holds: from `since` (inclusive) to `until` (exclusive), in these channels, with a product of these categories in view.

    What is left out does not restrict. A category stands for all below it: `food` holds for `food/teas`.
    """

    since: Moment | None = None
    until: Moment | None = None
    channels: tuple[Channel, ...] = ()
    in_view: tuple[CategoryPath, ...] = ()

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise ValueError(f"when.since must lie before when.until, got {self.since.isoformat()} and {self.until.isoformat()}")
        return self

    def holds(self, situation: Situation) -> bool:
        now = datetime.fromtimestamp(situation.now_us / 1e6, UTC)
        in_time = (self.since is None or self.since <= now) and (self.until is None or now < self.until)
        in_channel = not self.channels or situation.channel in self.channels
        return in_time and in_channel and (not self.in_view or any(is_below(situation.category, path) for path in self.in_view))

    def meets(self, other: "Scope") -> bool:
        """Whether both can hold for one request."""
        starts = [one.since for one in (self, other) if one.since is not None]
        ends = [one.until for one in (self, other) if one.until is not None]
        in_time = not starts or not ends or max(starts) < min(ends)
        in_channel = not self.channels or not other.channels or bool(set(self.channels) & set(other.channels))
        pairs = list(itertools.product(self.in_view, other.in_view))
        return in_time and in_channel and (not pairs or any(is_below(a, b) or is_below(b, a) for a, b in pairs))


class Rule(Frozen):
    name: Name
    when: Scope = Scope()


def is_below(category: str, path: str) -> bool:
    """Whether a category is `path` or lies under it, level by level."""
    return category == path or category.startswith(path.rstrip("/") + "/")
