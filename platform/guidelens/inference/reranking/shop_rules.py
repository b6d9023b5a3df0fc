"""A shop's rules applied to the candidates of one request: who is out, who is pinned, which categories are capped."""

# Letters: N = products, C = candidates, G = capped groups.

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from guidelens.errors import ConfigError
from guidelens.inference.reranking.expert import Boosts, ExpertRules, ProductFacts
from guidelens.inference.reranking.order import Constraints
from guidelens.inference.reranking.rules import RuleSet
from guidelens.inference.reranking.scope import Situation, is_below
from guidelens.schemas.guide import RuleEffect

Rows = NDArray[np.integer]


class Ruled(NamedTuple):
    """constraints: over the candidates given. effects: of the rules that took candidates out; pins by place, from 0: (rule, candidate)."""

    constraints: Constraints
    effects: tuple[RuleEffect, ...]
    pins: dict[int, tuple[str, int]]


class ShopRules:
    """Rules over one catalogue. `unknown`: products that rules name and the catalogue does not hold; those rules pass them over.

    `idle`: names of expert rules about products of which the catalogue holds none.
    """

    def __init__(self, rules: RuleSet, product_ids: Sequence[str], categories: Sequence[str], facts: ProductFacts | None = None) -> None:
        """Args:
            categories: of each product, levels joined by `/`.
            facts: what expert rules ask of products; needed where there are some.

        Raises:
            ConfigError: a pinned product is in a banned category, or more are pinned than a cap allows, at one time; or an expert rule asks what
                `facts` do not say.
        """
        self.rules, self.categories = rules, np.array(categories, dtype=object)
        self.row_of = {product_id: row for row, product_id in enumerate(product_ids)}
        named = [*(pin.product for pin in rules.pinned), *(product for ban in rules.banned for product in ban.products)]
        self.unknown = tuple(product for product in dict.fromkeys(named) if product not in self.row_of)
        self._banned = [(ban, self._rows_banned(ban.products, ban.categories)) for ban in rules.banned]
        self._check_pins()
        self._experts = ExpertRules(rules.expert, facts)
        self.idle = self._experts.idle

    def _rows_banned(self, products: Sequence[str], categories: Sequence[str]) -> NDArray[np.bool_]:
        banned_N = _is_of(self.categories, categories)
        banned_N[[self.row_of[product] for product in products if product in self.row_of]] = True
        return banned_N

    def _check_pins(self) -> None:
        pins = [pin for pin in self.rules.pinned if pin.product in self.row_of]
        for pin in pins:
            for ban, banned_N in self._banned:
                if banned_N[self.row_of[pin.product]] and pin.when.meets(ban.when):
                    raise ConfigError(f"{pin.product} must not be pinned by {pin.name} while {ban.name} bans its category; take one out, or part their `when`")
        for cap in self.rules.category_caps:
            held = [pin for pin in pins if pin.when.meets(cap.when)]
            groups = _groups(self.categories[[self.row_of[pin.product] for pin in held]], cap.categories, cap.level)
            most = int(np.bincount(groups[groups >= 0]).max(initial=0)) if len(groups) else 0
            if most > cap.max_products:
                raise ConfigError(f"{cap.name} allows {cap.max_products} products of a category, got {most} of one pinned; pin fewer, or raise max_products")

    def pinned_rows(self, situation: Situation) -> NDArray[np.int64]:
        """Product rows pinned now: they must be among the candidates."""
        return np.array([self.row_of[pin.product] for pin in self.rules.pinned if pin.when.holds(situation) and pin.product in self.row_of], dtype=np.int64)

    def over(self, rows_C: Rows, situation: Situation, price_C: NDArray[np.floating], in_stock_C: NDArray[np.bool_] | None = None) -> Ruled:
        """What the rules that hold now leave of the candidates.

        Args:
            price_C: minor units, NaN where not known.
            in_stock_C: False only where a product is known to be out of stock; None where nothing is known.
        """
        left_C, effects = self._taken_out(rows_C, situation, price_C, in_stock_C)
        place_of = {int(row): index for index, row in enumerate(rows_C)}
        pins: dict[int, tuple[str, int]] = {}
        for pin in self.rules.pinned:
            index = place_of.get(self.row_of.get(pin.product, -1))
            if index is not None and pin.when.holds(situation) and (in_stock_C is None or not self.rules.stock or in_stock_C[index]):
                pins[pin.position - 1] = (pin.name, index)
        left_C[[index for _, index in pins.values()]] = True
        caps = [
            (_groups(self.categories[rows_C], cap.categories, cap.level), cap.max_products, cap.name)
            for cap in self.rules.category_caps
            if cap.when.holds(situation)
        ]
        constraints = Constraints(left_C, {place: index for place, (_, index) in pins.items()}, tuple((groups, limit) for groups, limit, _ in caps))
        return Ruled(constraints, tuple(effects), pins)

    def boosts(self, rows_C: Rows, situation: Situation, price_C: NDArray[np.floating]) -> Boosts:
        """What the expert rules that hold now add to the candidates' scores, in nats."""
        return self._experts.over(rows_C, situation, price_C)

    def cap_effects(self, rows_C: Rows, situation: Situation, order: NDArray[np.int64], left_C: NDArray[np.bool_]) -> list[RuleEffect]:
        """Of each cap that a slate filled: how many candidates it held back after that."""
        effects = []
        for cap in self.rules.category_caps:
            if not cap.when.holds(situation):
                continue
            groups_C = _groups(self.categories[rows_C], cap.categories, cap.level)
            shown = groups_C[order][groups_C[order] >= 0]
            full = np.flatnonzero(np.bincount(shown, minlength=1) >= cap.max_products)
            held = int((np.isin(groups_C, full) & left_C).sum()) - int(np.isin(shown, full).sum())
            effects += [RuleEffect(name=cap.name, kind="category_cap", products=held)] if held else []
        return effects

    def _taken_out(
        self, rows_C: Rows, situation: Situation, price_C: NDArray[np.floating], in_stock_C: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.bool_], list[RuleEffect]]:
        left_C = np.ones(len(rows_C), dtype=np.bool_)
        effects: list[RuleEffect] = []

        def take(out_C: NDArray[np.bool_], effect: RuleEffect) -> None:
            num = int((out_C & left_C).sum())
            left_C[out_C] = False
            effects.extend([effect.model_copy(update={"products": num})] if num else [])

        if self.rules.stock and in_stock_C is not None:
            take(~in_stock_C, RuleEffect(name="stock", kind="stock", products=0))
        for ban, banned_N in self._banned:
            if ban.when.holds(situation):
                take(banned_N[rows_C], RuleEffect(name=ban.name, kind="banned", products=0))
        for band in self.rules.price_bands:
            if band.when.holds(situation):
                low, high = band.min_minor or 0, np.inf if band.max_minor is None else band.max_minor
                outside_C = (price_C < low) | (price_C > high)
                take(
                    outside_C & (_is_of(self.categories[rows_C], band.categories) | (not band.categories)),
                    RuleEffect(name=band.name, kind="price_band", products=0),
                )
        return left_C, effects


def _is_of(categories: NDArray[np.object_], paths: Sequence[str]) -> NDArray[np.bool_]:
    """Which categories lie in one of `paths`."""
    return np.array([any(is_below(category, path) for path in paths) for category in categories.tolist()], dtype=np.bool_)


def _groups(categories_C: NDArray[np.object_], paths: Sequence[str], level: int) -> NDArray[np.int64]:
    """(C,) number of the first `level` levels of each category, -1 where a cap does not count it."""
    numbers: dict[str, int] = {}
    counted = _is_of(categories_C, paths) | (not paths)
    names = ["/".join(category.split("/")[:level]) for category in categories_C.tolist()]
    return np.array([numbers.setdefault(name, len(numbers)) if inside else -1 for name, inside in zip(names, counted, strict=True)], dtype=np.int64)
