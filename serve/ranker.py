"""The ranker deployment: candidates become a slate with interest and reasons, and the guide's next steps. Knows nothing of HTTP."""

import asyncio

import numpy as np
from numpy.typing import NDArray

from guidelens.config import Home, ServeConfig
from guidelens.inference.messages import FusionOutput, RankInput, SessionState
from guidelens.inference.ranker import RankerModel
from serve.messages import FuseReply, RankCall, RankReply, ReleaseMismatchError, SessionSteps, StepChoice, StockNow
from serve.release import open_bundle


class Ranker:
    """One ranked request a call, in a thread."""

    def __init__(self, home: Home, release: str, config: ServeConfig) -> None:
        bundle, _manifest = open_bundle(home, release)
        self._release = release
        self._model = RankerModel.load(bundle, home.root, config)
        width = self._model.scorer.model.config.width if self._model.scorer else 0
        self._answer(_warm_up(release, len(self._model.catalogue), width))

    async def handle(self, call: RankCall) -> RankReply:
        """Slate and plan.

        Raises:
            ReleaseMismatchError: this replica holds another release.
        """
        if call.release != self._release:
            raise ReleaseMismatchError(f"ranker holds release {self._release}, asked for {call.release}")
        return await asyncio.to_thread(self._answer, call)

    def _answer(self, call: RankCall) -> RankReply:
        fused, session, stock = call.fused, call.session, call.stock
        in_stock, price_minor = (None, None) if stock is None else self._now(stock)
        ranked = self._model.rank(
            RankInput(
                fusion=FusionOutput(
                    fused.intent,
                    fused.candidate_rows,
                    fused.candidate_scores,
                    fused.sources,
                    fused.intent_label,
                    fused.query_embedding,
                    fused.partner_rows,
                ),
                packed=call.packed,
                focus_row=call.focus_row,
                session=SessionState(session.steps, session.outcomes, session.view_ms, session.gestures),
                device=call.device,
                num=call.num,
                seed=call.seed,
                now_us=call.now_us,
                locale=call.locale,
                in_stock=in_stock,
                price_minor=price_minor,
                frame_embedding=call.frame_embedding,
                recognized_row=call.recognized_row,
                channel=call.channel,
                text=call.text,
            )
        )
        steps = zip(ranked.steps, ranked.say, ranked.shown_with, strict=True)
        return RankReply(
            rows=np.asarray(ranked.rows, dtype=np.int32),
            scores=ranked.scores,
            interest=ranked.interest,
            propensities=ranked.propensities,
            reasons=tuple(tuple(each) for each in ranked.reasons),
            plan=tuple(StepChoice(step, propensity, row, say, with_rows) for (step, propensity, row), say, with_rows in steps),
            click=ranked.click,
            purchase=ranked.purchase,
            pinned_by=ranked.pinned_by,
            rules=ranked.effects,
        )

    def _now(self, stock: StockNow) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """(N,) what may be sold and at what price: the release's where the store was not asked."""
        in_stock, price_minor = np.ones(len(self._model.catalogue), dtype=np.bool_), self._model.catalogue.price_N.copy()
        in_stock[stock.rows] = stock.in_stock
        price_minor[stock.rows] = np.where(np.isnan(stock.price_minor), price_minor[stock.rows], stock.price_minor)
        return in_stock, price_minor


def _warm_up(release: str, num_products: int, width: int) -> RankCall:
    """A call of every code path, so that the first shopper does not pay for it."""
    rows = np.arange(min(20, num_products), dtype=np.int32)
    return RankCall(
        release=release,
        fused=FuseReply(np.zeros(width, np.float32), rows, np.zeros(len(rows), np.float32), np.ones(len(rows), np.uint8), "browse"),
        packed=None,
        focus_row=0 if num_products else -1,
        session=SessionSteps(np.zeros(0, np.int8), np.zeros(0, np.int8), np.zeros(0, np.float32), np.zeros(0, np.int16)),
        device="ar+front",
        channel="web",
        num=10,
        seed=0,
        now_us=0,
        locale="en",
    )
