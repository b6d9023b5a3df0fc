"""Each balancer moves weights or gradients as its paper says: hand-made numbers, and the steps of a real model."""

import pytest
import torch
from model_learners import Together, in_threads, learner, with_train
from torch import Tensor

from guidelens.config import Balancing, BalancingConfig
from guidelens.errors import ConfigError
from guidelens.models.balancing import BALANCERS, Balancer, GradNorm, build_balancer
from guidelens.presets import load

METHODS: tuple[Balancing, ...] = tuple(BALANCERS)
CONFLICT = torch.tensor([[1.0, 0.0], [-1.0, 1.0]])


def balancer(method: Balancing, **settings: float) -> Balancer:
    return build_balancer(BalancingConfig.model_validate({"method": method, **settings}), [False] * 2)


def taught(own: Balancer, before: Tensor, after: Tensor, steps: int) -> Balancer:
    optimizer = torch.optim.Adam(own.parameters(), lr=0.05)
    for _ in range(steps):
        own.learn(before, after)
        optimizer.step()
        own.settle()
    return own


def test_uncertainty_settles_where_each_weighted_loss_is_a_half() -> None:
    losses = torch.tensor([4.0, 0.25])
    own = taught(build_balancer(BalancingConfig(method="uncertainty"), [False, True]), losses, losses, 800)
    assert (own.weights(losses) * losses).tolist() == pytest.approx([0.5, 0.5], abs=0.01)


def test_uncertainty_halves_the_weight_of_a_regression_at_its_start() -> None:
    assert build_balancer(BalancingConfig(method="uncertainty"), [False, True]).weights(torch.ones(2)).tolist() == [1.0, 0.5]


def test_dwa_weighs_by_how_slowly_a_loss_fell_once_two_epochs_are_known() -> None:
    own = balancer("dwa")
    own.epoch_ended(torch.tensor([2.0, 2.0]))
    assert own.weights(torch.ones(2)).tolist() == [1.0, 1.0]
    own.epoch_ended(torch.tensor([1.0, 2.0]))
    expected = 2 * torch.softmax(torch.tensor([0.5, 1.0]) / 2.0, dim=0)
    assert own.weights(torch.ones(2)).tolist() == pytest.approx(expected.tolist())


def test_famo_starts_with_the_harmonic_weights_and_turns_to_the_task_that_fell_least() -> None:
    own, losses = balancer("famo"), torch.tensor([1.0, 4.0])
    assert own.weights(losses).tolist() == pytest.approx([1.6, 0.4])
    taught(own, torch.tensor([1.0, 1.0]), torch.tensor([0.5, 0.99]), 20)
    assert float(own.weights(torch.ones(2))[1]) > 1.2


def test_gradnorm_brings_the_weighted_norms_together() -> None:
    own, gradients = balancer("gradnorm", alpha=0.0), torch.tensor([[10.0, 0.0], [0.0, 1.0]])
    optimizer = torch.optim.Adam(own.parameters(), lr=0.01)
    for _ in range(400):
        own.combine(gradients, 0)
        own.learn(torch.ones(2), torch.ones(2))
        optimizer.step()
        own.settle()
    norms = own.weights(torch.ones(2)) * gradients.norm(dim=1)
    assert float(norms[0]) == pytest.approx(float(norms[1]), rel=0.25)
    assert float(own.weights(torch.ones(2)).sum()) == pytest.approx(2.0)


def test_gradnorm_gives_more_to_the_task_that_trains_slower() -> None:
    own, gradients = balancer("gradnorm"), torch.eye(2)
    own.combine(gradients, 0)
    own.learn(torch.tensor([1.0, 1.0]), torch.ones(2))
    own.combine(gradients, 0)
    own.learn(torch.tensor([0.2, 0.9]), torch.ones(2))
    assert own.own_T.grad is not None
    assert float(own.own_T.grad[0]) > 0 > float(own.own_T.grad[1])


def test_pcgrad_projects_conflicting_gradients_and_leaves_others_alone() -> None:
    assert balancer("pcgrad").combine(CONFLICT, 0).tolist() == pytest.approx([0.5, 1.5])
    agreeing = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    assert balancer("pcgrad").combine(agreeing, 0).tolist() == pytest.approx([2.0, 1.0])


@pytest.mark.parametrize("radius", [0.2, 0.4, 0.8])
def test_cagrad_helps_the_worst_task_most_within_its_radius(radius: float) -> None:
    gradients = torch.tensor([[1.0, 0.2, 0.0], [-0.6, 0.1, 2.0]])
    own = balancer("cagrad", radius=radius)
    step = own.combine(gradients, 0) * (1 + radius**2) / 2
    mean = gradients.mean(0)
    assert float((step - mean).norm()) <= radius * float(mean.norm()) * (1 + 1e-4)
    best = max(_worst_off(gradients, mean, radius, share) for share in torch.linspace(0, 1, 2001).tolist())
    assert float((gradients @ step).min()) == pytest.approx(best, rel=2e-3)


def _worst_off(gradients: Tensor, mean: Tensor, radius: float, share: float) -> float:
    """What the worst-off task gains when the mean is pulled towards one mix of the gradients: the primal value of a candidate."""
    mix = share * gradients[0] + (1 - share) * gradients[1]
    return float((gradients @ (mean + radius * mean.norm() / mix.norm() * mix)).min())


def test_cagrad_without_a_radius_is_the_sum() -> None:
    assert balancer("cagrad", radius=0.0).combine(CONFLICT, 0).tolist() == CONFLICT.sum(0).tolist()


@pytest.mark.parametrize("method", [method for method in METHODS if method != "fixed"])
def test_every_method_moves_a_real_model_elsewhere_than_fixed_weights_do(method: Balancing) -> None:
    """The same batches from the same weights, where two models with fixed weights end bit for bit alike. dwa starts with its third epoch."""
    fixed, own = learner(with_train(epochs=5)), learner(with_train(epochs=5, balancing={"method": method}))
    for epoch in range(5):
        fixed.epoch(epoch), own.epoch(epoch)
    moved = max(float((a - b).detach().abs().max()) for a, b in zip(fixed.model.parameters(), own.model.parameters(), strict=True))
    assert moved > 1e-4
    assert all(torch.isfinite(parameter).all() for parameter in own.model.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_two_workers_balance_as_one_does(method: Balancing) -> None:
    config = with_train(balancing={"method": method})
    one, together = learner(config), Together(2)
    expected = [one.epoch(epoch) for epoch in range(2)]
    workers = [learner(config, place=together.place(rank), reduce=together.reduce_of(rank)) for rank in range(2)]
    for found in in_threads([lambda own=own: [own.epoch(epoch) for epoch in range(2)] for own in workers]):
        for mine, alone in zip(found, expected, strict=True):
            assert mine == pytest.approx(alone, rel=2e-4)


MISSING = torch.tensor([2.0, 0.0, 1.0])
"""Losses of three tasks; the batch holds no label of the second."""


def of_three(method: Balancing) -> Balancer:
    return build_balancer(BalancingConfig(method=method), [False] * 3)


def test_famo_gives_nothing_to_a_task_that_the_batch_holds_no_label_of_and_the_others_their_own() -> None:
    assert of_three("famo").weights(MISSING).tolist() == pytest.approx([2 / 3, 0.0, 4 / 3])


@pytest.mark.parametrize("method", ["uncertainty", "famo", "gradnorm"])
def test_a_batch_without_a_label_of_a_task_does_not_move_its_weight(method: Balancing) -> None:
    own = of_three(method)
    own.combine(torch.diag(MISSING), 0)
    own.learn(MISSING, MISSING * torch.tensor([0.5, 1.0, 0.9]))
    (weight,) = own.parameters()
    assert weight.grad is not None
    assert float(weight.grad[1]) == 0.0
    assert float(weight.grad[0]) != 0.0 and float(weight.grad[2]) != 0.0


def test_gradnorm_takes_a_tasks_first_loss_from_the_first_batch_that_has_one() -> None:
    own = of_three("gradnorm")
    for losses in (MISSING, torch.tensor([1.0, 3.0, 1.0]), torch.ones(3)):
        own.combine(torch.eye(3), 0)
        own.learn(losses, losses)
    assert isinstance(own, GradNorm)
    assert own.first_T.tolist() == [2.0, 3.0, 1.0]


def test_cagrad_of_a_batch_without_one_tasks_labels_is_that_of_the_others() -> None:
    gradients = torch.tensor([[1.0, 0.2, 0.0], [0.0, 0.0, 0.0], [-0.6, 0.1, 2.0]])
    assert of_three("cagrad").combine(gradients, 0).tolist() == pytest.approx(balancer("cagrad").combine(gradients[[0, 2]], 0).tolist())


def test_famo_cannot_take_a_batch_in_parts() -> None:
    with pytest.raises(ConfigError, match=r"^train\.micro_batch_size cannot be set with balancing famo"):
        load("tiny", ["train.micro_batch_size=8", "train.balancing.method=famo"])
