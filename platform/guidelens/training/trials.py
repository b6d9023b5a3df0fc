"""Many models fitted to the same rows, each in a Ray Tune trial of its own: what a study of choices is made of."""

import contextlib
import gc
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray import tune

from guidelens.config import TrainConfig
from guidelens.data.examples import Examples
from guidelens.data.visits import InterestMedians
from guidelens.errors import DivergedError, GuideLensError
from guidelens.evaluation.ranking import score_requests
from guidelens.inference.guide_files import GuideHeader
from guidelens.inference.scorer import GuideScorer
from guidelens.models.items import Catalogue
from guidelens.schemas.base import Frozen
from guidelens.training.data import FitData, FitJob, Place
from guidelens.training.device import keep_freed_memory
from guidelens.training.learner import Learner

SPLITS = ("val", "test")


class Trial(Frozen):
    """One model to fit: its name in the study, what it is, how it is trained, and the seed."""

    name: str
    job: FitJob
    train: TrainConfig
    seed: int


class TrialResult(Frozen):
    """metrics: by split, then name (`ndcg_at_10`, `interest_mse`, `plan_loss`), for the tasks that the model learned; of the epoch best on
    validation. signals: of the last epoch (training/telemetry.py). diverged: why there are none of both; empty where training held."""

    trial: Trial
    epochs: int
    metrics: dict[str, dict[str, float]]
    signals: dict[str, float]
    seconds: float
    diverged: str = ""


def run_trials(
    examples: Examples, catalogue: Catalogue, trials: Sequence[Trial], folder: Path, tell: Callable[[TrialResult], None] = lambda _result: None
) -> list[TrialResult]:
    """Results in the order of `trials`; each trial takes one CPU, and as many run at once as there are.

    Raises:
        GuideLensError: a trial failed; `folder` holds its log.
    """
    shared = (ray.put(examples), ray.put(catalogue))
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(_run_trial, shared=shared), {"cpu": 1}),
        param_space={"number": tune.grid_search(list(range(len(trials)))), "trials": tuple(trials)},
        tune_config=tune.TuneConfig(metric="seconds", mode="min"),
        run_config=tune.RunConfig(name="trials", storage_path=str(folder.absolute()), verbose=0, callbacks=[_Teller(tell)]),
    )
    found: dict[int, TrialResult] = {}
    results = _results(tuner)
    for result in results:
        if result.error is not None:
            raise GuideLensError(f"a trial of the study failed: {result.error}; its log lies in {result.path}")
        found[int(result.metrics["number"])] = TrialResult.model_validate_json(result.metrics["result"])
    return [found[number] for number in range(len(trials))]


def _results(tuner: tune.Tuner) -> tune.ResultGrid:
    """Runs the trials. Interrupted, their CPUs are free again when it raises: Tune gives them back where its controller is collected, and a traceback would keep it."""
    with contextlib.suppress(KeyboardInterrupt), contextlib.redirect_stdout(sys.stderr):  # Tune tells people where its files lie; stdout is for results
        return tuner.fit()
    gc.collect()
    raise KeyboardInterrupt


class _Teller(tune.Callback):  # type: ignore[misc]  # Ray has no types
    """Tells each trial's result as it ends."""

    def __init__(self, tell: Callable[[TrialResult], None]) -> None:
        self.tell = tell

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
        if "result" in result:
            self.tell(TrialResult.model_validate_json(result["result"]))


def _run_trial(space: dict[str, Any], shared: tuple[Any, Any]) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    examples, catalogue = ray.get(shared[0]), ray.get(shared[1])
    trial: Trial = space["trials"][space["number"]]
    result = fit_trial(trial, examples, catalogue)
    tune.report({"number": space["number"], "seconds": result.seconds, "result": result.model_dump_json()})


def fit_trial(trial: Trial, examples: Examples, catalogue: Catalogue) -> TrialResult:
    """Fits one model in this process and measures the epoch that was best on validation; a model that diverges has no metrics."""
    start = time.perf_counter()
    try:
        epochs, signals, metrics = _fitted(trial, examples, catalogue)
    except DivergedError as error:
        return TrialResult(trial=trial, epochs=0, metrics={}, signals={}, seconds=time.perf_counter() - start, diverged=str(error))
    return TrialResult(trial=trial, epochs=epochs, metrics=metrics, signals=signals, seconds=time.perf_counter() - start)


def _fitted(trial: Trial, examples: Examples, catalogue: Catalogue) -> tuple[int, dict[str, float], dict[str, dict[str, float]]]:
    """Epochs, the last one's signals, and metrics by split.

    Raises:
        DivergedError: the model's losses are no numbers any more.
    """
    data = FitData.of(examples, catalogue, trial.job.model.num_profile_buckets)
    learner = Learner(trial.job, data, trial.train, trial.seed, Place(), lambda _tensor: None)
    best, worse, state = float("inf"), 0, learner.model.state_dict()
    epochs = 0
    while epochs < trial.train.epochs and not (trial.train.patience and worse >= trial.train.patience):
        train = learner.epoch(epochs)
        objective = learner.objective(learner.validate() or train)
        worse = 0 if objective < best else worse + 1
        if objective < best:
            best, state = objective, {name: value.clone() for name, value in learner.model.state_dict().items()}
        epochs += 1
    signals = learner.signals()
    learner.model.load_state_dict(state)
    return epochs, signals, {split: measured(learner, examples, catalogue, split) for split in SPLITS}


def measured(learner: Learner, examples: Examples, catalogue: Catalogue, split: str) -> dict[str, float]:
    """Each learned task's own metric on a split: NDCG@10 of retrieval, squared error of interest, cross-entropy of the plan's targets."""
    job, model = learner.job, learner.model
    header = GuideHeader(model=job.model, spec=model.spec, medians=InterestMedians(), lambdas={**job.lambdas})
    part = examples.of(split)
    found = {}
    if job.lambdas["recommendation"] > 0:
        found["ndcg_at_10"] = float(score_requests(GuideScorer(model, header, catalogue), part).ndcg.mean())
    rows = learner.data.rows(split, job)
    losses = learner.validate(rows)
    names = {"interest": "interest_mse", "plan": "plan_loss", **{name: f"{name}_loss" for name in job.extra}}
    return {**found, **{names[term]: value for term, value in losses.items() if term in names and np.isfinite(value)}}
