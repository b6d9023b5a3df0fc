"""Simulated shops that several benchmarks ask: one a seed, taken through ingest, features and training. No script of its own."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from guidelens.config import Config, Home
from guidelens.data.examples import Examples
from guidelens.inference.guide_files import ITEMS
from guidelens.models.items import Catalogue
from guidelens.presets import load
from guidelens.world import World
from pipelines.entry import progress


@dataclass(frozen=True)
class Shop:
    """fit: the run's, without single-task controls. world: the truth behind it."""

    seed: int
    fit: Path
    items: pl.DataFrame
    catalogue: Catalogue
    examples: Examples
    world: World

    @property
    def categories(self) -> list[str]:
        return self.items["category"].fill_null("").to_list()


@contextmanager
def work_folder(given: Path | None) -> Iterator[Path]:
    """The folder where shops are kept, or one that goes when the benchmark ends."""
    if given is not None:
        yield given.absolute()
        return
    with TemporaryDirectory(prefix="gl-shops-") as folder:
        yield Path(folder)


def trained_shop(seed: int, work: Path) -> Shop:
    """The shop of a seed, drawn and trained where `work` does not hold it yet. Needs a Ray session only then."""
    folder = work / str(seed)
    if not (folder / "fit").exists():
        shutil.rmtree(folder, ignore_errors=True)
        _train(seed, folder)
    items = pl.read_parquet(folder / "fit" / ITEMS)
    return Shop(seed, folder / "fit", items, Catalogue.of_table(items), Examples.load(folder / "examples.parquet"), World.open(folder / "world"))


def _train(seed: int, folder: Path) -> None:
    from pipelines import train
    from pipelines.cluster import ray_session

    progress(f"seed {seed}: drawing and training a shop")
    config = load("laptop", ["train.single_task_controls=false"], seed=seed)
    home = Home(root=folder / "home")
    with ray_session():
        done = train.run(home, config, manifest=taken_in(home, config, folder))
    assert done.examples is not None, "a simulated shop has a log"
    Examples.load(Path(done.examples)).save(folder / "examples.parquet")
    shutil.copytree(done.fit, folder / "fit")


def taken_in(home: Home, config: Config, folder: Path) -> int:
    """A shop of the config's seed and size in the home's lake, its features made; the version of the lake that holds it."""
    from guidelens.data.records.sources import IngestSources
    from guidelens.world import generate
    from pipelines import ingest, materialize

    drawn = generate(config.demo.world, config.seed, folder / "world", num_workers=1, events_format="parquet")
    ingest.run(home, config, IngestSources(catalogue=str(drawn.catalogue), photos=str(drawn.photos)))
    taken = ingest.run(home, config, IngestSources(shoppers=str(drawn.shoppers), events=(str(drawn.events),)))
    materialize.run(home, config, manifest=taken.manifest)
    return taken.manifest


def untrained_shop(config: Config, work: Path) -> tuple[pl.DataFrame, Examples]:
    """Item table and rows, without the strategist's targets, of a shop of the config's seed and size; drawn where `work` does not hold it yet."""
    folder = work / f"{config.demo.world.num_sessions}-{config.seed}"
    if not (folder / "examples.parquet").exists():
        shutil.rmtree(folder, ignore_errors=True)
        _read_in(config, folder)
    return pl.read_parquet(folder / ITEMS), Examples.load(folder / "examples.parquet")


def _read_in(config: Config, folder: Path) -> None:
    from guidelens.data.lake.lake import Lake
    from pipelines.cluster import ray_session
    from pipelines.fit_parts import item_table, read_examples

    progress(f"seed {config.seed}: drawing a shop")
    home = Home(root=folder / "home")
    with ray_session():
        version = taken_in(home, config, folder)
    lake = Lake(home.lake_uri, home.s3)
    items = item_table(home, config, lake, lake.manifest(version))
    items.write_parquet(folder / ITEMS)
    examples, _ = read_examples(home, config, lake, lake.manifest(version), Catalogue.of_table(items))
    examples.save(folder / "examples.parquet")
