"""Losses against torch's own, and what must not count."""

import pytest
import torch
from torch.nn import functional as fn

from guidelens.models.losses import bernoulli_term, interest_term, plan_term, softmax_term

ROWS = torch.tensor([[0, 2, -1], [1, 3, 4]])
SHOWN = ROWS >= 0


def test_bernoulli_term_is_torchs_binary_cross_entropy_over_what_was_shown() -> None:
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    term = bernoulli_term(fn.logsigmoid(logits), labels, SHOWN)
    expected = fn.binary_cross_entropy_with_logits(logits[SHOWN], labels[SHOWN], reduction="sum")
    assert float(term.total) == pytest.approx(float(expected), rel=1e-5)
    assert int(term.count) == 5


def test_softmax_term_is_torchs_cross_entropy_of_each_click() -> None:
    logits = torch.randn(2, 5, generator=torch.Generator().manual_seed(1))
    clicks = torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
    term = softmax_term(logits, ROWS, clicks, torch.arange(5))
    expected = fn.cross_entropy(logits[[0, 1, 1]], torch.tensor([2, 1, 4]), reduction="sum")
    assert float(term.total) == pytest.approx(float(expected), rel=1e-5)
    assert int(term.count) == 3


def test_interest_term_is_the_squared_error_of_observed_visits_only() -> None:
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(2), requires_grad=True)
    interest, observed = torch.full((2, 3), 0.25), torch.tensor([[True, False, False], [False, True, False]])
    term = interest_term(logits, interest, observed)
    term.total.backward()
    assert float(term.total.detach()) == pytest.approx(
        float(fn.mse_loss(torch.sigmoid(logits.detach())[observed], interest[observed], reduction="sum")), rel=1e-5
    )
    assert logits.grad is not None
    assert bool((logits.grad[~observed] == 0).all())


def test_an_unobserved_purchase_adds_no_gradient_where_nothing_was_shown() -> None:
    logits = torch.zeros(2, 3, requires_grad=True)
    bernoulli_term(fn.logsigmoid(logits), torch.ones(2, 3), SHOWN).total.backward()
    assert logits.grad is not None
    assert float(logits.grad[0, 2]) == 0.0
    assert float(logits.grad[0, 0]) < 0.0


def test_plan_term_is_sequence_cross_entropy_and_skips_places_without_a_target() -> None:
    log_p = torch.log_softmax(torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(3)), dim=2)
    targets = torch.zeros(1, 3, 4)
    targets[0, 0, 2] = targets[0, 1, 3] = 1.0
    term = plan_term(log_p, targets)
    assert float(term.total) == pytest.approx(float(fn.nll_loss(log_p[0, :2], torch.tensor([2, 3]), reduction="sum")), rel=1e-6)
    assert int(term.count) == 2
