"""The quarantine verbs on a lake written by hand."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner

from guidelens.data.lake.lake import Lake
from guidelens.schemas.tables import SCHEMAS, Table
from pipelines import quarantine

REFUSED = [("catalogue", "price_minor.int_parsing", b"12.50"), ("photos", "frame_type", b"\x1b]0;owned\x07 \xff GIF"), ("photos", "frame_type", None)]


@pytest.fixture
def home(tmp_path: Path) -> str:
    lake = Lake(str(tmp_path / "lake"))
    rows = [
        {"record_sha256": str(number), "kind": kind, "source": f"/shop/{kind}", "offset": number, "rule": rule, "message": "no", "raw": raw}
        for number, (kind, rule, raw) in enumerate(REFUSED)
    ]
    lake.commit(lake.manifest(), lake.write(Table.QUARANTINE, pa.Table.from_pylist(rows, schema=SCHEMAS[Table.QUARANTINE])), {})
    return str(tmp_path)


def test_list_counts_by_kind_and_rule(home: str) -> None:
    found = json.loads(CliRunner().invoke(quarantine.command, ["list", "--home", home]).stdout)
    assert found["records"] == 3
    assert [(group["rule"], group["records"]) for group in found["groups"]] == [("price_minor.int_parsing", 1), ("frame_type", 2)]


def test_show_gives_originals_and_sends_a_terminal_nothing_it_would_obey(home: str) -> None:
    result = CliRunner().invoke(quarantine.command, ["show", "--kind", "photos", "--home", home])
    assert [record["raw"] for record in json.loads(result.stdout)["records"]] == ["\x1b]0;owned\x07 \\xff GIF", None]
    assert r"\x1b]0;owned\x07 \xff GIF" in result.stderr
    assert result.stderr.replace("\n", "").isprintable()


def test_show_stops_at_the_limit_and_looks_where_asked(home: str) -> None:
    result = CliRunner().invoke(quarantine.command, ["show", "--source", "/shop", "--rule", "frame_type", "--limit", "1", "--home", home])
    assert [record["offset"] for record in json.loads(result.stdout)["records"]] == [1]
