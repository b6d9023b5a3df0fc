"""From trained weights to a fit's files: the blend of scores that validation chooses, then models and headers on disk."""

# Letters: R = rows, N = products.

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from guidelens.data.examples import Examples
from guidelens.data.visits import InterestMedians
from guidelens.inference.guide_files import Blend, GuideHeader, save_guide
from guidelens.inference.scorer import GuideScorer, with_blend
from guidelens.models.guide import GuideModel, GuideSpec
from guidelens.models.items import Catalogue
from guidelens.training.fit import Fitted
from guidelens.training.steps import FitJob

CLICK_WEIGHTS = (0.0, 0.25, 0.5, 1.0)
PURCHASE_WEIGHTS = (0.0, 0.1, 0.25)
TOP = 10


def publish(fitted: Fitted, jobs: Sequence[FitJob], examples: Examples, catalogue: Catalogue, medians: InterestMedians, fit_dir: Path) -> dict[str, Blend]:
    """Writes guide.* to `fit_dir` and the others to `fit_dir`/controls; each with its own blend. Returns the blends by name."""
    blends = {}
    val = examples.of("val")
    for job in jobs:
        model = GuideModel(job.model, GuideSpec(num_products=len(catalogue)))
        model.load_state_dict(load_file(fitted.weights[job.name]))
        model.eval()
        with torch.no_grad():
            position = float(model.heads.positions(examples.slate_rows.shape[1]).mean())
        header = GuideHeader(model=job.model, spec=model.spec, medians=medians, lambdas={**job.lambdas}, blend=Blend(position=position))
        if job.lambdas["recommendation"] > 0:
            header = header.model_copy(update={"blend": choose_blend(GuideScorer(model, header, catalogue), val)})
        blends[job.name] = header.blend
        save_guide(model, header, fit_dir if job.name == "guide" else fit_dir / "controls", job.name)
    return blends


def choose_blend(scorer: GuideScorer, val: Examples) -> Blend:
    """The weights of click and purchase beside retrieval with the best NDCG@10 of validation clicks; the smallest of equals."""
    start = scorer.header.blend
    clicked = val.take(np.flatnonzero((val.click > 0).any(axis=1)))
    if len(clicked) == 0:
        return start
    options = [start.model_copy(update={"click": click, "purchase": purchase}) for click in CLICK_WEIGHTS for purchase in PURCHASE_WEIGHTS]
    gains = [ndcg_of_clicks(with_blend(scorer, option).product_scores(clicked), clicked) for option in options]
    return options[int(np.argmax(np.round(gains, 4)))]


def ndcg_of_clicks(scores_RN: NDArray[np.float32], examples: Examples) -> float:
    """Mean NDCG@10 of the clicked products among all products."""
    gain = np.zeros(scores_RN.shape, dtype=np.float64)
    rows, places = np.nonzero((examples.click > 0) & (examples.slate_rows >= 0))
    gain[rows, examples.slate_rows[rows, places]] = 1.0
    order = np.argsort(-scores_RN, axis=1, kind="stable")[:, :TOP]
    discount = 1 / np.log2(np.arange(2, 2 + order.shape[1]))
    found = (np.take_along_axis(gain, order, axis=1) * discount).sum(axis=1)
    ideal = np.cumsum(discount)[np.minimum(gain.sum(axis=1).astype(int), len(discount)) - 1]
    return float((found / ideal).mean())
