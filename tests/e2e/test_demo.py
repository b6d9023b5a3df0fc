"""The whole loop as a user runs it, on the tiny preset: one process, the real command, every room."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

GUIDELENS = str(Path(sys.executable).with_name("guidelens"))


def demo(folder: Path, *more: str) -> list[str]:
    return [GUIDELENS, "demo", "--preset", "tiny", "--seed", "5", "--out", str(folder / "out"), "--home", str(folder / "home"), *more]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    """The folder of a demo that ran, and its last line."""
    folder = tmp_path_factory.mktemp("demo")
    ran = subprocess.run(demo(folder), capture_output=True, text=True, timeout=480, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return folder, json.loads(ran.stdout.strip().splitlines()[-1])


def report_of(finished: tuple[Path, dict[str, object]]) -> dict[str, dict[str, object]]:
    report: dict[str, dict[str, object]] = json.loads(Path(str(finished[1]["report"])).read_text())
    return report


def test_the_report_holds_what_was_promised(finished: tuple[Path, dict[str, object]]) -> None:
    report = report_of(finished)
    assert {"source", "seed", "stages", "recognition", "ranking", "interest", "plan", "serving", "release"} <= report.keys()
    assert {"popularity", "item_knn", "single_task"} <= report["ranking"]["baselines"].keys()  # type: ignore[attr-defined]
    assert {"logging_value", "script_value", "reference_value", "oracle_value", "value", "match"} <= report["plan"].keys()
    assert Path(str(finished[1]["report"])).with_suffix(".html").stat().st_size > 10_000


def test_no_plan_is_illegal_and_no_request_failed(finished: tuple[Path, dict[str, object]]) -> None:
    report = report_of(finished)
    assert report["plan"]["illegal"] == 0
    assert report["serving"]["failed"] == 0
    assert int(str(report["serving"]["requests"])) >= 20


def test_every_scored_photo_has_its_line(finished: tuple[Path, dict[str, object]]) -> None:
    lines = (finished[0] / "out" / "predictions.csv").read_text().splitlines()
    assert len(lines) - 1 == report_of(finished)["recognition"]["photos"]


def test_a_home_that_holds_something_else_is_refused(finished: tuple[Path, dict[str, object]]) -> None:
    other_seed = [*demo(finished[0]), "--seed", "6"]
    ran = subprocess.run(other_seed, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 2
    assert "--home" in ran.stderr


def test_a_demo_interrupted_while_it_trains_says_so_and_leaves_nothing_running(tmp_path: Path) -> None:
    _interrupted(demo(tmp_path), "train", tmp_path)


def test_a_demo_that_a_script_put_in_the_background_can_be_interrupted(tmp_path: Path) -> None:
    _interrupted(["sh", "-c", 'trap "" INT; exec "$@"', "sh", *demo(tmp_path)], "materialize features", tmp_path)


def _interrupted(command: list[str], stage: str, folder: Path) -> None:
    """Starts the demo, interrupts its whole process group a second into the stage, and looks at how it ended."""
    with (folder / "stderr").open("w") as told:
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=told, start_new_session=True)
        try:
            give_up = time.monotonic() + 240
            while f"] {stage} ..." not in (folder / "stderr").read_text():
                assert running.poll() is None, (folder / "stderr").read_text()
                assert time.monotonic() < give_up, f"the demo did not come to {stage!r}"
                time.sleep(0.1)
            time.sleep(1)
            os.killpg(running.pid, signal.SIGINT)
            assert running.wait(60) == 130
        finally:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)
    assert (folder / "stderr").read_text().rstrip().endswith("interrupted")
    for _ in range(20):
        left = [line for line in _processes() if line[1] == running.pid]
        if not left:
            break
        time.sleep(1)
    assert left == []


def _processes() -> list[tuple[int, int, str]]:
    """(pid, session id, command) of what runs now."""
    listed = subprocess.run(["ps", "-eo", "pid,sid,args"], capture_output=True, text=True, check=True).stdout.splitlines()[1:]
    rows = [line.split(None, 2) for line in listed]
    return [(int(pid), int(session), args) for pid, session, args in rows]
