"""Several fits of the image encoder's last blocks on one shop's photos, side by side: one of all photos, which is shipped, and some that leave
out photos on which confidences are calibrated.

The shared blocks' maps are computed once, by Ray tasks, into a file of the run's folder; each fit is a Ray Train run of one worker with a checkpoint
an epoch. Knows nothing of MLflow or the lake.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeVar

import numpy as np
import ray
import ray.train
import torch
from numpy.typing import NDArray
from ray.train.torch import TorchConfig

from guidelens.config import TrainConfig, TuningConfig
from guidelens.data.images.decoding import INPUT_SIZE_PX, upright_pixels
from guidelens.encoders.image import load_image_encoder, network_input
from guidelens.errors import DivergedError, GuideLensError
from guidelens.models.backgrounds import background_images
from guidelens.schemas.base import Frozen
from guidelens.schemas.ids import sub_seed
from guidelens.training.device import backend, compute_repeatably, keep_freed_memory, worker_device
from guidelens.training.following import PROGRESS, Trainer, following
from guidelens.training.tuning import Tuning, TuningEpoch, maps_of

# Letters as in training/tuning.py; N = drawn backgrounds.

Floats = NDArray[np.float32]
Result = TypeVar("Result")
_MAPS = "maps"
_STOP = "stop"
_CHUNK = 128
"""Photos whose maps one task computes; the random views follow from the chunk, so that any number of workers draws the same."""


@dataclass(frozen=True)
class TuningFit:
    """A fit by its name. product_rows: (M,); -1 where the photo is left out of it."""

    name: str
    product_rows: NDArray[np.int64]


@dataclass(frozen=True)
class TunedFit:
    """folder: what `TunedRecognizer.save` wrote. embeddings (M, D) of all photos and backgrounds (N, D), by this fit; families_MF: what its family head
    says of all photos."""

    folder: Path
    embeddings: Floats
    backgrounds: Floats
    families_MF: Floats
    history: tuple[TuningEpoch, ...]


class TuningProgress(Frozen):
    """is_done: the checkpoint holds what a fit ends with. diverged: why it was given up; going on would only do the same again."""

    history: tuple[TuningEpoch, ...] = ()
    is_done: bool = False
    diverged: str = ""


@dataclass(frozen=True)
class _WorkerTask:
    """What a worker gets. maps: the file; stop: a file whose presence ends the fit at its next epoch."""

    fit: TuningFit
    family_of: tuple[int, ...]
    config: TrainConfig
    tuning: TuningConfig
    seed: int
    maps: Path
    stop: Path


Tell = Callable[[str, TuningEpoch], None]


def fit_tuned(
    photos: Sequence[bytes],
    fits: Sequence[TuningFit],
    family_of: Sequence[int],
    config: TrainConfig,
    tuning: TuningConfig,
    seed: int,
    run_dir: Path,
    tell: Tell = lambda _name, _epoch: None,
) -> dict[str, TunedFit]:
    """Runs the fits, `tuning.num_workers` at a time; their checkpoints lie in `run_dir`. Called again with the same folder it goes on from them.

    Args:
        photos: M upright JPEGs, as the lake keeps them.
        family_of: as in `tune_recognizer`.
        tell: called, from threads of its own, with a fit's name and each epoch as it ends.

    Raises:
        DivergedError: a fit's losses are no numbers any more.
        GuideLensError: a fit ended without finishing; the folder still holds its last checkpoint.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / _STOP).unlink(missing_ok=True)
    if not all(_is_done(_outcome(run_dir, fit)) for fit in fits):
        maps = _shared_maps(photos, tuning, seed, run_dir / _MAPS)
        tasks: SimpleQueue[_WorkerTask] = SimpleQueue()
        for fit in fits:
            tasks.put(_WorkerTask(fit, tuple(family_of), config, tuning, seed, maps, run_dir / _STOP))
        running = [in_background(lambda: _run_queued(tasks, run_dir, tell)) for _ in range(min(tuning.num_workers, len(fits)))]
        wait(running)  # for all, also where one fails: none goes on in this folder
        for one in running:
            one.result()
        maps.unlink()
    return {fit.name: _read(_outcome(run_dir, fit)) for fit in fits}


def stop_fits(run_dir: Path) -> None:
    """Fits that still run in this folder end with their current epoch, unfinished."""
    if run_dir.exists():
        (run_dir / _STOP).touch()


def in_background(call: Callable[[], Result]) -> "Future[Result]":
    """What the call returns or raises, from a thread that an interrupted process does not wait for."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
            future.set_exception(error)

    Thread(target=run, name="fit", daemon=True).start()
    return future


def _run_queued(tasks: "SimpleQueue[_WorkerTask]", run_dir: Path, tell: Tell) -> None:
    while True:
        try:
            task = tasks.get_nowait()
        except Empty:
            return
        outcome = _outcome(run_dir, task.fit)
        if not _is_done(outcome):
            _run(task, run_dir, outcome, tell)


def _run(task: _WorkerTask, run_dir: Path, outcome: Path, tell: Tell) -> None:
    config, name = task.config, task.fit.name
    trainer = Trainer(
        _worker,
        train_loop_config={"task": task},
        torch_config=TorchConfig(backend=backend(config)),
        scaling_config=ray.train.ScalingConfig(num_workers=1, use_gpu=config.use_gpu),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=str(run_dir.absolute()),
            failure_config=ray.train.FailureConfig(max_failures=config.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
        ),
    )
    try:
        with following(run_dir / name, lambda folder: _progress(folder).history, lambda epoch: tell(name, epoch)):
            result = trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise GuideLensError(f"tuning in {run_dir / name} failed more often than train.max_failures ({config.max_failures}) allows: {error}") from error
    progress = TuningProgress()
    if result.checkpoint is not None:
        with result.checkpoint.as_directory() as folder:
            progress = _progress(Path(folder))
    if progress.diverged:
        raise DivergedError(progress.diverged)
    if not progress.is_done:
        raise GuideLensError(f"tuning in {run_dir / name} ended after {len(progress.history)} epochs of {task.tuning.epochs}; go on with --resume")
    result.checkpoint.to_directory(str(outcome))


def _outcome(run_dir: Path, fit: TuningFit) -> Path:
    return run_dir / f"{fit.name}-done"


def _is_done(outcome: Path) -> bool:
    return (outcome / PROGRESS).exists() and _progress(outcome).is_done


def _progress(folder: Path) -> TuningProgress:
    return TuningProgress.model_validate_json((folder / PROGRESS).read_bytes())


def _read(folder: Path) -> TunedFit:
    embeddings, backgrounds, families = (np.load(folder / f"{name}.npy") for name in ("embeddings", "backgrounds", "families"))
    return TunedFit(folder, embeddings, backgrounds, families, _progress(folder).history)


def _shared_maps(photos: Sequence[bytes], tuning: TuningConfig, seed: int, folder: Path) -> Path:
    """The maps' file, made anew unless it is whole and of these photos, views and seed."""
    file, mark = folder / "maps.npy", folder / "maps.json"
    wanted = hashlib.sha256(json.dumps([tuning.num_shared_blocks, tuning.num_views, seed]).encode())
    for photo in photos:
        wanted.update(hashlib.sha256(photo).digest())
    if file.exists() and mark.exists() and mark.read_text() == wanted.hexdigest():
        return file
    folder.mkdir(exist_ok=True)
    mark.unlink(missing_ok=True)
    with torch.inference_mode():
        shared = load_image_encoder(runtime="torch").split(tuning.num_shared_blocks)[0]
        _, channels, height, width = shared(network_input(np.zeros((1, INPUT_SIZE_PX, INPUT_SIZE_PX, 3), np.uint8))).shape
    np.lib.format.open_memmap(file, "w+", np.float16, (len(photos), 1 + tuning.num_views, height, width, channels)).flush()
    chunks = [(start, list(photos[start : start + _CHUNK])) for start in range(0, len(photos), _CHUNK)]
    compute = ray.remote(_write_maps)
    pending: list[ray.ObjectRef[None]] = []
    for start, chunk in chunks:
        if len(pending) == tuning.num_workers:
            done, pending = ray.wait(pending)
            ray.get(done)
        pending.append(compute.remote(file, start, chunk, tuning, sub_seed(seed, f"maps/{start}")))
    ray.get(pending)
    mark.write_text(wanted.hexdigest())
    return file


def _write_maps(file: Path, start: int, photos: list[bytes], tuning: TuningConfig, seed: int) -> None:
    """A Ray task: the maps of photos from row `start` on."""
    kept = np.load(file, mmap_mode="r+")
    for row, of_photo in enumerate(maps_of(load_image_encoder(runtime="torch"), map(upright_pixels, photos), tuning, seed)):
        kept[start + row] = of_photo
    kept.flush()


def _worker(loop_config: dict[str, _WorkerTask]) -> None:
    """What runs on a fit's worker, from start or from the last checkpoint to the end."""
    task = loop_config["task"]
    compute_repeatably(1)
    keep_freed_memory()
    encoder, maps = load_image_encoder(runtime="torch"), np.load(task.maps, mmap_mode="r")
    tuning = Tuning(encoder, maps, task.fit.product_rows, task.family_of, task.tuning, task.seed, worker_device(task.config))
    progress = _restored(tuning)
    while not (progress.is_done or progress.diverged or task.stop.exists()):
        try:
            progress = progress.model_copy(update={"history": (*progress.history, tuning.epoch()), "is_done": tuning.is_done})
        except DivergedError as error:
            progress = progress.model_copy(update={"diverged": str(error)})
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as scratch:
            folder = Path(scratch)
            if progress.is_done:
                _write_outcome(tuning, maps, task.seed, folder)
            else:
                tuning.save(folder)
            (folder / PROGRESS).write_text(progress.model_dump_json())
            ray.train.report({"epoch": len(progress.history)}, checkpoint=ray.train.Checkpoint.from_directory(folder))


def _restored(tuning: Tuning) -> TuningProgress:
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return TuningProgress()
    with checkpoint.as_directory() as folder:
        progress = _progress(Path(folder))
        if not progress.is_done:
            tuning.restore(Path(folder))
    return progress


def _write_outcome(tuning: Tuning, maps: NDArray[np.float16], seed: int, folder: Path) -> None:
    recognizer = tuning.recognizer()
    recognizer.save(folder)
    of_photos = recognizer.answer_maps(maps[:, 0])
    np.save(folder / "embeddings.npy", of_photos.tuned_BD)
    np.save(folder / "families.npy", of_photos.families_BF)
    np.save(folder / "backgrounds.npy", recognizer.recognize(background_images(seed)[0]).tuned_BD)
