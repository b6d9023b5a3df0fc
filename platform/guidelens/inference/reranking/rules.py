"""A shop's rules over slates, as data: one YAML or JSON file, checked before anything obeys it.

A release carries the rules it was built with; the same file in the home takes their place while serving runs, without a release.
Knows nothing of products beyond their ids and categories.
"""

import itertools
import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from guidelens.errors import ConfigError
from guidelens.inference.reranking.expert import ExpertRule
from guidelens.inference.reranking.scope import CategoryPath, Rule
from guidelens.schemas.base import Frozen
from guidelens.schemas.catalog import ProductId

BUNDLED = "rules.json"
"""The rules' name in a fit and in a bundle."""


class Banned(Rule):
    """These products, and all of these categories, are not recommended."""

    products: tuple[ProductId, ...] = ()
    categories: tuple[CategoryPath, ...] = ()

    @model_validator(mode="after")
    def _of_something(self) -> Self:
        if not self.products and not self.categories:
            raise ValueError(f"banned rule {self.name} must name products or categories, got neither")
        return self


class Pinned(Rule):
    """This product stands at this place of the slate, from 1, while it is in stock. Price bands do not take it off."""

    product: ProductId
    position: Annotated[int, Field(ge=1, le=100)]


class PriceBand(Rule):
    """Only products whose price lies in the band, both ends in it; of these categories, or of all. A product without a price stays."""

    min_minor: Annotated[int, Field(ge=0)] | None = None
    max_minor: Annotated[int, Field(ge=0)] | None = None
    categories: tuple[CategoryPath, ...] = ()

    @model_validator(mode="after")
    def _a_band(self) -> Self:
        if self.min_minor is None and self.max_minor is None:
            raise ValueError(f"price band {self.name} must have min_minor or max_minor, got neither")
        if self.min_minor is not None and self.max_minor is not None and self.min_minor > self.max_minor:
            raise ValueError(f"price band {self.name}: min_minor must not exceed max_minor, got {self.min_minor} and {self.max_minor}")
        return self


class CategoryCap(Rule):
    """At most so many products of a slate share the first `level` levels of their category; of these categories, or of each."""

    max_products: Annotated[int, Field(ge=1)]
    level: Annotated[int, Field(ge=1, le=10)] = 1
    categories: tuple[CategoryPath, ...] = ()


class RuleSet(Frozen):
    """All rules of a shop. stock: products known to be out of stock are not recommended. expert: for where little is known (expert.py)."""

    schema_version: Literal[1] = 1
    stock: bool = True
    banned: tuple[Banned, ...] = ()
    pinned: tuple[Pinned, ...] = ()
    price_bands: tuple[PriceBand, ...] = ()
    category_caps: tuple[CategoryCap, ...] = ()
    expert: tuple[ExpertRule, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [rule.name for rule in (*self.banned, *self.pinned, *self.price_bands, *self.category_caps, *self.expert)]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"rules must have different names, got {twice} more than once")
        for problem in self._conflicts():
            raise ValueError(problem)
        return self

    def _conflicts(self) -> Iterator[str]:
        for pin, ban in itertools.product(self.pinned, self.banned):
            if pin.product in ban.products and pin.when.meets(ban.when):
                yield f"{pin.product} must not be pinned by {pin.name} and banned by {ban.name} at one time; take one out, or part their `when`"
        for one, other in itertools.combinations(self.pinned, 2):
            if one.when.meets(other.when) and one.position == other.position:
                yield f"{one.name} and {other.name} pin place {one.position} at one time; give one another position, or part their `when`"
            if one.when.meets(other.when) and one.product == other.product:
                yield f"{one.name} and {other.name} pin {one.product} at one time; take one out, or part their `when`"


def read_rules(path: Path) -> RuleSet:
    """Rules of a YAML or JSON file (JSON is YAML); an empty file holds none.

    Raises:
        ConfigError: it cannot be read, or what it says does not follow the schema or contradicts itself.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"rules {path} cannot be read: {error}; docs/ranking.md shows a file") from error
    try:
        return RuleSet.model_validate_json(json.dumps({} if tree is None else tree, default=_as_text))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"rules {path}: {where + ': ' if where else ''}{first['msg']}; docs/ranking.md shows a file") from error


def _as_text(value: object) -> str:
    """YAML reads times by itself; the schema wants to see them as they were written, with a zone."""
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"rules hold text, numbers, lists and times, got {type(value).__name__}")
