"""`guidelens serve`: one release over HTTP, in the foreground. The graph itself is found by its import path, never imported here."""

import contextlib
import importlib
import io
import logging
import os
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType, ModuleType
from typing import Any

import click

from guidelens.config import Config, Home, ServeConfig
from guidelens.errors import ConfigError, GuideLensError, NotFoundError
from guidelens.schemas.base import Frozen
from pipelines.cluster import ray_session
from pipelines.entry import config_options, emit, home_option, progress, run_command

GRAPH = "serve.app:build"
ARGUMENTS = "serve.app:ServeArgs"
NAME = "guidelens"
QUIET = {"log_level": "ERROR", "enable_access_log": False}
READY_S = 180.0


class Result(Frozen):
    """What was served, and for how long."""

    url: str
    release: str
    served_s: float


@contextmanager
def start(home: Home, release: str = "champion", host: str = "127.0.0.1", port: int = 8000, config: Config | None = None) -> Iterator[str]:
    """The graph is up inside; yields its URL once every part has answered, and stops all of it at the end.

    Raises:
        ConfigError: the port is taken.
        NotFoundError: no such release.
        GuideLensError: not ready within READY_S.
    """
    _refuse_taken_port(host, port)
    with ThreadPoolExecutor(max_workers=1) as aside, contextlib.ExitStack() as ending:
        version = aside.submit(_version, home, release)
        with ray_session():
            serve = _ray_serve()
            application = _import(GRAPH)(_arguments(home, version.result(), config))
            try:
                _start_proxy(serve, host, port)
                _deploy(serve, application)
                url = f"http://{host if ':' not in host else f'[{host}]'}:{port}"
                _wait_until_ready(url)
                yield url
            finally:
                ending.enter_context(contextlib.redirect_stdout(_RayNotes()))
                serve.shutdown()


class _RayNotes(io.TextIOBase):
    """Where Ray prints while it ends: to stderr, as stdout is the caller's; not that the controller is gone, which is how it ends."""

    def __init__(self) -> None:
        self._begun = ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            if line.strip() and "Task ServeController.graceful_shutdown failed" not in line:
                sys.stderr.write(f"{line}\n")
        return len(text)


def _ray_serve() -> ModuleType:
    """ray.serve, without its notes about its own progress and its own deprecations; its import sets the level of its log."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        serve = importlib.import_module("ray.serve")
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    return serve


def _version(home: Home, release: str) -> str:
    """The version behind an alias or a number, with its verified copy in the home; no registry is asked where the copy is there."""
    if release.isdigit() and (home.releases / release).is_dir():
        return release
    from guidelens.registry import Registry
    from pipelines.release_copy import local_copy

    registry = Registry(home)
    version = release if release.isdigit() else registry.alias(release)
    if version is None:
        raise NotFoundError(f"no release bears the alias {release!r} in {home.root}; run `guidelens release` and `guidelens promote`, or name a version")
    local_copy(registry, registry.version(version))
    return version


def _arguments(home: Home, version: str, config: Config | None) -> Any:
    given: dict[str, Any] = {"home": home.root, "release": version, "s3": home.s3}
    if config is not None:
        given["features"] = config.features
        if config.serve != ServeConfig():
            given["serve"] = config.serve
    return _import(ARGUMENTS)(**given)


def _import(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _start_proxy(serve: ModuleType, host: str, port: int) -> None:
    from ray.serve.config import HTTPOptions

    serve.start(
        proxy_location="HeadOnly",
        http_options=HTTPOptions(host=host, port=port, request_timeout_s=60, keep_alive_timeout_s=75),
        logging_config=QUIET,
    )


def _deploy(serve: ModuleType, application: Any) -> None:
    try:
        serve.run(application, name=NAME, route_prefix="/", logging_config=QUIET)
    except RuntimeError as error:
        found = serve.status().applications.get(NAME)
        reasons = [f"{part}: {state.message.strip()[-1500:]}" for part, state in (found.deployments if found else {}).items() if state.message]
        raise GuideLensError(f"the graph cannot start: {error}\n" + "\n".join(reasons)) from error


def _refuse_taken_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(f"--port must be free on {host}, got {port} ({error.strerror}); stop what listens there, or name another port") from error


def _wait_until_ready(url: str) -> None:
    ends, problem = time.monotonic() + READY_S, "no answer"
    while time.monotonic() < ends:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=15) as reply:
                if reply.status == 200:
                    return
        except urllib.error.HTTPError as error:
            problem = error.read().decode(errors="replace")[:300]
        except OSError as error:
            problem = str(error)
        time.sleep(0.1)
    raise GuideLensError(f"{url}/readyz must answer 200 within {READY_S:.0f} s, got: {problem}")


@contextmanager
def _until_asked_to_stop() -> Iterator[threading.Event]:
    """SIGINT and SIGTERM set the event, the first time; the second time they interrupt."""
    asked = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(home: Home, release: str, host: str, port: int, config: Config) -> Result:
    """Serves until asked to stop."""
    progress(f"starting release {release} of {home.root}")
    with start(home, release, host, port, config) as url:
        with urllib.request.urlopen(f"{url}/v1/releases/current", timeout=15) as reply:
            served = str(_json(reply.read())["release"])
        click.echo(f"ready {url}")
        began = time.monotonic()
        with _until_asked_to_stop() as asked:
            while not asked.wait(timeout=0.5):
                pass
        progress("stopping")
    return Result(url=url, release=served, served_s=round(time.monotonic() - began, 1))


def _json(data: bytes) -> dict[str, Any]:
    import json

    found: dict[str, Any] = json.loads(data)
    return found


@click.command("serve")
@home_option
@config_options
@click.option("--release", default="champion", show_default=True, help="An alias, or a version.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True, help="Port to listen on.")
def command(home: Home, config: Config, release: str, host: str, port: int) -> None:
    """Serve a release over HTTP, with the page at /, until interrupted."""
    os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "0")
    emit(run(home, release, host, port, config))


if __name__ == "__main__":
    run_command(command)
