"""The joint model: shapes of every configuration, missing inputs, tasks left out, seeded losses, any number of workers."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from model_learners import EVERYTHING, Together, in_threads, learner, with_train
from model_samples import NUM_PRODUCTS, sample_catalogue, sample_config, sample_examples
from numpy.typing import NDArray
from torch import Tensor

from guidelens.config import TASKS, Config, ExtraTask, TaskName
from guidelens.errors import InputError
from guidelens.models.crosses import CrossLayers
from guidelens.models.experts import expert_groups
from guidelens.models.gates import PersonalGates
from guidelens.models.inputs import NUM_VALUES
from guidelens.models.items import REDUCED_DIM
from guidelens.models.losses import TERM_TASK, TERM_WEIGHT, TERMS, Term
from guidelens.models.noise import Noise
from guidelens.models.target_attention import TargetAttention
from guidelens.training.checkpoints import load_learner, save_learner
from guidelens.training.data import FitData, FitJob, Place, controls
from guidelens.training.learner import Learner
from guidelens.training.terms import Terms
from guidelens.training.warm_start import WarmStart, warm

GOLDEN = Path(__file__).parents[1] / "golden" / "losses_first_steps.json"


@torch.no_grad()
def totals(own: Learner, rows: NDArray[np.int64]) -> dict[str, float]:
    return {name: float(term.total) for name, term in own.terms(rows, slice(0, len(rows)), None).items()}


@pytest.mark.parametrize(
    "choices",
    [
        {"fusion": "concat", "sharing": "single_task", "sequence": "mean"},
        {"fusion": "weighted", "sharing": "shared_bottom", "sequence": "gru"},
        {"fusion": "attention", "sharing": "mmoe", "sequence": "attention"},
        {"sharing": "mmoe", "expert_norm": True},
        {"sharing": "ple", "num_task_experts": 2},
        {"sharing": "ple", "num_expert_levels": 2, "expert_norm": True},
        {"target_attention": True},
        {"cross_layers": 2, "cross_rank": 4},
        {"personal_gates": True},
        {"sharing": "ple", "target_attention": True, "cross_layers": 1, "personal_gates": True, "without": ["x1"]},
    ],
)
def test_every_configuration_learns(choices: dict[str, object]) -> None:
    own = learner(sample_config(**choices))
    first = own.epoch(0)
    for epoch in range(1, 4):
        last = own.epoch(epoch)
    assert set(first) == set(TERMS)
    assert own.objective(last) < own.objective(first)


@pytest.mark.parametrize("without", ["x1", "x2", "x3", "frame", "query"])
def test_a_model_without_a_modality_does_not_read_it(without: str) -> None:
    own = learner(sample_config(without=[without]))
    rows = np.arange(len(own.terms.data.context))
    before = totals(own, rows)
    context, plans = own.terms.data.context, own.terms.data.plans
    changed = {
        "x1": {"windows_RF": context.windows_RF + 1, "profile_RF": context.profile_RF + 1, "recent_RHF": context.recent_RHF + 1},
        "x3": {"ar_RF": context.ar_RF + 1},
        "frame": {"frame_R": torch.where(context.frame_R >= 0, (context.frame_R + 1) % 9, -1)},
        "query": {"query_R": torch.where(context.query_R >= 0, (context.query_R + 1) % 6, -1)},
        "x2": {},
    }[without]
    own.terms.data = dataclasses.replace(own.terms.data, context=dataclasses.replace(context, **changed))
    if without == "x2":
        items = own.terms.items
        own.terms.items = dataclasses.replace(items, image_NR=items.image_NR + 1, text_NR=items.text_NR + 1, fields_NC=items.fields_NC + 1)
    if without == "x3":
        own.terms.data = dataclasses.replace(own.terms.data, plans=dataclasses.replace(plans, view_RS=plans.view_RS + 1, outcomes_RS=plans.outcomes_RS * 0))
    after = totals(own, rows)
    assert after == pytest.approx(before, rel=1e-5)


def test_rows_that_lack_every_input_give_finite_scores() -> None:
    own = learner(sample_config())
    nothing = dataclasses.replace(sample_examples(8), packed=np.full(8, None, dtype=object), frame_row=np.full(8, -1, np.int32))
    nothing = dataclasses.replace(nothing, query_row=nothing.frame_row, focus_row=nothing.frame_row, plan_row=nothing.frame_row)
    own.terms.data = FitData.of(nothing, sample_catalogue(), own.job.model.num_profile_buckets)
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
    torch.stack(list(zero._losses(left, zero.terms.counts(rows)).values())).sum().backward()
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


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("losses", sample_config()),
        ("at_one_pace_without_noise", with_train(likeness_pace=1.0, model=sample_config(content_noise=0.0).train.model)),
    ],
)
def test_the_first_seeded_steps_have_the_golden_losses(name: str, config: Config) -> None:
    own = learner(config)
    losses = []
    for step in range(3):
        sums = own.step(own.train_rows[step * 20 : step * 20 + 20], step)
        losses.append([round(float(total / max(count, 1)), 4) for total, count in zip(sums[0], sums[1], strict=True)])
    assert losses == pytest.approx(np.array(json.loads(GOLDEN.read_text())[name]), abs=2e-3)


@pytest.mark.parametrize("num_workers", [2, 3])
def test_any_number_of_workers_takes_the_steps_of_one(num_workers: int) -> None:
    config = sample_config()
    one = learner(config)
    expected = [one.epoch(epoch) for epoch in range(2)]
    together = Together(num_workers)
    workers = [learner(config, place=together.place(rank), reduce=together.reduce_of(rank)) for rank in range(num_workers)]
    for found in in_threads([lambda own=own: [own.epoch(epoch) for epoch in range(2)] for own in workers]):
        for mine, alone_epoch in zip(found, expected, strict=True):
            assert mine == pytest.approx(alone_epoch, rel=2e-5)
    for name, value in one.model.state_dict().items():
        assert torch.allclose(value, workers[0].model.state_dict()[name], atol=2e-4), name


def test_controls_are_one_task_each_on_experts_of_their_own() -> None:
    jobs = controls(sample_config().train)
    assert [job.name for job in jobs] == list(TASKS)
    assert all(sum(job.lambdas.values()) == job.lambdas[job.name] == 1.0 for job in jobs)
    assert {job.model.sharing for job in jobs} == {"single_task"}


def test_a_sampled_softmax_scores_what_was_shown_and_corrects_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guidelens.training.terms.SAMPLE_SOFTMAX_ABOVE", 4)
    monkeypatch.setattr("guidelens.training.terms.NUM_SAMPLED", 3)
    own = learner(sample_config())
    rows = torch.from_numpy(own.train_rows[:2])
    columns, column_of_N, correction = own.terms.columns(rows, Noise(0, 2, slice(0, 2)))
    shown = own.data.slates.rows_RK[rows]
    assert set(shown[shown >= 0].tolist()) <= set(columns.tolist())
    assert bool((columns[column_of_N[columns]] == columns).all())
    num_drawn = int((correction > 0).sum())
    assert num_drawn == 0 or float(correction.max()) == pytest.approx(np.log(NUM_PRODUCTS / num_drawn), rel=1e-5)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_a_batch_taken_in_parts_makes_the_step_of_the_whole(size: int) -> None:
    whole, parts = learner(sample_config()), learner(with_train(micro_batch_size=size))
    rows = whole.train_rows[:40]
    assert torch.allclose(whole.step(rows, 0), parts.step(rows, 0), rtol=1e-5)
    for (name, one), other in zip(whole.model.named_parameters(), parts.model.parameters(), strict=True):
        if one.grad is not None:
            assert other.grad is not None and torch.allclose(one.grad, other.grad, atol=2e-6), name


def test_signals_are_taken_in_the_parts_that_steps_are_and_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a whole batch does not fit into memory, what is measured at an epoch's end must not need it there."""
    whole, parts = learner(sample_config()), learner(with_train(micro_batch_size=7))
    expected, sizes, terms = whole.signals(), [], Terms.__call__

    def counted(self: Terms, rows_G: NDArray[np.int64], mine: slice, noise: Noise | None) -> dict[str, Term]:
        sizes.append(mine.stop - mine.start)
        return terms(self, rows_G, mine, noise)

    monkeypatch.setattr(Terms, "__call__", counted)
    assert parts.signals() == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert max(sizes) == 7


def test_the_weights_told_of_famo_are_those_its_losses_get() -> None:
    """At its start it weighs by the inverse of the losses, so that all weigh alike."""
    own = learner(with_train(balancing={"method": "famo"}))
    found, rows = own.signals(), own.train_rows[: own.config.global_batch_size]
    losses = own._losses(own._terms(rows, slice(0, len(rows)), 0), own.terms.counts(rows))
    weighted = [found[f"task_weight.{task}"] * float(loss.detach()) for task, loss in losses.items()]
    assert weighted == pytest.approx([weighted[0]] * 3, rel=1e-4)


def test_labels_counted_ahead_are_those_that_the_terms_have() -> None:
    own = learner(sample_config(), extra={"cart": ExtraTask(label="carts")})
    rows = own.train_rows[:50]
    assert {name: float(term.count) for name, term in own.terms(rows, slice(0, 50), None).items()} == own.terms.counts(rows)


def test_bf16_steps_end_near_those_of_fp32() -> None:
    full, half = learner(sample_config()), learner(with_train(precision="bf16"))
    for epoch in range(3):
        wanted, found = full.epoch(epoch), half.epoch(epoch)
    assert full.objective(wanted) != half.objective(found)
    assert half.objective(found) == pytest.approx(full.objective(wanted), rel=0.05)


@pytest.mark.parametrize("task", [ExtraTask(label="carts"), ExtraTask(label="stay_ms", loss="mse")])
def test_a_fourth_task_is_one_entry_of_the_config_and_learns(task: ExtraTask) -> None:
    own = learner(with_train(epochs=8, learning_rate=0.01), extra={"fourth": task})
    labels = own.data.visits_RKV
    labels[:] = (own.data.slates.click_RK * 3)[:, :, None]
    first = own.epoch(0)
    for epoch in range(1, 8):
        last = own.epoch(epoch)
    assert last["fourth"] < 0.8 * first["fourth"]
    assert {"softmax", "interest", "plan"} <= set(last)


def test_what_a_visit_brought_reaches_no_input() -> None:
    """The labels of added tasks may change as they like: the other tasks' losses stay what they were."""
    own = learner(sample_config(), extra={"fourth": ExtraTask(label="carts")})
    rows = np.arange(40)
    before = totals(own, rows)
    own.data.visits_RKV.fill_(7.0)
    after = totals(own, rows)
    assert before.pop("fourth") != after.pop("fourth")
    assert before == after


def test_normalized_experts_are_of_like_size_whatever_the_size_of_their_weights() -> None:
    """An expert a hundred times as loud as another drowns it; normalized, the two are heard alike, and neither gives zeros."""
    loud = torch.logspace(-1, 1, 2)
    spreads = {}
    for normalized in (True, False):
        experts = learner(sample_config(expert_norm=normalized)).model.heads.experts
        before = torch.randn(64, experts.count, experts.width, generator=torch.Generator().manual_seed(0)) * loud[:, None]
        hidden = experts._activated(before.flatten(1), None).detach()
        spreads[normalized] = float(hidden.std(dim=(0, 2))[1] / hidden.std(dim=(0, 2))[0])
    assert spreads[True] == pytest.approx(1.0, abs=0.1)
    assert spreads[False] > 50


def test_signals_name_every_task_and_expert() -> None:
    own = learner(sample_config(sharing="ple"))
    own.epoch(0)
    signals = own.signals()
    assert signals["gradient_norm.plan"] > 0
    assert -1 <= signals["gradient_cosine.recommendation.interest"] <= 1
    shares = [value for name, value in signals.items() if name.startswith("expert_share.click.")]
    assert len(shares) == own.model.heads.experts.count
    assert sum(shares) == pytest.approx(1.0, abs=1e-5)
    assert signals["step_seconds.forward"] > 0
    assert own.signals().keys().isdisjoint({"step_seconds.forward"})


def test_a_tasks_gradient_signal_is_that_of_its_loss_alone() -> None:
    own = learner(sample_config())
    rows = own.train_rows[:64]
    interest = own._losses(own._terms(rows, slice(0, 64), 0), own.terms.counts(rows))["interest"]
    interest.backward()
    norm = torch.cat([p.grad.reshape(-1) for p in own.model.shared_parameters().values() if p.grad is not None]).norm()
    assert own.signals()["gradient_norm.interest"] == pytest.approx(float(norm), rel=1e-4)


@torch.no_grad()
def test_ple_gives_a_task_no_other_tasks_experts() -> None:
    own = learner(sample_config(sharing="ple", num_task_experts=2))
    experts = own.model.heads.experts
    shares = experts.shares(torch.randn(5, experts.first.out_features))
    assert shares is not None
    groups = expert_groups(own.job.model, len(experts.tasks))
    for task in range(len(experts.tasks)):
        foreign = [number for number, group in enumerate(groups) if group not in (task, len(experts.tasks))]
        assert float(shares[:, task, foreign].max()) == 0.0


def test_cross_layers_are_the_papers_formula() -> None:
    layers, x = CrossLayers(6, 2, 3), torch.randn(4, 6)
    expected = x
    for down, up in zip(layers.down, layers.up, strict=True):
        expected = x * (expected @ down.weight.T @ up.weight.T + up.bias) + expected
    assert torch.allclose(layers(x), expected, atol=1e-6)


@torch.no_grad()
def test_personal_gates_change_nothing_before_training_and_differ_by_shopper_after() -> None:
    gates = PersonalGates(3, 4, ("one", "two"))
    prior = torch.randn(2, 3)
    assert all(torch.equal(gate, torch.ones(2, 1, 4)) for gate in gates(prior, ("two", "one")))
    torch.nn.init.normal_(gates.second.weight)
    (gate,) = gates(prior, ("two",))
    assert not torch.allclose(gate[0], gate[1])
    assert float(gate.min()) > 0 and float(gate.max()) < 2


def test_target_attention_ignores_visits_that_are_not_there() -> None:
    attention, items = TargetAttention(8), torch.randn(5, 8)
    visited, values = torch.tensor([[1, 2, -1]]), torch.randn(1, 3, NUM_VALUES)
    before = attention(items, torch.tensor([[0, 4]]), visited, values)
    values[0, 2] += 100
    assert torch.equal(attention(items, torch.tensor([[0, 4]]), visited, values), before)
    assert not torch.allclose(before[0, 0], before[0, 1])


def test_a_warm_start_moves_vectors_by_product_id_and_refuses_another_shape() -> None:
    own = learner(sample_config())
    own.epoch(0)
    ids = [f"p-{number:02d}" for number in range(NUM_PRODUCTS)]
    start = WarmStart.of(own.model, ids)
    fresh = learner(sample_config()).model
    warmed = warm(fresh, start, ["p-new", *ids[1:][::-1]])
    assert torch.equal(warmed.tower.ids.weight[1], own.model.tower.ids.weight[NUM_PRODUCTS - 1])
    assert torch.equal(warmed.decoder.out.weight, own.model.decoder.out.weight)
    assert warmed.bias[0].item() == pytest.approx(float(own.model.bias.detach().mean()))
    with pytest.raises(InputError, match="same shape"):
        warm(learner(sample_config(width=32)).model, start, ids)


def test_the_forward_pass_makes_its_tensors_where_the_weights_are() -> None:
    """On the meta device any tensor made on the CPU would be refused, as it would be on a GPU."""
    own = learner(sample_config(sharing="ple", target_attention=True, personal_gates=True, cross_layers=1))
    rows, meta = torch.arange(6), torch.device("meta")
    data = dataclasses.replace(own.data, context=own.data.context.take(rows), plans=own.data.plans.take(rows), slates=own.data.slates.take(rows)).to(meta)
    model = own.model.to(meta)
    moved = {name: value.to(meta) for name, value in vars(own.terms.items).items() if isinstance(value, Tensor)}
    items = dataclasses.replace(own.terms.items, **moved)
    items_ND = model.items(items)
    looked = model.look(torch.zeros(6, REDUCED_DIM, device=meta), torch.zeros(6, REDUCED_DIM, device=meta), data.context)
    encoded = model.encode(data.context, looked, items_ND)
    logits = model.retrieval(encoded, items, items_ND)
    pairs = model.pairs(encoded, items, items_ND, data.slates.rows_RK, logits[:, : data.slates.rows_RK.shape[1]])
    plan = model.plan(encoded, items, items_ND, data.plans, own.data.allowed_RSA[rows].to(meta))
    assert {logits.device.type, pairs.click.device.type, plan.device.type} == {"meta"}


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small shop's catalogue counts as a large one: a step scores a sample of it."""
    monkeypatch.setattr("guidelens.training.terms.SAMPLE_SOFTMAX_ABOVE", 4)
    monkeypatch.setattr("guidelens.training.terms.NUM_SAMPLED", 3)


def test_a_part_of_the_catalogue_gives_the_losses_and_gradients_of_all_of_it(large: None, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, part = learner(sample_config(dropout=0.0)), learner(sample_config(dropout=0.0))
    monkeypatch.setattr(whole.terms, "_part", lambda rows_G, mine, columns: whole.terms._whole(rows_G[mine], columns))
    rows = whole.train_rows[:3]
    found = {}
    for own in (whole, part):
        losses = own._losses(own._terms(rows, slice(0, 3), 0), own.terms.counts(rows))
        torch.stack(list(losses.values())).sum().backward()
        found[own] = {task: float(loss.detach()) for task, loss in losses.items()}
    assert found[part] == pytest.approx(found[whole], rel=1e-5)
    gradient = part.model.tower.ids.weight.grad
    assert gradient is not None and gradient.is_sparse
    for (name, one), other in zip(whole.model.named_parameters(), part.model.parameters(), strict=True):
        if one.grad is not None:
            assert other.grad is not None and torch.allclose(one.grad, other.grad.to_dense(), atol=1e-6), name


def test_a_step_moves_no_id_vector_that_it_did_not_need(large: None) -> None:
    own = learner(sample_config())
    before = own.model.tower.ids.weight.detach().clone()
    own.step(own.train_rows[:1], 0)
    moved = (own.model.tower.ids.weight.detach() != before).any(dim=1)
    assert 0 < int(moved.sum()) < NUM_PRODUCTS


def test_two_workers_take_the_steps_of_one_on_a_part_of_the_catalogue(large: None) -> None:
    config, together = sample_config(), Together(2)
    one = learner(config)
    expected = [one.epoch(epoch) for epoch in range(2)]
    workers = [learner(config, place=together.place(rank), reduce=together.reduce_of(rank)) for rank in range(2)]
    for found in in_threads([lambda own=own: [own.epoch(epoch) for epoch in range(2)] for own in workers]):
        for mine, alone in zip(found, expected, strict=True):
            assert mine == pytest.approx(alone, rel=2e-5)
    assert torch.allclose(one.model.tower.ids.weight, workers[1].model.tower.ids.weight, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"balancing": {"method": "famo"}}, {"balancing": {"method": "gradnorm"}}])
def test_going_on_from_a_checkpoint_takes_the_very_steps_of_not_stopping(large: None, tmp_path: Path, settings: dict[str, object]) -> None:
    undisturbed, stopped = learner(with_train(**settings)), learner(with_train(**settings))
    undisturbed.epoch(0), stopped.epoch(0)
    save_learner(stopped, tmp_path)
    again = learner(with_train(**settings))
    load_learner(again, tmp_path)
    assert undisturbed.epoch(1) == again.epoch(1)
    for (name, one), other in zip(undisturbed.model.state_dict().items(), again.model.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize("size", ["small", "large"])
def test_a_product_that_no_training_slate_showed_is_not_learned_to_be_unwanted(monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    if size == "large":
        monkeypatch.setattr("guidelens.training.terms.SAMPLE_SOFTMAX_ABOVE", 4)
    examples, new = sample_examples(120), 3
    hidden_RK = (examples.slate_rows == new) & (examples.split == "train")[:, None]
    examples = dataclasses.replace(examples, slate_rows=np.where(hidden_RK, -1, examples.slate_rows).astype(np.int32), click=examples.click * ~hidden_RK)
    config = sample_config()
    data = FitData.of(examples, sample_catalogue(), config.train.model.num_profile_buckets)
    own = Learner(FitJob(name="guide", lambdas=EVERYTHING, model=config.train.model), data, config.train, 0, Place(), lambda _tensor: None)
    own.epoch(0)
    moved = own.model.bias.detach() != 0
    assert not moved[new] and int(moved.sum()) == NUM_PRODUCTS - 1
    assert own.terms.columns(torch.arange(3), None).rows is None, "all are scored all the same"
    assert np.isfinite(own.epoch(1)["softmax"])
