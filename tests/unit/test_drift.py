"""Drift against its null distribution: how often it alarms for nothing, and what it sees."""

import os

import numpy as np
import polars as pl
import pytest
from scipy import stats

from guidelens.errors import InputError
from guidelens.evaluation.drift import ALPHA, DriftReport, drift
from guidelens.evaluation.drift_html import render

DRILL = os.environ.get("GUIDELENS_DRILL") == "1"


def shoppers(chance: np.random.Generator, number: int) -> pl.DataFrame:
    """Features as shoppers have them: dependent, heavy-tailed, mostly zero, some missing, a category."""
    activity = chance.pareto(1.6, number)
    columns: dict[str, np.ndarray] = {f"stay_{k}": activity * chance.lognormal(0, 0.5, number) for k in range(6)}
    columns |= {f"clicks_{k}": chance.poisson(activity * 0.3).astype(float) for k in range(6)}
    columns |= {f"purchases_{k}": (chance.random(number) < 0.02).astype(float) for k in range(3)}
    height = np.where(chance.random(number) < 0.4, np.nan, chance.normal(170, 10, number))
    found = pl.DataFrame(columns).with_columns(height=pl.Series(height).fill_nan(None))
    return found.with_columns(region=pl.Series(chance.choice(["north", "south", "west", ""], number, p=[0.5, 0.3, 0.15, 0.05])).replace("", None))


def compare(reference: pl.DataFrame, current: pl.DataFrame, deals: int = 999) -> DriftReport:
    return drift(reference, current, ("then", "now"), deals=deals)


@pytest.mark.drill
def test_at_most_one_report_in_a_hundred_alarms_for_nothing() -> None:
    """Against the 99.9 % quantile of what a true rate of ALPHA gives, so that this test fails for nothing once in a thousand."""
    chance, reports = np.random.default_rng(5), 2000 if DRILL else 250
    alarms = sum(compare(shoppers(chance, 120), shoppers(chance, 80), deals=299).drifted for _ in range(reports))
    assert alarms <= stats.binom.ppf(0.999, reports, ALPHA)


def test_a_naive_threshold_would_alarm_far_too_often() -> None:
    """What the adjustment is for: each feature at 1 % by itself alarms for nothing in many of 17-feature reports."""
    chance = np.random.default_rng(6)
    alarms = 0
    for _ in range(100):
        left, right = shoppers(chance, 120), shoppers(chance, 80)
        alarms += any(stats.ks_2samp(left[name].drop_nulls(), right[name].drop_nulls()).pvalue <= ALPHA for name in left.columns if name != "region")
    assert alarms > 3


@pytest.mark.parametrize(
    ("change", "feature"),
    [
        (pl.col("stay_2") * 2.5, "stay_2"),
        (pl.col("clicks_1") * 0, "clicks_1"),
        (pl.when(pl.int_range(pl.len()) % 2 == 0).then(None).otherwise("height").alias("height"), "height"),
        (pl.col("region").replace("south", "east"), "region"),
    ],
)
def test_a_planted_drift_is_found_and_named(change: pl.Expr, feature: str) -> None:
    chance = np.random.default_rng(7)
    reference, current = shoppers(chance, 800), shoppers(chance, 600).with_columns(change)
    found = compare(reference, current)
    assert found.drifted and found.features[0].feature == feature
    assert [one.feature for one in found.features if one.drifted] == [feature]


def test_the_statistics_are_the_textbooks() -> None:
    chance = np.random.default_rng(8)
    left, right = shoppers(chance, 300).drop("height"), shoppers(chance, 200).drop("height")
    found = {one.feature: one for one in compare(left, right, deals=9).features}
    for name in left.columns:
        if name != "region":
            assert found[name].statistic == pytest.approx(stats.ks_2samp(left[name], right[name]).statistic)
    shares = [sample["region"].fill_null("?").value_counts(normalize=True) for sample in (left, right)]
    gaps = shares[0].join(shares[1], on="region", how="full", coalesce=True).fill_null(0)
    assert found["region"].statistic == pytest.approx(0.5 * (gaps["proportion"] - gaps["proportion_right"]).abs().sum())


def test_drift_without_shoppers_is_refused_and_without_features_does_not_alarm() -> None:
    some = shoppers(np.random.default_rng(9), 30)
    for one, other in ((some, some.clear()), (some.clear(), some)):
        with pytest.raises(InputError, match="drift needs shoppers at both times"):
            compare(one, other)
    assert not drift(some, some, ("then", "now"), left_out=dict.fromkeys(some.columns, "for this test")).drifted


def test_what_is_left_out_is_told_and_not_judged() -> None:
    chance = np.random.default_rng(10)
    current = shoppers(chance, 200).with_columns(pl.col("stay_0") * 9)
    found = drift(shoppers(chance, 200), current, ("then", "now"), left_out={"stay_0": "grows by itself"})
    assert not found.drifted and "stay_0" not in {one.feature for one in found.features}
    page = render(found)
    assert "grows by itself" in page and page.count("<svg") >= 1 and "<script" not in page
