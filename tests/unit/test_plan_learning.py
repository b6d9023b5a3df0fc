"""Values of steps, their models and what is made of them, against closed forms, other libraries and chains whose values are known."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_samples import sample_catalogue, sample_config, sample_examples
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge

from guidelens.config import PlanCosts, PlanLearning
from guidelens.models.outcomes import advantage_weights, with_targets
from guidelens.models.plans.choosing import choose_temperature, doubly_robust, preferences
from guidelens.models.plans.history import NUM_DYNAMIC, Surroundings, crossed, history_features
from guidelens.models.plans.logged import KEPT, LEFT, ON, LoggedSteps, logged_steps
from guidelens.models.plans.pooled import ByStep, Penalties, logistic, ridge
from guidelens.models.plans.values import fitted_q, step_values
from guidelens.schemas.steps import MAX_STEPS, NUM_STEPS, STEP_INDEX

INFO, CHECKOUT, QUIET = (STEP_INDEX[name] for name in ("show_info", "call_to_checkout", "stay_quiet"))
COSTS = PlanCosts()


def sample_rows(num: int, width: int, num_steps: int = NUM_STEPS, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.normal(size=(num, width)), np.ones((num, 1))], axis=1).astype(np.float32)
    return x, rng.integers(0, num_steps, num)


def chain(num: int = 3000, seed: int = 0) -> LoggedSteps:
    """Plans of two uniformly drawn steps: checkout sells with .6 after info and with .1 after quiet; at first it drives the shopper away."""
    rng = np.random.default_rng(seed)
    first, second = rng.choice([INFO, QUIET, CHECKOUT], num), rng.choice([INFO, CHECKOUT], num)
    second = np.where(first == INFO, rng.choice([QUIET, CHECKOUT], num), second)
    stays = first != CHECKOUT
    sold = rng.random(num) < np.where(second == CHECKOUT, np.where(first == INFO, 0.6, 0.1), 0.0)
    row = np.concatenate([np.arange(num), np.flatnonzero(stays)])
    index = np.concatenate([np.zeros(num, np.int64), np.ones(int(stays.sum()), np.int64)])
    action = np.concatenate([first, second[stays]])
    result = np.concatenate([np.where(stays, ON, LEFT), np.where(sold, KEPT, LEFT)[stays]])
    order = np.lexsort((index, row))
    row, index, action, result = row[order], index[order], action[order], result[order]
    last = np.where(index == 1, first[row], -1)
    state = np.concatenate([np.zeros((len(row), NUM_DYNAMIC)), last[:, None] == np.array([INFO, QUIET])], axis=1).astype(np.float32)
    state[np.arange(len(row)), index] = 1
    allowed = np.zeros((len(row), NUM_STEPS), dtype=np.bool_)
    allowed[:, [INFO, QUIET, CHECKOUT]] = True
    after = np.where((index == 0) & stays[row], np.arange(len(row)) + 1, -1)
    return LoggedSteps(
        state_MF=state,
        action_M=action,
        result_M=result,
        ended_M=result != ON,
        after_M=after,
        coupons_M=np.zeros(len(row), np.int64),
        index_M=index,
        allowed_MA=allowed,
        row_M=row,
        propensity_M=np.where(index == 0, 1 / 3, 1 / 2).astype(np.float64),
    )


def test_a_pooled_ridge_with_one_part_held_at_zero_is_scikit_learns() -> None:
    x, step = sample_rows(400, 5)
    y = x[:, 0] * step + np.random.default_rng(1).normal(size=400)
    rows = ByStep(x, step)
    shared = ridge(rows, rows.gram(np.ones(400)), y, Penalties(shared=2.0, own=1e9))
    sklearn = Ridge(alpha=2.0).fit(x[:, :-1], y)
    assert shared[3] == pytest.approx([*sklearn.coef_, sklearn.intercept_], abs=0.02)
    own = ridge(rows, rows.gram(np.ones(400)), y, Penalties(shared=1e9, own=2.0))
    mine = step == 3
    alone = Ridge(alpha=2.0).fit(x[mine, :-1], y[mine])
    assert own[3] == pytest.approx([*alone.coef_, alone.intercept_], abs=0.02)


def test_pooled_solutions_leave_no_slope() -> None:
    """At the ridge's and the logistic's minimum the penalized loss, written out plainly, cannot be lowered along any weight."""
    x, step = sample_rows(300, 3, num_steps=4)
    y = (np.random.default_rng(2).random(300) < 1 / (1 + np.exp(-x[:, 0] * (step - 1)))).astype(np.float64)
    rows, penalties = ByStep(x, step), Penalties(shared=3.0, own=7.0)
    for found, is_logistic in ((ridge(rows, rows.gram(np.ones(300)), y, penalties), False), (logistic(rows, y, penalties), True)):

        def loss(total: NDArray[np.float64], is_logistic: bool = is_logistic) -> float:
            # The best split of total weights into shared and own is closed-form: own = total - shared, shared = sum of total x own / (s + A own).
            shrink = np.array([1, 1, 1, 1e-3])
            shared = 7.0 * total.sum(axis=0) / (3.0 + 7.0 * NUM_STEPS)
            held = (shrink * (3.0 * shared**2 + 7.0 * ((total - shared) ** 2).sum(axis=0))).sum() / 2
            z = (x * total[step]).sum(axis=1)
            return float((np.logaddexp(0, z) - y * z).sum() if is_logistic else ((y - z) ** 2).sum() / 2) + float(held)

        at = loss(found)
        for place in ((0, 0), (1, 3), (2, 1), (3, 2)):
            for move in (-0.02, 0.02):
                moved = found.copy()
                moved[place] += move
                assert loss(moved) > at


def test_a_logistic_of_one_step_is_scikit_learns() -> None:
    x, _ = sample_rows(500, 3)
    y = (np.random.default_rng(4).random(500) < 1 / (1 + np.exp(-1 - x[:, 0]))).astype(np.float64)
    step = np.zeros(500, np.int64)
    found = logistic(ByStep(x, step), y, Penalties(shared=2.0, own=1e9))
    sklearn = LogisticRegression(C=0.5).fit(x[:, :-1], y)
    assert found[0] == pytest.approx([*sklearn.coef_[0], *sklearn.intercept_], abs=0.02)


def test_values_look_past_the_step_that_earns_nothing() -> None:
    """Info earns nothing itself but makes checkout sell: it is the best first step only with a look ahead."""
    steps = chain()
    everything = np.ones(len(steps), np.bool_)
    q = step_values(steps, everything, COSTS, 2, 0)
    first, after_info = steps.index_M == 0, (steps.index_M == 1) & (steps.state_MF[:, NUM_DYNAMIC] == 1)
    expected = 0.6 - COSTS.walkout * 0.4
    assert q[first, INFO].mean() == pytest.approx(expected, abs=0.08)
    assert q[after_info, CHECKOUT].mean() == pytest.approx(expected, abs=0.08)
    assert (q[first][:, [INFO, QUIET, CHECKOUT]].argmax(axis=1) == 0).all()
    short = step_values(steps, everything, COSTS, 0, 0)
    assert short[first, INFO].mean() < 0.1
    assert np.isneginf(q[:, STEP_INDEX["show_3d"]]).all()


def test_fitted_q_backs_up_through_every_sweep() -> None:
    """With a model that knows the chain exactly, n sweeps are n steps of value iteration."""

    class Exact:
        def __init__(self, steps: LoggedSteps) -> None:
            self.steps = steps

        def chances(self) -> NDArray[np.float64]:
            out = np.zeros((len(self.steps), NUM_STEPS, 4))
            last = self.steps.index_M == MAX_STEPS - 2
            out[:, INFO, KEPT] = np.where(last, 0.5, 0.0)
            out[:, INFO, ON] = 1 - out[:, INFO, KEPT]
            return out

        def follows(self, rows: NDArray[np.int64], value: NDArray[np.float64]) -> NDArray[np.float64]:
            out = np.zeros((len(self.steps), NUM_STEPS))
            out[rows, INFO] = value
            return out

    plan = np.arange(MAX_STEPS - 1)
    allowed = np.broadcast_to(np.arange(NUM_STEPS) == INFO, (len(plan), NUM_STEPS)).copy()
    zeros = np.zeros(len(plan), np.int64)
    steps = LoggedSteps(
        np.zeros((len(plan), 1), np.float32), zeros + INFO, zeros + ON, zeros > 0, np.append(plan[1:], -1), zeros, plan, allowed, zeros, np.ones(len(plan))
    )
    for sweeps in range(4):
        q = fitted_q(Exact(steps), steps, zeros == 0, COSTS, sweeps)[:, INFO]
        assert q.tolist() == [0.0] * (len(plan) - 1 - sweeps) + [0.5] * (sweeps + 1)


def test_the_doubly_robust_value_of_the_logging_policy_is_what_was_earned_whatever_the_values() -> None:
    steps = chain(400)
    logging = np.zeros((len(steps), NUM_STEPS))
    logging[np.arange(len(steps)), steps.action_M] = steps.propensity_M
    for q in (np.zeros((len(steps), NUM_STEPS)), np.random.default_rng(0).normal(size=(len(steps), NUM_STEPS))):
        told = doubly_robust(steps, preferences(np.zeros_like(q), np.eye(NUM_STEPS, dtype=bool)[steps.action_M], 1.0), np.zeros_like(q), COSTS)
        assert len(told) == 400
        plain = doubly_robust(dataclasses.replace(steps, propensity_M=np.ones(len(steps))), np.eye(NUM_STEPS)[steps.action_M], q, COSTS)
        assert plain == pytest.approx(steps.to_come(COSTS)[steps.index_M == 0])


def test_the_doubly_robust_value_is_right_with_wrong_step_values() -> None:
    steps = chain(30_000, 1)
    policy = np.zeros((len(steps), NUM_STEPS))
    policy[steps.index_M == 0, INFO] = 1
    policy[steps.index_M == 1, CHECKOUT] = 1
    for wrong in (0.0, 0.7):
        value = doubly_robust(steps, policy, np.full((len(steps), NUM_STEPS), wrong), COSTS)
        assert value.mean() == pytest.approx(0.6 - 0.4 * COSTS.walkout, abs=4 * value.std() / len(value) ** 0.5)


def test_the_temperature_is_the_sharp_one_where_the_log_speaks_clearly_and_the_middle_one_where_it_cannot() -> None:
    steps = chain(20_000, 2)
    q = step_values(steps, np.ones(len(steps), np.bool_), COSTS, 2, 0)
    everything = np.ones(len(steps), np.bool_)
    assert choose_temperature(steps, everything, q, COSTS, (0.01, 1.0, 10.0)) == 0.01
    assert choose_temperature(steps, everything, -np.where(steps.allowed_MA, q, np.inf), COSTS, (0.01, 1.0, 10.0)) == 10.0
    unknown = dataclasses.replace(steps, propensity_M=np.full(len(steps), np.nan))
    assert choose_temperature(unknown, everything, q, COSTS, (0.01, 1.0, 10.0)) == 1.0


def test_steps_with_better_outcomes_than_expected_weigh_more() -> None:
    steps = chain()
    to_come = steps.to_come(COSTS)
    weights = advantage_weights(steps, np.ones(len(steps), np.bool_), to_come, 0.25)
    sold = to_come > 0.5
    assert weights.mean() == pytest.approx(1.0)
    assert weights[sold].min() > weights[~sold].max()
    blunt = advantage_weights(steps, np.ones(len(steps), np.bool_), to_come, 100.0)
    assert blunt == pytest.approx(np.ones(len(steps)), abs=0.05)


@pytest.mark.parametrize("targets", ["imitation", "advantage", "fitted_q"])
def test_each_way_to_make_targets_is_its_own(targets: str) -> None:
    from test_model_outcomes import checkout_shop

    config = sample_config()
    learning = PlanLearning.model_validate({"targets": targets})
    config = config.model_copy(update={"train": config.train.model_copy(update={"plan_learning": learning})})
    examples = checkout_shop()
    found = with_targets(examples, sample_catalogue(), config).targets[:, 0]
    logged = found * (examples.steps[:, :1] == np.arange(NUM_STEPS))
    sells = (examples.steps[:, 0] == CHECKOUT) & examples.kept
    if targets == "imitation":
        assert np.array_equal(found.sum(axis=1), np.ones(len(found)))
    if targets == "fitted_q":
        assert found[:, CHECKOUT].mean() > 0.95
        assert logged.sum() < 0.5 * found.sum()
    else:
        assert np.array_equal(found, logged)
    if targets == "advantage":
        assert found[sells].sum(axis=1).min() > 2 * found[~sells].sum(axis=1).max()


def test_a_log_with_too_few_purchases_is_imitated_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    rows = dataclasses.replace(sample_examples(40), kept=np.zeros(40, dtype=np.bool_))
    imitated = np.eye(NUM_STEPS)[rows.steps[rows.steps >= 0]].sum()
    assert with_targets(rows, sample_catalogue(), sample_config()).targets.sum() == imitated
    assert "needs 20 kept purchases in AR sessions of the training part, got 0: plans imitate the log" in caplog.text


def test_a_log_without_plans_teaches_nothing() -> None:
    examples = sample_examples(40)
    bare = dataclasses.replace(examples, steps=np.full_like(examples.steps, -1), targets=np.ones_like(examples.targets))
    assert not with_targets(bare, sample_catalogue(), sample_config()).targets.any()
    nobody = bare.take(np.zeros(0, np.int64))
    assert len(with_targets(nobody, sample_catalogue(), sample_config())) == 0


@settings(max_examples=25)
@given(place=st.integers(0, MAX_STEPS - 1), seed=st.integers(0, 99))
def test_features_before_a_step_know_nothing_of_it_or_of_what_follows(place: int, seed: int) -> None:
    rows = sample_examples(30, seed)
    plans = rows.steps, rows.outcomes, rows.view_ms, rows.gestures
    cut = [np.where(np.arange(MAX_STEPS) < place, part, -1 if kind < 2 else 0) for kind, part in enumerate(plans)]
    assert np.array_equal(history_features(*plans)[:, place], history_features(*cut)[:, place])


def test_features_tell_what_each_step_met_and_cross_it_with_the_cart() -> None:
    steps = np.full((1, MAX_STEPS), -1, np.int8)
    steps[0, :3] = [INFO, QUIET, CHECKOUT]
    outcomes = np.where(steps >= 0, 0, -1).astype(np.int8)
    outcomes[0, :2] = [1, 2]
    features = history_features(steps, outcomes, np.zeros((1, MAX_STEPS), np.float32), np.zeros((1, MAX_STEPS), np.int16))
    assert features.shape == (1, MAX_STEPS, NUM_DYNAMIC)
    assert not np.array_equal(features[0, 1], features[0, 2])
    plain, with_cart = crossed(features[0, 1]), crossed(features[0, 2])
    assert plain[NUM_DYNAMIC:].sum() == 1.0, "nothing is in the cart yet: the constant alone"
    assert with_cart[NUM_DYNAMIC:].sum() == 4.0, "two steps met with engagement, a place, and the constant"


def test_a_profile_is_read_as_the_training_rows_say() -> None:
    examples, catalogue = sample_examples(100), sample_catalogue()
    around = Surroundings.of(examples.of("train"), catalogue, 64)
    found = around.features(examples, catalogue)
    assert found.shape[0] == 100
    assert np.isfinite(found).all()
    steps = logged_steps(examples, catalogue, 64)
    assert steps.state_MF.shape[1] == NUM_DYNAMIC + found.shape[1]
    assert steps.is_legal.all()
