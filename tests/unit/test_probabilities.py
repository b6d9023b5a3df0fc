"""Calibration maps: what they mend, that they keep the order, and that a calibrated head is left alone."""

import numpy as np
import pytest

from guidelens.errors import ShapeError
from guidelens.evaluation.calibration import calibration
from guidelens.inference.probabilities import Probabilities, ProbabilityMap, choose_map, fit_isotonic, fit_platt, logistic, logit


def log(num: int = 8000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True chances of clicks, what happened, and whose they are."""
    rng = np.random.default_rng(seed)
    truth = logistic(rng.normal(-2.5, 1.0, num))
    return truth, rng.random(num) < truth, rng.integers(0, 300, num)


def test_a_head_that_is_too_sure_is_mended_by_platts_map() -> None:
    truth, happened, shoppers = log()
    said = logistic(2.0 * logit(truth) + 1.0)
    chosen = choose_map(said, happened, shoppers)
    assert chosen.method != "none"
    assert chosen.ece_before is not None
    assert chosen.ece_after is not None
    assert chosen.ece_after < 0.3 * chosen.ece_before
    fresh, clicked, _ = log(seed=1)
    assert calibration(chosen(logistic(2.0 * logit(fresh) + 1.0)), clicked).ece < 0.02
    platt = fit_platt(said, happened)
    assert (platt.slope, platt.intercept) == pytest.approx((0.5, -0.5), abs=0.1)


def test_a_bent_head_is_mended_by_isotonic_regression() -> None:
    """Half of the range is squeezed: no logistic straightens that."""
    truth, happened, shoppers = log(20_000)
    said = np.where(truth < 0.1, truth * 0.1, truth)
    assert choose_map(said, happened, shoppers).method == "isotonic"


def test_a_calibrated_head_is_left_alone() -> None:
    truth, happened, shoppers = log()
    assert choose_map(truth, happened, shoppers).method == "none"


def test_too_few_positives_fit_nothing() -> None:
    truth, _, shoppers = log(500)
    happened = np.zeros(500, dtype=np.bool_)
    happened[:10] = True
    assert choose_map(truth, happened, shoppers) == ProbabilityMap()


@pytest.mark.parametrize("fit", [fit_platt, fit_isotonic])
def test_maps_keep_the_order_stay_in_bounds_and_pass_missing_values_on(fit) -> None:  # type: ignore[no-untyped-def]
    truth, happened, _ = log()
    mapped = fit(logistic(3 * logit(truth)), happened)(np.array([0.0, 1e-4, 0.01, 0.2, 0.6, 1.0]))
    assert (np.diff(mapped) >= 0).all()
    assert ((mapped > 0) & (mapped < 1)).all()
    assert np.isnan(fit(truth, happened)(np.array([np.nan, 0.5]))).tolist() == [True, False]


def test_nobody_buys_what_they_did_not_click() -> None:
    maps = Probabilities(click=ProbabilityMap(method="platt", intercept=-3.0), purchase=ProbabilityMap())
    click, purchase = maps.of(np.array([0.5, 0.9]), np.array([0.4, 0.001]))
    assert (purchase <= click).all()
    assert purchase[1] == pytest.approx(0.001)


def test_maps_come_back_from_json() -> None:
    truth, happened, shoppers = log()
    maps = Probabilities(click=choose_map(logistic(2 * logit(truth)), happened, shoppers))
    assert Probabilities.model_validate_json(maps.model_dump_json()) == maps
    assert set(maps.metrics()) == {"calibration/click_ece_before", "calibration/click_ece_after"}


def test_lengths_must_agree() -> None:
    with pytest.raises(ShapeError, match="one length"):
        choose_map(np.zeros(3), np.zeros(2, dtype=np.bool_), np.zeros(3))
