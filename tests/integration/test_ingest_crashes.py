"""The verbs as a shop runs them, with a real Ray, killed: the driver, which is started again, or a worker, whose work Ray gives to another."""

import os
import random
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from event_logs import PSEUDONYMS, click, ingest, write_log

from guidelens.config import Home, IngestConfig
from guidelens.data.inbox import Inbox
from guidelens.data.lake.digest import Digest, table_digest
from guidelens.data.lake.lake import Lake
from guidelens.data.privacy.forgetting import Person, forget_in_lake
from guidelens.schemas.events import Event
from guidelens.schemas.tables import Table

ROOT = Path(__file__).parents[2]
DRILL = bool(os.environ.get("GUIDELENS_DRILL"))
SETTINGS = ("ingest.event_chunk_bytes=400000", "ingest.event_file_rows=1500", "ingest.event_ids_per_task=3000")
CONFIG = IngestConfig(event_chunk_bytes=400_000, event_file_rows=1500, event_ids_per_task=3000)
WORKERS_POINTS = ("staging.part_written", "ids.before_file", "ids.after_file", "data.before_file", "data.after_file", "quarantine.before_file")
DRIVERS_POINTS = ("staging.done", "manifest.before", "create.written", "manifest.after", "staging.before_removal", "staging.after_removal")
OTHER_VERBS = ("inbox.sealed", "inbox.committed", "inbox.removed", "rewrite.committed", "rewrite.history_replaced")
FORGOTTEN = "s-3"


def run(verb: list[str], home: Home, crash: str | None, mark: Path) -> int:
    """The verb's exit code. What a killed driver's Ray left in /tmp is removed."""
    crashing = {} if crash is None else {"GUIDELENS_CRASH_AT": f"{crash}:1:{mark}"}
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")} | {"PYTHONPATH": f"{ROOT / 'platform'}:{ROOT}"} | crashing
    line = [sys.executable, "-m", "pipelines.cli", *verb, "--home", str(home.root)]
    process = subprocess.Popen(line, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    code = process.wait(300)
    for session in Path("/tmp").glob(f"gl-*/ray/session_*_{process.pid}"):
        shutil.rmtree(session.parents[1], ignore_errors=True)
    return code


class Shop:
    """A log above what the driver does alone, an inbox, and what the lake must hold after each verb."""

    def __init__(self, folder: Path) -> None:
        rng = random.Random(7)
        records = [click(f"e-{rng.randrange(6000)}", 3 * rng.random(), f"s-{rng.randrange(5)}") for _ in range(9000)]
        self.log = write_log(folder / "log.jsonl", [*records, *[click("bad", type="?")] * 20])
        self.waiting = [PSEUDONYMS.pseudonymize(Event.model_validate(click(f"i-{k % 30}", shopper=f"s-{k % 4}"))) for k in range(40)]
        assert Path(self.log).stat().st_size > 2**20
        lake = Lake(str(folder / "calm"))
        ingest(lake, [self.log], CONFIG)
        self.after_ingest = digests(lake)
        Inbox(folder / "inbox").append(self.waiting)
        ingest(lake, [str(next((folder / "inbox").glob("*.jsonl")))], CONFIG, from_inbox=True)
        self.after_drain = digests(lake)
        forget_in_lake(lake, Person(FORGOTTEN, frozenset({PSEUDONYMS.key(FORGOTTEN), PSEUDONYMS.key(FORGOTTEN, anonymous=True)})), lake_now())
        self.after_forget = digests(lake)


def lake_now() -> datetime:
    return datetime(2026, 6, 1, tzinfo=UTC)


def digests(lake: Lake) -> tuple[Digest, int]:
    """Of the events; and how many records are in quarantine."""
    return table_digest(lake, Table.EVENTS), lake.manifest().rows(Table.QUARANTINE)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def keyed(home: Home) -> Home:
    home.keys.mkdir(parents=True)
    (home.keys / "shopper.key").write_bytes(b"k" * 32)
    return home


@pytest.mark.drill
@pytest.mark.parametrize("point", WORKERS_POINTS if DRILL else ["data.after_file"])
def test_a_killed_worker_costs_nothing_but_time(keyed: Home, shop: Shop, tmp_path: Path, point: str) -> None:
    verb = ["ingest", "--preset", "tiny", "--events", shop.log, *(part for setting in SETTINGS for part in ("--set", setting))]
    assert run(verb, keyed, point, tmp_path / "mark") == 0
    assert (tmp_path / "mark").exists()
    assert digests(Lake(keyed.lake_uri)) == shop.after_ingest


@pytest.mark.drill
@pytest.mark.parametrize("point", DRIVERS_POINTS if DRILL else ["manifest.after"])
def test_a_killed_driver_started_again_ends_where_an_undisturbed_one_does(keyed: Home, shop: Shop, tmp_path: Path, point: str) -> None:
    verb = ["ingest", "--preset", "tiny", "--events", shop.log, *(part for setting in SETTINGS for part in ("--set", setting))]
    assert run(verb, keyed, point, tmp_path / "mark") == -9
    assert run(verb, keyed, None, tmp_path / "mark") == 0
    assert digests(Lake(keyed.lake_uri)) == shop.after_ingest


@pytest.mark.drill
@pytest.mark.parametrize("point", OTHER_VERBS if DRILL else OTHER_VERBS[-1:])
def test_killed_drains_and_forgets_end_where_undisturbed_ones_do(keyed: Home, shop: Shop, tmp_path: Path, point: str) -> None:
    ingest(Lake(keyed.lake_uri), [shop.log], CONFIG)
    Inbox(keyed.inbox).append(shop.waiting)
    expected = shop.after_forget if point.startswith("rewrite") else shop.after_drain
    if point.startswith("rewrite"):
        assert run(["ingest", "--preset", "tiny"], keyed, None, tmp_path / "mark") == 0
    verb = ["forget", FORGOTTEN] if point.startswith("rewrite") else ["ingest", "--preset", "tiny"]
    assert run(verb, keyed, point, tmp_path / "mark") == -9
    assert run(verb, keyed, None, tmp_path / "mark") == 0
    assert digests(Lake(keyed.lake_uri)) == expected
