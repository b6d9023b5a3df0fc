"""Request and reply of `POST /v1/guide` and `POST /v1/events` (docs/api.md; limits in docs/adr)."""

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from guidelens.schemas.base import Frozen, Record
from guidelens.schemas.catalog import ProductId, ShopperId
from guidelens.schemas.steps import DeviceCapabilities, GuideStep

MAX_FRAME_BYTES = 8 * 1024 * 1024
MAX_FRAME_PIXELS = 24_000_000
MAX_EVENTS_PER_CALL = 500
MAX_TEXT_CHARS = 2000

Evidence = Literal["image", "earlier_frames", "barcode", "text"]
Chance = Annotated[float, Field(ge=0, le=1)]


class Consent(Record):
    personalization: bool = True
    frame_retention: bool = False


class ShopperRequest(Record):
    """Who asks, with what in view, and what may be made of it. `deadline_ms` is the whole budget; `image_embedding` is made on the device, by the
    encoder that `image_encoder` names: where that is not the release's, it counts as made by the pretrained encoder alone."""

    request_id: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    shopper_id: ShopperId | None = None
    session_id: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    text: Annotated[str, Field(max_length=MAX_TEXT_CHARS)] | None = None
    image_embedding: Annotated[tuple[float, ...], Field(max_length=4096)] | None = None
    image_encoder: Annotated[str, Field(max_length=128)] | None = None
    locale: Annotated[str, Field(max_length=35)] = "en"
    deadline_ms: Annotated[int, Field(ge=20, le=30_000)] = 300
    personalized: bool = True
    device: DeviceCapabilities = DeviceCapabilities()
    consent: Consent = Consent()

    @property
    def may_personalize(self) -> bool:
        """False where no shopper feature may be read and no personal event written."""
        return self.personalized and self.consent.personalization


class GuideRequest(ShopperRequest):
    """What a shopper's device asks the guide. `regions`: several products in the frame are told apart, where the deadline has room."""

    num_recommendations: Annotated[int, Field(ge=1, le=100)] = 10
    regions: bool = False


class Recognized(Frozen):
    product_id: ProductId
    title: str
    confidence: Annotated[float, Field(ge=0, le=1)]
    facts: dict[str, Any] = {}


class ProductRegion(Frozen):
    """Where in the frame a product surely is: `box` is left, top, right, bottom in shares of the upright frame."""

    box: tuple[Chance, Chance, Chance, Chance]
    product_id: ProductId
    title: str
    confidence: Chance


class Family(Frozen):
    """The category that the frame's product is of, all levels joined by `/`, and how sure that is: at least as sure as any product in it."""

    category: str
    confidence: Annotated[float, Field(ge=0, le=1)]


class SlateItem(Frozen):
    """One recommendation. `interest` is null where no guide model was trained; `propensity` is of this item at this place.

    `price_minor` and `currency` are the online store's at the time of the answer, the release's where that cannot be read.
    `click_chance` and `purchase_chance` are calibrated, of the product shown at a mean place; null without a model that learned them.
    `pinned_by` names the shop's rule that put the product here: its propensity is 1.
    """

    position: Annotated[int, Field(ge=1)]
    product_id: ProductId
    title: str
    score: float
    interest: Annotated[float, Field(ge=0, le=1)] | None
    propensity: Annotated[float, Field(gt=0, le=1)]
    reasons: tuple[str, ...]
    price_minor: int | None = None
    currency: str | None = None
    click_chance: Chance | None = None
    purchase_chance: Chance | None = None
    pinned_by: str | None = None


class RuleEffect(Frozen):
    """A rule of the shop that acted on one request: it took `products` candidates out, put one in its place, held so many back, or (expert)
    moved the scores of so many."""

    name: str
    kind: Literal["stock", "banned", "pinned", "price_band", "category_cap", "expert"]
    products: int


class PlannedStep(Frozen):
    """`with_product_ids`: what the step shows beside its product: of show_bundle, products in stock that go with it, best first."""

    step: GuideStep
    product_id: ProductId | None
    say: str
    propensity: Annotated[float, Field(gt=0, le=1)]
    with_product_ids: tuple[ProductId, ...] = ()


class Degraded(StrEnum):
    """The rung of the fallback ladder that answered; null in the reply means the full graph did.

    `baseline`: the release's classic recommender, from what the shopper visited and the product in view.
    """

    NO_GUIDE_MODEL = "no_guide_model"
    WITHOUT_FRAME = "without_frame"
    WITHOUT_SHOPPER_FEATURES = "without_shopper_features"
    BASELINE = "baseline"
    POPULARITY = "popularity"


class GuideReply(Frozen):
    """The answer. `in_catalogue` is null where no frame was sent or the release has no recognizer; `missing` names what the release
    lacks (`events`, `photos`, or a task the guide model did not learn), `stock` where the online store could not say what is in stock,
    `rules` where the home's rules cannot be used and older ones are in force, and `frame` where the release would have told more from a
    frame than from the embedding that was sent. `rules`: those of the shop that acted. `family`: null where nothing was recognized.

    `evidence`: what `in_catalogue` and `recognized` rest on; earlier frames are those of the session that show the same view. `barcodes`: GTINs (14 digits)
    read in the frame, of the catalogue or not; none are looked for where no product has one.
    `texts`: the lines read on packages, where they were looked for, whether they name a product or not.

    `regions`: the products of a frame that surely shows more than one, the first of which is the one that `recognized` and all else answer for; empty
    where one answer is all there is. Null where they were not looked for: not asked, no frame or recognizer, a bar code answered, or no time left."""

    request_id: str
    release: str
    degraded: Degraded | None
    in_catalogue: bool | None
    recognized: tuple[Recognized, ...]
    missing: tuple[str, ...]
    slate: tuple[SlateItem, ...]
    plan: tuple[PlannedStep, ...]
    intent: str
    timings_ms: dict[str, float]
    rules: tuple[RuleEffect, ...] = ()
    family: Family | None = None
    evidence: tuple[Evidence, ...] = ()
    barcodes: tuple[str, ...] = ()
    regions: tuple[ProductRegion, ...] | None = None
    texts: tuple[str, ...] = ()


class ErrorBody(Frozen):
    code: str
    message: str
    request_id: str


class ErrorReply(Frozen):
    error: ErrorBody


class RejectedEvent(Frozen):
    index: int
    code: str
    message: str


class EventsReply(Frozen):
    accepted: int
    duplicate: int
    rejected: tuple[RejectedEvent, ...]


class EventsRequest(Record):
    """`events` stay raw here: each one is checked against `Event` by itself, so that one bad event rejects only itself."""

    events: Annotated[tuple[dict[str, Any], ...], Field(max_length=MAX_EVENTS_PER_CALL)]

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not self.events:
            raise ValueError("events must hold at least one event")
        return self
