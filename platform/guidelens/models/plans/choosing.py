"""How sharply to prefer the better step: the temperature whose policy validation sessions speak best for, off-policy.

The doubly robust estimate of Jiang & Li (2016, arXiv:1511.03722), step by step from the end of each plan, with the step values as its
value model; of each policy the estimate less one standard error counts (Thomas et al., AAAI 2015), since a few lucky sessions
speak loudest for the sharpest policy.
"""

# Letters: M = logged steps, A = NUM_STEPS, V = plans.

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from guidelens.config import PlanCosts
from guidelens.models.plans.logged import Floats, LoggedSteps
from guidelens.schemas.steps import MAX_STEPS

MIN_SESSIONS = 100


def preferences(q_MA: Floats, allowed_MA: NDArray[np.bool_], temperature: float) -> Floats:
    """(M, A) softmax of step values over the allowed steps; zeros where none is allowed."""
    best_M1 = q_MA.max(axis=1, keepdims=True, initial=-1e9)
    weights_MA = np.exp((q_MA - best_M1) / temperature) * allowed_MA
    found: Floats = weights_MA / np.maximum(weights_MA.sum(axis=1, keepdims=True), 1e-12)
    return found


def doubly_robust(steps: LoggedSteps, policy_MA: Floats, q_MA: Floats, costs: PlanCosts) -> Floats:
    """(V,) what each plan's session would have earned under `policy`, in shares of the margin, in the order of the plans' first steps.

    Args:
        q_MA: step values, -inf where not allowed; the better they are, the less the estimate varies, and wrong ones do not bias it.
    """
    legal_MA = np.where(steps.allowed_MA, q_MA, 0)
    expected_M, taken = (policy_MA * legal_MA).sum(axis=1), (np.arange(len(steps)), steps.action_M)
    ratio_M, earned_M, value_M = policy_MA[taken] / steps.propensity_M, steps.earned(costs), np.zeros(len(steps))
    for place in range(MAX_STEPS - 1, -1, -1):
        here = np.flatnonzero(steps.index_M == place)
        next_M = np.where(steps.after_M[here] >= 0, value_M[steps.after_M[here]], 0)
        value_M[here] = expected_M[here] + ratio_M[here] * (earned_M[here] + next_M - legal_MA[taken][here])
    found: Floats = value_M[steps.index_M == 0]
    return found


def choose_temperature(steps: LoggedSteps, is_val_M: NDArray[np.bool_], q_MA: Floats, costs: PlanCosts, temperatures: Sequence[float]) -> float:
    """The temperature of the best estimate less its standard error; the middle one where fewer than MIN_SESSIONS sessions can tell.

    Args:
        is_val_M: steps of validation sessions. Sessions with a step of unknown propensity, or one that the grammar forbids, are left out.
    """
    known_M = np.isfinite(steps.propensity_M) & (steps.propensity_M > 0) & steps.is_legal
    unusable = np.unique(steps.row_M[~known_M])
    usable_M = is_val_M & ~np.isin(steps.row_M, unusable)
    usable_of_first = usable_M[steps.index_M == 0]
    if usable_of_first.sum() < MIN_SESSIONS:
        return temperatures[len(temperatures) // 2]
    sound = np.where(known_M, steps.propensity_M, 1.0)
    told = LoggedSteps(**{**vars(steps), "propensity_M": sound})
    scores = []
    for temperature in temperatures:
        value_V = doubly_robust(told, preferences(q_MA, steps.allowed_MA, temperature), q_MA, costs)[usable_of_first]
        scores.append(value_V.mean() - value_V.std(ddof=1) / len(value_V) ** 0.5)
    return temperatures[int(np.argmax(scores))]
