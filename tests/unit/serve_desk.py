"""A desk around a drawn catalogue, whose hops are chosen by the test: what the HTTP side does does not depend on models."""

import io
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import uvicorn
from PIL import Image

from guidelens.config import Home, ServeConfig
from guidelens.data.inbox import Inbox
from guidelens.data.pseudonyms import LiveKeys, PseudonymousEvent
from guidelens.features import StockAndPrice
from guidelens.inference.popularity import write_popularity
from guidelens.models.baselines.fallback import Fallback
from serve.api import build_api
from serve.catalogue import Catalogue
from serve.desk import Desk
from serve.graph import Graph
from serve.hops import HopFailedError
from serve.ingress import live_rules
from serve.metrics import ServeMetrics
from serve.online import OnlineFeatures, OnlineStore

PRODUCTS: tuple[dict[str, Any], ...] = (
    {"product_id": "p-0", "title": "Oak chair", "title_zh": "橡木椅子", "category": "furniture/chairs", "width_m": 0.5, "height_m": 0.9, "depth_m": 0.55, "try_on": "room"},
    {"product_id": "p-1", "title": "Red lamp", "title_zh": "红色台灯", "category": "furniture/lamps", "width_m": 0.3, "height_m": 0.5, "depth_m": 0.3, "try_on": "room"},
    {"product_id": "p/2 é", "title": "Milk", "title_zh": None, "category": "food/milk", "width_m": None, "height_m": None, "depth_m": None, "try_on": "none"},
)  # fmt: skip


def write_items(bundle: Path, products: Sequence[dict[str, Any]] = PRODUCTS) -> None:
    """items.parquet as far as people see it, and a picture for the first product only."""
    (bundle / "media").mkdir(parents=True)
    rest: dict[str, Any] = {"description": "", "description_zh": None, "brand": None, "price_minor": 1990, "currency": "EUR", "stock": 3}
    extra = {"attributes_json": json.dumps({"colour": "red", "material": "oak"}), "facts_json": json.dumps({"care": "wipe"})}
    pl.DataFrame([{**rest, **extra, **product} for product in products], infer_schema_length=None).write_parquet(bundle / "items.parquet")
    (bundle / "media" / "0.jpg").write_bytes(jpeg())
    write_popularity(bundle, [3.0, 1.0, 2.0][: len(products)], [3, 1, 2][: len(products)])


def jpeg(width: int = 64, height: int = 48) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)).save(sink, "JPEG")
    return sink.getvalue()


class DeadHop:
    """A deployment that gives no answer."""

    async def ask(self, call: object, budget_s: float) -> Any:
        raise HopFailedError("this part is down")


class EmptyStore:
    """An online store that knows nobody, and what is in stock as the test says."""

    def __init__(self, stock: dict[str, int] | None = None) -> None:
        self._stock = stock or {}

    def shopper(self, shopper_key: str) -> bytes | None:
        return None

    def observe(self, events: Sequence[PseudonymousEvent]) -> None:
        assert not events, "nobody is known here"

    def stock_and_price(self, product_ids: Sequence[str]) -> dict[str, StockAndPrice]:
        return {each: StockAndPrice(self._stock[each], 990, "USD") for each in product_ids if each in self._stock}


def open_desk(
    root: Path,
    *,
    recognizer: Any = None,
    fusion: Any = None,
    ranker: Any = None,
    store: OnlineStore | None = None,
    max_in_flight: int = 8,
    popularity: Sequence[float] = (3.0, 1.0, 2.0),
    baseline: Fallback | None = None,
) -> Desk:
    bundle = root / "bundle"
    if not bundle.exists():
        write_items(bundle)
    home = Home(root=root / "home")
    catalogue = Catalogue(bundle, "7")
    graph = Graph(
        release="7",
        catalogue=catalogue,
        recognizer=recognizer or DeadHop(),
        fusion=fusion or DeadHop(),
        ranker=ranker or DeadHop(),
        online=OnlineFeatures(lambda: store or EmptyStore()),
        popularity=np.array(popularity, dtype=np.float32),
        baseline=baseline,
        has_guide=True,
        missing=(),
        metrics=ServeMetrics("7"),
        rules=live_rules(home, bundle, ServeConfig(), catalogue),
    )

    async def probe() -> None:
        await graph.fusion.ask(None, 1.0)  # type: ignore[arg-type]

    return Desk(graph, Inbox(home.inbox), LiveKeys(home.keys), max_in_flight, probe, run_id="run")


@contextmanager
def served(desk: Desk) -> Iterator[httpx.Client]:
    """The API behind a real server on a free loopback port; its shutdown runs when the context ends."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(build_api(desk), log_level="critical", lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=20) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
    assert not thread.is_alive()
