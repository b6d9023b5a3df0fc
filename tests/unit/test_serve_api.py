"""The HTTP side: every caller's mistake gets its code and one envelope; limits hold before anything is parsed."""

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import prometheus_client.values
import pytest
from serve_desk import PRODUCTS, EmptyStore, jpeg, open_desk, served, write_items

from guidelens.data.pseudonyms import Pseudonymizer
from guidelens.models.baselines.fallback import Fallback, FallbackHeader
from guidelens.models.baselines.recommender import Neighbours
from guidelens.models.baselines.requests import OnRequests, RequestReader
from guidelens.schemas.guide import MAX_FRAME_BYTES
from serve.catalogue import DeviceEncoder
from serve.desk import Desk
from serve.messages import FuseCall, FuseReply, RankCall, RankReply, RecognizeCall, RecognizeReply, StepChoice
from serve.online import NoStore


@pytest.fixture(autouse=True)
def _counts_of_this_desk_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Feast, once imported by another test, has prometheus_client keep values in files that all registries of a process share."""
    monkeypatch.setattr(prometheus_client.values, "ValueClass", prometheus_client.values.MutexValue)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return open_desk(tmp_path)


@pytest.fixture
def client(desk: Desk) -> Iterator[httpx.Client]:
    with served(desk) as client:
        yield client


def event(**fields: Any) -> dict[str, Any]:
    base = {
        "event_id": uuid.uuid4().hex,
        "event_ts": datetime.now(UTC).isoformat(),
        "shopper_id": "s-1",
        "session_id": "x",
        "type": "click",
        "product_id": "p-0",
    }
    return base | fields


def multipart(fields: dict[str, Any], frame: bytes) -> dict[str, Any]:
    return {"files": {"request": (None, json.dumps(fields), "application/json"), "frame": ("f.jpg", frame, "image/jpeg")}}


def part(name: str, data: bytes, filename: str | None = None) -> bytes:
    named = f'; filename="{filename}"' if filename else ""
    return f'--x\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode() + data + b"\r\n"


JSON = {"Content-Type": "application/json"}
MULTIPART = {"Content-Type": "multipart/form-data; boundary=x"}


@pytest.mark.parametrize(
    ("how", "status", "code", "words"),
    [
        ({"content": b"{}", "headers": JSON}, 400, "empty_request", "at least one of frame"),
        ({"content": b"{nope", "headers": JSON}, 400, "invalid_body", "must be JSON"),
        ({"content": b"[1]", "headers": JSON}, 400, "invalid_body", "JSON object"),
        ({"content": b"[" * 100_000, "headers": JSON}, 400, "invalid_body", "JSON"),
        ({"content": b"hello", "headers": {"Content-Type": "text/html"}}, 415, "content_type", "text/html"),
        ({"content": b"hello"}, 415, "content_type", "none"),
        ({"json": {"text": "x", "deadline_ms": "soon"}}, 422, "invalid_field", "deadline_ms"),
        ({"json": {"text": "x", "deadline_ms": 19}}, 422, "invalid_field", "19"),
        ({"json": {"text": "x", "num_recommendations": 10**6}}, 422, "invalid_field", "1000000"),
        ({"json": {"text": "x" * 2001}}, 422, "invalid_field", "text"),
        ({"json": {"text": "x", "device": {"ar": "maybe"}}}, 422, "invalid_field", "device.ar"),
        ({"json": {"image_embedding": [1.0, 2.0]}}, 422, "invalid_field", "1280"),
        ({"content": b'{"text": "\\ud800"}', "headers": JSON}, 422, "invalid_field", "text"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "invalid_body", "multipart"),
        ({"json": {"image_embedding": [0.0] * 1279}}, 422, "invalid_field", "got 1279"),
        ({"content": json.dumps({"image_embedding": [0.0, float("nan")] * 640}), "headers": JSON}, 422, "invalid_field", "image_embedding.1: must lie within"),
        ({"json": {"image_embedding": [0.0] * 1279 + [1e39]}}, 422, "invalid_field", "got 1e+39"),
        ({"content": b"--x\r\nbroken", "headers": MULTIPART}, 400, "invalid_body", "closing boundary"),
        ({"content": part("request", b'{"text": "x"}') + part("frame", b"\xff\xd8", "f.jpg"), "headers": MULTIPART}, 400, "invalid_body", "closing boundary"),
        ({"content": part("request", b'{"text": "\xff"}') + b"--x--\r\n", "headers": MULTIPART}, 400, "invalid_body", "utf-8"),
        ({"content": 2 * part("frame", b"\xff\xd8", "f.jpg") + b"--x--\r\n", "headers": MULTIPART}, 422, "invalid_field", "frame: a multipart"),
        ({"content": 2 * part("request", b"{}") + b"--x--\r\n", "headers": MULTIPART}, 422, "invalid_field", "request: a multipart"),
        ({"content": b'{"text": "' + b"x" * 300_000 + b'"}', "headers": JSON}, 413, "body_too_large", "256 KB"),
        ({"files": {"frame": ("f", b"x", "image/jpeg"), "other": ("o", b"x", "image/jpeg")}}, 422, "invalid_field", "other"),
    ],
)
def test_a_wrong_guide_request_says_what_and_why(client: httpx.Client, how: dict[str, Any], status: int, code: str, words: str) -> None:
    reply = client.post("/v1/guide", **how)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code), reply.text
    assert words in reply.json()["error"]["message"]
    assert set(reply.json()["error"]) == {"code", "message", "request_id"}
    assert len(reply.json()["error"]["message"]) < 400


def test_a_frame_over_the_limit_is_refused_by_its_size_and_the_limit(client: httpx.Client) -> None:
    reply = client.post("/v1/guide", **multipart({}, b"\xff\xd8" + bytes(21 * 2**20)))
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "frame_too_large")
    assert "21 MB" in reply.json()["error"]["message"]
    assert "8 MB" in reply.json()["error"]["message"]


def test_a_frame_just_over_the_limit_is_refused_though_the_body_fits(client: httpx.Client) -> None:
    reply = client.post("/v1/guide", **multipart({}, bytes(MAX_FRAME_BYTES + 1)))
    assert reply.json()["error"]["code"] == "frame_too_large"


def test_a_body_of_unknown_length_is_cut_off_at_the_limit(client: httpx.Client) -> None:
    read = []

    def endless() -> Iterator[bytes]:
        for number in range(1000):
            read.append(number)
            yield bytes(2**20)

    reply = client.post("/v1/guide", content=endless(), headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert reply.status_code == 413


@pytest.mark.parametrize(("method", "path", "status", "code"), [("GET", "/nowhere", 404, "not_found"), ("GET", "/v1/guide", 405, "method_not_allowed"), ("GET", "/v1/products/none", 404, "not_found"), ("GET", "/page/%2e%2e/index.html", 404, "not_found"), ("GET", "/vendor/../../app.py", 404, "not_found")])  # fmt: skip
def test_routes_that_are_not_there_use_the_same_envelope(client: httpx.Client, method: str, path: str, status: int, code: str) -> None:
    reply = client.request(method, path)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)


def test_an_answer_of_ours_that_breaks_is_an_internal_error_with_an_id(desk: Desk, client: httpx.Client) -> None:
    desk.run_id = 3  # type: ignore[assignment]
    reply = client.get("/v1/releases/current")
    assert (reply.status_code, reply.json()["error"]["code"]) == (500, "internal")
    assert "run_id" not in reply.json()["error"]["message"]


def test_the_request_part_is_utf_8_whatever_charset_the_whole_claims(desk: Desk) -> None:
    body = part("request", '{"text": "茶", "session_id": "q"}'.encode()) + b"--x--\r\n"
    with served(desk) as client:
        for charset in ("", "; charset=nope", "; charset=utf-16"):
            assert client.post("/v1/guide", content=body, headers={"Content-Type": MULTIPART["Content-Type"] + charset}).status_code == 200
    assert {each["query"] for each in stored(desk)} == {"茶"}


def test_a_caller_s_request_id_comes_back_and_else_one_is_made(client: httpx.Client) -> None:
    assert client.post("/v1/guide", json={"text": "x", "request_id": "mine"}).json()["request_id"] == "mine"
    first, second = (client.post("/v1/guide", json={"text": "x"}).json()["request_id"] for _ in range(2))
    assert first != second


def test_more_requests_than_places_are_shed_with_retry_after(tmp_path: Path) -> None:
    with served(open_desk(tmp_path, max_in_flight=0)) as client:
        reply = client.post("/v1/guide", json={"text": "x"})
    assert (reply.status_code, reply.json()["error"]["code"], reply.headers["Retry-After"]) == (503, "overloaded", "1")


def test_a_dead_graph_is_up_but_not_ready_and_still_answers_by_popularity(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert (client.get("/readyz").status_code, client.get("/readyz").json()["error"]["code"]) == (503, "not_ready")
    reply = client.post("/v1/guide", json={"text": "x", "num_recommendations": 2, "locale": "zh-CN"}).json()
    assert reply["degraded"] == "popularity"
    assert [item["title"] for item in reply["slate"]] == ["橡木椅子", "Milk"]
    assert [item["propensity"] for item in reply["slate"]] == [1.0, 1.0]
    assert reply["plan"] == []


def test_where_the_ranker_fails_the_baseline_answers_for_what_was_opened_and_says_so(tmp_path: Path) -> None:
    lamp, milk = PRODUCTS[1]["product_id"], PRODUCTS[2]["product_id"]
    desk = open_desk(tmp_path, baseline=goes_with(tmp_path, of=1, goes=2))
    with served(desk) as client:
        opened = event(type="ar_open", session_id="s", product_id=lamp, shopper_id=None, anonymous_id="a")
        assert client.post("/v1/events", json={"events": [opened]}).json()["accepted"] == 1
        reply = client.post("/v1/guide", json={"session_id": "s"}).json()
        stranger = client.post("/v1/guide", json={"text": "x"}).json()
        text, current = client.get("/metrics").text, client.get("/v1/releases/current").json()
    assert reply["degraded"] == "baseline"
    assert [item["product_id"] for item in reply["slate"]] == [milk, "p-0", lamp], "then by popularity"
    assert [item["reasons"] for item in reply["slate"][:2]] == [["taken by others beside the product in view"], ["liked by many shoppers"]]
    assert {item["propensity"] for item in reply["slate"]} == {1.0}
    assert stranger["degraded"] == "popularity"
    assert 'guidelens_guide_replies_total{degraded="baseline"} 1.0' in text and 'guidelens_guide_replies_total{degraded="popularity"} 1.0' in text
    assert current["baseline"] == "item_knn"


def test_the_baseline_obeys_the_shop_s_rules(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "rules.yaml").write_text("banned: [{name: no-food, categories: [food]}]")
    with served(open_desk(tmp_path, baseline=goes_with(tmp_path, of=1, goes=2))) as client:
        client.post("/v1/events", json={"events": [event(type="ar_open", session_id="s", product_id="p-1")]})
        reply = client.post("/v1/guide", json={"session_id": "s"}).json()
    assert (reply["degraded"], [item["product_id"] for item in reply["slate"]]) == ("baseline", ["p-0", "p-1"])
    assert reply["rules"] == [{"name": "no-food", "kind": "banned", "products": 1}]


def test_expert_rules_speak_for_strangers_where_only_popularity_is_left(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    rule = "{name: lamps-first, visits_below: 3, session: {words: [gift]}, products: {categories: [furniture/lamps]}, nats: 2, reason: {en: a fine gift}}"
    (tmp_path / "home" / "rules.yaml").write_text(f"expert: [{rule}]")
    with served(open_desk(tmp_path)) as client:
        asked = client.post("/v1/guide", json={"text": "a gift"}).json()
        other = client.post("/v1/guide", json={"text": "a lamp"}).json()
    assert [(item["product_id"], item["reasons"]) for item in asked["slate"]][:2] == [("p-1", ["a fine gift"]), ("p-0", ["liked by many shoppers"])]
    assert asked["rules"] == [{"name": "lamps-first", "kind": "expert", "products": 1}]
    assert (other["slate"][0]["product_id"], other["rules"]) == ("p-0", [])


def goes_with(folder: Path, of: int, goes: int) -> Fallback:
    """A baseline of the desk's three products that knows one thing."""
    neighbours = Neighbours(np.full((3, 1), goes, dtype=np.int32), np.where(np.arange(3) == of, 1.0, 0.0).astype(np.float32)[:, None], 1.0)
    header = FallbackHeader(baseline="item_knn", parts=("item_knn",), clicked_only=True, focus_repeats=1)
    ids = [product["product_id"] for product in PRODUCTS]
    Fallback(header, OnRequests(neighbours, RequestReader.of(ids), np.array([1, 0.1, 0.5], dtype=np.float32))).save(folder)
    found = Fallback.load(folder, ids)
    assert found is not None
    return found


def test_without_even_a_popular_product_the_deadline_is_named(tmp_path: Path) -> None:
    desk = open_desk(tmp_path)
    object.__setattr__(desk.graph, "popularity", desk.graph.popularity[:0])
    with served(desk) as client:
        reply = client.post("/v1/guide", json={"text": "x"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (504, "deadline_exceeded")


# Events


def stored(desk: Desk) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(desk._inbox.folder.glob("*.jsonl")) for line in path.read_text().splitlines()]


def test_events_are_on_disk_under_pseudonyms_when_the_answer_comes(desk: Desk, client: httpx.Client) -> None:
    one = event()
    reply = client.post("/v1/events", json={"events": [one, one, {"type": "nonsense"}, event(type="cart", product_id=None)]})
    assert reply.status_code == 202
    assert (reply.json()["accepted"], reply.json()["duplicate"]) == (1, 1)
    assert [(each["index"], each["code"]) for each in reply.json()["rejected"]] == [(2, "invalid_field"), (3, "invalid_field")]
    assert "product_id" in reply.json()["rejected"][1]["message"]
    (kept,) = stored(desk)
    assert kept["event_id"] == one["event_id"]
    assert kept["shopper_key"] == Pseudonymizer.open(desk._inbox.folder.parent / "keys").key("s-1")
    assert "s-1" not in json.dumps(kept)


def test_an_event_sent_again_later_is_a_duplicate(client: httpx.Client) -> None:
    one = event()
    assert client.post("/v1/events", json={"events": [one]}).json()["accepted"] == 1
    assert client.post("/v1/events", json={"events": [one]}).json() == {"accepted": 0, "duplicate": 1, "rejected": []}


def test_an_event_from_the_future_is_rejected(client: httpx.Client) -> None:
    ahead = event(event_ts=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    (rejected,) = client.post("/v1/events", json={"events": [ahead]}).json()["rejected"]
    assert rejected["code"] == "future_event"


@pytest.mark.parametrize("body", [{"events": []}, {"events": [{}] * 501}, {"events": "x"}, {}, []])
def test_a_wrong_events_body_is_refused_as_a_whole(client: httpx.Client, body: object) -> None:
    reply = client.post("/v1/events", json=body)
    assert (reply.status_code, reply.json()["error"]["code"]) == (422, "invalid_field")


def test_a_disk_that_takes_nothing_is_told_to_the_caller(desk: Desk, client: httpx.Client) -> None:
    desk._inbox.folder.parent.mkdir(parents=True, exist_ok=True)
    desk._inbox.folder.write_text("a file where the inbox should be")
    reply = client.post("/v1/events", json={"events": [event()]})
    assert (reply.status_code, reply.json()["error"]["code"], reply.headers["Retry-After"]) == (503, "unavailable", "1")


# Products, page, operations


def test_a_product_shows_facts_size_and_links(client: httpx.Client) -> None:
    chair = client.get("/v1/products/p-0").json()
    assert chair["size"] == {"width_m": 0.5, "height_m": 0.9, "depth_m": 0.55}
    assert chair["facts"] == {"care": "wipe"}
    assert client.get(chair["image_url"]).headers["content-type"] == "image/jpeg"
    model = client.get(chair["model_url"])
    assert (model.headers["content-type"], model.content[:4]) == ("model/gltf-binary", b"glTF")


def test_a_product_of_unknown_size_has_no_model_and_says_so(client: httpx.Client) -> None:
    milk = client.get("/v1/products/p%2F2%20%C3%A9").json()
    assert (milk["title"], milk["size"], milk["model_url"], milk["image_url"]) == ("Milk", None, None, None)
    reply = client.get("/v1/products/p%2F2%20%C3%A9/model.glb")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")
    assert "dimensions" in reply.json()["error"]["message"]


def test_a_model_of_the_shop_s_own_is_served_as_it_is_also_where_the_size_is_unknown(tmp_path: Path) -> None:
    write_items(tmp_path / "bundle")
    for row in (0, 2):
        (tmp_path / "bundle" / "media" / f"{row}.glb").write_bytes(b"glTF of the shop's own %d" % row)
    with served(open_desk(tmp_path)) as client:
        for row, product in ((0, "p-0"), (2, "p%2F2%20%C3%A9")):
            view = client.get(f"/v1/products/{product}").json()
            model = client.get(view["model_url"])
            assert (model.headers["content-type"], model.content) == ("model/gltf-binary", b"glTF of the shop's own %d" % row)
        assert client.get("/v1/products/p-1/model.glb").content[:4] == b"glTF"


@pytest.mark.parametrize("path", ["/", "/healthz", "/v1/releases/current", "/v1/products/p-0", "/v1/products/p-0/image", "/page/app.js", "/openapi.json"])
def test_head_answers_as_get_does_without_a_body(client: httpx.Client, path: str) -> None:
    got, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == got.headers["content-length"]


def test_openapi_holds_the_real_models_and_every_route(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert {
        "/v1/guide",
        "/v1/events",
        "/v1/products/{product_id}",
        "/v1/products/{product_id}/model.glb",
        "/healthz",
        "/readyz",
        "/v1/releases/current",
        "/metrics",
    } <= set(document["paths"])
    schemas = document["components"]["schemas"]
    assert schemas["GuideRequest"]["properties"]["deadline_ms"]["maximum"] == 30_000
    assert "slate" in schemas["GuideReply"]["properties"]
    named = {part.split('"')[0] for part in json.dumps(document).split("#/components/schemas/")[1:]}
    assert named <= set(schemas)


def test_the_page_loads_nothing_from_elsewhere(client: httpx.Client) -> None:
    page = client.get("/")
    assert "<html" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "http" not in page.text.replace("http://www.w3.org/2000/svg", "")
    for path in ("app.js", "api.js", "camera.js", "text.js", "viewer.js", "style.css"):
        assert client.get(f"/page/{path}").status_code == 200
    assert client.get("/page/package.json").status_code == 404


def test_metrics_count_requests_by_route_and_status(client: httpx.Client) -> None:
    client.post("/v1/guide", json={"text": "x"})
    client.post("/v1/guide", content=b"{}", headers=JSON)
    text = client.get("/metrics").text
    assert 'guidelens_requests_total{route="/v1/guide",status="200"} 1.0' in text
    assert 'guidelens_requests_total{route="/v1/guide",status="400"} 1.0' in text
    assert 'guidelens_guide_replies_total{degraded="popularity"} 1.0' in text
    assert 'guidelens_stage_seconds_count{stage="total"} 1.0' in text


def test_impressions_of_a_reply_are_written_behind_it_and_once_a_request_id(desk: Desk) -> None:
    with served(desk) as client:
        for _ in range(2):
            client.post("/v1/guide", json={"shopper_id": "s-9", "session_id": "q", "request_id": "r", "num_recommendations": 2, "text": "lamp"})
    kept = stored(desk)
    assert [(each["type"], each["position"], each["product_id"], each["propensity"], each["release"]) for each in kept] == [
        ("impression", 1, "p-0", 1.0, "7"),
        ("impression", 2, "p/2 é", 1.0, "7"),
    ]
    assert {each["request_id"] for each in kept} == {"r"}
    assert {each["shopper_key"] for each in kept} == {Pseudonymizer.open(desk._inbox.folder.parent / "keys").key("s-9")}


@pytest.mark.parametrize("refusal", [{"personalized": False}, {"consent": {"personalization": False}}])
def test_without_consent_no_feature_is_read_and_nothing_is_written(tmp_path: Path, refusal: dict[str, Any]) -> None:
    desk = open_desk(tmp_path / "refused")
    with served(desk) as client:
        client.post("/v1/guide", json={"shopper_id": "s-9", "text": "lamp", **refusal})
        assert "guidelens_shopper_feature_reads_total 0.0" in client.get("/metrics").text
    assert stored(desk) == []


def test_with_consent_the_features_of_a_named_shopper_are_read(client: httpx.Client) -> None:
    client.post("/v1/guide", json={"session_id": "x", "text": "lamp"})
    assert "guidelens_shopper_feature_reads_total 0.0" in client.get("/metrics").text
    client.post("/v1/guide", json={"shopper_id": "s-9", "text": "lamp"})
    assert "guidelens_shopper_feature_reads_total 1.0" in client.get("/metrics").text


def test_the_frame_itself_reaches_the_recognizer_unchanged(tmp_path: Path) -> None:
    seen = []

    class Notes:
        async def ask(self, call: Any, budget_s: float) -> Any:
            seen.append(call.frame)
            raise AssertionError("noted")

    with served(open_desk(tmp_path, recognizer=Notes())) as client:
        frame = jpeg()
        client.post("/v1/guide", **multipart({"deadline_ms": 1000}, frame))
    assert seen == [frame]


def test_what_is_out_of_stock_by_now_gives_way_and_prices_are_today_s(tmp_path: Path) -> None:
    with served(open_desk(tmp_path, store=EmptyStore({"p-0": 0, "p/2 é": 4}))) as client:
        reply = client.post("/v1/guide", json={"text": "x", "num_recommendations": 2}).json()
    assert [(item["position"], item["product_id"], item["price_minor"], item["currency"]) for item in reply["slate"]] == [
        (1, "p/2 é", 990, "USD"),
        (2, "p-1", 1990, "EUR"),
    ]
    assert reply["missing"] == []


def test_the_last_rung_obeys_the_shop_s_rules_too(tmp_path: Path) -> None:
    """No hop answers, so that popular products are shown: p-0 is the most popular, and banned; p-1 is pinned."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "rules.yaml").write_text("banned: [{name: recall, products: [p-0]}]\npinned: [{name: spring, product: p-1, position: 1}]\n")
    with served(open_desk(tmp_path)) as client:
        reply = client.post("/v1/guide", json={"text": "x", "num_recommendations": 3}).json()
        metrics = client.get("/metrics").text
    assert [(item["product_id"], item["pinned_by"], item["reasons"]) for item in reply["slate"]] == [
        ("p-1", "spring", ["chosen by the shop"]),
        ("p/2 é", None, ["liked by many shoppers"]),
    ]
    assert reply["rules"] == [{"name": "recall", "kind": "banned", "products": 1}, {"name": "spring", "kind": "pinned", "products": 1}]
    assert 'guidelens_rule_effects_total{kind="banned",rule="recall"} 1.0' in metrics
    assert "guidelens_rules_refused 0.0" in metrics


def test_stock_and_partners_reach_the_ranker_before_the_order_is_drawn(tmp_path: Path) -> None:
    """The store is asked about candidates and partners in one read; a session's product in view reaches the fusion."""
    fused, calls = [], []

    class Fuses:
        async def ask(self, call: FuseCall, budget_s: float) -> FuseReply:
            fused.append(call)
            scores = np.array([2.0, 1.0], dtype=np.float32)
            return FuseReply(np.zeros(4, np.float32), np.array([0, 1], np.int32), scores, np.ones(2, np.uint8), "browse", None, np.array([2], np.int32))

    class Ranks:
        async def ask(self, call: RankCall, budget_s: float) -> RankReply:
            calls.append(call)
            ones = np.ones(1, np.float32)
            step = StepChoice("show_bundle", 0.5, 1, "These go well with it.", (2,))
            return RankReply(np.array([1], np.int32), ones, None, ones, (("because",),), (step,), click=ones / 2, purchase=ones / 4)

    desk = open_desk(tmp_path, fusion=Fuses(), ranker=Ranks(), store=EmptyStore({"p-0": 0, "p/2 é": 4}))
    with served(desk) as client:
        client.post("/v1/events", json={"events": [event(type="ar_open", product_id="p-1", session_id="s")]})
        reply = client.post("/v1/guide", json={"text": "x", "session_id": "s", "num_recommendations": 2}).json()
    assert fused[0].focus_row == calls[0].focus_row == 1
    assert calls[0].stock.rows.tolist() == [0, 1, 2]
    assert calls[0].stock.in_stock.tolist() == [False, True, True]
    assert calls[0].stock.price_minor[[0, 2]].tolist() == [990.0, 990.0]
    assert calls[0].num == 2
    assert reply["plan"][0]["with_product_ids"] == ["p/2 é"]
    assert (reply["slate"][0]["click_chance"], reply["slate"][0]["purchase_chance"]) == (0.5, 0.25)


def test_a_store_that_fails_is_named_and_the_answer_given_without_it(tmp_path: Path) -> None:
    with served(open_desk(tmp_path, store=NoStore("the store is away"))) as client:
        reply = client.post("/v1/guide", json={"shopper_id": "s-1", "text": "x", "num_recommendations": 2}).json()
        metrics = client.get("/metrics").text
    assert (reply["missing"], len(reply["slate"])) == (["stock"], 2)
    assert 'guidelens_hop_failures_total{hop="shopper_features"} 1.0' in metrics
    assert 'guidelens_hop_failures_total{hop="stock"} 1.0' in metrics


def test_the_encoder_for_devices_is_served_where_the_release_carries_one(tmp_path: Path) -> None:
    desk = open_desk(tmp_path)
    with served(desk) as client:
        reply = client.get("/v1/encoder.onnx")
        assert (reply.status_code, reply.json()["error"]["code"], client.get("/v1/releases/current").json()["device_encoder"]) == (404, "not_found", None)
        (tmp_path / "encoder.onnx").write_bytes(b"weights")
        desk.graph.catalogue.device_encoder = DeviceEncoder.of(tmp_path / "encoder.onnx")
        reply = client.get(client.get("/v1/releases/current").json()["device_encoder"])
        assert (reply.content, reply.headers["ETag"]) == (b"weights", f'"{sha256(b"weights").hexdigest()[:16]}"')


@pytest.mark.parametrize(
    ("numbers", "encoder", "status", "passed_on"),
    [
        (1280, None, 200, 1280),
        (1280, "now", 200, 1280),
        (2560, "now", 200, 2560),
        (2560, "before", 200, 1280),
        (2560, None, 200, 1280),
        (1281, "now", 422, None),
    ],
)
def test_of_another_release_s_encoder_only_the_pretrained_part_counts(
    tmp_path: Path, numbers: int, encoder: str | None, status: int, passed_on: int | None
) -> None:
    passed = list[int]()

    class Noting:
        async def ask(self, call: RecognizeCall, budget_s: float) -> RecognizeReply:
            assert call.embedding is not None
            passed.append(len(call.embedding))
            return RecognizeReply(call.embedding[:1280], None, np.zeros(0, np.int32), np.zeros(0, np.float32))

    desk = open_desk(tmp_path, recognizer=Noting())
    desk.graph.catalogue.device_encoder = DeviceEncoder(tmp_path / "encoder.onnx", "now")
    with served(desk) as client:
        reply = client.post("/v1/guide", json={"image_embedding": [0.5] * numbers, "image_encoder": encoder})
    assert (reply.status_code, passed) == (status, [] if passed_on is None else [passed_on])
