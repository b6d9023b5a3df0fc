"""A shopper's packed row a moment later: new events counted into it, without reading the log.

Serving uses it between two materializations. Exact for what is new; for what was known before it may count too much in a
window, as single old events cannot leave it: the next materialization sets that right. Counts sessions that still go on,
which training rows do not: a shopper's own last minutes are worth more than that difference.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from guidelens.data.pseudonyms import PseudonymousEvent
from guidelens.schemas.events import EventType
from guidelens.schemas.ids import stable_hash
from guidelens.schemas.packed import (
    AR_COUNTS,
    AR_WINDOWS_H,
    NUM_RECENT,
    PACKED_DTYPE,
    PACKED_SCHEMA_VERSION,
    RECENT_VALUES,
    WINDOW_COUNTS,
    WINDOWS_H,
    decode,
)

SAME_VISIT_US = 30 * 60 * 1_000_000
_HOUR_US = 3_600_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_COUNTED = {
    EventType.IMPRESSION: "impressions",
    EventType.CLICK: "clicks",
    EventType.CART: "carts",
    EventType.PURCHASE: "purchases",
    EventType.AR_OPEN: "ar_opens",
    EventType.AR_GESTURE: "gestures",
}


def advanced(packed: bytes | None, events: Sequence[PseudonymousEvent]) -> bytes:
    """The packed row with `events` (of this one shopper, not counted before) in it; a new row where there was none.

    Its as_of is later than before and later than the events. A visit is the same if it is of the same product within
    SAME_VISIT_US, as sessions are not in the row.

    Raises:
        ValueError: the row has another schema version.
    """
    row = decode([packed])[0][0] if packed is not None else _unknown_shopper()
    before = int(row["as_of_us"])
    known_us = [max(_us(event.event_ts), _us(event.created_ts or event.event_ts)) for event in events]
    row["as_of_us"] = max(before, *known_us) + 1 if known_us else before
    _expire(row, int(row["as_of_us"]) - before)
    # What opens a visit first, then the browsing that led to it.
    for event in sorted(events, key=lambda event: (event.type is EventType.IMPRESSION, event.event_ts, event.event_id)):
        values = _values(event)
        _count(row["windows"].reshape(len(WINDOWS_H), -1), WINDOWS_H, WINDOW_COUNTS, values, int(row["as_of_us"]) - _us(event.event_ts))
        _count(row["ar"].reshape(len(AR_WINDOWS_H), -1), AR_WINDOWS_H, AR_COUNTS, values, int(row["as_of_us"]) - _us(event.event_ts))
        if event.product_id is not None:
            _visit(row, stable_hash(event.product_id), _us(event.event_ts), values)
    return bytes(row.tobytes())


def _unknown_shopper() -> np.void:
    row = np.zeros(1, dtype=PACKED_DTYPE)
    row["version"] = PACKED_SCHEMA_VERSION
    row["profile_values"] = np.nan
    found: np.void = row[0]
    return found


def _us(moment: datetime) -> int:
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _values(event: PseudonymousEvent) -> dict[str, float]:
    """What the event adds to each count."""
    values = {"browse_ms": event.browse_ms, "stay_ms": event.stay_ms, "depth": event.depth, "view_ms": event.view_ms}
    found = {name: float(value) for name, value in values.items() if value}
    if event.type in _COUNTED:
        found[_COUNTED[event.type]] = 1.0
    if event.type is EventType.STEP_OUTCOME and event.outcome is not None:
        found[f"outcome_{event.outcome.value}"] = 1.0
    return found


def _expire(row: np.void, elapsed_us: int) -> None:
    """Empties the windows that lie wholly after the row's old as_of."""
    for sums, hours in ((row["windows"].reshape(len(WINDOWS_H), -1), WINDOWS_H), (row["ar"].reshape(len(AR_WINDOWS_H), -1), AR_WINDOWS_H)):
        for k, window in enumerate(hours):
            if elapsed_us >= window * _HOUR_US:
                sums[k] = 0


def _count(sums: NDArray[np.float32], hours: Sequence[int], names: Sequence[str], values: dict[str, float], age_us: int) -> None:
    for k, window in enumerate(hours):
        if age_us < window * _HOUR_US:
            for name, value in values.items():
                if name in names:
                    sums[k, names.index(name)] += value


def _visit(row: np.void, product: int, ts_us: int, values: dict[str, float]) -> None:
    """Adds to the product's visit of the last minutes, else puts a new one in front; mere browsing makes none."""
    added = np.array([values.get(name, 0.0) for name in RECENT_VALUES], dtype=np.float32)
    num = int(row["num_recent"])
    products, times, recent = row["recent_products"], row["recent_ts_us"], row["recent_values"]
    same = np.nonzero((products[:num] == product) & (np.abs(times[:num] - ts_us) <= SAME_VISIT_US))[0]
    if len(same) == 0:
        if not any(values.get(name) for name in RECENT_VALUES if name != "browse_ms"):
            return
        for column, value in ((products, product), (times, ts_us), (recent, added)):
            column[1:] = column[:-1].copy()
            column[0] = value
        row["num_recent"] = num = min(num + 1, NUM_RECENT)
    else:
        recent[same[0]] += added
        times[same[0]] = max(int(times[same[0]]), ts_us)
    order = np.argsort(-times[:num], kind="stable")
    for column in (products, times, recent):
        column[:num] = column[:num][order].copy()
