"""What shoppers engage with beside a product of another category: the evidence of what goes with what. Reads rows, knows nothing of models."""

# Letters: N = products, P = pairs, R = rows, K = places of a slate.

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from guidelens.data.examples import Examples

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CATEGORY_LEVELS = 2
"""Partners differ within the first levels of their category: two kinds of apple are no outfit."""
WINDOW_US = 24 * 3_600_000_000
PURCHASE_WEIGHT = 5.0
CO_ENGAGED_WEIGHT = 0.25
"""Of two products engaged with in one slate or one day, beside 1 for what is engaged with while another is in focus: the latter is an
answer to it, the former often two answers to something third."""


class Pairs(NamedTuple):
    """(P,) each: anchor, a product of another category engaged with beside it, and how much that counts."""

    anchor: Ints
    partner: Ints
    weight: Floats


def engaged_pairs(examples: Examples, category_N: Ints, co_engaged: float = CO_ENGAGED_WEIGHT) -> Pairs:
    """Clicks and purchases beside a product of another category.

    Beside: while it is in focus; on one slate with it (both ways); within a day after it, by the same shopper.
    """
    found = list(_beside(examples, co_engaged)) or [(-1, -1, 0.0)]
    anchor, partner = (np.array(column, dtype=np.int64) for column in list(zip(*found, strict=True))[:2])
    weight = np.array([weight for *_, weight in found])
    across = (anchor >= 0) & (category_N[anchor] != category_N[partner]) & (weight > 0)
    return Pairs(anchor[across], partner[across], weight[across])


def _beside(examples: Examples, co_engaged: float) -> Iterator[tuple[int, int, float]]:
    clicked_RK = (examples.click > 0) & (examples.slate_rows >= 0)
    weight_RK = np.where(examples.purchase > 0, PURCHASE_WEIGHT, 1.0)
    recent: dict[str, deque[tuple[int, int]]] = {}
    for row in np.argsort(examples.ts_us, kind="stable").tolist():
        now, focus = int(examples.ts_us[row]), int(examples.focus_row[row])
        past = recent.setdefault(str(examples.shopper_key[row]), deque())
        while past and now - past[0][0] > WINDOW_US:
            past.popleft()
        here = [(int(examples.slate_rows[row, k]), float(weight_RK[row, k])) for k in np.flatnonzero(clicked_RK[row])]
        for partner, weight in here:
            if focus >= 0:
                yield focus, partner, weight
            for anchor in {other for _, other in past} | {other for other, _ in here}:
                if anchor not in (focus, partner):
                    yield anchor, partner, co_engaged * weight
        past.extend((now, partner) for partner, _ in here)


def category_numbers(categories: Sequence[str], levels: int = CATEGORY_LEVELS) -> Ints:
    """(N,) number of each product's category down to `levels` levels."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault("/".join(category.split("/")[:levels]), len(numbers)) for category in categories], dtype=np.int64)
