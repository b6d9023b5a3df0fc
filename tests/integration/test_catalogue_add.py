"""`guidelens catalogue add` and `remove`: a product joins a served release without training, is recognised and found, and leaves again."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from coded_frames import CODE, frame_with_code
from PIL import Image, ImageDraw, ImageEnhance
from served_shop import ReleasedShop, serving

from guidelens.bundle import read_manifest
from guidelens.data.lake.lake import Lake
from guidelens.data.records.sources import IngestSources
from guidelens.data.review import ReviewQueue
from guidelens.errors import BundleError, ContractError, InputError, NotFoundError
from guidelens.inference.bundle_rows import with_rows
from guidelens.inference.guide_files import load_items
from guidelens.inference.scorer import GuideScorer
from guidelens.registry import CHALLENGER, CHAMPION, Registry
from guidelens.schemas.tables import Table
from pipelines import catalogue, ingest, promote
from pipelines.amended_release import amend
from pipelines.catalogue_add import NewProduct, add, remove


def flat_wall() -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (320, 240), (120, 118, 110)).save(sink, "JPEG")
    return sink.getvalue()


pytestmark = pytest.mark.usefixtures("ray_cluster")
PRODUCT = "a kazoo/卡祖笛 1"
WALL = flat_wall()


def kazoo(seen_by_a_camera: bool) -> bytes:
    image = Image.new("RGB", (400, 400), (235, 225, 210) if seen_by_a_camera else (255, 255, 255))
    pen = ImageDraw.Draw(image)
    pen.polygon([(40, 170), (300, 120), (360, 200), (300, 280), (40, 230)], fill=(250, 120, 10), outline=(60, 20, 120), width=9)
    pen.ellipse((150, 130, 230, 210), fill=(60, 20, 120))
    for ring in range(5):
        pen.ellipse((165 + 6 * ring, 145 + 6 * ring, 215 - 6 * ring, 195 - 6 * ring), outline=(250, 240, 60), width=2)
    if seen_by_a_camera:
        image = ImageEnhance.Brightness(image.rotate(8, fillcolor=(235, 225, 210))).enhance(0.85)
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=88)
    return sink.getvalue()


def test_a_product_joins_is_recognised_and_found_and_leaves_again(released_shop: ReleasedShop, tmp_path: Path) -> None:
    home, registry = released_shop.home, Registry(released_shop.home)
    before = registry.alias(CHAMPION)
    assert before is not None
    (tmp_path / "kazoo.JPG").write_bytes(kazoo(seen_by_a_camera=False))
    fields = {
        "product_id": PRODUCT,
        "title": "Zephyr kazoo",
        "title_zh": "西风卡祖笛",
        "category": "Toys/Music",
        "price_minor": 900,
        "currency": "CNY",
        "attributes": {"gtin": CODE},
    }
    done = add(home, [PRODUCT], NewProduct(fields=fields, images=(tmp_path / "kazoo.JPG",)))
    assert (done.release.base, done.release.alias) == (before, CHALLENGER)
    try:
        promote.run(home, done.release.version)
        with serving(released_shop) as shop:
            seen = shop.guide(kazoo(seen_by_a_camera=True)).json()
            assert seen["release"] == done.release.version
            assert seen["recognized"][0]["product_id"] == PRODUCT
            again = shop.guide(kazoo(seen_by_a_camera=True), session_id="steady"), shop.guide(kazoo(seen_by_a_camera=True), session_id="steady")
            assert [each.json()["evidence"] for each in again] == [["image"], ["image", "earlier_frames"]]
            for text in ("zephyr kazoo", "西风卡祖笛"):
                assert shop.guide(text=text).json()["slate"][0]["product_id"] == PRODUCT
                found = shop.client.post("/v1/search", json={"text": text, "deadline_ms": 10_000}).json()
                assert (found["answered"], found["results"][0]["product_id"]) == (True, PRODUCT)
            assert shop.client.get(f"/v1/products/{PRODUCT.replace('/', '%2F')}").json()["price_minor"] == 900
            coded = shop.guide(frame_with_code(CODE)).json()
            assert (coded["recognized"][0]["product_id"], coded["in_catalogue"], coded["barcodes"]) == (PRODUCT, True, ["0" + CODE])
            assert coded["evidence"] == ["image", "barcode"]
            wall = shop.guide(WALL, consent={"frame_retention": True}).json()
            assert (wall["in_catalogue"], wall["recognized"]) == (False, [])
            old_frame, old_product = released_shop.frames[0]
            assert old_product in [each["product_id"] for each in shop.guide(old_frame.read_bytes()).json()["recognized"]]

        queue = ReviewQueue(home.review, home.keys)
        (entry,) = queue.entries()
        assert queue.frame(entry.entry_id) == WALL
        queue.label(entry.entry_id, PRODUCT)
        assert ingest.run(home, released_shop.config, IngestSources()).reviewed == 1
        photos = Lake(home.lake_uri, home.s3).read(Table.PHOTOS)
        assert photos.filter(photos["path"] == f"review/{entry.entry_id}").select("product_id", "is_catalogue_image", "thumbnail").rows() == [
            (PRODUCT, False, None)
        ]
        assert queue.entries() == []

        with pytest.raises(InputError, match="must not be in release"):
            add(home, [PRODUCT])
        left = remove(home, [PRODUCT])
        old, new = (GuideScorer.load(home.releases / version).index_vectors() for version in (before, left.release.version))
        assert np.array_equal(old, new)
        assert read_manifest(home.releases / left.release.version).parts == read_manifest(home.releases / before).parts
        assert PRODUCT not in Lake(done.lake, home.s3).read(Table.PRODUCTS)["product_id"]
        with pytest.raises(NotFoundError, match="must be in the release"):
            remove(home, [PRODUCT])
    finally:
        registry.remove_alias(CHALLENGER)
        registry.set_alias(CHAMPION, before)


def test_neighbours_and_pictures_follow_their_products_when_one_in_the_middle_leaves(released_shop: ReleasedShop) -> None:
    """What is named by row before and after is the same product."""
    from guidelens.inference.popularity import read_popularity
    from guidelens.models.baselines.fallback import Fallback

    home, registry = released_shop.home, Registry(released_shop.home)
    base = registry.version(str(registry.alias(CHAMPION)))
    source = home.releases / base.version
    ids = list(load_items(source)[1].product_ids)
    gone = ids[len(ids) // 2]
    found = home.releases / amend(home, base, None, [gone]).version
    registry.remove_alias(CHALLENGER)
    left = list(load_items(found)[1].product_ids)
    assert left == [each for each in ids if each != gone]
    for product_id in left:
        old, new = (folder / "media" / f"{names.index(product_id)}.jpg" for folder, names in ((source, ids), (found, left)))
        assert old.read_bytes() == new.read_bytes()
    counts = [read_popularity(folder, len(names)).weights_N for folder, names in ((source, ids), (found, left))]
    assert {name: counts[0][row] for row, name in enumerate(ids) if name != gone} == dict(zip(left, counts[1], strict=True))
    spoken = [Fallback.load(folder, names) for folder, names in ((source, ids), (found, left))]
    pairs = []
    for fallback, names in zip(spoken, (ids, left), strict=True):
        assert fallback is not None
        (part,) = fallback._parts.values()
        cells = ((row, name) for row, name in enumerate(names) if name != gone)
        pairs.append({(name, names[to]) for row, name in cells for to, weight in zip(part.products_NK[row], part.weights_NK[row], strict=True) if weight > 0})
    assert {pair for pair in pairs[0] if gone not in pair} == pairs[1] != set()


def test_a_release_with_a_table_that_nobody_would_change_is_not_amended(released_shop: ReleasedShop, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(released_shop.home.releases / "1", bundle)
    (bundle / "of_tomorrow.safetensors").touch()
    with pytest.raises(BundleError, match=r"of_tomorrow\.safetensors"):
        with_rows(bundle, np.zeros(0, np.int64), load_items(bundle)[0])


def test_what_breaks_the_catalogues_contract_joins_nothing(released_shop: ReleasedShop, tmp_path: Path) -> None:
    home = released_shop.home
    versions, manifest = len(Registry(home).versions()), Lake(home.lake_uri, home.s3).manifest().version
    (tmp_path / "no.jpg").write_bytes(b"no picture")
    with pytest.raises(ContractError, match="title"):
        add(home, ["x"], NewProduct(fields={"product_id": "x", "category": "Toys"}))
    with pytest.raises(ContractError, match="JPEG, PNG or WebP"):
        add(home, ["x"], NewProduct(fields={"product_id": "x", "title": "x", "category": "Toys"}, images=(tmp_path / "no.jpg",)))
    with pytest.raises(NotFoundError, match="the lake must hold"):
        add(home, ["nobody knows this"])
    two = CliRunner().invoke(catalogue.command, ["add", "x", "y", "--title", "both", "--home", str(home.root)])
    assert two.exit_code == 2 and "one product" in two.output
    assert (len(Registry(home).versions()), Lake(home.lake_uri, home.s3).manifest().version) == (versions, manifest)
