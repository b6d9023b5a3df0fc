"""Ratings made up here: tastes in two dimensions, sittings, features of both sides; for tests of the rating model."""

import dataclasses
from pathlib import Path

import numpy as np

from guidelens.data.ratings import Ratings
from guidelens.models.ratings import RatingModelConfig
from guidelens.training.ratings import RatingTrainConfig

NUM_SHOPPERS, NUM_PRODUCTS = 60, 40


def sample_ratings(seed: int = 0, share: float = 0.5) -> Ratings:
    """About `share` of all pairs rated once, from 1 to 5. The last shopper and the last product have one rating: each other's."""
    rng = np.random.default_rng(seed)
    likes_ST, is_like_PT = rng.normal(size=(NUM_SHOPPERS, 2)), rng.normal(size=(NUM_PRODUCTS, 2))
    shopper_R, product_R = np.nonzero(rng.random((NUM_SHOPPERS - 1, NUM_PRODUCTS - 1)) < share)
    shopper_R, product_R = np.append(shopper_R, NUM_SHOPPERS - 1), np.append(product_R, NUM_PRODUCTS - 1)
    order = rng.permutation(len(shopper_R))
    shopper_R, product_R = shopper_R[order], product_R[order]
    taste_R = (likes_ST[shopper_R] * is_like_PT[product_R]).sum(1) + rng.normal(size=len(order)) * 0.3
    return Ratings(
        shopper_R=shopper_R.astype(np.int64),
        product_R=product_R.astype(np.int64),
        rating_R=np.clip(np.round(3 + taste_R), 1, 5).astype(np.float32),
        time_R=20_000 + shopper_R + rng.integers(0, 3, len(order)) * 10 + rng.random(len(order)) / 24,
        shopper_SF=rng.normal(size=(NUM_SHOPPERS, 3)).astype(np.float32),
        product_PF=rng.normal(size=(NUM_PRODUCTS, 2)).astype(np.float32),
    )


def rerated(ratings: Ratings, row: int, by: float) -> Ratings:
    """`ratings` with one rating moved, and the lone pair's rating moved back as far: the overall mean stays."""
    lone = int(np.flatnonzero(ratings.shopper_R == NUM_SHOPPERS - 1)[0])
    moved_R = ratings.rating_R.copy()
    moved_R[row] += by
    moved_R[lone] -= by
    return dataclasses.replace(ratings, rating_R=moved_R)


def small_recipe(**changes: object) -> RatingTrainConfig:
    """A recipe of seconds."""
    model = RatingModelConfig(head_size=4, id_size=8)
    return RatingTrainConfig(model=model, batch_size=256, window=24).model_copy(update=changes)


def write_u_data(ratings: Ratings, folder: Path) -> Path:
    """The ratings as a GroupLens folder, its films without a genre and its people alike."""
    folder.mkdir()
    rows = zip(ratings.shopper_R, ratings.product_R, ratings.rating_R, ratings.time_R, strict=True)
    (folder / "u.data").write_text("".join(f"{s}\t{p}\t{r:g}\t{int(t * 86_400)}\n" for s, p, r, t in rows))
    (folder / "u.item").write_text("".join(f"{p}|Film {p} (1990)|||http://x|{'|'.join(['0'] * 19)}\n" for p in range(NUM_PRODUCTS)))
    (folder / "u.user").write_text("".join(f"{s}|30|F|other|94043\n" for s in range(NUM_SHOPPERS)))
    return folder
