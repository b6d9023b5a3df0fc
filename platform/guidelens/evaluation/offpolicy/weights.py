"""Importance weights of a log: how far the new policy is from the one that wrote it, and when a log is too thin to tell."""

import numpy as np
from numpy.typing import NDArray

from guidelens.evaluation.offpolicy.logs import LoggedChoices, LoggedPlans
from guidelens.schemas.base import Frozen

# Letters: B = logged sessions or choices, S = places (1 for choices).

MIN_EFFECTIVE = 50.0
MAX_SHARE = 0.1
MAX_ERRORS = 4.0
Floats = NDArray[np.float64]


class Overlap(Frozen):
    """How much a log says of another policy.

    `ess`: Kish's effective number of sessions, (sum w)^2 / sum w^2. `mean_weight`: 1 in expectation where propensities are right and
    the log does, now and then, all that the policy would do. `largest_share`: of all weight, that of the heaviest session.
    `warnings`: sentences, empty where nothing is wrong.
    """

    ess: float
    sessions: int
    mean_weight: float
    largest_share: float
    warnings: tuple[str, ...] = ()


def plan_weights(log: LoggedPlans) -> Floats:
    """(B, S) product, up to each step, of target probability over propensity; past the end of a plan it stays what it was."""
    taken = np.where(log.steps < 0, 0, log.steps)
    target = np.take_along_axis(log.target, taken[:, :, None], axis=2)[:, :, 0]
    safe = np.where(log.steps >= 0, log.propensity, 1.0)
    return np.asarray(np.cumprod(np.where(log.steps >= 0, target / safe, 1.0), axis=1), dtype=np.float64)


def choice_weights(log: LoggedChoices) -> Floats:
    """(B, 1) target probability of the logged action over its propensity."""
    return np.asarray(log.target[np.arange(len(log.actions)), log.actions] / log.propensity, dtype=np.float64)[:, None]


def effective_number(weights_B: NDArray[np.floating]) -> float:
    """Kish's effective sample size, 0 where all weights are 0."""
    squares = float((weights_B**2).sum())
    return float(weights_B.sum()) ** 2 / squares if squares > 0 else 0.0


def overlap(weights_BS: Floats) -> Overlap:
    """What the weights of whole sessions say, with warnings."""
    last_B = weights_BS[:, -1]
    total, num = float(last_B.sum()), len(last_B)
    found = Overlap(ess=effective_number(last_B), sessions=num, mean_weight=total / num, largest_share=float(last_B.max()) / total if total > 0 else 1.0)
    return found.model_copy(update={"warnings": tuple(_warnings(found, last_B))})


def _warnings(found: Overlap, last_B: Floats) -> list[str]:
    if found.ess == 0:
        return [f"none of {found.sessions:,} logged sessions does what the policy would: the log cannot tell its value"]
    said = []
    if found.ess < MIN_EFFECTIVE:
        said.append(f"{found.ess:.0f} effective sessions of {found.sessions:,}: fewer than {MIN_EFFECTIVE:.0f} are too few for the intervals to be trusted")
    if found.largest_share > MAX_SHARE:
        said.append(f"one session holds {100 * found.largest_share:.0f} % of all weight")
    error = float(last_B.std()) / np.sqrt(len(last_B))
    if abs(found.mean_weight - 1) > MAX_ERRORS * error and abs(found.mean_weight - 1) > 0.05:
        said.append(f"the mean weight is {found.mean_weight:.2f} and should be 1: propensities are wrong, or the policy takes steps that the log never takes")
    return said
