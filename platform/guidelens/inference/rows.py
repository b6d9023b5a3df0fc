"""One request of serving as a row of examples, so that serving reads its inputs by the code training reads them by."""

import dataclasses
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from guidelens.data.examples import Examples, empty


def request_row(
    packed: bytes | None,
    device: str,
    now_us: int,
    *,
    channel: str = "",
    focus_row: int = -1,
    frame_embedding: NDArray[np.float32] | None = None,
    query_embedding: NDArray[np.float32] | None = None,
) -> Examples:
    """(1 row) what is known of a request now."""
    base = empty(1, frames=_one(frame_embedding), queries=_one(query_embedding))
    return dataclasses.replace(
        base,
        ts_us=np.array([now_us], dtype=np.int64),
        hour=np.array([datetime.fromtimestamp(now_us / 1e6, UTC).hour], dtype=np.int8),
        packed=np.array([packed, None], dtype=object)[:1],
        device=np.array([device], dtype=object),
        channel=np.array([channel], dtype=object),
        focus_row=np.array([focus_row], dtype=np.int32),
        plan_row=np.array([focus_row], dtype=np.int32),
        frame_row=np.array([-1 if frame_embedding is None else 0], dtype=np.int32),
        query_row=np.array([-1 if query_embedding is None else 0], dtype=np.int32),
    )


def _one(embedding: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
    return None if embedding is None else np.ascontiguousarray(embedding, dtype=np.float32)[None]
