"""The doctor names what is wrong, with a remedy, and touches nothing."""

import json
import socket
import sqlite3
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from guidelens.config import FeatureConfig, Home, S3Options
from pipelines import doctor, doctor_machine, doctor_stores

WELL = ["python", "packages", "code", "cores", "gpus", "home", "lake", "mlflow", "online store"]


def test_a_fresh_home_is_well_and_is_not_made_by_looking(tmp_path: Path) -> None:
    start = time.monotonic()
    result = CliRunner().invoke(doctor.command, ["--home", str(tmp_path / "home")])
    seconds = time.monotonic() - start
    answer = json.loads(result.stdout.splitlines()[-1])
    named = {problem["subject"] for problem in answer["problems"]}
    assert not named & set(WELL), answer
    assert result.exit_code == (0 if answer["ok"] else 1)
    assert answer["ok"] == (not answer["problems"])
    assert not (tmp_path / "home").exists()
    assert seconds < 15, "5 s on a quiet machine; a slow import would be far above this"


def test_a_home_under_a_file_is_a_problem_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    result = CliRunner().invoke(doctor.command, ["--home", str(tmp_path / "file/home")])
    answer = json.loads(result.stdout.splitlines()[-1])
    assert result.exit_code == 1
    assert not answer["ok"]
    found = {problem["subject"]: problem for problem in answer["problems"]}
    assert "cannot be written" in found["home"]["problem"]
    assert "--home" in found["home"]["remedy"]
    assert "PROBLEM  home" in result.stderr


def test_versions_other_than_the_pins_are_named() -> None:
    found = doctor_machine.packages(["click==0.0.1", "no-such-package-anywhere==1", "numpy>1", "ruff==0; extra == 'dev'"])
    assert found.kind == "problem"
    assert "click is" in found.state
    assert "no-such-package-anywhere is not installed" in found.state
    assert "numpy" not in found.state
    assert "ruff" not in found.state
    assert "make setup" in found.remedy


def test_a_small_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # no nvidia-smi to be found
    findings = [
        doctor_machine.python_version((3, 12, 1)),
        doctor_machine.cores(1),
        doctor_machine.memory(1.0),
        doctor_machine.shared_memory(Path("/no/such/folder")),
        doctor_machine.gpus(wanted=True),
    ]
    assert all(found.kind == "problem" and found.remedy for found in findings), findings


def test_a_taken_port_is_noted() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        found = doctor_machine.port(holder.getsockname()[1])
    assert found.kind == "note"
    assert "is taken" in found.state


def test_an_mlflow_database_of_another_schema_is_named(tmp_path: Path) -> None:
    home = Home(root=tmp_path)
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("create table alembic_version (version_num text)")
        connection.execute("create table runs (run_uuid text)")
        connection.execute("insert into alembic_version values ('0ld')")
    connection.close()
    found = doctor_stores.tracking(home)
    assert found.kind == "problem"
    assert "0ld" in found.state
    assert "mlflow db upgrade" in found.remedy


def test_the_expected_mlflow_schema_is_the_one_mlflow_writes(tmp_path: Path) -> None:
    from mlflow.store.db.utils import _get_latest_schema_revision

    assert doctor_stores.mlflow_schema() == _get_latest_schema_revision()


@pytest.mark.parametrize("name", ["mlflow.db", "feast/online_store.db"])
def test_a_file_that_is_no_database_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"no database, " * 100)
    home = Home(root=tmp_path)
    found = doctor_stores.tracking(home) if name == "mlflow.db" else doctor_stores.online_store(home, FeatureConfig())
    assert found.kind == "problem"
    assert "not a database" in found.state


def test_a_redis_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
    found = doctor_stores.online_store(Home(root=tmp_path), FeatureConfig(online_store="redis", redis_connection=f"127.0.0.1:{port}"))
    assert found.kind == "problem"
    assert "redis_connection" in found.remedy


def test_a_lake_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "lake/_manifests").mkdir(parents=True)
    (tmp_path / "lake/_manifests/000000000001.json").write_text('{"version": 1, "schema_version": 99}')
    found = doctor_stores.lake(Home(root=tmp_path), str(tmp_path / "lake"))
    assert found.kind == "problem"
    assert "schema 99" in found.state


def test_a_lake_with_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "lake/_manifests").mkdir(parents=True)
    (tmp_path / "lake/_manifests/000000000001.json").write_text('{"version": 1,')
    found = doctor_stores.lake(Home(root=tmp_path), str(tmp_path / "lake"))
    assert found.kind == "problem"
    assert "000000000001.json is damaged" in found.state


def test_an_s3_endpoint_that_is_no_url_is_named(tmp_path: Path) -> None:
    found = doctor_stores.lake(Home(root=tmp_path, s3=S3Options(endpoint_url="minio")), "s3://bucket/lake")
    assert found.kind == "problem"
    assert "AWS_ENDPOINT_URL" in found.state and "minio" in found.state
