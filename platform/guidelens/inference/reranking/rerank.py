"""One slate from scored candidates: rules first, then an order drawn over what they leave, with diversity at each place."""

# Letters: C = candidates, K = places, D = size of a vector.

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guidelens.config import RerankConfig
from guidelens.inference.reranking.diversity import diversity
from guidelens.inference.reranking.order import draw_order
from guidelens.inference.reranking.scope import Situation
from guidelens.inference.reranking.shop_rules import ShopRules
from guidelens.schemas.guide import RuleEffect


@dataclass(frozen=True)
class Candidates:
    """rows_C: product rows, each once. scores_C on a log scale. price_C in minor units, NaN unknown. in_stock_C: None where nothing is known.

    vectors_CD: what diversity compares; None where it is off.
    """

    rows_C: NDArray[np.integer]
    scores_C: NDArray[np.float64]
    price_C: NDArray[np.floating]
    in_stock_C: NDArray[np.bool_] | None = None
    vectors_CD: NDArray[np.floating] | None = None


@dataclass(frozen=True)
class Reranked:
    """chosen_K: indices of the candidates. pinned_by: name of the rule that set each place, None where it was drawn. effects: of rules that acted."""

    chosen_K: NDArray[np.int64]
    propensities_K: NDArray[np.float32]
    pinned_by: tuple[str | None, ...]
    effects: tuple[RuleEffect, ...]


class Reranker:
    """The same for every request of a release but for the rules, which may change while it serves."""

    def __init__(self, config: RerankConfig, temperature: float) -> None:
        self.config, self.temperature = config, temperature

    def slate(self, candidates: Candidates, rules: ShopRules, situation: Situation, num: int, rng: np.random.Generator) -> Reranked:
        """At most `num` of the candidates; the same generator state, the same slate."""
        ruled = rules.over(candidates.rows_C, situation, candidates.price_C, candidates.in_stock_C)
        unlike = None if candidates.vectors_CD is None else diversity(self.config.diversity, self.config.strength, candidates.vectors_CD)
        order = draw_order(candidates.scores_C, ruled.constraints, unlike, self.temperature, num, rng)
        name_of = {index: name for name, index in ruled.pins.values()}
        pinned_by = tuple(name_of.get(int(index)) for index in order.chosen)
        effects = [*ruled.effects, *(RuleEffect(name=name, kind="pinned", products=1) for name in pinned_by if name is not None)]
        effects += rules.cap_effects(candidates.rows_C, situation, order.chosen, ruled.constraints.left_C)
        return Reranked(order.chosen, order.propensities, pinned_by, tuple(effects))
