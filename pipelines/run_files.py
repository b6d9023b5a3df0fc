"""A finished run's files as later verbs need them: its fit, fetched from the registry, and its examples."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from guidelens.config import Home
from guidelens.data.examples import Examples
from guidelens.data.lake.lake import Lake
from guidelens.errors import InputError
from guidelens.inference.guide_files import load_items
from guidelens.inference.scorer import GuideScorer
from guidelens.registry import Registry
from pipelines.entry import progress
from pipelines.fit_parts import read_examples
from pipelines.materialize import materialized
from pipelines.train import FIT, FitRecord, examples_path


@dataclass(frozen=True)
class RunFiles:
    """`fit`: the fit's folder, which is gone when the run is closed. `registry` is the home's."""

    home: Home
    registry: Registry
    run_id: str
    fit: Path
    record: FitRecord

    @property
    def has_guide(self) -> bool:
        return self.record.parts.guide == "trained"

    def examples(self) -> Examples:
        """All splits, as the run was trained on them; where the work folder was cleared, made again from the lake's snapshot.

        Examples are not kept with the run: they hold shoppers' rows, and would outlive a shopper who asks to be forgotten.

        Raises:
            NotFoundError: they are gone, and so is the snapshot or the features.
            InputError: they are gone, and the features are of another lake or an older snapshot.
        """
        path = examples_path(self.home, self.run_id)
        if not path.exists():
            progress(f"the examples of run {self.run_id} are gone from {path.parent}; making them again from version {self.record.manifest} of the lake")
            self._made_again().save(path)
        return Examples.load(path)

    def _made_again(self) -> Examples:
        from guidelens.models.outcomes import with_targets

        record, held = self.record, materialized(self.home)
        if held.lake != record.lake or held.manifest < record.manifest:
            raise InputError(
                f"features must hold version {record.manifest} of {record.lake} to make the examples of run {self.run_id} again, "
                f"got version {held.manifest} of {held.lake}; run `guidelens materialize --lake {record.lake}` first"
            )
        lake, (_, catalogue) = Lake(record.lake, self.home.s3), load_items(self.fit)
        examples, _ = read_examples(self.home, record.config, lake, lake.manifest(record.manifest), catalogue)
        return with_targets(examples, catalogue, record.config)

    def control(self, task: str) -> GuideScorer | None:
        """The single-task model of a task, or None where the run trained none."""
        return GuideScorer.load(self.fit, task) if (self.fit / "controls" / f"{task}.safetensors").exists() else None


@contextmanager
def open_run(home: Home, run_id: str) -> Iterator[RunFiles]:
    """Fetches a run's fit into the home's scratch space.

    Raises:
        NotFoundError: there is no such run, or it holds no fit.
        InputError: the run did not finish, or its fit is of another schema.
    """
    registry = Registry(home)
    status = registry.status(run_id)
    if status != "FINISHED":
        raise InputError(f"run {run_id} must be FINISHED to be measured or released, got {status}; go on with `guidelens train --resume {run_id}`")
    home.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fit-", dir=home.work) as scratch:
        fit = registry.download(run_id, FIT, Path(scratch))
        try:
            record = FitRecord.model_validate_json((fit / "fit.json").read_bytes())
        except (OSError, ValidationError) as error:
            raise InputError(f"run {run_id}: its fit.json cannot be read: {error}; train again") from error
        yield RunFiles(home, registry, run_id, fit, record)
