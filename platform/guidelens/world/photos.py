"""The shop's photo folders: which pictures there are, drawn in parallel, with photos.csv and the held-back frames' labels.csv."""

import csv
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np

from guidelens.config import WorldSize
from guidelens.schemas.base import Frozen
from guidelens.world.latents import ProductLatents, draw_products, philox
from guidelens.world.parameters import WorldParameters
from guidelens.world.rendering import catalogue_view, encode, picture_rng, session_frame, sprite

_SIZE_PX = 256


class Picture(Frozen):
    """One picture to draw. `view` is -1 for session and held-back frames."""

    path: str
    product: int
    view: int


class PhotoPlan(Frozen):
    """All pictures of a shop; `frames` are the session frames' paths inside photos/, `labelled` those named in photos.csv."""

    catalogue: tuple[Picture, ...]
    frames: tuple[Picture, ...]
    labelled: tuple[Picture, ...]
    holdout: tuple[Picture, ...]


def plan_photos(products: ProductLatents, size: WorldSize, seed: int, parameters: WorldParameters) -> PhotoPlan:
    rng = philox(seed, "frames")
    views = [Picture(path=f"catalogue/{row:04d}-{view}.jpg", product=row, view=view) for row in range(products.num) for view in range(size.views_per_product)]
    order = rng.permutation(products.num)
    frames = [Picture(path=f"frames/f-{number:05d}.jpg", product=int(order[number % products.num]), view=-1) for number in range(size.num_frames)]
    is_labelled = rng.random(size.num_frames) < parameters.labelled_frame_share
    num_holdout = min(parameters.num_holdout, max(40, 2 * products.num))
    holdout = [Picture(path=f"h-{number:05d}.jpg", product=int(order[number % products.num]), view=-1) for number in range(num_holdout)]
    return PhotoPlan(
        catalogue=tuple(views),
        frames=tuple(frames),
        labelled=tuple(frame for frame, known in zip(frames, is_labelled, strict=True) if known),
        holdout=tuple(holdout),
    )


def write_photos(products: ProductLatents, plan: PhotoPlan, product_ids: Sequence[str], seed: int, out: Path, num_workers: int = 2) -> None:
    """Draws photos/ and holdout/ under `out`, the same bytes with any number of workers, and writes their tables."""
    jobs: list[tuple[Path, Picture]] = [(out / "photos", picture) for picture in (*plan.catalogue, *plan.frames)]
    jobs += [(out / "holdout", picture) for picture in plan.holdout]
    for folder in ("photos/catalogue", "photos/frames", "holdout"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    jobs.sort(key=lambda job: job[1].product)
    cuts = np.linspace(0, len(jobs), 4 * num_workers + 1).astype(int)
    chunks = [jobs[a:b] for a, b in pairwise(cuts) if b > a]
    if num_workers == 1 or len(jobs) < 200:
        for chunk in chunks:
            _draw(products.num, seed, chunk)
    else:
        with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
            list(pool.map(_draw, [products.num] * len(chunks), [seed] * len(chunks), chunks))
    _write_table(out / "photos" / "photos.csv", (*plan.catalogue, *plan.labelled), product_ids)
    _write_table(out / "holdout" / "labels.csv", plan.holdout, product_ids)


def _draw(num_products: int, seed: int, jobs: Sequence[tuple[Path, Picture]]) -> None:
    cv2.setNumThreads(1)
    products = draw_products(num_products, seed)
    last, picture = -1, None
    for folder, job in jobs:
        if job.product != last or picture is None:
            last, picture = job.product, sprite(products, job.product, seed)
        rng = picture_rng(seed, f"{folder.name}/{job.path}")
        image = session_frame(picture, _SIZE_PX, rng) if job.view < 0 else catalogue_view(picture, job.view, _SIZE_PX, rng)
        (folder / job.path).write_bytes(encode(image))


def _write_table(path: Path, pictures: Sequence[Picture], product_ids: Sequence[str]) -> None:
    with path.open("w", newline="") as sink:
        writer = csv.writer(sink)
        writer.writerow(("path", "product_id"))
        writer.writerows((picture.path, product_ids[picture.product]) for picture in pictures)
