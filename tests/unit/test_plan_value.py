"""The closed-loop value of plans: a model whose preferences are set by hand earns what a fixed order of the same steps earns in the shop."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from fit_samples import write_fit
from model_samples import sample_examples

from guidelens.config import WorldSize
from guidelens.data.examples import Examples
from guidelens.errors import InputError
from guidelens.evaluation.bootstrap import Interval
from guidelens.evaluation.guide import Draws
from guidelens.evaluation.plan_policies import ActedSteps, FollowedPlans, GreedyGuide
from guidelens.evaluation.plan_value import PlanValues, measure_values, require_its_world
from guidelens.evaluation.plans import measure_likeness, on_logged_histories, open_loop
from guidelens.inference.scorer import GuideScorer
from guidelens.schemas.steps import MAX_STEPS, NUM_STEPS, STEP_INDEX
from guidelens.world import Observed, World, generate
from guidelens.world.policy import SCRIPTS, PlanPolicy

SIZE = WorldSize(num_products=12, num_shoppers=60, num_sessions=600, num_frames=20, views_per_product=2, num_days=7, reference_sessions=5_000)
DRAWS = Draws(20, 3)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    generate(SIZE, 11, root, num_workers=1)
    return World.open(root)


def prefers(fit: Path, order: list[int]) -> GuideScorer:
    """A model that likes the steps in this order, whoever asks and whatever happened."""
    scorer = GuideScorer.load(fit)
    with torch.no_grad():
        scorer.model.decoder.out.weight.zero_()
        scorer.model.decoder.out.bias[torch.tensor(order)] = torch.linspace(6, -6, NUM_STEPS)
    return scorer


def planned_in(world: World, rows: list[int]) -> Examples:
    """Rows of these AR sessions of the world, and one of a session it does not know."""
    names = [world.ar_session_ids[row] for row in rows]
    found = sample_examples(len(names) + 1)
    return dataclasses.replace(found, session_id=np.array([*names, "elsewhere"], dtype=object))


def seen(rows: list[int], allowed: list[str]) -> Observed:
    """The start of sessions."""
    blank = np.full((len(rows), MAX_STEPS), -1, dtype=np.int8)
    nothing = np.zeros((len(rows), MAX_STEPS))
    mask = np.isin(np.arange(NUM_STEPS), [STEP_INDEX[step] for step in allowed])
    return Observed(np.array(rows), blank, blank, nothing.astype(np.float32), nothing.astype(np.int16), 0, np.broadcast_to(mask, (len(rows), NUM_STEPS)).copy())


def test_a_guide_takes_its_likeliest_step_of_those_that_are_allowed(tmp_path: Path) -> None:
    first = [STEP_INDEX[step] for step in ("offer_coupon", "show_reviews", "show_info")]
    guide = GreedyGuide(prefers(write_fit(tmp_path / "fit"), [*first, *(step for step in range(NUM_STEPS) if step not in first)]), sample_examples(4))
    assert guide.act(seen([0, 2], ["offer_coupon", "show_info"])).tolist() == [STEP_INDEX["offer_coupon"]] * 2
    assert guide.act(seen([0, 2], ["show_info", "show_reviews", "stay_quiet"])).tolist() == [STEP_INDEX["show_reviews"]] * 2


def test_each_session_is_answered_with_its_own_shopper_and_product(tmp_path: Path) -> None:
    scorer, planned = GuideScorer.load(write_fit(tmp_path / "fit")), sample_examples(40)
    with torch.no_grad():
        scorer.model.heads.experts.first.weight.mul_(50)  # a model of one epoch hardly tells shoppers apart
        scorer.model.decoder.out.weight.mul_(50)
    every = [str(step) for step in STEP_INDEX]
    alone = [int(GreedyGuide(scorer, planned.take(np.array([row]))).act(seen([0], every))[0]) for row in range(40)]
    assert len(set(alone)) > 1, "all rows are answered alike: the test shows nothing"
    back = list(reversed(range(40)))
    assert GreedyGuide(scorer, planned).act(seen(back, every)).tolist() == alone[::-1]


def test_a_model_that_follows_an_order_earns_what_that_order_earns(world: World, tmp_path: Path) -> None:
    order = [*SCRIPTS["room"], *(step for step in range(NUM_STEPS) if step not in SCRIPTS["room"])]
    scorer, contrary = prefers(write_fit(tmp_path / "fit"), order), prefers(tmp_path / "fit", order[::-1])
    rows = list(range(len(world.ar_session_ids)))[::-2]
    planned = planned_in(world, rows)
    found = measure_values(world, scorer, {"single_task": contrary}, planned, rollouts=2, draws=DRAWS, beam=3)
    assert found is not None
    sessions = world.ar_sessions([world.ar_session_ids[row] for row in rows])

    def earned(steps: list[int]) -> np.ndarray:
        kinds = int(sessions.hidden.kind.max()) + 1
        return np.asarray(world.value(PlanPolicy(np.tile(np.array(steps), (kinds, 1)), sessions.hidden.kind), sessions, DRAWS.seed, 2))

    ours, script = earned(order), world.value(world.script_policy(sessions), sessions, DRAWS.seed, 2)
    assert found.sessions == len(rows)
    assert found.intervals["model"].value == pytest.approx(ours.mean())
    assert found.intervals["single_task"].value == pytest.approx(earned(order[::-1]).mean())
    assert found.intervals["script"].value == pytest.approx(script.mean())
    assert found.intervals["oracle"].value == pytest.approx(world.oracle_value(sessions).mean())
    assert found.intervals["open_loop"].value == pytest.approx(ours.mean()), "an order of steps does not heed what it sees"
    assert set(found.gain_over) == set(found.intervals) - {"model", "open_loop", "beam"}
    assert found.gain_over["script"].value == pytest.approx((ours - script).mean())
    assert found.intervals["model"].value != pytest.approx(found.intervals["single_task"].value)


def test_sessions_of_another_shop_have_no_value(world: World, tmp_path: Path) -> None:
    scorer = GuideScorer.load(write_fit(tmp_path / "fit"))
    assert measure_values(world, scorer, {}, planned_in(world, []), rollouts=1, draws=DRAWS) is None


def test_a_shop_of_another_seed_is_not_taken_for_the_logs_own(world: World, tmp_path: Path) -> None:
    """It has sessions of the same names: values in it would be of other products and shoppers."""
    generate(SIZE, 12, tmp_path, num_workers=1)
    other, rows = World.open(tmp_path), list(range(len(world.ar_session_ids)))
    sessions = world.ar_sessions()
    about = np.array([world.product_ids.index(product) for product in sessions.product_ids], dtype=np.int32)
    planned = dataclasses.replace(planned_in(world, rows).take(np.arange(len(rows))), plan_row=about)
    assert set(world.ar_session_ids) & set(other.ar_session_ids)
    require_its_world(world, planned, world.product_ids)
    with pytest.raises(InputError, match=r"--world must be the folder that the log came from, got .*; give the log's own, or leave --world out"):
        require_its_world(other, planned, world.product_ids)
    strange = dataclasses.replace(planned, session_id=np.full(len(planned), "nobody", dtype=object))
    with pytest.raises(InputError, match="it has 0 by name"):
        require_its_world(world, strange, world.product_ids)


@pytest.mark.parametrize(("reference", "share"), [(50.0, 0.5), (20.0, 2.0), (10.0, None), (5.0, None)])
def test_the_gap_closed_is_a_share_of_what_the_reference_gains_over_the_log(reference: float, share: float | None) -> None:
    means = {"model": 30.0, "logging": 10.0, "reference": reference}
    intervals = {name: Interval(value=value, low=value, high=value, n=1, clusters=1) for name, value in means.items()}
    assert PlanValues(intervals, {}, 1).gap_closed == share


def test_plans_made_beforehand_earn_what_their_policy_earns_blind(world: World, tmp_path: Path) -> None:
    scorer = GuideScorer.load(write_fit(tmp_path / "fit"))
    rows = list(range(0, len(world.ar_session_ids), 9))
    planned = planned_in(world, rows).take(np.arange(len(rows)))
    sessions = world.ar_sessions(planned.session_id.tolist())
    blind = world.value(GreedyGuide(scorer, planned), sessions, 5, 2, closed_loop=False)
    plans = open_loop(scorer, planned, base_BA=sessions.base)
    assert world.value(FollowedPlans(plans), sessions, 5, 2, closed_loop=False) == pytest.approx(blind)


def test_the_script_is_like_itself_and_unlike_another_order(world: World, tmp_path: Path) -> None:
    """A log written by the script alone: its policy takes the same steps free and after each history, other orders do not."""
    scorer = GuideScorer.load(write_fit(tmp_path / "fit"))
    planned = planned_in(world, list(range(40))).take(np.arange(40))
    sessions = world.ar_sessions(planned.session_id.tolist())
    script = ActedSteps(world.script_policy(sessions), scorer.catalogue)
    steps = open_loop(script, planned)
    steps[:, 5:] = -1
    logged = dataclasses.replace(planned, steps=steps, outcomes=np.where(steps >= 0, 0, -1).astype(np.int8))
    same = measure_likeness(script, logged, on_logged_histories(script, logged))
    assert (same.free.step_accuracy, same.free.exact_match, same.free.match, same.forced.exact_match) == (1, 1, 1, 1)
    assert (same.step_distance, same.illegal, same.logged_length) == (0, 0, 5)
    quiet = prefers(tmp_path / "fit", [STEP_INDEX["stay_quiet"], *(step for step in range(NUM_STEPS) if step != STEP_INDEX["stay_quiet"])])
    other = measure_likeness(quiet, logged, on_logged_histories(quiet, logged))
    assert other.free.step_accuracy < 0.5
    assert other.step_distance > 0.3
    assert other.illegal == 0
