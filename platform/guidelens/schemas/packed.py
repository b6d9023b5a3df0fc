"""The packed shopper row: every online shopper feature in one fixed-size binary value (one read, one decode).

Feast stores it as one `bytes` feature; training decodes the same bytes, so serving and training cannot disagree.
The detail views (profile, windows, recent, AR) hold the same numbers by name, for people and for other models.
"""

import numpy as np
from numpy.typing import NDArray

from guidelens.schemas.events import EventType

PACKED_SCHEMA_VERSION = 1
NUM_RECENT = 20
WINDOWS_H = (1, 24, 168, 720)

PROFILE_FIELDS = ("age_band", "gender", "region", "body", "skin_tone", "channel")
PROFILE_VALUES = ("height_cm", "tenure_days")
WINDOW_COUNTS = ("browse_ms", "stay_ms", "depth", "impressions", "clicks", "carts", "purchases")
AR_WINDOWS_H = (168, 720)
AR_COUNTS = ("ar_opens", "view_ms", "gestures", "outcome_none", "outcome_engaged", "outcome_cart", "outcome_purchase", "outcome_left")
TYPE_OF_COUNT = {
    "impressions": EventType.IMPRESSION,
    "clicks": EventType.CLICK,
    "carts": EventType.CART,
    "purchases": EventType.PURCHASE,
    "ar_opens": EventType.AR_OPEN,
    "gestures": EventType.AR_GESTURE,
}
"""Counts that are numbers of events, with the type that they count."""
RECENT_VALUES = ("browse_ms", "stay_ms", "depth", "view_ms", "clicks", "carts", "purchases", "gestures")

WINDOW_FEATURES = tuple(f"{name}_{hours}h" for hours in WINDOWS_H for name in WINDOW_COUNTS)
AR_FEATURES = tuple(f"{name}_{hours}h" for hours in AR_WINDOWS_H for name in AR_COUNTS)

PACKED_DTYPE = np.dtype(
    [
        ("version", "<i4"),
        ("num_recent", "<i4"),
        ("as_of_us", "<i8"),
        ("profile_ids", "<i8", (len(PROFILE_FIELDS),)),
        ("profile_values", "<f4", (len(PROFILE_VALUES),)),
        ("windows", "<f4", (len(WINDOW_FEATURES),)),
        ("ar", "<f4", (len(AR_FEATURES),)),
        ("recent_products", "<i8", (NUM_RECENT,)),
        ("recent_ts_us", "<i8", (NUM_RECENT,)),
        ("recent_values", "<f4", (NUM_RECENT, len(RECENT_VALUES))),
    ]
)
"""One shopper at one time. `profile_ids` and `recent_products` are `stable_hash` of the strings, 0 where missing;
`profile_values` NaN where missing; windows and AR hold plain sums over the half-open window (as_of - h, as_of];
`recent_*` are the newest visits, newest first, zero past `num_recent`."""


def decode(rows: list[bytes | None]) -> tuple[NDArray[np.void], NDArray[np.bool_]]:
    """Packed values as one (B,) structured array, and a (B,) mask of the rows that were there (zeros elsewhere).

    Raises:
        ValueError: a value has another size or schema version than PACKED_DTYPE.
    """
    known = np.array([row is not None for row in rows], dtype=np.bool_)
    decoded = np.zeros(len(rows), dtype=PACKED_DTYPE)
    present = [row for row in rows if row is not None]
    if any(len(row) != PACKED_DTYPE.itemsize for row in present):
        sizes = sorted({len(row) for row in present})
        raise ValueError(f"a packed shopper row must have {PACKED_DTYPE.itemsize} bytes (schema {PACKED_SCHEMA_VERSION}), got {sizes}; materialize again")
    if present:
        decoded[known] = np.frombuffer(b"".join(present), dtype=PACKED_DTYPE)
        versions = np.unique(decoded["version"][known])
        if versions.tolist() != [PACKED_SCHEMA_VERSION]:
            raise ValueError(f"packed shopper rows must have schema {PACKED_SCHEMA_VERSION}, got {versions.tolist()}; materialize again")
    return decoded, known
