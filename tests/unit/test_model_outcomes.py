"""What the strategist is taught, on logs whose best steps are known."""

import dataclasses

import numpy as np
import pytest
from model_samples import sample_catalogue, sample_config, sample_examples

from guidelens.data.examples import Examples
from guidelens.data.prepare import plan_returns
from guidelens.models.outcomes import logged_steps, with_targets
from guidelens.schemas.steps import MAX_STEPS, NUM_STEPS, OUTCOME_INDEX, STEP_INDEX

CHECKOUT, INFO = STEP_INDEX["call_to_checkout"], STEP_INDEX["show_info"]


def checkout_shop(num_rows: int = 1500) -> Examples:
    """Sessions of one uniformly drawn step: call_to_checkout sells in half of them, nothing else ever does."""
    rng = np.random.default_rng(0)
    rows = sample_examples(num_rows)
    steps, outcomes = np.full((num_rows, MAX_STEPS), -1, np.int8), np.full((num_rows, MAX_STEPS), -1, np.int8)
    steps[:, 0] = rng.choice([CHECKOUT, INFO, STEP_INDEX["show_reviews"], STEP_INDEX["stay_quiet"]], num_rows)
    sold = (steps[:, 0] == CHECKOUT) & (rng.random(num_rows) < 0.5)
    outcomes[:, 0] = np.where(sold, OUTCOME_INDEX["purchase"], OUTCOME_INDEX["left"])
    return dataclasses.replace(rows, steps=steps, outcomes=outcomes, kept=sold, plan_row=np.full(num_rows, 2, np.int32))


def test_the_step_that_sells_gets_the_weight_whatever_the_log_did_most() -> None:
    taught = with_targets(checkout_shop(), sample_catalogue(), sample_config())
    weights = taught.targets[:, 0]
    assert (weights.argmax(axis=1) == CHECKOUT).mean() > 0.95
    assert weights.sum(axis=1) == pytest.approx(np.ones(len(weights)), abs=1e-5)


def test_targets_lie_on_logged_steps_and_on_allowed_steps_only() -> None:
    examples, catalogue = checkout_shop(), sample_catalogue()
    taught = with_targets(examples, catalogue, sample_config())
    assert not taught.targets[examples.steps < 0].any()
    steps = logged_steps(taught, catalogue, 64)
    assert not taught.targets[steps.row_M, steps.index_M][~steps.allowed_MA].any()


def test_a_log_with_too_few_purchases_teaches_its_own_steps() -> None:
    examples = sample_examples(80)
    taught = with_targets(examples, sample_catalogue(), sample_config())
    logged = (examples.steps[:, :, None] == np.arange(NUM_STEPS)).astype(np.float32)
    assert np.array_equal(taught.targets, logged)


def test_a_logged_step_that_the_grammar_forbids_teaches_nothing() -> None:
    examples = sample_examples(80)
    steps = examples.steps.copy()
    first = np.flatnonzero(steps[:, 1] >= 0)[0]
    steps[first, 1] = steps[first, 0] = STEP_INDEX["show_info"]
    taught = with_targets(dataclasses.replace(examples, steps=steps), sample_catalogue(), sample_config())
    assert taught.targets[first, 0].sum() == 1.0
    assert not taught.targets[first, 1].any()


def test_values_come_from_the_training_part_alone() -> None:
    examples, catalogue, config = checkout_shop(), sample_catalogue(), sample_config()
    taught = with_targets(examples, catalogue, config)
    test_rows = examples.split == "test"
    outcomes = examples.outcomes.copy()
    outcomes[test_rows & (examples.steps[:, 0] == INFO), 0] = OUTCOME_INDEX["purchase"]
    other = with_targets(dataclasses.replace(examples, outcomes=outcomes), catalogue, config)
    assert np.array_equal(taught.targets, other.targets)


def test_returns_count_margin_coupons_walkouts_and_what_was_taken_back() -> None:
    config = sample_config().train
    costs, price = config.plan_costs, 1000.0
    coupon, info = STEP_INDEX["offer_coupon"], INFO
    steps = np.full((3, MAX_STEPS), -1, np.int8)
    outcomes = np.full((3, MAX_STEPS), -1, np.int8)
    steps[:, 0], steps[:, 1] = coupon, info
    outcomes[:, 0] = OUTCOME_INDEX["none"]
    outcomes[:, 1] = [OUTCOME_INDEX["purchase"], OUTCOME_INDEX["purchase"], OUTCOME_INDEX["left"]]
    returns = plan_returns(steps, outcomes, np.array([1000.0, 0.0, 0.0]), np.full(3, price), config)
    margin = config.margin_share * price
    assert returns[:, 0] == pytest.approx([margin * (1 - costs.coupon), -margin * costs.taken_back, -margin * costs.walkout])
    assert returns[:, 1] == pytest.approx(returns[:, 0])
    assert not returns[:, 2:].any()
