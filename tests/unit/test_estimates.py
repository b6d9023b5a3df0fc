"""Bootstrap intervals cover the truth, and off-policy estimates are unbiased on a logged decision process that is known."""

import numpy as np
import pytest
from numpy.typing import NDArray

from guidelens.errors import ShapeError
from guidelens.evaluation.bootstrap import mean_interval, paired_difference
from guidelens.evaluation.offpolicy import LoggedPlans, estimates
from guidelens.schemas.steps import NUM_STEPS


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    found = [mean_interval(rng.exponential(2.0, 150), num_bootstrap=200, seed=i) for i in range(200)]
    covered = np.mean([interval.low <= 2.0 <= interval.high for interval in found])
    assert 0.88 <= covered <= 0.99


def test_rows_of_one_cluster_are_drawn_together() -> None:
    rng = np.random.default_rng(1)
    per_shopper = np.repeat(rng.normal(size=30), 50)
    shoppers = np.repeat(np.arange(30), 50)
    alone = mean_interval(per_shopper, num_bootstrap=300, seed=0)
    together = mean_interval(per_shopper, num_bootstrap=300, seed=0, clusters_R=shoppers)
    assert together.value == pytest.approx(alone.value)
    assert together.high - together.low > 4 * (alone.high - alone.low)
    assert (together.n, together.clusters) == (1500, 30)


def test_a_paired_difference_is_surer_than_two_means() -> None:
    rng = np.random.default_rng(2)
    hard = rng.normal(size=400)
    difference = paired_difference(hard + 0.1 + 0.01 * rng.normal(size=400), hard, num_bootstrap=200, seed=0)
    assert difference.excludes_zero()
    assert difference.high - difference.low < 0.01


def test_the_same_seed_gives_the_same_interval_and_none_asked_for_gives_the_mean() -> None:
    values = np.random.default_rng(3).random(50)
    assert mean_interval(values, num_bootstrap=50, seed=4) == mean_interval(values, num_bootstrap=50, seed=4)
    bare = mean_interval(values, num_bootstrap=0, seed=4)
    assert bare.low == bare.value == bare.high


def test_an_interval_does_not_depend_on_what_the_clusters_are_called() -> None:
    """The same shoppers bear other pseudonyms in every home; one seed must give one report all the same."""
    rng = np.random.default_rng(4)
    values, whose = rng.normal(size=60), rng.integers(0, 12, 60)
    names = [rng.permutation([f"{name:02x}" for name in range(12)])[whose] for _ in range(5)]
    intervals = {mean_interval(values, num_bootstrap=50, seed=1, clusters_R=labels.astype(object)) for labels in names}
    assert len(intervals) == 1


def test_nothing_has_no_mean() -> None:
    with pytest.raises(ShapeError):
        mean_interval(np.empty(0), num_bootstrap=10, seed=0)


# A two-step process with two actions: action 1 earns 1 with probability .2 at once and makes the next step worth twice as much.
def simulate(policy: NDArray[np.float64], sessions: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    steps = (rng.random((sessions, 2)) < policy[1]).astype(np.int64)
    first = (rng.random(sessions) < 0.1 + 0.1 * steps[:, 0]).astype(float)
    second = (rng.random(sessions) < 0.1).astype(float) * (1 + steps[:, 0]) * (1 + steps[:, 1])
    return steps, np.stack([first, second], axis=1)


LOGGING, TARGET = np.array([0.7, 0.3]), np.array([0.2, 0.8])
TRUTH = 0.1 + 0.1 * 0.8 + 0.1 * (1 + 0.8) * (1 + 0.8)


def logged(seed: int, sessions: int = 400) -> LoggedPlans:
    steps, reward = simulate(LOGGING, sessions, seed)
    target = np.zeros((sessions, 2, NUM_STEPS))
    target[:, :, :2] = TARGET
    return LoggedPlans(steps, (reward > 0).astype(np.int64), LOGGING[steps], reward, target, np.zeros((sessions, 1)))


@pytest.mark.parametrize("name", ["ips", "per_decision_ips", "snips", "dr"])
def test_estimators_are_unbiased_over_many_logs(name: str) -> None:
    values = np.array([next(e.value for e in estimates(logged(seed), num_bootstrap=0, seed=seed) if e.estimator == name) for seed in range(150)])
    error = values.std(ddof=1) / np.sqrt(len(values))
    assert abs(values.mean() - TRUTH) < 3.5 * error


def test_the_doubly_robust_estimate_varies_less_than_plain_importance_sampling() -> None:
    found = [{e.estimator: e.value for e in estimates(logged(seed), num_bootstrap=0, seed=seed)} for seed in range(60)]
    spread = {name: np.std([one[name] for one in found]) for name in ("ips", "dr")}
    assert spread["dr"] < spread["ips"]


def test_evaluating_the_logging_policy_itself_gives_the_logs_mean_with_all_sessions() -> None:
    log = logged(0)
    log.target[:, :, :2] = LOGGING
    found = {e.estimator: e for e in estimates(log, num_bootstrap=0, seed=0)}
    assert found["ips"].value == pytest.approx(found["logging"].value)
    assert found["ips"].ess == pytest.approx(400)


def test_a_step_without_propensity_is_refused() -> None:
    log = logged(0)
    log.propensity[0, 0] = np.nan
    with pytest.raises(ShapeError, match="propensity"):
        estimates(log, num_bootstrap=0, seed=0)
