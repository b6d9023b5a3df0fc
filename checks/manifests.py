"""Renders k8s/ with the real kubectl and checks what comes out, down to the commands and the graph that the pods would run.

Core kinds and pod templates against Kubernetes' own schemas; Ray's kinds against checks/kuberay.py; `serveConfigV2` against
Serve's schema, its `import_path` by importing it and its `args` by the type that `build` takes; entrypoints by our command line.
"""

import importlib
import inspect
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, get_type_hints

import click
import kubernetes_validate
import yaml
from pydantic import BaseModel, ValidationError

from checks import dockerfile
from checks.kuberay import KINDS, RayClusterSpec, RayJob, RayService
from guidelens.errors import GuideLensError

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("k8s/base", "k8s/overlays/dev", "k8s/overlays/prod")
SERVE_CONFIG = "serve/config.yaml"
Manifest = dict[str, Any]


def render(folder: Path) -> list[Manifest]:
    """The documents that `kubectl kustomize` makes of a folder.

    Raises:
        CalledProcessError: it does not render; stderr says why.
    """
    rendered = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=True)
    return [document for document in yaml.safe_load_all(rendered.stdout) if document]


def problems(documents: list[Manifest]) -> Iterator[str]:
    """What is wrong with one rendered set of manifests, each line with the object it is about."""
    for document in documents:
        subject = f"{document.get('kind')}/{document.get('metadata', {}).get('name')}"
        found = _ray_kind(document, documents) if document.get("kind") in KINDS else _schema(document)
        yield from (f"{subject}: {problem}" for problem in found)


def _schema(document: Manifest) -> Iterator[str]:
    try:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    except kubernetes_validate.ValidationError as error:
        yield f"{'.'.join(str(part) for part in error.path) or 'object'}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError:
        yield f"no schema for {document.get('apiVersion')} {document.get('kind')}"


def _ray_kind(document: Manifest, documents: list[Manifest]) -> Iterator[str]:
    try:
        parsed = KINDS[document["kind"]].model_validate(document)
    except ValidationError as error:
        yield from (f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors())
        return
    cluster = parsed.spec.rayClusterSpec if isinstance(parsed, RayJob) else parsed.spec.rayClusterConfig
    if cluster.rayVersion != metadata.version("ray"):
        yield f"rayVersion must be the locked Ray {metadata.version('ray')}, got {cluster.rayVersion}"
    yield from _pods(cluster, documents)
    if isinstance(parsed, RayJob):
        yield from entrypoint_problems(parsed.spec.entrypoint)
    else:
        yield from _serve_config(parsed, documents)


def _pods(cluster: RayClusterSpec, documents: list[Manifest]) -> Iterator[str]:
    names = {(document["kind"], document["metadata"]["name"]) for document in documents}
    for group, template in [("head", cluster.headGroupSpec.template), *((worker.groupName, worker.template) for worker in cluster.workerGroupSpecs)]:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": group}, **template}
        yield from (f"pod of group {group}: {problem}" for problem in _schema(pod))
        spec = template.get("spec", {})
        wanted = [("ServiceAccount", spec.get("serviceAccountName", "default"))]
        wanted += [
            ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) for volume in spec.get("volumes", []) if "persistentVolumeClaim" in volume
        ]
        for container in spec.get("containers", []):
            wanted += [("ConfigMap", source["configMapRef"]["name"]) for source in container.get("envFrom", []) if "configMapRef" in source]
            if container.get("image", "").endswith(":latest") or ":" not in container.get("image", ""):
                yield f"pod of group {group}: image must name a version, got {container.get('image')}"
        yield from (f"pod of group {group}: names {kind} {name}, which is not among the manifests" for kind, name in wanted if (kind, name) not in names)
    for worker in cluster.workerGroupSpecs:
        if not worker.minReplicas <= worker.replicas <= worker.maxReplicas:
            yield f"group {worker.groupName}: replicas {worker.replicas} must lie between {worker.minReplicas} and {worker.maxReplicas}"


def entrypoint_problems(entrypoint: str) -> Iterator[str]:
    """What keeps `python -m pipelines.VERB …` from being a command of ours; the verb is parsed, not run."""
    words = shlex.split(entrypoint)
    if words[:2] != ["python", "-m"] or len(words) < 3 or not words[2].startswith("pipelines."):
        yield f"entrypoint must be `python -m pipelines.VERB …`, got {entrypoint!r}"
        return
    try:
        command: click.Command = importlib.import_module(words[2]).command
        command.make_context(words[2], words[3:])
    except ImportError as error:
        yield f"entrypoint {entrypoint!r}: {error}"
    except click.ClickException as error:
        yield f"entrypoint {entrypoint!r}: {error.format_message()}"
    except GuideLensError as error:
        yield f"entrypoint {entrypoint!r}: {error}"


def _serve_config(service: RayService, documents: list[Manifest]) -> Iterator[str]:
    yield from (f"serveConfigV2: {problem}" for problem in serve_config_problems(service.spec.serveConfigV2))
    given = yaml.safe_load(service.spec.serveConfigV2)
    for application in given.get("applications", []) if isinstance(given, dict) else []:
        yield from (f"serveConfigV2: {problem}" for problem in _home_problems(service, application.get("args", {}), documents))


def serve_config_problems(text: str) -> Iterator[str]:
    """What keeps `serve deploy` from taking a config file and building its applications."""
    from ray.serve.schema import ServeApplicationSchema, ServeDeploySchema

    try:
        given = yaml.safe_load(text)
        config = ServeDeploySchema.model_validate(given)
    except (ValidationError, yaml.YAMLError) as error:
        yield str(error)
        return
    # Serve ignores what it does not know.
    unknown = sorted(given.keys() - ServeDeploySchema.model_fields.keys())
    unknown += sorted(name for application in given["applications"] for name in application.keys() - ServeApplicationSchema.model_fields.keys())
    yield from (f"no such field as {name}" for name in unknown)
    for application in config.applications:
        yield from application_problems(application.import_path, application.args)


def application_problems(import_path: str, args: dict[str, Any]) -> Iterator[str]:
    """What keeps Serve from building the application: `module:function`, of one pydantic argument that takes `args`."""
    module, _, name = import_path.partition(":")
    try:
        build = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        yield f"import_path {import_path}: {error}"
        return
    parameters = list(inspect.signature(build).parameters)
    kind = get_type_hints(build).get(parameters[0]) if len(parameters) == 1 else None
    if not (inspect.isclass(kind) and issubclass(kind, BaseModel)):
        yield f"import_path {import_path}: must take one pydantic model, takes {parameters}"
        return
    try:
        kind.model_validate(args)
    except ValidationError as error:
        yield from (f"args.{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors())


def _home_problems(service: RayService, args: dict[str, Any], documents: list[Manifest]) -> Iterator[str]:
    """Training and serving must look at one home, and it must lie on a volume that outlives the pods."""
    settings: dict[str, str] = next((document.get("data", {}) for document in documents if document["kind"] == "ConfigMap"), {})
    if args.get("home") != settings.get("GUIDELENS_HOME"):
        yield f"args.home must be GUIDELENS_HOME ({settings.get('GUIDELENS_HOME')}), got {args.get('home')}"
    for worker in service.spec.rayClusterConfig.workerGroupSpecs:
        mounts = [mount["mountPath"] for container in worker.template["spec"]["containers"] for mount in container.get("volumeMounts", [])]
        if args.get("home") not in mounts:
            yield f"group {worker.groupName}: no volume is mounted at {args.get('home')}, only {mounts}"


@click.command()
def main() -> None:
    """Render and check every folder of k8s/, the Dockerfile, and the example config of `serve deploy`."""
    failed = False
    for problem in [*dockerfile.problems(ROOT), *serve_config_problems((ROOT / SERVE_CONFIG).read_text())]:
        failed = True
        click.echo(problem, err=True)
    if not shutil.which("kubectl"):
        click.echo("manifests: NOT CHECKED, kubectl is not on this machine", err=True)
        sys.exit(failed or bool(os.environ.get("CI")))
    for folder in FOLDERS:
        try:
            documents = render(ROOT / folder)
        except subprocess.CalledProcessError as error:
            failed = True
            click.echo(f"{folder}: {error.stderr.strip()}", err=True)
            continue
        found = list(problems(documents))
        failed = failed or bool(found)
        for problem in found:
            click.echo(f"{folder}: {problem}", err=True)
        click.echo(f"manifests: {folder} renders {', '.join(document['kind'] for document in documents)}; {len(found)} problems")
    sys.exit(failed)


if __name__ == "__main__":
    main()
