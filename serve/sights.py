"""What sessions saw in their last frames, so that several frames answer together. In memory, bounded, forgotten within seconds."""

import dataclasses
import time
from collections import OrderedDict
from collections.abc import Callable

import numpy as np

from guidelens.models.sighting import Frame, Sighting, SightingConfig, first, then
from guidelens.schemas.guide import Evidence
from serve.messages import RecognizeReply, with_family_of_first

MAX_SIGHTS = 10_000
MIN_WEIGHT = 1.5
"""Frames of the view, this one included, from which on earlier ones are named as evidence."""
TTL_S = 10.0
"""Between two frames of one view; a camera that was put down begins anew."""


class SightLog:
    """The belief of each session by id, least recently used first. A frame of a release without a recognizer changes nothing."""

    def __init__(
        self,
        num_products: int,
        config: SightingConfig | None = None,
        max_sights: int = MAX_SIGHTS,
        ttl_s: float = TTL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._num_products, self._config = num_products, config or SightingConfig()
        self._sights: OrderedDict[str, tuple[float, Sighting]] = OrderedDict()
        self._max_sights, self._ttl_s, self._clock = max_sights, ttl_s, clock

    def __len__(self) -> int:
        return len(self._sights)

    def steadied(self, session_id: str, seen: RecognizeReply) -> RecognizeReply:
        """The frame's answer in the light of the session's frames so far, which it joins."""
        if seen.in_catalogue is None or not len(seen.rows):
            return seen
        now_s = self._clock()
        self._forget_old(now_s)
        frame = Frame(seen.embedding, seen.rows.astype(np.int64), seen.confidences, seen.margin)
        before = self._sights.pop(session_id, None)
        sighting = first(frame, self._num_products) if before is None else then(before[1], frame, self._config)
        self._sights[session_id] = (now_s, sighting)
        rows, chances = sighting.answer(len(seen.rows))
        together: tuple[Evidence, ...] = ("earlier_frames",) if sighting.weight >= MIN_WEIGHT else ()
        evidence = (*seen.evidence, *together)
        steady = dataclasses.replace(
            seen, evidence=evidence, in_catalogue=sighting.in_catalogue, rows=rows.astype(np.int32), confidences=chances, margin=sighting.margin
        )
        return with_family_of_first(steady)

    def _forget_old(self, now_s: float) -> None:
        while self._sights:
            oldest = next(iter(self._sights))
            if len(self._sights) < self._max_sights and now_s - self._sights[oldest][0] <= self._ttl_s:
                return
            del self._sights[oldest]
