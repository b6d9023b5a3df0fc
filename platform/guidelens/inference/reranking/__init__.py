"""From scored candidates to the slate that is shown: a shop's rules, diversity, and an order drawn with exact propensities.

Plain numpy, so that the ranker, the ingress's fallback and evaluation run the same code. Knows nothing of models or requests.
"""

from guidelens.inference.reranking.diversity import Dpp, Mmr, diversity
from guidelens.inference.reranking.expert import Boosts, ExpertRule, ProductFacts, no_boosts
from guidelens.inference.reranking.live_rules import LiveRules
from guidelens.inference.reranking.order import Constraints, Order, draw_order, plackett_luce
from guidelens.inference.reranking.rerank import Candidates, Reranked, Reranker
from guidelens.inference.reranking.rules import BUNDLED, RuleSet, read_rules
from guidelens.inference.reranking.scope import Situation
from guidelens.inference.reranking.shop_rules import ShopRules

__all__ = [
    "BUNDLED",
    "Boosts",
    "Candidates",
    "Constraints",
    "Dpp",
    "ExpertRule",
    "LiveRules",
    "Mmr",
    "Order",
    "ProductFacts",
    "Reranked",
    "Reranker",
    "RuleSet",
    "ShopRules",
    "Situation",
    "diversity",
    "draw_order",
    "no_boosts",
    "plackett_luce",
    "read_rules",
]
