"""Writes the simulated shop's files: catalogue, photos, shoppers, events, and, apart, the truth behind them.

Events are drawn a chunk of shoppers at a time and written as parts, so memory stays bounded and any number of workers
writes the same bytes.
"""

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from guidelens.config import WorldSize
from guidelens.errors import InputError
from guidelens.schemas.base import Frozen
from guidelens.schemas.catalog import Product
from guidelens.world.event_rows import Words, event_frame, json_lines, session_names, shopper_name
from guidelens.world.latents import Floats, Ints, draw_products, draw_shoppers, real_products
from guidelens.world.parameters import STYLE_DIM, WORLD_V1, WorldParameters
from guidelens.world.photos import plan_photos, write_photos
from guidelens.world.sessions import Chunk, Shop, session_counts, simulate
from guidelens.world.texts import catalogue, query_parts, write_catalogue
from guidelens.world.trouble import TroubleTruth, suspects

SHOPPERS_A_CHUNK = 48
WORLD_SCHEMA_VERSION = 1


@dataclass(frozen=True)
class RealCatalogue:
    """Real products for the world's shoppers to act on. styles: (N, 8), made elsewhere of real embeddings; frames: (path inside the photos folder, product_id)."""

    products: list[Product]
    styles: NDArray[np.float64]
    frames: list[tuple[str, str]]


class WorldPaths(Frozen):
    """Where the files are. catalogue, photos and holdout are None for a real catalogue, which has its own."""

    root: Path
    shoppers: Path
    events: Path
    truth: Path
    catalogue: Path | None
    photos: Path | None
    holdout: Path | None


class WorldFile(Frozen):
    """truth/world.json: all that is needed to draw the world again."""

    schema_version: int = WORLD_SCHEMA_VERSION
    size: WorldSize
    seed: int
    parameters: WorldParameters
    product_ids: tuple[str, ...]
    frame_products: tuple[int, ...]
    real: bool


@dataclass(frozen=True)
class Job:
    """What a worker needs to draw one chunk of shoppers."""

    size: WorldSize
    seed: int
    parameters: WorldParameters
    real: RealCatalogue | None
    out: Path


def generate(
    size: WorldSize, seed: int, out: Path, catalogue: RealCatalogue | None = None, parameters: WorldParameters = WORLD_V1, num_workers: int = 2
) -> WorldPaths:
    """Draws a whole shop into `out`.

    Raises:
        InputError: a real catalogue whose styles or frames do not fit its products.
    """
    if catalogue is not None:
        _check(catalogue)
    job = Job(size, seed, parameters, catalogue, out)
    for folder in ("events", "truth"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    shop, words = build(job)
    if catalogue is None:
        products = _catalogue(job, shop)
        write_catalogue(products, out / "catalogue.jsonl")
        write_photos(shop.products, plan_photos(shop.products, size, seed, parameters), words.product_ids, seed, out, num_workers)
    _write_shoppers(shop, out / "shoppers.jsonl")
    _write_sessions(job, shop, num_workers)
    world = WorldFile(
        size=size,
        seed=seed,
        parameters=parameters,
        product_ids=tuple(words.product_ids),
        frame_products=tuple(int(row) for row in shop.frame_products),
        real=catalogue is not None,
    )
    (out / "truth" / "world.json").write_text(world.model_dump_json())
    (out / "truth" / "trouble.json").write_text(_trouble_truth(shop).model_dump_json())
    if catalogue is not None:
        _write_real(catalogue, out / "truth")
    own = catalogue is None
    return WorldPaths(
        root=out,
        shoppers=out / "shoppers.jsonl",
        events=out / "events",
        truth=out / "truth",
        catalogue=out / "catalogue.jsonl" if own else None,
        photos=out / "photos" if own else None,
        holdout=out / "holdout" if own else None,
    )


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


def _catalogue(job: Job, shop: Shop) -> list[Product]:
    return catalogue(shop.products, job.size, job.seed, job.parameters)


def _trouble_truth(shop: Shop) -> TroubleTruth:
    found = suspects(shop.shoppers.num, shop.seed, shop.parameters.trouble)
    bots, broken = (tuple(shopper_name(int(row)) for row in np.flatnonzero(who)) for who in (found.is_bot, found.is_broken))
    return TroubleTruth(switches=shop.parameters.trouble, bots=bots, broken_clients=broken)


def _check(real: RealCatalogue) -> None:
    if real.styles.shape != (len(real.products), STYLE_DIM):
        raise InputError(f"styles must have one row of {STYLE_DIM} a product ({len(real.products)}), got {real.styles.shape}; project the embeddings first")
    known = {product.product_id for product in real.products}
    strangers = {name for _, name in real.frames} - known
    if strangers or not real.frames:
        raise InputError(
            f"frames must show products of the catalogue and be at least one, got {len(real.frames)} with unknown products {sorted(strangers)[:3]}"
        )


def _write_sessions(job: Job, shop: Shop, num_workers: int) -> None:
    counts = session_counts(shop.shoppers, job.size.num_sessions, job.seed)
    starts = list(range(0, shop.shoppers.num, SHOPPERS_A_CHUNK))
    if num_workers == 1 or job.size.num_sessions < 4000:
        truths = _draw_chunks(job, counts, starts)
    else:
        groups = [starts[k :: 2 * num_workers] for k in range(2 * num_workers)]
        with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
            drawn = [truth for group in pool.map(_draw_chunks, [job] * len(groups), [counts] * len(groups), groups) for truth in group]
        truths = [truth for _, truth in sorted(zip([start for group in groups for start in group], drawn, strict=True), key=lambda pair: pair[0])]
    joined = {name: np.concatenate([truth[name] for truth in truths]) for name in truths[0]}
    _save(job.out / "truth" / "sessions", {name: values for name, values in joined.items() if not name.startswith("ar_")})
    _save(job.out / "truth" / "ar_sessions", {name[3:]: values for name, values in joined.items() if name.startswith("ar_")})


def _save(folder: Path, columns: dict[str, NDArray[np.generic]]) -> None:
    folder.mkdir(exist_ok=True)
    for name, values in columns.items():
        np.save(folder / f"{name}.npy", values, allow_pickle=False)


def _draw_chunks(job: Job, counts: Ints, starts: list[int]) -> list[dict[str, NDArray[np.generic]]]:
    built = build(job)
    return [_draw_chunk(job, counts, start, built) for start in starts]


def _draw_chunk(job: Job, counts: Ints, start: int, built: tuple[Shop, Words]) -> dict[str, NDArray[np.generic]]:
    """Writes one part of the events; returns its part of the truth."""
    shop, words = built
    rows = [row for row in range(start, min(start + SHOPPERS_A_CHUNK, shop.shoppers.num)) if counts[row] > 0]
    if not rows:
        rows = [start]
    chunk = simulate(shop, rows, counts)
    part = start // SHOPPERS_A_CHUNK
    (job.out / "events" / f"part-{part:05d}.jsonl").write_bytes(json_lines(event_frame(shop, chunk, words, part)))
    return _truth(chunk)


def _truth(chunk: Chunk) -> dict[str, NDArray[np.generic]]:
    names = session_names(chunk).to_numpy().astype(str)
    ar = chunk.ar
    return {
        "session_id": names,
        "shopper": chunk.moments.shopper,
        "day": chunk.moments.day,
        "is_second": chunk.moments.is_second,
        "kind": chunk.contexts.kind,
        "target": chunk.contexts.target,
        "with_colour": chunk.contexts.with_colour,
        "with_material": chunk.contexts.with_material,
        "ar_session_id": names[ar.session],
        "ar_shopper": chunk.moments.shopper[ar.session],
        "ar_product": ar.product,
        "ar_start": ar.hidden.start.astype(np.int8),
        "ar_logged_value": ar.log.value,
    }


def _write_real(real: RealCatalogue, truth: Path) -> None:
    np.save(truth / "styles.npy", real.styles)
    with (truth / "products.jsonl").open("w", encoding="utf-8") as sink:
        for product in real.products:
            sink.write(product.model_dump_json() + "\n")


_AGES, _REGIONS, _BODIES = ("18-25", "26-35", "36-50", "51+"), ("north", "south", "east", "west"), ("slim", "average", "broad")
_SKINS, _CHANNELS = ("light", "medium", "tan", "dark"), ("app", "web", "mini_program", "store")


def _write_shoppers(shop: Shop, path: Path) -> None:
    """What a shop knows of its shoppers: each field a coarse view of one latent, correlated as the parameters say, and some missing."""
    start = datetime.fromisoformat(shop.parameters.start_day).replace(tzinfo=UTC)
    visible: Floats = shop.shoppers.visible
    quarters = np.stack([np.digitize(visible[:, column], (-0.67, 0.0, 0.67)) for column in range(visible.shape[1])], axis=1)
    with path.open("w", encoding="utf-8") as sink:
        for row in range(shop.shoppers.num):
            age, gender, region, skin, channel, body = (int(value) for value in quarters[row])
            first = float(shop.shoppers.first_day[row])
            made = start + timedelta(days=first - (0.01 if first > 0 else 30.0 + 300.0 * ((row * 7919) % 1000) / 1000))
            record = {
                "shopper_id": shopper_name(row),
                "age_band": _AGES[age],
                "gender": "f" if gender >= 2 else "m",
                "region": _REGIONS[region],
                "height_cm": round(166.0 + 7.0 * float(visible[row, 3]) + (6 if gender < 2 else -4), 1),
                "body": _BODIES[min(body, 2)],
                "skin_tone": _SKINS[skin],
                "channel": _CHANNELS[channel],
                "created_ts": made.isoformat(),
                "consent": True,
            }
            for name, hidden in zip(("gender", "body", "skin_tone"), _missing(row), strict=True):
                if hidden:
                    del record[name]
            sink.write(json.dumps(record) + "\n")


def _missing(row: int) -> tuple[bool, bool, bool]:
    return row % 11 == 3, row % 7 == 5, row % 5 == 2
