"""`guidelens evaluate rolling`: trains anew on growing stretches of the log, tests each on the stretch that follows, and reports with intervals."""

import dataclasses
import shutil
from pathlib import Path

import click
import polars as pl

from guidelens.config import Config, Home, TrainConfig
from guidelens.data.examples import Examples
from guidelens.data.lake.lake import Lake, Manifest
from guidelens.data.prepare import Log, build_examples, read_log
from guidelens.data.visits import InterestMedians
from guidelens.errors import InputError
from guidelens.evaluation.guide import Draws, classic_baselines
from guidelens.evaluation.metric_rows import MetricRows, metric_rows, ranking_rows_of
from guidelens.evaluation.rolling import MODEL, RollingReport, Window, rolled, windows
from guidelens.evaluation.rolling_html import render
from guidelens.features import Features
from guidelens.inference.scorer import GuideScorer
from guidelens.models.items import Catalogue
from guidelens.schemas.base import Frozen
from guidelens.schemas.ids import sub_seed
from pipelines.cluster import ray_session
from pipelines.entry import config_options, emit, home_option, progress, run_command
from pipelines.fit_parts import FitParts
from pipelines.fit_recognizer import TRAINED
from pipelines.materialize import require_features_of
from pipelines.measure import split_dates
from pipelines.run_files import open_run

FOLDS = 3


class RollingResult(Frozen):
    """report: path of rolling.json, with rolling.html beside it. metrics: of the model, over all folds."""

    report: str
    metrics: dict[str, float]


def run(home: Home, config: Config, folds: int, lake: str | None = None, manifest: int | None = None) -> RollingResult:
    """Trains and measures each fold; nothing is tracked or released.

    Args:
        lake: URI; the home's own by default.
        manifest: version of the lake; the newest by default.

    Raises:
        NotFoundError, InputError: as `guidelens train`; a fold whose training part is too small is named.
        ConfigError: more folds than the log can give.
    """
    opened = Lake(lake or home.lake_uri, home.s3)
    snapshot = opened.manifest(manifest)
    require_features_of(home, opened, snapshot)
    work = home.work / "rolling"
    shutil.rmtree(work, ignore_errors=True)
    config = config.model_copy(update={"train": config.train.model_copy(update={"single_task_controls": False})})
    log = read_log(opened, snapshot, config.train)
    packed = Features(home, config.features).shopper_frame(log.entities)["packed"]
    scored, dates = [], []
    with ray_session():
        for number, window in enumerate(windows(len(log.rows), folds, config.train), 1):
            progress(f"rolling: fold {number} of {folds}, {window.until_row:,} requests")
            fold = _Fold(home, _of_window(config, window), opened, snapshot, work / f"fold-{number}")
            examples, rows = fold.measured(_until(log, window), packed.head(window.until_row))
            scored.append(rows)
            dates.append(split_dates(examples))
            shutil.rmtree(fold.work)  # examples hold shoppers' rows; nothing needs them any more
    draws = Draws(config.evaluate.num_bootstrap, sub_seed(config.seed, "rolling"))
    report = rolled(opened.uri, config.seed, config.preset, dates, scored, draws)
    return RollingResult(report=str(_written(report, work)), metrics={name: one.value for name, one in report.overall[MODEL].items()})


def _written(report: RollingReport, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "rolling.json"
    path.write_text(report.model_dump_json(indent=1) + "\n")
    path.with_suffix(".html").write_text(render(report))
    return path


def _of_window(config: Config, window: Window) -> Config:
    """The config under which the usual split of the window's rows gives its parts."""
    shares = {"test_share": window.test_share, "validation_share": window.validation_share}
    return config.model_copy(update={"train": TrainConfig.model_validate({**dict(config.train), **shares})})


def _until(log: Log, window: Window) -> Log:
    """The log as it was at the window's end: later rows are not there to be split, counted or taken medians of."""
    return dataclasses.replace(log, rows=log.rows.head(window.until_row))


@dataclasses.dataclass(frozen=True)
class _Fold:
    """One window's training, in a folder of its own."""

    home: Home
    config: Config
    lake: Lake
    snapshot: Manifest
    work: Path

    def measured(self, log: Log, packed: pl.Series) -> tuple[Examples, dict[str, dict[str, MetricRows]]]:
        """The fold's examples, and the metrics' rows of the model and the baselines on its test part."""
        fit = self.work / "fit"
        fit.mkdir(parents=True)
        parts = FitParts(self.home, self.config, self.lake, self.snapshot, self.work, fit)
        catalogue = Catalogue.of_table(parts.write_items())
        examples, medians = build_examples(log, packed, list(catalogue.product_ids), catalogue.price_N, self.config.train)
        self._fit(parts, examples, medians, catalogue)
        test = examples.of("test")
        peers = classic_baselines(examples, catalogue)
        rows = {MODEL: metric_rows(GuideScorer.load(fit), test)}
        return examples, rows | {name: ranking_rows_of(peer, test) for name, peer in peers.items()}

    def _fit(self, parts: FitParts, examples: Examples, medians: InterestMedians, catalogue: Catalogue) -> None:
        state = parts.fit_examples(examples, medians, catalogue).guide
        if state != TRAINED:
            raise InputError(
                f"every fold needs a training part that something can be learned from, got {len(examples.of('train'))} requests: {state}; use fewer --folds"
            )


@click.command(name="rolling")
@click.option("--run", "run_id", metavar="RUN", help="Take config, lake and snapshot of this run; without it those of --preset and --set.")
@click.option("--folds", type=click.IntRange(min=2), default=FOLDS, show_default=True, help="Windows, each a train.test_share of the log.")
@click.option("--lake", default=None, metavar="URI", help="Lake to read; the home's own by default.")
@home_option
@config_options
def rolling_command(run_id: str | None, folds: int, lake: str | None, home: Home, config: Config) -> None:
    """Train on all before a window and test on it, for one window after another."""
    if run_id is None:
        emit(run(home, config, folds, lake))
        return
    with open_run(home, run_id) as files:
        record = files.record
    emit(run(home, record.config, folds, record.lake, record.manifest))


if __name__ == "__main__":
    run_command(rolling_command)
