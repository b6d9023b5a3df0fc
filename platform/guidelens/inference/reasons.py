"""From what moved a product's score to a few short reasons. A reason is given only for an input that raised it."""

# Letters: C = products, I = inputs, H = recent visits.

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from guidelens.inference.explain import Explanation
from guidelens.inference.messages import Source
from guidelens.inference.words import MAX_REASONS

MIN_EFFECT = 0.1
"""Nats a reason must have added to a product's lead: a tenth more chance. Less is not worth a shopper's glance."""
SINGLE_VISIT_SHARE = 0.5
"""Of what all visits together added, what one must have added by itself to be named."""
DIRECT_SHARE = 0.5
"""Of what a frame or a product in view added, what its likeness must have made up to be called one."""


class Reason(NamedTuple):
    """`key` of words.REASONS; `about`: the product row that it names, -1 where it names none; `effect` in nats, NaN where not measured."""

    key: str
    about: int
    effect: float


DISCOVER = Reason("discover", -1, float("nan"))
"""Of a product that neither an input raised nor a source nominated: the draw put it there."""


def reasons_of(explained: Explanation, rows_C: NDArray[np.integer]) -> list[list[Reason]]:
    """Of each product, the inputs that raised its lead most, then its general appeal; none where nothing did."""
    effects_IC, visit_effects_HC = explained.effects(), explained.visit_effects()
    out = []
    for product, row in enumerate(rows_C.tolist()):
        raised = [number for number in range(len(explained.inputs)) if effects_IC[number, product] >= MIN_EFFECT]
        found = [
            _of_visits(explained, visit_effects_HC[:, product], row, float(effects_IC[number, product]))
            if explained.inputs[number] == "visits"
            else _of_input(explained.inputs[number], float(effects_IC[number, product]), float(explained.direct_IC[number, product]))
            for number in raised
        ]
        found.sort(key=lambda one: -one.effect)
        stranger = float(explained.stranger_C[product])
        found += [Reason("popular", -1, stranger)] if stranger >= MIN_EFFECT else []
        out.append(found[:MAX_REASONS])
    return out


def _of_input(name: str, effect: float, direct: float) -> Reason:
    looks_alike = name in ("frame", "focus") and direct >= DIRECT_SHARE * effect
    return Reason(f"looks_like_{name}" if looks_alike else name, -1, effect)


def _of_visits(explained: Explanation, effects_H: NDArray[np.floating], row: int, effect: float) -> Reason:
    """The one visit that did most of it, by name, else all of them."""
    best = int(np.argmax(effects_H)) if len(effects_H) else -1
    if best < 0 or effects_H[best] < max(MIN_EFFECT, SINGLE_VISIT_SHARE * effect):
        return Reason("visits", -1, effect)
    visited = int(explained.visits_H[best])
    return Reason("same_visit", -1, effect) if visited == row else Reason("visit", visited, effect)


def reasons_of_sources(sources_C: NDArray[np.uint8], is_focus_C: NDArray[np.bool_]) -> list[list[Reason]]:
    """Without a guide model: what the content score is made of."""
    keys = ((Source.SEARCH, "query"), (Source.SIMILAR, "similar"), (Source.POPULAR, "popular"))
    return [
        [Reason(key, -1, float("nan")) for bit, key in keys if source & bit and not (key == "similar" and is_focus)]
        for source, is_focus in zip(sources_C.tolist(), is_focus_C.tolist(), strict=True)
    ]
