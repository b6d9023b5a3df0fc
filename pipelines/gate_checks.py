"""What the gate needs from outside: is the released copy the model that was trained, and how does the champion score here?"""

from pathlib import Path

import numpy as np

from guidelens.bundle import BundleManifest
from guidelens.data.examples import Examples
from guidelens.data.images.decoding import INPUT_SIZE_PX
from guidelens.encoders.backbones import load_image_backbone
from guidelens.evaluation.gate import Champion, Paired
from guidelens.evaluation.guide import interest_mse
from guidelens.evaluation.held_back import both_held_back
from guidelens.evaluation.offpolicy import RECOMMENDED, OffPolicyEstimate, estimates
from guidelens.evaluation.plans import greedy, logged_plans, on_logged_histories, with_plans
from guidelens.evaluation.ranking import clicked_requests, score_requests
from guidelens.evaluation.report import GateCheck
from guidelens.inference.guide_files import encoders_of, has_guide, load_guide, load_items
from guidelens.inference.scorer import GuideScorer
from guidelens.models.released_recognizer import ReleasedRecognizer
from guidelens.registry import CHAMPION, Registry
from guidelens.schemas.ids import sub_seed
from guidelens.schemas.tables import IMAGE_DIM
from pipelines.gate_search import recorded_of_both, searched_by_both
from pipelines.release_copy import local_copy
from pipelines.run_files import RunFiles

NUM_PARITY_ROWS, NUM_PARITY_IMAGES = 64, 8


def parity_check(files: RunFiles, bundle: Path) -> GateCheck:
    """The largest difference between scores of the fit that was trained and of the copy that will be served, on the same inputs."""
    limit = files.record.config.gate.max_parity_error
    errors = {}
    if files.has_guide:
        errors["guide"] = _guide_error(files, bundle)
    if (files.fit / "recognizer.safetensors").exists():
        errors["recognizer"] = _recognizer_error(files, bundle)
    listed = ", ".join(f"{name} {error:.1e}" for name, error in errors.items())
    if not errors:
        return GateCheck(name="parity", passed=None, why="the run trained nothing that scores")
    why = f"largest difference between training's and the bundle's scores: {listed}; at most {limit:.0e}"
    return GateCheck(name="parity", passed=max(errors.values()) <= limit, why=why)


def _guide_error(files: RunFiles, bundle: Path) -> float:
    test = files.examples().of("test")
    rows = test.take(np.arange(min(NUM_PARITY_ROWS, len(test))))
    trained, served = GuideScorer.load(files.fit), GuideScorer.load(bundle)
    planned = with_plans(rows)
    pairs = [(one.product_scores(rows), np.nan_to_num(one.slate_scores(rows).click), on_logged_histories(one, planned)) for one in (trained, served)]
    return max(float(np.abs(a - b).max(initial=0.0)) for a, b in zip(*pairs, strict=True))


def _recognizer_error(files: RunFiles, bundle: Path) -> float:
    """On seeded embeddings, spread as the encoder's are: non-negative; and of a tuned recognizer, on seeded images too."""
    rng = np.random.default_rng(sub_seed(files.record.seed, "parity"))
    embeddings = np.abs(rng.normal(size=(NUM_PARITY_ROWS, IMAGE_DIM))).astype(np.float32)
    images = rng.integers(0, 256, (NUM_PARITY_IMAGES, INPUT_SIZE_PX, INPUT_SIZE_PX, 3), dtype=np.uint8)
    encoder = load_image_backbone(encoders_of(bundle).image)
    pair = [ReleasedRecognizer.load(folder, encoder) for folder in (files.fit, bundle)]
    trained, served = ([*(one.recognize(embeddings) or []), *(one.see(images).recognized or [])] for one in pair)
    return max(
        float("inf")
        if a.in_catalogue != b.in_catalogue or a.product_rows.tolist() != b.product_rows.tolist()
        else float(np.abs(a.confidences - b.confidences).max())
        for a, b in zip(trained, served, strict=True)
    )


def champion_beside(files: RunFiles, registry: Registry, version: str) -> Champion | None:
    """The champion's figures, and its scores on this run's test requests where it can score them; None without a champion."""
    champion = registry.alias(CHAMPION)
    if champion is None or champion == version:
        return None
    bundle, manifest = local_copy(registry, registry.version(champion))
    why = _why_not_paired(files, bundle, manifest)
    return Champion(
        champion,
        manifest.metrics,
        None if why else _paired(files, GuideScorer.load(bundle), files.examples().of("test")),
        why,
        manifest.missing,
        both_held_back(files.fit, bundle),
        searched_by_both(files, bundle),
        recorded_of_both(files.fit, bundle),
    )


def _why_not_paired(files: RunFiles, bundle: Path, manifest: BundleManifest) -> str:
    """Why the champion cannot score this run's test requests; empty where it can."""
    if not files.has_guide:
        return "this run has no guide model"
    if not has_guide(bundle):
        return "the champion has no guide model"
    if not all(load_guide(folder)[1].learned("recommendation") for folder in (files.fit, bundle)):
        return "one of the two did not learn to recommend"
    if load_items(bundle)[1].product_ids != load_items(files.fit)[1].product_ids:
        return f"the catalogues differ: {files.record.num_products} products here, {manifest.num_products} there"
    if len(clicked_requests(files.examples().of("test"))[0]) == 0:
        return "no test request has a click"
    return ""


def _paired(files: RunFiles, theirs: GuideScorer, test: Examples) -> Paired:
    ours = GuideScorer.load(files.fit)
    rows_R, _ = clicked_requests(test)
    return Paired(
        test.take(rows_R), score_requests(ours, test).ndcg, score_requests(theirs, test).ndcg, _plan_of(files, theirs, test), interest_mse(theirs, test)
    )


def _plan_of(files: RunFiles, theirs: GuideScorer, test: Examples) -> OffPolicyEstimate | None:
    """The champion's plan value, estimated on this run's test log."""
    planned = with_plans(test)
    if len(planned) == 0:
        return None
    log = logged_plans(theirs, planned, greedy(on_logged_histories(theirs, planned)))
    found = estimates(log, seed=sub_seed(files.record.seed, "gate")) if log else []
    return next((one for one in found if one.estimator == RECOMMENDED), None)
