"""Known data sets mapped to the contracts; everything after an adapter is shared. One module a data set."""

from collections.abc import Callable
from pathlib import Path

from guidelens.data.adapters import grocery_store
from guidelens.data.adapters.source import AdaptedSource
from guidelens.errors import InputError

ADAPTERS: dict[str, Callable[[Path], AdaptedSource]] = {"grocery-store": grocery_store.load}


def load(name: str, path: Path) -> AdaptedSource:
    """The data set `name` at `path`.

    Raises:
        InputError: there is no such adapter, or the folder is not its data set.
    """
    if name not in ADAPTERS:
        raise InputError(f"--adapter must be one of {', '.join(sorted(ADAPTERS))}, got {name}")
    return ADAPTERS[name](path)
