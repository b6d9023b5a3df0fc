"""Catalogue, shopper and review records, as a shop brings them (docs/data.md)."""

import json
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from guidelens.schemas.base import Id, Moment, Record

ProductId = Id
ShopperId = Id
TryOn = Literal["face", "eyes", "hand", "wrist", "foot", "body", "room", "none"]
PositiveMetres = Annotated[float, Field(gt=0, le=50, allow_inf_nan=False)]


class Product(Record):
    """One product of the catalogue.

    `category` holds levels joined by `/`; `attributes` are canonical keys (colour, material, size, …); `facts` are shown
    to people (ingredients, care, …); prices are in minor units of `currency`; dimensions in metres.
    """

    product_id: ProductId
    title: Annotated[str, Field(min_length=1, max_length=500)]
    description: Annotated[str, Field(max_length=20_000)] = ""
    category: Annotated[str, Field(min_length=1, max_length=500)]
    title_zh: Annotated[str, Field(max_length=500)] | None = None
    description_zh: Annotated[str, Field(max_length=20_000)] | None = None
    brand: Annotated[str, Field(max_length=200)] | None = None
    price_minor: Annotated[int, Field(ge=0, le=10**10)] | None = None
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] | None = None
    attributes: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    images: tuple[str, ...] = ()
    stock: Annotated[int, Field(ge=0, le=10**10)] | None = None
    try_on: TryOn = "none"
    width_m: PositiveMetres | None = None
    height_m: PositiveMetres | None = None
    depth_m: PositiveMetres | None = None
    model_3d: Annotated[str, Field(max_length=500)] | None = None

    @field_validator("attributes", "facts")
    @classmethod
    def _of_json(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            json.dumps(value, allow_nan=False, default=str)
        except ValueError as error:
            raise PydanticCustomError("json_values", "values must be JSON, which has no NaN and no Infinity") from error
        return value

    @field_validator("images", mode="before")
    @classmethod
    def _split_joined_images(cls, value: object) -> object:
        if value is None:
            return ()
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(";") if part.strip())
        return value

    @field_validator("images")
    @classmethod
    def _as_photos_are_called(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(path.removeprefix("./") for path in value)


class Shopper(Record):
    """What a shop knows of a shopper; everything but the id may be missing. consent_ts: since when `consent` is as it says."""

    shopper_id: ShopperId
    age_band: str | None = None
    gender: str | None = None
    region: str | None = None
    height_cm: Annotated[float, Field(gt=0, lt=300)] | None = None
    body: str | None = None
    skin_tone: str | None = None
    channel: str | None = None
    created_ts: Moment | None = None
    consent: bool | None = None
    consent_ts: Moment | None = None


class Review(Record):
    """A shopper's rating of a product, with or without a text."""

    review_id: Id
    product_id: ProductId
    shopper_id: ShopperId | None = None
    ts: Moment
    rating: Annotated[float, Field(ge=1, le=5)]
    text: Annotated[str, Field(max_length=20_000)] = ""
    locale: str | None = None


class LabelledPhoto(Record):
    """A line of `photos.csv`: a photo's path relative to its folder, and the product it shows."""

    path: Annotated[str, Field(min_length=1, max_length=1000)]
    product_id: ProductId
