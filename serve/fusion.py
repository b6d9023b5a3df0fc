"""The fusion deployment: what is seen, read and known becomes one intent vector and its candidates, or a page of search results. Knows nothing of slates."""

import asyncio

import numpy as np

from guidelens.config import Home, ServeConfig
from guidelens.inference.fusion import FusionModel
from guidelens.inference.messages import FusionInput
from guidelens.inference.search.messages import SearchOutput
from guidelens.inference.search.shop import search_engine
from serve.messages import FuseCall, FuseReply, ReleaseMismatchError
from serve.release import open_bundle
from serve.search_messages import SearchCall, SuggestCall, Suggested


class Fusion:
    """One fused request a call, in a thread."""

    def __init__(self, home: Home, release: str, config: ServeConfig) -> None:
        bundle, _manifest = open_bundle(home, release)
        self._release = release
        self._model = FusionModel.load(bundle)
        self._model.num_candidates = config.num_candidates
        self._search = search_engine(bundle, self._model, config.search)
        none = np.zeros(0, dtype=np.float32)
        self._answer(FuseCall(release, None, None, "warm up", none.astype(np.int32), none, "ar+front", "web", 0, "en"))

    async def handle(self, call: FuseCall | SearchCall | SuggestCall) -> FuseReply | SearchOutput | Suggested:
        """Intent and candidates, a page of search results, or completions.

        Raises:
            ReleaseMismatchError: this replica holds another release.
        """
        if call.release != self._release:
            raise ReleaseMismatchError(f"fusion holds release {self._release}, asked for {call.release}")
        if isinstance(call, SuggestCall):
            return await asyncio.to_thread(self._suggest, call)
        if isinstance(call, SearchCall):
            return await asyncio.to_thread(self._search.search, call.asked)
        return await asyncio.to_thread(self._answer, call)

    def _suggest(self, call: SuggestCall) -> Suggested:
        spelling = self._search.spelling
        return Suggested(spelling.completions(call.text, call.num), spelling.corrected(call.text))

    def _answer(self, call: FuseCall) -> FuseReply:
        fused = self._model.fuse(
            FusionInput(
                packed=call.packed,
                frame_embedding=call.frame_embedding,
                text=call.text,
                recognized_rows=call.recognized_rows,
                recognized_confidences=call.recognized_confidences,
                device=call.device,
                channel=call.channel,
                now_us=call.now_us,
                locale=call.locale,
                focus_row=call.focus_row,
            )
        )
        return FuseReply(
            fused.intent, fused.candidate_rows, fused.candidate_scores, fused.source, fused.intent_label, fused.query_embedding, fused.partner_rows
        )
