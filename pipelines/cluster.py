"""A Ray session for a verb: the one that is there when it runs inside a job or RAY_ADDRESS is set, else its own, ended with it."""

import fcntl
import logging
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

from guidelens.errors import ConfigError

_QUIET = {
    "RAY_DATA_USE_DATASOURCE_V2": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # its handler would pass an interrupted study off as a finished one
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # nobody reads their files, which an interrupt would leave open
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "FEAST_USAGE": "False",
}
_OWN_MACHINE = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # nobody takes this machine away
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
}
_OF_WORKERS = {"POLARS_MAX_THREADS": "1"}
"""What worker processes inherit and this one does not keep: a task has a core, not the machine."""
NUM_LOGICAL_CPUS = 4
_TOKEN_PATH = "RAY_AUTH_TOKEN_PATH"
_FOLDERS, _PREFIX, _LOCK = Path("/tmp"), "gl-", "lock"
"""Where sessions have their folders: Ray's sockets need a short path."""
_SESSION = "GUIDELENS_RAY_SESSION"
"""Names in each process of a session the folder that is the session's alone."""


def in_job() -> bool:
    """This process is the driver of a Ray job, started by `ray job submit` or KubeRay."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def refuse_foreign_code() -> None:
    """Inside a Ray job, the code that runs must be the job's own working_dir, not an install elsewhere on the path.

    Raises:
        ConfigError: guidelens was imported from somewhere else.
    """
    if not in_job():
        return
    import guidelens

    here, origin = Path.cwd().resolve(), Path(guidelens.__file__).resolve()
    if not origin.is_relative_to(here):
        raise ConfigError(
            f"a job must run the code of its working_dir ({here}), got guidelens from {origin.parent}; set PYTHONPATH=platform in the job's runtime environment"
        )


@contextmanager
def ray_session(num_gpus: int | None = None) -> Iterator[None]:
    """Ray is up inside. Nested sessions share the outer one; SIGTERM unwinds like Ctrl-C, so that nothing stays behind.

    Args:
        num_gpus: GPUs to say that this machine has; those that Ray finds by default.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    import ray

    refuse_foreign_code()
    if ray.is_initialized():
        yield
        return
    if os.environ.get("RAY_ADDRESS") or in_job():
        ray.init(log_to_driver=False)
        try:
            yield
        finally:
            ray.shutdown()
        return
    for name, value in _OWN_MACHINE.items():
        os.environ.setdefault(name, value)
    _remove_dead(_FOLDERS)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_FOLDERS))
    lock = _locked(folder)
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    before = _heed_signals()
    given = os.environ.get(_TOKEN_PATH)
    os.environ[_TOKEN_PATH] = given or str(_new_token(folder))
    try:
        with _lent({**_OF_WORKERS, _SESSION: str(folder)}):
            ray.init(
                address="local",
                num_cpus=max(NUM_LOGICAL_CPUS, os.cpu_count() or 1),
                num_gpus=num_gpus,
                include_dashboard=False,
                log_to_driver=False,
                configure_logging=True,
                logging_level="WARNING",
                object_store_memory=1_500_000_000,
                _temp_dir=str(folder / "ray"),
            )
        _heed_signals()  # again: Ray's own handler, put there by init, would abort
        yield
    finally:
        ray.shutdown()
        _end_rest(folder)
        for number, handler in before.items():
            signal.signal(number, handler)
        if given is None:
            del os.environ[_TOKEN_PATH]
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked(folder: Path) -> int:
    """Locks the folder of a session until the descriptor is closed or this process is gone, in whatever way."""
    begun = folder / f"{_LOCK}.begun"
    lock = os.open(begun, os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    begun.rename(folder / _LOCK)  # only now, so that nobody finds it without its lock
    return lock


def _remove_dead(folders: Path) -> None:
    """Ends and removes what sessions of this user left whose process was killed."""
    for folder in folders.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if folder.stat().st_uid != os.getuid():
                continue
            lock = os.open(folder / _LOCK, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _end_rest(folder)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _end_rest(folder: Path) -> None:
    """Ends what the session of this folder left behind: an agent of Ray's that was still starting when its head went waits a minute for it."""
    mark = f"{_SESSION}={folder}".encode()
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdigit() and mark in (process / "environ").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)


@contextmanager
def _lent(variables: Mapping[str, str]) -> Iterator[None]:
    """The environment with these variables, where it has none of the name, for processes that are started inside."""
    lent = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(lent)
    try:
        yield
    finally:
        for name in lent:
            del os.environ[name]


def _new_token(folder: Path) -> Path:
    """A file with this process's token, readable by this user alone."""
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(_own_token())
    return token


@cache
def _own_token() -> str:
    """One for all sessions of a process: Ray reads it once and keeps it."""
    return secrets.token_hex(32)


def _heed_signals() -> dict[signal.Signals, Any]:
    """SIGINT and SIGTERM interrupt, also where a shell that put this process in the background had them ignored; the handlers before."""
    return {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
