"""Refused records come back through the command line: under other field names, after a contract was met, never twice."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner

from guidelens import presets
from guidelens.config import Home
from guidelens.data.lake.lake import Lake
from guidelens.data.pseudonyms import Pseudonymizer
from guidelens.data.records.sources import IngestSources, Kind
from guidelens.schemas.tables import Table
from pipelines import ingest, quarantine

pytestmark = pytest.mark.usefixtures("ray_cluster")
TIME = "2026-01-01T00:00:00Z"


def jsonl(path: Path, *records: dict[str, Any] | bytes) -> str:
    path.write_bytes(b"".join((record if isinstance(record, bytes) else json.dumps(record).encode()) + b"\n" for record in records))
    return str(path)


def event(number: int, **more: Any) -> dict[str, Any]:
    found = {"event_id": f"e-{number}", "event_ts": TIME, "shopper_id": "s-1", "session_id": "x", "type": "click", "product_id": "p-1"} | more
    return {name: value for name, value in found.items() if value is not ...}


def verb(home: Home, *arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(quarantine.command, [*arguments, "--home", str(home.root)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    last: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return last


def replay(home: Home, *arguments: str) -> dict[str, Any]:
    return verb(home, "replay", "--preset", "tiny", *arguments)


@pytest.fixture
def troubled(home: Home, tmp_path: Path) -> Home:
    """Two events under another field name (one of them known already), one that stays bad, one that is no JSON, two products under another name."""
    renamed = [event(1, shopper_id=..., shopperId="secret-1"), event(2, shopper_id=..., shopperId="secret-2", query="红色")]
    lines = [event(1, shopper_id="secret-1"), *renamed, event(3, type="nonsense", shopper_id="secret-3"), b"{broken"]
    catalogue = tmp_path / "catalogue.csv"
    catalogue.write_text('product_id,name,category\np-1,"Chair, red",home\np-2,桌子,home\n', encoding="utf-8")
    sources = IngestSources(catalogue=str(catalogue), events=(jsonl(tmp_path / "events.jsonl", *lines),))
    done = ingest.run(home, presets.load("tiny"), sources)
    assert (done.quarantined[Kind.EVENTS], done.quarantined[Kind.CATALOGUE]) == (4, 2)
    assert done.remarks[Kind.EVENTS] == {"unknown field shopperId": 2, "product not in the catalogue": 1}
    return home


def test_the_message_names_the_likely_field_and_the_list_counts_by_source(troubled: Home, tmp_path: Path) -> None:
    shown = verb(troubled, "show", "--kind", "catalogue", "--limit", "1")["records"]
    assert json.loads(shown[0]["raw"]) == {"product_id": "p-1", "name": "Chair, red", "category": "home"}
    messages = [record["message"] for record in verb(troubled, "show", "--kind", "events", "--rule", "record.value_error")["records"]]
    hint = "the record has shopperId, which is no field: if it is shopper_id, ingest with --rename shopperId=shopper_id"
    assert len(messages) == 2 and all(hint in message for message in messages)
    groups = verb(troubled, "list")["groups"]
    assert {(group["kind"], Path(group["source"]).name, group["rule"], group["records"]) for group in groups} == {
        ("catalogue", "catalogue.csv", "title.missing", 2),
        ("events", "events.jsonl", "record.value_error", 2),
        ("events", "events.jsonl", "type.enum", 1),
        ("events", "events.jsonl", "json.invalid", 1),
    }


def test_a_replay_takes_in_what_is_good_now_exactly_once(troubled: Home, tmp_path: Path) -> None:
    nothing = replay(troubled)
    assert (nothing["released"], nothing["left"]) == ({"catalogue": 0, "events": 0}, {"catalogue": 2, "events": 4})

    done = replay(troubled, "--rename", "shopperId=shopper_id", "--rename", "name=title")
    assert done["tried"] == {"catalogue": 2, "events": 4}
    assert (done["released"], done["left"]) == ({"catalogue": 2, "events": 2}, {"catalogue": 0, "events": 2})
    assert (done["accepted"], done["duplicate"], done["forgotten"]) == (
        {"catalogue": 2, "events": 1},
        {"catalogue": 0, "events": 1},
        {"catalogue": 0, "events": 0},
    )

    lake = Lake(troubled.lake_uri)
    events, key = lake.read(Table.EVENTS).sort("event_id"), Pseudonymizer.open(troubled.keys).key
    assert events.select("event_id", "shopper_key", "query").rows() == [("e-1", key("secret-1"), None), ("e-2", key("secret-2"), "红色")]
    assert lake.read(Table.PRODUCTS).sort("product_id")["title"].to_list() == ["Chair, red", "桌子"]
    assert sorted(lake.read(Table.QUARANTINE)["rule"]) == ["json.invalid", "type.enum"]
    assert lake.manifest().version == done["manifest"]
    assert lake.manifest(done["manifest"] - 1).rows(Table.QUARANTINE) == 6, "one commit took them out and took them in"

    again = replay(troubled, "--rename", "shopperId=shopper_id")
    assert (again["tried"], again["released"]) == ({"events": 2}, {"events": 0})
    assert again["manifest"] == done["manifest"]


def test_what_was_replayed_does_not_come_back_with_its_file(troubled: Home, tmp_path: Path) -> None:
    replay(troubled, "--rename", "shopperId=shopper_id", "--rename", "name=title")
    left = sorted(Lake(troubled.lake_uri).read(Table.QUARANTINE)["record_sha256"])
    again = IngestSources(catalogue=str(tmp_path / "catalogue.csv"), events=(str(tmp_path / "events.jsonl"),))
    ingest.run(troubled, presets.load("tiny"), again)
    assert sorted(Lake(troubled.lake_uri).read(Table.QUARANTINE)["record_sha256"]) == left


def test_only_what_is_asked_for_is_replayed(troubled: Home) -> None:
    done = replay(troubled, "--rename", "shopperId=shopper_id", "--rename", "name=title", "--kind", "events", "--rule", "record.value_error")
    assert (done["tried"], done["released"]) == ({"events": 2}, {"events": 2})
    assert set(Lake(troubled.lake_uri).read(Table.QUARANTINE).filter(pl.col("kind") == "catalogue")["rule"]) == {"title.missing"}


def test_nothing_raw_of_a_shopper_is_kept_on_the_way(troubled: Home) -> None:
    replay(troubled, "--rename", "shopperId=shopper_id")
    kept = [path for path in troubled.root.rglob("*") if path.is_file() and b"secret-" in path.read_bytes()]
    assert kept == []
