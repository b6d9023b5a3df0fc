"""What a world is drawn from, and the shop behind its files, drawn again from it by whoever needs it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from guidelens.config import WorldSize
from guidelens.schemas.catalog import Product
from guidelens.world.event_rows import Words
from guidelens.world.latents import draw_products, draw_shoppers, real_products
from guidelens.world.parameters import WorldParameters
from guidelens.world.photos import plan_photos
from guidelens.world.sessions import Shop
from guidelens.world.texts import catalogue, query_parts


@dataclass(frozen=True)
class RealCatalogue:
    """Real products for the world's shoppers to act on. styles: (N, 8), made elsewhere of real embeddings; frames: (path inside the photos folder, product_id)."""

    products: list[Product]
    styles: NDArray[np.float64]
    frames: list[tuple[str, str]]


@dataclass(frozen=True)
class Job:
    """What a worker needs to draw any part of the shop."""

    size: WorldSize
    seed: int
    parameters: WorldParameters
    real: RealCatalogue | None
    out: Path


def build(job: Job) -> tuple[Shop, Words]:
    """The shop behind the files, redrawn from the seed, and the names of its rows."""
    size, seed, parameters, real = job.size, job.seed, job.parameters, job.real
    if real is None:
        products = draw_products(size.num_products, seed)
        plan = plan_photos(products, size, seed, parameters)
        listed = catalogue(products, size, seed, parameters)
        frames = [frame.path for frame in plan.frames]
        frame_products = np.array([frame.product for frame in plan.frames], dtype=np.int64)
    else:
        products = real_products(real.products, real.styles, seed)
        listed = real.products
        rows = {product.product_id: row for row, product in enumerate(listed)}
        frames = [path for path, _ in real.frames]
        frame_products = np.array([rows[name] for _, name in real.frames], dtype=np.int64)
    shoppers = draw_shoppers(size.num_shoppers, size.num_days, seed, products, parameters)
    shop = Shop(products, shoppers, frame_products, size.num_days, seed, parameters)
    return shop, Words([product.product_id for product in listed], frames, query_parts(listed))
