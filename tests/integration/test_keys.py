"""The verbs of keys and forgetting on a home with a lake, features, an inbox and examples."""

import json
from pathlib import Path

import polars as pl
import pytest
from byte_search import found_in
from click.testing import CliRunner, Result
from event_frames import at
from event_logs import click, write_log
from event_logs import ingest as take
from model_samples import sample_examples

from guidelens.config import Home
from guidelens.data.inbox import Inbox
from guidelens.data.key_files import add_key
from guidelens.data.lake.lake import Lake
from guidelens.data.lake.tables import to_table
from guidelens.data.pseudonyms import Pseudonymizer
from guidelens.features import Features
from guidelens.presets import tiny
from guidelens.schemas.events import Event
from guidelens.schemas.tables import TEXT_DIM, Table
from pipelines import forget, keys, materialize
from pipelines.fit_parts import EXAMPLES

CONFIG = tiny()


def verb(home: Home, *arguments: str) -> Result:
    return CliRunner().invoke(keys.command, [*arguments, "--home", str(home.root)])


@pytest.fixture
def stocked(home: Home, tmp_path: Path) -> Home:
    """A product, two shoppers with a session each (one a login on a device), features of them, a waiting event and a run's examples."""
    lake = Lake(home.lake_uri)
    products = pl.DataFrame([{"product_id": "p", "title": "t", "category": "c", "text_embedding": [0.1] * TEXT_DIM, "known_ts": at(0)}])
    lake.commit(lake.manifest(), lake.write(Table.PRODUCTS, to_table(Table.PRODUCTS, products)), {})
    pseudonyms = Pseudonymizer.open(home.keys)
    cookie = click("cookie", 1, session_id="v") | {"shopper_id": None, "anonymous_id": "their-cookie"}
    log = [click("a", shopper="shopper-one"), click("b", shopper="shopper-two"), click("c", 2, shopper="shopper-one", anonymous_id="their-cookie"), cookie]
    log += [click("q", shopper="shopper-one") | {"type": "?"}]
    take(lake, [write_log(tmp_path / "e.jsonl", [*log, b'{"said by shopper-one'])], pseudonyms=pseudonyms)
    materialize.run(home, CONFIG)
    Inbox(home.inbox).append([pseudonyms.pseudonymize(Event.model_validate(click("w", shopper="shopper-one", anonymous_id="their-cookie")))])
    (home.work / "run").mkdir(parents=True)
    sample_examples(3).save(home.work / "run" / EXAMPLES)
    return home


def test_a_rotation_leaves_no_old_name_but_in_the_inbox_and_features_under_the_new_one(stocked: Home) -> None:
    old = Pseudonymizer.open(stocked.keys)
    names = [old.key("shopper-one"), old.key("shopper-two"), old.key("their-cookie", anonymous=True)]
    features = Features(stocked, CONFIG.features)
    row = features.online().shopper(names[1])
    result = verb(stocked, "rotate")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout.splitlines()[-1])
    assert (said["carried"], said["examples"], said["shoppers"]) == ({"events": 4, "quarantine": 1}, 1, True)
    assert {name.split("/")[0] for name in found_in(stocked.root, names)} == {"inbox"}
    new = Pseudonymizer.open(stocked.keys)
    assert features.online().shopper(new.key("shopper-two")) == row is not None
    listed = json.loads(verb(stocked, "list").stdout.splitlines()[-1])
    assert (listed["keys"], listed["lake_key"]) == ([old.key_id, new.key_id], new.key_id)


def test_a_key_that_was_made_and_not_applied_is_applied_before_anything_else(stocked: Home) -> None:
    add_key(stocked.keys)
    assert verb(stocked, "rotate").exit_code == 1 or "keys apply" in str(verb(stocked, "rotate").exception)
    assert json.loads(verb(stocked, "apply").stdout.splitlines()[-1])["carried"]["events"] == 4
    again = json.loads(verb(stocked, "apply").stdout.splitlines()[-1])
    assert (again["carried"], again["shoppers"]) == ({}, False)


def test_after_a_rotation_a_forget_leaves_only_the_tombstone(stocked: Home) -> None:
    keys.rotate(stocked, CONFIG)
    pseudonyms = Pseudonymizer.open(stocked.keys)
    devices = pseudonyms.every_key("their-cookie", anonymous=True)
    needles = {"shopper-one", "their-cookie", *pseudonyms.every_key("shopper-one"), *pseudonyms.every_key("shopper-one", anonymous=True), *devices}
    places = {name.split("/")[0] for name in found_in(stocked.root, needles)}
    assert places == {"lake", "feast", "inbox"}
    removed = forget.run(stocked, CONFIG, "shopper-one")
    assert removed.devices == 1
    counted = removed.removed
    assert [counted[place] for place in ("events", "quarantine", "inbox", "examples")] == [3, 2, 1, 0] and counted["features"] >= 3
    (tombstones,) = Lake(stocked.lake_uri).manifest().of(Table.TOMBSTONES)
    assert set(found_in(stocked.root, needles)) == {f"lake/{tombstones.key}"}
    assert set(Lake(stocked.lake_uri).read(Table.TOMBSTONES)["shopper_key"]) == {
        pseudonyms.key("shopper-one"),
        pseudonyms.key("shopper-one", anonymous=True),
        devices[-1],
    }
