"""How much a slate gains by a product that is unlike those chosen before it: maximal marginal relevance, or a determinantal point process.

Both add to a score on a log scale, so that a draw by such scores stays a softmax whose chances are known.
"""

# Letters: C = candidates, D = size of a vector, K = chosen so far.

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from guidelens.errors import ShapeError

Floats = NDArray[np.floating]
Method = Literal["none", "mmr", "dpp"]
_SMALLEST = 1e-6
"""Residual variance below which a product adds nothing that the chosen ones do not hold."""


class Diversity(Protocol):
    """State of one slate in the making."""

    def gains(self) -> NDArray[np.float64]:
        """(C,) what each candidate's score gains, at most 0."""
        ...

    def choose(self, candidate: int) -> None: ...


class Mmr:
    """Carbonell and Goldstein 1998: less `strength` times the highest cosine with a chosen product (0 where that is negative)."""

    def __init__(self, unit_CD: Floats, strength: float) -> None:
        self._unit_CD, self._strength = unit_CD.astype(np.float64), strength
        self._nearest_C = np.zeros(len(unit_CD))

    def gains(self) -> NDArray[np.float64]:
        return -self._strength * self._nearest_C

    def choose(self, candidate: int) -> None:
        self._nearest_C = np.maximum(self._nearest_C, self._unit_CD @ self._unit_CD[candidate])


class Dpp:
    """Greedy maximum a posteriori of a DPP with kernel diag(q) S diag(q), S the cosines and q = exp(score / (2 strength)).

    Adding `strength` times the log of what the chosen vectors do not explain of a candidate's is `strength` times the log-determinant's
    marginal gain; it is updated with each choice by one row of a Cholesky factor (Chen, Zhang and Zhou 2018, arXiv:1709.05135).
    """

    def __init__(self, unit_CD: Floats, strength: float) -> None:
        self._unit_CD, self._strength = unit_CD.astype(np.float64), strength
        self._residual_C = np.square(self._unit_CD).sum(axis=1)
        self._factor_KC: list[NDArray[np.float64]] = []

    def gains(self) -> NDArray[np.float64]:
        gains_C: NDArray[np.float64] = self._strength * np.log(np.maximum(self._residual_C, _SMALLEST))
        return gains_C

    def choose(self, candidate: int) -> None:
        own = np.sqrt(max(float(self._residual_C[candidate]), _SMALLEST))
        row_C = self._unit_CD @ self._unit_CD[candidate]
        for known_C in self._factor_KC:
            row_C = row_C - known_C * known_C[candidate]
        row_C = row_C / own
        self._factor_KC.append(row_C)
        self._residual_C = np.maximum(self._residual_C - np.square(row_C), 0.0)


def diversity(method: Method, strength: float, vectors_CD: Floats) -> Diversity | None:
    """A slate's diversity over product vectors of any length; None where it is off.

    Raises:
        ShapeError: the vectors are no matrix.
    """
    if method == "none" or strength == 0:
        return None
    if vectors_CD.ndim != 2:
        raise ShapeError(f"product vectors must be (C, D), got {vectors_CD.shape}")
    unit_CD = vectors_CD / np.maximum(np.linalg.norm(vectors_CD, axis=1, keepdims=True), 1e-9)
    return Mmr(unit_CD, strength) if method == "mmr" else Dpp(unit_CD, strength)
