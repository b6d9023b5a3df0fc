"""The sections of a run's report about what lies beside its ranking: tasks of one's own, chances, reasons, and what goes with what."""

import numpy as np
from numpy.typing import NDArray

from guidelens.data.examples import Examples
from guidelens.evaluation.beyond import clicks_of
from guidelens.evaluation.calibration import calibration
from guidelens.evaluation.explanations import measure_explanations
from guidelens.evaluation.extra_tasks import measure_extra_tasks
from guidelens.evaluation.first_place import measure_first_place
from guidelens.evaluation.guide import Draws
from guidelens.evaluation.partners import baselines, measure_partners
from guidelens.evaluation.report_why import ComplementsReport, ExplanationReport, ExtraTaskReport, FirstPlaceReport, ProbabilityReport
from guidelens.inference.guide_files import load_items
from guidelens.inference.scorer import GuideScorer
from guidelens.models.complements import Partners
from guidelens.models.engaged_pairs import category_numbers, engaged_pairs
from guidelens.world import World
from pipelines.entry import progress
from pipelines.run_files import RunFiles

Section = ProbabilityReport | FirstPlaceReport | ExplanationReport | ComplementsReport | dict[str, ExtraTaskReport]


def beside_ranking(files: RunFiles, scorer: GuideScorer, examples: Examples, shop: World | None, draws: Draws) -> dict[str, Section]:
    """`extra_tasks`; `probabilities`, `first_place`, `explanations` and `complements`, where the run learned to recommend; where the test part holds something
    to measure them on."""
    items, catalogue = load_items(files.fit)
    train, test = examples.of("train"), examples.of("test")
    found: dict[str, Section] = {"extra_tasks": measure_extra_tasks(scorer, files.record.config.train.extra_tasks, train, test, draws)}
    if scorer.header.learned("recommendation") and (test.slate_rows >= 0).any():
        progress("evaluate: what moved the scores")
        found["probabilities"] = measure_probabilities(scorer, test)
        first = measure_first_place(scorer, test, files.record.config.serve.explore_temperature, draws.seed)
        found |= {"first_place": first} if first else {}
        why = measure_explanations(scorer, test, items["title"].to_list(), draws)
        found |= {"explanations": why} if why else {}
    partners = Partners.load(files.fit, len(catalogue))
    if partners is not None:
        category_N = category_numbers(items["category"].fill_null("").to_list())
        truth_NN = None if shop is None else shop.outfits(catalogue.product_ids)
        held_out = engaged_pairs(test, category_N, co_engaged=0.0)
        peers = baselines(catalogue, clicks_of(train, len(catalogue)))
        goes = measure_partners(partners, peers, held_out, category_N, truth_NN, draws)
        found |= {"complements": goes} if goes else {}
    return found


def measure_probabilities(scorer: GuideScorer, test: Examples) -> ProbabilityReport:
    """Calibration errors of the test impressions, as the heads say them and through the header's maps."""
    shown_RK, maps = test.slate_rows >= 0, scorer.header.probabilities
    before, after = scorer.slate_scores(test, calibrated=False), scorer.slate_scores(test)

    def ece(chances: NDArray[np.float32], happened: NDArray[np.float32]) -> float:
        return calibration(chances[shown_RK].astype(np.float64), happened[shown_RK] > 0).ece

    return ProbabilityReport(
        click_method=maps.click.method,
        purchase_method=maps.purchase.method,
        click_ece_before=ece(before.click, test.click),
        click_ece_after=ece(after.click, test.click),
        purchase_ece_before=ece(before.purchase, test.purchase),
        purchase_ece_after=ece(after.purchase, test.purchase),
        impressions=int(shown_RK.sum()),
    )
