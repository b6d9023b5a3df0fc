"""What fusion and ranker take and give: small arrays and ids."""

# Letters: D = width, C = candidates, K = places of the slate, L = steps so far.

from dataclasses import dataclass, field
from enum import IntFlag

import numpy as np
from numpy.typing import NDArray

from guidelens.schemas.guide import RuleEffect

Floats = NDArray[np.float32]
Rows = NDArray[np.int32]


class Source(IntFlag):
    """Where a candidate came from. EXACT: its title is what was asked for in words.

    The three highest bits hold the relevance of a search hit in eighths (`with_relevance`, `relevance`).
    """

    RETRIEVAL = 1
    SEARCH = 2
    SIMILAR = 4
    POPULAR = 8
    EXACT = 16


_RELEVANCE_SHIFT = 5


def with_relevance(relevance: Floats) -> NDArray[np.uint8]:
    """Relevance in [0, 1] as the highest bits of sources."""
    levels: NDArray[np.uint8] = (np.minimum(relevance * 8, 7).astype(np.uint8) << _RELEVANCE_SHIFT).astype(np.uint8)
    return levels


def relevance_of(source: NDArray[np.uint8]) -> Floats:
    """What `with_relevance` kept, in [0, 1]."""
    return ((source >> _RELEVANCE_SHIFT) / 7).astype(np.float32)


@dataclass(frozen=True)
class FusionInput:
    """packed: the shopper's packed row or None. frame_embedding: (1280,) or None. recognized_*: best first, maybe empty.

    focus_row: the product in view, recognized or opened before; -1 for none.
    """

    packed: bytes | None
    frame_embedding: Floats | None
    text: str | None
    recognized_rows: Rows
    recognized_confidences: Floats
    device: str
    channel: str
    now_us: int
    locale: str
    focus_row: int = -1


@dataclass(frozen=True)
class FusionOutput:
    """intent: (D,). candidate_rows, candidate_scores, source: (C,), best first; scores are retrieval logits.

    intent_label: "search" | "buy" | "compare" | "browse" (inference/fusion.py states the rule). query_embedding: (512,) of the text,
    None without one. partner_rows: products that go with the one in view, best first; None where this release does not know.
    """

    intent: Floats
    candidate_rows: Rows
    candidate_scores: Floats
    source: NDArray[np.uint8]
    intent_label: str
    query_embedding: Floats | None = None
    partner_rows: Rows | None = None


@dataclass(frozen=True)
class SessionState:
    """The guide steps a session has seen, each (L,): indices of schemas/steps.py; an outcome may be UNKNOWN_OUTCOME."""

    steps: NDArray[np.integer] = field(default_factory=lambda: np.zeros(0, np.int8))
    outcomes: NDArray[np.integer] = field(default_factory=lambda: np.zeros(0, np.int8))
    view_ms: NDArray[np.floating] = field(default_factory=lambda: np.zeros(0, np.float32))
    gestures: NDArray[np.integer] = field(default_factory=lambda: np.zeros(0, np.int16))


@dataclass(frozen=True)
class RankInput:
    """focus_row: the product in view, -1 for none. seed: of the exploration draws. in_stock: (N,) bool, None where unknown.

    price_minor: (N,) prices of now, NaN where not known; None takes the release's. frame_embedding, recognized_row, channel, text: as the
    request was fused, to say why and to see which rules hold.
    """

    fusion: FusionOutput
    packed: bytes | None
    focus_row: int
    session: SessionState
    device: str
    num: int
    seed: int
    now_us: int
    locale: str
    in_stock: NDArray[np.bool_] | None = None
    price_minor: NDArray[np.floating] | None = None
    frame_embedding: Floats | None = None
    recognized_row: int = -1
    channel: str = ""
    text: str | None = None


@dataclass(frozen=True)
class RankOutput:
    """A slate (K,), best first, and the next guide steps.

    scores: share of each candidate's ranking weight, in [0, 1]. interest, click, purchase: None where no model learned them; the latter
    are calibrated chances at a mean place. propensities: exact chance of each product at its place, given those before; 1 where a rule
    pinned it. steps: (step, propensity, product row); shown_with: the product rows that each step shows beside it. effects: of the
    shop's rules that acted.
    """

    rows: Rows
    scores: Floats
    interest: Floats | None
    propensities: Floats
    reasons: list[list[str]]
    steps: list[tuple[str, float, int]]
    say: list[str]
    shown_with: list[tuple[int, ...]] = field(default_factory=list)
    click: Floats | None = None
    purchase: Floats | None = None
    pinned_by: tuple[str | None, ...] = ()
    effects: tuple[RuleEffect, ...] = ()
