"""Does it go together? Complements scored against what later shoppers engaged with beside a product, and a simulated shop's true outfits."""

# Letters: N = products, P = held-out pairs, E = size of an embedding.

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from guidelens.evaluation.guide import Draws
from guidelens.evaluation.ranking import TOP
from guidelens.evaluation.report_why import ComplementsReport, PartnerScores
from guidelens.models.complements import Partners
from guidelens.models.engaged_pairs import Pairs
from guidelens.models.items import Catalogue

Floats = NDArray[np.float64]


def partner_scores(partners: Partners) -> Floats:
    """(N, N) scores that order products as `partners` does; equal, and lowest, for all that it does not name."""
    num, kept = partners.rows_NK.shape
    scores_NN = np.zeros((num, num))
    rows, places = np.nonzero(partners.rows_NK >= 0)
    scores_NN[rows, partners.rows_NK[rows, places]] = kept - places
    return scores_NN


def baselines(catalogue: Catalogue, popularity_N: Floats) -> dict[str, Floats]:
    """(N, N) each: popular products, and the nearest by image and text. What a shop shows of a product's own category goes with nothing here:
    partners are of others."""
    image, text = (_unit(each) for each in (catalogue.image_NE, catalogue.text_NE))
    near_NN = (image @ image.T + text @ text.T).astype(np.float64) / 2
    return {"popular": np.broadcast_to(popularity_N, near_NN.shape), "nearest": near_NN}


def _unit(x: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6)
    return unit


def held_out_gains(scores_NN: Floats, pairs: Pairs, across_NN: NDArray[np.bool_]) -> Floats:
    """(P,) NDCG@10 of each held-out partner among the products that `across_NN` allows beside its anchor; ties count half."""
    mine = scores_NN[pairs.anchor, pairs.partner][:, None]
    rivals = np.where(across_NN[pairs.anchor], scores_NN[pairs.anchor], -np.inf)
    rank = (rivals > mine).sum(axis=1) + 0.5 * ((rivals == mine).sum(axis=1) - 1)
    return np.where(rank < TOP, 1 / np.log2(rank + 2.0), 0.0)


def truth_gains(scores_NN: Floats, truth_NN: Floats, across_NN: NDArray[np.bool_]) -> tuple[float, float]:
    """NDCG@10 against true fits, and the share of the first ten that truly fit; over products that have a true partner."""
    fits_NN = np.where(across_NN, truth_NN, 0.0)
    has = fits_NN.max(axis=1) > 0
    rng = np.random.default_rng(0)
    jitter = rng.permutation(scores_NN.shape[1])[None].repeat(len(scores_NN), axis=0)
    order = np.lexsort((jitter, -np.where(across_NN, scores_NN, -np.inf)), axis=1)[:, :TOP]
    got = np.take_along_axis(fits_NN, order, axis=1)
    discount = 1 / np.log2(np.arange(got.shape[1]) + 2.0)
    ideal = -np.sort(-fits_NN, axis=1)[:, : got.shape[1]]
    gains = (got * discount).sum(axis=1)[has] / (ideal * discount).sum(axis=1)[has]
    return float(gains.mean()), float((got[has] > 0).mean())


def measure_partners(
    partners: Partners,
    peers: Mapping[str, Floats],
    held_out: Pairs,
    category_N: NDArray[np.int64],
    truth_NN: Floats | None,
    draws: Draws,
) -> ComplementsReport | None:
    """Partners beside `peers`, all over products of other categories than the anchor's; None without held-out pairs."""
    if len(held_out.anchor) == 0:
        return None
    across_NN = category_N[:, None] != category_N[None]
    ours_NN = partner_scores(partners)
    gains = {name: held_out_gains(scores_NN, held_out, across_NN) for name, scores_NN in {"model": ours_NN, **peers}.items()}
    clusters_P = held_out.anchor.astype(object)

    def scores(name: str, scores_NN: Floats) -> PartnerScores:
        truth, precision = (None, None) if truth_NN is None else truth_gains(scores_NN, truth_NN, across_NN)
        return PartnerScores(held_out=draws.over(gains[name], clusters_P), truth=truth, precision=precision)

    return ComplementsReport(
        model=scores("model", ours_NN),
        baselines={name: scores(name, scores_NN) for name, scores_NN in peers.items()},
        gain_over={name: draws.gain(gains["model"], gains[name], clusters_P) for name in peers},
        pairs=len(held_out.anchor),
        products_with_partners=int((partners.rows_NK[:, 0] >= 0).sum()),
        products=len(partners.rows_NK),
    )
