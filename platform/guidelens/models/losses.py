"""The three tasks' losses as sums and counts, so that a mean over any number of workers is the mean over the global batch."""

# Letters: B = rows, N = products, K = places, S = steps, A = actions.

from dataclasses import dataclass

import torch
from torch import Tensor

from guidelens.config import TaskName

TERMS = ("softmax", "click", "purchase", "interest", "plan")
TERM_TASK: dict[str, TaskName] = {"softmax": "recommendation", "click": "recommendation", "purchase": "recommendation", "interest": "interest", "plan": "plan"}
TERM_WEIGHT = {"softmax": 1.0, "click": 4.0, "purchase": 4.0, "interest": 10.0, "plan": 1.0}
"""Within their task: brings terms of very different size (a CTR of a few percent beside ln N) to like gradients."""


@dataclass(frozen=True)
class Term:
    """A sum of losses and the number of labels it is over; the mean is their quotient, 0 without labels."""

    total: Tensor
    count: Tensor


def softmax_term(logits_BN: Tensor, rows_BK: Tensor, click_BK: Tensor, column_of_N: Tensor) -> Term:
    """Cross-entropy of clicked products against all columns of `logits`, nats per click.

    Args:
        logits_BN: unnormalized; with sampled columns already corrected by their log-expected count.
        rows_BK: product rows, -1 padded.
        click_BK: 1 where clicked.
        column_of_N: (N,) column of each product, -1 where it was not sampled.
    """
    clicked_BK = (click_BK > 0) & (rows_BK >= 0)
    columns_BK = column_of_N[rows_BK.clamp_min(0)].clamp_min(0)
    log_p_BK = torch.log_softmax(logits_BN, dim=1).gather(1, columns_BK)
    return Term(-(log_p_BK * clicked_BK).sum(), clicked_BK.sum())


def bernoulli_term(log_p_BK: Tensor, labels_BK: Tensor, shown_BK: Tensor) -> Term:
    """Binary cross-entropy of log-probabilities over what was shown, nats per product shown."""
    log_p_BK = log_p_BK.clamp_max(-1e-6)
    loss_BK = -(labels_BK * log_p_BK + (1 - labels_BK) * torch.log1p(-log_p_BK.exp()))
    return Term((loss_BK * shown_BK).sum(), shown_BK.sum())


def interest_term(logits_BK: Tensor, interest_BK: Tensor, observed_BK: Tensor) -> Term:
    """Squared error of sigmoid(logits) over observed visits; whatever is not observed adds nothing."""
    error_BK = (torch.sigmoid(logits_BK) - interest_BK).square()
    return Term((error_BK * observed_BK).sum(), observed_BK.sum())


def plan_term(log_p_BSA: Tensor, targets_BSA: Tensor) -> Term:
    """Sequence cross-entropy against target weights over the next step; the count is of the steps that have a target."""
    learned_BS = targets_BSA.sum(2) > 0
    loss = -(targets_BSA * torch.where(targets_BSA > 0, log_p_BSA, 0.0)).sum()
    return Term(loss, learned_BS.sum())
