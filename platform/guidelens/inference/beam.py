"""Beam search over guide steps under the grammar: the likeliest plan, not the likeliest next step again and again.

Plans of different lengths (nothing follows a hand-over) are compared by their mean log-probability a step. Width 1 is greedy decoding.
"""

# Letters: B = plans, W = beam width, A = NUM_STEPS, S = MAX_STEPS, L = beams that go on.

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from guidelens.schemas.steps import MAX_STEPS, NUM_STEPS, allowed_next

Steps = NDArray[np.int8]
Chances = Callable[[NDArray[np.int64], Steps, int, NDArray[np.bool_]], NDArray[np.floating]]
"""(plans (L,), their steps (L, S), length, allowed (L, A)) to probabilities (L, A) of the next step; what followed new steps is unknown."""
_TINY = 1e-12


def beam_search(chances: Chances, base_BA: NDArray[np.bool_], steps_BS: NDArray[np.integer], length: int, *, width: int, horizon: int = MAX_STEPS) -> Steps:
    """(B, S) the plans so far continued by up to `horizon` steps, -1 past their ends.

    Args:
        base_BA: what product and device allow at all.
        steps_BS: plans so far, `length` steps each; what lies past is not read.
        width: plans kept at each step.
    """
    num = len(base_BA)
    kept = np.full((num, width, MAX_STEPS), -1, dtype=np.int8)
    kept[:, :, :length] = steps_BS[:, None, :length]
    total = np.full((num, width), -np.inf)
    total[:, 0] = 0.0
    count = np.zeros((num, width), dtype=np.int64)
    for place in range(length, min(length + horizon, MAX_STEPS)):
        added_BWA = _added(chances, base_BA, kept, total, place)
        ended = ~np.isfinite(added_BWA).any(axis=2)
        grown = np.concatenate([total[:, :, None] + added_BWA, np.where(ended, total, -np.inf)[:, :, None]], axis=2)
        counts = np.concatenate([np.repeat(count[:, :, None] + 1, NUM_STEPS, axis=2), count[:, :, None]], axis=2)
        mean = (grown / np.maximum(counts, 1)).reshape(num, -1)
        best = np.argsort(-mean, axis=1, kind="stable")[:, :width]
        parent, step = best // (NUM_STEPS + 1), best % (NUM_STEPS + 1)
        rows = np.arange(num)[:, None]
        kept, total, count = kept[rows, parent], grown[rows, parent, step], counts[rows, parent, step]
        kept[:, :, place] = np.where((step < NUM_STEPS) & np.isfinite(total), step, -1)
        if ended.all():
            break
    return kept[:, 0]


def _added(chances: Chances, base_BA: NDArray[np.bool_], kept: Steps, total: NDArray[np.float64], place: int) -> NDArray[np.float64]:
    """(B, W, A) log-probability of each next step of each beam; -inf where it is not allowed, or the beam is none."""
    out_BWA = np.full((*total.shape, NUM_STEPS), -np.inf)
    plan_L, beam_L = np.nonzero(np.isfinite(total) & ((kept[:, :, place - 1] >= 0) if place else True))
    steps_LS = kept[plan_L, beam_L]
    allowed_LA = allowed_next(base_BA[plan_L], steps_LS, place)
    goes_on = np.flatnonzero(allowed_LA.any(axis=1))
    plan_L, beam_L, allowed_LA = plan_L[goes_on], beam_L[goes_on], allowed_LA[goes_on]
    if len(plan_L):
        p_LA = chances(plan_L.astype(np.int64), steps_LS[goes_on], place, allowed_LA)
        out_BWA[plan_L, beam_L] = np.where(allowed_LA, np.log(np.maximum(p_LA, _TINY)), -np.inf)
    return out_BWA
