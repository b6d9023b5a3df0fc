"""Parts of the test requests that an average hides: new shoppers, searches, devices without AR."""

import numpy as np
from numpy.typing import NDArray

from guidelens.data.examples import Examples
from guidelens.evaluation.bootstrap import mean_interval
from guidelens.evaluation.report import Slice
from guidelens.schemas.packed import decode

MIN_REQUESTS = 30


def slices(examples: Examples) -> dict[str, NDArray[np.bool_]]:
    """(R,) masks by name. A shopper is new while no visit of theirs was known at request time."""
    known = decode(list(examples.packed))[0]["num_recent"] > 0
    scanned, searched = examples.frame_row >= 0, examples.query_row >= 0
    return {
        "new shoppers": ~known,
        "known shoppers": known,
        "started by a scan": scanned,
        "started by a search": searched & ~scanned,
        "started from the feed": ~scanned & ~searched,
        "devices without AR": examples.device == "none",
    }


def sliced(examples: Examples, ndcg_R: NDArray[np.floating], *, num_bootstrap: int, seed: int) -> tuple[Slice, ...]:
    """NDCG@10 of each slice, with an interval over shoppers; null where a slice has fewer than MIN_REQUESTS requests."""
    found = []
    for name, mask in slices(examples).items():
        enough = int(mask.sum()) >= MIN_REQUESTS
        interval = mean_interval(ndcg_R[mask], num_bootstrap=num_bootstrap, seed=seed, clusters_R=examples.shopper_key[mask].astype(str)) if enough else None
        found.append(Slice(name=name, requests=int(mask.sum()), ndcg=interval))
    return tuple(found)
