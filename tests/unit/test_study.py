"""What a study says: delta-m and the front by hand, and a small study fitted for real whose finals are those that validation chose."""

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_learners import with_train
from model_samples import sample_catalogue, sample_examples
from pydantic import ValidationError

from guidelens.config import TASKS, ExtraTask
from guidelens.errors import ConfigError, ShapeError
from guidelens.evaluation.multitask import delta_m, over_seeds, pareto_front
from guidelens.presets import load
from guidelens.training.study import METRIC_OF, Study, StudyPlan, run_study
from guidelens.training.trials import Trial, TrialResult, fit_trial

PLAN = StudyPlan(sharing=("mmoe",), balancing=("fixed", "pcgrad"), learning_rates=(0.01, 1e-5), lambda_draws=1, finalists=1, seeds=(3, 4))


def test_delta_m_counts_a_fall_of_a_loss_as_a_gain() -> None:
    joint, single = {"ndcg_at_10": 0.55, "interest_mse": 0.09}, {"ndcg_at_10": 0.5, "interest_mse": 0.1}
    assert delta_m(joint, single) == pytest.approx(0.1)
    assert delta_m(single, single) == 0.0
    with pytest.raises(ShapeError, match="that both have"):
        delta_m({"ndcg_at_10": 0.5}, {"plan_loss": 1.0})


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_a_point_is_on_the_front_unless_another_beats_it(pairs: list[tuple[int, int]]) -> None:
    points = [{"ndcg_at_10": float(up), "plan_loss": float(down)} for up, down in pairs]
    front = set(pareto_front(points))
    for number, (up, down) in enumerate(pairs):
        beaten = any(other_up >= up and other_down <= down and (other_up, other_down) != (up, down) for other_up, other_down in pairs)
        assert (number in front) != beaten


def test_an_interval_over_seeds_is_students() -> None:
    found = over_seeds([1.0, 2.0, 3.0])
    assert found.low is not None and found.high is not None
    assert (found.value, found.high - found.value) == (2.0, pytest.approx(4.302653 / 3**0.5, rel=1e-5))
    assert over_seeds([1.0]).low is None


@pytest.fixture(scope="module")
def study() -> Study:
    examples, catalogue = sample_examples(160), sample_catalogue()
    config = with_train(epochs=3)
    return run_study(PLAN, config, TASKS, lambda trials: [fit_trial(trial, examples, catalogue) for trial in trials], {"train": 1, "val": 1, "test": 1})


def test_a_study_tries_every_choice_and_finishes_those_validation_liked_best(study: Study) -> None:
    assert [row.name.split()[2] for row in study.tried] == ["fixed", "fixed", "pcgrad", "pcgrad", "fixed"]
    assert study.best == max(study.tried, key=lambda row: row.delta_m).name
    assert [final.name for final in study.finals] == ["single tasks", study.best]
    assert study.finals[1].delta_m is not None
    settings = load("tiny", [f"{name}={value}" for name, value in study.best_settings.items()]).train
    assert f"joint {settings.model.sharing} {settings.balancing.method} " in study.best or settings.lambdas["plan"] != 1
    assert study.best.endswith(f"rate {settings.learning_rate:g}")
    assert len(study.finals[1].delta_m.by_seed) == len(PLAN.seeds)


def test_single_tasks_are_those_of_the_better_rate(study: Study) -> None:
    """A rate of 1e-5 learns nothing in three epochs."""
    assert study.singles["interest"].endswith("rate 0.01")
    assert set(study.singles_val) == set(TASKS)
    assert set(study.finals[0].metrics) == set(METRIC_OF.values())


def test_trials_differ_where_their_choices_do(study: Study) -> None:
    for one, other in itertools.combinations(study.tried, 2):
        assert one.metrics != other.metrics, (one.name, other.name)


def test_numbers_of_experts_are_tried_where_there_are_experts() -> None:
    examples, catalogue, asked = sample_examples(160), sample_catalogue(), list[Trial]()

    def fitted(trials: Sequence[Trial]) -> list[TrialResult]:
        asked.extend(trials)
        return [fit_trial(trial, examples, catalogue) for trial in trials]

    plan = StudyPlan(
        sharing=("shared_bottom", "mmoe"), balancing=("fixed",), learning_rates=(0.01,), num_experts=(2, 3), lambda_draws=0, finalists=1, seeds=(3,)
    )
    found = run_study(plan, with_train(epochs=1), TASKS, fitted, {})
    experts = {trial.name: trial.job.model.num_experts for trial in asked if trial.name.startswith("joint ")}
    assert set(experts) == {"joint shared_bottom fixed rate 0.01", "joint mmoe-2 fixed rate 0.01", "joint mmoe-3 fixed rate 0.01"}
    assert (experts["joint mmoe-2 fixed rate 0.01"], experts["joint mmoe-3 fixed rate 0.01"]) == (2, 3)
    assert found.best_settings["train.model.num_experts"] == str(experts[found.best])
    with pytest.raises(ValidationError, match="each must be there once"):
        StudyPlan(num_experts=(4, 4))


def test_a_study_of_one_task_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least two tasks"):
        run_study(PLAN, with_train(), ("plan",), lambda _trials: [], {})


SMALL = StudyPlan(sharing=("mmoe",), balancing=("fixed",), learning_rates=(0.01, 1e9), lambda_draws=0, finalists=2, seeds=(3, 4))


def fitted(trials: Sequence[Trial]) -> list[TrialResult]:
    examples, catalogue = sample_examples(160), sample_catalogue()
    return [fit_trial(trial, examples, catalogue) for trial in trials]


def test_a_choice_that_diverges_is_left_out_by_name_and_never_best() -> None:
    study = run_study(SMALL, with_train(epochs=1), TASKS, fitted, {"train": 1, "val": 1, "test": 1})
    assert all(name.endswith("rate 0.01") for name in (study.best, *study.singles.values(), *(row.name for row in study.tried)))
    assert {"joint mmoe fixed rate 1e+09", "single plan rate 1e+09"} <= set(study.diverged)
    assert [final.name for final in study.finals] == ["single tasks", study.best]


def test_a_study_in_which_everything_diverges_says_what_to_change() -> None:
    with pytest.raises(ConfigError, match=r"diverged at every learning rate; use smaller --learning-rates"):
        run_study(SMALL.model_copy(update={"learning_rates": (1e9,)}), with_train(epochs=1), TASKS, fitted, {"train": 1, "val": 1, "test": 1})


def test_a_task_of_ones_own_is_learned_in_the_joint_trials() -> None:
    plan = SMALL.model_copy(update={"learning_rates": (0.01,), "seeds": (3,)})
    config = with_train(epochs=1, extra_tasks={"cart": ExtraTask(label="carts")})
    study = run_study(plan, config, TASKS, fitted, {"train": 1, "val": 1, "test": 1})
    assert study.tried[0].metrics.keys() == {*METRIC_OF.values(), "cart_loss"}
    assert study.tried[0].on_front


@pytest.mark.parametrize("given", [{"learning_rates": (0.0,)}, {"learning_rates": (float("nan"),)}, {"sharing": ()}, {"seeds": ()}, {"seeds": (1, 1)}])
def test_a_plan_that_would_try_nothing_or_the_same_twice_is_refused(given: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(ValidationError):
        StudyPlan.model_validate(given)
