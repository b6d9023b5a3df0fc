"""Several products in one frame: its halves and quarters looked at by themselves, and those kept that surely show different things.

Knows nothing of encoders, deadlines or requests.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guidelens.models.recognizer import Floats, Recognition, rooted
from guidelens.schemas.base import Frozen

# Letters: C = crops of one frame, D = embedding width.

Box = tuple[float, float, float, float]
"""left, top, right, bottom in shares of the upright frame."""

CROPS: tuple[Box, ...] = (
    (0.0, 0.0, 0.5, 1.0),
    (0.5, 0.0, 1.0, 1.0),
    (0.0, 0.0, 1.0, 0.5),
    (0.0, 0.5, 1.0, 1.0),
    (0.0, 0.0, 0.5, 0.5),
    (0.5, 0.0, 1.0, 0.5),
    (0.0, 0.5, 0.5, 1.0),
    (0.5, 0.5, 1.0, 1.0),
)


class RegionConfig(Frozen):
    """Chosen on development folds of grocery-store (ADR 0206).

    Attributes:
        min_confidence: of a crop's product, below which it is no region.
        max_likeness: cosine of the rooted embeddings of two crops above which they show one thing, whatever they are taken for.
    """

    min_confidence: float = 0.6
    max_likeness: float = 0.65


@dataclass(frozen=True)
class Region:
    """box: what of the frame shows the product. look: the answer to the crop that is surest of it."""

    box: Box
    look: Recognition

    @property
    def row(self) -> int:
        return int(self.look.product_rows[0])

    @property
    def confidence(self) -> float:
        return float(self.look.confidences[0])


def cropped(pixels: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """The part of (height, width, 3) that a box covers: a pixel at least."""
    height, width = pixels.shape[:2]
    left, top = int(box[0] * width), int(box[1] * height)
    return pixels[top : max(top + 1, round(box[3] * height)), left : max(left + 1, round(box[2] * width))]


def overlap(one: Box, other: Box) -> float:
    """Area that two boxes share, as a share of the smaller one's."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, wide) * max(0.0, high) / min(_area(one), _area(other))


def regions(whole: Recognition, looks: Sequence[Recognition], embeddings_CD: Floats, config: RegionConfig) -> tuple[Region, ...]:
    """What CROPS show, of at least two products apart, else nothing; first the one that answers for the frame.

    That is the product that the whole frame is taken for, where it is among them, else the surest one.

    Args:
        looks, embeddings_CD: of CROPS, in their order.
    """
    if not len(whole.product_rows):
        return ()
    rooted_CD = rooted(embeddings_CD)
    surest = sorted(range(len(looks)), key=lambda place: -float(looks[place].confidences[0]))
    sure = [place for place in surest if looks[place].in_catalogue and float(looks[place].confidences[0]) >= config.min_confidence]
    kept: list[int] = []
    for place in sure:
        if all(_apart(place, other, looks, rooted_CD, config) for other in kept):
            kept.append(place)
    if len(kept) < 2:
        return ()
    found = [Region(_widened(place, sure, kept, looks), looks[place]) for place in kept]
    return tuple(sorted(found, key=lambda region: region.row != int(whole.product_rows[0])))


def _apart(place: int, other: int, looks: Sequence[Recognition], rooted_CD: Floats, config: RegionConfig) -> bool:
    """Two crops show different products in different places."""
    differ = int(looks[place].product_rows[0]) != int(looks[other].product_rows[0])
    return differ and overlap(CROPS[place], CROPS[other]) == 0 and float(rooted_CD[place] @ rooted_CD[other]) <= config.max_likeness


def _widened(place: int, sure: Sequence[int], kept: Sequence[int], looks: Sequence[Recognition]) -> Box:
    """The crop's box, and with it the further ones that surely show its product and reach into no other region."""
    box = CROPS[place]
    for other in sure:
        wider = (*map(min, box[:2], CROPS[other][:2]), *map(max, box[2:], CROPS[other][2:]))
        is_free = all(overlap((wider[0], wider[1], wider[2], wider[3]), CROPS[each]) == 0 for each in kept if each != place)
        if is_free and int(looks[other].product_rows[0]) == int(looks[place].product_rows[0]):
            box = (wider[0], wider[1], wider[2], wider[3])
    return box


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
