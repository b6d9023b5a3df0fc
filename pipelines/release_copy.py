"""A release's verified copy in home/releases/VERSION: taken from the registry where it is missing, trusted only after `verify`."""

import shutil
import tempfile
from pathlib import Path

from guidelens.bundle import BundleManifest, verify
from guidelens.errors import BundleError
from guidelens.registry import ModelVersion, Registry

BUNDLE_TAG = "bundle"


def local_copy(registry: Registry, found: ModelVersion) -> tuple[Path, BundleManifest]:
    """The folder home/releases/VERSION and its manifest. It appears whole, by one rename.

    Raises:
        BundleError: a file is missing or altered, or the bundle is of another run than the version.
    """
    releases = registry.home.releases
    place = releases / found.version
    if not place.exists():
        releases.mkdir(parents=True, exist_ok=True)
        arriving = Path(tempfile.mkdtemp(prefix=".arriving-", dir=releases))
        try:
            fetched = registry.download(found.run_id, found.tags.get(BUNDLE_TAG, "bundle"), arriving)
            _of_run(fetched, verify(fetched), found)
            _take_place(fetched, place)
        finally:
            shutil.rmtree(arriving, ignore_errors=True)
    manifest = verify(place)
    _of_run(place, manifest, found)
    return place, manifest


def _take_place(fetched: Path, place: Path) -> None:
    try:
        fetched.rename(place)
    except OSError:
        if not place.is_dir():
            raise


def _of_run(bundle: Path, manifest: BundleManifest, found: ModelVersion) -> None:
    if manifest.run_id != found.run_id:
        raise BundleError(f"{bundle}: is of run {manifest.run_id}, but release {found.version} is of run {found.run_id}; release again")
