"""Which release is served, and its verified local copy. The alias is resolved once, when the graph is built."""

import json
from pathlib import Path

from guidelens.bundle import BundleManifest, verify
from guidelens.config import Home, ServeConfig
from guidelens.errors import BundleError, NotFoundError
from guidelens.models.baselines.fallback import Fallback
from serve.catalogue import Catalogue


def resolve(home: Home, release: str) -> str:
    """The version behind an alias; a version number stands for itself.

    Raises:
        NotFoundError: no release bears that alias, or there is no such version in this home.
    """
    version: str | None = release
    if not release.isdigit():
        from guidelens.registry import Registry

        version = Registry(home).alias(release)
        if version is None:
            raise NotFoundError(f"no release bears the alias {release!r} in {home.root}; run `guidelens release` and `guidelens promote`, or name a version")
    if not (home.releases / str(version)).is_dir():
        raise NotFoundError(f"release {version} has no local copy in {home.releases}; run `guidelens release` in this home")
    return str(version)


def open_bundle(home: Home, version: str) -> tuple[Path, BundleManifest]:
    """The local copy of a version, every file of it checked against the manifest's SHA-256.

    Raises:
        BundleError: a file is missing, altered or of the wrong schema.
    """
    path = home.releases / version
    return path, verify(path)


def baseline(bundle: Path, catalogue: Catalogue) -> Fallback | None:
    """The classic recommender that answers before popularity does; None where the release carries none.

    Raises:
        BundleError: it cannot be read, or is of another catalogue.
    """
    return Fallback.load(bundle, [item.view.product_id for item in catalogue.items])


def trained_settings(bundle: Path) -> ServeConfig:
    """The serving settings that the release was trained and measured with.

    Raises:
        BundleError: the bundle has no readable fit.json.
    """
    path = bundle / "fit.json"
    try:
        return ServeConfig.model_validate(json.loads(path.read_text())["config"]["serve"])
    except (OSError, ValueError, KeyError) as error:
        raise BundleError(f"{path}: cannot be read: {error!r}") from error
