"""What a log of shown slates says the model's first place would earn: clicks a request, from the logged propensities alone.

Places further down are drawn given those above, so that what stands there under another policy is nowhere in the log; the first place is a
choice of one step with its whole chance logged. The policy is the one that serves: a softmax of the ranking score at the exploration's
temperature, without a shop's rules.
"""

# Letters: R = requests, N = products.

import numpy as np
from numpy.typing import NDArray

from guidelens.data.examples import Examples
from guidelens.evaluation.offpolicy import LoggedChoices, choice_weights, estimates, overlap
from guidelens.evaluation.report_why import FirstPlaceReport
from guidelens.inference.scorer import GuideScorer

MAX_PRODUCTS = 5000
MAX_CELLS = 10_000_000
"""Of requests times products, the value model's table; of more requests the newest are taken."""


def why_no_first_place(test: Examples, num_products: int) -> str | None:
    """Why the log cannot tell, or None where it can."""
    if num_products > MAX_PRODUCTS:
        return f"{num_products:,} products are more than the value model of single choices takes ({MAX_PRODUCTS:,})"
    if not _known(test).any():
        return "no impression at the first place of the test part has a propensity; log it with each impression, as serving does"
    return None


def measure_first_place(scorer: GuideScorer, test: Examples, temperature: float, seed: int) -> FirstPlaceReport | None:
    """Estimates over the test requests whose first product was logged with its propensity; None where `why_no_first_place` has a reason."""
    num_products = len(scorer.catalogue)
    if why_no_first_place(test, num_products) is not None:
        return None
    rows_R = np.flatnonzero(_known(test))[-max(1, MAX_CELLS // num_products) :]
    log = logged_first_places(test.take(rows_R), serving_chances(scorer.product_scores(test.take(rows_R)), temperature))
    return FirstPlaceReport(temperature=temperature, requests=len(rows_R), off_policy=tuple(estimates(log, seed=seed)), overlap=overlap(choice_weights(log)))


def _known(test: Examples) -> NDArray[np.bool_]:
    """(R,) whether a product stood at the first place, with the chance it had there."""
    known_R: NDArray[np.bool_] = (test.slate_rows[:, 0] >= 0) & np.isfinite(test.propensity[:, 0]) & (test.propensity[:, 0] > 0)
    return known_R


def logged_first_places(shown: Examples, target_RN: NDArray[np.float64]) -> LoggedChoices:
    """Requests whose first product has a propensity, as choices whose reward is a click."""
    return LoggedChoices(
        actions=shown.slate_rows[:, 0].astype(np.int64),
        positions=np.zeros(len(shown), dtype=np.int64),
        propensity=shown.propensity[:, 0].astype(np.float64),
        reward=(shown.click[:, 0] > 0).astype(np.float64),
        target=target_RN,
        context=np.column_stack([shown.frame_row >= 0, shown.query_row >= 0, shown.focus_row >= 0]).astype(np.float64),
        clusters=shown.shopper_key.astype(str),
    )


def serving_chances(scores_RN: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """(R, N) chance of each product at the first place; at temperature 0 the highest score has all of it."""
    best_R1 = scores_RN.max(axis=1, keepdims=True)
    if temperature == 0:
        return np.asarray(np.eye(scores_RN.shape[1])[scores_RN.argmax(axis=1)])
    weight_RN = np.exp((scores_RN.astype(np.float64) - best_R1) / temperature)
    chances_RN: NDArray[np.float64] = weight_RN / weight_RN.sum(axis=1, keepdims=True)
    return chances_RN
