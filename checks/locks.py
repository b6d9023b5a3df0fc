"""The locks: every package the project needs, pinned, with no index address, no file path and no local build tag.

`requirements.lock` holds what running needs, with the build backend; `requirements-dev.lock` adds what the checks and tests need.
`python -m checks.locks` compares them with pyproject.toml and with what is installed; `--write` makes them anew from what is installed.
"""

import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import click
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
RUNTIME, DEV = "requirements.lock", "requirements-dev.lock"
BUILD = ("editables",)
"""What an editable install without build isolation needs beside the build backend of pyproject.toml."""
_HEADER = "# Made by `make lock` from what is installed. Install with pip; `make setup` does.\n"


def roots(pyproject: Path) -> tuple[list[Requirement], list[Requirement]]:
    """The requirements that pyproject.toml names: of running and building, and of developing."""
    table = tomllib.loads(pyproject.read_text())
    project = table["project"]
    running = [*project["dependencies"], *table["build-system"]["requires"], *BUILD]
    return [Requirement(text) for text in running], [Requirement(text) for text in project["optional-dependencies"]["dev"]]


def closure(requirements: Iterable[Requirement]) -> dict[str, str]:
    """Public version by canonical name of everything the requirements bring, among what is installed here.

    Raises:
        PackageNotFoundError: one of them is not installed.
    """
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    queue = [(requirement, extra) for requirement in requirements for extra in ("", *requirement.extras)]
    while queue:
        requirement, extra = queue.pop()
        name = canonicalize_name(requirement.name)
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        installed = metadata.distribution(name)
        found[name] = Version(installed.version).public
        queue.extend((child, wanted) for child in _children(installed, extra) for wanted in ("", *child.extras))
    return found


def _children(installed: metadata.Distribution, extra: str) -> Iterator[Requirement]:
    for text in installed.requires or []:
        child = Requirement(text)
        if child.marker is None or child.marker.evaluate({"extra": extra}):
            yield child


def read(lock: Path) -> dict[str, str]:
    """Version by canonical name. A line that is no `name==version` ends up under its own text with no version."""
    pins = {}
    for line in lock.read_text().splitlines():
        text = line.partition("#")[0].strip()
        if text and not text.startswith("-r "):
            name, _, version = text.partition("==")
            pins[canonicalize_name(name) if version else text] = version
    return pins


def problems(root: Path) -> Iterator[str]:
    """What keeps the locks of a repository from saying what is installed and what pyproject.toml asks for."""
    running, developing = roots(root / "pyproject.toml")
    for requirement in [*running, *developing]:
        if requirement.name not in BUILD and not str(requirement.specifier).startswith("=="):
            yield f"pyproject.toml: {requirement.name} must be pinned with ==, got {str(requirement.specifier) or 'no version'}"
    needed = closure(running)
    yield from _differences(RUNTIME, read(root / RUNTIME), needed)
    yield from _differences(DEV, read(root / DEV), {name: version for name, version in closure(developing).items() if name not in needed})


def _differences(name: str, locked: dict[str, str], needed: dict[str, str]) -> Iterator[str]:
    for package in sorted(locked.keys() | needed.keys()):
        if package not in needed:
            yield f"{name}: {package} is locked but nothing needs it; run `make lock`"
        elif package not in locked:
            yield f"{name}: {package} {needed[package]} is needed but not locked; run `make lock`"
        elif locked[package] != needed[package]:
            yield f"{name}: {package} is locked at {locked[package]}, installed is {needed[package]}; run `make setup`, or `make lock` if the move is meant"


def write(root: Path) -> None:
    running, developing = roots(root / "pyproject.toml")
    needed = closure(running)
    extra = {name: version for name, version in closure(developing).items() if name not in needed}
    (root / RUNTIME).write_text(_HEADER + _lines(needed))
    (root / DEV).write_text(_HEADER + f"-r {RUNTIME}\n" + _lines(extra))


def _lines(pins: dict[str, str]) -> str:
    return "".join(f"{name}=={version}\n" for name, version in sorted(pins.items()))


@click.command()
@click.option("--write", "make_anew", is_flag=True, help="Make the locks anew from what is installed.")
def main(make_anew: bool) -> None:
    """Compare the locks with pyproject.toml and with what is installed."""
    if make_anew:
        write(ROOT)
    found = list(problems(ROOT))
    for problem in found:
        click.echo(problem, err=True)
    click.echo(f"locks: {len(read(ROOT / RUNTIME))} packages to run, {len(read(ROOT / DEV))} more to develop, {len(found)} problems")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
