"""The parts of one fit, in order: item table, recognizer, guide model with its single-task controls, and what serving needs beside them.

A part that the data does not allow is left out with its reason; a part that fails for any other reason fails the run.
"""

import json
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from guidelens.config import Config, Home, TaskName
from guidelens.data.examples import Examples
from guidelens.data.lake import Lake, Manifest
from guidelens.data.visits import InterestMedians
from guidelens.models.items import Catalogue
from guidelens.schemas.base import Frozen
from guidelens.schemas.ids import sub_seed
from guidelens.schemas.tables import IMAGE_DIM, Table
from pipelines.entry import progress

TRAINED = "trained"
POPULARITY_TYPES = {"click": 1.0, "cart": 2.0, "purchase": 5.0}
_MIN_RECOGNIZED = 2
MIN_REQUESTS, MIN_CLICKS = 64, 10


class Parts(Frozen):
    """`trained`, or `absent: reason`."""

    recognizer: str
    guide: str
    controls: str


@dataclass(frozen=True)
class FitDone:
    """by_epoch: (epoch, metrics) of every epoch of every model; metrics: the last ones."""

    parts: Parts
    num_products: int
    metrics: dict[str, float]
    by_epoch: tuple[tuple[int, dict[str, float]], ...]


class FitParts:
    """One run's parts, written to `fit_dir`; checkpoints and examples go to `work`."""

    def __init__(self, home: Home, config: Config, lake: Lake, snapshot: Manifest, work: Path, fit_dir: Path) -> None:
        self.home, self.config, self.lake, self.snapshot, self.work, self.fit_dir = home, config, lake, snapshot, work, fit_dir

    def run(self) -> FitDone:
        """Everything there is data for. The recognizer is fitted in a thread beside the guide model."""
        items = self._items()
        with ThreadPoolExecutor(1) as pool:
            recognizer = pool.submit(self._recognizer, items["product_id"].to_list())
            guide, controls, by_epoch = self._guide(items)
            return self._done(items, recognizer, guide, controls, by_epoch)

    def _done(self, items: pl.DataFrame, recognizer: "Future[str]", guide: str, controls: str, by_epoch: tuple[tuple[int, dict[str, float]], ...]) -> FitDone:
        parts = Parts(recognizer=recognizer.result(), guide=guide, controls=controls)
        metrics: dict[str, float] = {}
        for _, values in by_epoch:
            metrics.update(values)
        return FitDone(parts, len(items), metrics, by_epoch)

    def _items(self) -> pl.DataFrame:
        """items.parquet: Feast's product view at the snapshot, sorted by product_id; its text index; and popularity.json."""
        from guidelens.features import Features
        from guidelens.inference.search_texts import build_text_index

        items = Features(self.home, self.config.features).products().sort("product_id")
        items.write_parquet(self.fit_dir / "items.parquet")
        build_text_index(items).save(self.fit_dir / "text_index")
        events = self.lake.read(Table.EVENTS, ["type", "product_id"], manifest=self.snapshot)
        counted = events.with_columns(pl.col("type").replace_strict(POPULARITY_TYPES, default=0.0, return_dtype=pl.Float64).alias("weight"))
        weights = dict(counted.drop_nulls("product_id").group_by("product_id").agg(pl.col("weight").sum()).iter_rows())
        popularity = [float(weights.get(product_id, 0.0)) for product_id in items["product_id"].to_list()]
        (self.fit_dir / "popularity.json").write_text(json.dumps({"popularity": popularity}))
        return items

    def _recognizer(self, item_ids: list[str]) -> str:
        from guidelens.data.examples import row_of
        from guidelens.models.recognizer_fit import fit_recognizer

        photos = self.lake.read(Table.PHOTOS, ["path", "product_id", "is_catalogue_image", "embedding"], manifest=self.snapshot).sort("path")
        rows = row_of(photos["product_id"], item_ids).astype(np.int64)
        if len(np.unique(rows[rows >= 0])) < _MIN_RECOGNIZED:
            return f"absent: the lake holds photos of fewer than {_MIN_RECOGNIZED} products; ingest labelled photos or catalogue images"
        embeddings: NDArray[np.float32] = np.ascontiguousarray(photos["embedding"].cast(pl.Array(pl.Float32, IMAGE_DIM)).to_numpy())
        fitted = fit_recognizer(
            embeddings,
            rows,
            photos["is_catalogue_image"].fill_null(False).to_numpy(),
            len(item_ids),
            self.config.train.recognizer,
            sub_seed(self.config.seed, "recognizer"),
        )
        fitted.save(self.fit_dir)
        progress(f"train: recognizer of {len(np.unique(rows[rows >= 0]))} products from {len(photos):,} photos")
        return TRAINED

    def _guide(self, items: pl.DataFrame) -> tuple[str, str, tuple[tuple[int, dict[str, float]], ...]]:
        """States of guide and controls, and the losses by epoch."""
        absent = self._why_no_guide()
        if absent:
            return absent, absent, ()
        from guidelens.data.prepare import build_examples, read_log
        from guidelens.features import Features

        log = read_log(self.lake, self.snapshot, self.config.train)
        packed = Features(self.home, self.config.features).shopper_frame(log.entities)["packed"]
        catalogue = Catalogue.of_table(items)
        examples, medians = build_examples(log, packed, list(catalogue.product_ids), catalogue.price_N, self.config.train)
        train = examples.of("train")
        num_clicks = int((train.click > 0).sum())
        if len(train) < MIN_REQUESTS or num_clicks < MIN_CLICKS:
            reason = f"absent: the log's training part holds {len(train)} requests and {num_clicks} clicks; at least {MIN_REQUESTS} and {MIN_CLICKS} are needed"
            return reason, reason, ()
        return self._fitted(examples, medians, catalogue)

    def _why_no_guide(self) -> str | None:
        if self.snapshot.rows(Table.EVENTS) == 0:
            return "absent: the lake holds no events"
        return None

    def _fitted(self, examples: Examples, medians: InterestMedians, catalogue: Catalogue) -> tuple[str, str, tuple[tuple[int, dict[str, float]], ...]]:
        from guidelens.models.outcomes import with_targets
        from guidelens.training.fit import fit_guide
        from guidelens.training.publish import publish
        from guidelens.training.steps import FitJob, controls

        examples = with_targets(examples, catalogue, self.config)
        examples.save(self.work / "examples.parquet")
        lambdas: dict[TaskName, float] = dict(self.config.train.lambdas)
        jobs = [FitJob(name="guide", lambdas=lambdas, model=self.config.train.model)]
        jobs += controls(self.config.train) if self.config.train.single_task_controls else []
        progress(f"train: {len(examples):,} rows, models {', '.join(job.name for job in jobs)}")
        fitted = fit_guide(examples, catalogue, self.config, jobs, self.work)
        publish(fitted, jobs, examples, catalogue, medians, self.fit_dir)
        by_epoch = tuple((losses.epoch, epoch_metrics(losses.job, losses.train, losses.val)) for losses in fitted.history)
        return TRAINED, TRAINED if len(jobs) > 1 else "absent: train.single_task_controls is false", by_epoch


def epoch_metrics(job: str, train: dict[str, float], val: dict[str, float]) -> dict[str, float]:
    """MLflow names of one epoch's mean losses."""
    named: Sequence[tuple[str, dict[str, float]]] = (("train", train), ("val", val))
    return {f"{job}.{split}.{term}": value for split, terms in named for term, value in terms.items()}
