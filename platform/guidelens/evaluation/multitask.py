"""Did learning the tasks together help? Delta-m against single tasks, and the Pareto front. Knows nothing of how models were fitted."""

# Letters: M = metrics, S = seeds.

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import t

from guidelens.errors import ShapeError
from guidelens.schemas.base import Frozen

HIGHER_IS_BETTER = {"ndcg_at_10": True, "interest_mse": False, "plan_loss": False}
LEVEL = 0.95


class SeedInterval(Frozen):
    """A mean over seeds with its 95 % interval by Student's t; low and high are None with one seed."""

    value: float
    low: float | None
    high: float | None
    by_seed: tuple[float, ...]


def over_seeds(values_S: Sequence[float]) -> SeedInterval:
    """The mean of values, one a seed.

    Raises:
        ShapeError: there are none.
    """
    if not values_S:
        raise ShapeError("a mean over seeds needs at least one value, got none")
    mean = float(np.mean(values_S))
    if len(values_S) == 1:
        return SeedInterval(value=mean, low=None, high=None, by_seed=tuple(values_S))
    reach = float(t.ppf(0.5 + LEVEL / 2, len(values_S) - 1) * np.std(values_S, ddof=1) / len(values_S) ** 0.5)
    return SeedInterval(value=mean, low=mean - reach, high=mean + reach, by_seed=tuple(values_S))


def delta_m(joint: Mapping[str, float], single: Mapping[str, float]) -> float:
    """Mean over metrics of the relative gain of `joint` over `single`, as a share; above 0 joint learning helps (Maninis et al., CVPR 2019).

    Raises:
        ShapeError: they have no metric in common, or a single-task value is 0.
    """
    common = [name for name in HIGHER_IS_BETTER if name in joint and name in single]
    if not common or any(single[name] == 0 for name in common):
        raise ShapeError(f"delta-m needs metrics that both have and that are not 0, got {dict(joint)} and {dict(single)}")
    gains = [(joint[name] - single[name]) / abs(single[name]) * (1 if HIGHER_IS_BETTER[name] else -1) for name in common]
    return float(np.mean(gains))


def pareto_front(points: Sequence[Mapping[str, float]]) -> list[int]:
    """Indices of the points that no other point beats in one metric without losing in another; all must have the same metrics."""
    if not points:
        return []
    names = list(points[0])
    if any(set(point) != set(names) for point in points):
        raise ShapeError(f"a Pareto front needs points with the same metrics, got {[sorted(point) for point in points]}")
    costs_PM = np.array([[(-1 if HIGHER_IS_BETTER[name] else 1) * point[name] for name in names] for point in points])
    no_worse_PP = (costs_PM[:, None] <= costs_PM[None]).all(axis=2)
    better_PP = (costs_PM[:, None] < costs_PM[None]).any(axis=2)
    return np.flatnonzero(~(no_worse_PP & better_PP).any(axis=0)).tolist()
