"""What ingest says of records that it takes nevertheless: fields it does not know, clocks that are wrong, products not in the catalogue."""

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

SEPARATOR = "\n"
_NAME_CHARACTERS = 64
SKEWED = "created_ts before event_ts"
UNKNOWN_PRODUCT = "product not in the catalogue"


def unknown_field(name: str) -> str:
    """The remark on a filled field that the contract does not know, and so ignores."""
    return f"unknown field {' '.join(name[:_NAME_CHARACTERS].split())}"


def joined(remarks: Sequence[str]) -> str | None:
    """One record's remarks as the staged column holds them."""
    return SEPARATOR.join(remarks) or None


def count_remarks(remarks: pa.ChunkedArray) -> dict[str, int]:
    """How many records each remark of the staged column is made on."""
    counts: Counter[str] = Counter()
    for group in remarks.drop_null().value_counts().to_pylist():
        for remark in group["values"].split(SEPARATOR):
            counts[remark] += group["counts"]
    return dict(counts)
