"""What import-linter cannot see: `platform` stays the standard library's, and submodules of other packages have one importer.

import-linter knows an external package only as a whole, so that `ray.train` is invisible to it.
"""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("platform/guidelens", "pipelines", "serve", "feature_repo")
ONLY_IN: dict[str, str] = {"ray.train": "platform/guidelens/training/"}
"""Module: the one folder or file, from the root, whose code imports it."""


def problems(root: Path) -> Iterator[str]:
    """What is wrong with the layout of the repository at `root`; nothing in it is imported."""
    if (root / "platform/__init__.py").exists():
        yield "platform/__init__.py shadows the standard library's platform module; remove it"
    elif (origin := _platform_origin(root)).parent != Path(os.__file__).parent:
        yield f"`import platform` from the root must be the standard library's, got {origin}; remove what shadows it"
    for room in ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            relative = path.relative_to(root).as_posix()
            if "node_modules" not in relative:
                yield from _foreign_imports(path, relative)


def _platform_origin(folder: Path) -> Path:
    asked = subprocess.run([sys.executable, "-c", "import platform; print(platform.__file__)"], cwd=folder, capture_output=True, text=True, check=True)
    return Path(asked.stdout.strip())


def _foreign_imports(path: Path, relative: str) -> Iterator[str]:
    for line, module in imports(ast.parse(path.read_text())):
        for owned, owner in ONLY_IN.items():
            if (module == owned or module.startswith(f"{owned}.")) and not relative.startswith(owner):
                yield f"{relative}:{line} imports {module}; only {owner} may"


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every absolute import, at any depth; `from a import b` counts as `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


@click.command()
def main() -> None:
    """Check the layout of this repository."""
    found = list(problems(ROOT))
    for problem in found:
        click.echo(problem, err=True)
    click.echo(f"layout: {len(found)} problems")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
