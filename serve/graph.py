"""One guide request through the graph: recognizer and shopper features in parallel, then fusion, then ranker.

The deadline is owned here: each hop gets a share of what is left, and what fails is answered by the next rung of the fallback
ladder, named in the reply. Knows nothing of HTTP and of how a hop is reached.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from guidelens.errors import GuideLensError
from guidelens.schemas.guide import Degraded, GuideReply, GuideRequest, PlannedStep, Recognized, SlateItem
from guidelens.schemas.ids import sub_seed
from guidelens.schemas.steps import GuideStep
from serve.catalogue import Catalogue
from serve.hops import Hop, HopFailedError
from serve.messages import FrameProblem, FuseCall, FuseReply, RankCall, RankReply, RecognizeCall, RecognizeReply, SessionSteps
from serve.metrics import ServeMetrics
from serve.online import OnlineFeatures, StockAndPrice
from serve.problems import ApiError
from serve.requests import Asked

log = logging.getLogger(__name__)
Value = TypeVar("Value")

MAX_RECOGNIZED = 5
SPARE = 5
"""Ranked beyond what was asked for, to take the places of products that are out of stock by now."""
MIN_STOCK_S = 0.02
# Share of what is left that a hop may use; the rest belongs to the hops after it, and to the reply itself.
_RECOGNIZE_SHARE = 0.6
_FUSE_SHARE = 0.6
_RANK_SHARE = 0.9
_RUNGS = (Degraded.NO_GUIDE_MODEL, Degraded.WITHOUT_SHOPPER_FEATURES, Degraded.WITHOUT_FRAME, Degraded.POPULARITY)


class Budget:
    """What is left of a deadline, by a monotonic clock."""

    def __init__(self, total_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.started = clock()
        self._ends = self.started + total_s

    def share_s(self, share: float) -> float:
        return max(0.0, self._ends - self._clock()) * share

    def spent_ms(self) -> float:
        return 1000 * (self._clock() - self.started)


@dataclass
class Trace:
    """What happened to one request: the worst rung, and the time of each stage."""

    budget: Budget
    degraded: Degraded | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)

    def fall(self, rung: Degraded) -> None:
        if self.degraded is None or _RUNGS.index(rung) > _RUNGS.index(self.degraded):
            self.degraded = rung

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        before = self.budget.spent_ms()
        try:
            yield
        finally:
            self.timings_ms[name] = round(self.budget.spent_ms() - before, 2)


@dataclass(frozen=True, slots=True)
class Session:
    """What the session did before this request; `focus_row` is the product it opened last, or -1."""

    steps: SessionSteps
    focus_row: int


@dataclass(frozen=True, slots=True)
class Graph:
    """The three hops, and what the ingress itself holds of the release."""

    release: str
    catalogue: Catalogue
    recognizer: Hop[RecognizeCall, RecognizeReply | FrameProblem]
    fusion: Hop[FuseCall, FuseReply]
    ranker: Hop[RankCall, RankReply]
    online: OnlineFeatures
    popularity: NDArray[np.float32]
    has_guide: bool
    missing: tuple[str, ...]
    metrics: ServeMetrics

    async def answer(self, request_id: str, asked: Asked, shopper_key: str | None, session: Session) -> GuideReply:
        """The reply to one request.

        Args:
            shopper_key: pseudonym of a shopper whose features may be read, else None.

        Raises:
            ApiError: the frame cannot be used, or nothing at all can be answered.
            HopOverloadedError: a hop's queue is full.
        """
        trace = Trace(Budget(asked.fields.deadline_ms / 1000))
        if not self.has_guide:
            trace.fall(Degraded.NO_GUIDE_MODEL)
        seen, packed = await asyncio.gather(self._recognize(asked, trace), self._shopper(shopper_key, trace))
        ranked = await self._fuse_and_rank(request_id, asked.fields, seen, packed, session, trace)
        if ranked is None:
            trace.fall(Degraded.POPULARITY)
            ranked = "", self._popular(asked.fields.num_recommendations + SPARE)
        intent, ranking = ranked
        stock = await self._stock(ranking, trace)
        slate = self._slate(ranking, stock or {}, asked.fields)
        missing = self.missing if stock is not None else (*self.missing, "stock")
        return self._reply(request_id, asked.fields.locale, seen, slate, self._plan(ranking), intent, missing, trace)

    async def _stock(self, ranking: RankReply, trace: Trace) -> Mapping[str, StockAndPrice] | None:
        """Stock and price of what may be shown, in one read; None where they cannot be read in time."""
        ids = [self.catalogue.items[row].view.product_id for row in ranking.rows.tolist()]
        with trace.stage("stock"):
            try:
                return await self.online.stock_and_price(ids, max(MIN_STOCK_S, trace.budget.share_s(1.0)))
            except (GuideLensError, TimeoutError) as error:
                log.warning("stock and price: %r", error)
                self.metrics.hop_failures.labels("stock").inc()
                return None

    async def _recognize(self, asked: Asked, trace: Trace) -> RecognizeReply | None:
        if asked.frame is None and asked.embedding is None:
            return None
        call = RecognizeCall(self.release, asked.frame, None if asked.frame is not None else asked.embedding)
        with trace.stage("recognize"):
            found = await self._hop("recognizer", self.recognizer.ask(call, trace.budget.share_s(_RECOGNIZE_SHARE)))
        if isinstance(found, FrameProblem):
            raise ApiError(found.code, found.message)
        if found is None:
            trace.fall(Degraded.WITHOUT_FRAME)
        return found

    async def _shopper(self, shopper_key: str | None, trace: Trace) -> bytes | None:
        if shopper_key is None:
            return None
        self.metrics.feature_reads.inc()
        with trace.stage("shopper_features"):
            try:
                return await self.online.packed(shopper_key, trace.budget.share_s(_RECOGNIZE_SHARE))
            except (GuideLensError, TimeoutError) as error:
                log.warning("shopper features: %r", error)
                self.metrics.hop_failures.labels("shopper_features").inc()
                trace.fall(Degraded.WITHOUT_SHOPPER_FEATURES)
                return None

    async def _fuse_and_rank(
        self, request_id: str, fields: GuideRequest, seen: RecognizeReply | None, packed: bytes | None, session: Session, trace: Trace
    ) -> tuple[str, RankReply] | None:
        now_us = time.time_ns() // 1000
        device = device_name(fields)
        known = seen if seen is not None and seen.in_catalogue else None
        fuse = FuseCall(
            release=self.release,
            packed=packed,
            frame_embedding=None if seen is None else seen.embedding,
            text=fields.text,
            recognized_rows=_NO_ROWS if known is None else known.rows,
            recognized_confidences=_NO_FLOATS if known is None else known.confidences,
            device=device,
            channel=CHANNEL,
            now_us=now_us,
            locale=fields.locale,
        )
        with trace.stage("fuse"):
            fused = await self._hop("fusion", self.fusion.ask(fuse, trace.budget.share_s(_FUSE_SHARE)))
        if fused is None:
            return None
        rank = RankCall(
            release=self.release,
            fused=fused,
            packed=packed,
            focus_row=int(known.rows[0]) if known is not None and len(known.rows) else session.focus_row,
            session=session.steps,
            device=device,
            channel=CHANNEL,
            num=fields.num_recommendations + SPARE,
            seed=sub_seed(0, request_id),
            now_us=now_us,
            locale=fields.locale,
        )
        with trace.stage("rank"):
            ranked = await self._hop("ranker", self.ranker.ask(rank, trace.budget.share_s(_RANK_SHARE)))
        return None if ranked is None else (fused.intent_label, ranked)

    async def _hop(self, name: str, answer: Awaitable[Value]) -> Value | None:
        try:
            return await answer
        except HopFailedError as error:
            log.warning("%s", error)
            self.metrics.hop_failures.labels(name).inc()
            return None

    def _popular(self, num: int) -> RankReply:
        """The most popular products, from the ingress's own memory; their order is fixed, so each has propensity 1."""
        rows = np.argsort(-self.popularity, kind="stable")[:num].astype(np.int32)
        if not len(rows):
            raise ApiError("deadline_exceeded", "no answer within deadline_ms, and this release holds no popular products")
        reasons = tuple(("popular",) for _ in rows)
        return RankReply(rows, self.popularity[rows], None, np.ones(len(rows), dtype=np.float32), reasons, ())

    def _reply(
        self,
        request_id: str,
        locale: str,
        seen: RecognizeReply | None,
        slate: tuple[SlateItem, ...],
        plan: tuple[PlannedStep, ...],
        intent: str,
        missing: tuple[str, ...],
        trace: Trace,
    ) -> GuideReply:
        trace.timings_ms["total"] = round(trace.budget.spent_ms(), 2)
        for stage, spent_ms in trace.timings_ms.items():
            self.metrics.stage_seconds.labels(stage).observe(spent_ms / 1000)
        self.metrics.guide_replies.labels(trace.degraded or "none").inc()
        return GuideReply(
            request_id=request_id,
            release=self.release,
            degraded=trace.degraded,
            in_catalogue=None if seen is None else seen.in_catalogue,
            recognized=() if seen is None or not seen.in_catalogue else self._recognized(seen, locale),
            missing=missing,
            slate=slate,
            plan=plan,
            intent=intent,
            timings_ms=trace.timings_ms,
        )

    def _recognized(self, seen: RecognizeReply, locale: str) -> tuple[Recognized, ...]:
        pairs = list(zip(seen.rows.tolist(), seen.confidences.tolist(), strict=True))[:MAX_RECOGNIZED]
        items = [(self.catalogue.items[row], confidence) for row, confidence in pairs]
        return tuple(
            Recognized(product_id=item.view.product_id, title=item.title(locale), confidence=min(1.0, max(0.0, confidence)), facts=item.shown_facts)
            for item, confidence in items
        )

    def _slate(self, ranking: RankReply, stock: Mapping[str, StockAndPrice], fields: GuideRequest) -> tuple[SlateItem, ...]:
        """The first `num_recommendations` that are not known to be out of stock."""
        slate: list[SlateItem] = []
        for place, row in enumerate(ranking.rows.tolist()):
            item = self.catalogue.items[row]
            known = stock.get(item.view.product_id)
            if known is not None and known.stock == 0:
                continue
            slate.append(
                SlateItem(
                    position=len(slate) + 1,
                    product_id=item.view.product_id,
                    title=item.title(fields.locale),
                    score=float(ranking.scores[place]),
                    interest=None if ranking.interest is None else float(np.clip(ranking.interest[place], 0, 1)),
                    propensity=float(np.clip(ranking.propensities[place], 1e-9, 1)),
                    reasons=ranking.reasons[place],
                    price_minor=item.view.price_minor if known is None else known.price_minor,
                    currency=item.view.currency if known is None else known.currency,
                )
            )
        return tuple(slate[: fields.num_recommendations])

    def _plan(self, ranking: RankReply) -> tuple[PlannedStep, ...]:
        return tuple(self._step(choice.step, choice.product_row, choice.say, choice.propensity) for choice in ranking.plan)

    def _step(self, step: str, row: int, say: str, propensity: float) -> PlannedStep:
        product_id = None if row < 0 else self.catalogue.items[row].view.product_id
        return PlannedStep(step=GuideStep(step), product_id=product_id, say=say, propensity=min(1.0, max(1e-9, propensity)))


CHANNEL = "web"
_NO_ROWS = np.zeros(0, dtype=np.int32)
_NO_FLOATS = np.zeros(0, dtype=np.float32)


def device_name(fields: GuideRequest) -> str:
    """The event's `device` value: what the grammar needs to know of it."""
    if not fields.device.ar:
        return "none"
    return "ar+front" if fields.device.front_camera else "ar"
