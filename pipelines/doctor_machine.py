"""What `doctor` looks at on the machine itself. Each check takes milliseconds, imports no heavy package and never raises."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from packaging.requirements import Requirement

MIN_CORES = 2
MIN_MEMORY_GB = 6.0
MIN_SHARED_MEMORY_GB = 1.5
_PROGRAMS = {
    "npm": ("the page shows pictures in place of 3-D models", "install Node.js 20, then `make setup`"),
    "chromium": ("the page's browser test is skipped", "install the package chromium"),
    "redis-server": ("the Redis online store's tests are skipped", "install the package redis-server"),
    "kubectl": ("`make check` cannot render k8s/", "install kubectl"),
}


class Finding(NamedTuple):
    """`state` says what was found; `remedy` is empty where kind is "ok". A note is an optional part that is not there."""

    subject: str
    kind: Literal["ok", "note", "problem"]
    state: str
    remedy: str = ""


def python_version(version: tuple[int, int, int] | None = None) -> Finding:
    major, minor, patch = version or sys.version_info[:3]
    state = f"{major}.{minor}.{patch}"
    return (
        Finding("python", "ok", state)
        if (major, minor) == (3, 11)
        else Finding("python", "problem", f"{state}; needs 3.11", "make the .venv with python3.11: `make setup`")
    )


def packages(requirements: list[str] | None = None) -> Finding:
    """Compares what is installed with the versions that guidelens pins; extras for development are not asked for."""
    wanted = [Requirement(text) for text in (metadata.requires("guidelens") or [] if requirements is None else requirements)]
    wanted = [requirement for requirement in wanted if requirement.marker is None or requirement.marker.evaluate({"extra": ""})]
    wrong = [state for requirement in wanted if (state := _wrong_version(requirement))]
    if wrong:
        return Finding("packages", "problem", "; ".join(wrong), "`make setup` installs the locked versions")
    return Finding("packages", "ok", f"{len(wanted)} direct dependencies as pinned, torch {metadata.version('torch')}, ray {metadata.version('ray')}")


def _wrong_version(requirement: Requirement) -> str | None:
    try:
        installed = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{requirement.name} is not installed, needs {requirement.specifier}"
    return None if requirement.specifier.contains(installed, prereleases=True) else f"{requirement.name} is {installed}, needs {requirement.specifier}"


def code() -> Finding:
    """`import platform` must give the standard library's module: a platform/__init__.py on the path would shadow it."""
    shadows = [folder for folder in sys.path if (Path(folder or ".") / "platform/__init__.py").exists()]
    if shadows:
        return Finding("code", "problem", f"{shadows[0] or '.'}/platform/__init__.py shadows the standard library", "remove that file")
    import guidelens

    return Finding("code", "ok", str(Path(guidelens.__file__).parent))


def cores(count: int | None = None) -> Finding:
    usable = count or len(os.sched_getaffinity(0))
    if usable < MIN_CORES:
        return Finding("cores", "problem", f"{usable}; the loop needs {MIN_CORES}", "use a machine or container with more CPUs")
    return Finding("cores", "ok", str(usable))


def memory(available_gb: float | None = None) -> Finding:
    """Available, not installed: other programs count. Containers are held to their own limit where the kernel names it."""
    free = _available_gb() if available_gb is None else available_gb
    if free < MIN_MEMORY_GB:
        return Finding(
            "memory", "problem", f"{free:.1f} GB available; the loop needs {MIN_MEMORY_GB:.0f}", "close programs, or use --preset smoke and smaller data"
        )
    return Finding("memory", "ok", f"{free:.1f} GB available")


def _available_gb() -> float:
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(fields["MemAvailable"].split()[0]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and (text := limit.read_text().strip()) != "max":
        free = min(free, int(text) - int(used.read_text()))
    return free / 1e9


def shared_memory(folder: Path = Path("/dev/shm")) -> Finding:  # the object store of Ray
    free = shutil.disk_usage(folder).free / 1e9 if folder.is_dir() else 0.0
    if free < MIN_SHARED_MEMORY_GB:
        return Finding(
            "shared memory",
            "problem",
            f"{free:.1f} GB in {folder}; Ray needs {MIN_SHARED_MEMORY_GB}",
            "in a container: --shm-size=2g, or an emptyDir of medium Memory",
        )
    return Finding("shared memory", "ok", f"{free:.1f} GB free in {folder}")


def gpus(wanted: bool) -> Finding:
    """What nvidia-smi lists; torch is not imported, its version says whether it can use them."""
    names = _gpu_names()
    if not names:
        missing = Finding("gpus", "problem", "none, and train.use_gpu is set", "--set train.use_gpu=false, or a machine with a GPU and its driver")
        return missing if wanted else Finding("gpus", "ok", "none: CPU")
    if metadata.version("torch").endswith("+cpu"):
        return Finding("gpus", "problem" if wanted else "note", f"{', '.join(names)}, but torch is a CPU build", "install torch of the same version with CUDA")
    return Finding("gpus", "ok", ", ".join(names))


def _gpu_names() -> list[str]:
    if not (program := shutil.which("nvidia-smi")):
        return []
    try:
        asked = subprocess.run([program, "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, timeout=3, check=True)
    except (subprocess.SubprocessError, OSError):
        return []
    return [line.strip() for line in asked.stdout.splitlines() if line.strip()]


def programs() -> Iterator[Finding]:
    for name, (without, remedy) in _PROGRAMS.items():
        where = shutil.which(name)
        yield Finding(name, "ok", where) if where else Finding(name, "note", f"not found: {without}", remedy)


def port(number: int) -> Finding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", number))
        except OSError as error:
            return Finding("port", "note", f"{number} is taken ({error.strerror})", "`guidelens serve --port N` with another one, or stop what holds it")
    return Finding("port", "ok", f"{number} is free")
