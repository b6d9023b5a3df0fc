"""Verbs as Ray jobs, by the commands of docs/jobs.md, against a head of this test's own on loopback ports that it found free."""

import json
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml
from PIL import Image

from checks.manifests import entrypoint_problems
from guidelens.config import Home
from guidelens.data.lake.lake import Lake
from guidelens.schemas.tables import Table
from pipelines.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
PYTHONPATH = '{"env_vars": {"PYTHONPATH": "platform"}}'
DRILL = bool(os.environ.get("GUIDELENS_DRILL"))
NUM_PRODUCTS, NUM_PHOTOS, PRESET = (60, 12, "smoke") if DRILL else (4, 4, "tiny")


class Head(NamedTuple):
    address: str
    environment: dict[str, str]

    def jobs(self) -> list[dict[str, object]]:
        """What the head itself knows of its jobs."""
        request = urllib.request.Request(f"{self.address}/api/jobs/", headers={"Authorization": f"Bearer {_token(self.environment)}"})
        with urllib.request.urlopen(request, timeout=10) as reply:
            found: list[dict[str, object]] = json.load(reply)
        return found


def _token(environment: dict[str, str]) -> str:
    return Path(environment["RAY_AUTH_TOKEN_PATH"]).read_text()


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    folder = Path(tempfile.mkdtemp(prefix="glj-", dir="/tmp"))  # sockets lie in it, and their paths have a limit
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "GUIDELENS_"))}
    environment |= {"PATH": f"{BIN}:{environment['PATH']}", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
    environment |= {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0"}
    ports = {name: free_port() for name in ("--port", "--dashboard-port", "--ray-client-server-port", "--dashboard-agent-listen-port")}
    command = ["ray", "start", "--head", "--block", "--dashboard-host", "127.0.0.1", "--num-cpus", "4", "--object-store-memory", "500000000"]
    command += ["--temp-dir", str(folder / "ray"), *(word for name, port in ports.items() for word in (name, str(port)))]
    log = folder / "head.log"
    with log.open("w") as sink:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=sink, stderr=sink, start_new_session=True)
    try:
        found = Head(f"http://127.0.0.1:{ports['--dashboard-port']}", environment)
        _wait_until_it_answers(found, process, log)
        yield found
    finally:
        _stop(process, folder)
        shutil.rmtree(folder, ignore_errors=True)


def _stop(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Asks the head to end with all it started, and ends what did not within seconds."""
    process.send_signal(signal.SIGTERM)
    for pid in _processes_of(folder):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait(30)


def _wait_until_it_answers(head: Head, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        try:
            head.jobs()
            return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"the head did not come up: {log.read_text()[-2000:]}")


def _processes_of(folder: Path) -> list[int]:
    """Processes whose command line names the head's own folder, after ten seconds to end by themselves."""
    for _ in range(40):
        left = [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if str(folder) in _text(path)]
        if not left:
            return []
        time.sleep(0.25)
    return left


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:
        return ""


def submit(head: Head, entrypoint: str, *, runtime_env: str = PYTHONPATH, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`ray job submit` as docs/jobs.md has it, from the root of the repository."""
    command = ["ray", "job", "submit", "--address", head.address, "--working-dir", ".", "--runtime-env-json", runtime_env, "--", *shlex.split(entrypoint)]
    return subprocess.run(command, cwd=ROOT, env=environment or head.environment, capture_output=True, text=True, timeout=400, check=False)


def last_object(output: str) -> dict[str, object]:
    found: dict[str, object] = json.loads([line for line in output.splitlines() if line.startswith("{")][-1])
    return found


def draw_shop(folder: Path) -> tuple[Path, Path]:
    """A catalogue of coloured squares and a few noisy photos of each, labelled."""
    photos = folder / "photos"
    photos.mkdir(parents=True)
    random = np.random.default_rng(5)
    labels, rows = ["path,product_id"], []
    for product in range(NUM_PRODUCTS):
        product_id = f"square-{product}"
        rows.append(
            {"product_id": product_id, "title": f"Square {product}", "description": "A square.", "category": "squares", "price_minor": 100, "currency": "EUR"}
        )
        for view in range(NUM_PHOTOS):
            picture = random.integers(180, 255, (128, 128, 3), dtype=np.uint8)
            picture[24:104, 24:104] = np.array([60 * product % 230, (200 - 50 * product) % 230, (30 + 40 * product) % 230]) + random.integers(
                0, 12, (80, 80, 3)
            )
            Image.fromarray(picture).save(photos / f"{product_id}-{view}.jpg", quality=90)
            labels.append(f"{product_id}-{view}.jpg,{product_id}")
    (photos / "photos.csv").write_text("\n".join(labels) + "\n")
    catalogue = folder / "catalogue.jsonl"
    catalogue.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return catalogue, photos


@pytest.fixture(scope="module")
def trained(head: Head, tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, str]:
    """A home that three jobs filled, and the MLflow run of the last."""
    folder = tmp_path_factory.mktemp("jobs")
    catalogue, photos = draw_shop(folder / "shop")
    home = Home(root=folder / "home")
    ingest = submit(head, f"python -m pipelines.ingest --home {home.root} --catalogue {catalogue} --photos {photos}")
    assert ingest.returncode == 0, ingest.stdout[-3000:] + ingest.stderr[-1000:]
    assert last_object(ingest.stdout)["lake"] == home.lake_uri
    manifest = Lake(home.lake_uri).manifest()
    assert manifest.rows(Table.PRODUCTS) == NUM_PRODUCTS
    assert manifest.rows(Table.PHOTOS) == NUM_PRODUCTS * NUM_PHOTOS

    materialize = submit(head, f"python -m pipelines.materialize --home {home.root}")
    assert materialize.returncode == 0, materialize.stdout[-3000:]
    train = submit(head, f"python -m pipelines.train --home {home.root} --preset {PRESET}")
    assert train.returncode == 0, train.stdout[-3000:]
    return home, str(last_object(train.stdout)["run"])


@pytest.mark.drill
def test_ingest_materialize_and_train_run_as_jobs(head: Head, trained: tuple[Home, str]) -> None:
    assert trained[1]
    assert (trained[0].root / "mlflow.db").exists()

    connected = [job for job in head.jobs() if job["type"] == "SUBMISSION" and job["job_id"]]
    verbs = {shlex.split(str(job["entrypoint"]))[2] for job in connected}
    assert {"pipelines.ingest", "pipelines.train"} <= verbs, "a driver that started a Ray of its own has no job id on this head"


def test_serve_deploy_puts_the_champion_on_the_head(head: Head, trained: tuple[Home, str], tmp_path: Path) -> None:
    home, run_id = trained
    released = run_on(head, "guidelens", "release", "--run", run_id, "--home", str(home.root))
    run_on(head, "guidelens", "promote", str(last_object(released)["version"]), "--home", str(home.root), "--force", "coloured squares train no good model")
    config = yaml.safe_load((ROOT / "serve" / "config.yaml").read_text())
    config["http_options"] |= {"host": "127.0.0.1", "port": free_port()}
    config["applications"][0]["args"]["home"] = str(home.root)
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(config))
    run_on(head, "serve", "deploy", "--address", head.address, str(tmp_path / "serve.yaml"))
    url = f"http://127.0.0.1:{config['http_options']['port']}"
    deadline = time.monotonic() + 120
    while not is_up(f"{url}/readyz"):
        assert time.monotonic() < deadline, run_on(head, "serve", "status", "--address", head.address)
        time.sleep(0.5)
    with urllib.request.urlopen(f"{url}/v1/releases/current", timeout=10) as reply:
        assert json.load(reply)["run_id"] == run_id
    assert "RUNNING" in run_on(head, "serve", "status", "--address", head.address, "--name", "guidelens")
    run_on(head, "serve", "shutdown", "--address", head.address, "-y")
    while is_up(f"{url}/readyz"):
        assert time.monotonic() < deadline
        time.sleep(0.5)


def run_on(head: Head, *command: str) -> str:
    ran = subprocess.run(command, cwd=ROOT, env=head.environment, capture_output=True, text=True, timeout=200, check=False)
    assert ran.returncode == 0, (command, ran.stdout[-1500:], ran.stderr[-1500:])
    return ran.stdout


def is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=15) as reply:
            return bool(reply.status == 200)
    except urllib.error.HTTPError as refused:
        refused.close()
        return False
    except OSError:
        return False


def test_a_job_refuses_code_from_elsewhere(head: Head, tmp_path: Path) -> None:
    refused = submit(head, f"python -m pipelines.doctor --home {tmp_path}", runtime_env="{}")
    assert refused.returncode != 0
    assert "a job must run the code of its working_dir" in refused.stdout
    assert "set PYTHONPATH=platform" in refused.stdout


def test_a_job_refuses_a_home_that_would_vanish_with_it() -> None:
    inside = os.environ | {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}", "PYTHONPATH": "platform"}  # what marks the driver of a job
    refused = subprocess.run(
        [sys.executable, "-m", "pipelines.doctor", "--home", ".guidelens"], cwd=ROOT, env=inside, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert "absolute --home" in refused.stderr


def test_without_the_token_nothing_is_submitted(head: Head, tmp_path: Path) -> None:
    wrong = tmp_path / "token"
    wrong.write_text(secrets.token_hex(32))
    refused = submit(head, f"python -m pipelines.doctor --home {tmp_path}", environment=head.environment | {"RAY_AUTH_TOKEN_PATH": str(wrong)})
    assert refused.returncode != 0
    with pytest.raises(urllib.error.HTTPError) as answer:
        urllib.request.urlopen(f"{head.address}/api/jobs/", timeout=10)
    assert answer.value.code == 401
    answer.value.close()


def test_the_documented_commands_are_ours() -> None:
    commands = [
        line.partition(" -- ")[2]
        for path in (ROOT / "docs/jobs.md", ROOT / "docs/kubernetes.md")
        for line in _joined_lines(path)
        if "ray job submit" in line and " -- " in line
    ]
    assert len(commands) >= 3
    assert {problem for command in commands for problem in entrypoint_problems(command.replace("$HOME_DIR", "/srv/guidelens"))} == set()


def _joined_lines(path: Path) -> list[str]:
    return path.read_text().replace("\\\n", " ").splitlines()
