"""The next-item recommender: what sequence encoders, the item graph, neighbours and attributes each know, as one.

Encoders and graphs read the training part; validation events set nothing but how the parts' answers are put together. The settings here were
chosen once on the validation part of one data set (docs/recommenders.md) and are meant to be used unchanged on others.
"""

# Letters: N = products, F = attributes.

import numpy as np
from scipy.sparse import csr_matrix

from guidelens.models.baselines.neighbours import UserKnn, content, item_knn
from guidelens.models.baselines.recommender import AtAge, ItemToItem, Recommender, Standing
from guidelens.models.baselines.stacked import StackConfig, Stacked
from guidelens.models.baselines.transitions import transitions
from guidelens.models.histories import Histories
from guidelens.models.next_item import NextItem, NextItemConfig, Progress, fit_next_item
from guidelens.schemas.base import Frozen

MAX_VALIDATION_ROWS = 40_000
_LATE_PRIOR_EVENTS = 4.0


class RecipeConfig(Frozen):
    """encoders: one is trained of each, from a seed of its own; what they get wrong differs, so that together they know more."""

    encoders: tuple[NextItemConfig, ...] = (NextItemConfig(), NextItemConfig(thinning=0.0))
    stack: StackConfig = StackConfig()


def likeness(attributes_NF: csr_matrix) -> ItemToItem:
    """Products alike by their attributes. The largest thing here where many products share one; `classic_parts` and `signals` hold it between them."""
    return content(attributes_NF, rare_counts_more=True)


def classic_parts(train: Histories, alike: ItemToItem) -> dict[str, Recommender]:
    """What needs no gradient and can nominate products: seconds each. alike: see `likeness`."""
    return {
        "item_knn": item_knn(train, decay=0.8),
        "user_knn": UserKnn.fit(train, decay=0.9),
        "attributes": ItemToItem(alike.weights, decay=0.6),
        "transitions": transitions(train),
        "around": transitions(train, gap_decay=0.6, backward=1.0, decay=0.8),
    }


def signals(train: Histories, alike: ItemToItem) -> dict[str, Recommender]:
    """What tells candidates apart: how common and how recently taken each is, and what the last events say of it one by one."""
    counts_N = np.bincount(train.products, minlength=train.num_products).astype(np.float32)
    newest = train.at_age(0)
    last_N = np.bincount(newest[newest >= 0], minlength=train.num_products).astype(np.float32)
    near = transitions(train, gap_decay=0.6, backward=0.5)
    return {
        "count": Standing(counts_N + 1),
        "late": Standing((last_N + 1) / (counts_N + _LATE_PRIOR_EVENTS)),
        "attributes_of_all": alike,
        "around_all": transitions(train, backward=1.0, decay=1.0),
        "next_by_share": AtAge(transitions(train, gap_decay=0.0, damping=1.0), 0),
        "after_by_share": AtAge(transitions(train, damping=1.0), 0),
        **{f"near_{age}": AtAge(near, age) for age in range(3)},
        **{f"attributes_{age}": AtAge(alike, age) for age in range(3)},
    }


def encoder(train: Histories, attributes_NF: csr_matrix, config: RecipeConfig, number: int, *, seed: int, progress: Progress) -> NextItem:
    """The trained encoder of one of the configurations; independent of the others, so that they can be trained side by side."""
    shape = config.encoders[number]
    name = f"encoder_{number} ({shape.encoder})"
    return fit_next_item(train, attributes_NF, shape, seed=seed * len(config.encoders) + number, progress=lambda said: progress(f"{name}: {said}"))


def stacked(
    train: Histories, val_targets: Histories, attributes_NF: csr_matrix, encoders: list[NextItem], config: RecipeConfig, *, seed: int, progress: Progress
) -> Stacked:
    """Encoders, classic parts and signals as one, learned on at most `MAX_VALIDATION_ROWS` drawn validation events."""
    alike = likeness(attributes_NF)
    parts = classic_parts(train, alike) | {f"encoder_{number}": one for number, one in enumerate(encoders)}
    rng = np.random.Generator(np.random.Philox(key=seed))
    rows = rng.permutation(len(train))[:MAX_VALIDATION_ROWS]
    asked, wanted = train.take(rows), val_targets.take(rows)
    return Stacked.fit(parts, signals(train, alike), asked, wanted, config.stack, seed=seed, progress=progress)
