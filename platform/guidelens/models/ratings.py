"""A pointwise model of explicit feedback: how high a shopper rates a product (T2) and whether she likes it (T1), over shared experts.

Two learned neighbourhoods (the shopper's rated products, the product's raters), id vectors with what is known of shopper and product,
and the features of the rating history go through the family's experts (models/experts.py) to one head a task. The rating head
corrects the estimate of shrunk means; so a pair nobody knows anything of gets the overall mean. The like's head gives log-odds at every
level of the scale (ordinal regression by cumulative odds, each level with weights of its own), of which a like is one; all of them make a second estimate of the rating.
"""

# Letters: B = pairs, H = ratings near a pair, F = features, I = input size, V = size of an id vector, S = shoppers, P = products,
# L = levels of the scale above the lowest.

from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as fn

from guidelens.config import ModelConfig
from guidelens.data.ratings import Ratings
from guidelens.errors import ConfigError
from guidelens.models.experts import Experts
from guidelens.models.noise import Noise, dropout
from guidelens.models.rated_attention import RatedAttention
from guidelens.models.rating_history import NUM_FEATURES, Near, PairFeatures, Pairs
from guidelens.schemas.base import Frozen

RatingTask = Literal["like", "rating"]
RATING_TASKS: tuple[RatingTask, ...] = ("like", "rating")
MAX_LEVELS = 100
_ODDS_PER_STAR = 2.0


class RatingModelConfig(Frozen):
    """The rating model's shape. experts: sharing, width, number and dropout of the experts; what else it holds is of the guide model.

    num_heads, head_size: of each neighbourhood's attention. id_size: of id vectors. id_dropout: share of a pair's id vector
    left out of a step. liked: a rating from which on a product counts as liked.
    """

    experts: ModelConfig = ModelConfig(dropout=0.2)
    num_heads: Annotated[int, Field(ge=1)] = 2
    head_size: Annotated[int, Field(ge=1)] = 12
    id_size: Annotated[int, Field(ge=1)] = 32
    id_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.4
    liked: float = 4.0


class RatingLogits(NamedTuple):
    """rating, (B,): by regression, not cut to the scale. like, (B,): the log-odds that it is a like. levels, (B, L): that it is at least each level."""

    rating: Tensor
    like: Tensor
    levels: Tensor


class RatingModel(nn.Module):
    """Ratings and likes of pairs.

    Args:
        described: its feature tables say what is known of each shopper and product; of its ratings, only which levels there are is read.

    Raises:
        ConfigError: no level, or every level, is liked; or there are more than MAX_LEVELS.
    """

    shopper_SF: Tensor
    product_PF: Tensor
    levels_L: Tensor
    steps_L: Tensor

    def __init__(self, config: RatingModelConfig, described: Ratings) -> None:
        super().__init__()
        self.config = config
        scale = torch.from_numpy(_scale(described, config.liked))
        self.lowest, self.liked_level = float(scale[0]), int((scale[1:] < config.liked).sum())
        self.register_buffer("levels_L", scale[1:])
        self.register_buffer("steps_L", scale.diff())
        self.register_buffer("shopper_SF", torch.from_numpy(described.shopper_SF))
        self.register_buffer("product_PF", torch.from_numpy(described.product_PF))
        (num_shoppers, shopper_size), (num_products, product_size) = self.shopper_SF.shape, self.product_PF.shape
        self.past = RatedAttention(num_products, config.num_heads, config.head_size, config.id_size)
        self.raters = RatedAttention(num_shoppers, config.num_heads, config.head_size, config.id_size)
        self.shopper, self.met_by_raters = _ids(num_shoppers, config.id_size), _ids(num_shoppers, config.id_size)
        self.product, self.met_by_past = _ids(num_products, config.id_size), _ids(num_products, config.id_size)
        self.of_shopper, self.of_product = nn.Linear(shopper_size, config.id_size), nn.Linear(product_size, config.id_size)
        size = NUM_FEATURES + 4 * config.num_heads + 5 * config.id_size
        self.experts = Experts(config.experts, (size,), RATING_TASKS)
        outputs: dict[RatingTask, int] = {"like": len(self.levels_L), "rating": 1}
        self.heads = nn.ModuleDict({task: nn.Linear(config.experts.width, outputs[task]) for task in RATING_TASKS})
        self.straight = nn.Linear(size, sum(outputs.values()), bias=False)
        nn.init.zeros_(self.straight.weight)

    def tables(self) -> list[Tensor]:
        """The weights that belong to single shoppers or products; few ratings stand behind each, so they are held back more."""
        return [module.weight for module in self.modules() if isinstance(module, nn.Embedding)]

    def forward(self, pairs: Pairs, features: PairFeatures, past: Near, raters: Near, noise: Noise | None) -> RatingLogits:
        """Args:
        features, past, raters: what `RatingHistory` knows of the pairs.
        noise: dropout of a training step; None to predict.
        """
        inputs_BI = self._inputs(pairs, features, past, raters, noise)
        vectors = self.experts(self.experts.part(inputs_BI, 0), RATING_TASKS, noise)
        levels_BL, rating_B1 = (self.heads[task](vector) for task, vector in zip(RATING_TASKS, vectors, strict=True))
        straight_levels_BL, straight_rating_B1 = torch.split(self.straight(inputs_BI), [len(self.levels_L), 1], dim=1)
        above_BL = features.base_B[:, None] - (self.levels_L - self.steps_L / 2)
        levels_BL = _ODDS_PER_STAR * above_BL + levels_BL + straight_levels_BL
        return RatingLogits(features.base_B + (rating_B1 + straight_rating_B1).squeeze(1), levels_BL[:, self.liked_level], levels_BL)

    def expected(self, levels_BL: Tensor) -> Tensor:
        """(B,) the mean rating of these log-odds: the lowest, and each step of the scale as often as the rating is at least that high."""
        return self.lowest + torch.sigmoid(levels_BL) @ self.steps_L

    def _inputs(self, pairs: Pairs, features: PairFeatures, past: Near, raters: Near, noise: Noise | None) -> Tensor:
        drop, (shopper_B, product_B, *_) = self.config.id_dropout, pairs
        neighbourhood_BX, past_BV = self.past(product_B, past)
        following_BX, raters_BV = self.raters(shopper_B, raters)
        shopper_BV = dropout(self.shopper(shopper_B) + self.of_shopper(self.shopper_SF[shopper_B]), drop, noise)
        product_BV = dropout(self.product(product_B) + self.of_product(self.product_PF[product_B]), drop, noise)
        met_BV = 4 * dropout(past_BV, drop, noise) * self.met_by_past(product_B)
        meeting_BV = 4 * dropout(raters_BV, drop, noise) * self.met_by_raters(shopper_B)
        crossed = (shopper_BV * product_BV, shopper_BV, product_BV, met_BV, meeting_BV)
        return torch.cat([features.values_BF, neighbourhood_BX, following_BX, *crossed], dim=1)


def _scale(ratings: Ratings, liked: float) -> NDArray[np.float32]:
    """The levels that ratings were given at, ascending."""
    scale = np.unique(ratings.rating_R)
    if not scale[0] < liked <= scale[-1]:
        raise ConfigError(
            f"model.liked must part the ratings ({scale[0]:g} to {scale[-1]:g}) in two, got {liked:g}; set one above the lowest, at most the highest"
        )
    if len(scale) > MAX_LEVELS:
        raise ConfigError(f"ratings must be given at {MAX_LEVELS} levels or fewer, got {len(scale)}; round them")
    return scale


def _ids(count: int, size: int) -> nn.Embedding:
    table = nn.Embedding(count, size)
    nn.init.normal_(table.weight, std=0.05)
    return table


def like_loss(like_B: Tensor, rating_B: Tensor, liked: float) -> Tensor:
    """Mean binary cross-entropy of the log-odds, nats a pair."""
    return fn.binary_cross_entropy_with_logits(like_B, (rating_B >= liked).float())


def level_loss(levels_BL: Tensor, rating_B: Tensor, levels_L: Tensor, but: int) -> Tensor:
    """Mean binary cross-entropy of the rating being at least each level, over all levels but one, nats a pair and level; 0 where there is no other."""
    loss_BL = fn.binary_cross_entropy_with_logits(levels_BL, (rating_B[:, None] >= levels_L).float(), reduction="none")
    others_L = torch.arange(len(levels_L)) != but
    return loss_BL[:, others_L].sum() / max(1, len(rating_B) * int(others_L.sum()))


def rating_loss(predicted_B: Tensor, rating_B: Tensor) -> Tensor:
    """Mean squared error."""
    return fn.mse_loss(predicted_B, rating_B)
