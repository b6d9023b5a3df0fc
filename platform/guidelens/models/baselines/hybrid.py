"""Several recommenders as one: a weighted sum of their log shares, with weights found on validation events.

The weights are those of a conditional logit (McFadden 1974): the likelihood of what was taken next, among the products that any part
nominates. A part's weight may grow or shrink with the length of the history, because graphs know more of short ones.
"""

# Letters: R = histories, N = products, C = candidates of one event, S = parts, E = validation events, W = weights (2 S).

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from guidelens.errors import InputError
from guidelens.models.baselines.recommender import Recommender, Scores
from guidelens.models.histories import Histories

_BLOCK_ROWS = 512
_RIDGE = 1e-3
_EVEN_MASS = 5.0


@dataclass(frozen=True)
class Hybrid:
    """Parts by name and how loud each is: at a history of average length, and for each unit of log-length more.

    Attributes:
        weights_S: at `center`.
        slopes_S: change a unit of log1p(length).
        center: mean log1p(length) of the validation histories.
    """

    parts: dict[str, Recommender]
    weights_S: NDArray[np.float64]
    slopes_S: NDArray[np.float64]
    center: float

    @classmethod
    def fit(cls, parts: Mapping[str, Recommender], histories: Histories, targets: Histories, *, num_nominated: int = 100, keep_taken: bool = False) -> Self:
        """Weights for the parts as they are.

        Args:
            histories: (R,) what was known before.
            targets: (R,) what was taken next, one or several; must not be among what the parts were fitted on.
            keep_taken: products of the history may be taken again; else they are no candidates.
            num_nominated: products a part nominates for a history. A target that nobody nominates tells nothing.

        Raises:
            InputError: no target is nominated by any part.
        """
        blocks = [_events(parts, histories.take(rows), targets.take(rows), num_nominated, keep_taken) for rows in _blocks(len(histories))]
        features_ECS, chosen_E, length_E = (np.concatenate(part) for part in zip(*blocks, strict=True))
        if len(chosen_E) == 0:
            raise InputError(f"weights of {sorted(parts)} need validation events whose product a part nominates, got none of {len(targets.products)}")
        center = float(length_E.mean())
        found_W = _likeliest(features_ECS, chosen_E, length_E - center)
        return cls(dict(parts), found_W[: len(parts)], found_W[len(parts) :], center)

    def scores(self, histories: Histories) -> Scores:
        found = np.empty((len(histories), histories.num_products), dtype=np.float32)
        for rows in _blocks(len(histories)):
            asked = histories.take(rows)
            tilt_R = np.log1p(asked.lengths) - self.center
            total = np.zeros((len(rows), histories.num_products), dtype=np.float32)
            for part, weight, slope in zip(self.parts.values(), self.weights_S, self.slopes_S, strict=True):
                total += (weight + slope * tilt_R).astype(np.float32)[:, None] * log_shares(part, asked)
            found[rows] = total
        return found


@runtime_checkable
class LogSharer(Protocol):
    """A recommender whose scores are a distribution over all products: none of its shares needs mixing to be finite."""

    def log_shares(self, histories: Histories) -> Scores:
        """(R, N) log-probabilities."""
        ...


def log_shares(part: Recommender, histories: Histories) -> Scores:
    """(R, N) log of each product's share in its row's positive scores, mixed with an even spread so that what is not scored stays finite."""
    if isinstance(part, LogSharer):
        return part.log_shares(histories)
    scores_RN = part.scores(histories)
    positive = np.maximum(scores_RN, 0)
    total_R1 = positive.sum(axis=1, keepdims=True)
    shares = np.divide(positive, total_R1, out=np.zeros_like(positive), where=total_R1 > 0)
    shares += np.float32(_EVEN_MASS / scores_RN.shape[1])
    found: Scores = np.log(shares, out=shares)
    return found


def _blocks(num_rows: int) -> list[NDArray[np.int64]]:
    return [np.arange(start, min(start + _BLOCK_ROWS, num_rows)) for start in range(0, num_rows, _BLOCK_ROWS)]


def _events(
    parts: Mapping[str, Recommender], histories: Histories, targets: Histories, num_nominated: int, keep_taken: bool
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float64]]:
    """Features (E, C, S) of each event's candidates, which one was taken, and log1p(length) of the history; events nobody nominated are left out.

    Candidates depend on the history alone, so that the likelihood within them is that of the whole catalogue conditioned, unbiased.
    """
    scores_SRN = [log_shares(part, histories) for part in parts.values()]
    num_products = histories.num_products
    nominated_RN = np.zeros((len(histories), num_products), dtype=np.bool_)
    for scores_RN in scores_SRN:
        if not keep_taken:
            scores_RN[histories.rows, histories.products] = -np.inf
        top = np.argpartition(-scores_RN, min(num_nominated, num_products - 1), axis=1)[:, :num_nominated]
        np.put_along_axis(nominated_RN, top, True, axis=1)
    if not keep_taken:
        nominated_RN[histories.rows, histories.products] = False
    width = num_nominated * len(parts)
    candidates_RC = np.argsort(~nominated_RN, axis=1, kind="stable")[:, : min(width, num_products)]
    there_RC = np.take_along_axis(nominated_RN, candidates_RC, axis=1)
    r, chosen = np.nonzero(nominated_RN[targets.rows, targets.products][:, None] & (candidates_RC[targets.rows] == targets.products[:, None]))
    rows_E = targets.rows[r]
    features = np.stack([np.take_along_axis(scores_RN[rows_E], candidates_RC[rows_E], axis=1) for scores_RN in scores_SRN], axis=2)
    features[~there_RC[rows_E]] = -np.inf
    return features, chosen, np.log1p(histories.lengths)[rows_E]


def _likeliest(features_ECS: NDArray[np.float32], chosen_E: NDArray[np.int64], tilt_E: NDArray[np.float64]) -> NDArray[np.float64]:
    """(W,) weights and slopes with the highest likelihood, by L-BFGS on a concave objective with a small ridge."""
    from scipy.optimize import minimize  # serving asks a fitted hybrid and needs none of it

    num_events, _, num_parts = features_ECS.shape
    there_EC = np.isfinite(features_ECS[:, :, 0])
    x_ECS = np.where(there_EC[:, :, None], features_ECS, 0).astype(np.float32)
    taken_ES = x_ECS[np.arange(num_events), chosen_E].astype(np.float64)

    def loss(weights_W: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        mixed_ES = weights_W[:num_parts] + tilt_E[:, None] * weights_W[num_parts:]
        logits_EC = np.einsum("ecs,es->ec", x_ECS, mixed_ES.astype(np.float32))
        logits_EC[~there_EC] = -np.inf
        highest_E1 = logits_EC.max(axis=1, keepdims=True)
        share_EC = np.exp(logits_EC - highest_E1)
        mass_E1 = share_EC.sum(axis=1, keepdims=True)
        expected_ES = np.einsum("ec,ecs->es", share_EC / mass_E1, x_ECS)
        value = float(np.mean(np.log(mass_E1[:, 0]) + highest_E1[:, 0] - (taken_ES * mixed_ES).sum(axis=1)))
        residual_ES = expected_ES - taken_ES
        slope_W = np.concatenate([residual_ES.mean(axis=0), (tilt_E[:, None] * residual_ES).mean(axis=0)])
        return value + _RIDGE * float(weights_W @ weights_W), slope_W + 2 * _RIDGE * weights_W

    start = np.concatenate([np.full(num_parts, 1 / num_parts), np.zeros(num_parts)])
    return np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x, dtype=np.float64)
