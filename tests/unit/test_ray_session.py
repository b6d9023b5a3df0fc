"""What a Ray session leaves behind is ended with it, and nothing else is."""

import os
import subprocess
import sys
from pathlib import Path

from pipelines.cluster import _SESSION, _end_rest, _locked, _remove_dead

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


HOLDS = "import sys, time; from pathlib import Path; from pipelines.cluster import _locked; _locked(Path(sys.argv[1])); print('up', flush=True); time.sleep(60)"


def test_what_a_killed_session_left_is_removed_and_a_living_one_is_not(tmp_path: Path) -> None:
    killed, living, foreign = (tmp_path / name for name in ("gl-killed", "gl-living", "gl-foreign"))
    for folder in (killed, living, foreign):
        folder.mkdir()
        (folder / "log").write_text("kept")
    owner = subprocess.Popen([sys.executable, "-c", HOLDS, str(killed)], stdout=subprocess.PIPE, text=True)
    lock, rest = _locked(living), started({_SESSION: str(killed)})
    try:
        assert owner.stdout is not None and owner.stdout.readline() == "up\n"
        _remove_dead(tmp_path)
        assert killed.exists() and rest.poll() is None
        owner.kill()
        owner.wait(10)
        _remove_dead(tmp_path)
        assert {folder.name for folder in tmp_path.iterdir()} == {"gl-living", "gl-foreign"} and rest.wait(10) < 0
    finally:
        os.close(lock)
        for process in (owner, rest):
            process.kill()
            process.communicate()
