"""What a guide can see before each step, as plain numbers: which step met which response, the course of the session, product, device, profile.

The same features for logged steps and for any other history; nothing of step k or later enters the features of step k.
"""

# Letters: R = plans, S = MAX_STEPS, A = NUM_STEPS, F = features, P = profile fields.

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guidelens.data.examples import DEVICES, Examples
from guidelens.models.inputs import ContextInputs, context_inputs
from guidelens.models.items import CATEGORICAL, Catalogue
from guidelens.models.strategist import NUM_ANSWERS
from guidelens.schemas.steps import MAX_STEPS, NUM_STEPS, OUTCOME_INDEX, STEP_INDEX, UNKNOWN_OUTCOME

Floats = NDArray[np.float32]

NUM_MOODS = 8
_PLACE, _LAST, _LAST_OUTCOME = MAX_STEPS, NUM_STEPS, UNKNOWN_OUTCOME + 1
_MET = slice(_PLACE + _LAST + _LAST_OUTCOME, _PLACE + _LAST + _LAST_OUTCOME + 2 * NUM_STEPS)
_IN_CART = _MET.stop
NUM_DYNAMIC = _MET.stop + NUM_MOODS + 1 + NUM_ANSWERS
NUM_CROSSED = 2 * NUM_STEPS + MAX_STEPS
MAX_CATEGORIES, VALUES_A_FIELD = 32, 6


def history_features(
    steps_RS: NDArray[np.integer], outcomes_RS: NDArray[np.integer], view_ms_RS: NDArray[np.floating], gestures_RS: NDArray[np.integer]
) -> Floats:
    """(R, S, NUM_DYNAMIC): before each place, what came of the steps so far.

    In order: the place; last step and outcome; of each step, whether it was last met with nothing or with engagement; eight moods (in cart,
    mean and last AR view time and gestures, share of engagement, and the means again while in the cart); coupons shown; the last question's answer.

    Args:
        steps_RS: -1 past the plan's end. outcomes_RS: UNKNOWN_OUTCOME where not seen. view_ms_RS: milliseconds, 0 for none.
    """
    num = len(steps_RS)
    seen = _Seen(num)
    out_RSF = np.empty((num, MAX_STEPS, NUM_DYNAMIC), dtype=np.float32)
    for place in range(MAX_STEPS):
        out_RSF[:, place] = seen.features(place)
        seen.add(place, steps_RS[:, place], outcomes_RS[:, place], view_ms_RS[:, place], gestures_RS[:, place])
    return out_RSF


class _Seen:
    """What was seen of `num` plans so far; plans that have ended no longer change."""

    def __init__(self, num: int) -> None:
        self.last, self.last_outcome = np.zeros((num, NUM_STEPS), np.float32), np.zeros((num, _LAST_OUTCOME), np.float32)
        self.met, self.answer = np.zeros((num, NUM_STEPS, 2), np.float32), np.zeros((num, NUM_ANSWERS), np.float32)
        self.in_cart, self.engaged, self.coupons = (np.zeros(num, np.float32) for _ in range(3))
        self.view_sum, self.num_views, self.gesture_sum, self.last_view, self.last_gestures = (np.zeros(num, np.float32) for _ in range(5))

    def add(
        self, place: int, step_R: NDArray[np.integer], outcome_R: NDArray[np.integer], view_R: NDArray[np.floating], gestures_R: NDArray[np.integer]
    ) -> None:
        there = np.flatnonzero(step_R >= 0)
        step, outcome, gestures = step_R[there].astype(np.int64), outcome_R[there].astype(np.int64), gestures_R[there].astype(np.float32)
        carted = outcome == OUTCOME_INDEX["cart"]
        liked = carted | (outcome == OUTCOME_INDEX["engaged"])
        known = outcome != UNKNOWN_OUTCOME
        self.last[there], self.last_outcome[there] = np.eye(NUM_STEPS)[step], np.eye(_LAST_OUTCOME)[outcome.clip(0)]
        self.met[there, step, 0], self.met[there, step, 1] = known & ~liked, known & liked
        self.in_cart[there] = np.maximum(self.in_cart[there], carted)
        self.engaged[there] += liked
        self.coupons[there] += step == STEP_INDEX["offer_coupon"]
        viewed = view_R[there] > 0
        view = np.where(viewed, np.log1p(view_R[there]) - 8, 0).astype(np.float32)
        self.view_sum[there] += view
        self.num_views[there] += viewed
        self.gesture_sum[there] += gestures
        self.last_view[there], self.last_gestures[there] = view, gestures
        asked = step == STEP_INDEX["ask_preference"]
        self.answer[there[asked]] = np.eye(NUM_ANSWERS)[gestures[asked].astype(np.int64).clip(0, NUM_ANSWERS - 1)]

    def features(self, place: int) -> Floats:
        """(R, NUM_DYNAMIC) before the step at `place`."""
        num = len(self.in_cart)
        view, gestures = self.view_sum / np.maximum(self.num_views, 1), self.gesture_sum / max(place, 1)
        moods = (
            self.in_cart,
            view,
            gestures,
            self.engaged / max(place, 1),
            self.last_view,
            np.log1p(self.last_gestures),
            self.in_cart * view,
            self.in_cart * gestures,
        )
        at = np.broadcast_to(np.eye(MAX_STEPS, dtype=np.float32)[place], (num, MAX_STEPS))
        mood = np.stack([*moods, self.coupons], axis=1)
        return np.concatenate([at, self.last, self.last_outcome, self.met.transpose(0, 2, 1).reshape(num, 2 * NUM_STEPS), mood, self.answer], axis=1)


def crossed(x_XF: Floats) -> Floats:
    """(..., F + NUM_CROSSED): with products of "in the cart" with what each step met and with the place, and a 1, for models that are linear."""
    cart = x_XF[..., _IN_CART, None]
    ones = np.ones_like(cart)
    return np.concatenate([x_XF, cart * x_XF[..., _MET], cart * x_XF[..., :_PLACE], ones], axis=-1)


@dataclass(frozen=True)
class Surroundings:
    """How the unchanging part of a session becomes numbers; chosen on training rows. values: per profile field, its most frequent buckets."""

    kinds: tuple[str, ...]
    categories: NDArray[np.int64]
    price_level_N: NDArray[np.float64]
    values: tuple[NDArray[np.int64], ...]
    num_profile_buckets: int

    @classmethod
    def of(cls, train: Examples, catalogue: Catalogue, num_profile_buckets: int) -> "Surroundings":
        profile_RP = context_inputs(train, catalogue, num_profile_buckets).profile_ids_RP.numpy()
        top = catalogue.fields_NC[:, CATEGORICAL.index("category_0")]
        return cls(
            kinds=tuple(sorted(set(catalogue.try_on))),
            categories=np.unique(top)[:MAX_CATEGORIES],
            price_level_N=_price_level(catalogue),
            values=tuple(_most_frequent(column) for column in profile_RP.T),
            num_profile_buckets=num_profile_buckets,
        )

    def features(self, examples: Examples, catalogue: Catalogue) -> Floats:
        """(R, F): the grammar's base, try-on kind, top category, device, price against its category's median, and profile."""
        context = context_inputs(examples, catalogue, self.num_profile_buckets)
        row = np.maximum(examples.plan_row, 0)
        top = catalogue.fields_NC[row, CATEGORICAL.index("category_0")]
        parts = [
            catalogue.grammar_base(examples.plan_row, examples.device),
            np.array(catalogue.try_on, dtype=object)[row][:, None] == np.array(self.kinds, dtype=object),
            top[:, None] == self.categories,
            examples.device[:, None] == np.array(DEVICES, dtype=object),
            self.price_level_N[row][:, None],
            *self._profile(context),
        ]
        return np.concatenate([np.asarray(part, dtype=np.float32) for part in parts], axis=1)

    def _profile(self, context: ContextInputs) -> list[NDArray[np.generic]]:
        profile_RP = context.profile_ids_RP.numpy()
        return [context.known_R.numpy()[:, None], *(column[:, None] == values for column, values in zip(profile_RP.T, self.values, strict=True))]


def _most_frequent(column_R: NDArray[np.int64]) -> NDArray[np.int64]:
    values, counts = np.unique(column_R[column_R > 0], return_counts=True)
    found: NDArray[np.int64] = values[np.argsort(-counts, kind="stable")[:VALUES_A_FIELD]]
    return found


def _price_level(catalogue: Catalogue) -> NDArray[np.float64]:
    """(N,) log of the price over its category's median; 0 where either is unknown."""
    leaf, log_N = catalogue.fields_NC[:, CATEGORICAL.index("category")], np.log(np.where(catalogue.price_N > 0, catalogue.price_N, np.nan))
    level_N = np.zeros(len(log_N))
    for one in np.unique(leaf):
        mine = (leaf == one) & np.isfinite(log_N)
        level_N[mine] = log_N[mine] - np.median(log_N[mine]) if mine.any() else 0.0
    return level_N
