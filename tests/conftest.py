"""What tests of several rooms share: one local Ray for the whole session, a home of one's own, the real data sets."""

import os
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
    """A local Ray with its own short temporary folder, token and ports; verbs called in the test join it."""
    with ray_session():
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
