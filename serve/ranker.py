"""The ranker deployment: candidates become a slate with interest and reasons, and the guide's next steps. Knows nothing of HTTP."""

import asyncio

import numpy as np

from guidelens.config import Home, ServeConfig
from guidelens.inference import FusionOutput, RankerModel, RankInput, SessionState
from serve.messages import FuseReply, RankCall, RankReply, ReleaseMismatchError, SessionSteps, StepChoice
from serve.release import open_bundle


class Ranker:
    """One ranked request a call, in a thread."""

    def __init__(self, home: Home, release: str, config: ServeConfig) -> None:
        bundle, _manifest = open_bundle(home, release)
        self._release = release
        self._model = RankerModel.load(bundle)
        self._model.config = config
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
        fused, session = call.fused, call.session
        ranked = self._model.rank(
            RankInput(
                fusion=FusionOutput(fused.intent, fused.candidate_rows, fused.candidate_scores, fused.sources, fused.intent_label),
                packed=call.packed,
                focus_row=call.focus_row,
                session=SessionState(session.steps, session.outcomes, session.view_ms, session.gestures),
                device=call.device,
                num=call.num,
                seed=call.seed,
                now_us=call.now_us,
                locale=call.locale,
                in_stock=None,
            )
        )
        plan = tuple(StepChoice(step, propensity, row, say) for (step, propensity, row), say in zip(ranked.steps, ranked.say, strict=True))
        return RankReply(
            np.asarray(ranked.rows, dtype=np.int32), ranked.scores, ranked.interest, ranked.propensities, tuple(tuple(each) for each in ranked.reasons), plan
        )


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
