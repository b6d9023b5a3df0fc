"""Known data sets mapped to the contracts; everything after an adapter is shared. One module a data set."""

from collections.abc import Callable
from pathlib import Path

from guidelens.data.adapters import amazon_beauty, grocery_store, movielens, open_bandit
from guidelens.data.adapters.source import DataSet
from guidelens.errors import InputError

ADAPTERS: dict[str, Callable[[Path], DataSet]] = {
    "amazon-beauty": amazon_beauty.load,
    "grocery-store": grocery_store.load,
    "movielens": movielens.load,
    "open-bandit": open_bandit.load,
}


def load(name: str, path: Path) -> DataSet:
    """The data set `name` at `path`.

    Raises:
        InputError: there is no such adapter, or the folder is not its data set.
    """
    if name not in ADAPTERS:
        raise InputError(f"--adapter must be one of {', '.join(sorted(ADAPTERS))}, got {name}")
    return ADAPTERS[name](path)
