"""The parts of one fit, in order: item table, recognizer, guide model with its single-task controls, and what serving needs beside them.

A part that the data does not allow is left out with its reason; a part that fails for any other reason fails the run.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from guidelens.config import Config, Home, TaskName
from guidelens.data.examples import Examples
from guidelens.data.lake.lake import Lake, Manifest
from guidelens.data.visits import InterestMedians
from guidelens.models.items import Catalogue
from guidelens.schemas.base import Frozen
from guidelens.schemas.tables import Table
from pipelines.entry import progress
from pipelines.fit_recognizer import TRAINED, TUNING, RecognizerDone, fit_recognizer
from pipelines.fit_search import keep_search, learn_search
from pipelines.fit_shop import keep_complements, keep_fallback, keep_rules

if TYPE_CHECKING:
    from guidelens.training.loop import EpochLosses
    from guidelens.training.warm_start import WarmStart

EXAMPLES = "examples.parquet"
POPULARITY_TYPES = {"click": 1.0, "cart": 2.0, "purchase": 5.0}
MIN_REQUESTS, MIN_CLICKS = 64, 10


class Parts(Frozen):
    """`trained`, or `absent: reason`."""

    recognizer: str
    guide: str
    controls: str


@dataclass(frozen=True)
class FitDone:
    """by_epoch: (epoch, metrics) of every epoch of every model; metrics: the last ones. left_out: tasks the guide did not learn."""

    parts: Parts
    left_out: tuple[TaskName, ...]
    num_products: int
    metrics: dict[str, float]
    by_epoch: tuple[tuple[int, dict[str, float]], ...]


class GuideDone(NamedTuple):
    """States of guide and controls, the losses by epoch, and the tasks the guide did not learn."""

    guide: str
    controls: str
    by_epoch: tuple[tuple[int, dict[str, float]], ...] = ()
    left_out: tuple[TaskName, ...] = ()


class FitParts:
    """One run's parts, written to `fit_dir`; checkpoints and examples go to `work`. start: what the guide goes on from.
    track: called, from a thread of its own, with each epoch's number and metrics as it ends."""

    def __init__(
        self,
        home: Home,
        config: Config,
        lake: Lake,
        snapshot: Manifest,
        work: Path,
        fit_dir: Path,
        start: "WarmStart | None" = None,
        track: Callable[[int, dict[str, float]], None] = lambda _epoch, _metrics: None,
    ) -> None:
        self.home, self.config, self.lake, self.snapshot, self.work, self.fit_dir = home, config, lake, snapshot, work, fit_dir
        self.start, self.track = start, track

    def run(self) -> FitDone:
        """Everything there is data for. The recognizer is fitted beside the guide model, and given up where that breaks."""
        from guidelens.training.tuning_fits import in_background, stop_fits

        items = self.write_items()
        recognizer = in_background(lambda: fit_recognizer(self.lake, self.snapshot, items, self.config, self.work, self.fit_dir, self.track))
        try:
            return self._done(items, self._guide(items), recognizer.result())
        except BaseException:
            stop_fits(self.work / TUNING)
            raise

    def _done(self, items: pl.DataFrame, guide: "GuideDone", recognizer: RecognizerDone) -> FitDone:
        parts = Parts(recognizer=recognizer.state, guide=guide.guide, controls=guide.controls)
        metrics: dict[str, float] = {}
        by_epoch = (*guide.by_epoch, *recognizer.by_epoch)
        for _, values in by_epoch:
            metrics.update(values)
        if recognizer.metrics:
            by_epoch = (*by_epoch, (max((epoch for epoch, _ in by_epoch), default=0), recognizer.metrics))
        found = self._search()
        by_epoch = (*by_epoch, (max((epoch for epoch, _ in by_epoch), default=0), found))
        return FitDone(parts, guide.left_out, len(items), {**metrics, **recognizer.metrics, **found}, by_epoch)

    def _search(self) -> dict[str, float]:
        """Needs every other part: search weighs what they say."""
        examples = Examples.load(self.work / EXAMPLES) if (self.work / EXAMPLES).exists() else None
        queries = self.lake.read(Table.QUERIES, ["query"], manifest=self.snapshot)["query"].unique().sort().to_list() if examples is not None else []
        return learn_search(self.home, self.config.ingest.encoders.text, self.config.seed, examples, queries, self.fit_dir)

    def write_items(self) -> pl.DataFrame:
        """items.parquet: Feast's product view at the snapshot, sorted by product_id; its text index; and popularity.json."""
        from guidelens.inference.popularity import write_popularity
        from guidelens.inference.search_texts import build_text_index

        items = item_table(self.home, self.config, self.lake, self.snapshot)
        items.write_parquet(self.fit_dir / "items.parquet")
        build_text_index(items).save(self.fit_dir / "text_index")
        events = self.lake.read(Table.EVENTS, ["type", "product_id"], manifest=self.snapshot)
        counted = events.with_columns(pl.col("type").replace_strict(POPULARITY_TYPES, default=0.0, return_dtype=pl.Float64).alias("weight"))
        weights = dict(counted.drop_nulls("product_id").group_by("product_id").agg(pl.col("weight").sum()).iter_rows())
        clicks = dict(events.filter(pl.col("type") == "click").drop_nulls("product_id").group_by("product_id").len().iter_rows())
        ids = items["product_id"].to_list()
        write_popularity(self.fit_dir, [float(weights.get(each, 0.0)) for each in ids], [clicks.get(each, 0) for each in ids])
        keep_rules(self.home, self.config, items, self.fit_dir)
        keep_search(self.home, self.config.ingest.encoders.text, items, self.fit_dir)
        return items

    def _guide(self, items: pl.DataFrame) -> GuideDone:
        absent = self._why_no_guide()
        if absent:
            return GuideDone(absent, absent)
        catalogue = Catalogue.of_table(items)
        examples, medians = read_examples(self.home, self.config, self.lake, self.snapshot, catalogue)
        train = examples.of("train")
        num_clicks = int((train.click > 0).sum())
        if len(train) < MIN_REQUESTS or num_clicks < MIN_CLICKS:
            reason = f"absent: the log's training part holds {len(train)} requests and {num_clicks} clicks; at least {MIN_REQUESTS} and {MIN_CLICKS} are needed"
            return GuideDone(reason, reason)
        done = self.fit_examples(examples, medians, catalogue)
        keep_complements(examples, catalogue, items, self.config.seed, self.fit_dir)
        keep_fallback(examples, catalogue, self.config.train.fallback, self.fit_dir, self.config.seed)
        return done

    def _why_no_guide(self) -> str | None:
        if self.snapshot.rows(Table.EVENTS) == 0:
            return "absent: the lake holds no events"
        return None

    def fit_examples(self, examples: Examples, medians: InterestMedians, catalogue: Catalogue) -> GuideDone:
        from guidelens.inference.guide_files import guide_header
        from guidelens.models.outcomes import with_targets
        from guidelens.training.data import FitJob, controls
        from guidelens.training.fit import fit_guide
        from guidelens.training.publish import publish

        examples = with_targets(examples, catalogue, self.config)
        examples.save(self.work / EXAMPLES)
        lambdas = learnable(self.config, examples.of("train"))
        if not any(lambdas.values()):
            reason = "absent: the log's training part holds no label of a task whose train.lambdas is above 0"
            return GuideDone(reason, reason)
        jobs = [FitJob(name="guide", lambdas=lambdas, model=self.config.train.model, extra=self.config.train.extra_tasks)]
        jobs += controls(self.config.train, [task for task, weight in lambdas.items() if weight > 0]) if self.config.train.single_task_controls else []
        progress(f"train: {len(examples):,} rows, models {', '.join(job.name for job in jobs)}")
        fitted = fit_guide(examples, catalogue, self.config, jobs, self.work, self._tell, {} if self.start is None else {"guide": self.start})
        publish(fitted, jobs, examples, catalogue, medians, self.fit_dir)
        by_epoch = tuple((losses.epoch, epoch_metrics(losses)) for losses in fitted.history)
        by_epoch = (*by_epoch, (by_epoch[-1][0], guide_header(self.fit_dir).probabilities.metrics()))
        alone = TRAINED if len(jobs) > 1 else "absent: train.single_task_controls is false"
        return GuideDone(TRAINED, alone, by_epoch, tuple(task for task, weight in lambdas.items() if weight == 0))

    def _tell(self, losses: "EpochLosses") -> None:
        self.track(losses.epoch, epoch_metrics(losses))
        progress(
            f"train: {losses.job} epoch {losses.epoch + 1} of {self.config.train.epochs}: {'validation' if losses.val else 'training'} loss {losses.objective:.4f}"
        )


def item_table(home: Home, config: Config, lake: Lake, snapshot: Manifest) -> pl.DataFrame:
    """Feast's product view at the snapshot, sorted by product_id, row by row the products of a fit."""
    from guidelens.features import Features

    return with_models_there(Features(home, config.features).products().sort("product_id"), lake, snapshot)


def with_models_there(items: pl.DataFrame, lake: Lake, snapshot: Manifest) -> pl.DataFrame:
    """Items whose `model_3d` is the path of a model that the lake holds, and null where it holds none."""
    there = lake.read(Table.MODELS, ["path"], manifest=snapshot)["path"]
    path = pl.col("model_3d").str.strip_prefix("./")
    return items.with_columns(model_3d=pl.when(path.is_in(there.implode())).then(path))


def learnable(config: Config, train: Examples) -> dict[TaskName, float]:
    """The config's lambdas, 0 for a task that the training rows hold no label of."""
    labelled = train.labelled
    for task, weight in config.train.lambdas.items():
        if weight > 0 and task not in labelled:
            progress(f"train: {task} is left out: the log's training part holds nothing to learn it from")
    return {task: weight if task in labelled else 0.0 for task, weight in config.train.lambdas.items()}


def read_examples(home: Home, config: Config, lake: Lake, snapshot: Manifest, catalogue: Catalogue) -> tuple[Examples, InterestMedians]:
    """A snapshot's log as rows, with the shopper as known at each row's time; the strategist's targets are not in yet."""
    from guidelens.data.prepare import build_examples, read_log
    from guidelens.features import Features

    log = read_log(lake, snapshot, config.train)
    packed = Features(home, config.features).shopper_frame(log.entities)["packed"]
    return build_examples(log, packed, list(catalogue.product_ids), catalogue.price_N, config.train)


def epoch_metrics(losses: "EpochLosses") -> dict[str, float]:
    """MLflow names of one epoch's mean losses, and of what was measured between its tasks."""
    named: Sequence[tuple[str, dict[str, float]]] = (("train.", losses.train), ("val.", losses.val), ("", losses.signals))
    return {f"{losses.job}.{prefix}{name}": value for prefix, values in named for name, value in values.items()}
