"""Linear models of one output a guide step, whose weights are a shared part and a deviation of each step, both shrunk (partial pooling).

Ridge and logistic regression in closed form a step of Newton's method; the deviations are eliminated (Schur complement), so that a solve
costs A + 1 systems of F unknowns and not one of A x F.
"""

# Letters: M = rows, A = NUM_STEPS, F = features; the last feature is 1 and is not shrunk.

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guidelens.schemas.steps import NUM_STEPS

Floats = NDArray[np.float64]
NEWTON_STEPS = 15
_HALVINGS = 10
_CONVERGED = 1e-5
_FREE = 1e-3
"""Of the penalties, what the constant is held by: enough to keep a step without rows solvable."""


@dataclass(frozen=True)
class Penalties:
    """Half of these times the squares of the shared weights, and of each step's deviations, is added to the loss."""

    shared: float
    own: float


class ByStep:
    """Rows sorted by the step they are of: sums over each step's rows."""

    def __init__(self, x_MF: NDArray[np.float32], step_M: NDArray[np.int64]) -> None:
        self.x_MF, self.step_M = x_MF, step_M
        self.rows = [np.flatnonzero(step_M == step) for step in range(NUM_STEPS)]

    def gram(self, weight_M: Floats) -> Floats:
        """(A, F, F) sums of w x x'."""
        out = np.zeros((NUM_STEPS, self.x_MF.shape[1], self.x_MF.shape[1]))
        for step, rows in enumerate(self.rows):
            if len(rows):
                out[step] = (self.x_MF[rows] * weight_M[rows, None].astype(np.float32)).T @ self.x_MF[rows]
        return out

    def sums(self, y_M: Floats) -> Floats:
        """(A, F) sums of y x."""
        return np.stack([y_M[rows] @ self.x_MF[rows] for rows in self.rows])

    def predict(self, weights_AF: Floats) -> Floats:
        """(M,) each row by its own step's weights."""
        found: Floats = np.einsum("mf,mf->m", self.x_MF, weights_AF[self.step_M].astype(np.float32)).astype(np.float64)
        return found


def ridge(rows: ByStep, gram_AFF: Floats, y_M: Floats, penalties: Penalties) -> Floats:
    """(A, F) weights that minimize squared error plus penalties; `gram_AFF` is `rows.gram` of ones, which many targets share."""
    shared_F, own_AF = _solve(gram_AFF, rows.sums(y_M), rows.sums(y_M).sum(axis=0), penalties)
    found: Floats = shared_F + own_AF
    return found


def logistic(rows: ByStep, y_M: Floats, penalties: Penalties) -> Floats:
    """(A, F) weights of the log-odds that y is 1, by Newton's method with halved steps where a whole one would not help."""
    width = rows.x_MF.shape[1]
    shared_F, own_AF = np.zeros(width), np.zeros((NUM_STEPS, width))
    shared_F[-1] = np.log((y_M.sum() + 1) / (len(y_M) - y_M.sum() + 1))
    loss = _logistic_loss(rows, y_M, shared_F, own_AF, penalties)
    for _ in range(NEWTON_STEPS):
        chance_M = sigmoid(rows.predict(shared_F + own_AF))
        slope_AF = rows.sums(y_M - chance_M)
        shrink_F = _shrink(width)
        moves = _solve(
            rows.gram(np.maximum(chance_M * (1 - chance_M), 1e-6)),
            slope_AF - penalties.own * shrink_F * own_AF,
            slope_AF.sum(axis=0) - penalties.shared * shrink_F * shared_F,
            penalties,
        )
        for halving in range(_HALVINGS):
            tried = shared_F + moves[0] * 0.5**halving, own_AF + moves[1] * 0.5**halving
            after = _logistic_loss(rows, y_M, *tried, penalties)
            if after <= loss:
                break
        else:
            break
        gained, loss, (shared_F, own_AF) = loss - after, after, tried
        if gained < _CONVERGED * max(1.0, loss):
            break
    found: Floats = shared_F + own_AF
    return found


def _logistic_loss(rows: ByStep, y_M: Floats, shared_F: Floats, own_AF: Floats, penalties: Penalties) -> float:
    logits_M, shrink_F = rows.predict(shared_F + own_AF), _shrink(len(shared_F))
    held = penalties.shared * (shrink_F * shared_F**2).sum() + penalties.own * (shrink_F * own_AF**2).sum()
    return float((np.logaddexp(0, logits_M) - y_M * logits_M).sum() + held / 2)


def _solve(gram_AFF: Floats, own_AF: Floats, shared_F: Floats, penalties: Penalties) -> tuple[Floats, Floats]:
    """Solves (sum G + s) u + sum G_a v_a = shared, G_a u + (G_a + o) v_a = own_a for u (F,) and v (A, F)."""
    width = gram_AFF.shape[1]
    held_FF = np.diag(_shrink(width))
    out_AFX = np.linalg.solve(gram_AFF + penalties.own * held_FF, np.concatenate([gram_AFF, own_AF[:, :, None]], axis=2))
    through_AFX = gram_AFF @ out_AFX
    left_FF = gram_AFF.sum(axis=0) + penalties.shared * held_FF - through_AFX[:, :, :width].sum(axis=0)
    found_F = np.linalg.solve(left_FF, shared_F - through_AFX[:, :, width].sum(axis=0))
    return found_F, out_AFX[:, :, width] - out_AFX[:, :, :width] @ found_F


def _shrink(width: int) -> Floats:
    shrink_F = np.ones(width)
    shrink_F[-1] = _FREE
    return shrink_F


def sigmoid(logits: Floats) -> Floats:
    """The logistic function, without overflow."""
    squashed: Floats = 0.5 * (1 + np.tanh(0.5 * logits))
    return squashed
