"""The joint model: shapes of every configuration, missing inputs, tasks left out, seeded losses, any number of workers."""

import dataclasses
import json
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from model_samples import NUM_PRODUCTS, sample_catalogue, sample_config, sample_examples
from numpy.typing import NDArray
from torch import Tensor

from guidelens.config import TASKS, Config, TaskName
from guidelens.models.losses import TERM_TASK, TERM_WEIGHT, TERMS
from guidelens.models.noise import Noise
from guidelens.training.steps import FitData, FitJob, Learner, Place, controls

GOLDEN = Path(__file__).parents[1] / "golden" / "losses_first_steps.json"
EVERYTHING: dict[TaskName, float] = {"recommendation": 1.0, "interest": 1.0, "plan": 1.0}


def alone(_tensor: Tensor) -> None:
    """What one worker sums over all workers."""


def learner(config: Config, lambdas: dict[TaskName, float] | None = None, place: Place | None = None, reduce: Callable[[Tensor], None] = alone) -> Learner:
    data = FitData.of(sample_examples(120), sample_catalogue(), config.train.model.num_profile_buckets)
    return Learner(FitJob(name="guide", lambdas=lambdas or EVERYTHING, model=config.train.model), data, config.train, 0, place or Place(), reduce)


@torch.no_grad()
def totals(own: Learner, rows: NDArray[np.int64]) -> dict[str, float]:
    return {name: float(term.total) for name, term in own.terms(rows, slice(0, len(rows)), None).items()}


@pytest.mark.parametrize("fusion", ["concat", "attention"])
@pytest.mark.parametrize("sharing", ["single_task", "shared_bottom", "mmoe"])
@pytest.mark.parametrize("sequence", ["mean", "gru", "attention"])
def test_every_configuration_learns(fusion: str, sharing: str, sequence: str) -> None:
    own = learner(sample_config(fusion=fusion, sharing=sharing, sequence=sequence))
    first = own.epoch(0)
    for epoch in range(1, 4):
        last = own.epoch(epoch)
    assert set(first) == set(TERMS)
    assert own.objective(last) < own.objective(first)


@pytest.mark.parametrize("without", ["x1", "x2", "x3", "frame", "query"])
def test_a_model_without_a_modality_does_not_read_it(without: str) -> None:
    own = learner(sample_config(without=[without]))
    rows = np.arange(len(own.data.context))
    before = totals(own, rows)
    context, plans = own.data.context, own.data.plans
    changed = {
        "x1": {"windows_RF": context.windows_RF + 1, "profile_RF": context.profile_RF + 1, "recent_RHF": context.recent_RHF + 1},
        "x3": {"ar_RF": context.ar_RF + 1},
        "frame": {"frame_R": torch.where(context.frame_R >= 0, (context.frame_R + 1) % 9, -1)},
        "query": {"query_R": torch.where(context.query_R >= 0, (context.query_R + 1) % 6, -1)},
        "x2": {},
    }[without]
    own.data = dataclasses.replace(own.data, context=dataclasses.replace(context, **changed))
    if without == "x2":
        own.items = dataclasses.replace(own.items, image_NR=own.items.image_NR + 1, text_NR=own.items.text_NR + 1, fields_NC=own.items.fields_NC + 1)
    if without == "x3":
        own.data = dataclasses.replace(own.data, plans=dataclasses.replace(plans, view_RS=plans.view_RS + 1, outcomes_RS=plans.outcomes_RS * 0))
    after = totals(own, rows)
    assert after == pytest.approx(before, rel=1e-5)


def test_rows_that_lack_every_input_give_finite_scores() -> None:
    own = learner(sample_config())
    nothing = dataclasses.replace(sample_examples(8), packed=np.full(8, None, dtype=object), frame_row=np.full(8, -1, np.int32))
    nothing = dataclasses.replace(nothing, query_row=nothing.frame_row, focus_row=nothing.frame_row, plan_row=nothing.frame_row)
    own.data = FitData.of(nothing, sample_catalogue(), own.job.model.num_profile_buckets)
    assert all(np.isfinite(value) for value in totals(own, np.arange(8)).values())


@pytest.mark.parametrize("left_out", TASKS)
def test_lambda_0_equals_leaving_the_task_out(left_out: TaskName) -> None:
    """The gradient at lambda 0 is that of the other tasks' losses alone, and the task's own terms are not even computed."""
    joint = learner(sample_config(), EVERYTHING)
    zero = learner(sample_config(), {task: 0.0 if task == left_out else 1.0 for task in TASKS})
    rows = zero.train_rows[:32]
    kept = {name: term for name, term in joint.terms(rows, slice(0, 32), None).items() if TERM_TASK[name] != left_out}
    sum(TERM_WEIGHT[name] * term.total / term.count for name, term in kept.items()).backward()
    left = zero.terms(rows, slice(0, 32), None)
    assert set(left) == set(kept)
    torch.autograd.backward(zero._loss(left, torch.tensor([float(left[name].count) if name in left else 0.0 for name in TERMS])))
    for (name, one), other in zip(joint.model.named_parameters(), zero.model.parameters(), strict=True):
        if other.grad is None:
            assert one.grad is None or not bool(one.grad.any()), name
        else:
            assert one.grad is not None and torch.allclose(one.grad, other.grad, atol=1e-6), name


def test_a_task_left_out_moves_none_of_its_own_weights() -> None:
    own = learner(sample_config(), {"recommendation": 1.0, "interest": 1.0, "plan": 0.0})
    before = {name: value.clone() for name, value in own.model.decoder.state_dict().items()}
    own.epoch(0)
    assert all(torch.equal(value, before[name]) for name, value in own.model.decoder.state_dict().items())


def test_the_first_seeded_steps_have_the_golden_losses() -> None:
    own = learner(sample_config())
    losses = []
    for step in range(3):
        sums = own.step(own.train_rows[step * 20 : step * 20 + 20], step)
        losses.append([round(float(total / max(count, 1)), 4) for total, count in zip(sums[0], sums[1], strict=True)])
    assert losses == pytest.approx(np.array(json.loads(GOLDEN.read_text())["losses"]), abs=2e-3)


class Together:
    """An all-reduce of threads: every worker adds its tensor, all get the sum, in rank order."""

    def __init__(self, num_workers: int) -> None:
        self.barrier = threading.Barrier(num_workers)
        self.parts: list[Tensor | None] = [None] * num_workers

    def reduce_of(self, rank: int) -> Callable[[Tensor], None]:
        def reduce(tensor: Tensor) -> None:
            self.parts[rank] = tensor.clone()
            self.barrier.wait(60)
            total = torch.stack([part for part in self.parts if part is not None]).sum(0)
            self.barrier.wait(60)
            tensor.copy_(total)

        return reduce


@pytest.mark.parametrize("num_workers", [2, 3])
def test_any_number_of_workers_takes_the_steps_of_one(num_workers: int) -> None:
    config = sample_config()
    one = learner(config)
    expected = [one.epoch(epoch) for epoch in range(2)]
    together = Together(num_workers)
    workers = [learner(config, place=Place(rank=rank, num_workers=num_workers), reduce=together.reduce_of(rank)) for rank in range(num_workers)]
    found: dict[int, list[dict[str, float]]] = {}
    threads = [
        threading.Thread(target=lambda rank=rank: found.update({rank: [workers[rank].epoch(epoch) for epoch in range(2)]})) for rank in range(num_workers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for rank in range(num_workers):
        for mine, alone_epoch in zip(found[rank], expected, strict=True):
            assert mine == pytest.approx(alone_epoch, rel=2e-5)
    for name, value in one.model.state_dict().items():
        assert torch.allclose(value, workers[0].model.state_dict()[name], atol=2e-4), name


def test_controls_are_one_task_each_on_experts_of_their_own() -> None:
    jobs = controls(sample_config().train)
    assert [job.name for job in jobs] == list(TASKS)
    assert all(sum(job.lambdas.values()) == job.lambdas[job.name] == 1.0 for job in jobs)
    assert {job.model.sharing for job in jobs} == {"single_task"}


def test_a_sampled_softmax_scores_what_was_shown_and_corrects_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guidelens.training.steps.SAMPLE_SOFTMAX_ABOVE", 4)
    monkeypatch.setattr("guidelens.training.steps.NUM_SAMPLED", 3)
    own = learner(sample_config())
    rows = torch.from_numpy(own.train_rows[:2])
    columns, column_of_N, correction = own._columns(rows, Noise(0, 2, slice(0, 2)))
    shown = own.data.slates.rows_RK[rows]
    assert set(shown[shown >= 0].tolist()) <= set(columns.tolist())
    assert bool((columns[column_of_N[columns]] == columns).all())
    num_drawn = int((correction > 0).sum())
    assert num_drawn == 0 or float(correction.max()) == pytest.approx(np.log(NUM_PRODUCTS / num_drawn), rel=1e-5)
