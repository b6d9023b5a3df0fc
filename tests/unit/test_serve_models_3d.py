"""A product's GLB: true metres, its colour, and a kind of thing that its words name."""

import io

import numpy as np
import pytest
import trimesh

from serve.catalogue import Size
from serve.models_3d import family, glb

CHAIR = Size(width_m=0.5, height_m=0.92, depth_m=0.55)


def scene_of(data: bytes) -> trimesh.Scene:
    return trimesh.load(io.BytesIO(data), file_type="glb", force="scene")


@pytest.mark.parametrize("shape", ["chair", "sofa", "table", "shelf", "lamp", "speaker", "headphones", "lipstick", "palette", "sunglasses", "watch", "ring", "shoe", "jacket", "bottle", "milk", "tin", "jar", "yoghurt", "fruit", "block"])  # fmt: skip
def test_every_family_fills_its_size_in_metres_and_stands_on_the_floor(shape: str) -> None:
    found = scene_of(glb(CHAIR, "x", {"shape": shape, "colour": "teal"})).bounds
    np.testing.assert_allclose(found, [[-0.25, 0, -0.275], [0.25, 0.92, 0.275]], atol=1e-6)


def test_a_very_thin_and_a_very_large_thing_keep_their_proportions() -> None:
    for size in (Size(width_m=0.001, height_m=1.9, depth_m=0.9), Size(width_m=40.0, height_m=0.01, depth_m=0.02)):
        bounds = scene_of(glb(size, "furniture/shelves", {})).bounds
        np.testing.assert_allclose(bounds[1] - bounds[0], [size.width_m, size.height_m, size.depth_m], rtol=1e-5)


@pytest.mark.parametrize(
    ("category", "attributes", "name"),
    [
        ("furniture/chairs", {}, "chair"),
        ("food/drinks", {"shape": "Bottle"}, "bottle"),
        ("wearables/rings", {}, "ring"),
        ("food/strings", {}, "box"),
        ("toys/candy", {}, "box"),
        ("dairy/sour cream", {}, "pot"),
        ("", {}, "box"),
    ],
)
def test_the_family_follows_the_words(category: str, attributes: dict[str, str], name: str) -> None:
    assert family(category, attributes) == name


def test_colour_and_material_become_a_pbr_material() -> None:
    red, steel = (scene_of(glb(CHAIR, "chairs", {"colour": "red", "material": material})).geometry.values() for material in ("fabric", "steel"))
    soft, hard = (next(iter(each)).visual.material for each in (red, steel))
    assert soft.baseColorFactor[0] > 2 * soft.baseColorFactor[1]
    assert (soft.metallicFactor, hard.metallicFactor) == (0.0, 0.9)


def test_the_same_product_gives_the_same_bytes() -> None:
    assert glb(CHAIR, "chairs", {"colour": "red"}) == glb(CHAIR, "chairs", {"colour": "red"})
