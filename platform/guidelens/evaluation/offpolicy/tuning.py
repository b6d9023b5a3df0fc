"""How far weights are clipped, switched off or shrunk: what the log itself expects to have the smallest mean squared error.

Of each setting, variance is that of its mean over clusters, and squared bias that of its difference to the unbiased doubly robust
estimate on the same log, less what chance alone puts there (Su et al., ICML 2020, section 5, choose by the same two parts).
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from guidelens.evaluation.offpolicy.intervals import Spread

# Letters: B = logged sessions or choices.

Floats = NDArray[np.float64]
SHRINKAGE = (0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 1e4, np.inf)
LIMITS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 300.0, 1e3, np.inf)


def tuned(score: Callable[[float], Floats], settings: Sequence[float], unbiased_B: Floats, clusters_B: NDArray[np.generic] | None) -> tuple[float, Floats]:
    """The best of `settings`, and (B,) scores under it."""
    scores = [score(setting) for setting in settings]
    best = int(np.argmin([_squared_error(one_B, unbiased_B, clusters_B) for one_B in scores]))
    return settings[best], scores[best]


def _squared_error(score_B: Floats, unbiased_B: Floats, clusters_B: NDArray[np.generic] | None) -> float:
    gap_B = unbiased_B - score_B
    bias = float(gap_B.mean()) ** 2 - Spread.of(gap_B, clusters_B).variance
    return Spread.of(score_B, clusters_B).variance + max(0.0, bias)
