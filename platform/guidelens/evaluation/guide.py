"""T1 and T2 of a fitted guide model on the test split, beside the baselines and the single-task models."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guidelens.data.examples import Examples
from guidelens.evaluation.bootstrap import Interval, mean_interval, paired_difference
from guidelens.evaluation.calibration import calibration, regression
from guidelens.evaluation.ranking import ProductScorer, RankingRows, auc, best_on, clicked_requests, grouped_auc, score_requests
from guidelens.evaluation.report import InterestReport, RankingReport, RankingScores
from guidelens.evaluation.slices import sliced
from guidelens.inference.scorer import GuideScorer, SlateScores
from guidelens.models.baselines.requests import Classics, RecentPopularity

EASE_UP_TO = 5000


@dataclass(frozen=True)
class Draws:
    """How intervals are drawn."""

    num_bootstrap: int
    seed: int

    def over(self, values_R: NDArray[np.floating], clusters_R: NDArray[np.object_]) -> Interval:
        return mean_interval(values_R, num_bootstrap=self.num_bootstrap, seed=self.seed, clusters_R=clusters_R.astype(str))

    def gain(self, ours_R: NDArray[np.floating], theirs_R: NDArray[np.floating], clusters_R: NDArray[np.object_]) -> Interval:
        return paired_difference(ours_R, theirs_R, num_bootstrap=self.num_bootstrap, seed=self.seed, clusters_R=clusters_R.astype(str))


def classic_baselines(examples: Examples, item_ids: list[str]) -> dict[str, ProductScorer]:
    """Fitted on the training rows, each with the settings that rank the validation rows best; hybrid: all of them together.

    EASE, which is cubic in the products, is left out above EASE_UP_TO of them.
    """
    train, val = examples.of("train"), examples.of("val")
    classics = Classics(train, item_ids)
    chosen = {"item_knn": best_on(classics.item_knn(), val), "transitions": best_on(classics.transitions(), val)}
    if len(item_ids) <= EASE_UP_TO:
        chosen["ease"] = best_on(classics.ease(), val)
    found: dict[str, ProductScorer] = {"popularity": best_on(RecentPopularity.candidates(train, len(item_ids)), val), **chosen}
    hybrid = classics.hybrid(chosen, val)
    return found if hybrid is None else found | {"hybrid": hybrid}


def measure_ranking(scorer: GuideScorer, peers: Mapping[str, ProductScorer], test: Examples, draws: Draws) -> RankingReport | None:
    """T1 of the model and its peers on the same requests; None where no test request has a click."""
    rows_R, _ = clicked_requests(test)
    if len(rows_R) == 0:
        return None
    clicked = test.take(rows_R)
    ours = score_requests(scorer, test)
    theirs = {name: score_requests(peer, test) for name, peer in peers.items()}
    shown_RK, slates = test.slate_rows >= 0, scorer.slate_scores(test)
    click_RK = test.click > 0
    return RankingReport(
        model=_scores(ours, clicked, draws),
        baselines={name: _scores(rows, clicked, draws) for name, rows in theirs.items()},
        gain_over={name: draws.gain(ours.ndcg, rows.ndcg, clicked.shopper_key) for name, rows in theirs.items()},
        requests=len(rows_R),
        products=len(scorer.catalogue),
        auc=auc(slates.click[shown_RK], click_RK[shown_RK]),
        gauc=grouped_auc(slates.click, click_RK, shown_RK),
        purchase_auc=auc(slates.purchase[shown_RK], test.purchase[shown_RK] > 0),
        click_calibration=calibration(slates.click[shown_RK].astype(np.float64), click_RK[shown_RK]),
        slices=sliced(clicked, ours.ndcg, num_bootstrap=draws.num_bootstrap, seed=draws.seed),
    )


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
    alone = None if single_task is None else float(np.mean((_interest(single_task.slate_scores(test), seen_RK) - observed) ** 2))
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


def _interest(slates: SlateScores, seen_RK: NDArray[np.bool_]) -> NDArray[np.float64]:
    return slates.interest[seen_RK].astype(np.float64)
