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

from guidelens.config import RerankConfig
from guidelens.errors import GuideLensError
from guidelens.inference.reranking import Candidates, LiveRules, Reranker, Situation, no_boosts
from guidelens.inference.rows import request_row
from guidelens.inference.search.messages import SearchOutput
from guidelens.inference.words import reason, with_rules
from guidelens.models.baselines.fallback import Fallback, Spoken
from guidelens.schemas.guide import Degraded, Family, GuideReply, GuideRequest, PlannedStep, ProductRegion, Recognized, ShopperRequest, SlateItem
from guidelens.schemas.ids import sub_seed
from guidelens.schemas.steps import GuideStep
from guidelens.schemas.tables import IMAGE_DIM
from serve.catalogue import Catalogue
from serve.hops import Hop, HopFailedError, NoHop
from serve.messages import FrameProblem, FuseCall, FuseReply, RankCall, RankReply, RecognizeCall, RecognizeReply, SessionSteps, StepChoice, StockNow
from serve.metrics import ServeMetrics
from serve.online import OnlineFeatures, StockAndPrice
from serve.problems import ApiError
from serve.requests import Asked
from serve.search_messages import SearchCall, SuggestCall, Suggested

log = logging.getLogger(__name__)
Value = TypeVar("Value")

MAX_RECOGNIZED = 5
NUM_SPARE = 100
"""Products that the last rungs choose from, beyond those asked for: rules and stock may take some out."""
MIN_STOCK_S = 0.02
# Share of what is left that a hop may use; the rest belongs to the hops after it, and to the reply itself.
_RECOGNIZE_SHARE = 0.6
_FUSE_SHARE = 0.6
_STOCK_SHARE = 0.3
_RANK_SHARE = 0.9
_RUNGS = (Degraded.NO_GUIDE_MODEL, Degraded.WITHOUT_SHOPPER_FEATURES, Degraded.WITHOUT_FRAME, Degraded.BASELINE, Degraded.POPULARITY)


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
    """What the session did before this request; `focus_row` is the product it opened last, or -1. steady: a frame's answer in the light of the
    session's earlier frames; None where these are not remembered."""

    steps: SessionSteps
    focus_row: int
    steady: Callable[[RecognizeReply], RecognizeReply] | None = None


@dataclass(frozen=True, slots=True)
class Ranked:
    """A slate and plan, and the stock and prices they rest on; None where those could not be read."""

    intent: str
    ranking: RankReply
    stock: Mapping[str, StockAndPrice] | None


@dataclass(frozen=True, slots=True)
class _View:
    """What is in view: recognized in the frame (rows are -1 where nothing is), else what the session opened last."""

    known: RecognizeReply | None
    recognized_row: int
    focus_row: int


def _in_view(seen: RecognizeReply | None, session: Session) -> _View:
    known = seen if seen is not None and seen.in_catalogue else None
    recognized_row = int(known.rows[0]) if known is not None and len(known.rows) else -1
    return _View(known, recognized_row, recognized_row if recognized_row >= 0 else session.focus_row)


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
    baseline: Fallback | None
    has_guide: bool
    missing: tuple[str, ...]
    metrics: ServeMetrics
    rules: LiveRules
    searcher: Hop[SearchCall, SearchOutput] = field(default_factory=lambda: NoHop("search"))
    suggester: Hop[SuggestCall, Suggested] = field(default_factory=lambda: NoHop("search"))
    unknown: Callable[[Asked, RecognizeReply], None] | None = None
    """Is told of each frame that shows nothing of the catalogue."""

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
        seen, packed = await self.seen_and_known(asked, shopper_key, trace)
        if seen is not None and session.steady is not None and not seen.regions:
            seen = session.steady(seen)
        if seen is not None and seen.in_catalogue is False and self.unknown is not None:
            self.unknown(asked, seen)
        view = _in_view(seen, session)
        ranked = await self._fuse_and_rank(request_id, asked, seen, packed, session, view, trace)
        if ranked is None:
            ranked = await self._from_memory(asked.fields, packed, view.focus_row, trace)
        return self._reply(request_id, asked.fields, seen, ranked, trace)

    async def seen_and_known(self, asked: Asked, shopper_key: str | None, trace: Trace) -> tuple[RecognizeReply | None, bytes | None]:
        """What the frame shows and what is known of the shopper, asked side by side; None where there is nothing to ask or no answer."""
        return await asyncio.gather(self._recognize(asked, trace), self._shopper(shopper_key, trace))

    async def stock_of(self, rows: NDArray[np.int32], share: float, trace: Trace) -> Mapping[str, StockAndPrice] | None:
        """Stock and price of what may be shown, in one read; None where they cannot be read in time.

        Read before the order is drawn, so that what is out of stock takes no part in it and propensities stay exact.
        """
        ids = [self.catalogue.items[row].view.product_id for row in rows.tolist()]
        with trace.stage("stock"):
            try:
                return await self.online.stock_and_price(ids, max(MIN_STOCK_S, trace.budget.share_s(share)))
            except (GuideLensError, TimeoutError) as error:
                log.warning("stock and price: %r", error)
                self.metrics.hop_failures.labels("stock").inc()
                return None

    async def _recognize(self, asked: Asked, trace: Trace) -> RecognizeReply | None:
        if asked.frame is None and asked.embedding is None:
            return None
        budget_s = trace.budget.share_s(_RECOGNIZE_SHARE)
        call = RecognizeCall(self.release, asked.frame, None if asked.frame is not None else self._embedding(asked), budget_s, asked.fields.regions)
        with trace.stage("recognize"):
            found = await self.hop("recognizer", self.recognizer.ask(call, budget_s))
        if isinstance(found, FrameProblem):
            raise ApiError(found.code, found.message)
        if found is None:
            trace.fall(Degraded.WITHOUT_FRAME)
        return found

    def _embedding(self, asked: Asked) -> NDArray[np.float32] | None:
        """What the device made of a photo, as far as it means something here: of another release's encoder, the pretrained one's part."""
        encoder = self.catalogue.device_encoder
        is_ours = encoder is not None and asked.fields.image_encoder == encoder.id
        return asked.embedding if asked.embedding is None or is_ours else asked.embedding[:IMAGE_DIM]

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
        self, request_id: str, asked: Asked, seen: RecognizeReply | None, packed: bytes | None, session: Session, view: _View, trace: Trace
    ) -> Ranked | None:
        fields, now_us = asked.fields, time.time_ns() // 1000
        device, known = device_name(fields), view.known
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
            focus_row=view.focus_row,
        )
        with trace.stage("fuse"):
            fused = await self.hop("fusion", self.fusion.ask(fuse, trace.budget.share_s(_FUSE_SHARE)))
        if fused is None:
            return None
        candidates = fused.candidate_rows if fused.partner_rows is None else np.union1d(fused.candidate_rows, fused.partner_rows)
        stock = await self.stock_of(candidates, _STOCK_SHARE, trace)
        rank = RankCall(
            release=self.release,
            fused=fused,
            packed=packed,
            focus_row=view.focus_row,
            session=session.steps,
            device=device,
            channel=CHANNEL,
            num=fields.num_recommendations,
            seed=sub_seed(0, request_id),
            now_us=now_us,
            locale=fields.locale,
            stock=None if stock is None else self._stock_now(candidates, stock),
            frame_embedding=fuse.frame_embedding,
            recognized_row=view.recognized_row,
            text=fields.text,
        )
        with trace.stage("rank"):
            ranked = await self.hop("ranker", self.ranker.ask(rank, trace.budget.share_s(_RANK_SHARE)))
        return None if ranked is None else Ranked(fused.intent_label, ranked, stock)

    def _stock_now(self, rows: NDArray[np.int32], stock: Mapping[str, StockAndPrice]) -> StockNow:
        known = [stock.get(self.catalogue.items[row].view.product_id) for row in rows.tolist()]
        in_stock = np.array([each is None or each.stock != 0 for each in known], dtype=np.bool_)
        prices = [float("nan") if each is None or each.price_minor is None else float(each.price_minor) for each in known]
        return StockNow(rows.astype(np.int32), in_stock, np.array(prices, dtype=np.float64))

    async def hop(self, name: str, answer: Awaitable[Value]) -> Value | None:
        """A hop's answer, None where it gave none in time.

        Raises:
            HopOverloadedError: its queue is full.
        """
        try:
            return await answer
        except HopFailedError as error:
            log.warning("%s", error)
            self.metrics.hop_failures.labels(name).inc()
            return None

    async def _from_memory(self, fields: GuideRequest, packed: bytes | None, focus_row: int, trace: Trace) -> Ranked:
        """Where no model answers: what the ingress itself holds. The release's baseline where it knows anything of this request, else popularity."""
        spoken = None
        if self.baseline is not None:
            with trace.stage("baseline"):
                spoken = self.baseline.answer(request_row(packed, device_name(fields), time.time_ns() // 1000, channel=CHANNEL, focus_row=focus_row))
        if spoken is None:
            trace.fall(Degraded.POPULARITY)
            return await self._listed(self.popularity, None, fields, focus_row, packed, trace)
        trace.fall(Degraded.BASELINE)
        return await self._listed(spoken.scores, spoken, fields, focus_row, packed, trace)

    async def _listed(
        self, scores_N: NDArray[np.float32], spoken: Spoken | None, fields: GuideRequest, focus_row: int, packed: bytes | None, trace: Trace
    ) -> Ranked:
        """The highest scores that the shop's rules allow; their order is fixed, so each has propensity 1.

        Expert rules move popularity's log alone: a baseline's scores are on no log scale, and it speaks where there is evidence.
        """
        rules = self.rules.current()
        category = self.catalogue.items[focus_row].view.category if focus_row >= 0 else ""
        situation = Situation.of(time.time_ns() // 1000, CHANNEL, category, device_name(fields), fields.text, packed)
        best = np.argsort(-scores_N, kind="stable")[: fields.num_recommendations + NUM_SPARE]
        rows = np.concatenate([best, np.setdiff1d(rules.pinned_rows(situation), best)]).astype(np.int32)
        stock = await self.stock_of(rows, 1.0, trace)
        now = self._stock_now(rows, stock or {})
        scores_C, boosts = scores_N[rows].astype(np.float64), no_boosts(len(rows))
        if spoken is None:
            boosts = rules.boosts(rows, situation, self._prices(rows, now))
            scores_C = np.log1p(scores_C) + boosts.nats_C
        candidates = Candidates(rows, scores_C, now.price_minor, now.in_stock if stock is not None else None)
        slate = Reranker(RerankConfig(), temperature=0.0).slate(candidates, rules, situation, fields.num_recommendations, np.random.default_rng(0))
        chosen = rows[slate.chosen_K]
        if not len(chosen):
            raise ApiError("deadline_exceeded", "no answer within deadline_ms, and this release holds no popular products")
        by_rules = with_rules([boosts.rules_C[place] for place in slate.chosen_K.tolist()], slate.pinned_by, fields.locale)
        reasons = tuple(tuple(ruled) or (reason(_why(spoken, int(row)), fields.locale),) for ruled, row in zip(by_rules, chosen, strict=True))
        effects = (*slate.effects, *boosts.effects)
        ranking = RankReply(chosen, scores_N[chosen], None, slate.propensities_K, reasons, (), pinned_by=slate.pinned_by, rules=effects)
        return Ranked("", ranking, stock)

    def _prices(self, rows: NDArray[np.int32], now: StockNow) -> NDArray[np.float64]:
        """(M,) prices of now, the release's where the store does not know them, NaN where neither does."""
        known = [self.catalogue.items[row].view.price_minor for row in rows.tolist()]
        release = np.array([float("nan") if price is None else float(price) for price in known], dtype=np.float64)
        return np.where(np.isnan(now.price_minor), release, now.price_minor)

    def _reply(self, request_id: str, fields: GuideRequest, seen: RecognizeReply | None, ranked: Ranked, trace: Trace) -> GuideReply:
        trace.timings_ms["total"] = round(trace.budget.spent_ms(), 2)
        for stage, spent_ms in trace.timings_ms.items():
            self.metrics.stage_seconds.labels(stage).observe(spent_ms / 1000)
        self.metrics.guide_replies.labels(trace.degraded or "none").inc()
        for effect in ranked.ranking.rules:
            self.metrics.rule_effects.labels(effect.name, effect.kind).inc(effect.products)
        return GuideReply(
            request_id=request_id,
            release=self.release,
            degraded=trace.degraded,
            in_catalogue=None if seen is None else seen.in_catalogue,
            recognized=() if seen is None or not seen.in_catalogue else self.recognized(seen, fields.locale),
            missing=self._missing(ranked, seen),
            slate=self._slate(ranked.ranking, ranked.stock or {}, fields),
            plan=self._plan(ranked.ranking),
            intent=ranked.intent,
            timings_ms=trace.timings_ms,
            rules=ranked.ranking.rules,
            family=self._family(seen),
            evidence=() if seen is None or seen.in_catalogue is None else seen.evidence,
            barcodes=() if seen is None else seen.codes,
            regions=self._regions(seen, fields.locale),
            texts=() if seen is None else seen.texts,
        )

    def _missing(self, ranked: Ranked, seen: RecognizeReply | None) -> tuple[str, ...]:
        """What the release lacks, and what this answer had to do without."""
        self.rules.current()
        refused = self.rules.problem is not None
        self.metrics.rules_refused.set(refused)
        lacks = {"stock": ranked.stock is None, "rules": refused, "frame": seen is not None and seen.lacks_photo}
        return (*self.missing, *(name for name, is_lacking in lacks.items() if is_lacking))

    def _family(self, seen: RecognizeReply | None) -> Family | None:
        category = "" if seen is None or seen.family_row < 0 else self.catalogue.items[seen.family_row].view.category
        return Family(category=category, confidence=min(1.0, max(0.0, seen.family_confidence))) if seen is not None and category else None

    def _regions(self, seen: RecognizeReply | None, locale: str) -> tuple[ProductRegion, ...] | None:
        if seen is None or seen.regions is None:
            return None
        items = [(each, self.catalogue.items[each.row]) for each in seen.regions]
        return tuple(
            ProductRegion(box=each.box, product_id=item.view.product_id, title=item.title(locale), confidence=min(1.0, each.confidence)) for each, item in items
        )

    def recognized(self, seen: RecognizeReply, locale: str) -> tuple[Recognized, ...]:
        pairs = list(zip(seen.rows.tolist(), seen.confidences.tolist(), strict=True))[:MAX_RECOGNIZED]
        items = [(self.catalogue.items[row], confidence) for row, confidence in pairs]
        return tuple(
            Recognized(product_id=item.view.product_id, title=item.title(locale), confidence=min(1.0, max(0.0, confidence)), facts=item.shown_facts)
            for item, confidence in items
        )

    def _slate(self, ranking: RankReply, stock: Mapping[str, StockAndPrice], fields: GuideRequest) -> tuple[SlateItem, ...]:
        return tuple(self._slate_item(ranking, place, stock, fields.locale) for place in range(len(ranking.rows)))

    def _slate_item(self, ranking: RankReply, place: int, stock: Mapping[str, StockAndPrice], locale: str) -> SlateItem:
        item = self.catalogue.items[int(ranking.rows[place])]
        known = stock.get(item.view.product_id)
        interest, click, purchase = (
            None if each is None else float(np.clip(each[place], 0, 1)) for each in (ranking.interest, ranking.click, ranking.purchase)
        )
        return SlateItem(
            position=place + 1,
            product_id=item.view.product_id,
            title=item.title(locale),
            score=float(ranking.scores[place]),
            interest=interest,
            propensity=float(np.clip(ranking.propensities[place], 1e-9, 1)),
            reasons=ranking.reasons[place],
            price_minor=item.view.price_minor if known is None else known.price_minor,
            currency=item.view.currency if known is None else known.currency,
            click_chance=click,
            purchase_chance=purchase,
            pinned_by=ranking.pinned_by[place] if ranking.pinned_by else None,
        )

    def _plan(self, ranking: RankReply) -> tuple[PlannedStep, ...]:
        return tuple(self._step(choice) for choice in ranking.plan)

    def _step(self, choice: StepChoice) -> PlannedStep:
        items = self.catalogue.items
        return PlannedStep(
            step=GuideStep(choice.step),
            product_id=None if choice.product_row < 0 else items[choice.product_row].view.product_id,
            say=choice.say,
            propensity=min(1.0, max(1e-9, choice.propensity)),
            with_product_ids=tuple(items[row].view.product_id for row in choice.with_rows),
        )


def _why(spoken: Spoken | None, row: int) -> str:
    """What the last rungs say of a product."""
    if spoken is None or not (spoken.by_focus[row] or spoken.by_visits[row]):
        return "popular"
    return "others_focus" if spoken.by_focus[row] else "others_visits"


CHANNEL = "web"
_NO_ROWS = np.zeros(0, dtype=np.int32)
_NO_FLOATS = np.zeros(0, dtype=np.float32)


def device_name(fields: ShopperRequest) -> str:
    """The event's `device` value: what the grammar needs to know of it."""
    if not fields.device.ar:
        return "none"
    return "ar+front" if fields.device.front_camera else "ar"
