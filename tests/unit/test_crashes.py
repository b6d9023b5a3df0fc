"""kill -9 at every named point, then once more: nothing lost, nothing twice, the same contents as if nothing had happened."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

import boto3
import pytest
from crashing import FORGOTTEN, Step, sent
from event_logs import PSEUDONYMS, click, troubled, write_log
from moto.server import ThreadedMotoServer

from guidelens.config import S3Options
from guidelens.crash_points import POINTS
from guidelens.data.inbox import Inbox
from guidelens.data.lake.digest import Digest, table_digest
from guidelens.data.lake.garbage import collect, orphans
from guidelens.data.lake.lake import Lake
from guidelens.data.lake.staging import STALE_AFTER, remove_stale
from guidelens.errors import GuideLensError
from guidelens.schemas.events import Event
from guidelens.schemas.tables import Table

ROOT = Path(__file__).parents[2]
SEEDS = 50 if os.environ.get("GUIDELENS_DRILL") else 1
LOCAL_POINTS = [point for point in POINTS if point != "put.begun"]
S3_POINTS = [point for point in POINTS if point != "create.written"]
DIGESTED = (Table.EVENTS, Table.QUARANTINE, Table.QUERIES, Table.TOMBSTONES)


class Outcome(NamedTuple):
    """What a lake holds; rows and distinct ids of its events; what of it nothing names; files that still say the forgotten shopper."""

    digests: dict[Table, Digest]
    events: int
    distinct: int
    known_ids: int
    strays: list[str]
    betraying: list[str]


class Crasher:
    """The forking process. Remembers exit codes: -9 for a kill, 0 for a step that ended, 1 for one that failed."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        assert process.stdin and process.stdout
        self._in: IO[str] = process.stdin
        self._out: IO[str] = process.stdout

    def take(self, step: Step) -> int:
        self._in.write(sent(step) + "\n")
        self._in.flush()
        return int(self._out.readline())


@pytest.fixture(scope="module")
def crasher() -> Iterator[Crasher]:
    path = os.pathsep.join([str(ROOT / "platform"), str(ROOT), str(ROOT / "tests")])
    line = [sys.executable, "-W", "ignore", "-m", "crashing"]
    process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path}, cwd=ROOT)
    yield Crasher(process)
    assert process.stdin and process.stdout
    process.stdin.close()
    process.wait(30)
    process.stdout.close()


def steps(folder: Path, seed: int, lake: str, s3: dict[str, Any]) -> list[Step]:
    """Two logs, the inbox, one log again, small files merged, a shopper forgotten; everything the same for the same seed."""
    rng = random.Random(seed)
    logs = []
    for name in "ab":
        logs.append(write_log(folder / f"{name}.jsonl", troubled(rng, rng.randrange(20, 70), 50)))
    inbox = folder / f"inbox-{Path(lake).name}"
    waiting = [PSEUDONYMS.pseudonymize(Event.model_validate(click(f"e-{rng.randrange(80)}", rng.random(), f"s-{rng.randrange(4)}"))) for _ in range(12)]
    Inbox(inbox).append(waiting)
    plan = [("ingest", tuple(logs)), ("drain", (str(inbox),)), ("ingest", (logs[1],)), ("compact", ()), ("forget", ())]
    return [Step(verb=verb, lake=lake, paths=paths, s3=s3) for verb, paths in plan]


def taken(crasher: Crasher, plan: Sequence[Step], point: str | None, nth: int, mark: Path, bug: str | None = None) -> tuple[int, int]:
    """Takes the steps, each again until it ends; how many were killed, and how many failed by themselves."""
    killed = failed = 0
    for step in plan:
        armed = step.model_copy(update={"crash": None if point is None else (point, nth, str(mark)), "bug": bug})
        for _ in range(4):
            code = crasher.take(armed)
            if code == 0:
                break
            killed, failed = killed + (code == -9), failed + (code == 1)
    return killed, failed


def outcome(uri: str, s3: S3Options | None = None) -> Outcome:
    """After the cleaning that time brings: leftovers are old enough to go."""
    lake = Lake(uri, s3)
    later = datetime.now(UTC) + 2 * STALE_AFTER
    remove_stale(lake.store, later)
    collect(lake, orphans(lake, later, later))
    manifest = lake.manifest()
    ids = lake.read(Table.EVENTS, ["event_id"])["event_id"]
    named = {key for version in lake.manifests() for key in version.keys}
    stored = {key for key in lake.store.keys("") if not key.startswith("_manifests/")}
    whose = PSEUDONYMS.key(FORGOTTEN)
    tables = {key: str(lake.read_key(Table(key.split("/")[0]), key).rows()) for key in stored if key.endswith(".parquet")}
    return Outcome(
        {table: table_digest(lake, table) for table in DIGESTED},
        ids.len(),
        ids.n_unique(),
        sum(file.num_ids for file in manifest.ids_of(Table.EVENTS)),
        sorted(stored ^ named),
        [key for key, text in tables.items() if whose in text and not key.startswith("tombstones")],
    )


def is_whole(found: Outcome, expected: Outcome) -> bool:
    return found.digests == expected.digests and found.events == found.distinct == found.known_ids and not found.strays and not found.betraying


@pytest.fixture(scope="module")
def undisturbed(crasher: Crasher, tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Path, Outcome]]:
    """By seed, the folder of its logs and what a run without a crash makes of them."""
    found = {}
    for seed in range(SEEDS):
        folder = tmp_path_factory.mktemp(f"seed{seed}")
        lake = str(folder / "calm")
        assert taken(crasher, steps(folder, seed, lake, {}), None, 0, folder / "no") == (0, 0)
        found[seed] = (folder, outcome(lake))
        assert is_whole(found[seed][1], found[seed][1]) and found[seed][1].events > 5
    return found


@pytest.mark.drill
@pytest.mark.parametrize("point", LOCAL_POINTS)
def test_a_kill_at_any_point_loses_nothing_and_doubles_nothing(crasher: Crasher, undisturbed: dict[int, tuple[Path, Outcome]], point: str) -> None:
    kills = 0
    for seed, (folder, expected) in undisturbed.items():
        lake = str(folder / point.replace(".", "-"))
        plan = steps(folder, seed, lake, {})
        killed, failed = taken(crasher, plan, point, 1 + seed % 2, folder / f"{point}.mark")
        assert failed == 0 and (killed == 1 or seed % 2)
        kills += killed
        assert is_whole(outcome(lake), expected), f"seed {seed}"
    assert kills >= SEEDS / 2


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, Any]]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    options = {"endpoint_url": f"http://{host}:{port}", "region": "us-east-1", "access_key": "test", "secret_key": "test"}
    client = boto3.client("s3", endpoint_url=options["endpoint_url"], region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")
    client.create_bucket(Bucket="shop")
    client.close()
    yield options
    server.stop()


@pytest.mark.drill
@pytest.mark.parametrize("point", S3_POINTS if os.environ.get("GUIDELENS_DRILL") else ["put.begun", "manifest.after", "rewrite.committed"])
def test_a_kill_at_any_point_over_s3_is_as_harmless(crasher: Crasher, undisturbed: dict[int, tuple[Path, Outcome]], s3: dict[str, Any], point: str) -> None:
    for seed, (folder, expected) in list(undisturbed.items())[:5]:
        lake = f"s3://shop/{seed}/{point}"
        killed, failed = taken(crasher, steps(folder, seed, lake, s3), point, 1, folder / f"{point}.s3mark")
        assert (killed, failed) == (1, 0)
        assert is_whole(outcome(lake, S3Options(**s3)), expected), f"seed {seed}"


@pytest.mark.parametrize(
    ("bug", "point"),
    [
        ("ids are not committed", "manifest.after"),
        ("the manifest comes before the data", "manifest.after"),
        ("segments are removed before the commit", "inbox.sealed"),
    ],
)
def test_the_drill_would_notice(crasher: Crasher, undisturbed: dict[int, tuple[Path, Outcome]], tmp_path: Path, bug: str, point: str) -> None:
    folder, expected = undisturbed[0]
    lake = str(folder / f"{tmp_path.name}")
    taken(crasher, steps(folder, 0, lake, {}), point, 1, tmp_path / "mark", bug)
    try:
        noticed = not is_whole(outcome(lake), expected)
    except GuideLensError:
        noticed = True
    assert noticed
