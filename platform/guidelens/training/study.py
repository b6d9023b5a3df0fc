"""A study of multi-task learning: which trials it takes, and what came out, beside tuned single tasks.

Choices are made on validation alone, with one seed; what was chosen is then fitted with several seeds and measured on the test part.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field, field_validator

from guidelens.config import TASKS, Balancing, Config, ModelConfig, Sharing, TaskName, TrainConfig
from guidelens.errors import ConfigError
from guidelens.evaluation.multitask import HIGHER_IS_BETTER, SeedInterval, delta_m, over_seeds, pareto_front
from guidelens.schemas.base import Frozen
from guidelens.schemas.ids import sub_seed
from guidelens.training.data import FitJob, controls
from guidelens.training.trials import Trial, TrialResult

_LEAST_LAMBDA = 0.001
"""A drawn weight of 0 would leave its task out, and nothing of it to compare."""
METRIC_OF: dict[TaskName, str] = {"recommendation": "ndcg_at_10", "interest": "interest_mse", "plan": "plan_loss"}


class StudyPlan(Frozen):
    """What is tried: sharing x balancing at every learning rate, `lambda_draws` sets of fixed weights more, and single tasks at every rate.

    num_experts: shared experts of `mmoe` and `ple`, each number tried; as configured where empty.
    """

    sharing: Annotated[tuple[Sharing, ...], Field(min_length=1)] = ("shared_bottom", "mmoe", "ple")
    balancing: Annotated[tuple[Balancing, ...], Field(min_length=1)] = ("fixed", "uncertainty", "dwa", "gradnorm", "famo", "pcgrad", "cagrad")
    learning_rates: Annotated[tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...], Field(min_length=1)] = (1e-3, 2e-3, 4e-3)
    num_experts: tuple[Annotated[int, Field(ge=1)], ...] = ()
    lambda_draws: Annotated[int, Field(ge=0)] = 8
    finalists: Annotated[int, Field(ge=1)] = 4
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0, 1, 2)

    @field_validator("sharing", "balancing", "learning_rates", "num_experts", "seeds")
    @classmethod
    def _each_once(cls, given: tuple[object, ...]) -> tuple[object, ...]:
        """The same seed twice would look like two seeds that agree."""
        if len(set(given)) < len(given):
            raise ValueError(f"each must be there once, got {', '.join(str(one) for one in given)}; leave out the repeats")
        return given


class Tried(Frozen):
    """One joint trial of the search, on validation. on_front: no other trial is better in one metric without being worse in another."""

    name: str
    metrics: dict[str, float]
    delta_m: float
    on_front: bool
    signals: dict[str, float]
    seconds: float


class Final(Frozen):
    """A choice fitted anew with every seed, on the test part. delta_m: against the tuned single tasks of the same seed; None for those."""

    name: str
    metrics: dict[str, SeedInterval]
    delta_m: SeedInterval | None


class Study(Frozen):
    """singles: name of each task's best single-task trial, and singles_val its metric on validation. best: name of the joint choice
    that validation preferred, and best_settings the settings that train it. diverged: what was left out, its losses being no numbers."""

    plan: StudyPlan
    tasks: tuple[TaskName, ...]
    singles: dict[TaskName, str]
    singles_val: dict[TaskName, float]
    tried: tuple[Tried, ...]
    finals: tuple[Final, ...]
    best: str
    rows: dict[str, int]
    best_settings: dict[str, str] = {}
    diverged: tuple[str, ...] = ()


RunTrials = Callable[[Sequence[Trial]], list[TrialResult]]


def run_study(plan: StudyPlan, config: Config, tasks: Sequence[TaskName], run: RunTrials, rows: dict[str, int]) -> Study:
    """Search on validation, then finals on test.

    Args:
        tasks: those that every part of the rows holds labels of; at least two.
        run: fits trials (training/trials.py).
        rows: rows by split, for the record.

    Raises:
        ConfigError: fewer than two tasks can be learned, so there is nothing to bring together; or all that could be compared diverged.
    """
    if len(tasks) < 2:
        raise ConfigError(f"study mtl needs at least two tasks with labels and a lambda above 0, got {', '.join(tasks) or 'none'}; bring a log that holds more")
    every = run([*_single_trials(plan, config, tasks), *_joint_trials(plan, config, tasks)])
    searched = [found for found in every if not found.diverged]
    singles = {task: _best_single([found for found in searched if found.trial.name.startswith(f"single {task} ")], task) for task in tasks}
    alone = {METRIC_OF[task]: found.metrics["val"][METRIC_OF[task]] for task, found in singles.items()}
    joint = [found for found in searched if found.trial.name.startswith("joint ")]
    front = set(pareto_front([{name: value for name, value in found.metrics["val"].items() if name in HIGHER_IS_BETTER} for found in joint]))
    tried = tuple(_tried(found, alone, number in front) for number, found in enumerate(joint))
    order = sorted(range(len(joint)), key=lambda number: -tried[number].delta_m)
    chosen = [joint[number].trial for number in order[: plan.finalists]]
    again = run([_with_seed(trial, seed) for trial in [*(found.trial for found in singles.values()), *chosen] for seed in plan.seeds])
    unsteady = {found.trial.name for found in again if found.diverged}
    steady = [trial.name for trial in chosen if trial.name not in unsteady]
    if not steady or any(found.trial.name in unsteady for found in singles.values()):
        raise ConfigError(
            f"study mtl needs single tasks and a joint choice that train with every seed, got {', '.join(sorted(unsteady)) or 'no joint one'} "
            f"diverging; use smaller --learning-rates"
        )
    return Study(
        plan=plan,
        tasks=tuple(tasks),
        singles={task: found.trial.name for task, found in singles.items()},
        singles_val={task: found.metrics["val"][METRIC_OF[task]] for task, found in singles.items()},
        tried=tried,
        finals=tuple(_finals(again, tasks, {task: found.trial.name for task, found in singles.items()}, steady)),
        best=steady[0],
        rows=rows,
        best_settings=_settings(next(trial for trial in chosen if trial.name == steady[0])),
        diverged=(*(found.trial.name for found in every if found.diverged), *sorted(unsteady)),
    )


def _single_trials(plan: StudyPlan, config: Config, tasks: Sequence[TaskName]) -> Iterator[Trial]:
    for job, rate in itertools.product(controls(config.train, tasks), plan.learning_rates):
        yield Trial(name=f"single {job.name} rate {rate:g}", job=job, train=_trained(config.train, rate, "fixed"), seed=config.seed)


def _joint_trials(plan: StudyPlan, config: Config, tasks: Sequence[TaskName]) -> Iterator[Trial]:
    equal = {task: float(task in tasks) for task in TASKS}
    for (shown, model), method, rate in itertools.product(_models(plan, config), plan.balancing, plan.learning_rates):
        yield _joint(f"joint {shown} {method} rate {rate:g}", config, model, method, rate, equal)
    draws = np.random.default_rng(sub_seed(config.seed, "lambdas")).dirichlet(np.ones(len(tasks)), plan.lambda_draws) * len(tasks)
    for number, weights in enumerate(draws.round(3).clip(min=_LEAST_LAMBDA).tolist()):
        lambdas = {**dict.fromkeys(TASKS, 0.0), **dict(zip(tasks, weights, strict=True))}
        rate = plan.learning_rates[number % len(plan.learning_rates)]
        shown = "/".join(f"{weight:g}" for weight in weights)
        yield _joint(f"joint {config.train.model.sharing} fixed {shown} rate {rate:g}", config, config.train.model, "fixed", rate, lambdas)


def _models(plan: StudyPlan, config: Config) -> Iterator[tuple[str, ModelConfig]]:
    """Each way of sharing, with each number of experts where it has any: how trials are named by it, and the model."""
    for sharing in plan.sharing:
        levels = config.train.model.num_expert_levels if sharing == "ple" else 1
        model = config.train.model.model_copy(update={"sharing": sharing, "num_expert_levels": levels})
        if not plan.num_experts or sharing not in ("mmoe", "ple"):
            yield sharing, model
            continue
        for number in plan.num_experts:
            yield f"{sharing}-{number}", model.model_copy(update={"num_experts": number})


def _joint(name: str, config: Config, model: ModelConfig, method: Balancing, rate: float, lambdas: dict[TaskName, float]) -> Trial:
    return Trial(
        name=name,
        job=FitJob(name="guide", lambdas=lambdas, model=model, extra=config.train.extra_tasks),
        train=_trained(config.train, rate, method),
        seed=config.seed,
    )


def _settings(trial: Trial) -> dict[str, str]:
    """What a joint trial was, by the names that `--set` takes."""
    return {
        "train.model.sharing": trial.job.model.sharing,
        "train.model.num_expert_levels": str(trial.job.model.num_expert_levels),
        "train.model.num_experts": str(trial.job.model.num_experts),
        "train.balancing.method": trial.train.balancing.method,
        "train.learning_rate": f"{trial.train.learning_rate:g}",
        **{f"train.lambdas.{task}": f"{weight:g}" for task, weight in trial.job.lambdas.items()},
    }


def _trained(train: TrainConfig, rate: float, method: Balancing) -> TrainConfig:
    return train.model_copy(update={"learning_rate": rate, "balancing": train.balancing.model_copy(update={"method": method})})


def _best_single(found: Sequence[TrialResult], task: TaskName) -> TrialResult:
    if not found:
        raise ConfigError(
            f"study mtl needs a single task of {task} to compare with, got one that diverged at every learning rate; use smaller --learning-rates"
        )
    values = [one.metrics["val"][METRIC_OF[task]] for one in found]
    return found[int(np.argmax(values) if task == "recommendation" else np.argmin(values))]


def _tried(found: TrialResult, alone: dict[str, float], on_front: bool) -> Tried:
    metrics = found.metrics["val"]
    return Tried(
        name=found.trial.name, metrics=metrics, delta_m=delta_m(metrics, alone), on_front=on_front, signals=found.signals, seconds=round(found.seconds, 2)
    )


def _with_seed(trial: Trial, seed: int) -> Trial:
    return trial.model_copy(update={"seed": seed})


def _finals(again: Sequence[TrialResult], tasks: Sequence[TaskName], singles: dict[TaskName, str], chosen: Sequence[str]) -> Iterator[Final]:
    by_name: dict[str, list[dict[str, float]]] = {}
    for found in again:
        by_name.setdefault(found.trial.name, []).append(found.metrics["test"])
    alone = [{METRIC_OF[task]: by_name[singles[task]][number][METRIC_OF[task]] for task in tasks} for number in range(len(next(iter(by_name.values()))))]
    yield Final(name="single tasks", metrics=_over_seeds(alone), delta_m=None)
    for name in chosen:
        gains = [delta_m(joint, single) for joint, single in zip(by_name[name], alone, strict=True)]
        yield Final(name=name, metrics=_over_seeds(by_name[name]), delta_m=over_seeds(gains))


def _over_seeds(rows: Sequence[dict[str, float]]) -> dict[str, SeedInterval]:
    return {name: over_seeds([row[name] for row in rows]) for name in rows[0]}
