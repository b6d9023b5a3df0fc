"""A tiny world taken through every verb up to a champion, and served: what tests of the graph and of the page ask."""

import contextlib
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import polars as pl

from guidelens import presets
from guidelens.config import Config, Home

SEED = 5


@dataclass(frozen=True)
class ReleasedShop:
    """A home with a champion. `frames`: pictures that no training saw, and the product each shows."""

    home: Home
    config: Config
    frames: tuple[tuple[Path, str], ...]
    shopper_id: str


@dataclass(frozen=True)
class ServedShop:
    shop: ReleasedShop
    url: str
    client: httpx.Client

    def guide(self, frame: bytes | None = None, **fields: Any) -> httpx.Response:
        fields.setdefault("deadline_ms", 10_000)
        if frame is None:
            return self.client.post("/v1/guide", json=fields)
        import json

        return self.client.post("/v1/guide", files={"request": (None, json.dumps(fields), "application/json"), "frame": ("f.jpg", frame, "image/jpeg")})

    def metric(self, name: str) -> float:
        lines = self.client.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def release_tiny_world(root: Path) -> ReleasedShop:
    """World, ingest, materialize, train, release, promote: the verbs' own `run`s, inside the Ray session that is there."""
    from guidelens.data.records.sources import IngestSources
    from guidelens.world import generate
    from pipelines import ingest, materialize, promote, release, train

    home = Home(root=root / "home")
    config = presets.load("tiny", ["train.single_task_controls=false"], seed=SEED)
    world = generate(config.demo.world, SEED, root / "world")
    sources = IngestSources(catalogue=str(world.catalogue), photos=str(world.photos), events=(str(world.events),), shoppers=str(world.shoppers))
    with contextlib.redirect_stderr(io.StringIO()):
        ingest.run(home, config, sources)
        materialize.run(home, config)
        run_id = train.run(home, config).run
        promote.run(home, release.run(home, run_id).version, force="a tiny world trains no good model")
    assert world.holdout is not None
    labels = pl.read_csv(world.holdout / "labels.csv")
    frames = tuple((world.holdout / path, product_id) for path, product_id in labels.select("path", "product_id").iter_rows())
    shopper_id = pl.read_ndjson(world.shoppers)["shopper_id"][0]
    return ReleasedShop(home, config, frames, shopper_id)


def release_some_groceries(root: Path, data: Path, num_products: int = 8, photos_each: int = 8, settings: Sequence[str] = ()) -> ReleasedShop:
    """A shop of real photos without a log: a few products of the grocery data set, by the same verbs; `frames` are held back."""
    from guidelens.data.adapters import grocery_store
    from pipelines import ingest, materialize, promote, release, train

    source = grocery_store.load(data / "grocery-store")
    held = {photo.product_id for photo in source.holdout}
    products = tuple(product for product in source.products if product.product_id in held)[:num_products]
    kept = {product.product_id for product in products}
    labels = [label for each in sorted(kept) for label in [label for label in source.labels if label.product_id == each][:photos_each]]
    frames = tuple((source.photos / photo.path, photo.product_id) for photo in source.holdout if photo.product_id in kept)
    home = Home(root=root / "home")
    config = presets.load("tiny", settings, seed=SEED)
    with contextlib.redirect_stderr(io.StringIO()):
        ingest.run(home, config, source.model_copy(update={"products": products, "labels": tuple(labels)}).write(root / "adapted"))
        materialize.run(home, config)
        promote.run(home, release.run(home, train.run(home, config).run).version)
    return ReleasedShop(home, config, frames, shopper_id="somebody")


@contextmanager
def serving(shop: ReleasedShop) -> Iterator[ServedShop]:
    from pipelines import serve_graph
    from pipelines.ports import free_port

    with serve_graph.start(shop.home, port=free_port()) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield ServedShop(shop, url, client)
