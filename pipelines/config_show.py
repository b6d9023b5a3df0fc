"""`guidelens config`: what a preset and a home come to, for people and for other clients of the same stores."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import click

from guidelens.config import FEATURE_SERVICE, REGISTERED_MODEL, Config, Home
from guidelens.errors import ConfigError
from guidelens.schemas.base import Frozen
from pipelines.entry import config_options, emit, home_option, progress, run_command


class Places(Frozen):
    """Where a home keeps its state, under the names its own clients (MLflow, Feast) know. `config` only where it was asked for."""

    preset: str
    home: Path
    lake: str
    mlflow_tracking_uri: str
    registered_model: str
    feature_repo: Path
    feature_service: str
    config: Config | None = None


class Validated(Frozen):
    preset: str
    valid: bool


def feature_repo_folder() -> Path:
    """The folder that Feast's own client takes as `repo_path`, wherever the package is installed.

    Raises:
        ConfigError: the package is not installed whole.
    """
    spec = importlib.util.find_spec("feature_repo")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        return Path(folder).resolve()
    raise ConfigError("feature_repo must be importable, found no such package; install guidelens anew")


def run(home: Home, config: Config, full: bool = False) -> Places:
    return Places(
        preset=config.preset,
        home=home.root,
        lake=home.lake_uri,
        mlflow_tracking_uri=home.mlflow_tracking_uri,
        registered_model=REGISTERED_MODEL,
        feature_repo=feature_repo_folder(),
        feature_service=FEATURE_SERVICE,
        config=config if full else None,
    )


@click.group()
def command() -> None:
    """Show what a preset and a home come to, or check settings."""


@command.command("show")
@home_option
@config_options
@click.option("--full", is_flag=True, help="With every setting of the configuration.")
def show(home: Home, config: Config, full: bool) -> None:
    """Show where state lives and, with --full, every setting."""
    places = run(home, config, full)
    if full:
        for name, value in _flat(config.model_dump(mode="json")):
            progress(f"{name}={json.dumps(value, ensure_ascii=False)}")
    emit(places.model_dump(mode="json", exclude=None if full else {"config"}))


@command.command("validate")
@config_options
def validate(config: Config) -> None:
    """Check that a preset takes the given settings; exit 2 with the reason where it does not."""
    emit(Validated(preset=config.preset, valid=True))


def _flat(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    """Settings as `--set` takes them: (a.b, value), in the order of the models."""
    rows: list[tuple[str, object]] = []
    for name, value in tree.items():
        rows.extend(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(f"{prefix}{name}", value)])
    return rows


if __name__ == "__main__":
    run_command(command)
