"""The driver's side of training: hands the data to Ray Train and brings back the weights and the losses of every epoch.

Knows nothing of MLflow or the feature store.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ray
import ray.train
from ray.train.torch import TorchConfig

from guidelens.config import Config
from guidelens.data.examples import Examples
from guidelens.errors import DivergedError, GuideLensError
from guidelens.models.items import Catalogue
from guidelens.training.data import FitJob
from guidelens.training.device import backend
from guidelens.training.following import Trainer, following
from guidelens.training.loop import EpochLosses, WorkerTask, read_progress, worker
from guidelens.training.warm_start import WarmStart

STORAGE = "train"


@dataclass(frozen=True)
class Fitted:
    """`weights`: a safetensors file for each job's name; `history` in the order the epochs were run."""

    weights: dict[str, Path]
    history: tuple[EpochLosses, ...]


Tell = Callable[[EpochLosses], None]


def fit_guide(
    examples: Examples,
    catalogue: Catalogue,
    config: Config,
    jobs: Sequence[FitJob],
    run_dir: Path,
    tell: Tell = lambda _losses: None,
    starts: Mapping[str, WarmStart] | None = None,
) -> Fitted:
    """Fits `jobs` one after another in one Ray Train run whose checkpoints lie in `run_dir`/train.

    Called again with the same folder it goes on from the last checkpoint. A worker that dies is replaced up to
    `train.max_failures` times.

    Args:
        tell: called, from a thread of its own, with each epoch's losses as it ends.
        starts: what a job goes on from, by its name; seeded weights where there is nothing.

    Raises:
        DivergedError: a model's losses are no numbers any more.
        GuideLensError: training ended without finishing; the folder still holds the last checkpoint.
    """
    task = WorkerTask(
        config=config,
        jobs=tuple(jobs),
        catalogue=ray.put(catalogue),
        examples=ray.put((examples.table(), examples.frames, examples.queries)),
        starts=ray.put(dict(starts or {})),
    )
    num_workers = config.train.num_workers
    trainer = Trainer(
        worker,
        train_loop_config={"task": task},
        torch_config=TorchConfig(backend=backend(config.train)),
        scaling_config=ray.train.ScalingConfig(
            num_workers=num_workers if config.train.min_workers in (None, num_workers) else (config.train.min_workers, num_workers),
            use_gpu=config.train.use_gpu,
        ),
        run_config=ray.train.RunConfig(
            name=STORAGE,
            storage_path=str(run_dir.absolute()),
            failure_config=ray.train.FailureConfig(max_failures=config.train.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
        ),
    )
    try:
        with following(run_dir / STORAGE, lambda folder: read_progress(folder).history, tell):
            result = trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise GuideLensError(f"training in {run_dir} failed more often than train.max_failures ({config.train.max_failures}) allows: {error}") from error
    if result.checkpoint is None:
        raise GuideLensError(f"training in {run_dir} reported no checkpoint")
    folder = run_dir / "weights"
    result.checkpoint.to_directory(str(folder))
    progress = read_progress(folder)
    if progress.diverged:
        raise DivergedError(progress.diverged)
    if set(progress.finished) != {job.name for job in jobs}:
        raise GuideLensError(f"training in {run_dir} finished only {progress.finished}; go on with --resume")
    return Fitted({name: folder / f"{name}.safetensors" for name in progress.finished}, progress.history)
