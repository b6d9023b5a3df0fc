"""T3's metrics on plans: legality, step accuracy, exact match, edit similarity (the design's "match") and how often each step is taken."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guidelens.errors import ShapeError
from guidelens.schemas.steps import MAX_STEPS, NUM_STEPS, allowed_next

# Letters: B = plans, S = MAX_STEPS places (padded with -1).


def lengths(steps_BS: NDArray[np.integer]) -> NDArray[np.int64]:
    """(B,) number of steps before the padding."""
    present = steps_BS >= 0
    ends: NDArray[np.int64] = np.where(present.all(axis=1), steps_BS.shape[1], np.argmin(present, axis=1)).astype(np.int64)
    return ends


def illegal_plans(base_BS: NDArray[np.bool_], steps_BS: NDArray[np.integer]) -> NDArray[np.bool_]:
    """(B,) True where a plan holds a step that the grammar does not allow at its place.

    Args:
        base_BS: (B, NUM_STEPS) `base_mask` of each plan's product and device.
        steps_BS: (B, MAX_STEPS) step indices, -1 after the end.
    """
    if base_BS.shape != (len(steps_BS), NUM_STEPS) or steps_BS.shape[1] > MAX_STEPS:
        raise ShapeError(f"base masks must be (B, {NUM_STEPS}) and plans (B, <= {MAX_STEPS}), got {base_BS.shape} and {steps_BS.shape}")
    broken = np.zeros(len(steps_BS), dtype=np.bool_)
    ends = lengths(steps_BS)
    for place in range(steps_BS.shape[1]):
        rows = np.flatnonzero(ends > place)
        if len(rows) == 0:
            break
        allowed = allowed_next(base_BS[rows], steps_BS[rows], place)
        broken[rows] |= ~allowed[np.arange(len(rows)), steps_BS[rows, place]]
    return broken


def edit_similarity(ours: Sequence[int], theirs: Sequence[int]) -> float:
    """1 - Levenshtein distance / length of the longer one; 1 for two empty plans."""
    longest = max(len(ours), len(theirs))
    return 1.0 if longest == 0 else 1.0 - _distance(ours, theirs) / longest


def _distance(ours: Sequence[int], theirs: Sequence[int]) -> int:
    row = list(range(len(theirs) + 1))
    for i, a in enumerate(ours, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(theirs, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


def match_rows(ours_BS: NDArray[np.integer], theirs_BS: NDArray[np.integer]) -> NDArray[np.float64]:
    """(B,) edit similarity of each pair of plans (padded with -1)."""
    pairs = zip(ours_BS.tolist(), lengths(ours_BS), theirs_BS.tolist(), lengths(theirs_BS), strict=True)
    return np.array([edit_similarity(a[:n], b[:m]) for a, n, b, m in pairs])


def step_distance(ours_BS: NDArray[np.integer], theirs_BS: NDArray[np.integer]) -> float:
    """Total variation distance, in [0, 1], of how often each step is taken in two sets of plans; 0 where one of them holds no step."""
    counts = [np.bincount(plans[plans >= 0].astype(np.int64), minlength=NUM_STEPS) for plans in (ours_BS, theirs_BS)]
    if not all(count.sum() for count in counts):
        return 0.0
    ours, theirs = (count / count.sum() for count in counts)
    return float(np.abs(ours - theirs).sum() / 2)


@dataclass(frozen=True)
class PlanLikeness:
    """Means in [0, 1]: step_accuracy over steps, exact_match and match (edit similarity) over plans."""

    step_accuracy: float
    exact_match: float
    match: float


def likeness(ours_BS: NDArray[np.integer], theirs_BS: NDArray[np.integer]) -> PlanLikeness:
    """Of plans padded with -1; a step of theirs that ours do not come to is a wrong one.

    Raises:
        ShapeError: no plans, or another number of them.
    """
    if len(ours_BS) == 0 or ours_BS.shape != theirs_BS.shape:
        raise ShapeError(f"plans must be at least one, and as many as those they are compared with, got {ours_BS.shape} and {theirs_BS.shape}")
    same_BS = ours_BS == theirs_BS
    return PlanLikeness(
        step_accuracy=float(same_BS[theirs_BS >= 0].mean()),
        exact_match=float(same_BS.all(axis=1).mean()),
        match=float(match_rows(ours_BS, theirs_BS).mean()),
    )
