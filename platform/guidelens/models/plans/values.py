"""The value of every allowed step in every logged state, estimated from the log alone by two unlike models, whose mean is taken.

Fitted Q iteration (Ernst et al., JMLR 2005): Q(s, a) = expected reward of a + chance that the session goes on x expected value of the state
that follows, where a state is worth its best allowed step. Rewards are expected ones, from predicted chances of a purchase and a walk-out, so
that few purchases do not decide by luck. A pooled linear model is steady and coarse, trees are fine and jumpy: errors that one of
them makes alone are halved, and it is large errors that a maximum picks.
"""

# Letters: M = logged steps, A = NUM_STEPS, F = features, L = rows learned from.

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from guidelens.config import PlanCosts
from guidelens.models.plans.history import crossed
from guidelens.models.plans.logged import KEPT, LEFT, NUM_RESULTS, ON, RETURNED, Floats, LoggedSteps
from guidelens.models.plans.pooled import ByStep, Penalties, logistic, ridge, sigmoid
from guidelens.schemas.steps import MAX_STEPS, NUM_STEPS, STEP_INDEX

RESULT_PENALTIES = Penalties(shared=30.0, own=300.0)
FOLLOWS_PENALTIES = Penalties(shared=100.0, own=300.0)
"""In rows of evidence: a prior, which weighs less the longer the log."""
_TREES = {"max_iter": 40, "learning_rate": 0.08, "min_samples_leaf": 100, "max_leaf_nodes": 15, "l2_regularization": 5.0, "early_stopping": False}


class StepModel(Protocol):
    """Predicts for every allowed step of every logged state; fitted to some of the logged steps."""

    def chances(self) -> Floats:
        """(M, A, NUM_RESULTS) chances of a step's results; anything where it is not allowed."""
        ...

    def follows(self, rows_L: NDArray[np.int64], value_L: Floats) -> Floats:
        """(M, A) expected value of what follows a step, learned from the value that followed the logged steps `rows`."""
        ...


class PooledModel:
    """Ridge and logistic regressions whose weights the steps share in part. A purchase is kept with one chance everywhere."""

    def __init__(self, steps: LoggedSteps, fit_M: NDArray[np.bool_]) -> None:
        self.steps, self.fit_M, self.x_MF = steps, fit_M, crossed(steps.state_MF)
        self.learned: tuple[ByStep, Floats] | None = None

    def chances(self) -> Floats:
        result_M = self.steps.result_M
        bought_M = (result_M == KEPT) | (result_M == RETURNED)
        buys_MA = self._odds(bought_M, self.fit_M)
        leaves_MA = (1 - buys_MA) * self._odds(result_M == LEFT, self.fit_M & ~bought_M)
        kept = ((result_M == KEPT) & self.fit_M).sum()
        kept_share = (kept + 1) / ((bought_M & self.fit_M).sum() + 2)
        out_MAC = np.empty((len(self.steps), NUM_STEPS, NUM_RESULTS))
        out_MAC[:, :, KEPT], out_MAC[:, :, RETURNED] = buys_MA * kept_share, buys_MA * (1 - kept_share)
        out_MAC[:, :, LEFT], out_MAC[:, :, ON] = leaves_MA, 1 - buys_MA - leaves_MA
        return out_MAC

    def _odds(self, is_so_M: NDArray[np.bool_], among_M: NDArray[np.bool_]) -> Floats:
        rows = np.flatnonzero(among_M)
        if len(rows) == 0:
            return np.full((len(self.steps), NUM_STEPS), 0.5)
        weights_AF = logistic(ByStep(self.x_MF[rows], self.steps.action_M[rows]), is_so_M[rows].astype(np.float64), RESULT_PENALTIES)
        return sigmoid(self.x_MF @ weights_AF.T)

    def follows(self, rows_L: NDArray[np.int64], value_L: Floats) -> Floats:
        if self.learned is None:
            by_step = ByStep(self.x_MF[rows_L], self.steps.action_M[rows_L])
            self.learned = by_step, by_step.gram(np.ones(len(rows_L)))
        found: Floats = self.x_MF @ ridge(*self.learned, value_L, FOLLOWS_PENALTIES).T
        return found


class TreeModel:
    """Gradient-boosted trees that see the step as a categorical feature."""

    def __init__(self, steps: LoggedSteps, fit_M: NDArray[np.bool_], seed: int) -> None:
        self.steps, self.fit_M = steps, fit_M
        self.settings = {**_TREES, "categorical_features": [steps.state_MF.shape[1]], "random_state": seed % 2**31}
        self.taken_MF = np.concatenate([steps.state_MF, steps.action_M[:, None].astype(np.float32)], axis=1)

    def chances(self) -> Floats:
        found = HistGradientBoostingClassifier(**self.settings).fit(self.taken_MF[self.fit_M], self.steps.result_M[self.fit_M])
        out_MAC = np.zeros((len(self.steps), NUM_STEPS, NUM_RESULTS))
        out_MAC[:, :, found.classes_] = self._of_allowed(found.predict_proba, len(found.classes_))
        return out_MAC

    def follows(self, rows_L: NDArray[np.int64], value_L: Floats) -> Floats:
        found = HistGradientBoostingRegressor(**self.settings).fit(self.taken_MF[rows_L], value_L)
        return self._of_allowed(lambda x: found.predict(x)[:, None], 1)[:, :, 0]

    def _of_allowed(self, predict: Callable[[NDArray[np.float32]], Floats], width: int) -> Floats:
        """(M, A, width) of a prediction made for every allowed step in every state; 0 elsewhere."""
        out_MAX = np.zeros((len(self.steps), NUM_STEPS, width))
        for action in range(NUM_STEPS):
            rows = np.flatnonzero(self.steps.allowed_MA[:, action])
            if len(rows):
                state = self.steps.state_MF[rows]
                out_MAX[rows, action] = predict(np.concatenate([state, np.full((len(rows), 1), action, dtype=np.float32)], axis=1))
        return out_MAX


def step_values(steps: LoggedSteps, is_train_M: NDArray[np.bool_], costs: PlanCosts, sweeps: int, seed: int) -> Floats:
    """(M, A) value of each allowed step in each state, in shares of the margin, -inf where not allowed: the mean of both models.

    Args:
        is_train_M: the steps that the estimates are fitted to, those the grammar allows; the others only get values.
        sweeps: rounds of fitted Q iteration: how many steps ahead a value looks beyond the step itself.
    """
    fit_M = is_train_M & steps.is_legal
    models: tuple[StepModel, ...] = (PooledModel(steps, fit_M), TreeModel(steps, fit_M, seed))
    values = [fitted_q(model, steps, fit_M, costs, sweeps) for model in models]
    return np.where(steps.allowed_MA, np.mean([np.where(steps.allowed_MA, q_MA, 0) for q_MA in values], axis=0), -np.inf)


def fitted_q(model: StepModel, steps: LoggedSteps, fit_M: NDArray[np.bool_], costs: PlanCosts, sweeps: int) -> Floats:
    """(M, A) one model's step values, -inf where a step is not allowed."""
    reward_MA, goes_on_MA = _rewards(steps, model.chances(), costs)
    q_MA = np.where(steps.allowed_MA, reward_MA, -np.inf)
    has_next_M = fit_M & (steps.after_M >= 0) & ~steps.ended_M
    rows_L = np.flatnonzero(has_next_M & steps.allowed_MA[steps.after_M].any(axis=1))
    for _ in range(sweeps if len(rows_L) else 0):
        follows_MA = model.follows(rows_L, q_MA.max(axis=1)[steps.after_M[rows_L]])
        q_MA = np.where(steps.allowed_MA, reward_MA + goes_on_MA * follows_MA, -np.inf)
    return q_MA


def _rewards(steps: LoggedSteps, chances_MAC: Floats, costs: PlanCosts) -> tuple[Floats, Floats]:
    """(M, A) expected reward of each step, and the chance that the session goes on after it."""
    coupons_MA = steps.coupons_M[:, None] + (np.arange(NUM_STEPS) == STEP_INDEX["offer_coupon"])
    is_human_A = np.arange(NUM_STEPS) == STEP_INDEX["hand_to_human"]
    earned_MA = chances_MAC[:, :, KEPT] * np.maximum(1 - costs.coupon * coupons_MA, 0) - costs.taken_back * chances_MAC[:, :, RETURNED]
    reward_MA = earned_MA - costs.walkout * chances_MAC[:, :, LEFT] - costs.human * is_human_A
    is_last_M1 = (steps.index_M == MAX_STEPS - 1)[:, None]
    return reward_MA, chances_MAC[:, :, ON] * ~is_human_A * ~is_last_M1
