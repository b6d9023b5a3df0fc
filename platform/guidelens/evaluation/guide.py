"""T1 and T2 of a fitted guide model on the test split, beside the baselines and the single-task models."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from guidelens.data.examples import SPLITS, Examples
from guidelens.evaluation.beyond import beyond_accuracy, clicks_of, cold_share, content_vectors
from guidelens.evaluation.bootstrap import Draws as Draws
from guidelens.evaluation.bootstrap import in_order_of_appearance
from guidelens.evaluation.calibration import calibration, regression
from guidelens.evaluation.clicks import Impressions, forecast
from guidelens.evaluation.ranking import ProductScorer, RankingRows, auc, best_on, clicked_requests, grouped_auc, ranked
from guidelens.evaluation.report import InterestReport, RankingReport, RankingScores
from guidelens.evaluation.slices import product_slices, sliced, slices
from guidelens.inference.scorer import GuideScorer, SlateScores
from guidelens.models.baselines.content import ContentLikeness
from guidelens.models.baselines.requests import Classics, RecentPopularity
from guidelens.models.items import Catalogue

EASE_UP_TO = 5000
LEARNED_UP_TO = 100_000
"""Training clicks up to which user-kNN, ALS and NCF are fitted for a report: some 20 seconds of CPU."""


def classic_baselines(examples: Examples, catalogue: Catalogue, seed: int = 0) -> dict[str, ProductScorer]:
    """Fitted on the training rows, each with the settings that rank the validation rows best; hybrid: item-kNN, transitions, EASE and popularity together.

    EASE, which is cubic in the products, is left out above EASE_UP_TO of them; user-kNN, ALS and NCF where nothing was clicked, and above LEARNED_UP_TO clicks.
    """
    train, val, item_ids = examples.of("train"), examples.of("val"), list(catalogue.product_ids)
    classics = Classics(train, item_ids)
    chosen = {"item_knn": best_on(classics.item_knn(), val), "transitions": best_on(classics.transitions(), val)}
    if len(item_ids) <= EASE_UP_TO:
        chosen["ease"] = best_on(classics.ease(), val)
    found: dict[str, ProductScorer] = {"popularity": best_on(RecentPopularity.candidates(train, len(item_ids)), val), **chosen}
    hybrid = classics.hybrid(chosen, val)
    found |= {} if hybrid is None else {"hybrid": hybrid}
    found["item_knn_pearson"] = best_on(classics.item_knn_pearson(), val)
    if 0 < len(classics.clicks.products) <= LEARNED_UP_TO:
        others = {"user_knn": classics.user_knn(), "als": classics.als(seed), "ncf": classics.ncf(seed)}
        found |= {name: best_on(candidates, val) for name, candidates in others.items()}
    return found | {"content": best_on(ContentLikeness.candidates(catalogue, classics.popularity_N), val)}


def measure_ranking(
    scorer: GuideScorer, peers: Mapping[str, ProductScorer], examples: Examples, categories: Sequence[str], draws: Draws
) -> RankingReport | None:
    """T1 of the model and its peers on the same test requests; None where none of them has a click.

    Args:
        categories: of each product, levels joined by `/`, "" where unknown.
    """
    train, val, test = (examples.of(split) for split in SPLITS)
    rows_R, relevant_RK = clicked_requests(test)
    if len(rows_R) == 0:
        return None
    clicked, clicks_N = test.take(rows_R), clicks_of(train, len(scorer.catalogue))
    ours, top_RT = ranked(scorer, test)
    theirs = {name: ranked(peer, test) for name, peer in peers.items()}
    content_NE = content_vectors(scorer.catalogue)
    shown_RK, slates = test.slate_rows >= 0, scorer.slate_scores(test)
    click_RK = test.click > 0
    masks = {**slices(clicked), **product_slices(clicked, relevant_RK, clicks_N, categories)}
    return RankingReport(
        model=_scores(ours, clicked, draws),
        baselines={name: _scores(rows, clicked, draws) for name, (rows, _) in theirs.items()},
        gain_over={name: draws.gain(ours.ndcg, rows.ndcg, clicked.shopper_key) for name, (rows, _) in theirs.items()},
        requests=len(rows_R),
        products=len(scorer.catalogue),
        auc=auc(slates.click[shown_RK], click_RK[shown_RK]),
        gauc=grouped_auc(slates.click, click_RK, shown_RK),
        purchase_auc=auc(slates.purchase[shown_RK], test.purchase[shown_RK] > 0),
        click_calibration=calibration(slates.click[shown_RK].astype(np.float64), click_RK[shown_RK]),
        slices=sliced(masks, ours, {name: rows for name, (rows, _) in theirs.items()}, clicked.shopper_key, draws),
        forecast=forecast(_impressions(test, slates), _impressions(val, scorer.slate_scores(val)), _click_rate(train), draws),
        beyond={name: beyond_accuracy(top, clicks_N, content_NE) for name, top in {"model": top_RT, **{n: lists for n, (_, lists) in theirs.items()}}.items()},
        cold=cold_share(train, clicked, relevant_RK, clicks_N),
    )


def _impressions(part: Examples, slates: SlateScores) -> Impressions:
    """What a part's slates showed, one row a product, with what the model said of it."""
    shown_RK = part.slate_rows >= 0
    whose = np.repeat(in_order_of_appearance(part.shopper_key.astype(str)), shown_RK.sum(axis=1))
    p_click, p_purchase = slates.click[shown_RK].astype(np.float64), slates.purchase[shown_RK].astype(np.float64)
    return Impressions(part.click[shown_RK] > 0, part.purchase[shown_RK] > 0, p_click, p_purchase, whose)


def _click_rate(part: Examples) -> float:
    shown_RK = part.slate_rows >= 0
    return float((part.click[shown_RK] > 0).mean()) if shown_RK.any() else 0.0


def _scores(rows: RankingRows, clicked: Examples, draws: Draws) -> RankingScores:
    ndcg, recall = draws.over(rows.ndcg, clicked.shopper_key), draws.over(rows.recall, clicked.shopper_key)
    return RankingScores(ndcg_at_10=ndcg.value, recall_at_10=recall.value, ndcg=ndcg, recall=recall)


def measure_interest(scorer: GuideScorer, single_task: GuideScorer | None, train: Examples, test: Examples, draws: Draws) -> InterestReport | None:
    """T2 on the observed pairs of the test split; None where nothing was observed in the training or the test part."""
    seen_RK = test.interest_observed & (test.slate_rows >= 0)
    known = train.interest[train.interest_observed & (train.slate_rows >= 0)]
    if not seen_RK.any() or len(known) == 0:
        return None
    observed = test.interest[seen_RK].astype(np.float64)
    predicted = _interest(scorer.slate_scores(test), seen_RK)
    found = regression(predicted, observed, float(known.mean()))
    shoppers = np.repeat(test.shopper_key, seen_RK.sum(axis=1))
    alone = None if single_task is None else interest_mse(single_task, test)
    return InterestReport(
        mse=found.mse,
        ece=found.calibration.ece,
        constant_mse=found.constant_mse,
        single_task_mse=alone,
        spearman=found.spearman,
        pairs=len(observed),
        mse_interval=draws.over((predicted - observed) ** 2, shoppers),
        calibration=found.calibration,
    )


def interest_mse(scorer: GuideScorer, test: Examples) -> float | None:
    """The squared error of interest on the observed pairs; None where the scorer did not learn it, or nothing was observed."""
    seen_RK = test.interest_observed & (test.slate_rows >= 0)
    if not (scorer.header.learned("interest") and seen_RK.any()):
        return None
    return float(np.mean((_interest(scorer.slate_scores(test), seen_RK) - test.interest[seen_RK]) ** 2))


def _interest(slates: SlateScores, seen_RK: NDArray[np.bool_]) -> NDArray[np.float64]:
    return slates.interest[seen_RK].astype(np.float64)
