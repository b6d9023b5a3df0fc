"""Runs, their metrics and artifacts, and released versions with their aliases: MLflow, and the only importer of it.

MLflow takes seconds to import and, on a new home, seconds to create its tables: both happen on first use, never at import.
"""

import fcntl
import logging
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from guidelens.config import REGISTERED_MODEL, Home
from guidelens.errors import NotFoundError, StorageError
from guidelens.schemas.base import Frozen

EXPERIMENT = "guidelens"
CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
RunStatus = Literal["RUNNING", "FINISHED", "FAILED"]
_BATCH = 90


class ModelVersion(Frozen):
    """A registered release. `tags` hold the gate's verdict and, once promoted, when and by which reason."""

    version: str
    run_id: str
    source: str
    created_us: int
    aliases: tuple[str, ...]
    tags: dict[str, str]


def flatten_params(config: BaseModel) -> dict[str, str]:
    """A config as MLflow params: `train.lambdas.plan` and so on; secrets stay masked, as pydantic dumps them."""
    return dict(_leaves("", config.model_dump(mode="json")))


def _leaves(prefix: str, node: object) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(f"{prefix}.{key}" if prefix else str(key), value)
    else:
        yield prefix, str(node)


class Registry:
    """The tracking store and model registry of one home. Travels to Ray workers; the client is made where it is used."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._client: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"home": self.home, "_client": None}

    @property
    def _database(self) -> Path:
        return self.home.root / "mlflow.db"

    @property
    def client(self) -> Any:
        """The MLflow client. The first one of a home creates the tables, under a lock that a second process waits for."""
        if self._client is None:
            self._client = _connect(self.home)
        return self._client

    # Runs

    def start_run(self, name: str, params: Mapping[str, str], tags: Mapping[str, str]) -> str:
        """Opens a run of experiment EXPERIMENT and returns its id; values longer than MLflow takes are refused by it."""
        from mlflow.entities import Param

        with _translated("start a run"):
            experiment = self.client.get_experiment_by_name(EXPERIMENT)
            run = self.client.create_run(experiment.experiment_id, run_name=name, tags=dict(tags))
            run_id: str = run.info.run_id
            items = [Param(key, value) for key, value in params.items()]
            for start in range(0, len(items), _BATCH):
                self.client.log_batch(run_id, params=items[start : start + _BATCH])
        return run_id

    def log_metrics(self, run_id: str, metrics: Mapping[str, float], step: int | None = None) -> None:
        from mlflow.entities import Metric

        now_ms = time.time_ns() // 1_000_000
        items = [Metric(key, float(value), now_ms, step or 0) for key, value in metrics.items()]
        with _translated(f"log metrics of run {run_id}"):
            for start in range(0, len(items), _BATCH):
                self.client.log_batch(run_id, metrics=items[start : start + _BATCH])

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        with _translated(f"tag run {run_id}"):
            self.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def log_folder(self, run_id: str, local: Path, artifact_path: str) -> None:
        """Copies everything in `local` into the run's artifacts, under `artifact_path`."""
        with _translated(f"store {artifact_path} of run {run_id}"):
            self.client.log_artifacts(run_id, str(local), artifact_path)

    def finish(self, run_id: str, status: RunStatus = "FINISHED") -> None:
        with _translated(f"finish run {run_id}"):
            self.client.set_terminated(run_id, status=status)

    def reopen(self, run_id: str) -> None:
        """Back to RUNNING: a resumed training goes on in its own run."""
        with _translated(f"reopen run {run_id}"):
            self.client.update_run(run_id, status="RUNNING")

    def status(self, run_id: str) -> str:
        return str(self._run(run_id).info.status)

    def params(self, run_id: str) -> dict[str, str]:
        return dict(self._run(run_id).data.params)

    def tags(self, run_id: str) -> dict[str, str]:
        """The run's tags without MLflow's own."""
        return {key: value for key, value in self._run(run_id).data.tags.items() if not key.startswith("mlflow.")}

    def metrics(self, run_id: str) -> dict[str, float]:
        """The last value of each metric."""
        return dict(self._run(run_id).data.metrics)

    def history(self, run_id: str, metric: str) -> list[tuple[int, float]]:
        """(step, value) of a metric, by step; a step logged again (after a resume) counts with its last value."""
        with _translated(f"read metric {metric} of run {run_id}"):
            points = self.client.get_metric_history(run_id, metric)
        return sorted({point.step: point.value for point in sorted(points, key=lambda point: point.timestamp)}.items())

    def has_artifact(self, run_id: str, artifact_path: str) -> bool:
        self._run(run_id)
        with _translated(f"list artifacts of run {run_id}"):
            return any(entry.path == artifact_path for entry in self.client.list_artifacts(run_id))

    def download(self, run_id: str, artifact_path: str, dest: Path) -> Path:
        """A copy of a run's artifact folder below `dest`; returns the folder itself.

        Raises:
            NotFoundError: there is no such run, or it holds no such artifact.
        """
        if not self.has_artifact(run_id, artifact_path):
            raise NotFoundError(f"run {run_id} holds no artifact {artifact_path!r}; it was not trained to its end, train again")
        dest.mkdir(parents=True, exist_ok=True)
        with _translated(f"download {artifact_path} of run {run_id}"):
            return Path(self.client.download_artifacts(run_id, artifact_path, str(dest)))

    def _run(self, run_id: str) -> Any:
        if not self._database.exists():
            raise NotFoundError(f"run {run_id} does not exist: {self.home.root} holds no runs yet; `guidelens train` first")
        try:
            with _translated(f"run {run_id}"):
                return self.client.get_run(run_id)
        except NotFoundError as error:
            raise NotFoundError(
                f"run {run_id} does not exist; `mlflow ui --backend-store-uri {self.home.mlflow_tracking_uri}` shows those of this home"
            ) from error

    # Releases

    def register(self, run_id: str, artifact_path: str = "bundle") -> str:
        """A new version of REGISTERED_MODEL whose files are the run's artifact; returns its number as a string."""
        from mlflow.exceptions import MlflowException

        source = f"{self._run(run_id).info.artifact_uri}/{artifact_path}"
        try:
            self.client.get_registered_model(REGISTERED_MODEL)
        except MlflowException:
            with _translated(f"register {REGISTERED_MODEL}"):
                self.client.create_registered_model(REGISTERED_MODEL)
        with _translated(f"register a version of run {run_id}"):
            return str(self.client.create_model_version(REGISTERED_MODEL, source=source, run_id=run_id).version)

    def version(self, version: str) -> ModelVersion:
        """Raises NotFoundError where the version was never registered."""
        for found in self.versions():
            if found.version == version:
                return found
        raise NotFoundError(f"release {version} does not exist; `guidelens release list` shows those that do")

    def versions(self) -> list[ModelVersion]:
        """All registered versions, oldest first; none for a home without a registry."""
        if not self._database.exists():
            return []
        with _translated("list releases"):
            found = self.client.search_model_versions(f"name='{REGISTERED_MODEL}'")
        aliases = self.aliases()
        known = [
            ModelVersion(
                version=str(entry.version),
                run_id=entry.run_id,
                source=entry.source,
                created_us=int(entry.creation_timestamp) * 1000,
                aliases=tuple(sorted(name for name, version in aliases.items() if version == str(entry.version))),
                tags=dict(entry.tags),
            )
            for entry in found
        ]
        return sorted(known, key=lambda entry: int(entry.version))

    def tag_version(self, version: str, tags: Mapping[str, str]) -> None:
        with _translated(f"tag release {version}"):
            for key, value in tags.items():
                self.client.set_model_version_tag(REGISTERED_MODEL, version, key, value)

    def aliases(self) -> dict[str, str]:
        """Alias to version; empty for a home without a registry."""
        from mlflow.exceptions import MlflowException

        if not self._database.exists():
            return {}
        try:
            model = self.client.get_registered_model(REGISTERED_MODEL)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return {}
            raise StorageError(f"MLflow could not read the aliases of {REGISTERED_MODEL}: {error}") from error
        return {name: str(version) for name, version in model.aliases.items()}

    def alias(self, name: str) -> str | None:
        """The version behind an alias, or None where nobody set it."""
        return self.aliases().get(name)

    def set_alias(self, name: str, version: str) -> None:
        with _translated(f"set alias {name} to release {version}"):
            self.client.set_registered_model_alias(REGISTERED_MODEL, name, version)

    def remove_alias(self, name: str) -> None:
        """Removes an alias; one that is not set stays not set."""
        if self.alias(name) is not None:
            with _translated(f"remove alias {name}"):
                self.client.delete_registered_model_alias(REGISTERED_MODEL, name)

    def resolve(self, release: str) -> str:
        """The version that an alias or a version number names.

        Raises:
            NotFoundError: neither an alias that is set nor a registered version.
        """
        return self.alias(release) or self.version(release).version


def _connect(home: Home) -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    home.root.mkdir(parents=True, exist_ok=True)
    with _locked(home.root / ".mlflow.lock"), _translated("open the registry"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The ``noload`` loader strategy is deprecated")  # MLflow's own, on SQLAlchemy 2.1
        client = MlflowClient(tracking_uri=home.mlflow_tracking_uri, registry_uri=home.mlflow_tracking_uri)
        if client.get_experiment_by_name(EXPERIMENT) is None:
            client.create_experiment(EXPERIMENT, artifact_location=home.mlflow_artifacts.as_uri())
        client.search_registered_models(max_results=1)
    return client


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """MLflow's exceptions as ours: a thing that is not there is the caller's, everything else the store's."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise NotFoundError(f"{what}: {error.message}") from error
        raise StorageError(f"MLflow could not {what}: {error.message}") from error
