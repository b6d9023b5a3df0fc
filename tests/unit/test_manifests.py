"""k8s/ renders and passes; planted mistakes of each kind are caught."""

import copy
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from checks import dockerfile, manifests
from checks.manifests import Manifest

ROOT = Path(__file__).resolve().parents[2]
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on this machine")
pytestmark = needs_kubectl


@pytest.fixture(scope="module")
def base() -> list[Manifest]:
    return manifests.render(ROOT / "k8s/base")


@pytest.mark.parametrize("folder", manifests.FOLDERS)
def test_every_folder_renders_and_passes(folder: str) -> None:
    documents = manifests.render(ROOT / folder)
    assert {"RayJob", "RayService"} <= {document["kind"] for document in documents}
    assert list(manifests.problems(documents)) == []


def _ray_job(documents: list[Manifest]) -> Manifest:
    return next(document for document in documents if document["kind"] == "RayJob")["spec"]


def _ray_service(documents: list[Manifest]) -> Manifest:
    return next(document for document in documents if document["kind"] == "RayService")["spec"]


def _edit_serve(old: str, new: str) -> Callable[[list[Manifest]], None]:
    def edit(documents: list[Manifest]) -> None:
        spec = _ray_service(documents)
        assert old in spec["serveConfigV2"]
        spec["serveConfigV2"] = spec["serveConfigV2"].replace(old, new)

    return edit


def _worker(documents: list[Manifest]) -> Manifest:
    return _ray_job(documents)["rayClusterSpec"]["workerGroupSpecs"][0]


def _drop(documents: list[Manifest], kind: str) -> None:
    documents[:] = [document for document in documents if document["kind"] != kind]


PLANTED: dict[str, tuple[Callable[[list[Manifest]], object], str]] = {
    "a core kind's unknown field": (lambda found: found[0].update(speck={}), "speck"),
    "a Ray kind's unknown field": (lambda found: _ray_job(found).update(shutdownAfterFinish=True), "shutdownAfterFinish"),
    "a Ray kind's missing field": (lambda found: _ray_job(found)["rayClusterSpec"].pop("headGroupSpec"), "headGroupSpec"),
    "a group without a name": (lambda found: _worker(found).pop("groupName"), "groupName"),
    "another Ray": (lambda found: _ray_job(found)["rayClusterSpec"].update(rayVersion="2.9.0"), "must be the locked Ray"),
    "an open cluster": (lambda found: _ray_job(found)["rayClusterSpec"].pop("authOptions"), "authOptions"),
    "a pod's unknown field": (lambda found: _worker(found)["template"]["spec"]["containers"][0].update(imagePull="x"), "imagePull"),
    "an image without a version": (lambda found: _worker(found)["template"]["spec"]["containers"][0].update(image="guidelens"), "must name a version"),
    "more replicas than allowed": (lambda found: _worker(found).update(replicas=9), "must lie between"),
    "a volume nobody claims": (lambda found: _drop(found, "PersistentVolumeClaim"), "PersistentVolumeClaim guidelens-home, which is not among"),
    "an environment nobody writes": (lambda found: _drop(found, "ConfigMap"), "ConfigMap guidelens-env, which is not among"),
    "no account": (lambda found: _drop(found, "ServiceAccount"), "ServiceAccount guidelens, which is not among"),
    "a verb we do not have": (lambda found: _ray_job(found).update(entrypoint="python -m pipelines.trian"), "pipelines.trian"),
    "an option we do not have": (lambda found: _ray_job(found).update(entrypoint="python -m pipelines.doctor --speed 9"), "--speed"),
    "a preset we do not have": (lambda found: _ray_job(found).update(entrypoint="python -m pipelines.doctor --preset huge"), "huge"),
    "a setting we do not have": (lambda found: _ray_job(found).update(entrypoint="python -m pipelines.doctor --set a.b=1"), "no such setting"),
    "a script by path": (lambda found: _ray_job(found).update(entrypoint="python pipelines/doctor.py"), "entrypoint must be"),
    "a graph we do not have": (_edit_serve("serve.app:build", "serve.app:construct"), "construct"),
    "a module we do not have": (_edit_serve("serve.app:build", "serve.application:build"), "serve.application"),
    "a graph's unknown argument": (_edit_serve("release: champion", "version: champion"), "args.version"),
    "Serve's unknown field": (_edit_serve("route_prefix:", "route:"), "no such field as route"),
    "another home than training's": (_edit_serve("home: /var/lib/guidelens", "home: /tmp/guidelens"), "args.home must be GUIDELENS_HOME"),
}


@pytest.mark.parametrize("mistake", PLANTED)
def test_a_planted_mistake_is_caught(base: list[Manifest], mistake: str) -> None:
    plant, said = PLANTED[mistake]
    documents = copy.deepcopy(base)
    plant(documents)
    found = list(manifests.problems(documents))
    assert any(said in problem for problem in found), found


def test_a_folder_that_does_not_render_says_why(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [nowhere.yaml]\n")
    with pytest.raises(subprocess.CalledProcessError) as caught:
        manifests.render(tmp_path)
    assert "nowhere.yaml" in caught.value.stderr


def test_the_example_config_of_serve_is_one_that_serve_takes() -> None:
    text = (ROOT / manifests.SERVE_CONFIG).read_text()
    assert list(manifests.serve_config_problems(text)) == []
    assert list(manifests.serve_config_problems(text.replace("import_path:", "importpath:")))


def test_overlays_change_values_only() -> None:
    """Same objects, same fields, in every overlay; only requests of GPUs and what Serve's config holds may be new."""
    shapes = [_shape(manifests.render(ROOT / folder)) for folder in manifests.FOLDERS]
    assert shapes[0] == shapes[1]
    assert {path for path in shapes[2] ^ shapes[0] if "nvidia.com/gpu" not in path} == set()


def _shape(node: object, path: str = "") -> set[str]:
    if isinstance(node, dict):
        return set().union(*(_shape(child, f"{path}.{name}") for name, child in node.items()), {path})
    if isinstance(node, list):
        return set().union(*(_shape(child, f"{path}[]") for child in node), {path})
    return {path}


def test_the_dockerfile_copies_what_is_there_and_runs_as_nobody_special() -> None:
    assert list(dockerfile.problems(ROOT)) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("requirements.lock", "requirements.txt", "requirements.txt"),
        ("USER 10001", "USER root", "USER"),
        ("python:3.11", "python:3.13", "3.13"),
    ],
)
def test_a_mistake_in_the_dockerfile_is_caught(tmp_path: Path, old: str, new: str, said: str) -> None:
    for name in ("pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    text = (ROOT / "Dockerfile").read_text()
    assert old in text
    (tmp_path / "Dockerfile").write_text(text.replace(old, new))
    assert any(said in problem for problem in dockerfile.problems(tmp_path))
