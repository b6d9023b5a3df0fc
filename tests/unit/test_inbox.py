"""The inbox loses nothing that it acknowledged, keeps nothing twice, and forgets on request."""

import json
import multiprocessing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from guidelens.data import inbox
from guidelens.data.inbox import AppendResult, Inbox
from guidelens.data.pseudonyms import Pseudonymizer, PseudonymousEvent
from guidelens.schemas.events import Event

PSEUDONYMS = Pseudonymizer(b"k" * 32)


def event(number: int, shopper: str = "s-1") -> PseudonymousEvent:
    raw = {"event_id": f"e-{number}", "event_ts": datetime(2026, 1, 1, tzinfo=UTC), "shopper_id": shopper, "session_id": "x", "type": "search"}
    return PSEUDONYMS.pseudonymize(Event.model_validate(raw))


def drained_ids(folder: Path) -> list[str]:
    with inbox.draining(folder) as sealed:
        ids = [json.loads(line)["event_id"] for path in sealed for line in path.read_bytes().splitlines()]
        inbox.remove(sealed)
    return ids


def test_an_event_sent_twice_is_kept_once(tmp_path: Path) -> None:
    box = Inbox(tmp_path)
    assert box.append([event(1), event(1), event(2)]) == AppendResult(accepted=(event(1), event(2)), duplicate=1)
    assert box.append([event(2), event(3)]) == AppendResult(accepted=(event(3),), duplicate=1)
    assert drained_ids(tmp_path) == ["e-1", "e-2", "e-3"]


def test_a_new_process_knows_what_waits_on_disk(tmp_path: Path) -> None:
    Inbox(tmp_path).append([event(1)])
    assert Inbox(tmp_path).append([event(1)]) == AppendResult(accepted=(), duplicate=1)


def test_appending_goes_on_while_and_after_a_drain(tmp_path: Path) -> None:
    box = Inbox(tmp_path)
    box.append([event(1)])
    with inbox.draining(tmp_path) as sealed:
        box.append([event(2)])
        inbox.remove(sealed)
    box.append([event(1), event(3)])
    assert drained_ids(tmp_path) == ["e-2", "e-3"]


def test_a_drain_that_dies_before_removing_leaves_the_events_for_the_next(tmp_path: Path) -> None:
    Inbox(tmp_path).append([event(1)])
    with pytest.raises(RuntimeError), inbox.draining(tmp_path):
        raise RuntimeError("killed before the commit")
    assert drained_ids(tmp_path) == ["e-1"]


def test_draining_an_inbox_that_was_never_written_yields_nothing(tmp_path: Path) -> None:
    assert drained_ids(tmp_path / "none") == []


def test_forgetting_removes_one_shoppers_waiting_events(tmp_path: Path) -> None:
    Inbox(tmp_path).append([event(1, "s-1"), event(2, "s-2"), event(3, "s-1")])
    assert inbox.forget(tmp_path, frozenset({PSEUDONYMS.key("s-1")}), PSEUDONYMS) == 2
    assert drained_ids(tmp_path) == ["e-2"]


def _append_many(folder: Path, worker: int, start: "multiprocessing.synchronize.Barrier") -> None:
    box = Inbox(folder)
    start.wait()
    for number in range(50):
        box.append([event(1000 * worker + number)])


def test_processes_that_append_while_another_drains_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start = context.Barrier(4)
    writers = [context.Process(target=_append_many, args=(tmp_path, worker, start)) for worker in range(3)]
    for writer in writers:
        writer.start()
    start.wait()
    found: list[str] = []
    while any(writer.is_alive() for writer in writers):
        found += drained_ids(tmp_path)
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    found += drained_ids(tmp_path)
    assert sorted(found) == sorted(f"e-{1000 * worker + number}" for worker in range(3) for number in range(50))
