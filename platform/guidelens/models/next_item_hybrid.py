"""The next-item recommender: what a sequence encoder, the item graph, neighbours and attributes each know, as one.

Encoders and graph read the training part; validation events set nothing but how loud each part is. The settings here were chosen once
on the validation part of one data set (docs/recommenders.md) and are meant to be used unchanged on others.
"""

# Letters: N = products, F = attributes.

import numpy as np
from scipy.sparse import csr_matrix

from guidelens.models.baselines.hybrid import Hybrid
from guidelens.models.baselines.neighbours import UserKnn, content, item_knn
from guidelens.models.baselines.popularity import Popularity
from guidelens.models.baselines.recommender import Recommender
from guidelens.models.baselines.transitions import transitions
from guidelens.models.histories import Histories
from guidelens.models.next_item import NextItemConfig, Progress, fit_next_item
from guidelens.schemas.base import Frozen

MAX_VALIDATION_ROWS = 8000


class RecipeConfig(Frozen):
    """encoders: one is trained of each, from a seed of its own; what they get wrong differs, so that together they know more."""

    encoders: tuple[NextItemConfig, ...] = (NextItemConfig(), NextItemConfig(), NextItemConfig(width=96, num_layers=1, epochs=16))


def classic_parts(train: Histories, attributes_NF: csr_matrix) -> dict[str, Recommender]:
    """What needs no gradient: seconds each."""
    return {
        "popularity": Popularity.fit(train),
        "item_knn": item_knn(train, decay=0.8),
        "user_knn": UserKnn.fit(train, decay=0.9),
        "attributes": content(attributes_NF, rare_counts_more=True, decay=0.6),
        "transitions": transitions(train),
        "around": transitions(train, gap_decay=0.6, backward=1.0, decay=0.8),
    }


def encoder_parts(train: Histories, attributes_NF: csr_matrix, config: RecipeConfig, *, seed: int, progress: Progress) -> dict[str, Recommender]:
    """A trained encoder of each configuration, `encoder_0` first."""
    found: dict[str, Recommender] = {}
    for number, shape in enumerate(config.encoders):
        name = f"encoder_{number}"
        told = _prefixed(progress, f"{name} ({shape.encoder})")
        found[name] = fit_next_item(train, attributes_NF, shape, seed=seed * len(config.encoders) + number, progress=told)
    return found


def _prefixed(progress: Progress, name: str) -> Progress:
    return lambda said: progress(f"{name}: {said}")


def mixed(parts: dict[str, Recommender], train: Histories, val_targets: Histories, *, seed: int) -> Hybrid:
    """The parts, as loud as `MAX_VALIDATION_ROWS` drawn validation events say."""
    rng = np.random.Generator(np.random.Philox(key=seed))
    rows = rng.permutation(len(train))[:MAX_VALIDATION_ROWS]
    return Hybrid.fit(parts, train.take(rows), val_targets.take(rows))
