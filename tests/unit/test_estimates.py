"""Bootstrap intervals cover the truth, and rows of one cluster are drawn together."""

import numpy as np
import pytest

from guidelens.errors import ShapeError
from guidelens.evaluation.bootstrap import mean_interval, paired_difference


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
    assert difference.low > 0 or difference.high < 0
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
