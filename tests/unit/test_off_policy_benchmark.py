"""The off-policy benchmark's own parts: the log's guide has weight 1 everywhere, a guide earns what the world says, figures are summed up rightly."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import off_policy
from benchmarks.off_policy import NoisyPlans, OffPolicyStudy, Shop, as_markdown, error_ratio, logged_plans, open_bandit, shop_of, summed_up, truth
from guidelens.config import WorldSize
from guidelens.evaluation.offpolicy import RECOMMENDED, OffPolicyEstimate, plan_weights
from guidelens.world import World, generate
from guidelens.world.latents import KINDS
from guidelens.world.parameters import WORLD_V1
from guidelens.world.policy import PlanPolicy, script_plans
from guidelens.world.rollout import run, session_draws

SIZE = WorldSize(num_products=12, num_shoppers=60, num_sessions=600, num_frames=20, views_per_product=2, num_days=7, reference_sessions=5_000)


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setattr(off_policy, "SIZE", SIZE)
    return shop_of(11)


def test_the_guide_that_wrote_the_log_has_weight_one_at_every_step(shop: Shop) -> None:
    log = logged_plans(shop, script_plans(KINDS), 1 - WORLD_V1.guide.script_share)
    log.check()
    assert plan_weights(log) == pytest.approx(np.ones(log.steps.shape))
    assert log.reward.sum(axis=1) == pytest.approx(shop.log.value)
    assert not np.allclose(plan_weights(logged_plans(shop, script_plans(KINDS), 0.0)), 1)


def test_a_noisy_guide_takes_each_step_as_often_as_it_says(shop: Shop) -> None:
    hidden = shop.hidden.take(np.zeros(4000, dtype=np.int64))
    own = np.random.default_rng(0).random((4000, 8))
    guide = NoisyPlans(PlanPolicy(script_plans(KINDS), hidden.kind), 0.5, own)
    taken = run(hidden, guide, session_draws(np.arange(4000), 0, "luck"), WORLD_V1.guide).steps[:, 0]
    counts = np.bincount(taken, minlength=12) / 4000
    expected = np.where(hidden.base[0], 0.5 / hidden.base[0].sum(), 0.0)
    expected[script_plans(KINDS)[hidden.kind[0], 0]] += 0.5
    assert counts == pytest.approx(expected, abs=0.03)


def test_the_truth_is_what_the_world_says(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same shop written to files and opened again; both means of many runs on luck of their own."""
    monkeypatch.setattr(off_policy, "ROLLOUTS", 60)
    generate(SIZE, 11, tmp_path, num_workers=1)
    world = World.open(tmp_path)
    sessions = world.ar_sessions()
    assert len(sessions) == shop.hidden.num
    values = np.stack([world.value(world.script_policy(sessions), sessions, seed) for seed in range(60)]).mean(axis=1)
    error = float(values.std(ddof=1)) / np.sqrt(30)  # of the difference of two such means
    assert abs(truth(shop, script_plans(KINDS), 0.0, 11) - float(values.mean())) < 3.5 * error


def estimate(name: str, value: float) -> OffPolicyEstimate:
    return OffPolicyEstimate(estimator=name, value=value, low=value - 1, high=value + 1, ess=10, sessions=20)


def test_coverage_and_errors_are_over_seeds() -> None:
    found = [("g", "l", 10.0, estimate(name, value)) for name, values in (("dr", (10.5, 12.0)), ("ips", (11.0, 14.0))) for value in values]
    rows = {row.estimator: row for row in summed_up(found)}
    assert rows["dr"].covered == 0.5 and rows["dr"].rmse == pytest.approx(np.sqrt((0.25 + 4) / 2)) and rows["dr"].width == 2
    assert error_ratio(found, "dr", "ips", 50).value == pytest.approx(0.5)


def test_what_the_tables_come_to_is_said_of_the_recommended_estimator_and_of_dr() -> None:
    values = {RECOMMENDED: (10.2, 10.2), "dr": (10.5, 12.0), "ips": (11.0, 14.0)}
    found = [("g", "l", 10.0, estimate(name, value)) for name, pair in values.items() for value in pair]
    ratios = {f"{name}_over_ips": error_ratio(found, one, "ips", 50) for name, one in (("dr", "dr"), ("recommended", RECOMMENDED))}
    study = OffPolicyStudy(
        machine="m", date="d", command="c", seeds=(1000, 1001), seconds_a_seed=1, recommended=RECOMMENDED, rows=summed_up(found), bandit=(), **ratios
    )
    page = as_markdown(study)
    assert f"`{RECOMMENDED}` holds the truth with fewer than 50 effective sessions (median) in 1.00 to 1.00" in page and "`dr` holds" in page
    assert "`dr` is lower in 1 of 1 tables (0.50 to 0.50 of it" in page


@pytest.mark.shared_data
def test_open_bandits_policies_are_valued_from_each_others_logs(shared_data: Path) -> None:
    rows = open_bandit(shared_data / "open-bandit")
    assert {(row.campaign, row.policy) for row in rows} == {("men", "bts"), ("men", "random"), ("women", "bts"), ("women", "random")}
    overlapping = [row for row in rows if row.estimator == "dr"]
    assert all(row.low <= row.on_policy.high and row.high >= row.on_policy.low for row in overlapping)
