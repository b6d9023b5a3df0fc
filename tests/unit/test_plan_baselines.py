"""The log's baselines, on logs whose next step follows a rule; and the shops that plans are tried in besides."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from model_samples import sample_catalogue, sample_config, sample_examples

from guidelens.data.examples import Examples
from guidelens.errors import ShapeError
from guidelens.evaluation.plans import on_logged_histories, open_loop, with_plans
from guidelens.evaluation.sequence import illegal_plans, likeness, step_distance
from guidelens.models.items import Catalogue
from guidelens.models.plans.asked import StepPolicy
from guidelens.models.plans.baselines import NearestStep, NGram, SmallDecoder, imitating, log_baselines
from guidelens.schemas.steps import MAX_STEPS, STEP_INDEX
from guidelens.world.parameters import WORLD_V1
from guidelens.world.perturbation import perturbed

INFO, REVIEWS, CHECKOUT, COUPON = (STEP_INDEX[name] for name in ("show_info", "show_reviews", "call_to_checkout", "offer_coupon"))
SHAPE = sample_config().train.model
FITTED: dict[str, Callable[[Examples, Catalogue], StepPolicy]] = {
    "ngram": NGram,
    "nearest": lambda train, catalogue: NearestStep(train, catalogue, SHAPE.num_profile_buckets),
    "gru": lambda train, catalogue: SmallDecoder(imitating(train, catalogue), catalogue, SHAPE, 0),
}


def ruled_log(num: int = 900) -> Examples:
    """Info first; then reviews on a device without AR, else the checkout; then, whatever the device, a coupon."""
    rows = sample_examples(num)
    steps, outcomes = np.full((num, MAX_STEPS), -1, np.int8), np.full((num, MAX_STEPS), -1, np.int8)
    steps[:, 0], steps[:, 2] = INFO, COUPON
    steps[:, 1] = np.where(rows.device == "none", REVIEWS, CHECKOUT)
    outcomes[:, :3] = 0
    return dataclasses.replace(rows, steps=steps, outcomes=outcomes, plan_row=np.full(num, 2, np.int32))


@pytest.mark.parametrize("name", list(FITTED))
def test_a_baseline_takes_up_the_rule_that_the_log_follows(name: str) -> None:
    examples, catalogue = ruled_log(3000 if name == "gru" else 900), sample_catalogue()
    policy, test = FITTED[name](examples.of("train"), catalogue), examples.of("test")
    chances = on_logged_histories(policy, test)
    assert likeness(np.where(test.steps >= 0, chances.argmax(axis=2), -1), test.steps).exact_match > 0.95
    assert chances[test.steps >= 0].sum(axis=1) == pytest.approx(np.ones(3 * len(test)), abs=1e-4)
    assert likeness(np.where(test.steps >= 0, open_loop(policy, test), -1), test.steps).step_accuracy > 0.6


def test_baselines_never_leave_the_grammar() -> None:
    examples, catalogue = sample_examples(160), sample_catalogue()
    planned = with_plans(examples)
    found = log_baselines(examples, catalogue, SHAPE, 0)
    assert set(found) == {"ngram", "nearest", "gru"}
    base = catalogue.grammar_base(planned.plan_row, planned.device)
    for policy in found.values():
        for width in (1, 3):
            assert not illegal_plans(base, open_loop(policy, planned, width)).any()


def test_a_log_without_plans_has_no_baselines() -> None:
    examples = sample_examples(40)
    bare = dataclasses.replace(examples, steps=np.full_like(examples.steps, -1))
    assert log_baselines(bare, sample_catalogue(), SHAPE, 0) == {}


def test_an_unseen_context_backs_off_to_shorter_ones() -> None:
    """A category that the log never showed is guessed by the last steps alone."""
    examples, catalogue = ruled_log(), sample_catalogue()
    train = examples.of("train")
    strange = dataclasses.replace(catalogue, fields_NC=catalogue.fields_NC + 1)
    policy = NGram(train, catalogue)
    policy.catalogue = strange
    chances = on_logged_histories(policy, train)
    assert (chances[:, 0].argmax(axis=1) == INFO).all()
    assert (chances[:, 2].argmax(axis=1) == COUPON).all()


def test_likeness_counts_by_hand() -> None:
    ours, theirs = np.full((2, MAX_STEPS), -1), np.full((2, MAX_STEPS), -1)
    ours[0, :3], theirs[0, :3] = [INFO, REVIEWS, COUPON], [INFO, CHECKOUT, COUPON]
    ours[1, :1], theirs[1, :2] = [INFO], [INFO, REVIEWS]
    found = likeness(ours, theirs)
    assert found.step_accuracy == pytest.approx(3 / 5)
    assert found.exact_match == 0
    assert found.match == pytest.approx((2 / 3 + 1 / 2) / 2)
    # info, reviews, coupon: ours 2, 1, 1 of 4; theirs 2, 1, 1 and a checkout of 5
    assert step_distance(ours, theirs) == pytest.approx((0.1 + 0.05 + 0.05 + 0.2) / 2)
    with pytest.raises(ShapeError, match="as many"):
        likeness(ours[:1], theirs)


def test_a_perturbed_world_is_another_one_and_the_same_again() -> None:
    one, again, other = perturbed(WORLD_V1, 1), perturbed(WORLD_V1, 1), perturbed(WORLD_V1, 2)
    assert one == again
    assert one.guide != other.guide
    assert one.version == "world_v1/perturbed-1"
    assert one.model_copy(update={"version": "world_v1", "guide": WORLD_V1.guide}) == WORLD_V1, "nothing but the guide process moves"
    for name, value in WORLD_V1.guide.model_dump().items():
        if name not in ("ar_scan", "ar_click"):
            assert one.guide.model_dump()[name] != value
    assert max(one.guide.leave) < 0.9
