"""A following ingest takes in all that comes, whatever fails on the way, and ends when told to."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from event_logs import PSEUDONYMS, click, constant_texts
from kafka_brokers import Brokers

from guidelens import presets
from guidelens.config import Home
from guidelens.data.inbox import Inbox
from guidelens.data.lake.lake import Lake
from guidelens.data.records.sources import IngestSources
from guidelens.errors import ConfigError, InputError, StorageError
from guidelens.schemas.events import Event
from guidelens.schemas.tables import Table
from pipelines import follow
from pipelines.follow import FollowResult

CONFIG = presets.load("tiny")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def keyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    home = Home(root=tmp_path / "home")
    home.keys.mkdir(parents=True)
    (home.keys / "shopper.key").write_bytes(b"k" * 32)
    monkeypatch.setattr(follow, "EmbedHere", lambda _encoder: constant_texts)
    return home


def post(home: Home, events: Sequence[dict[str, Any]]) -> None:
    Inbox(home.inbox).append([PSEUDONYMS.pseudonymize(Event.model_validate(event)) for event in events])


def rows(home: Home) -> int:
    return Lake(home.lake_uri).manifest().rows(Table.EVENTS)


def wait_for(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def following(home: Home, *events: str, **how: Any) -> Iterator[Future[FollowResult]]:
    """A follower in a thread, told to stop at the end of the block."""
    stopped = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(follow.run, home, CONFIG, IngestSources(events=events), every_s=0.1, stopped=stopped, **how)
        try:
            yield running
        finally:
            stopped.set()


@contextmanager
def _interrupted_session() -> Iterator[None]:
    """A Ray that is told to end while it comes up: it has put its own handler in place by then."""
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(number))
    os.kill(os.getpid(), signal.SIGTERM)
    yield


def test_a_signal_while_ray_comes_up_loses_nothing_and_ends_with_a_result(keyed: Home) -> None:
    post(keyed, [click("e-1")])
    before = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(follow, "is_small", lambda _size: False)
        patched.setattr(follow, "ray_session", _interrupted_session)
        result = follow.run(keyed, CONFIG, IngestSources())
    assert signal.getsignal(signal.SIGTERM) == before
    assert (result.batches, result.failed, rows(keyed)) == (0, 0, 0)
    with following(keyed):
        wait_for(lambda: rows(keyed) == 1)


def test_what_comes_is_taken_in_batch_after_batch(keyed: Home) -> None:
    post(keyed, [click(f"a-{k}", k / 10) for k in range(10)])
    with following(keyed) as running:
        wait_for(lambda: rows(keyed) == 10 and not list(keyed.inbox.glob("*.jsonl")))
        post(keyed, [click("b"), click("a-1"), click("s", type="search", query="red shoes")])
        wait_for(lambda: rows(keyed) == 12)
    done = running.result()
    assert (done.batches, done.read, done.accepted, done.duplicate, done.failed) == (2, 13, 12, 1, 0)
    assert done.lag_max_s is not None and not list(keyed.inbox.glob("*.jsonl"))
    assert all(manifest.passing for manifest in Lake(keyed.lake_uri).manifests())


def test_many_batches_leave_few_files(keyed: Home) -> None:
    with following(keyed) as running:
        for number in range(20):
            post(keyed, [click(f"{number}-{k}") for k in range(4)])
            wait_for(lambda seen=number: rows(keyed) == 4 * (seen + 1))  # type: ignore[misc]
    assert running.result().compacted_files >= 16
    assert len(Lake(keyed.lake_uri).manifest().of(Table.EVENTS)) <= 7


def test_a_store_that_fails_for_a_while_costs_nothing_but_time(keyed: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    real, failures = Lake.commit, iter([StorageError("the store is away"), OSError(28, "no space left"), ZeroDivisionError("a bug")])

    def commit(self: Lake, *args: Any, **how: Any) -> Any:
        for failure in failures:
            raise failure
        return real(self, *args, **how)

    monkeypatch.setattr(Lake, "commit", commit)
    post(keyed, [click(f"a-{k}") for k in range(5)])
    with following(keyed) as running:
        wait_for(lambda: rows(keyed) == 5)
    done = running.result()
    assert (done.failed, done.read, done.accepted, done.duplicate) == (3, 5, 5, 0)
    assert [word in caplog.text for word in ("the store is away", "no space left", "a bug")] == [True] * 3


def test_features_that_cannot_be_made_do_not_stop_the_log(keyed: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Home] = []

    def run(home: Home, *_: Any) -> None:
        asked.append(home)
        raise StorageError("no products")

    monkeypatch.setattr(follow.materialize, "run", run)
    with following(keyed, materialize_every_s=0.05) as running:
        wait_for(lambda: bool(asked))
        post(keyed, [click("a")])
        wait_for(lambda: rows(keyed) == 1)
    done = running.result()
    assert (done.accepted, done.materialized) == (1, 0) and done.failed == len(asked)


def test_kafka_topics_are_followed(keyed: Home) -> None:
    kafka = Brokers()
    uri = kafka.send("log", [click(f"a-{k}") for k in range(9)])
    with following(keyed, uri) as running:
        wait_for(lambda: rows(keyed) == 9)
        kafka.send("log", [click("a-1"), click("b")])
        wait_for(lambda: rows(keyed) == 10)
    done = running.result()
    assert (done.read, done.accepted, done.duplicate, done.waiting) == (11, 10, 1, 0)
    assert sum(Lake(keyed.lake_uri).manifest().offsets.values()) == 11


def test_a_callers_mistake_is_told_at_once(keyed: Home) -> None:
    with pytest.raises(ConfigError, match="--follow"):
        follow.run(keyed, CONFIG, IngestSources(events=("log.jsonl",)), stopped=threading.Event())
    with pytest.raises(InputError, match="HOST:PORT/TOPIC"):
        follow.run(keyed, CONFIG, IngestSources(events=("kafka://nobody",)), stopped=threading.Event())


@pytest.mark.drill
@pytest.mark.parametrize(
    "point", ["manifest.before", "manifest.after", "inbox.committed", "inbox.removed"] if os.environ.get("GUIDELENS_DRILL") else ["manifest.after"]
)
def test_a_killed_follower_is_started_again_and_ends_on_sigterm_with_exact_totals(keyed: Home, tmp_path: Path, point: str) -> None:
    post(keyed, [click(f"a-{k}") for k in range(20)])
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'platform'}:{ROOT}"}
    line = [sys.executable, "-m", "pipelines.cli", "ingest", "--follow", "--every", "0.1", "--preset", "tiny", "--home", str(keyed.root)]
    crashing = environment | {"GUIDELENS_CRASH_AT": f"{point}:1:{tmp_path / 'mark'}"}
    assert subprocess.run(line, cwd=ROOT, env=crashing, capture_output=True, timeout=120).returncode == -9
    post(keyed, [click("b")])
    with subprocess.Popen(line, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        wait_for(lambda: rows(keyed) == 21 and not list(keyed.inbox.glob("*.jsonl")))
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    done = json.loads(out.splitlines()[-1])
    assert (process.returncode, done["failed"], done["read"] - done["accepted"] - done["duplicate"]) == (0, 0, 0)
    assert sorted(Lake(keyed.lake_uri).read(Table.EVENTS, ["event_id"])["event_id"]) == sorted([*(f"a-{k}" for k in range(20)), "b"])
