"""Several workers share out the products of a step, and the rows of their tables: the steps are those of one worker that has all."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from model_learners import Found, Together, in_threads, learner, with_train
from model_samples import NUM_PRODUCTS, sample_config
from safetensors.torch import load_file
from torch import Tensor

from guidelens.config import Config
from guidelens.models.balancing import BALANCERS
from guidelens.training.checkpoints import load_learner, save_learner
from guidelens.training.data import Place
from guidelens.training.learner import Learner
from guidelens.training.sharding import Shares, own_rows, whole_table


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small shop's catalogue counts as a large one: a step computes a part of it, and id vectors have sparse gradients."""
    monkeypatch.setattr("guidelens.training.terms.SAMPLE_SOFTMAX_ABOVE", 4)
    monkeypatch.setattr("guidelens.training.terms.NUM_SAMPLED", 3)


def workers_of(config: Config, num_workers: int) -> list[Learner]:
    together = Together(num_workers)
    return [learner(config, place=together.place(rank), reduce=together.reduce_of(rank)) for rank in range(num_workers)]


def trained(workers: list[Learner], epochs: int = 2) -> list[list[tuple[dict[str, float], dict[str, float]]]]:
    return in_threads([lambda own=own: [(own.epoch(epoch), own.validate()) for epoch in range(epochs)] for own in workers])


def assert_takes_the_steps_of_one(config: Config, num_workers: int, rel: float = 2e-5) -> list[Learner]:
    one = learner(config)
    expected = [(one.epoch(epoch), one.validate()) for epoch in range(2)]
    workers = workers_of(config, num_workers)
    for found in trained(workers):
        for (train, val), (one_train, one_val) in zip(found, expected, strict=True):
            assert train == pytest.approx(one_train, rel=rel)
            assert val == pytest.approx(one_val, rel=10 * rel)
    for name, value in one.model.state_dict().items():
        if name not in ("tower.ids.weight", "bias"):
            assert torch.allclose(value, workers[-1].model.state_dict()[name], atol=2e-4), name
    return workers


def in_all(workers: list[Learner], work: Callable[[Learner], Found]) -> list[Found]:
    return in_threads([lambda own=own: work(own) for own in workers])


@pytest.mark.parametrize("num_workers", [2, 3])
def test_workers_that_share_out_contents_take_the_steps_of_one(num_workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guidelens.training.terms.SHARE_CONTENT_FROM", 1)
    assert_takes_the_steps_of_one(sample_config(), num_workers)


def test_contents_of_a_part_are_shared_out_too(large: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guidelens.training.terms.SHARE_CONTENT_FROM", 1)
    assert_takes_the_steps_of_one(sample_config(), 2)


@pytest.mark.parametrize("num_workers", [2, 3])
@pytest.mark.parametrize("settings", [{}, {"micro_batch_size": 15}, {"model": sample_config(without=["x2"]).train.model.model_dump()}])
def test_workers_that_own_rows_take_the_steps_of_one(num_workers: int, settings: dict[str, object]) -> None:
    assert_takes_the_steps_of_one(with_train(sharding="rows", **settings), num_workers)


@pytest.mark.parametrize("choices", [{}, {"sharing": "ple", "num_expert_levels": 2}, {"sequence": "gru", "personal_gates": True, "cross_layers": 1}])
def test_a_worker_without_rows_of_a_batch_takes_its_step(large: None, choices: dict[str, object]) -> None:
    config = with_train(sharding="rows", model=sample_config(**choices).train.model.model_dump())
    one, workers = learner(config), workers_of(config, 2)
    expected = one.step(one.train_rows[:1], 0)
    for found in in_all(workers, lambda own: own.step(own.train_rows[:1], 0)):
        assert torch.allclose(found, expected, rtol=1e-5)
    assert torch.allclose(workers[0].model.heads.experts.first.weight, one.model.heads.experts.first.weight, atol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"micro_batch_size": 15}])
def test_workers_that_own_rows_take_the_steps_of_one_on_a_part_of_the_catalogue(large: None, settings: dict[str, object]) -> None:
    assert_takes_the_steps_of_one(with_train(sharding="rows", **settings), 2)


@pytest.mark.parametrize("method", BALANCERS)
def test_balancers_see_the_same_gradients_where_rows_are_owned(method: str, large: None) -> None:
    assert_takes_the_steps_of_one(with_train(sharding="rows", balancing={"method": method}), 2, rel=2e-4)


def test_gradients_are_clipped_by_the_norm_of_all_workers(large: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guidelens.training.learner.MAX_GRADIENT_NORM", 0.05)
    assert_takes_the_steps_of_one(with_train(sharding="rows"), 2)


def test_signals_of_workers_that_own_rows_are_those_of_one(large: None) -> None:
    one, workers = learner(sample_config()), workers_of(with_train(sharding="rows"), 2)
    expected = one.signals()
    for found in in_all(workers, lambda own: own.signals()):
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)
        assert found["gradient_norm.interest"] > 0


def test_each_worker_holds_its_share_of_tables_and_of_the_optimizers_state(large: None) -> None:
    replicated, owned = workers_of(sample_config(), 3), workers_of(with_train(sharding="rows"), 3)
    for workers in (replicated, owned):
        in_all(workers, lambda own: own.step(own.train_rows[:12], 0))
    for whole, part in zip(replicated, owned, strict=True):
        assert bytes_of_products(part) * 3 == bytes_of_products(whole) > 0
        assert len(part.model.tower.ids.weight) == len(part.model.bias) == NUM_PRODUCTS // 3
    assert torch.equal(torch.cat([own.model.bias for own in owned]).sort().values, replicated[0].model.bias.sort().values)


def bytes_of_products(own: Learner) -> int:
    """Of what has a row a product: id vectors and biases, their gradients, and what the optimizers keep for them."""
    kept = [value for optimizer in own.optimizers for name in ("tower.ids.weight", "bias") for value in moments(optimizer, own, name)]
    tables = [own.model.tower.ids.weight, own.model.bias, own.model.bias.grad, *kept]
    return sum(table.nbytes for table in tables if table is not None)


def moments(optimizer: torch.optim.Optimizer, own: Learner, name: str) -> list[Tensor]:
    state = optimizer.state.get(own.model.get_parameter(name), {})
    return [value for value in state.values() if isinstance(value, Tensor) and value.dim() > 0]


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 3)])
def test_a_checkpoint_goes_on_with_another_number_of_workers(before: int, after: int, tmp_path: Path, large: None) -> None:
    config = with_train(sharding="rows")
    first = workers_of(config, before)
    trained(first, epochs=1)
    in_all(first, lambda own: save_learner(own, tmp_path))
    undisturbed = in_all(first, lambda own: own.epoch(1))
    again = workers_of(config, after)
    in_all(again, lambda own: load_learner(own, tmp_path))
    for found in in_all(again, lambda own: own.epoch(1)):
        assert found == pytest.approx(undisturbed[0], rel=2e-5)


def test_a_checkpoint_of_owned_rows_holds_the_whole_tables(tmp_path: Path) -> None:
    workers = workers_of(with_train(sharding="rows"), 2)
    in_all(workers, lambda own: save_learner(own, tmp_path))
    saved, whole = load_file(tmp_path / "current.safetensors"), learner(sample_config()).model.state_dict()
    assert saved.keys() == whole.keys()
    assert all(torch.equal(saved[name], value) for name, value in whole.items())


@pytest.mark.parametrize(("num_rows", "chunk_values"), [(7, 1), (7, 8), (8, 100), (1, 4)])
def test_a_table_is_put_together_in_chunks(num_rows: int, chunk_values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guidelens.training.sharding.CHUNK_VALUES", chunk_values)
    table, together = torch.randn(num_rows, 3), Together(2)

    def put_together(rank: int) -> Tensor:
        return whole_table(own_rows(table, together.place(rank)), num_rows, together.place(rank), together.reduce_of(rank))

    first, second = in_threads([lambda rank=rank: put_together(rank) for rank in range(2)])
    assert torch.equal(first, table)
    assert len(second) == 0


def test_the_gradient_of_what_is_gathered_is_summed_over_workers() -> None:
    """Each worker weighs all vectors with its own number; a share's gradient holds both."""
    together, rows = Together(2), torch.tensor([4, 1, 3, 6, 0])

    def gradient_of(rank: int) -> tuple[Tensor, Tensor]:
        shares = Shares(Place(rank=rank, num_workers=2), together.reduce_of(rank), owns_rows=False)
        places = shares.own_places(rows)
        own = rows[places, None].float().requires_grad_()
        every = shares.gathered(own, places, len(rows))
        (every * (1 + 9 * rank)).sum().backward()
        assert own.grad is not None
        return every.detach().squeeze(1), own.grad

    for every, gradient in in_threads([lambda rank=rank: gradient_of(rank) for rank in range(2)]):
        assert torch.equal(every, rows.float())
        assert torch.equal(gradient, torch.full_like(gradient, 11.0))
