"""What a plan policy would have earned, estimated from the log of another one (propensities of each step are in the log).

Trajectory and per-decision importance sampling, their self-normalized forms, and the doubly robust estimator with a
cross-fitted linear model of the value to come (Jiang & Li 2016, arXiv:1511.03722). Knows nothing of models or the world.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from guidelens.errors import ShapeError
from guidelens.evaluation.bootstrap import Interval, mean_interval
from guidelens.schemas.base import Frozen
from guidelens.schemas.ids import sub_seed
from guidelens.schemas.steps import NUM_STEPS, OUTCOMES

# Letters: B = logged sessions, S = places of a plan, A = NUM_STEPS.

NUM_FOLDS = 5
RIDGE = 10.0


class LoggedPlans(NamedTuple):
    """Sessions as logged, and what the new policy would do at each of their histories.

    (B, S): `steps` indices, -1 after the end; `outcomes` after each step; `propensity` of the logged step, in (0, 1]; `reward`
    earned after each step, in minor units, 0 after the end. `target` (B, S, A): the new policy's probability of each step.
    `context` (B, D): what is known before the first step, for the value model only.
    """

    steps: NDArray[np.integer]
    outcomes: NDArray[np.integer]
    propensity: NDArray[np.floating]
    reward: NDArray[np.floating]
    target: NDArray[np.floating]
    context: NDArray[np.floating]


class OffPolicyEstimate(Frozen):
    """One estimator's value per session, minor units. `ess`: effective number of sessions, of `sessions` logged ones."""

    estimator: str
    value: float
    low: float
    high: float
    ess: float
    sessions: int


def estimates(log: LoggedPlans, *, num_bootstrap: int, seed: int) -> list[OffPolicyEstimate]:
    """IPS, per-decision IPS, SNIPS and DR of the target policy, and the log's own mean, each with a bootstrap interval over sessions.

    Raises:
        ShapeError: arrays do not agree, or a logged step has no propensity.
    """
    _check(log)
    present_BS = log.steps >= 0
    weights_BS = np.asarray(np.cumprod(_ratio(log), axis=1), dtype=np.float64)
    total_B = log.reward.sum(axis=1)
    last_B = weights_BS[:, -1]
    dr_B = _doubly_robust(log, weights_BS, present_BS, seed)
    ess = float(last_B.sum() ** 2 / max(float((last_B**2).sum()), 1e-12))
    rows = {
        "logging": mean_interval(total_B, num_bootstrap=num_bootstrap, seed=seed),
        "ips": mean_interval(last_B * total_B, num_bootstrap=num_bootstrap, seed=seed),
        "per_decision_ips": mean_interval((weights_BS * log.reward).sum(axis=1), num_bootstrap=num_bootstrap, seed=seed),
        "dr": mean_interval(dr_B, num_bootstrap=num_bootstrap, seed=seed),
    }
    if last_B.sum() > 0:
        rows["snips"] = mean_interval(total_B, weights_R=last_B, num_bootstrap=num_bootstrap, seed=seed)
    return [_estimate(name, interval, float(len(total_B)) if name == "logging" else ess) for name, interval in rows.items()]


def _estimate(name: str, interval: Interval, ess: float) -> OffPolicyEstimate:
    return OffPolicyEstimate(estimator=name, value=interval.value, low=interval.low, high=interval.high, ess=ess, sessions=interval.n)


def _check(log: LoggedPlans) -> None:
    shape = log.steps.shape
    if any(part.shape != shape for part in (log.outcomes, log.propensity, log.reward)) or log.target.shape != (*shape, NUM_STEPS):
        raise ShapeError(f"a log of {shape} needs outcomes, propensities and rewards of that shape and targets (B, S, {NUM_STEPS}), got {log.target.shape}")
    known = log.propensity[log.steps >= 0]
    if not bool(np.all((known > 0) & (known <= 1))):
        raise ShapeError("every logged step needs a propensity in (0, 1]; sessions without them must be left out")


def _ratio(log: LoggedPlans) -> NDArray[np.float64]:
    """(B, S) target probability of the logged step over its propensity; 1 after the end."""
    taken = np.where(log.steps < 0, 0, log.steps)
    target = np.take_along_axis(log.target, taken[:, :, None], axis=2)[:, :, 0]
    safe = np.where(log.steps >= 0, log.propensity, 1.0)
    return np.asarray(np.where(log.steps >= 0, target / safe, 1.0), dtype=np.float64)


def _doubly_robust(log: LoggedPlans, weights_BS: NDArray[np.float64], present_BS: NDArray[np.bool_], seed: int) -> NDArray[np.float64]:
    """(B,) doubly robust value of each session: model value of the target's choice, corrected where the log shows another reward."""
    value_BSA = _fitted_values(log, present_BS, seed)
    expected_BS = np.where(present_BS, (log.target * value_BSA).sum(axis=2), 0.0)
    taken = np.where(present_BS, log.steps, 0)
    predicted_BS = np.where(present_BS, np.take_along_axis(value_BSA, taken[:, :, None], axis=2)[:, :, 0], 0.0)
    before_BS = np.concatenate([np.ones((len(weights_BS), 1)), weights_BS[:, :-1]], axis=1)
    terms = before_BS * expected_BS + weights_BS * (log.reward - predicted_BS)
    return np.asarray(np.where(present_BS, terms, 0.0).sum(axis=1))


def _fitted_values(log: LoggedPlans, present_BS: NDArray[np.bool_], seed: int) -> NDArray[np.float64]:
    """(B, S, A) value to come of each step under the target policy; a session is predicted by a model that never saw it."""
    num_sessions = len(log.steps)
    fold_B = np.random.Generator(np.random.Philox(key=sub_seed(seed, "folds"))).permutation(num_sessions) % NUM_FOLDS
    histories = [_history(log, place) for place in range(log.steps.shape[1])]
    value_BSA = np.zeros(log.target.shape)
    for fold in range(NUM_FOLDS):
        value_BSA[fold_B == fold] = _q_evaluation(log, histories, present_BS, fold_B != fold)[fold_B == fold]
    return value_BSA


def _q_evaluation(log: LoggedPlans, histories: list[NDArray[np.float64]], present_BS: NDArray[np.bool_], fit_B: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(B, S, A) fitted Q evaluation from the last place backwards, on the sessions of fit_B, predicted for all."""
    value_BSA = np.zeros(log.target.shape)
    to_come_B = np.zeros(len(fit_B))
    for place in range(len(histories) - 1, -1, -1):
        rows = present_BS[:, place] & fit_B
        y_B = log.reward[:, place] + to_come_B
        value_BSA[:, place] = _ridge_by_step(histories[place][rows], log.steps[rows, place], y_B[rows], histories[place])
        to_come_B = np.where(present_BS[:, place], (log.target[:, place] * value_BSA[:, place]).sum(axis=1), 0.0)
    return value_BSA


def _history(log: LoggedPlans, place: int) -> NDArray[np.float64]:
    """(B, F) what is known before the step at `place`: context, counts of steps and outcomes so far, the last outcome."""
    num_sessions = len(log.steps)
    steps, outcomes = log.steps[:, :place], log.outcomes[:, :place]
    step_counts = (steps[:, :, None] == np.arange(NUM_STEPS)).sum(axis=1)
    outcome_counts = (outcomes[:, :, None] == np.arange(len(OUTCOMES))).sum(axis=1)
    last = np.eye(len(OUTCOMES))[np.clip(outcomes[:, -1], 0, len(OUTCOMES) - 1)] if place else np.zeros((num_sessions, len(OUTCOMES)))
    return np.concatenate([np.ones((num_sessions, 1)), log.context, step_counts, outcome_counts, last], axis=1)


def _ridge_by_step(x_MF: NDArray[np.float64], steps_M: NDArray[np.integer], y_M: NDArray[np.float64], x_UF: NDArray[np.float64]) -> NDArray[np.float64]:
    """(U, A): for each step a ridge regression around the mean of that step's rows; the mean of all rows for a step never taken."""
    overall = float(y_M.mean()) if len(y_M) else 0.0
    predicted = np.full((len(x_UF), NUM_STEPS), overall)
    for step in np.unique(steps_M):
        mine = steps_M == step
        x, centre = x_MF[mine], float(y_M[mine].mean())
        weights = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ (y_M[mine] - centre))
        predicted[:, step] = centre + x_UF @ weights
    return predicted
