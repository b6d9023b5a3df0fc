"""A search on its way through the ingress: stock and prices of now, hops that fail, and what is written of it."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from serve_desk import EmptyStore, open_desk, served, write_items

from guidelens.inference.popularity import write_popularity
from guidelens.inference.search.filters import FilterTable
from guidelens.inference.search.messages import SearchInput, SearchOutput
from serve.desk import Desk
from serve.hops import HopFailedError
from serve.search_messages import SearchCall

ROWS = 40


class OrderedShop:
    """The engine's place in the graph: products under the filters, in the order of their rows."""

    def __init__(self) -> None:
        items = pl.DataFrame({"category": ["chairs"] * ROWS, "price_minor": [100] * ROWS, "stock": [1] * ROWS})
        self.table, self.asked = FilterTable(items), list[SearchInput]()

    async def ask(self, call: SearchCall, budget_s: float) -> SearchOutput:
        self.asked.append(call.asked)
        rows = np.flatnonzero(self.table.mask(call.asked.filters, call.asked.sold_out, call.asked.excluded))
        page = rows[call.asked.offset :][: call.asked.num].astype(np.int32)
        return SearchOutput(True, page, np.ones(len(page), np.float32), (("words",),) * len(page), len(rows), len(rows), (), None, (), None)


class Sold(EmptyStore):
    def __init__(self, sold: set[int]) -> None:
        super().__init__({f"p-{row}": int(row not in sold) for row in range(ROWS)})


def desk(root: Path, searcher: Any, store: EmptyStore | None = None) -> Desk:
    if not (root / "bundle").exists():
        write_items(root / "bundle", [{"product_id": f"p-{row}", "title": f"Chair {row}", "title_zh": None, "category": "chairs"} for row in range(ROWS)])
        write_popularity(root / "bundle", [0.0] * ROWS, [0] * ROWS)
    found = open_desk(root, store=store, popularity=[0.0] * ROWS)
    found.graph = dataclasses.replace(found.graph, searcher=searcher)
    return found


def test_what_has_sold_out_since_the_release_gives_its_place_to_the_next(tmp_path: Path) -> None:
    shop = OrderedShop()
    with served(desk(tmp_path, shop, Sold(set(range(30))))) as client:
        reply = client.post("/v1/search", json={"text": "chair", "num": 8, "filters": {"in_stock": True}, "deadline_ms": 5000}).json()
        assert [item["product_id"] for item in reply["results"]] == [f"p-{row}" for row in range(30, 38)]
        assert all(item["in_stock"] and item["price_minor"] == 990 for item in reply["results"])
        assert len(shop.asked) == 2, "filled in a second round"
        shown = client.post("/v1/search", json={"text": "chair", "num": 3, "deadline_ms": 5000}).json()["results"]
        assert [(item["product_id"], item["in_stock"]) for item in shown] == [("p-0", False), ("p-1", False), ("p-2", False)]


def test_a_price_of_now_decides_what_passes_a_price_filter(tmp_path: Path) -> None:
    with served(desk(tmp_path, OrderedShop(), Sold(set()))) as client:
        reply = client.post("/v1/search", json={"text": "chair", "filters": {"price_max_minor": 500}, "deadline_ms": 5000}).json()
        assert reply["results"] == [], "the release says 100, the store says 990"


def test_no_engine_is_no_answer_and_no_guess(tmp_path: Path) -> None:
    class Down(OrderedShop):
        async def ask(self, call: SearchCall, budget_s: float) -> SearchOutput:
            raise HopFailedError("down")

    with served(desk(tmp_path, Down())) as client:
        reply = client.post("/v1/search", json={"text": "chair"})
        assert (reply.status_code, reply.json()["error"]["code"]) == (504, "deadline_exceeded")


def test_a_photo_that_cannot_be_read_in_time_leaves_the_words(tmp_path: Path) -> None:
    shop = OrderedShop()
    with served(desk(tmp_path, shop)) as client:
        fields = {"text": "chair", "image_embedding": [0.5] * 1280, "deadline_ms": 5000}
        reply = client.post("/v1/search", json=fields).json()
        assert (reply["degraded"], reply["answered"], shop.asked[0].text, shop.asked[0].frame_embedding) == ("without_frame", True, "chair", None)
        alone = client.post("/v1/search", json={"image_embedding": [0.5] * 1280})
        assert (alone.status_code, alone.json()["error"]["code"]) == (504, "deadline_exceeded")


def test_openapi_describes_search_whole(tmp_path: Path) -> None:
    with served(desk(tmp_path, OrderedShop())) as client:
        document = client.get("/openapi.json").json()
        schemas = document["components"]["schemas"]
        assert {"SearchRequest", "SearchFilters", "SearchReply", "SearchResult", "Facet", "SuggestReply"} <= set(schemas)
        assert {"application/json", "multipart/form-data"} == set(document["paths"]["/v1/search"]["post"]["requestBody"]["content"])
        assert "get" in document["paths"]["/v1/suggest"]
