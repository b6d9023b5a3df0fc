"""Where the demo's data comes from. After this module nothing knows which source it was: files under the contracts, and a world to ask.

The simulated shop draws everything itself. grocery-store brings a real catalogue and real photos; behaviour comes from the world's
shoppers acting on these products, whose style is taken from the real images' and texts' embeddings.
"""

import csv
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from guidelens.config import Config, Home
from guidelens.data.adapters import grocery_store
from guidelens.data.lake.lake import Lake
from guidelens.data.records.sources import IngestSources
from guidelens.schemas.catalog import Product
from guidelens.schemas.ids import sub_seed
from guidelens.schemas.tables import Table
from guidelens.world.blueprint import RealCatalogue
from guidelens.world.generate import WorldPaths, generate
from guidelens.world.parameters import STYLE_DIM

MAX_FRAMES = 2000


@dataclass(frozen=True)
class RealParts:
    """Real products, and the real photos (path inside the photos folder, product_id) that sessions may show as frames."""

    products: tuple[Product, ...]
    frames: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class DemoShop:
    """A shop's files. holdout_labels: CSV `path,product_id[,coarse]` of photos in holdout_folder that no stage before serving has seen.

    world: the drawn world of a simulated source; real: the parts of a real one, whose shoppers are drawn after its ingest.
    """

    catalogue_sources: IngestSources
    holdout_folder: Path
    holdout_labels: Path
    world: WorldPaths | None
    real: RealParts | None

    def holdout(self) -> list[tuple[Path, str]]:
        """The unseen photos and what they show."""
        with self.holdout_labels.open(newline="", encoding="utf-8") as lines:
            return [(self.holdout_folder / row["path"], row["product_id"]) for row in csv.DictReader(lines)]


def prepare(home: Home, config: Config, source: str, path: Path | None) -> DemoShop:
    """The files of a source; `path` is the data set's folder where it has one."""
    if path is None:
        return simulated(home, config)
    adapted = grocery_store.load(path)
    folder = _fresh(home) / source
    frames = tuple((label.path, label.product_id) for label in adapted.labels)
    return DemoShop(adapted.write(folder), adapted.photos, adapted.write_holdout(folder / "holdout.csv"), None, RealParts(adapted.products, frames))


def simulated(home: Home, config: Config) -> DemoShop:
    """Draws the simulated shop of the config's seed and size."""
    paths = generate(config.demo.world, config.seed, _fresh(home))
    assert paths.catalogue is not None and paths.photos is not None and paths.holdout is not None
    sources = IngestSources(catalogue=str(paths.catalogue), photos=str(paths.photos))
    return DemoShop(sources, paths.holdout, paths.holdout / "labels.csv", paths, None)


def shoppers(home: Home, config: Config, shop: DemoShop) -> WorldPaths:
    """The world's shoppers and their events on the shop's products; a real shop's must be in the lake by now."""
    if shop.world is not None:
        return shop.world
    assert shop.real is not None
    products = sorted(shop.real.products, key=lambda product: product.product_id)
    catalogue = RealCatalogue(
        products, _styles(Lake(home.lake_uri, home.s3), [product.product_id for product in products]), _frames(shop.real.frames, config.seed)
    )
    return generate(config.demo.world, config.seed, home.root / "demo" / "shoppers", catalogue)


def _fresh(home: Home) -> Path:
    """The demo's own folder for what the world draws; an earlier, perhaps interrupted, draw is redrawn."""
    folder = home.root / "demo"
    if folder.exists():
        shutil.rmtree(folder)
    return folder


def _frames(frames: Sequence[tuple[str, str]], seed: int) -> list[tuple[str, str]]:
    if len(frames) <= MAX_FRAMES:
        return list(frames)
    chosen = np.random.default_rng(sub_seed(seed, "demo/frames")).choice(len(frames), MAX_FRAMES, replace=False)
    return [frames[row] for row in np.sort(chosen)]


def _styles(lake: Lake, product_ids: Sequence[str]) -> NDArray[np.float64]:
    """(N, STYLE_DIM) float64: the leading principal components of image and text embeddings, each scaled to unit variance."""
    manifest = lake.manifest()
    texts = {row["product_id"]: row["text_embedding"] for row in lake.read(Table.PRODUCTS, ["product_id", "text_embedding"], manifest=manifest).to_dicts()}
    photos = lake.read(Table.PHOTOS, ["product_id", "is_catalogue_image", "embedding"], manifest=manifest)
    images = {row["product_id"]: row["embedding"] for row in photos.filter(photos["is_catalogue_image"]).to_dicts()}
    parts = [_unit(np.array([source[name] for name in product_ids], dtype=np.float64)) for source in (images, texts)]
    centred = np.concatenate([part - part.mean(axis=0) for part in parts], axis=1)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    components: NDArray[np.float64] = left[:, :STYLE_DIM] * singular[:STYLE_DIM]
    signs = np.sign(components[np.abs(components).argmax(axis=0), np.arange(STYLE_DIM)])
    styles: NDArray[np.float64] = components * signs / components.std(axis=0)
    return styles


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    scaled: NDArray[np.float64] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled
