"""No latent of the simulated shop can be reached from a column: neither by its digits nor by its order."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from scipy.stats import rankdata

from guidelens.config import WorldSize
from guidelens.schemas.catalog import Product, Review, Shopper
from guidelens.schemas.events import Event
from guidelens.world import WORLD_V2, World, generate

SIZE = WorldSize(num_products=240, num_shoppers=600, num_sessions=3000, num_frames=240, views_per_product=2, num_days=14, reference_sessions=1000)
REACHED = 0.85
"""|rank correlation| from which on a column gives a latent away; what a shop may rightly guess of its shoppers is told with about .4."""
Row = dict[str, Any]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("latents")
    generate(SIZE, 9, root, parameters=WORLD_V2, num_workers=1, with_photos=False)
    return World.open(root)


def _jsonl(*paths: Path) -> list[Row]:
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def _flat(row: Row) -> Row:
    """Nested fields by their path, lists by their length; the place in the file is a column too."""
    flat: Row = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": one for inner, one in value.items()}
        else:
            flat[name] = len(value) if isinstance(value, list) else value
    return flat


def _columns(rows: list[Row]) -> dict[str, list[Any]]:
    flat = [_flat(row) | {"row": number} for number, row in enumerate(rows)]
    return {name: [row.get(name) for row in flat] for name in {name: None for row in flat for name in row}}


def _strongest(columns: dict[str, list[Any]], latents: dict[str, NDArray[np.float64]]) -> tuple[float, str, str]:
    """The largest |rank correlation| of a column (a text counts by its place in the alphabet) with a latent, over rows where it is known."""
    found = [(0.0, "", "")]
    for column, values in columns.items():
        known = np.array([value is not None for value in values])
        if known.sum() < 50:
            continue
        present = [value for value in values if value is not None]
        ranks = rankdata(
            present if all(isinstance(value, int | float) for value in present) else np.unique([str(value) for value in present], return_inverse=True)[1]
        )
        if np.ptp(ranks) > 0:
            found += [(abs(float(np.corrcoef(ranks, rankdata(latent[known]))[0, 1])), column, name) for name, latent in latents.items()]
    return max(found)


def _product_latents(world: World) -> dict[str, NDArray[np.float64]]:
    products = world._shop.products
    share = products.margin / products.price_minor
    return {"quality": products.quality, "popularity": products.popularity, "phase": products.popularity_phase, "age": products.age_days, "margin share": share}


def _shopper_latents(world: World) -> dict[str, NDArray[np.float64]]:
    shoppers = world._shop.shoppers
    traits = {name: getattr(shoppers, name) for name in ("price_sensitivity", "ar_affinity", "patience", "expertise", "care", "activity")}
    tastes = {f"{name}[{k}]": getattr(shoppers, name)[:, k] for name in ("taste", "taste_to", "taste2", "families") for k in range(8)}
    return traits | tastes


def test_no_catalogue_column_gives_a_product_away(world: World) -> None:
    columns = _columns(_jsonl(world.root / "catalogue.jsonl"))
    latents = _product_latents(world)
    assert len(columns) > 20
    assert _strongest(columns, latents)[0] < REACHED
    leak = columns | {"score": np.round(np.exp(latents["quality"]), 1).tolist()}
    assert _strongest(leak, latents)[1:] == ("score", "quality"), "a planted leak is found"
    assert _strongest(leak, latents)[0] > REACHED


def test_no_shopper_column_tells_more_than_a_guess(world: World) -> None:
    columns = _columns(_jsonl(world.root / "shoppers.jsonl"))
    latents = _shopper_latents(world)
    value, column, latent = _strongest(columns, latents)
    assert 0.3 < value < 0.6, f"{column} and {latent}"
    assert _strongest(columns | {"segment": (latents["care"] > 0).astype(int).tolist()}, latents)[1:] == ("segment", "care")


def test_what_is_logged_before_the_first_answer_does_not_tell_the_hidden_state(world: World) -> None:
    events = {
        event["session_id"]: event for event in _jsonl(*sorted((world.root / "events").iterdir())) if event["type"] == "guide_step" and event["step_index"] == 0
    }
    rows = [events.get(name, {}) for name in world.ar_session_ids]
    assert sum(map(bool, rows)) > 500
    start = world._ar["start"].astype(np.float64)
    states = {f"start[{k}]": start[:, k] for k in range(start.shape[1]) if np.ptp(start[:, k])}
    assert len(states) > 3
    value, column, latent = _strongest(_columns(rows), states)
    assert value < 0.6, f"{column} and {latent}"


def test_files_hold_the_contracts_fields_and_no_digits_of_a_latent(world: World) -> None:
    root = world.root
    fields = {"catalogue.jsonl": Product, "shoppers.jsonl": Shopper, "reviews.jsonl": Review, "withdrawals.jsonl": Shopper}
    for name, contract in fields.items():
        assert {field for row in _jsonl(root / name) for field in row} <= set(contract.model_fields)
    events = sorted((root / "events").iterdir())
    assert {field for row in _jsonl(*events) for field in row} <= set(Event.model_fields)
    written = (path.read_text() for path in (*(root / name for name in fields), *events))
    numbers = {f"{whole}.{digits}" for text in written for whole, digits in re.findall(r"(\d+)\.(\d{9})", text)}
    assert len(numbers) > 10_000, "propensities are told in full"
    for latent in (*_product_latents(world).values(), *_shopper_latents(world).values()):
        assert not numbers & {f"{value:.10f}"[:-1] for value in np.abs(latent)[np.abs(latent) > 0.1]}


def test_truth_lies_apart(world: World) -> None:
    """What a shop brings is the root's own files and events/; a truth among them could be ingested by mistake."""
    brought = [path for path in world.root.rglob("*") if path.is_file() and world.root / "truth" not in path.parents]
    assert {path.name for path in brought if path.parent == world.root} == {"catalogue.jsonl", "shoppers.jsonl", "reviews.jsonl", "withdrawals.jsonl"}
    assert {path.parent.name for path in brought} == {world.root.name, "events"}
    assert pl.scan_parquet(world.root / "truth" / "trouble" / "*.parquet").collect().height > 0
