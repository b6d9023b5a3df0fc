"""A finished run without the minutes of training: a small lake, a guide model with drawn weights, a fitted recognizer, in MLflow.

Everything is the real thing but the weights, which nobody trained; so shares and values mean nothing here, only the machinery.
"""

import dataclasses
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import torch
from numpy.typing import NDArray

from guidelens import presets
from guidelens.config import FEATURE_SERVICE, Config, Home
from guidelens.data.examples import Examples, empty, temporal_split
from guidelens.data.images.decoding import thumbnail
from guidelens.data.lake.lake import Lake
from guidelens.data.visits import InterestMedians
from guidelens.encoders.text import load_text_encoder
from guidelens.inference.guide_files import GuideHeader, save_guide
from guidelens.inference.search.files import write_search
from guidelens.inference.search.lexicon import Lexicon
from guidelens.inference.search_texts import build_text_index
from guidelens.models.guide import GuideModel, GuideSpec
from guidelens.models.items import Catalogue
from guidelens.models.recognizer_fit import Backgrounds, fit_recognizer
from guidelens.registry import Registry, flatten_params
from guidelens.schemas.steps import MAX_STEPS, allowed_next
from guidelens.schemas.tables import IMAGE_DIM, SCHEMAS, TEXT_DIM, Table
from pipelines.fit_parts import EXAMPLES, Parts
from pipelines.train import FIT, FitRecord

NUM_PRODUCTS, PHOTOS_EACH, NUM_REQUESTS, PLACES = 12, 6, 400, 5
MODEL_3D = "models/p-01.glb"
NO_EVENTS = "absent: the lake holds no events"


def unit(x: NDArray[np.float64]) -> NDArray[np.float32]:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def fill_lake(home: Home) -> Lake:
    """12 products in 3 families, each with a catalogue image and labelled photos whose embeddings cluster by product."""
    rng = np.random.default_rng(0)
    lake = Lake(home.lake_uri)
    centres = np.abs(rng.normal(size=(NUM_PRODUCTS, IMAGE_DIM)))
    picture = cv2_jpeg()
    products = pl.DataFrame(
        {
            "product_id": [f"p-{i:02d}" for i in range(NUM_PRODUCTS)],
            "title": [f"Thing {i}" for i in range(NUM_PRODUCTS)],
            "category": [f"family {i % 3}/kind {i}" for i in range(NUM_PRODUCTS)],
            "price_minor": [1000 + 100 * i for i in range(NUM_PRODUCTS)],
            "try_on": ["room" if i % 3 == 0 else "face" if i % 3 == 1 else "none" for i in range(NUM_PRODUCTS)],
            "model_3d": [MODEL_3D if i == 1 else None for i in range(NUM_PRODUCTS)],
            "text_embedding": unit(rng.normal(size=(NUM_PRODUCTS, TEXT_DIM))).tolist(),
        }
    )
    photos = [
        {
            "path": f"{i}-{k}.jpg", "sha256": f"{i}-{k}", "product_id": f"p-{i:02d}", "is_catalogue_image": k == 0, "width": 32, "height": 32,
            "embedding": np.abs(centres[i] + rng.normal(0, 0.35, IMAGE_DIM)).astype(np.float32).tolist(), "thumbnail": picture if k == 0 else None,
        }
        for i in range(NUM_PRODUCTS)
        for k in range(PHOTOS_EACH + 1)
    ]  # fmt: skip
    tables = {Table.PRODUCTS: products.to_dicts(), Table.PHOTOS: photos}
    model = pa.Table.from_pylist([{"path": MODEL_3D, "glb": box_glb(), "row_sha256": "0"}], schema=SCHEMAS[Table.MODELS])
    files = [file for table, rows in tables.items() for file in lake.write(table, arrow(table, rows))]
    lake.commit(lake.manifest(), [*files, *lake.write(Table.MODELS, model)], {})
    return lake


def box_glb() -> bytes:
    import trimesh

    data: bytes = trimesh.Scene(trimesh.creation.box((0.3, 0.2, 0.1))).export(file_type="glb")
    return data


def cv2_jpeg() -> bytes:
    return thumbnail(np.full((40, 40, 3), 128, np.uint8))


def arrow(table: Table, rows: list[dict[str, object]]) -> pa.Table:
    return pa.Table.from_pylist([{name: row.get(name) for name in SCHEMAS[table].names} for row in rows], schema=SCHEMAS[table])


def item_table(lake: Lake) -> pl.DataFrame:
    photos = lake.read(Table.PHOTOS, ["product_id", "is_catalogue_image", "embedding"]).filter(pl.col("is_catalogue_image"))
    images = photos.select("product_id", pl.col("embedding").alias("image_embedding"))
    return lake.read(Table.PRODUCTS).join(images, on="product_id", how="left").sort("product_id")


def log_of(catalogue: Catalogue, config: Config) -> Examples:
    """Slates with about one click each, and legal plans with propensities."""
    rng = np.random.default_rng(1)
    base = empty(NUM_REQUESTS, PLACES)
    ts_us = np.arange(NUM_REQUESTS, dtype=np.int64) * 3_600_000_000 + 1_700_000_000_000_000
    slates = np.argsort(rng.random((NUM_REQUESTS, NUM_PRODUCTS)), axis=1)[:, :PLACES].astype(np.int32)
    click = (rng.random((NUM_REQUESTS, PLACES)) < 0.25).astype(np.float32)
    plan_row = rng.integers(0, NUM_PRODUCTS, NUM_REQUESTS).astype(np.int32)
    devices = np.array(["none", "ar", "ar+front"], dtype=object)[rng.integers(0, 3, NUM_REQUESTS)]
    steps, propensity = legal_plans(catalogue.grammar_base(plan_row, devices), rng)
    there = steps >= 0
    return dataclasses.replace(
        base,
        request_id=np.array([f"r-{i}" for i in range(NUM_REQUESTS)], dtype=object),
        session_id=np.array([f"s-{i}" for i in range(NUM_REQUESTS)], dtype=object),
        shopper_key=np.array([f"k-{i % 60}" for i in range(NUM_REQUESTS)], dtype=object),
        ts_us=ts_us,
        split=temporal_split(ts_us, config.train),
        focus_row=plan_row,
        device=devices,
        slate_rows=slates,
        click=click,
        purchase=click * (rng.random((NUM_REQUESTS, PLACES)) < 0.2),
        interest=np.where(click > 0, rng.random((NUM_REQUESTS, PLACES)), np.nan).astype(np.float32),
        interest_observed=click > 0,
        plan_row=plan_row,
        steps=steps,
        outcomes=np.where(there, rng.integers(0, 3, steps.shape), -1).astype(np.int8),
        step_propensity=propensity,
        returns=np.where(there, rng.exponential(100, steps.shape), 0).astype(np.float32),
    )


def without_plans(log: Examples) -> Examples:
    """The log of a shop that has slates and clicks, and no guide yet."""
    none = empty(len(log))
    blank = {name: getattr(none, name) for name in ("plan_row", "steps", "outcomes", "step_propensity", "returns")}
    return dataclasses.replace(log, **blank)


def legal_plans(base: NDArray[np.bool_], rng: np.random.Generator) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Three steps each, drawn uniformly from what the grammar allows."""
    steps = np.full((len(base), MAX_STEPS), -1, dtype=np.int8)
    propensity = np.ones((len(base), MAX_STEPS), dtype=np.float32)
    for length in range(3):
        allowed = allowed_next(base, steps, length)
        live = allowed.any(axis=1)
        drawn = np.where(allowed, rng.random(allowed.shape), -1).argmax(axis=1)
        steps[live, length] = drawn[live]
        propensity[live, length] = 1 / allowed.sum(axis=1)[live]
    return steps, propensity


def finish_run(home: Home, *, events: bool = True, plans: bool = True, photos: bool = True, seed: int = 0) -> str:
    """A FINISHED run of the home's lake, which is filled on first use."""
    lake = Lake(home.lake_uri) if (home.root / "lake").exists() else fill_lake(home)
    config = presets.tiny().model_copy(update={"seed": seed})
    registry = Registry(home)
    run_id = registry.start_run("train", flatten_params(config), {"lake": lake.uri})
    fit_dir = home.work / run_id / FIT
    fit_dir.mkdir(parents=True)
    items = item_table(lake)
    items.write_parquet(fit_dir / "items.parquet")
    (fit_dir / "popularity.json").write_text('{"popularity": ' + str([1.0] * NUM_PRODUCTS) + "}")
    build_text_index(items).save(fit_dir / "text_index")
    write_search(fit_dir, items, np.ones(NUM_PRODUCTS, np.float32), Lexicon.load(), load_text_encoder().embed)
    if photos:
        save_recognizer(lake, fit_dir, config)
    catalogue = Catalogue.of_table(items)
    if events:
        log = log_of(catalogue, config)
        (log if plans else without_plans(log)).save(home.work / run_id / EXAMPLES)
        for number, name in enumerate(("guide", "recommendation", "interest", "plan")):
            save_model(fit_dir, name, config, seed + number)
        for epoch in range(2):
            registry.log_metrics(run_id, {f"guide.{part}.{term}": 1.0 / (epoch + 1) for part in ("train", "val") for term in ("click", "plan")}, step=epoch)
    manifest = lake.manifest()
    state, seen = "trained" if events else NO_EVENTS, "trained" if photos else "absent: no photos"
    missing = (*(() if events else ("events",)), *(() if photos else ("photos",)))
    record = FitRecord(
        run_id=run_id, parts=Parts(recognizer=seen, guide=state, controls=state), missing=missing, lake=lake.uri,
        manifest=manifest.version, snapshot_sha256=manifest.snapshot_sha256, home=str(home.root), feature_service=FEATURE_SERVICE,
        num_products=NUM_PRODUCTS, seed=seed, config=config,
    )  # fmt: skip
    (fit_dir / "fit.json").write_text(record.model_dump_json())
    registry.log_folder(run_id, fit_dir, FIT)
    registry.finish(run_id)
    return run_id


def save_model(fit_dir: Path, name: str, config: Config, seed: int) -> None:
    torch.manual_seed(seed)
    model = GuideModel(config.train.model, GuideSpec(num_products=NUM_PRODUCTS))
    header = GuideHeader(model=config.train.model, spec=model.spec, medians=InterestMedians(), lambdas={**config.train.lambdas})
    save_guide(model, header, fit_dir if name == "guide" else fit_dir / "controls", name)


def save_recognizer(lake: Lake, fit_dir: Path, config: Config) -> None:
    photos = lake.read(Table.PHOTOS, ["path", "product_id", "is_catalogue_image", "embedding"]).sort("path")
    rows = np.array([int(name[2:]) for name in photos["product_id"].to_list()])
    walls = Backgrounds(np.full((20, IMAGE_DIM), 0.5, np.float32) + np.random.default_rng(2).random((20, IMAGE_DIM)).astype(np.float32), np.arange(20) % 4)
    embeddings = photos["embedding"].cast(pl.Array(pl.Float32, IMAGE_DIM)).to_numpy()
    fit_recognizer(embeddings, rows, photos["is_catalogue_image"].to_numpy(), NUM_PRODUCTS, config.train.recognizer, 0, walls).save(fit_dir)
