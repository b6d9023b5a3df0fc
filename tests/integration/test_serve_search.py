"""Search as its callers see it: a real release of a tiny world behind real replicas."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import polars as pl
import pytest
from served_shop import ReleasedShop, ServedShop, serving


@pytest.fixture(scope="module")
def served(released_shop: ReleasedShop) -> Iterator[ServedShop]:
    with serving(released_shop) as found:
        yield found


def search(served: ServedShop, frame: bytes | None = None, **fields: Any) -> dict[str, Any]:
    fields.setdefault("deadline_ms", 10_000)
    reply = served.client.post("/v1/search", json=fields) if frame is None else with_frame(served, frame, fields)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def with_frame(served: ServedShop, frame: bytes, fields: dict[str, Any]) -> httpx.Response:
    return served.client.post("/v1/search", files={"request": (None, json.dumps(fields), "application/json"), "frame": ("f.jpg", frame, "image/jpeg")})


def items_of(served: ServedShop) -> pl.DataFrame:
    return pl.read_parquet(served.shop.home.releases / "1" / "items.parquet")


def test_a_title_in_either_language_finds_its_product_and_says_why(served: ServedShop) -> None:
    product_id, title, title_zh = items_of(served).select("product_id", "title", "title_zh").row(3)
    for text, locale in ((title, "en"), (title_zh, "zh-CN")):
        reply = search(served, text=text, locale=locale)
        first = reply["results"][0]
        assert (reply["answered"], reply["release"], reply["degraded"], reply["missing"]) == (True, "1", None, [])
        assert (first["product_id"], first["position"], first["title"]) == (product_id, 1, text)
        assert "title" in first["matched"] and len(first["why"]) == len(first["matched"])
        assert {"search", "stock", "total"} <= set(reply["timings_ms"])


def test_a_filtered_search_fills_its_page_whenever_so_many_products_pass(served: ServedShop) -> None:
    items = items_of(served)
    category, num = items["category"].value_counts(sort=True).row(0)
    reply = search(served, text=category.split("/")[-1], filters={"category": category}, num=num)
    assert [item["position"] for item in reply["results"]] == list(range(1, num + 1))
    inside = dict(items.select("product_id", "category").iter_rows())
    assert {inside[item["product_id"]] for item in reply["results"]} == {category}
    pages = [search(served, text=category.split("/")[-1], filters={"category": category}, num=1, offset=at)["results"][0]["product_id"] for at in range(num)]
    assert pages == [item["product_id"] for item in reply["results"]]


def test_prices_and_facets_hold_under_the_filters(served: ServedShop) -> None:
    prices = sorted(items_of(served)["price_minor"].drop_nulls().to_list())
    low, high = prices[len(prices) // 4], prices[3 * len(prices) // 4]
    reply = search(served, filters={"price_min_minor": low, "price_max_minor": high}, num=100)
    assert len(reply["results"]) == reply["total"] == sum(low <= price <= high for price in prices)
    assert all(low <= item["price_minor"] <= high for item in reply["results"])
    counted = {facet["name"]: {value["value"]: value["count"] for value in facet["values"]} for facet in reply["facets"]}
    assert sum(counted["category"].values()) == reply["total"]


def test_nothing_is_answered_rather_than_something_else(served: ServedShop) -> None:
    reply = search(served, text="how do I renew my passport")
    assert (reply["answered"], reply["results"], reply["total"]) == (False, [], 0)


def test_a_photo_finds_its_product_and_words_beside_it_move_the_order(served: ServedShop) -> None:
    right = 0
    for path, product_id in served.shop.frames[:8]:
        reply = search(served, frame=path.read_bytes(), num=5)
        right += product_id in [item["product_id"] for item in reply["results"]]
    assert right >= 6
    items = items_of(served)
    colour = {product_id: json.loads(text).get("colour") for product_id, text in items.select("product_id", "attributes_json").iter_rows()}
    path, product_id = served.shop.frames[0]
    category = dict(items.select("product_id", "category").iter_rows())[product_id]
    others = {colour[other] for other, kind in items.select("product_id", "category").iter_rows() if kind == category} - {colour[product_id], None}
    wanted = sorted(others)[0]
    reply = search(served, frame=path.read_bytes(), text=f"this, but {wanted}", num=5)
    assert any(colour[item["product_id"]] == wanted for item in reply["results"][:3])


def test_mistakes_are_named(served: ServedShop) -> None:
    for fields, status, code in (
        ({}, 400, "empty_request"),
        ({"text": "  "}, 400, "empty_request"),
        ({"text": "chair", "num": 101}, 422, "invalid_field"),
        ({"text": "chair", "filters": {"price_min_minor": 5, "price_max_minor": 4}}, 422, "invalid_field"),
        ({"text": "chair", "filters": {"attributes": {"colr": "red"}}}, 422, "invalid_field"),
        ({"text": "chair", "filters": {"colour": "red"}}, 422, "invalid_field"),
    ):
        reply = served.client.post("/v1/search", json=fields)
        assert (reply.status_code, reply.json()["error"]["code"]) == (status, code), fields
    assert served.client.post("/v1/search", files={"frame": ("f.jpg", b"\xff\xd8 nope", "image/jpeg")}).json()["error"]["code"] == "frame_unreadable"


def test_typing_is_completed_and_set_right(served: ServedShop) -> None:
    title = items_of(served)["title"][0]
    reply = served.client.get("/v1/suggest", params={"q": title[:4]}).json()
    assert title in served.client.get("/v1/suggest", params={"q": title[:12], "num": 20}).json()["suggestions"]
    assert reply["suggestions"] and reply["release"] == "1"
    assert search(served, text="chaire")["corrected"] == "chair"


def test_impressions_are_written_with_consent_alone(served: ServedShop) -> None:
    shopper = served.shop.shopper_id
    search(served, text="chair", session_id="seen", shopper_id=shopper, request_id="search-seen", num=2)
    search(served, text="chair", session_id="unseen", shopper_id=shopper, request_id="search-unseen", personalized=False)

    def written() -> list[dict[str, Any]]:
        return [json.loads(line) for path in served.shop.home.inbox.glob("*.jsonl") for line in path.read_text().splitlines()]

    for _ in range(50):
        if any(event.get("request_id") == "search-seen" for event in written()):
            break
        time.sleep(0.1)
    assert [event["position"] for event in written() if event.get("request_id") == "search-seen"] == [1, 2]
    assert not [event for event in written() if event.get("request_id") == "search-unseen"]
