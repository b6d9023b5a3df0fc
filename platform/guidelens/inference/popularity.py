"""How often products were taken in the log that a fit was made from: popularity.json."""

# Letters: N = products.

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from guidelens.errors import BundleError

POPULARITY = "popularity.json"


class Popular(NamedTuple):
    """(N,) in the item table's order; zeros where there was no log. weights_N: events by how much they say. clicks_N: None in a fit of an
    earlier GuideLens, which did not count them."""

    weights_N: NDArray[np.float32]
    clicks_N: NDArray[np.int64] | None


def write_popularity(folder: Path, weights: Sequence[float], clicks: Sequence[int]) -> None:
    (folder / POPULARITY).write_text(json.dumps({"popularity": list(weights), "clicks": list(clicks)}))


def read_popularity(folder: Path, num_products: int) -> Popular:
    """What `write_popularity` wrote.

    Raises:
        BundleError: it cannot be read, or counts another number of products.
    """
    path = folder / POPULARITY
    try:
        found = json.loads(path.read_text())
        weights_N = np.array(found["popularity"], dtype=np.float32)
        clicks_N = np.array(found["clicks"], dtype=np.int64) if "clicks" in found else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path}: cannot be read: {error!r}") from error
    for counts in (weights_N, clicks_N):
        if counts is not None and counts.shape != (num_products,):
            raise BundleError(f"{path}: must count the {num_products} products of the item table, got {counts.shape}; build the release again")
    return Popular(weights_N, clicks_N)
