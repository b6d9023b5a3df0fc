"""What a Ray session leaves behind is ended with it, and nothing else is."""

import os
import subprocess
import sys
from pathlib import Path

from pipelines.cluster import _SESSION, _end_rest

SLEEPS = [sys.executable, "-c", "import sys, time; print('up', flush=True); time.sleep(60)"]


def started(environment: dict[str, str]) -> subprocess.Popen[str]:
    process = subprocess.Popen(SLEEPS, env=os.environ | environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    return process


def test_only_processes_of_the_session_are_ended(tmp_path: Path) -> None:
    mine, other, none = started({_SESSION: str(tmp_path)}), started({_SESSION: f"{tmp_path}-2"}), started({})
    try:
        _end_rest(tmp_path)
        assert mine.wait(10) < 0
        assert other.poll() is None and none.poll() is None
    finally:
        for process in (mine, other, none):
            process.kill()
            process.communicate()
