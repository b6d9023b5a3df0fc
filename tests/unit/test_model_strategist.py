"""The decoder never leaves the grammar, sees no future, and decodes without outcomes."""

import dataclasses

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_samples import NUM_PRODUCTS, sample_catalogue, sample_config, sample_examples

from guidelens.data.examples import empty
from guidelens.models.inputs import plan_inputs
from guidelens.models.items import DEVICE_KINDS
from guidelens.models.strategist import NUM_ANSWERS, PlanDecoder, allowed_at_each, hide_outcomes, plan_state
from guidelens.schemas.steps import MAX_STEPS, NUM_STEPS, STEP_INDEX, STEPS, UNKNOWN_OUTCOME, PlanContext, allowed_next, violations

CATALOGUE = sample_catalogue()
SHAPE = sample_config().train.model


def decoder(seed: int = 0) -> PlanDecoder:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return PlanDecoder(SHAPE).eval()


@settings(max_examples=40)
@given(
    seed=st.integers(0, 1000),
    product=st.integers(-1, NUM_PRODUCTS - 1),
    device=st.sampled_from(["none", "ar", "ar+front"]),
    draws=st.lists(st.floats(0, 0.999), min_size=MAX_STEPS, max_size=MAX_STEPS),
)
@torch.no_grad()
def test_a_plan_drawn_from_the_decoder_is_always_legal(seed: int, product: int, device: str, draws: list[float]) -> None:
    """Whatever the weights and the draws: each drawn step has positive probability, and the plan breaks no rule."""
    rows = dataclasses.replace(empty(1), plan_row=np.array([product], np.int32), device=np.array([device], dtype=object))
    context = torch.randn(1, SHAPE.width, generator=torch.Generator().manual_seed(seed)) * 5
    model, steps = decoder(seed), rows.steps.copy()
    base = CATALOGUE.grammar_base(rows.plan_row, rows.device)
    for k, draw in enumerate(draws):
        if not allowed_next(base, steps, k).any():
            break
        plan = plan_inputs(dataclasses.replace(rows, steps=steps, outcomes=np.where(steps >= 0, 0, -1).astype(np.int8)), CATALOGUE)
        p = model(context, plan, allowed_at_each(plan))[0, k].exp().numpy()
        steps[0, k] = min(int(np.searchsorted(np.cumsum(p) / p.sum(), draw, side="right")), len(STEPS) - 1)
    kind = "none" if product < 0 else CATALOGUE.try_on[product]
    has_3d = product >= 0 and bool(CATALOGUE.has_3d_N[product])
    plan_context = PlanContext(try_on=kind, has_3d=has_3d, device=DEVICE_KINDS[device])
    assert violations(plan_context, [STEPS[step] for step in steps[0] if step >= 0]) == []


def test_the_state_before_a_step_knows_nothing_of_it_or_of_what_follows() -> None:
    plan = plan_inputs(sample_examples(60), CATALOGUE)
    for k in (0, 3):
        changed = dataclasses.replace(
            plan,
            steps_RS=torch.where(torch.arange(MAX_STEPS) >= k, (plan.steps_RS + 1) % 5, plan.steps_RS),
            outcomes_RS=torch.where(torch.arange(MAX_STEPS) >= k, 1, plan.outcomes_RS),
            view_RS=torch.where(torch.arange(MAX_STEPS) >= k, 9.0, plan.view_RS),
        )
        assert torch.equal(plan_state(plan)[:, : k + 1], plan_state(changed)[:, : k + 1])


@torch.no_grad()
def test_hidden_outcomes_change_nothing_that_is_decoded() -> None:
    plan = plan_inputs(sample_examples(60), CATALOGUE)
    other = dataclasses.replace(plan, outcomes_RS=torch.where(plan.outcomes_RS >= 0, 1, -1), view_RS=plan.view_RS + 1, gestures_RS=plan.gestures_RS + 1)
    context, never = torch.zeros(60, SHAPE.width), torch.zeros(60, dtype=torch.int64)
    model, allowed = decoder(), allowed_at_each(plan)
    hidden, told = (model(context, hide_outcomes(each, never), allowed) for each in (plan, other))
    assert torch.equal(hidden, told)
    assert not torch.equal(model(context, plan, allowed), model(context, other, allowed))


def test_outcomes_are_hidden_from_the_step_asked_for_on() -> None:
    plan = plan_inputs(sample_examples(30), CATALOGUE)
    hidden = hide_outcomes(plan, torch.full((30,), 2))
    assert torch.equal(hidden.outcomes_RS[:, :2], plan.outcomes_RS[:, :2])
    assert bool((hidden.outcomes_RS[:, 2:] == UNKNOWN_OUTCOME).all())
    assert float(hidden.view_RS[:, 2:].abs().sum()) == 0.0


def test_the_state_tells_which_step_met_which_response_and_what_a_question_was_answered() -> None:
    """By a hand count: info met with nothing, a question answered by three taps, reviews that led to the cart."""
    info, ask, reviews = (STEP_INDEX[name] for name in ("show_info", "ask_preference", "show_reviews"))
    rows = empty(1)
    steps, outcomes, gestures = rows.steps.copy(), rows.outcomes.copy(), rows.gestures.copy()
    steps[0, :3], outcomes[0, :3], gestures[0, :3] = [info, ask, reviews], [0, 1, 2], [5, 3, 1]
    state = plan_state(plan_inputs(dataclasses.replace(rows, steps=steps, outcomes=outcomes, gestures=gestures), CATALOGUE))[0]
    answers = state[:, -NUM_ANSWERS:]
    at_in_cart = state[:, -NUM_ANSWERS - MAX_STEPS : -NUM_ANSWERS]
    met = state[:, -NUM_ANSWERS - MAX_STEPS - 4 * NUM_STEPS : -NUM_ANSWERS - MAX_STEPS]
    assert [met[k].nonzero().flatten().tolist() for k in (0, 1, 2)] == [[], [info], [info, NUM_STEPS + ask]]
    liked = [info, NUM_STEPS + reviews, NUM_STEPS + ask]
    assert set(met[3].nonzero().flatten().tolist()) == {*liked, *(2 * NUM_STEPS + place for place in liked)}
    assert at_in_cart.sum(1).tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    assert int(at_in_cart[3].argmax()) == 3
    assert answers[:2].sum() == 0
    assert int(answers[2].argmax()) == 3
