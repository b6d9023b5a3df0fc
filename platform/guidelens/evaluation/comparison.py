"""Two models on the same test rows: paired differences, how likely chance alone makes them, and which survive looking at many.

A p-value is the share of paired bootstrap resamples (over shoppers) on the other side of zero, twice (of estimated plan values, which hang
on few sessions, and where there are few shoppers, that of Student's t); Holm's correction (1979) holds the
chance of any false claim among all rows of one table at 5 %. Knows nothing of runs.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from guidelens.evaluation.bootstrap import FEW_CLUSTERS, LEVEL, ClusterSums, Interval, resampled_means
from guidelens.evaluation.metric_rows import MetricRows
from guidelens.evaluation.offpolicy.intervals import Spread, t_interval
from guidelens.schemas.base import Frozen

# Letters: R = rows of a metric.

NUM_DRAWS = 4_999
"""Resamples of a comparison, whatever the config says: a corrected p-value needs finer steps than an interval."""


class Significance(Frozen):
    """p: two-sided, of no difference. p_holm: corrected for all rows of the table; below .05 the difference is held to be real."""

    p: float
    p_holm: float

    @property
    def is_sure(self) -> bool:
        return self.p_holm < 1 - LEVEL


class Compared(Frozen):
    """One metric of both models. `difference`: second minus first, paired on shared rows; null, as `test`, where only recorded.

    is_higher_better: null where more is neither better nor worse, or nobody said. is_relative: a change is well told in shares of the first value, which is not near 0.
    """

    name: str
    first: float | None
    second: float | None
    difference: Interval | None = None
    test: Significance | None = None
    is_higher_better: bool | None = None
    is_relative: bool = True

    @property
    def verdict(self) -> str:
        """`second`, `first` or `neither`, whichever is surely better; empty where it cannot be told."""
        if self.difference is None or self.test is None or self.is_higher_better is None:
            return ""
        if not self.test.is_sure:
            return "neither"
        return "second" if (self.difference.value > 0) == self.is_higher_better else "first"


def compare_rows(first: Mapping[str, MetricRows], second: Mapping[str, MetricRows], seed: int) -> tuple[Compared, ...]:
    """Every metric that both have, in the first one's order; p-values corrected over all of them."""
    shared = [name for name in first if name in second]
    differences = [second[name].value_R - first[name].value_R for name in shared]
    tested = [_tested(first[name], rows, seed) for name, rows in zip(shared, differences, strict=True)]
    corrected = holm([p for _, p in tested])
    return tuple(
        Compared(
            name=name,
            first=float(first[name].value_R.mean()),
            second=float(second[name].value_R.mean()),
            difference=interval,
            test=Significance(p=p, p_holm=p_holm),
            is_higher_better=first[name].is_higher_better,
            is_relative=not first[name].is_heavy,
        )
        for name, (interval, p), p_holm in zip(shared, tested, corrected, strict=True)
    )


def _tested(rows: MetricRows, difference_R: NDArray[np.floating], seed: int) -> tuple[Interval, float]:
    by_t = rows.is_heavy or len(np.unique(rows.shopper_R)) < FEW_CLUSTERS
    return heavy_test(difference_R, rows.shopper_R) if by_t else paired_test(difference_R, rows.shopper_R, seed)


def paired_test(difference_R: NDArray[np.floating], shopper_R: NDArray[np.generic], seed: int) -> tuple[Interval, float]:
    """The mean difference with its 95 % interval, and the two-sided p-value of none, from one paired bootstrap over shoppers."""
    found = ClusterSums.of(difference_R, shopper_R)
    means = resampled_means(found, NUM_DRAWS, seed)
    low, high = (float(q) for q in np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    beyond = min(int((means <= 0).sum()), int((means >= 0).sum()))
    interval = Interval(value=found.mean, low=low, high=high, n=len(difference_R), clusters=len(found.sums))
    return interval, min(1.0, 2 * (beyond + 1) / (len(means) + 1))


def heavy_test(difference_R: NDArray[np.floating], shopper_R: NDArray[np.generic]) -> tuple[Interval, float]:
    """The same for rows of which a few may decide, or that are of few shoppers, by Student's t with the degrees of freedom they leave."""
    interval, spread = t_interval(difference_R, shopper_R), Spread.of(difference_R, shopper_R)
    if spread.variance == 0:
        return interval, 1.0 if interval.value == 0 else 0.0
    return interval, float(2 * stats.t.sf(abs(interval.value) / np.sqrt(spread.variance), spread.freedom))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction, in the order given: the smallest p times their number, the next times one less, never falling."""
    order = np.argsort(p_values, kind="stable")
    corrected, reached = [0.0] * len(p_values), 0.0
    for place, row in enumerate(order):
        reached = max(reached, min(1.0, (len(p_values) - place) * p_values[int(row)]))
        corrected[int(row)] = reached
    return corrected
