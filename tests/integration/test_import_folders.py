"""`guidelens catalogue import-folders` through a real ingest: what enters the lake, what is quarantined, what is held out."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from guidelens import presets
from guidelens.config import Home
from guidelens.data.lake.lake import Lake
from guidelens.data.records.sources import Kind
from guidelens.schemas.tables import Table
from pipelines import import_folders

pytestmark = pytest.mark.usefixtures("ray_cluster")
CONFIG = presets.load("tiny", seed=7)
PHOTOS_EACH = 5


def photo(seed: int) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)).resize((230, 230)).save(sink, "JPEG")
    return sink.getvalue()


def test_folders_become_a_catalogue_with_labelled_photos_and_a_held_out_part(home: Home, tmp_path: Path) -> None:
    root, labels, uri = tmp_path / "shop", tmp_path / "held.csv", str(tmp_path / "lake")
    for number, folder in enumerate(("Fruit/Lemon", "水果/红 苹果 🍎", "tea, green")):
        (root / folder).mkdir(parents=True)
        for view in range(PHOTOS_EACH):
            (root / folder / f"{view}.jpg").write_bytes(photo(10 * number + view))
    (root / "tea, green" / "bad.png").write_bytes(b"no picture")
    done = import_folders.run(home, CONFIG, root, uri, labels)
    assert done.accepted == {Kind.CATALOGUE: 3, Kind.PHOTOS: 3 * PHOTOS_EACH - done.held_out}
    assert done.quarantined[Kind.PHOTOS] == 1

    with labels.open(newline="") as lines:
        held = {row["path"]: row["product_id"] for row in csv.DictReader(lines)}
    lake = Lake(uri, home.s3)
    photos = lake.read(Table.PHOTOS)
    assert 0 < len(held) == done.held_out
    assert not held.keys() & set(photos["path"])
    assert set(held.values()) <= set(photos["product_id"]) == {"Lemon", "红 苹果 🍎", "tea, green"}
    assert photos["thumbnail"].null_count() == 0, "what a tuned recognizer learns from"

    again = import_folders.run(home, CONFIG, root, uri, labels)
    assert (again.known, again.accepted[Kind.PHOTOS], again.held_out) == (3, 0, done.held_out)
