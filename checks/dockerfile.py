"""What can be known of the Dockerfile without an engine to build it: base versions, what it copies, whom it runs as."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.specifiers import SpecifierSet


def problems(root: Path) -> Iterator[str]:
    """What is wrong with `root`'s Dockerfile; sources are looked up in `root`, except those of another stage."""
    lines = [line.strip() for line in re.sub(r"\\\n", " ", (root / "Dockerfile").read_text()).splitlines()]
    words = [shlex.split(line) for line in lines if line and not line.startswith("#")]
    accepted = SpecifierSet(tomllib.loads((root / "pyproject.toml").read_text())["project"]["requires-python"])
    for instruction, *rest in words:
        if instruction == "FROM":
            yield from _base_problems(rest[0], accepted)
        elif instruction == "COPY" and not any(word.startswith("--from") for word in rest):
            sources = [word for word in rest[:-1] if not word.startswith("--")]
            yield from (f"Dockerfile copies {source}, which does not exist" for source in sources if not (root / source).exists())
    last_user = next((rest[0] for instruction, *rest in reversed(words) if instruction in {"USER", "FROM"}), "root")
    if not last_user.isdigit() or int(last_user) == 0:
        yield f"Dockerfile's last stage must end with a numeric USER other than 0, for runAsNonRoot to hold; got {last_user}"


def _base_problems(image: str, accepted: SpecifierSet) -> Iterator[str]:
    name, _, tag = image.partition(":")
    if not tag or tag == "latest":
        yield f"Dockerfile: base {image} must name a version"
    elif name == "python" and not accepted.contains(f"{tag.partition('-')[0]}.0"):
        yield f"Dockerfile: base {image} is no Python {accepted}"
