"""What tests of several rooms share: one local Ray for the whole session, a home of one's own, the real data sets."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from guidelens.config import Home
from pipelines.cluster import ray_session

if TYPE_CHECKING:
    from served_shop import ReleasedShop

settings.register_profile("guidelens", deadline=None)  # a busy machine is not a wrong answer
settings.load_profile("guidelens")


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A local Ray with its own short temporary folder, token and ports; verbs called in the test join it. Its two GPUs are logical."""
    with ray_session(num_gpus=2):
        yield


@pytest.fixture(scope="session")
def released_shop(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> "ReleasedShop":
    """A tiny world with a champion: made once, for every test that serves it."""
    from served_shop import release_tiny_world

    return release_tiny_world(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(root=tmp_path / "home")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the real data sets: GUIDELENS_DATA, else ../shared/data beside the repo; skips where there is none."""
    named = os.environ.get("GUIDELENS_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data sets at {folder}; set GUIDELENS_DATA")
    return folder


@pytest.fixture(scope="session")
def redis_address() -> Iterator[str]:
    """HOST:PORT of a Redis server of the tests' own, on loopback; tests share it, so each names its own entities."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("no redis-server; apt-get install redis-server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)
