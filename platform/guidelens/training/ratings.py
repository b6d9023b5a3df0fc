"""Fits the rating model to explicit feedback, all its losses in one sum, in one process. Knows nothing of Ray: thousands to a few million ratings."""

# Letters: R = ratings of the training part, B = pairs of a batch, Q = pairs asked for.

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from guidelens.config import Weight
from guidelens.data.ratings import Ratings
from guidelens.models.noise import Noise
from guidelens.models.rating_history import PairFeatures, Pairs, RatingHistory
from guidelens.models.ratings import RatingLogits, RatingModel, RatingModelConfig, level_loss, like_loss, rating_loss
from guidelens.schemas.base import Frozen
from guidelens.schemas.ids import sub_seed

RatingLoss = Literal["like", "rating", "levels"]
_WARM_UP_STEPS = 50
_LAST_RATE = 0.01


class RatingTrainConfig(Frozen):
    """The recipe, chosen on the validation part of MovieLens-100k (docs/ratings.md).

    lambdas: weight of each loss; 0 leaves it out. like and rating are of the tasks; levels, of whether a rating is at least each of the other levels,
    ties the two: its head is the like's, and with the like it makes an estimate of the rating. window: how many of a shopper's, and of a product's, ratings a step looks at.
    table_decay: weight decay of the vectors that belong to single shoppers and products; weight_decay: of all else.
    shrinkage: see RatingHistory.
    """

    model: RatingModelConfig = RatingModelConfig()
    lambdas: dict[RatingLoss, Weight] = {"like": 1.0, "rating": 1.0, "levels": 3.0}
    epochs: Annotated[int, Field(ge=1)] = 5
    batch_size: Annotated[int, Field(ge=1)] = 1024
    learning_rate: Annotated[float, Field(gt=0)] = 5e-3
    table_decay: Annotated[float, Field(ge=0)] = 8.0
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    window: Annotated[int, Field(ge=1)] = 96
    shrinkage: Annotated[float, Field(gt=0)] = 8.0

    @model_validator(mode="after")
    def _one_task_is_in(self) -> Self:
        if not (self.lambdas.get("like") or self.lambdas.get("rating")):
            raise ValueError(f"lambdas must leave at least one task in, got {self.lambdas}; set like or rating above 0")
        return self


class RatingScores(NamedTuple):
    """(Q,) each: the rating, within the scale of the training part, and the probability of a like."""

    rating: NDArray[np.float32]
    like: NDArray[np.float32]


@dataclass(frozen=True)
class FittedRatings:
    """A fitted model, the ratings it may know of, and what it was fitted to."""

    model: RatingModel
    history: RatingHistory
    lambdas: Mapping[RatingLoss, float]

    @torch.no_grad()
    def predict(self, asked: Ratings) -> RatingScores:
        """Scores of pairs that are not in the history; what they were rated is not read. Rows do not depend on each other."""
        unknown = torch.full((len(asked),), -1)
        pairs = Pairs(torch.from_numpy(asked.shopper_R), torch.from_numpy(asked.product_R), torch.from_numpy(asked.time_R), unknown)
        rating_Q, like_Q = torch.empty(len(asked)), torch.empty(len(asked))
        for rows in self.history.chunks(pairs):
            some = pairs.take(rows)
            said = look(self.model, self.history, some, self.history.features(some))
            rating_Q[rows], like_Q[rows] = self._rating(said), said.like
        return RatingScores(rating_Q.clamp(self.history.lowest, self.history.highest).numpy(), torch.sigmoid(like_Q).numpy())

    def _rating(self, said: RatingLogits) -> Tensor:
        """(B,) by regression, by the levels' expectation, or the mean of both where both were fitted: their errors are not the same."""
        if not self.lambdas.get("levels"):
            return said.rating
        expected_B = self.model.expected(said.levels)
        return (said.rating + expected_B) / 2 if self.lambdas.get("rating") else expected_B


def look(model: RatingModel, history: RatingHistory, pairs: Pairs, features: PairFeatures) -> RatingLogits:
    """What the model says of pairs when it looks at all that is near them, without noise."""
    return RatingLogits(*model(pairs, features, history.near("shopper", pairs), history.near("product", pairs), None))


def fit_ratings(ratings: Ratings, config: RatingTrainConfig, seed: int, tell: Callable[[str], None] | None = None) -> FittedRatings:
    """The model fitted to all of `ratings`; the same seed gives the same weights. `tell` hears each epoch's mean losses."""
    history = RatingHistory(ratings, config.shrinkage)
    model = new_rating_model(config.model, ratings, seed)
    optimizer = torch.optim.AdamW(_groups(model, config), lr=config.learning_rate, fused=True)
    generator = torch.Generator().manual_seed(sub_seed(seed, "batches"))
    pairs, batches = history.own_pairs(), math.ceil(len(ratings) / config.batch_size)
    features = history.features(pairs)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_share(step, batches * config.epochs))
    for epoch in range(config.epochs):
        history.shuffle(generator)
        losses = []
        for number, rows in enumerate(torch.split(torch.randperm(len(ratings), generator=generator), config.batch_size)):
            noise = Noise(sub_seed(seed, f"noise {epoch * batches + number}"), len(rows), slice(0, len(rows)))
            loss = batch_loss(model, history, pairs.take(rows), features.take(rows), config, noise, generator)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        if tell is not None:
            tell(f"epoch {epoch + 1} of {config.epochs}: loss {np.mean(losses):.4f}")
    return FittedRatings(model, history, config.lambdas)


def batch_loss(
    model: RatingModel, history: RatingHistory, pairs: Pairs, features: PairFeatures, config: RatingTrainConfig, noise: Noise | None, generator: torch.Generator
) -> Tensor:
    """The weighted sum of the losses that are in, over training pairs that do not see their own ratings."""
    past, raters = (history.near(side, pairs, config.window, generator) for side in ("shopper", "product"))
    said: RatingLogits = model(pairs, features, past, raters, noise)
    rating_B = history.rating_R[pairs.own_B]
    terms: dict[RatingLoss, Callable[[], Tensor]] = {
        "like": lambda: like_loss(said.like, rating_B, config.model.liked),
        "rating": lambda: rating_loss(said.rating, rating_B),
        "levels": lambda: level_loss(said.levels, rating_B, model.levels_L, but=model.liked_level),
    }
    return torch.stack([weight * terms[name]() for name, weight in config.lambdas.items() if weight > 0]).sum()


def new_rating_model(config: RatingModelConfig, described: Ratings, seed: int) -> RatingModel:
    """A model with seeded weights; torch's own generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sub_seed(seed, "model"))
        return RatingModel(config, described)


def rate_share(step: int, num_steps: int) -> float:
    """Of the learning rate: a linear warm-up, then half a cosine down."""
    warm = min(1.0, (step + 1) / _WARM_UP_STEPS)
    return warm * (_LAST_RATE + (1 - _LAST_RATE) * 0.5 * (1 + math.cos(math.pi * step / num_steps)))


def _groups(model: RatingModel, config: RatingTrainConfig) -> list[dict[str, object]]:
    tables = model.tables()
    held = {id(weight) for weight in tables}
    rest = [weight for weight in model.parameters() if id(weight) not in held]
    return [{"params": tables, "weight_decay": config.table_decay}, {"params": rest, "weight_decay": config.weight_decay}]
