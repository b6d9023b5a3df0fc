"""How far weights are clipped, switched off or shrunk: what the log itself expects to have the smallest mean squared error.

Of each setting, variance is that of its mean over clusters, and squared bias that of what it leaves of the unbiased estimate on the same
log, less what chance alone puts there (Su et al., ICML 2020, section 5, choose by the same two parts).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from guidelens.evaluation.offpolicy.intervals import Scores, Spread

# Letters: B = logged sessions or choices.

SHRINKAGE = (0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 1e4, np.inf)
LIMITS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 300.0, 1e3, np.inf)


class Split(NamedTuple):
    """An unbiased estimate in two: what a biased one keeps of it, and what that leaves out, whose mean is the bias it pays with."""

    kept: Scores
    left: Scores

    def spread(self, clusters_B: NDArray[np.generic] | None) -> Spread:
        """As wide as not knowing what is left out demands."""
        return self.kept.spread(clusters_B).plus(self.left.spread(clusters_B))


def tuned(split: Callable[[float], Split], settings: Sequence[float], clusters_B: NDArray[np.generic] | None) -> tuple[float, Split]:
    """The best of `settings`, and the scores under it."""
    splits = [split(setting) for setting in settings]
    best = int(np.argmin([_squared_error(one, clusters_B) for one in splits]))
    return settings[best], splits[best]


def _squared_error(split: Split, clusters_B: NDArray[np.generic] | None) -> float:
    bias = float(split.left.value_B.mean()) ** 2 - split.left.spread(clusters_B).variance
    return split.kept.spread(clusters_B).variance + max(0.0, bias)
