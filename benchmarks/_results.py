"""How a benchmark's figures are kept: NAME.json and NAME.md in benchmarks/results, with machine and date. No script of its own."""

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from guidelens.schemas.base import Frozen


def machine() -> str:
    return f"{os.cpu_count()} logical CPUs, {platform.machine()}, Python {platform.python_version()}"


def today() -> str:
    """UTC, YYYY-MM-DD."""
    return datetime.now(UTC).date().isoformat()


def keep(found: Frozen, page: str, out: Path, name: str) -> None:
    """Writes the figures and the page about them into `out`, and prints the page."""
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(found.model_dump(mode="json"), indent=1) + "\n")
    (out / f"{name}.md").write_text(page)
    print(page)
