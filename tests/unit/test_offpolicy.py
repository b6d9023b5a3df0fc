"""Off-policy estimates on logged decision processes that are known: unbiased, with intervals that hold the truth, and honest about thin logs."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from guidelens.errors import ShapeError
from guidelens.evaluation.offpolicy import LoggedChoices, LoggedPlans, OffPolicyEstimate, choice_weights, estimates, overlap, plan_weights
from guidelens.evaluation.offpolicy.estimators import Terms, doubly_robust, plan_terms, shrunk, snips, split_dr, switched, trajectory_ips
from guidelens.evaluation.offpolicy.intervals import Scores, Spread, t_interval
from guidelens.evaluation.offpolicy.tuning import LIMITS, SHRINKAGE, Split, tuned
from guidelens.evaluation.offpolicy.value_models import RIDGE, _folds, _plan_design, plan_values
from guidelens.schemas.steps import NUM_STEPS

UNBIASED = ("ips", "per_decision_ips", "snips", "dr", "sndr")
ALL = {"logging", *UNBIASED, "clipped_ips", "dm", "switch_dr", "dros"}
LOGGING, TARGET = np.array([0.7, 0.3]), np.array([0.2, 0.8])
TRUTH = 0.1 + 0.1 * 0.8 + 0.1 * (1 + 0.8) * (1 + 0.8)


# A two-step process with two actions: action 1 earns 1 with probability .2 at once and makes the next step worth twice as much.
def simulate(policy: NDArray[np.float64], sessions: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    steps = (rng.random((sessions, 2)) < policy[1]).astype(np.int64)
    first = (rng.random(sessions) < 0.1 + 0.1 * steps[:, 0]).astype(float)
    second = (rng.random(sessions) < 0.1).astype(float) * (1 + steps[:, 0]) * (1 + steps[:, 1])
    return steps, np.stack([first, second], axis=1)


def logged(seed: int, sessions: int = 400) -> LoggedPlans:
    steps, reward = simulate(LOGGING, sessions, seed)
    target = np.zeros((sessions, 2, NUM_STEPS))
    target[:, :, :2] = TARGET
    return LoggedPlans(steps, (reward > 0).astype(np.int64), LOGGING[steps], reward, target, np.zeros((sessions, 1)))


def by_name(log: LoggedPlans | LoggedChoices, seed: int = 0) -> dict[str, OffPolicyEstimate]:
    return {one.estimator: one for one in estimates(log, seed=seed)}


class Many(NamedTuple):
    """Estimates of many logs, by estimator: values, and whether the interval held the truth."""

    value: dict[str, NDArray[np.float64]]
    held: dict[str, float]


@pytest.fixture(scope="module")
def many() -> Many:
    found = [by_name(logged(seed), seed) for seed in range(150)]
    return Many(
        {name: np.array([one[name].value for one in found]) for name in ALL},
        {name: float(np.mean([one[name].low <= TRUTH <= one[name].high for one in found])) for name in ALL},
    )


@pytest.mark.parametrize("name", UNBIASED)
def test_estimators_are_unbiased_over_many_logs(many: Many, name: str) -> None:
    error = many.value[name].std(ddof=1) / np.sqrt(len(many.value[name]))
    assert abs(many.value[name].mean() - TRUTH) < 3.5 * error


def test_the_log_itself_is_something_else(many: Many) -> None:
    assert many.held["logging"] < 0.1, "the target earns as much as the log: the tests show nothing"


@pytest.mark.parametrize("name", sorted(ALL - {"logging"}))
def test_intervals_hold_the_truth_about_as_often_as_they_say(many: Many, name: str) -> None:
    assert many.held[name] >= 0.88


def test_the_doubly_robust_estimate_varies_less_than_plain_importance_sampling(many: Many) -> None:
    assert many.value["dr"].std() < many.value["ips"].std()


def test_shrinking_lowers_the_error(many: Many) -> None:
    assert np.mean((many.value["dros"] - TRUTH) ** 2) < np.mean((many.value["dr"] - TRUTH) ** 2)


def test_a_wrong_value_model_does_not_mislead_the_doubly_robust_estimate() -> None:
    """The model is told that only the second action ever earns anything; weights must set it right, and shrinking must notice."""
    values = {"dr": [], "dm": [], "dros": []}  # type: dict[str, list[float]]
    for seed in range(60):
        terms = plan_terms(logged(seed, 1500), seed)
        wrong = terms._replace(expected=np.full_like(terms.expected, 2.0), predicted=np.full_like(terms.predicted, 2.0))
        unbiased = doubly_robust(wrong)
        values["dr"].append(float(unbiased.mean()))
        values["dm"].append(float(wrong.expected[:, 0].mean()))
        values["dros"].append(float(tuned(lambda strength, w=wrong: split_dr(w, shrunk(w.weight, strength)), SHRINKAGE, None)[1].kept.value_B.mean()))  # type: ignore[misc]
    assert abs(np.mean(values["dr"]) - TRUTH) < 0.05
    assert np.mean(values["dm"]) == 2.0
    assert abs(np.mean(values["dros"]) - TRUTH) < 0.1


def test_evaluating_the_logging_policy_itself_gives_the_logs_mean_with_all_sessions() -> None:
    log = logged(0)
    log.target[:, :, :2] = LOGGING
    found = by_name(log)
    assert found["ips"].value == pytest.approx(found["logging"].value)
    assert found["ips"].ess == pytest.approx(400)
    assert overlap(plan_weights(log)).warnings == ()


def test_a_policy_the_log_hardly_knows_is_warned_of() -> None:
    log = logged(1, 60)
    log.propensity[:3] = 1e-3
    said = " ".join(overlap(plan_weights(log)).warnings)
    assert "effective sessions" in said and "of all weight" in said


def test_wrong_propensities_show_in_the_mean_weight() -> None:
    log = logged(2, 4000)
    said = " ".join(overlap(plan_weights(log._replace(propensity=log.propensity / 2))).warnings)
    assert "should be 1" in said


def test_of_a_policy_that_the_log_never_follows_nothing_is_claimed() -> None:
    log = logged(0)
    log.target[:] = 0
    log.target[:, :, 5] = 1
    assert set(by_name(log)) == {"logging"}
    found = overlap(plan_weights(log))
    assert found.ess == 0 and len(found.warnings) == 1 and "cannot tell" in found.warnings[0]


def test_rewards_in_proportion_to_a_scale_give_values_in_proportion() -> None:
    log = logged(3)
    tenfold = log._replace(reward=10 * log.reward, scale=np.full(400, 10.0))
    for name, one in by_name(log).items():
        assert by_name(tenfold)[name].value == pytest.approx(10 * one.value)


def test_sessions_of_one_shopper_count_as_one() -> None:
    log = logged(4)
    twice = LoggedPlans(*(np.concatenate([part, part]) for part in log[:6]))
    alone, together = by_name(twice)["ips"], by_name(twice._replace(clusters=np.tile(np.arange(400), 2)))["ips"]
    assert together.value == pytest.approx(alone.value)
    assert together.high - together.low > 1.3 * (alone.high - alone.low)


def test_what_cannot_be_is_refused() -> None:
    log = logged(0)
    log.propensity[0, 0] = np.nan
    with pytest.raises(ShapeError, match="propensity"):
        estimates(log, seed=0)
    with pytest.raises(ShapeError, match="positive"):
        estimates(logged(0)._replace(scale=np.zeros(400)), seed=0)
    with pytest.raises(ShapeError, match="targets"):
        estimates(logged(0)._replace(target=np.zeros((400, 2, 3))), seed=0)
    with pytest.raises(ShapeError, match=r"\[0, 3\)"):
        estimates(choices(0)._replace(actions=np.full(3000, 7)), seed=0)


# Slates: three items at two positions, clicked by item and position; shown evenly, while the target prefers the best item.
CLICKS = np.array([[0.02, 0.05, 0.2], [0.01, 0.03, 0.1]])
PREFERS = np.array([[0.1, 0.1, 0.8], [0.2, 0.2, 0.6]])


def choices(seed: int, num: int = 3000) -> LoggedChoices:
    rng = np.random.default_rng(seed)
    actions, positions = rng.integers(0, 3, num), rng.integers(0, 2, num)
    reward = (rng.random(num) < CLICKS[positions, actions]).astype(float)
    return LoggedChoices(actions, positions, np.full(num, 1 / 3), reward, PREFERS[positions], np.zeros((num, 1)))


def test_the_click_rate_of_another_slate_policy_is_found() -> None:
    truth = float((PREFERS * CLICKS).sum(axis=1).mean())
    found = [by_name(choices(seed), seed) for seed in range(60)]
    for name in ("ips", "snips", "dr", "sndr"):
        values = np.array([one[name].value for one in found])
        assert abs(values.mean() - truth) < 0.03 * truth
        assert np.mean([one[name].low <= truth <= one[name].high for one in found]) >= 0.88
    for name in ("dros", "switch_dr"):  # what is shrunk leans towards its model
        assert abs(np.mean([one[name].value for one in found]) - truth) < 0.12 * truth
    assert abs(float(choice_weights(choices(0)).mean()) - 1) < 0.1


def test_one_step_estimates_are_what_the_formulae_say() -> None:
    weight, reward = np.array([[2.0], [0.5], [0.0]]), np.array([[1.0], [0.0], [1.0]])
    terms = Terms(weight, reward, np.array([[0.4], [0.2], [0.3]]), np.array([[0.5], [0.1], [0.3]]), np.zeros((3, 1)))
    assert trajectory_ips(terms).mean() == pytest.approx(2 / 3)
    assert snips(terms).mean() == pytest.approx(2 / 2.5)
    assert doubly_robust(terms).tolist() == pytest.approx([0.4 + 2 * 0.5, 0.2 - 0.5 * 0.1, 0.3])
    assert doubly_robust(terms, switched(weight, 1.0)).tolist() == pytest.approx([0.4, 0.2 - 0.5 * 0.1, 0.3])
    assert shrunk(weight, 3.0).ravel().tolist() == pytest.approx([6 / 7, 1.5 / 3.25, 0])


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=30), st.sampled_from(SHRINKAGE))
def test_shrunk_weights_are_never_larger_nor_negative(weights: list[float], strength: float) -> None:
    given_BS = np.array(weights)[:, None]
    found = shrunk(given_BS, strength)
    assert np.isfinite(found).all() and (found >= 0).all() and (found <= given_BS + 1e-12).all()


def test_an_interval_that_hangs_on_one_session_is_wide() -> None:
    even, heavy = np.tile([0.0, 1.0], 200), np.zeros(400)
    heavy[0] = 20.0
    assert Spread.of(even, None).freedom == pytest.approx(400)
    assert Spread.of(heavy, None).freedom == pytest.approx(1.0, abs=0.01)
    found, spread = t_interval(heavy, None), Spread.of(heavy, None)
    assert found.high - found.low > 20 * np.sqrt(spread.variance)


def test_heavy_sessions_that_look_alike_by_chance_do_not_make_sure() -> None:
    """What the model expects counts where it is more than scores show, as far as it is known better; where it is less, scores stand for themselves."""
    score, heavy = np.random.default_rng(0).normal(size=400), np.zeros(400)
    heavy[:20] = 100.0
    seen, expected = Spread.of(score, None), Spread.expected(heavy, None)
    assert expected.variance == pytest.approx(2000 / 400**2) and expected.freedom == pytest.approx(20)
    both = Scores(score, heavy).spread(None)
    assert seen.variance < both.variance < expected.variance and both.freedom == pytest.approx(seen.freedom + 20)
    assert Scores(score, heavy / 1000).spread(None) == seen


def test_one_lucky_heavy_session_does_not_prove_a_bias() -> None:
    """It surprises the model; all the same the variance that such sessions show stands, and the bias is within it."""
    weight = np.ones((500, 1))
    weight[0] = 400.0
    quiet = np.random.default_rng(1).normal(0, 1e-3, (500, 1))
    reward = np.where(np.arange(500)[:, None] == 0, 1.0, quiet)
    terms = Terms(weight, reward, np.zeros((500, 1)), np.zeros((500, 1)), np.full((500, 1), 0.01))
    setting, found = tuned(lambda limit: split_dr(terms, switched(weight, limit)), LIMITS, None)
    assert setting < 400 and abs(found.kept.value_B.mean()) < 0.01 < doubly_robust(terms).mean()


def test_values_and_noise_are_those_of_regressions_on_the_other_folds_rows() -> None:
    """Swept row by row, as the method is told; the code needs sums alone."""
    log, seed = logged(5), 3
    design, fold_B, found = _plan_design(log), _folds(400, None, seed), plan_values(log, seed)
    penalty = np.diag([1e-6, *[RIDGE] * (design.taken.shape[2] - 1)])
    to_come, predicted, noise = np.zeros((400, 2)), np.zeros((400, 2)), np.zeros((400, 2))

    def fit(rows: NDArray[np.bool_], to_BS: NDArray[np.float64]) -> NDArray[np.float64]:
        x = design.taken[rows].reshape(-1, design.taken.shape[2])
        return np.asarray(np.linalg.solve(x.T @ x + penalty, x.T @ to_BS[rows].ravel()))

    for fold in range(5):
        mine, after = fold_B == fold, np.zeros((400, 2))
        for _ in range(2):
            weights = fit(~mine, log.reward + after)
            after[:, 0] = design.target[:, 1] @ weights
        predicted[mine], to_come[mine] = design.taken[mine] @ weights, after[mine]
    errors = (log.reward + to_come - predicted) ** 2
    for fold in range(5):
        mine = fold_B == fold
        noise[mine] = np.maximum(design.taken[mine] @ fit(~mine, errors), 0)
    assert found.predicted == pytest.approx(predicted) and found.noise == pytest.approx(noise)
    assert float(found.noise.mean()) == pytest.approx(float(errors.mean()), rel=0.05)


def test_what_shrinking_leaves_out_widens_the_interval() -> None:
    rng = np.random.default_rng(0)
    left = rng.normal(size=500)
    found, honest = t_interval(np.full(500, 2.0), None), t_interval(np.full(500, 2.0), None, Split(Scores(np.full(500, 2.0)), Scores(left)).spread(None))
    assert found.low == found.high == 2.0
    assert honest.high - honest.low == pytest.approx(2 * 1.96 * left.std() / np.sqrt(500), rel=0.03)
