"""What a shopper's other ratings, and others' ratings of a product, say about a pair, without the pair's own rating.

That a training pair never sees its own rating is decided in one place: `RatingHistory.near` leaves out the row `own` names.
Everything made from a history goes through it. Ratings enter as what is left of them after the *other* side's mean: a shopper's past
as r - mean of the product, a product's as r - mean of the shopper. Neither of those means holds the pair's own rating.
"""

# Letters: R = ratings of the history, B = pairs, H = ratings near a pair, S = shoppers, P = products, F = features, W = time scales.

from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor

from guidelens.data.ratings import Ratings

Side = Literal["shopper", "product"]
TIME_SCALES_DAYS = (30 / 86_400, 300 / 86_400, 1 / 24, 3.0)
"""Half a minute, five minutes, an hour, three days: moods and sittings, not tastes."""
NUM_FEATURES = 9 + 2 * len(TIME_SCALES_DAYS)
_MAX_CELLS = 500_000
_PRIOR_VARIANCE, _PRIOR_RATINGS, _PRIOR_RECENT = 1.0, 5.0, 3.0


class Pairs(NamedTuple):
    """Shoppers and products, by line of the feature tables, at a time in days. own_B: the pair's row in the history, -1 if it is not in it."""

    shopper_B: Tensor
    product_B: Tensor
    time_B: Tensor
    own_B: Tensor

    def take(self, rows: Tensor) -> "Pairs":
        return Pairs(*(values[rows] for values in self))


class Near(NamedTuple):
    """(B, H) ratings near each pair: who or what (a shopper's past: products), what is left of the rating, how many days older it is (below 0: newer), and which are there."""

    other_BH: Tensor
    left_BH: Tensor
    older_BH: Tensor
    there_BH: Tensor


class PairFeatures(NamedTuple):
    """base_B: the shrunk means' estimate of the rating; values_BF: means, counts, spreads and what was rated shortly before or after."""

    base_B: Tensor
    values_BF: Tensor

    def take(self, rows: Tensor) -> "PairFeatures":
        return PairFeatures(self.base_B[rows], self.values_BF[rows])


@dataclass(frozen=True)
class _Grouped:
    """Rows of the history by shopper or product: group k lies at order_R[start_K[k] : start_K[k] + count_K[k]]."""

    order_R: Tensor
    start_K: Tensor
    count_K: Tensor
    other_R: Tensor
    left_R: Tensor

    @classmethod
    def of(cls, key_R: Tensor, num_keys: int, other_R: Tensor, left_R: Tensor) -> Self:
        count_K = torch.bincount(key_R, minlength=num_keys)
        return cls(torch.argsort(key_R, stable=True), count_K.cumsum(0) - count_K, count_K, other_R, left_R)


class RatingHistory:
    """The ratings that may be known of.

    Args:
        shrinkage: how many ratings of the overall mean a shopper's or a product's own mean is mixed with.
    """

    def __init__(self, ratings: Ratings, shrinkage: float) -> None:
        self.shrinkage = shrinkage
        self.shopper_R, self.product_R = torch.from_numpy(ratings.shopper_R), torch.from_numpy(ratings.product_R)
        self.rating_R, self.time_R = torch.from_numpy(ratings.rating_R), torch.from_numpy(ratings.time_R)
        self.mean = float(self.rating_R.double().mean())
        self.lowest, self.highest = float(self.rating_R.min()), float(self.rating_R.max())
        num_shoppers, num_products = len(ratings.shopper_SF), len(ratings.product_PF)
        left_R = self.rating_R - self.mean
        of_product_R = left_R - self._means(self.product_R, left_R, num_products)[self.product_R]
        of_shopper_R = left_R - self._means(self.shopper_R, left_R, num_shoppers)[self.shopper_R]
        self._groups: dict[Side, _Grouped] = {
            "shopper": _Grouped.of(self.shopper_R, num_shoppers, self.product_R, of_product_R),
            "product": _Grouped.of(self.product_R, num_products, self.shopper_R, of_shopper_R),
        }

    def _means(self, key_R: Tensor, left_R: Tensor, num_keys: int) -> Tensor:
        total_K = torch.zeros(num_keys).index_add_(0, key_R, left_R)
        return total_K / (torch.bincount(key_R, minlength=num_keys) + self.shrinkage)

    def own_pairs(self) -> Pairs:
        """Every rating of the history as a pair that does not know itself."""
        return Pairs(self.shopper_R, self.product_R, self.time_R, torch.arange(len(self.rating_R)))

    def near(self, side: Side, pairs: Pairs, window: int | None = None, generator: torch.Generator | None = None) -> Near:
        """The other ratings of each pair's shopper, or of its product: all, or `window` of them from a random place on.

        H is `window`, or the longest history among these pairs, and at least 1.
        """
        groups, key_B = self._groups[side], pairs.shopper_B if side == "shopper" else pairs.product_B
        count_B = groups.count_K[key_B]
        num_places = window if window is not None else max(1, int(count_B.max()) if len(count_B) else 0)
        offset_B = torch.zeros_like(count_B) if window is None else (torch.rand(len(count_B), generator=generator) * count_B).long()
        place_H = torch.arange(num_places)
        place_BH = groups.start_K[key_B, None] + (offset_B[:, None] + place_H) % count_B.clamp_min(1)[:, None]
        rows_BH = groups.order_R[place_BH.clamp_max(len(groups.order_R) - 1)]
        there_BH = (place_H < count_B[:, None]) & (rows_BH != pairs.own_B[:, None])
        older_BH = (pairs.time_B[:, None] - self.time_R[rows_BH]).float()
        return Near(groups.other_R[rows_BH], groups.left_R[rows_BH] * there_BH, older_BH, there_BH)

    def shuffle(self, generator: torch.Generator) -> None:
        """Another order inside each group, so that windows hold other ratings together."""
        for side, groups in self._groups.items():
            mixed_R = torch.randperm(len(groups.order_R), generator=generator)
            key_R = self.shopper_R if side == "shopper" else self.product_R
            order_R = mixed_R[torch.argsort(key_R[mixed_R], stable=True)]
            self._groups[side] = _Grouped(order_R, groups.start_K, groups.count_K, groups.other_R, groups.left_R)

    def features(self, pairs: Pairs) -> PairFeatures:
        """Features of each pair from all that is near it, a bounded number of pairs at a time."""
        found = [self._features(pairs.take(rows)) for rows in self.chunks(pairs)]
        order_B = torch.argsort(torch.cat(self.chunks(pairs)))
        return PairFeatures(torch.cat([some.base_B for some in found]), torch.cat([some.values_BF for some in found])).take(order_B)

    def chunks(self, pairs: Pairs) -> list[Tensor]:
        """Rows of `pairs`, those with histories of like length together, so that no chunk's (B, H) is large."""
        longest_B = torch.maximum(self._groups["shopper"].count_K[pairs.shopper_B], self._groups["product"].count_K[pairs.product_B])
        order_B = torch.argsort(longest_B, stable=True)
        chunk_B = (longest_B[order_B].clamp_min(1).cumsum(0) - 1) // _MAX_CELLS
        return [rows for rows in torch.split(order_B, torch.bincount(chunk_B).tolist()) if len(rows)] if len(order_B) else []

    def _features(self, pairs: Pairs) -> PairFeatures:
        shopper, product = self.near("shopper", pairs), self.near("product", pairs)
        shopper_mean_B, shopper_spread_B, shopper_count_B = self._summary(shopper)
        product_mean_B, product_spread_B, product_count_B = self._summary(product)
        columns = [shopper_mean_B, product_mean_B, shopper_mean_B * product_mean_B, shopper_spread_B, product_spread_B]
        columns += [torch.log1p(shopper_count_B) / 3 - 1, torch.log1p(product_count_B) / 3 - 1]
        earlier_B = (shopper.there_BH & (shopper.older_BH > 0)).sum(1)
        columns += [torch.log1p(earlier_B) / 5, shopper.older_BH.masked_fill(~shopper.there_BH, 0).clamp_min(0).amax(1) / 100]
        values_BF = torch.cat([torch.stack(columns, dim=1), _in_time(shopper)], dim=1)
        return PairFeatures(self.mean + shopper_mean_B + product_mean_B, values_BF)

    def _summary(self, near: Near) -> tuple[Tensor, Tensor, Tensor]:
        """(B,) each: shrunk mean, shrunk variance, and count."""
        count_B, total_B, squares_B = near.there_BH.sum(1).float(), near.left_BH.sum(1), near.left_BH.square().sum(1)
        mean_B = total_B / (count_B + self.shrinkage)
        spread_B = (squares_B + _PRIOR_RATINGS * _PRIOR_VARIANCE) / (count_B + _PRIOR_RATINGS) - mean_B.square()
        return mean_B, spread_B, count_B


def _in_time(near: Near) -> Tensor:
    """(B, 2W): at each time scale, the shrunk mean of what was rated about then, and the log of how much that was."""
    columns = []
    for scale_days in TIME_SCALES_DAYS:
        weight_BH = torch.exp(-near.older_BH.abs() / scale_days) * near.there_BH
        mass_B = weight_BH.sum(1)
        columns += [(weight_BH * near.left_BH).sum(1) / (mass_B + _PRIOR_RECENT), torch.log1p(mass_B) / 3]
    return torch.stack(columns, dim=1)
