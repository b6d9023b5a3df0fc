"""The layout check passes on this repository and catches what it is there for; so do import-linter's contracts."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from checks import layout, locks

ROOT = Path(__file__).resolve().parents[2]
_GENERATED = shutil.ignore_patterns("node_modules", "__pycache__", "vendor")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The four packages and the settings, free to break."""
    for room in layout.ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=_GENERATED)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_this_repository_is_laid_out_right() -> None:
    assert list(layout.problems(ROOT)) == []


def test_a_platform_package_is_caught(copy: Path) -> None:
    (copy / "platform/__init__.py").touch()
    assert any("platform/__init__.py shadows" in problem for problem in layout.problems(copy))


def test_a_module_named_platform_is_caught(copy: Path) -> None:
    (copy / "platform.py").touch()
    assert any("must be the standard library's" in problem for problem in layout.problems(copy))


@pytest.mark.parametrize(
    "line", ["import ray.train", "from ray import train", "from ray.train.torch import TorchTrainer", "def late():\n    import ray.train.torch"]
)
def test_ray_train_outside_training_is_caught(copy: Path, line: str) -> None:
    (copy / "pipelines/planted.py").write_text(f"{line}\n")
    (copy / "platform/guidelens/training/planted.py").write_text(f"{line}\n")
    found = [problem for problem in layout.problems(copy) if "planted" in problem]
    assert len(found) == 1
    assert found[0].startswith("pipelines/planted.py:")


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("serve/planted.py", "import mlflow", "only registry.py imports mlflow"),
        ("pipelines/planted.py", "from feast import FeatureStore", "only features and feature_repo import feast"),
        ("platform/guidelens/data/planted.py", "import boto3", "only storage.py imports boto3"),
        ("serve/planted.py", "import pipelines.entry", "pipelines and serve never import each other"),
        ("platform/guidelens/schemas/planted.py", "import guidelens.storage", "imports go one way inside the core"),
        ("platform/guidelens/models/planted.py", "import serve", "the core knows nothing of who calls it"),
        ("feature_repo/planted.py", "import guidelens.data", "feature_repo imports feast and schemas only"),
        ("platform/guidelens/models/planted.py", "import ray", "the core's data, models and encoders know nothing of Ray"),
    ],
)
def test_each_import_contract_can_break(copy: Path, module: str, line: str, contract: str) -> None:
    (copy / module).write_text(f"{line}\n")
    (copy / "lint.py").write_text("import sys; sys.path[:0] = ['platform', '.']\nfrom importlinter.cli import lint_imports_command as run; run()\n")
    asked = subprocess.run([sys.executable, "-I", "lint.py", "--no-cache"], cwd=copy, capture_output=True, text=True, check=False)
    broken = [text.partition(" BROKEN")[0] for text in asked.stdout.splitlines() if " BROKEN" in text]
    assert contract in broken, asked.stdout + asked.stderr
    assert asked.returncode == 1


def test_the_locks_say_what_is_installed_and_needed() -> None:
    assert list(locks.problems(ROOT)) == []


def test_locks_hold_no_address_no_path_and_no_local_build_tag() -> None:
    for name in (locks.RUNTIME, locks.DEV):
        pins = locks.read(ROOT / name)
        assert len(pins) > 20
        assert all(version and not set(version) & set("+/@ ") for version in pins.values()), pins
        assert "guidelens" not in pins


def test_a_lock_that_lags_behind_is_caught(tmp_path: Path) -> None:
    for name in ("pyproject.toml", locks.RUNTIME, locks.DEV):
        shutil.copy(ROOT / name, tmp_path)
    runtime = tmp_path / locks.RUNTIME
    text = "".join(line for line in runtime.read_text().splitlines(keepends=True) if not line.startswith("click=="))
    runtime.write_text(text.replace(f"polars=={locks.read(runtime)['polars']}", "polars==0.0.1") + "left-behind==1\n")
    found = "\n".join(locks.problems(tmp_path))
    assert "click" in found
    assert "polars is locked at 0.0.1" in found
    assert "left-behind is locked but nothing needs it" in found
    (tmp_path / "pyproject.toml").write_text((tmp_path / "pyproject.toml").read_text().replace('"click==', '"click>='))
    assert any("click must be pinned" in problem for problem in locks.problems(tmp_path))
