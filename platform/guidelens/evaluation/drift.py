"""Did the features' distributions change? Two samples of shoppers, one value a shopper and feature, held against chance.

Statistic of a number: Kolmogorov-Smirnov's D, the largest gap between the two cumulative shares. It needs no bins, is unmoved by any
monotone change of scale, and a missing value is one more (lowest) value, so that a change of the missing share shows in it. Of a
category: half the L1 distance of the shares (total variation), defined where a category is new, as PSI is not.

Chance: the shoppers of both samples are dealt out anew, whole, many times (a permutation test). All features move together, so their
dependence is kept; each is scaled by its own mean under chance; the report alarms where the largest exceeds all but `alpha` of the
largest under chance (Westfall and Young's max-T, 1993): at most `alpha` of reports without drift alarm, whatever the number of features.
"""

from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from guidelens.errors import InputError
from guidelens.schemas.base import Frozen

ALPHA = 0.01
NUM_DEALS = 999
MAX_SHOPPERS = 5_000
NUM_BINS = 20
_TOP_CATEGORIES = 20
_SEED = 20_250_901
_MISSING = "(missing)"


class FeatureDrift(Frozen):
    """statistic: KS distance of numbers, total variation of categories; 0 to 1. p_value: of this feature among all (adjusted).

    edges: of the histogram bins, by quantiles of both samples; names: categories. *_shares: of shoppers in each bin or category.
    """

    feature: str
    kind: Literal["number", "category"]
    statistic: float
    expected: float
    p_value: float
    drifted: bool
    reference_missing: float
    current_missing: float
    reference_median: float | None = None
    current_median: float | None = None
    edges: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
    reference_shares: tuple[float, ...]
    current_shares: tuple[float, ...]


class DriftReport(Frozen):
    """features: the most drifted first. left_out: features not judged, with the reason."""

    reference: str
    current: str
    reference_shoppers: int
    current_shoppers: int
    alpha: float
    deals: int
    drifted: bool
    features: tuple[FeatureDrift, ...]
    left_out: dict[str, str] = {}


def drift(
    reference: pl.DataFrame, current: pl.DataFrame, names: tuple[str, str], *, left_out: dict[str, str] | None = None, deals: int = NUM_DEALS
) -> DriftReport:
    """Compares each column of two frames, one row a shopper.

    Args:
        names: what the two samples are called.
        left_out: columns not to judge, with the reason.
        deals: permutations; at least 1 / ALPHA - 1, else nothing can alarm.

    Raises:
        InputError: there is no shopper in one of them.
    """
    for sample, name in zip((reference, current), names, strict=True):
        if sample.is_empty():
            raise InputError(f"drift needs shoppers at both times, got none for {name}; name a time with a log before it")
    reference, current = _at_most(reference), _at_most(current)
    judged = [name for name in reference.columns if name not in (left_out or {})]
    both = pl.concat([reference.select(judged), current.select(judged)])
    of_current = _deals(len(reference), len(current), deals)
    observed_and_dealt = np.stack([_statistics(both[name], of_current) for name in judged], axis=1) if judged else np.zeros((deals + 1, 0))
    expected = observed_and_dealt.mean(axis=0)
    scaled = np.divide(observed_and_dealt, expected, out=np.zeros_like(observed_and_dealt), where=expected > 0)
    largest = scaled.max(axis=1, initial=0.0)
    p_values = (largest[:, None] >= scaled[0] - 1e-12).mean(axis=0)
    found = [
        _feature(name, reference[name], current[name], float(observed_and_dealt[0, k]), float(expected[k]), float(p_values[k])) for k, name in enumerate(judged)
    ]
    ordered = tuple(sorted(found, key=lambda one: (one.p_value, -one.statistic / (one.expected or 1), one.feature)))
    return DriftReport(
        reference=names[0],
        current=names[1],
        reference_shoppers=len(reference),
        current_shoppers=len(current),
        alpha=ALPHA,
        deals=deals,
        drifted=any(one.drifted for one in ordered),
        features=ordered,
        left_out=left_out or {},
    )


def _at_most(sample: pl.DataFrame) -> pl.DataFrame:
    """A report's cost is bounded; and of very many shoppers, differences too small to matter would alarm."""
    return sample if len(sample) <= MAX_SHOPPERS else sample.sample(MAX_SHOPPERS, seed=_SEED)


def _deals(num_reference: int, num_current: int, deals: int) -> NDArray[np.bool_]:
    """(1 + deals, shoppers): who is in the current sample; the first row as observed, the others dealt out at random."""
    chance = np.random.default_rng(_SEED)
    observed = np.arange(num_reference + num_current) >= num_reference
    return np.stack([observed, *(chance.permutation(observed) for _ in range(deals))])


def _statistics(values: pl.Series, of_current: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The statistic under each deal, by the shares of each distinct value."""
    codes = _codes(values)
    num_values = int(codes.max(initial=0)) + 1
    totals = np.bincount(codes, minlength=num_values)
    rows = len(of_current)
    flat = (codes[None, :] + num_values * np.arange(rows)[:, None])[of_current]
    current = np.bincount(flat, minlength=num_values * rows).reshape(rows, num_values)
    num_current = int(of_current[0].sum())
    shares = current / max(num_current, 1) - (totals - current) / max(len(codes) - num_current, 1)
    is_category = values.dtype == pl.String
    found: NDArray[np.float64] = 0.5 * np.abs(shares).sum(axis=1) if is_category else np.abs(np.cumsum(shares, axis=1)).max(axis=1)
    return found


def _codes(values: pl.Series) -> NDArray[np.int64]:
    """Each value's place among the distinct ones, in order; missing ones first."""
    ranked = values.fill_nan(None) if values.dtype.is_float() else values
    found: NDArray[np.int64] = ranked.rank("dense").fill_null(0).cast(pl.Int64).to_numpy()
    return found


def _feature(name: str, reference: pl.Series, current: pl.Series, statistic: float, expected: float, p_value: float) -> FeatureDrift:
    is_category = reference.dtype == pl.String
    reference, current = (sample if is_category else sample.cast(pl.Float64).fill_nan(None) for sample in (reference, current))
    shapes = _categories(reference, current) if is_category else _histograms(reference, current)
    medians = {} if is_category else {"reference_median": _median(reference), "current_median": _median(current)}
    return FeatureDrift(
        feature=name,
        kind="category" if is_category else "number",
        statistic=statistic,
        expected=expected,
        p_value=p_value,
        drifted=p_value <= ALPHA,
        reference_missing=reference.null_count() / max(len(reference), 1),
        current_missing=current.null_count() / max(len(current), 1),
        **medians,
        **shapes,
    )


def _median(values: pl.Series) -> float | None:
    found = values.median()
    return float(found) if isinstance(found, float) else None


def _categories(reference: pl.Series, current: pl.Series) -> dict[str, tuple[str, ...] | tuple[float, ...]]:
    named = [sample.fill_null(_MISSING).value_counts(name="n") for sample in (reference, current)]
    counts = [dict(frame.iter_rows()) for frame in named]
    commonest = sorted({*counts[0], *counts[1]}, key=lambda name: -(counts[0].get(name, 0) + counts[1].get(name, 0)))[:_TOP_CATEGORIES]
    sizes = (max(len(reference), 1), max(len(current), 1))
    shares = [tuple(count.get(name, 0) / size for name in commonest) for count, size in zip(counts, sizes, strict=True)]
    return {"names": tuple(commonest), "reference_shares": shares[0], "current_shares": shares[1]}


def _histograms(reference: pl.Series, current: pl.Series) -> dict[str, tuple[str, ...] | tuple[float, ...]]:
    """Shares between quantiles of both samples together: as many shoppers in each bin where nothing drifts and few values repeat."""
    there = [sample.drop_nulls().to_numpy() for sample in (reference, current)]
    together = np.concatenate(there)
    edges = np.unique(np.quantile(together, np.linspace(0, 1, NUM_BINS + 1))) if len(together) else np.zeros(0)
    if len(edges) < 2:
        edges = np.array([edges[0], edges[0] + 1.0]) if len(edges) else np.array([0.0, 1.0])
    sizes = (max(len(reference), 1), max(len(current), 1))
    shares = [tuple(float(n) / size for n in np.histogram(values, edges)[0]) for values, size in zip(there, sizes, strict=True)]
    return {"edges": tuple(map(float, edges)), "reference_shares": shares[0], "current_shares": shares[1]}
