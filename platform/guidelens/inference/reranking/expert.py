"""What a shop's experts would say where the log says little: products gain or lose score, for new shoppers, or while they are new themselves.

Rules are data (rules.py reads them with the others of a shop). They act before the order is drawn, and only below the evidence that each
states, so that what was learned takes over as soon as there is something to learn from.
"""

# Letters: N = products, C = candidates.

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from guidelens.errors import ConfigError
from guidelens.inference.reranking.scope import CategoryPath, Rule, Situation, is_below
from guidelens.schemas.base import Frozen
from guidelens.schemas.guide import RuleEffect
from guidelens.schemas.ids import stable_hash
from guidelens.schemas.packed import NUM_RECENT, PROFILE_FIELDS

Text = Annotated[str, Field(min_length=1, max_length=200)]
MAX_NATS = 5.0


class ProfileSigns(Frozen):
    """What the shop knows of a shopper: of each field given, one of its values. A field that is not known of a shopper holds no value."""

    age_band: tuple[Text, ...] = ()
    gender: tuple[Text, ...] = ()
    region: tuple[Text, ...] = ()
    body: tuple[Text, ...] = ()
    skin_tone: tuple[Text, ...] = ()
    channel: tuple[Text, ...] = ()

    def hold(self, profile: Sequence[int]) -> bool:
        """Args: profile: `stable_hash` of each value in the order of PROFILE_FIELDS, 0 or missing where unknown."""
        known = dict(zip(PROFILE_FIELDS, profile, strict=False))
        wanted = {name: getattr(self, name) for name in PROFILE_FIELDS}
        return all(not values or known.get(name, 0) in {stable_hash(value) for value in values} for name, values in wanted.items())


class SessionSigns(Frozen):
    """What the session shows: its device, and any of these words in what is asked for. Words of Latin letters are found whole, others anywhere."""

    devices: tuple[Literal["none", "ar", "ar+front"], ...] = ()
    words: tuple[Text, ...] = ()

    def hold(self, device: str, text: str) -> bool:
        return (not self.devices or device in self.devices) and (not self.words or any(_says(text, word) for word in self.words))


def _says(text: str, word: str) -> bool:
    escaped = re.escape(word.casefold())
    return re.search(rf"(?<![a-z0-9]){escaped}(?![a-z0-9])" if word.isascii() else escaped, text.casefold()) is not None


class ProductSigns(Frozen):
    """Which products: in one of the categories, of one of the brands, with one of the values of each attribute, at a price in the band."""

    categories: tuple[CategoryPath, ...] = ()
    brands: tuple[Text, ...] = ()
    attributes: dict[Text, Annotated[tuple[Text, ...], Field(min_length=1)]] = {}
    min_minor: Annotated[int, Field(ge=0)] | None = None
    max_minor: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _a_band(self) -> Self:
        if self.min_minor is not None and self.max_minor is not None and self.min_minor > self.max_minor:
            raise ValueError(f"products.min_minor must not exceed products.max_minor, got {self.min_minor} and {self.max_minor}")
        return self

    @property
    def are_all(self) -> bool:
        return self == ProductSigns()


class Said(Frozen):
    """A rule's reason, as the shopper reads it. Without `zh`, Chinese readers get the general words."""

    en: Text
    zh: Text | None = None


class ExpertRule(Rule):
    """These products gain `nats` of score (a factor of e ** nats of their chance; negative: lose) where all signs hold.

    visits_below: only for shoppers of whom fewer visits are known; one nobody knows has none, and more than NUM_RECENT are never counted.
    clicks_below: only for products with fewer clicks in the log that the release was made from. One of the two must be given.
    """

    visits_below: Annotated[int, Field(ge=1, le=NUM_RECENT)] | None = None
    clicks_below: Annotated[int, Field(ge=1)] | None = None
    shopper: ProfileSigns = ProfileSigns()
    session: SessionSigns = SessionSigns()
    products: ProductSigns = ProductSigns()
    nats: Annotated[float, Field(ge=-MAX_NATS, le=MAX_NATS, allow_inf_nan=False)]
    reason: Said | None = None

    @model_validator(mode="after")
    def _of_little_evidence(self) -> Self:
        if self.visits_below is None and self.clicks_below is None:
            raise ValueError(f"expert rule {self.name} must have visits_below or clicks_below, got neither: it would overrule what was learned for ever")
        if self.nats == 0:
            raise ValueError(f"expert rule {self.name} must move scores, got nats 0; take it out, or give it a number")
        if self.products.are_all and self.clicks_below is None:
            raise ValueError(f"expert rule {self.name} must name products, or clicks_below, got neither: moving all alike changes nothing")
        return self

    def holds(self, situation: Situation) -> bool:
        new_enough = self.visits_below is None or situation.num_visits < self.visits_below
        signs = self.shopper.hold(situation.profile) and self.session.hold(situation.device, situation.text)
        return new_enough and signs and self.when.holds(situation)


@dataclass(frozen=True)
class ProductFacts:
    """What expert rules ask of the catalogue, a row a product.

    brands: "" where unknown. attributes: canonical keys to values. clicks_N: in the log that the release was made from; None where the release
    does not say.
    """

    categories: Sequence[str]
    brands: Sequence[str]
    attributes: Sequence[Mapping[str, Any]]
    clicks_N: NDArray[np.integer] | None


class Boosts(NamedTuple):
    """nats_C: what each candidate's score gains. rules_C: the rules that raised it, in their order. effects: how many candidates each moved."""

    nats_C: NDArray[np.float64]
    rules_C: tuple[tuple[ExpertRule, ...], ...]
    effects: tuple[RuleEffect, ...]


def no_boosts(num: int) -> Boosts:
    return Boosts(np.zeros(num), ((),) * num, ())


class ExpertRules:
    """Rules over one catalogue. `idle`: names of those whose products it does not hold."""

    def __init__(self, rules: Sequence[ExpertRule], facts: ProductFacts | None) -> None:
        """Raises:
        ConfigError: a rule asks how often products were clicked, and the release does not say; or there are rules and no facts.
        """
        if rules and facts is None:
            raise ConfigError("expert rules need to know what the products are; they hold only where a release's catalogue is")
        self._rules = [(rule, _matching(rule, facts)) for rule in rules if facts is not None]
        self.idle = tuple(rule.name for rule, of_N in self._rules if not of_N.any())

    def over(self, rows_C: NDArray[np.integer], situation: Situation, price_C: NDArray[np.floating]) -> Boosts:
        """What the rules that hold now say of the candidates. price_C: minor units, NaN where not known: no price is in no band."""
        nats_C, effects = np.zeros(len(rows_C)), []
        raised: list[list[ExpertRule]] = [[] for _ in rows_C]
        for rule, of_N in self._rules:
            if not rule.holds(situation):
                continue
            moved_C = of_N[rows_C] & _in_band(price_C, rule.products)
            nats_C[moved_C] += rule.nats
            effects += [RuleEffect(name=rule.name, kind="expert", products=int(moved_C.sum()))] if moved_C.any() else []
            for index in np.flatnonzero(moved_C).tolist() if rule.nats > 0 else []:
                raised[index].append(rule)
        return Boosts(nats_C, tuple(map(tuple, raised)), tuple(effects))


def _matching(rule: ExpertRule, facts: ProductFacts) -> NDArray[np.bool_]:
    """(N,) the products a rule is about, whatever they cost."""
    signs, of_N = rule.products, np.ones(len(facts.categories), dtype=np.bool_)
    if signs.categories:
        of_N &= np.array([any(is_below(category, path) for path in signs.categories) for category in facts.categories], dtype=np.bool_)
    if signs.brands:
        of_N &= np.array([brand in signs.brands for brand in facts.brands], dtype=np.bool_)
    for name, values in signs.attributes.items():
        of_N &= np.array([bool(set(_texts(each.get(name))) & set(values)) for each in facts.attributes], dtype=np.bool_)
    if rule.clicks_below is not None:
        if facts.clicks_N is None:
            raise ConfigError(
                f"expert rule {rule.name} has clicks_below, and this release does not say how often products were clicked; build the release again"
            )
        of_N &= facts.clicks_N < rule.clicks_below
    return of_N


def _texts(value: object) -> list[str]:
    return [] if value is None else [str(each) for each in value] if isinstance(value, list) else [str(value)]


def _in_band(price_C: NDArray[np.floating], signs: ProductSigns) -> NDArray[np.bool_]:
    if signs.min_minor is None and signs.max_minor is None:
        return np.ones(len(price_C), dtype=np.bool_)
    return np.asarray((price_C >= (signs.min_minor or 0)) & (price_C <= (np.inf if signs.max_minor is None else signs.max_minor)))
