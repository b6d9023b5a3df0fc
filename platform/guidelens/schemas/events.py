"""The event contract: one record shape for everything a shopper or the guide does (docs/data.md)."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from guidelens.schemas.base import Id, Moment, Record
from guidelens.schemas.catalog import ProductId, ShopperId
from guidelens.schemas.steps import MAX_STEPS, GuideStep, Outcome

EVENT_SCHEMA_VERSION = 1
CLOCK_TOLERANCE = timedelta(minutes=10)


class EventType(StrEnum):
    IMPRESSION = "impression"
    VIEW = "view"
    CLICK = "click"
    CART = "cart"
    PURCHASE = "purchase"
    RETURN = "return"
    SEARCH = "search"
    AR_OPEN = "ar_open"
    AR_VIEW = "ar_view"
    AR_GESTURE = "ar_gesture"
    GUIDE_STEP = "guide_step"
    STEP_OUTCOME = "step_outcome"
    FEEDBACK = "feedback"


class Gesture(StrEnum):
    TAP = "tap"
    SLIDE = "slide"
    ROTATE = "rotate"
    PINCH = "pinch"
    WALK_AROUND = "walk_around"
    VOICE = "voice"


class Channel(StrEnum):
    APP = "app"
    WEB = "web"
    STORE = "store"
    MINI_PROGRAM = "mini_program"


Milliseconds = Annotated[float, Field(ge=0, le=86_400_000, allow_inf_nan=False)]
Propensity = Annotated[float, Field(gt=0, le=1)]

REQUIRED_BY_TYPE: dict[EventType, tuple[str, ...]] = {
    EventType.IMPRESSION: ("product_id", "position"),
    EventType.VIEW: ("product_id",),
    EventType.CLICK: ("product_id",),
    EventType.CART: ("product_id",),
    EventType.PURCHASE: ("product_id",),
    EventType.RETURN: ("product_id",),
    EventType.SEARCH: (),
    EventType.AR_OPEN: (),
    EventType.AR_VIEW: ("view_ms",),
    EventType.AR_GESTURE: ("gesture",),
    EventType.GUIDE_STEP: ("step", "step_index"),
    EventType.STEP_OUTCOME: ("step_index", "outcome"),
    EventType.FEEDBACK: (),
}
NAMES_OF_SHOPPER = ("shopper_id", "anonymous_id")
"""An event needs one of them."""


class Event(Record):
    """One event. `event_id` is the idempotency key; `event_ts` is when it happened, `created_ts` when it was known.

    `frame_id` (search and ar_open events) names the photo that a scan showed, relative to the photos folder.
    Durations are milliseconds; `value_minor` is in minor units of the shop's currency. An event with `consent` false is stored without
    any link to its shopper; absent, the shopper's record decides.
    """

    event_id: Id
    event_ts: Moment
    created_ts: Moment | None = None
    shopper_id: ShopperId | None = None
    anonymous_id: ShopperId | None = None
    session_id: Id
    type: EventType
    product_id: ProductId | None = None
    request_id: Id | None = None
    position: Annotated[int, Field(ge=1, le=10_000)] | None = None
    propensity: Propensity | None = None
    release: Annotated[str, Field(max_length=64)] | None = None
    browse_ms: Milliseconds | None = None
    stay_ms: Milliseconds | None = None
    depth: Annotated[int, Field(ge=0, le=10_000)] | None = None
    view_ms: Milliseconds | None = None
    gesture: Gesture | None = None
    step: GuideStep | None = None
    step_index: Annotated[int, Field(ge=0, lt=MAX_STEPS)] | None = None
    step_propensity: Propensity | None = None
    outcome: Outcome | None = None
    query: Annotated[str, Field(max_length=2000)] | None = None
    frame_id: Annotated[str, Field(max_length=1000)] | None = None
    value_minor: Annotated[int, Field(ge=0, le=10**10)] | None = None
    rating: Annotated[float, Field(ge=0, le=5)] | None = None
    channel: Channel | None = None
    device: Annotated[str, Field(max_length=64)] | None = None
    consent: bool | None = None

    @model_validator(mode="after")
    def _fields_of_the_type(self) -> Self:
        missing = missing_fields(self)
        if missing:
            raise ValueError(f"a {self.type} event needs {', '.join(missing)}")
        if all(getattr(self, name) is None for name in NAMES_OF_SHOPPER):
            raise ValueError(f"an event needs {' or '.join(NAMES_OF_SHOPPER)}")
        return self


def missing_fields(event: Event) -> list[str]:
    """The fields that the event's type needs and the event lacks."""
    return [name for name in REQUIRED_BY_TYPE[event.type] if getattr(event, name) is None]


def clock_problem(event: Event, now: datetime) -> tuple[str, str] | None:
    """The field whose time cannot be true at `now` (with zone) and why, or None. Clocks may be ahead by CLOCK_TOLERANCE."""
    for field in ("event_ts", "created_ts"):
        time: datetime | None = getattr(event, field)
        if time is not None and time - now > CLOCK_TOLERANCE:
            return field, f"{field} must not lie in the future, got {time.isoformat()}; clocks may be ahead by {CLOCK_TOLERANCE.total_seconds():.0f} s"
    return None


def is_skewed(event_ts: datetime, created_ts: datetime | None) -> bool:
    """Whether an event was known before it happened: a device's clock is wrong. Such events are taken, and remarked on."""
    return created_ts is not None and event_ts - created_ts > CLOCK_TOLERANCE
