"""The item-transition graph: what follows what, nearby more than far, and not only because it is popular."""

# Letters: T = events, N = products.

import numpy as np
from scipy.sparse import csr_matrix, diags

from guidelens.models.baselines.recommender import ItemToItem
from guidelens.models.histories import Histories

_NEGLIGIBLE = 1e-3


def transition_counts(histories: Histories, gap_decay: float) -> csr_matrix:
    """(N, N) sum over pairs of one history, i before j by g events, of gap_decay ** (g - 1)."""
    rows_T, ends = histories.rows, len(histories.products)
    pairs = []
    for gap in range(1, int(histories.lengths.max(initial=1))):
        first = np.flatnonzero(rows_T[: ends - gap] == rows_T[gap:])
        weight = gap_decay ** (gap - 1)
        if weight < _NEGLIGIBLE or len(first) == 0:
            break
        pairs.append((histories.products[first], histories.products[first + gap], np.full(len(first), weight, dtype=np.float32)))
    if not pairs:
        return csr_matrix((histories.num_products,) * 2, dtype=np.float32)
    before, after, weights = (np.concatenate(part) for part in zip(*pairs, strict=True))
    return csr_matrix((weights, (before, after)), shape=(histories.num_products,) * 2)


def transitions(histories: Histories, *, gap_decay: float = 0.8, damping: float = 0.5, backward: float = 0.0, decay: float = 0.6) -> ItemToItem:
    """Decayed counts of j after i, each divided by i's sum to the power `damping`.

    Args:
        damping: 1 makes rows probabilities, which lets rare products, of which little is known, speak as loud as common ones.
        backward: weight of the pairs read against time.
        decay: weight of an event beside the one after it, when a history is scored.
    """
    counts_NN = transition_counts(histories, gap_decay)
    counts_NN = (counts_NN + backward * counts_NN.T).tocsr() if backward else counts_NN
    sums_N = np.asarray(counts_NN.sum(axis=1)).ravel()
    scale_N = np.where(sums_N > 0, np.maximum(sums_N, 1e-9) ** -damping, 0.0).astype(np.float32)
    return ItemToItem((diags(scale_N) @ counts_NN).tocsr(), decay)
