"""Which products bear which bar code, and what a code that was read says beside what a photo looks like."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from guidelens.data.images.barcodes import gtin

# Letters: K = products answered.

Rows = NDArray[np.int32]
Floats = NDArray[np.float32]
_NAMES = frozenset({"gtin", "ean", "ean13", "upc", "barcode", "barcodes", "条码", "条形码", "商品条码"})
"""Attributes and facts that hold bar codes, in any case: a text, a number, or a list of these."""
MISREAD = 1e-3
"""The chance that a code with a right check digit is another product's, or of something beside the one in view."""


class BarcodeIndex:
    """Product rows by GTIN. `unusable`: values that are no GTIN, by product row."""

    def __init__(self, values_by_row: Iterable[Sequence[str]]) -> None:
        self.unusable: dict[int, tuple[str, ...]] = {}
        self._rows_of: dict[str, list[int]] = {}
        for row, values in enumerate(values_by_row):
            for value in values:
                code = gtin(value)
                if code is None:
                    self.unusable[row] = (*self.unusable.get(row, ()), value)
                else:
                    self._rows_of.setdefault(code, []).append(row)

    @classmethod
    def of_items(cls, items: pl.DataFrame) -> "BarcodeIndex":
        """From the item table's attributes and facts."""
        columns = [items[name].to_list() if name in items.columns else [None] * len(items) for name in ("attributes_json", "facts_json")]
        return cls([value for text in texts for value in _values(text)] for texts in zip(*columns, strict=True))

    def __len__(self) -> int:
        return len(self._rows_of)

    def rows(self, codes: Sequence[str]) -> list[int]:
        """Products that bear one of these codes, each once, in order."""
        return sorted({row for code in codes for row in self._rows_of.get(code, ())})


def _values(text: str | None) -> list[str]:
    found: Mapping[str, Any] = json.loads(text) if text else {}
    held = [value for name, value in found.items() if name.strip().lower() in _NAMES]
    return [str(each) for value in held for each in (value if isinstance(value, list) else [value]) if each is not None and each != ""]


def with_barcodes(rows_K: Rows, confidences_K: Floats, coded: Sequence[int]) -> tuple[Rows, Floats]:
    """Products best first, and their chances, where products `coded` bear a code that was read: they share 1 - MISREAD as the image weighs them
    among themselves, all others the rest."""
    seen = dict(zip(rows_K.tolist(), confidences_K.tolist(), strict=True))
    least = max(1 - sum(seen.values()), 1e-6)
    weights = {row: seen.get(row, least) for row in coded}
    total, others = sum(weights.values()), {row: chance for row, chance in seen.items() if row not in weights}
    chances = {row: (1 - MISREAD) * weight / total for row, weight in weights.items()}
    chances |= {row: MISREAD * chance for row, chance in others.items()}
    best = sorted(chances.items(), key=lambda pair: (-pair[1], pair[0]))[: max(len(rows_K), len(coded))]
    return np.array([row for row, _ in best], dtype=np.int32), np.array([chance for _, chance in best], dtype=np.float32)
