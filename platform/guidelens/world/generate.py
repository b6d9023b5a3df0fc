"""Writes the simulated shop's files: catalogue, photos, shoppers, reviews, events, and, apart, the truth behind them.

Any number of workers writes the same bytes.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from guidelens.config import WorldSize
from guidelens.errors import InputError
from guidelens.schemas.base import Frozen
from guidelens.world.blueprint import Job, RealCatalogue, build
from guidelens.world.event_rows import Words
from guidelens.world.latents import Floats
from guidelens.world.log_files import EventsFormat, write_log
from guidelens.world.parameters import STYLE_DIM, WORLD_V1, WorldParameters
from guidelens.world.people import consent_of, shopper_name
from guidelens.world.photos import plan_photos, write_photos
from guidelens.world.reviews import write_reviews
from guidelens.world.sessions import Shop
from guidelens.world.texts import catalogue as list_products
from guidelens.world.texts import write_catalogue
from guidelens.world.trouble import TroubleTruth, suspects

WORLD_SCHEMA_VERSION = 1


class WorldPaths(Frozen):
    """Where the files are. catalogue, photos and holdout are None for a real catalogue, which has its own, and those not asked for too."""

    root: Path
    shoppers: Path
    events: Path
    truth: Path
    catalogue: Path | None
    photos: Path | None
    holdout: Path | None
    reviews: Path | None
    withdrawals: Path | None
    """Shoppers again, as they are after they withdrew consent: to be ingested later than the rest."""
    num_events: int


class WorldFile(Frozen):
    """truth/world.json: all that is needed to draw the world again."""

    schema_version: int = WORLD_SCHEMA_VERSION
    size: WorldSize
    seed: int
    parameters: WorldParameters
    product_ids: tuple[str, ...]
    frame_products: tuple[int, ...]
    real: bool


def generate(
    size: WorldSize,
    seed: int,
    out: Path,
    catalogue: RealCatalogue | None = None,
    parameters: WorldParameters = WORLD_V1,
    num_workers: int = 2,
    events_format: EventsFormat = "jsonl",
    with_photos: bool = True,
    tell: Callable[[str], None] | None = None,
) -> WorldPaths:
    """Draws a whole shop into `out`. `tell` hears how far the events are.

    Memory: linear in shoppers and products (some 1 KB a shopper and process), not in events.

    Raises:
        InputError: a real catalogue whose styles or frames do not fit its products, malformed lines asked of Parquet, or `out` holds other files' events.
    """
    if catalogue is not None:
        _check(catalogue)
    if events_format == "parquet" and parameters.trouble.malformed_share:
        raise InputError("malformed_share needs events as JSONL: Parquet has no lines to break; set it to 0 or write JSONL")
    job = Job(size, seed, parameters, catalogue, out)
    _emptied(out)
    shop, words = build(job)
    if catalogue is None:
        write_catalogue(list_products(shop.products, size, seed, parameters), out / "catalogue.jsonl")
        if with_photos:
            write_photos(shop.products, plan_photos(shop.products, size, seed, parameters), words.product_ids, seed, out, num_workers)
    counts = write_log(job, shop, words, num_workers, events_format, tell)
    _write_world(job, shop, words, counts.faults)
    return _write_people(job, shop, words, with_photos, counts.num_events)


def _emptied(out: Path) -> None:
    """Files of an earlier, larger draw must not be taken for this one's; files of others are not ours to delete.

    Raises:
        InputError: events/ or truth/ in `out` were not, or not completely, drawn by this.
    """
    folders = [out / "events", out / "truth"]
    held = next((folder for folder in folders if folder.is_dir() and any(folder.iterdir())), None)
    if held and not (out / "truth" / "world.json").is_file():
        raise InputError(f"{held} must be empty or part of a finished simulated shop, whose truth/world.json is missing; delete it or write elsewhere")
    for folder in folders:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)


def _write_world(job: Job, shop: Shop, words: Words, faults: dict[str, int]) -> None:
    """The truth that is not the log's: how to draw the world again, and what the trouble was."""
    truth = job.out / "truth"
    world = WorldFile(
        size=job.size,
        seed=job.seed,
        parameters=job.parameters,
        product_ids=tuple(words.product_ids),
        frame_products=tuple(int(row) for row in shop.frame_products),
        real=job.real is not None,
    )
    (truth / "world.json").write_text(world.model_dump_json())
    (truth / "trouble.json").write_text(_trouble_truth(shop, faults).model_dump_json())
    if job.real is not None:
        _write_real(job.real, truth)


def _write_people(job: Job, shop: Shop, words: Words, with_photos: bool, num_events: int) -> WorldPaths:
    """Shoppers, what they withdraw and what they write; returns where everything is."""
    out, people = job.out, job.parameters.people
    own = job.real is None
    pictured = own and with_photos
    consents, withdrawals = consent_of(shop.shoppers.num, shop.num_days, _start(job.parameters), job.seed, job.parameters)
    _write_shoppers(shop, out / "shoppers.jsonl", consents)
    if people.withdrawing_share or people.declining_share:
        _write_shoppers(shop, out / "withdrawals.jsonl", [False] * shop.shoppers.num, sorted(withdrawals))
        _write_consent(consents, withdrawals, out / "truth" / "consent.jsonl")
    if people.reviews_a_product:
        write_reviews(shop.products, shop.shoppers, list(words.product_ids), shop.num_days, job.seed, job.parameters, out / "reviews.jsonl")
    return WorldPaths(
        root=out,
        shoppers=out / "shoppers.jsonl",
        events=out / "events",
        truth=out / "truth",
        catalogue=out / "catalogue.jsonl" if own else None,
        photos=out / "photos" if pictured else None,
        holdout=out / "holdout" if pictured else None,
        reviews=out / "reviews.jsonl" if people.reviews_a_product else None,
        withdrawals=out / "withdrawals.jsonl" if people.withdrawing_share or people.declining_share else None,
        num_events=num_events,
    )


def _trouble_truth(shop: Shop, faults: dict[str, int]) -> TroubleTruth:
    found = suspects(shop.shoppers.num, shop.seed, shop.parameters.trouble)
    bots, broken = (tuple(shopper_name(int(row)) for row in np.flatnonzero(who)) for who in (found.is_bot, found.is_broken))
    skewed = {shopper_name(int(row)): int(found.skew_us[row]) for row in np.flatnonzero(found.skew_us)}
    return TroubleTruth(switches=shop.parameters.trouble, bots=bots, broken_clients=broken, skewed_clients=skewed, counts=faults)


def _check(real: RealCatalogue) -> None:
    if real.styles.shape != (len(real.products), STYLE_DIM):
        raise InputError(f"styles must have one row of {STYLE_DIM} a product ({len(real.products)}), got {real.styles.shape}; project the embeddings first")
    known = {product.product_id for product in real.products}
    strangers = {name for _, name in real.frames} - known
    if strangers or not real.frames:
        raise InputError(
            f"frames must show products of the catalogue and be at least one, got {len(real.frames)} with unknown products {sorted(strangers)[:3]}"
        )


def _write_real(real: RealCatalogue, truth: Path) -> None:
    np.save(truth / "styles.npy", real.styles)
    with (truth / "products.jsonl").open("w", encoding="utf-8") as sink:
        for product in real.products:
            sink.write(product.model_dump_json() + "\n")


_AGES, _REGIONS, _BODIES = ("18-25", "26-35", "36-50", "51+"), ("north", "south", "east", "west"), ("slim", "average", "broad")
_SKINS, _CHANNELS = ("light", "medium", "tan", "dark"), ("app", "web", "mini_program", "store")


def _start(parameters: WorldParameters) -> datetime:
    return datetime.fromisoformat(parameters.start_day).replace(tzinfo=UTC)


def _write_consent(consents: Sequence[bool], withdrawals: Mapping[int, datetime], path: Path) -> None:
    """Who declines, and who withdraws when; all others consent throughout."""
    with path.open("w", encoding="utf-8") as sink:
        for row in (row for row, agreed in enumerate(consents) if not agreed or row in withdrawals):
            kind, ts = ("withdrawn", withdrawals[row].isoformat()) if row in withdrawals else ("declined", None)
            sink.write(json.dumps({"shopper_id": shopper_name(row), "consent": kind, "ts": ts}) + "\n")


def _write_shoppers(shop: Shop, path: Path, consents: Sequence[bool], rows: Sequence[int] | None = None) -> None:
    """What a shop knows of its shoppers (of `rows`): each field a coarse view of one latent, correlated as the parameters say, and some missing."""
    start = _start(shop.parameters)
    visible: Floats = shop.shoppers.visible
    quarters = np.stack([np.digitize(visible[:, column], (-0.67, 0.0, 0.67)) for column in range(visible.shape[1])], axis=1)
    with path.open("w", encoding="utf-8") as sink:
        for row in range(shop.shoppers.num) if rows is None else rows:
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
                "consent": consents[row],
            }
            for name, hidden in zip(("gender", "body", "skin_tone"), _missing(row), strict=True):
                if hidden:
                    del record[name]
            sink.write(json.dumps(record) + "\n")


def _missing(row: int) -> tuple[bool, bool, bool]:
    return row % 11 == 3, row % 7 == 5, row % 5 == 2
