"""What a recognizer takes for what: every pair of a product shown and another one answered, with photos of it, so that a person sees what fails.

Knows nothing of where pictures lie.
"""

import base64
from collections.abc import Callable, Sequence

from guidelens.data.images.decoding import thumbnail, upright_pixels
from guidelens.evaluation.recognition import Prediction, ShownProduct
from guidelens.evaluation.report import MissClass, MissExample

NUM_EXAMPLES = 3
EXAMPLE_PX = 96
MAX_CLASSES = 300
"""The most frequent ones, in a catalogue that has more: a page that a browser still opens."""
Picture = Callable[[str], bytes | None]
"""JPEG, PNG or WebP bytes by path or product_id; None where there is no picture."""


def miss_classes(scored: Sequence[Prediction], products: Sequence[ShownProduct], of_photo: Picture, of_product: Picture) -> tuple[MissClass, ...]:
    """Of photos answered with another product, and of those answered rightly but held to be none of the catalogue; the most frequent first.

    Of each the answers that were surest, which did the most harm, are shown.
    """
    titles = {product.product_id: product.title for product in products}
    missed: dict[tuple[str, str | None], list[Prediction]] = {}
    for one in scored:
        if one.predicted != one.product_id:
            missed.setdefault((one.product_id, one.predicted), []).append(one)
        elif not one.in_catalogue:
            missed.setdefault((one.product_id, None), []).append(one)
    ordered = sorted(missed.items(), key=lambda item: (-len(item[1]), titles[item[0][0]], item[0][1] or ""))[:MAX_CLASSES]
    return tuple(
        MissClass(
            shown=titles[shown],
            answered=None if answered is None else titles[answered],
            photos=len(photos),
            of_photos=sum(one.product_id == shown for one in scored),
            picture=None if answered is None else _uri(of_product(answered)),
            examples=tuple(
                MissExample(path=one.path, confidence=round(one.confidence, 4), in_catalogue=one.in_catalogue, picture=_uri(of_photo(one.path)))
                for one in sorted(photos, key=lambda one: (-one.confidence, one.path))[:NUM_EXAMPLES]
            ),
        )
        for (shown, answered), photos in ordered
    )


def _uri(data: bytes | None) -> str | None:
    """A small picture as text that a page holds in itself."""
    if data is None:
        return None
    return "data:image/jpeg;base64," + base64.b64encode(thumbnail(upright_pixels(data), EXAMPLE_PX)).decode()
