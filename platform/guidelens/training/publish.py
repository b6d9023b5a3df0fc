"""From trained weights to a fit's files: the blend of scores and the calibration that validation chooses, then models and headers on disk."""

# Letters: R = rows, N = products.

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from guidelens.data.examples import Examples
from guidelens.data.visits import InterestMedians
from guidelens.evaluation.ranking import catalogue_ranks, clicked_requests, ranking_rows
from guidelens.inference.guide_files import Blend, GuideHeader, save_guide
from guidelens.inference.probabilities import Probabilities, choose_map
from guidelens.inference.scorer import GuideScorer
from guidelens.models.guide import GuideModel, GuideSpec
from guidelens.models.items import Catalogue
from guidelens.training.data import FitJob
from guidelens.training.fit import Fitted

CLICK_WEIGHTS = (0.0, 0.25, 0.5, 1.0)
PURCHASE_WEIGHTS = (0.0, 0.1, 0.25)
CHUNK = 512


def publish(fitted: Fitted, jobs: Sequence[FitJob], examples: Examples, catalogue: Catalogue, medians: InterestMedians, fit_dir: Path) -> dict[str, Blend]:
    """Writes guide.* to `fit_dir` and the others to `fit_dir`/controls; each with its own blend. Returns the blends by name."""
    blends = {}
    val = examples.of("val")
    for job in jobs:
        model = GuideModel(job.model, GuideSpec(num_products=len(catalogue), extra_tasks=tuple(job.extra)))
        model.load_state_dict(load_file(fitted.weights[job.name]))
        model.eval()
        with torch.no_grad():
            position = float(model.heads.positions(examples.slate_rows.shape[1]).mean())
        header = GuideHeader(model=job.model, spec=model.spec, medians=medians, lambdas={**job.lambdas}, blend=Blend(position=position))
        if job.lambdas["recommendation"] > 0:
            header = header.model_copy(update={"blend": choose_blend(GuideScorer(model, header, catalogue), val)})
            header = header.model_copy(update={"probabilities": choose_probabilities(GuideScorer(model, header, catalogue), val)})
        blends[job.name] = header.blend
        save_guide(model, header, fit_dir if job.name == "guide" else fit_dir / "controls", job.name)
    return blends


def choose_blend(scorer: GuideScorer, val: Examples) -> Blend:
    """The weights of click and purchase beside retrieval with the best NDCG@10 of validation clicks; the smallest of equals."""
    start = scorer.header.blend
    rows, relevant_RK = clicked_requests(val)
    if len(rows) == 0:
        return start
    clicked = val.take(rows)
    parts = [scorer.score_parts(clicked.take(np.arange(at, min(at + CHUNK, len(clicked))))) for at in range(0, len(clicked), CHUNK)]
    retrieval, click, purchase = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    options = [start.model_copy(update={"click": a, "purchase": b}) for a in CLICK_WEIGHTS for b in PURCHASE_WEIGHTS]
    ranks = [catalogue_ranks(retrieval + option.click * click + option.purchase * purchase, clicked.slate_rows) for option in options]
    gains = [round(float(ranking_rows(rank, relevant_RK).ndcg.mean()), 4) for rank in ranks]
    return options[int(np.argmax(gains))]


def choose_probabilities(scorer: GuideScorer, val: Examples) -> Probabilities:
    """The maps of click and purchase that make the validation impressions likeliest, each row's fitted without its shopper."""
    shown_RK, slates = val.slate_rows >= 0, scorer.slate_scores(val, calibrated=False)
    shoppers = np.repeat(val.shopper_key, shown_RK.sum(axis=1))
    click, purchase = (
        choose_map(chances[shown_RK], happened[shown_RK] > 0, shoppers) for chances, happened in ((slates.click, val.click), (slates.purchase, val.purchase))
    )
    return Probabilities(click=click, purchase=purchase)
