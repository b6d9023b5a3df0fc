"""What a policy over guide steps is asked, and answers."""

# Letters: B = plans asked about, S = MAX_STEPS, A = NUM_STEPS.

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from guidelens.data.examples import Examples
from guidelens.models.items import Catalogue


class Asked(NamedTuple):
    """Plans that are `length` steps long: rows of `examples` they belong to, and what was taken and seen. (B, S) but rows; allowed (B, A)."""

    examples: Examples
    rows: NDArray[np.integer]
    steps: NDArray[np.integer]
    outcomes: NDArray[np.integer]
    view_ms: NDArray[np.floating]
    gestures: NDArray[np.integer]
    length: int
    allowed: NDArray[np.bool_]


class StepPolicy(Protocol):
    """The guide model (inference/scorer.py), and the baselines beside it (baselines.py)."""

    catalogue: Catalogue

    def step_chances(self, asked: Asked) -> NDArray[np.float32]:
        """(B, A) probability of each next step, 0 where not allowed."""
        ...
