"""The simulated shop's true outfits: families that complement each other, better in a near style, and what a scan feels of them."""

from pathlib import Path

import numpy as np

from guidelens.config import WorldSize
from guidelens.world import World, generate
from guidelens.world.appeal import SCAN, Contexts, outfit, relation
from guidelens.world.latents import draw_products


def test_a_scan_feels_the_outfit_beside_family_and_style() -> None:
    products = draw_products(60, 3)
    target = np.array([0, 5, 17])
    plain = np.zeros(3, dtype=np.bool_)
    felt = relation(products, Contexts(np.full(3, SCAN), target, plain, plain))
    near = products.style[target] @ products.style.T / products.style.shape[1]
    other = products.family[target][:, None] != products.family[None]
    assert np.allclose((felt - 0.45 * near + 0.6)[other], outfit(products, target)[other])


def test_outfits_are_of_other_families_and_go_both_ways(tmp_path: Path) -> None:
    size = WorldSize(num_products=60, num_shoppers=20, num_sessions=100, num_frames=20, views_per_product=2, num_days=7, reference_sessions=1000)
    generate(size, 3, tmp_path, with_photos=False)
    world = World.open(tmp_path)
    fits = world.outfits(world.product_ids)
    family = draw_products(60, 3).family
    assert (fits >= 0).all()
    assert fits[family[:, None] == family[None]].max() == 0
    assert np.allclose(fits, fits.T)
    assert 0.02 < (fits > 0).mean() < 0.5
    assert np.array_equal(world.outfits(world.product_ids[::-1]), fits[::-1, ::-1])
