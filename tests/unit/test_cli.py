"""The command line as it is started: by its module as by its script."""

import subprocess
import sys


def test_the_module_runs_verbs_and_exits_like_the_script() -> None:
    shown = subprocess.run([sys.executable, "-m", "pipelines.cli", "--help"], capture_output=True, text=True, timeout=60, check=False)
    assert (shown.returncode, "materialize" in shown.stdout) == (0, True)
    wrong = subprocess.run([sys.executable, "-m", "pipelines.cli", "nonsense"], capture_output=True, text=True, timeout=60, check=False)
    assert (wrong.returncode, "nonsense" in wrong.stderr) == (2, True)
