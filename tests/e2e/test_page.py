"""The page in a real Chromium whose camera shows a photo, over the served graph."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from served_shop import ReleasedShop, ServedShop, release_some_groceries, serving

from guidelens.data.images.decoding import decode_image
from guidelens.encoders.image import load_image_encoder

WEB = Path(__file__).resolve().parents[2] / "serve" / "web"
STEPS = 2
WIDTH, HEIGHT = 640, 480

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def chromium() -> str:
    found = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
    if found is None or shutil.which("node") is None or not (WEB / "vendor" / "model-viewer.min.js").exists():
        pytest.skip("the page's test needs chromium, node and serve/web's packages: apt-get install chromium nodejs npm; npm ci --prefix serve/web")
    return found


@pytest.fixture
def served(chromium: str, released_shop: ReleasedShop) -> Iterator[ServedShop]:
    """For one test each: a Ray cluster serves one shop at a time, and the groceries are another."""
    with serving(released_shop) as found:
        yield found


@pytest.fixture
def groceries(chromium: str, ray_cluster: None, shared_data: Path, tmp_path: Path) -> Iterator[ServedShop]:
    with serving(release_some_groceries(tmp_path, shared_data)) as found:
        yield found


def write_camera(photo: Path, target: Path) -> None:
    """A video of one photo in the form that Chromium's fake camera reads (YUV4MPEG2, 4:2:0)."""
    image = cv2.imread(str(photo))
    assert image is not None
    height, width = image.shape[:2]
    scale = max(WIDTH / width, HEIGHT / height)
    image = cv2.resize(image, (round(width * scale), round(height * scale)))
    top, left = (image.shape[0] - HEIGHT) // 2, (image.shape[1] - WIDTH) // 2
    frame = cv2.cvtColor(np.ascontiguousarray(image[top : top + HEIGHT, left : left + WIDTH]), cv2.COLOR_BGR2YUV_I420).tobytes()
    target.write_bytes(f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F10:1 Ip A1:1 C420jpeg\n".encode() + (b"FRAME\n" + frame) * 10)


def walk(url: str, camera: Path | None, shots: Path, chromium: str, locale: str = "en-US", query: str = "") -> dict[str, Any]:
    """What a shopper saw on the way through the page (page.mjs); screenshots lie in `shots`."""
    kept = os.environ.get("GUIDELENS_SCREENSHOTS")
    shots = Path(kept) if kept else shots
    shots.mkdir(parents=True, exist_ok=True)
    command = ["node", str(Path(__file__).with_name("page.mjs")), url, str(camera or "none"), str(shots), chromium, locale, query]
    sharp = {"PAGE_SCALE": "2"} if kept else {}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, env={**os.environ, **sharp})
    assert ran.returncode == 0, ran.stderr[-2000:]
    seen: dict[str, Any] = json.loads(ran.stdout.strip().splitlines()[-1])
    assert "broke" not in seen, (seen["broke"], seen)
    return seen


def frame_the_graph_knows(served: ServedShop) -> tuple[Path, str]:
    for path, product_id in served.shop.frames:
        recognized = served.guide(path.read_bytes(), personalized=False).json()["recognized"]
        if recognized and recognized[0]["product_id"] == product_id:
            return path, product_id
    raise AssertionError("the recognizer knows none of the frames")


def inbox_ids(shop: ReleasedShop) -> set[str]:
    return {json.loads(line)["event_id"] for path in shop.home.inbox.glob("*.jsonl") for line in path.read_text().splitlines()}


def test_a_shopper_scans_looks_around_and_is_guided(served: ServedShop, chromium: str, tmp_path: Path) -> None:
    photo, product_id = frame_the_graph_knows(served)
    write_camera(photo, tmp_path / "camera.y4m")
    seen = walk(served.url, tmp_path / "camera.y4m", tmp_path / "shots", chromium)
    view = served.client.get(f"/v1/products/{product_id}").json()

    assert (seen["console"], seen["foreign"], seen["failed"]) == ([], [], [])
    assert seen["recognized"] == view["title"]
    assert seen["facts"]
    assert len(seen["cards"]) == 8
    assert all(card["title"] and card["price"] and card["reasons"] for card in seen["cards"])
    assert seen["steps"]

    assert seen["model"] == f"/v1/products/{product_id}/model.glb"
    np.testing.assert_allclose(seen["metres"], [view["size"][side] for side in ("width_m", "height_m", "depth_m")], rtol=1e-3)
    assert seen["tapped"] != product_id
    assert seen["swapped_model"] == f"/v1/products/{seen['tapped']}/model.glb"

    assert len(seen["outcomes"]) == STEPS
    assert seen["outcomes"][0]["next"][0] != seen["outcomes"][0]["step"]
    assert seen["other_language"] == "接下来"
    posted = {kind: [each for each in seen["posted"] if each["type"] == kind] for kind in {each["type"] for each in seen["posted"]}}
    assert {"ar_open", "ar_view", "ar_gesture", "click", "guide_step", "step_outcome"} <= set(posted)
    assert posted["ar_view"][0]["view_ms"] > 0
    assert [each["outcome"] for each in posted["step_outcome"]][:STEPS] == [("cart" if each["step"] == "call_to_checkout" else "engaged") if k == 0 else "none" for k, each in enumerate(posted["step_outcome"][:STEPS])]  # fmt: skip
    assert [each["step_index"] for each in posted["guide_step"]][: STEPS + 1] == list(range(min(STEPS + 1, len(posted["guide_step"]))))

    wanted = {each["event_id"] for each in seen["posted"]}
    ends = time.monotonic() + 10
    while not wanted <= inbox_ids(served.shop) and time.monotonic() < ends:
        time.sleep(0.1)
    assert wanted <= inbox_ids(served.shop)


def test_without_a_camera_a_search_does(served: ServedShop, chromium: str, tmp_path: Path) -> None:
    title = served.client.get(f"/v1/products/{served.shop.frames[0][1]}").json()["title_zh"]
    seen = walk(served.url, None, tmp_path / "shots", chromium, locale="zh-CN", query=title)
    assert (seen["console"], seen["foreign"], seen["failed"]) == ([], [], [])
    assert seen["cards"][0]["title"] == title
    assert "search" in [each["type"] for each in seen["posted"]]
    assert seen["other_language"] == "What to do next".upper()


@pytest.mark.shared_data
def test_a_real_photo_is_recognized_and_its_size_is_not_made_up(groceries: ServedShop, chromium: str, tmp_path: Path) -> None:
    photo, product_id = frame_the_graph_knows(groceries)
    write_camera(photo, tmp_path / "camera.y4m")
    seen = walk(groceries.url, tmp_path / "camera.y4m", tmp_path / "shots", chromium)
    assert (seen["console"], seen["foreign"], seen["failed"]) == ([], [], [])
    assert seen["recognized"] == groceries.client.get(f"/v1/products/{product_id}").json()["title"]
    assert (seen["viewer"], len(seen["cards"])) == (False, 8)
    assert "show_3d" not in seen["steps"]
    assert "picture" in seen["viewer_note"]


def embedded(url: str, photos: list[Path], chromium: str) -> dict[str, Any]:
    """What the page made of the photos on the device (embed.mjs)."""
    command = ["node", str(Path(__file__).with_name("embed.mjs")), url, chromium, *map(str, photos)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    seen: dict[str, Any] = json.loads(ran.stdout.strip().splitlines()[-1])
    assert "broke" not in seen, (seen["broke"], seen["console"])
    return seen


def test_the_device_embeds_photos_as_the_server_does_and_then_none_is_sent(groceries: ServedShop, chromium: str) -> None:
    photos = [path for path, _ in groceries.shop.frames][:24]
    seen = embedded(groceries.url, photos, chromium)
    assert (seen["console"], seen["foreign"], seen["pressed"]) == ([], [], "true")

    encoder = load_image_encoder()
    here = encoder.embed(np.stack([decode_image(path.read_bytes()) for path in photos]))
    there = np.array([each["image_embedding"] for each in seen["embeddings"]], np.float32)[:, : encoder.dim]
    cosines = (here * there).sum(1) / np.linalg.norm(here, axis=1) / np.linalg.norm(there, axis=1)
    assert cosines.min() > 0.98

    def best(reply: Any) -> Any:
        return reply.json()["recognized"][0]["product_id"] if reply.json()["recognized"] else None

    by_frame = [best(groceries.guide(path.read_bytes(), personalized=False)) for path in photos]
    by_embedding = [best(groceries.guide(**each, personalized=False)) for each in seen["embeddings"]]
    assert sum(one == other for one, other in zip(by_frame, by_embedding, strict=True)) >= len(photos) - 1

    assert [each["type"] for each in seen["asked"]] == ["application/json"], "no photo left the device"
    product_id = by_embedding[0]
    assert seen["recognized"] in (groceries.client.get(f"/v1/products/{product_id}").json()["title"], "Not one of ours, as far as we can see")
