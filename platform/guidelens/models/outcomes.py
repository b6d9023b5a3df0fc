"""What the strategist is taught: target weights of each next step, made from the outcomes of logged steps.

The log was written by a script with noise; imitating it would give the script again. What is preferred here is what pays, by the shop's
own account of margin and costs (config: PlanCosts), as estimated from the log alone (models/plans). The decoder then learns these
preferences by sequence cross-entropy. docs/plans.md has the formulae.
"""

# Letters: R = rows, S = MAX_STEPS, A = NUM_STEPS, M = logged steps, F = state features.

import dataclasses
import logging

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from guidelens.config import Config
from guidelens.data.examples import Examples
from guidelens.models.items import Catalogue
from guidelens.models.plans.choosing import choose_temperature, preferences
from guidelens.models.plans.history import crossed
from guidelens.models.plans.logged import KEPT, Floats, LoggedSteps, logged_steps
from guidelens.models.plans.values import step_values
from guidelens.schemas.ids import sub_seed
from guidelens.schemas.steps import NUM_STEPS

log = logging.getLogger(__name__)
MIN_PURCHASES = 20
MAX_ADVANTAGE_WEIGHT = 20.0
_BASELINE_PENALTY = 100.0


def with_targets(examples: Examples, catalogue: Catalogue, config: Config) -> Examples:
    """The examples with the strategist's target weights at each logged step, as `train.plan_learning.targets` says.

    Estimates are fitted to the training part alone; the temperature is chosen on validation sessions. With fewer than MIN_PURCHASES kept
    purchases in the training part steps cannot be told apart by what they earn, and the targets are the logged steps; a warning says so. A logged step that the
    grammar forbids teaches nothing.
    """
    steps = logged_steps(examples, catalogue, config.train.model.num_profile_buckets)
    with threadpool_limits(config.train.num_threads):
        weights_MA = _weights(steps, examples.split[steps.row_M], config) * steps.allowed_MA
    targets = np.zeros_like(examples.targets)
    targets[steps.row_M, steps.index_M] = weights_MA
    return dataclasses.replace(examples, targets=targets)


def _weights(steps: LoggedSteps, split_M: NDArray[np.object_], config: Config) -> Floats:
    """(M, A) before the grammar."""
    learning, costs = config.train.plan_learning, config.train.plan_costs
    is_train_M = split_M == "train"
    logged_MA: Floats = (steps.action_M[:, None] == np.arange(NUM_STEPS)).astype(np.float64)
    num_kept = int((steps.result_M[is_train_M] == KEPT).sum())
    if learning.targets != "imitation" and num_kept < MIN_PURCHASES:
        log.warning(
            "train.plan_learning.targets %s needs %d kept purchases in AR sessions of the training part, got %d: plans imitate the log",
            learning.targets,
            MIN_PURCHASES,
            num_kept,
        )
    if learning.targets == "imitation" or num_kept < MIN_PURCHASES:
        return logged_MA
    if learning.targets == "advantage":
        weighted_MA: Floats = logged_MA * advantage_weights(steps, is_train_M, steps.to_come(costs), learning.advantage_temperature)[:, None]
        return weighted_MA
    q_MA = step_values(steps, is_train_M, costs, learning.sweeps, sub_seed(config.seed, "outcomes"))
    temperature = choose_temperature(steps, split_M == "val", q_MA, costs, learning.temperatures)
    return preferences(q_MA, steps.allowed_MA, temperature)


def advantage_weights(steps: LoggedSteps, is_train_M: NDArray[np.bool_], to_come_M: Floats, temperature: float) -> Floats:
    """(M,) exp(advantage / temperature) of each logged step, at most MAX_ADVANTAGE_WEIGHT, with a mean of 1 over the training part.

    The advantage is what came after a step less what a ridge regression expects of its state (Peng et al. 2019, arXiv:1910.00177).
    """
    x_MF = crossed(steps.state_MF).astype(np.float64)
    fit_MF = x_MF[is_train_M]
    weights_F = np.linalg.solve(fit_MF.T @ fit_MF + _BASELINE_PENALTY * np.eye(x_MF.shape[1]), fit_MF.T @ to_come_M[is_train_M])
    weights_M = np.exp(np.minimum((to_come_M - x_MF @ weights_F) / temperature, np.log(MAX_ADVANTAGE_WEIGHT)))
    found: Floats = weights_M / weights_M[is_train_M].mean()
    return found
