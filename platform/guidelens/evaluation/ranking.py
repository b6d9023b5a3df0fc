"""T1's metrics: how high the products that were clicked stand when the whole catalogue is ranked, and AUC on what was shown.

Per-request values come out, so that a bootstrap can follow. Knows nothing of how scores were made.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from guidelens.data.examples import Examples
from guidelens.errors import ContractError, ShapeError
from guidelens.schemas.ids import sub_seed

# Letters: R = requests, N = products of the catalogue, K = places of the slate (padded with -1).

TOP = 10
_MAX_CELLS = 20_000_000


class ProductScorer(Protocol):
    """Anything that scores the whole catalogue for requests: a model, a baseline."""

    def product_scores(self, examples: Examples) -> NDArray[np.floating]:
        """(R, N), higher is better."""
        ...


Scorer = TypeVar("Scorer", bound=ProductScorer)


class RankingRows(NamedTuple):
    """(R,) each: NDCG@10 and recall@10 of a request, in [0, 1]."""

    ndcg: NDArray[np.float64]
    recall: NDArray[np.float64]

    @property
    def hit(self) -> NDArray[np.float64]:
        """(R,) 1 where a relevant product is among the first ten: its mean is the hit rate (HR@10)."""
        return (self.recall > 0).astype(np.float64)


def catalogue_ranks(scores_RN: NDArray[np.floating], rows_RK: NDArray[np.integer], seed: int = 0) -> NDArray[np.int64]:
    """(R, K) 0-based rank of products among the whole catalogue, best first; N (past the end) where rows_RK is -1.

    Equal scores are ordered by one fixed permutation of the products, so that a constant score ranks like chance.

    Raises:
        ShapeError: there are not as many rows of scores as of products.
        ContractError: a score is NaN, which no other score is above: every product would stand first.
    """
    if scores_RN.ndim != 2 or rows_RK.ndim != 2 or len(scores_RN) != len(rows_RK):
        raise ShapeError(f"scores (R, N) and rows (R, K) must have the same R, got {scores_RN.shape} and {rows_RK.shape}")
    num_requests, num_products = scores_RN.shape
    order_N = _tie_order(num_products, seed)
    ranks = np.full(rows_RK.shape, num_products, dtype=np.int64)
    step = max(1, _MAX_CELLS // max(1, num_products * rows_RK.shape[1]))
    for start in range(0, num_requests, step):
        scores, rows = scores_RN[start : start + step], rows_RK[start : start + step]
        if np.isnan(scores).any():
            raise ContractError(
                f"scores to rank by must be numbers, got NaN in {int(np.isnan(scores).any(axis=1).sum())} of {len(scores)} rows; the model that gave them diverged: train it again"
            )
        safe = np.where(rows < 0, 0, rows)
        mine = np.take_along_axis(scores, safe, axis=1)[:, :, None]
        above = scores[:, None, :] > mine
        tied_before = (scores[:, None, :] == mine) & (order_N[None, None, :] < order_N[safe][:, :, None])
        ranks[start : start + step] = np.where(rows < 0, num_products, (above | tied_before).sum(axis=2))
    return ranks


def ranking_rows(ranks_RK: NDArray[np.integer], relevant_RK: NDArray[np.bool_], top: int = TOP) -> RankingRows:
    """NDCG@top with binary gains and recall@top; each row must hold at least one relevant product.

    Raises:
        ShapeError: shapes differ, or a row has nothing relevant (its NDCG would be undefined).
    """
    if ranks_RK.shape != relevant_RK.shape or not relevant_RK.any(axis=1).all():
        raise ShapeError(f"ranks and relevance must agree and hold a relevant product a row, got {ranks_RK.shape} and {relevant_RK.shape}")
    hit_RK = relevant_RK & (ranks_RK < top)
    gain_R = np.where(hit_RK, 1.0 / np.log2(ranks_RK + 2.0), 0.0).sum(axis=1)
    relevant_R = relevant_RK.sum(axis=1)
    best = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(top) + 2.0))])
    return RankingRows(gain_R / best[np.minimum(relevant_R, top)], hit_RK.sum(axis=1) / relevant_R)


def distinct_relevant(rows_RK: NDArray[np.integer], relevant_RK: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Relevance with repeats taken out: a product shown twice in a slate counts once."""
    same = rows_RK[:, :, None] == rows_RK[:, None, :]
    earlier = np.tril(np.ones((rows_RK.shape[1],) * 2, dtype=np.bool_), k=-1)
    repeated_RK = (same & earlier & relevant_RK[:, None, :]).any(axis=2)
    return np.asarray(relevant_RK & (rows_RK >= 0) & ~repeated_RK, dtype=np.bool_)


def auc(scores: NDArray[np.floating], labels: NDArray[np.bool_]) -> float | None:
    """Area under the ROC curve, ties at one half; None where one of the classes is missing."""
    from scipy.stats import rankdata

    positives = int(labels.sum())
    negatives = len(labels) - positives
    if positives == 0 or negatives == 0:
        return None
    return float((rankdata(scores)[labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def grouped_auc(scores_RK: NDArray[np.floating], labels_RK: NDArray[np.bool_], shown_RK: NDArray[np.bool_]) -> float | None:
    """AUC within each request that has both classes, averaged with the number of products shown as weight."""
    found = [(auc(scores[shown], labels[shown]), int(shown.sum())) for scores, labels, shown in zip(scores_RK, labels_RK, shown_RK, strict=True)]
    known = [(value, weight) for value, weight in found if value is not None]
    if not known:
        return None
    values, weights = np.array(known).T
    return float(np.average(values, weights=weights))


def clicked_requests(examples: Examples) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Indices of the requests with at least one clicked product, and which places of their slates (R', K) hold one."""
    relevant_RK = distinct_relevant(examples.slate_rows, examples.click > 0)
    rows_R = np.flatnonzero(relevant_RK.any(axis=1))
    return rows_R, relevant_RK[rows_R]


def score_requests(scorer: ProductScorer, examples: Examples, seed: int = 0) -> RankingRows:
    """The metrics of the requests with a click, in the order of `clicked_requests`; empty where there is none."""
    return ranked(scorer, examples, seed)[0]


def ranked(scorer: ProductScorer, examples: Examples, seed: int = 0) -> tuple[RankingRows, NDArray[np.int64]]:
    """`score_requests`, and (R, TOP) the product rows that head each of these requests' lists, best first."""
    rows_R, relevant_RK = clicked_requests(examples)
    if len(rows_R) == 0:
        return RankingRows(np.empty(0), np.empty(0)), np.empty((0, TOP), dtype=np.int64)
    part = examples.take(rows_R)
    scores_RN = scorer.product_scores(part)
    return ranking_rows(catalogue_ranks(scores_RN, part.slate_rows, seed), relevant_RK), top_products(scores_RN, seed)


def top_products(scores_RN: NDArray[np.floating], seed: int = 0) -> NDArray[np.int64]:
    """(R, TOP) product rows, best first, or all products where there are fewer; equal scores in the order of `catalogue_ranks`."""
    order_N = _tie_order(scores_RN.shape[1], seed)
    first_N = np.argsort(order_N)
    top_RT: NDArray[np.int64] = first_N[np.argsort(-scores_RN[:, first_N], axis=1, kind="stable")[:, :TOP]]
    return top_RT


def _tie_order(num_products: int, seed: int) -> NDArray[np.int64]:
    """(N,) place of each product among equal scores."""
    return np.random.Generator(np.random.Philox(key=sub_seed(seed, "ties"))).permutation(num_products)


def best_on(candidates: Sequence[Scorer], val: Examples) -> Scorer:
    """The candidate with the highest mean NDCG@10 on validation rows; the first one where none has a click."""
    means = [float(score_requests(one, val).ndcg.sum()) for one in candidates]
    return candidates[int(np.argmax(means))]
