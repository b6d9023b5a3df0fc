"""A shop that was ingested, trained, released and served rotates its key and forgets a shopper: nothing anywhere is left of them.

MLflow, the releases and the lake are those of a real run; what a crash and a served graph would have left is put beside them.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from byte_search import found_in
from model_samples import sample_examples
from served_shop import ReleasedShop

from guidelens.config import Home
from guidelens.data.inbox import Inbox
from guidelens.data.lake.lake import Lake
from guidelens.data.prepare import read_log
from guidelens.data.pseudonyms import Pseudonymizer
from guidelens.data.records.sources import IngestSources, Kind
from guidelens.features import Features
from guidelens.schemas.events import Event
from guidelens.schemas.tables import Table
from pipelines import forget, ingest, keys, materialize
from pipelines.fit_parts import EXAMPLES

pytestmark = pytest.mark.usefixtures("ray_cluster")
DEVICE, WORDS = "cookie-of-theirs", "words nobody else said"


def click(name: str, **who: str | None) -> dict[str, object]:
    when = {"event_ts": "2025-09-20T10:00:00Z", "session_id": f"v-{name}", "type": "click", "product_id": "p"}
    return {"event_id": name, **when, **{key: value for key, value in who.items() if value is not None}}


def write(path: Path, *records: dict[str, object] | bytes) -> str:
    path.write_bytes(b"".join((one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n" for one in records))
    return str(path)


def places(home: Home, needles: set[str]) -> set[str]:
    """Where any of them is, by the folder that says what it is."""
    return {"/".join(name.split("/")[:2]) if name.startswith(("lake/", "feast/")) else name.split("/")[0] for name in found_in(home.root, needles)}


def names(home: Home, shopper: str) -> set[str]:
    pseudonyms = Pseudonymizer.open(home.keys)
    return {*pseudonyms.every_key(shopper), *pseudonyms.every_key(shopper, anonymous=True), *pseudonyms.every_key(DEVICE, anonymous=True)}


def left_by_a_crash(home: Home, key: str) -> None:
    """A part that was staged, and a data file that no version names."""
    staged = Path(home.lake_uri) / "_staging" / "20200101T000000-dead" / "parts" / "000000-0000"
    staged.parent.mkdir(parents=True)
    staged.write_bytes(b"part " + key.encode())
    lake = Lake(home.lake_uri)
    held = lake.read_arrow(lake.manifest().of(Table.EVENTS)[0]).slice(0, 1)
    position = held.schema.get_field_index("shopper_key")
    lake.write(Table.EVENTS, held.set_column(position, held.schema.field(position), [[key]]))


def test_after_a_rotation_and_a_forget_no_byte_of_the_shopper_is_left(released_shop: ReleasedShop, tmp_path: Path) -> None:
    home, config, shopper = Home(root=tmp_path / "home"), released_shop.config, released_shop.shopper_id
    shutil.copytree(released_shop.home.root, home.root)
    before = Pseudonymizer.open(home.keys)
    trained_on = {"lake/events", "lake/shoppers", "feast/offline", "feast/online.db", "work"}
    assert places(home, {before.key(shopper)}) >= trained_on - {"feast/offline", "feast/online.db"}
    Inbox(home.inbox).append([before.pseudonymize(Event.model_validate(click("waits", shopper_id=shopper)))])

    done = keys.rotate(home, config)
    now = Pseudonymizer.open(home.keys)
    assert done.shoppers and done.carried["events"] > 0
    assert places(home, {before.key(shopper)}) == {"inbox"}
    assert Features(home, config.features).online().shopper(now.key(shopper)) is not None
    assert materialize.run(home, config).changed_shoppers == 0, "the rotation left nothing to make again"

    mine = click("login", shopper_id=shopper, anonymous_id=DEVICE)
    search = click("search", shopper_id=shopper) | {"type": "search", "query": WORDS}
    broken = json.dumps({"note": f"asked by {shopper}"}).encode()[:-1]
    log = write(tmp_path / "more.jsonl", mine, search, click("cookie", anonymous_id=DEVICE), broken, click("bad", shopper_id=shopper) | {"type": "?"})
    review = write(tmp_path / "reviews.jsonl", {"review_id": "r", "product_id": "p", "shopper_id": shopper, "ts": "2025-09-21T00:00:00Z", "rating": 4})
    more = IngestSources(events=(log,), reviews=review)
    ingest.run(home, config, more)
    materialize.run(home, config)
    left_by_a_crash(home, now.key(shopper))
    (home.work / "a-run").mkdir(parents=True)
    examples = sample_examples(3)
    dataclasses.replace(examples, shopper_key=np.array([now.key(shopper)] * len(examples.shopper_key), object)).save(home.work / "a-run" / EXAMPLES)

    needles = {shopper, WORDS, DEVICE, *names(home, shopper)}
    assert places(home, needles) >= {"lake/events", "lake/quarantine", "lake/queries", "lake/reviews", "lake/shoppers", "lake/_staging", "inbox"}
    removed = forget.run(home, config, shopper)
    assert removed.devices == 1 and min(removed.removed[place] for place in ("events", "quarantine", "queries", "reviews", "inbox", "features")) >= 1
    (tombstones,) = Lake(home.lake_uri).manifest().of(Table.TOMBSTONES)
    assert set(found_in(home.root, needles)) == {f"lake/{tombstones.key}"}

    again = ingest.run(home, config, more)
    assert (again.accepted[Kind.EVENTS], again.accepted[Kind.REVIEWS]) == (0, 0)
    lake = Lake(home.lake_uri)
    assert set(read_log(lake, lake.manifest(), config.train).entities["shopper_key"]).isdisjoint(needles)
    assert set(found_in(home.root, needles)) <= {f"lake/{tombstones.key}", *(f"lake/{file.key}" for file in lake.manifest().of(Table.QUARANTINE))}
