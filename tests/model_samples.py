"""A small shop made up here: a catalogue with random embeddings, and rows whose clicks, interest and plans follow simple rules."""

import dataclasses
import json

import numpy as np
import polars as pl
from numpy.typing import NDArray

from guidelens.config import Config, ModelConfig
from guidelens.data.examples import Examples, empty, temporal_split
from guidelens.models.items import Catalogue
from guidelens.presets import tiny
from guidelens.schemas.ids import stable_hash
from guidelens.schemas.packed import NUM_RECENT, PACKED_DTYPE, PACKED_SCHEMA_VERSION
from guidelens.schemas.steps import MAX_STEPS, NUM_STEPS, OUTCOME_INDEX, allowed_next

NUM_PRODUCTS = 12
NUM_PLACES = 5
START_US = 1_700_000_000_000_000
_KINDS = ("room", "eyes", "none")


def sample_items(seed: int = 0) -> pl.DataFrame:
    """An item table as a fit writes it: three try-on kinds, one product without an image, some without a price."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(NUM_PRODUCTS):
        rows.append(
            {
                "product_id": f"p-{i:02d}",
                "title": f"Thing {i}",
                "title_zh": f"物品{i}号" if i % 2 else None,
                "description": "A thing.",
                "category": f"things/kind{i % 3}",
                "brand": f"brand{i % 4}" if i % 5 else None,
                "colour": ("red", "blue")[i % 2],
                "material": None,
                "size": "m",
                "price_minor": None if i == 7 else 1000 + 100 * i,
                "currency": "EUR",
                "try_on": _KINDS[i % 3],
                "width_m": 0.5 if i % 2 else None,
                "height_m": 0.5 if i % 2 else None,
                "depth_m": 0.5 if i % 2 else None,
                "model_3d": None,
                "facts_json": json.dumps({"care": "wash"}),
                "stock": 3,
                "text_embedding": _unit(rng, 512),
                "text_zh_embedding": _unit(rng, 512) if i % 2 else None,
                "image_embedding": None if i == 3 else rng.normal(0.5, 1, 1280).astype(np.float32).tolist(),
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None)


def _unit(rng: np.random.Generator, dim: int) -> list[float]:
    vector = rng.normal(size=dim)
    return (vector / np.linalg.norm(vector)).astype(np.float32).tolist()


def sample_catalogue(seed: int = 0) -> Catalogue:
    return Catalogue.of_table(sample_items(seed))


def packed_row(rng: np.random.Generator, as_of_us: int, product_ids: list[str]) -> bytes:
    """A shopper with a few recent visits."""
    row = np.zeros(1, dtype=PACKED_DTYPE)
    row["version"], row["as_of_us"] = PACKED_SCHEMA_VERSION, as_of_us
    row["profile_ids"][0, :3] = [stable_hash("25-34"), stable_hash("f"), 0]
    row["profile_values"][0] = [170.0, np.nan]
    row["windows"][0] = rng.integers(0, 500, row["windows"].shape[1])
    row["ar"][0] = rng.integers(0, 20, row["ar"].shape[1])
    num = int(rng.integers(0, min(NUM_RECENT, len(product_ids)) + 1))
    row["num_recent"] = num
    for k, product_id in enumerate(rng.permutation(product_ids)[:num]):
        row["recent_products"][0, k] = stable_hash(str(product_id))
        row["recent_ts_us"][0, k] = as_of_us - (k + 1) * 3_600_000_000
        row["recent_values"][0, k] = rng.integers(0, 3000, row["recent_values"].shape[2])
    return bytes(row.tobytes())


def sample_examples(num_rows: int = 200, seed: int = 0) -> Examples:
    """Rows of which some lack a shopper, a frame, a query, a focus, a slate or a plan; a frame decides what is clicked."""
    rng = np.random.default_rng(seed)
    catalogue = sample_catalogue()
    base = empty(num_rows, NUM_PLACES, rng.normal(0.5, 1, (9, 1280)).astype(np.float32), rng.normal(0, 0.05, (6, 512)).astype(np.float32))
    ts_us = START_US + np.arange(num_rows) * 60_000_000
    ids = list(catalogue.product_ids)
    frame_row = rng.integers(-1, 9, num_rows).astype(np.int32)
    slate_rows = np.stack([rng.permutation(NUM_PRODUCTS)[:NUM_PLACES] for _ in range(num_rows)]).astype(np.int32)
    slate_rows[rng.random(num_rows) < 0.1, 3:] = -1
    slate_rows[rng.random(num_rows) < 0.05] = -1
    wanted = (frame_row % 4 * 3)[:, None]
    click = ((slate_rows >= wanted) & (slate_rows < wanted + 3) & (rng.random(slate_rows.shape) < 0.6)).astype(np.float32)
    observed = (slate_rows >= 0) & (rng.random(slate_rows.shape) < 0.4)
    rows = dataclasses.replace(
        base,
        request_id=np.array([f"r-{i:05d}" for i in range(num_rows)], dtype=object),
        session_id=np.array([f"s-{i:05d}" for i in range(num_rows)], dtype=object),
        shopper_key=np.array([f"k-{i % 20}" for i in range(num_rows)], dtype=object),
        ts_us=ts_us,
        split=temporal_split(ts_us, tiny().train),
        packed=np.array([packed_row(rng, int(t) - 60_000_000, ids) if rng.random() < 0.7 else None for t in ts_us], dtype=object),
        frame_row=frame_row,
        query_row=rng.integers(-1, 6, num_rows).astype(np.int32),
        focus_row=rng.integers(-1, NUM_PRODUCTS, num_rows).astype(np.int32),
        device=rng.choice(np.array(["none", "ar", "ar+front"], dtype=object), num_rows),
        channel=rng.choice(np.array(["", "app", "web"], dtype=object), num_rows),
        hour=rng.integers(0, 24, num_rows).astype(np.int8),
        slate_rows=slate_rows,
        click=click,
        purchase=click * (rng.random(click.shape) < 0.3),
        interest_observed=observed,
        interest=np.where(observed, 0.2 + 0.6 * click, np.nan).astype(np.float32),
        plan_row=np.where(rng.random(num_rows) < 0.6, rng.integers(0, NUM_PRODUCTS, num_rows), -1).astype(np.int32),
    )
    return _with_plans(rows, catalogue, rng)


def _with_plans(rows: Examples, catalogue: Catalogue, rng: np.random.Generator) -> Examples:
    """Legal random plans of 1 to MAX_STEPS steps for the rows with a product in view; targets imitate them."""
    num = len(rows)
    steps, outcomes = np.full((num, MAX_STEPS), -1, dtype=np.int8), np.full((num, MAX_STEPS), -1, dtype=np.int8)
    base = catalogue.grammar_base(rows.plan_row, rows.device)
    for i in np.flatnonzero(rows.plan_row >= 0):
        for k in range(int(rng.integers(1, MAX_STEPS + 1))):
            allowed = np.flatnonzero(allowed_next(base[i : i + 1], steps[i : i + 1], k)[0])
            if len(allowed) == 0:
                break
            steps[i, k], outcomes[i, k] = rng.choice(allowed), rng.integers(0, 3)
            if rng.random() < 0.1:
                outcomes[i, k] = OUTCOME_INDEX["left"]
                break
    there = steps >= 0
    view_ms = np.where(there, rng.gamma(2, 2000, steps.shape), 0).astype(np.float32)
    gestures = np.where(there, rng.integers(0, 5, steps.shape), 0).astype(np.int16)
    targets: NDArray[np.float32] = ((steps[:, :, None] == np.arange(NUM_STEPS)) & there[:, :, None]).astype(np.float32)
    return dataclasses.replace(rows, steps=steps, outcomes=outcomes, view_ms=view_ms, gestures=gestures, targets=targets)


def sample_config(**model: object) -> Config:
    """`tiny` with a small model; fields of ModelConfig by keyword."""
    config = tiny()
    shape = ModelConfig.model_validate({**config.train.model.model_dump(), **model})
    return config.model_copy(update={"train": config.train.model_copy(update={"model": shape})})
