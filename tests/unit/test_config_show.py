"""`config show` says where state lives, under names that other clients take as they are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipelines import config_show
from pipelines.cli import guidelens

CONTRACT = {"mlflow_tracking_uri", "registered_model", "feature_repo", "feature_service", "lake", "preset"}


def invoke(*args: str) -> Result:
    return CliRunner().invoke(config_show.command, args)


def test_the_last_line_holds_what_the_contract_names(tmp_path: Path) -> None:
    result = invoke("show", "--home", str(tmp_path))
    answer = json.loads(result.stdout.splitlines()[-1])
    assert result.exit_code == 0
    assert answer.keys() >= CONTRACT
    assert "config" not in answer
    assert answer["preset"] == "laptop"
    assert answer["lake"] == str(tmp_path / "lake")
    assert answer["mlflow_tracking_uri"] == f"sqlite:///{tmp_path}/mlflow.db"
    assert (Path(answer["feature_repo"]) / "feature_store.yaml").is_file()


def test_full_shows_every_setting_as_set_takes_it(tmp_path: Path) -> None:
    result = invoke("show", "--home", str(tmp_path), "--full", "--preset", "tiny", "--set", "train.epochs=3", "--seed", "9")
    answer = json.loads(result.stdout.splitlines()[-1])
    assert answer["config"]["train"]["epochs"] == 3
    assert answer["config"]["seed"] == 9
    settings = [line for line in result.stderr.splitlines() if not line.startswith(("preset=", "seed="))]
    again = invoke("show", "--home", str(tmp_path), "--full", "--preset", "production", "--seed", "9", *(arg for line in settings for arg in ("--set", line)))
    assert json.loads(again.stdout.splitlines()[-1])["config"] == {**answer["config"], "preset": "production"}


def test_an_address_with_a_secret_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "do-not-show")
    assert "do-not-show" not in invoke("show", "--home", str(tmp_path), "--full").output


def test_wrong_settings_end_with_exit_code_2_and_their_name(tmp_path: Path) -> None:
    for args, said in ((["--preset", "no-such-preset"], "no-such-preset"), (["--set", "train.epochs=0"], "train.epochs")):
        command = [sys.executable, "-m", "pipelines.config_show", "validate", *args]
        asked = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "GUIDELENS_HOME": str(tmp_path)}, check=False)
        assert asked.returncode == 2
        assert said in asked.stderr
        assert asked.stdout == ""


def test_verbs_are_imported_only_when_they_run() -> None:
    code = "import sys, pipelines.cli; print([name for name in ('torch', 'ray', 'mlflow', 'feast', 'polars') if name in sys.modules])"
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert asked.stdout.strip() == "[]"
    assert guidelens.name == "guidelens"
