"""One value a test row of each metric by which models are told apart, so that differences can be paired and intervals drawn over shoppers."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from guidelens.config import TaskName
from guidelens.data.examples import Examples
from guidelens.evaluation.bootstrap import Draws, Interval
from guidelens.evaluation.clicks import log_losses
from guidelens.evaluation.offpolicy import plan_weights
from guidelens.evaluation.offpolicy.estimators import doubly_robust, plan_terms
from guidelens.evaluation.offpolicy.intervals import t_interval
from guidelens.evaluation.plans import greedy, logged_plans, on_logged_histories, open_loop, with_plans
from guidelens.evaluation.ranking import ProductScorer, clicked_requests, score_requests
from guidelens.evaluation.sequence import lengths, match_rows
from guidelens.inference.scorer import GuideScorer
from guidelens.schemas.steps import MAX_STEPS

# Letters: R = rows of the metric (requests, impressions, visits or plans), K = places of a slate, B = plans, S = MAX_STEPS.

Floats = NDArray[np.float64]
_FOLDS_SEED = 0
"""Deals the folds of the value model: the same for both of two models."""


class MetricRows(NamedTuple):
    """(R,) values and whose they are; the rows depend on the examples only, so those of two models pair.

    is_higher_better: None of likeness to the log, which a better plan may well have less of.
    is_heavy: a few rows may outweigh all others, so that intervals are Student's with few degrees of freedom (offpolicy/intervals.py).
    """

    is_higher_better: bool | None
    value_R: Floats
    shopper_R: NDArray[np.str_]
    is_heavy: bool = False

    def interval(self, draws: Draws) -> Interval:
        """The mean with its interval over shoppers."""
        return t_interval(self.value_R, self.shopper_R) if self.is_heavy else draws.over(self.value_R, self.shopper_R)


def metric_rows(scorer: GuideScorer, part: Examples) -> dict[str, MetricRows]:
    """By the metric's name; what the model did not learn, or `part` holds no row of, is left out."""
    measured: dict[TaskName, Callable[[GuideScorer, Examples], dict[str, MetricRows]]] = {"recommendation": _ranking, "interest": _interest, "plan": _plans}
    return {name: rows for task, of in measured.items() if scorer.header.learned(task) for name, rows in of(scorer, part).items()}


def ranking_rows_of(scorer: ProductScorer, part: Examples) -> dict[str, MetricRows]:
    """Of the metrics those that a scorer of products alone, such as a baseline, has: one row a request with a click."""
    rows_R, _ = clicked_requests(part)
    if len(rows_R) == 0:
        return {}
    scored, whose = score_requests(scorer, part), part.shopper_key[rows_R].astype(str)
    return {"NDCG@10": MetricRows(True, scored.ndcg, whose), "recall@10": MetricRows(True, scored.recall, whose)}


def _ranking(scorer: GuideScorer, part: Examples) -> dict[str, MetricRows]:
    found = ranking_rows_of(scorer, part)
    shown_RK = part.slate_rows >= 0
    if shown_RK.any():
        slates, whose = scorer.slate_scores(part), np.repeat(part.shopper_key.astype(str), shown_RK.sum(axis=1))
        for name, p_RK, label_RK in (("click log-loss", slates.click, part.click), ("purchase log-loss", slates.purchase, part.purchase)):
            losses = log_losses(p_RK[shown_RK].astype(np.float64), label_RK[shown_RK] > 0)
            found[name] = MetricRows(False, losses, whose)
    return found


def _interest(scorer: GuideScorer, part: Examples) -> dict[str, MetricRows]:
    seen_RK = part.interest_observed & (part.slate_rows >= 0)
    if not seen_RK.any():
        return {}
    error = (scorer.slate_scores(part).interest[seen_RK] - part.interest[seen_RK]).astype(np.float64)
    whose = np.repeat(part.shopper_key.astype(str), seen_RK.sum(axis=1))
    return {"interest squared error": MetricRows(False, error**2, whose)}


def _plans(scorer: GuideScorer, part: Examples) -> dict[str, MetricRows]:
    planned = with_plans(part)
    if len(planned) == 0:
        return {}
    whose, there_BS = planned.shopper_key.astype(str), planned.steps >= 0
    chances_BSA = on_logged_histories(scorer, planned)
    right_BS = (chances_BSA.argmax(axis=2) == planned.steps) & there_BS
    cut_BS = np.where(np.arange(MAX_STEPS) < lengths(planned.steps)[:, None], open_loop(scorer, planned), -1)
    found = {
        "plan edit similarity": MetricRows(None, match_rows(cut_BS, planned.steps), whose),
        "plan step accuracy": MetricRows(None, right_BS.sum(axis=1) / there_BS.sum(axis=1), whose),
    }
    log = logged_plans(scorer, planned, greedy(chances_BSA))
    if log is not None and log.clusters is not None and plan_weights(log)[:, -1].any():
        scores_B = doubly_robust(plan_terms(log, _FOLDS_SEED))
        found["plan value, estimated"] = MetricRows(True, scores_B, log.clusters.astype(str), is_heavy=True)
    return found
