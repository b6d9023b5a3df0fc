"""What travels between the deployments: bytes, small numpy arrays and ids. Knows nothing of Ray, HTTP or torch.

Every call carries the release it is meant for; a replica that holds another one refuses it (`ReleaseMismatchError`).
Letters: D = width of the intent, C = candidates, K = recognized products, L = guide steps already shown.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from guidelens.errors import GuideLensError
from guidelens.schemas.guide import Evidence, RuleEffect

Rows = NDArray[np.int32]
Floats = NDArray[np.float32]


class ReleaseMismatchError(GuideLensError):
    """A hop was asked for another release than its replica holds."""


@dataclass(frozen=True, slots=True)
class RecognizeCall:
    """Exactly one of `frame` (JPEG, PNG or WebP bytes) and `embedding` (made on the device: (1280,), or (2560,) with the tuned one) is set. budget_s: what may be
    spent on it. regions: several products are to be told apart."""

    release: str
    frame: bytes | None
    embedding: Floats | None
    budget_s: float = math.inf
    regions: bool = False


@dataclass(frozen=True, slots=True)
class RegionFound:
    """box: left, top, right, bottom in shares of the upright frame."""

    box: tuple[float, float, float, float]
    row: int
    confidence: float


@dataclass(frozen=True, slots=True)
class RecognizeReply:
    """embedding: (1280,). rows, confidences: (K,), best first; calibrated, given that the frame shows one of the catalogue.

    in_catalogue: None where this release has no recognizer. family_row: a product of the likeliest category, -1 where none is known.
    lacks_photo: the release would have told more from a frame than from the embedding that was sent. margin: evidence above what `in_catalogue` needs.
    codes: GTINs read in the frame, known or not. texts: lines read in it. evidence: what the answer rests on. regions: of a frame with several products,
    whose first one `rows` answers for; None where they were not looked for.
    """

    embedding: Floats
    in_catalogue: bool | None
    rows: Rows
    confidences: Floats
    family_row: int = -1
    family_confidence: float = 0.0
    lacks_photo: bool = False
    margin: float = 0.0
    codes: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ("image",)
    regions: tuple[RegionFound, ...] | None = None


def with_family_of_first(reply: RecognizeReply) -> RecognizeReply:
    """After other evidence changed products and chances: no family where nothing is recognized, and never one less sure than the first product."""
    if not reply.in_catalogue or not len(reply.rows):
        return replace(reply, family_row=-1, family_confidence=0.0)
    sure = float(reply.confidences[0])
    return reply if reply.family_row >= 0 and reply.family_confidence >= sure else replace(reply, family_row=int(reply.rows[0]), family_confidence=sure)


@dataclass(frozen=True, slots=True)
class FrameProblem:
    """The frame cannot be used; `code` is the API's (`frame_unreadable`, `frame_too_large`, `frame_type`)."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class FuseCall:
    """packed: the shopper's packed features, None where there are none or none may be read. frame_embedding: (1280,) | None.

    focus_row: the product in view, -1 for none.
    """

    release: str
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


@dataclass(frozen=True, slots=True)
class FuseReply:
    """intent: (D,). candidate_rows, candidate_scores, sources (bit mask of where a candidate came from): (C,).

    query_embedding: (512,) | None. partner_rows: what goes with the product in view, best first; None where the release does not know.
    """

    intent: Floats
    candidate_rows: Rows
    candidate_scores: Floats
    sources: NDArray[np.uint8]
    intent_label: str
    query_embedding: Floats | None = None
    partner_rows: Rows | None = None


@dataclass(frozen=True, slots=True)
class StockNow:
    """(M,) each, of products asked of the online store: rows, whether they may be sold, and prices in minor units, NaN where not known."""

    rows: Rows
    in_stock: NDArray[np.bool_]
    price_minor: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SessionSteps:
    """The guide steps a session was shown so far, each (L,): indices of schemas/steps.py, AR view time, gestures."""

    steps: NDArray[np.int8]
    outcomes: NDArray[np.int8]
    view_ms: Floats
    gestures: NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class RankCall:
    """focus_row: the product in view, -1 for none. num: length of the slate. seed: of the exploration draw. stock: None where it cannot be read.

    frame_embedding, recognized_row, text: as the request was fused, to say why a product is recommended and to see which rules hold.
    """

    release: str
    fused: FuseReply
    packed: bytes | None
    focus_row: int
    session: SessionSteps
    device: str
    channel: str
    num: int
    seed: int
    now_us: int
    locale: str
    stock: StockNow | None = None
    frame_embedding: Floats | None = None
    recognized_row: int = -1
    text: str | None = None


@dataclass(frozen=True, slots=True)
class StepChoice:
    """One step of the plan; product_row is -1 where the step is about no product. with_rows: what it shows beside that."""

    step: str
    propensity: float
    product_row: int
    say: str
    with_rows: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class RankReply:
    """The slate, best first, and the next guide steps; interest, click and purchase are None where no guide model learned them.

    pinned_by: the rule that set each place, None where it was drawn. rules: those that acted.
    """

    rows: Rows
    scores: Floats
    interest: Floats | None
    propensities: Floats
    reasons: tuple[tuple[str, ...], ...]
    plan: tuple[StepChoice, ...]
    click: Floats | None = None
    purchase: Floats | None = None
    pinned_by: tuple[str | None, ...] = ()
    rules: tuple[RuleEffect, ...] = ()
