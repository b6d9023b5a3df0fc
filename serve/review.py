"""Unknown frames on their way into the review queue, behind the reply's back. Knows nothing of HTTP."""

import logging
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import numpy as np

from guidelens.config import ReviewConfig
from guidelens.data.review import Guess, ReviewQueue
from guidelens.errors import GuideLensError
from guidelens.models.recognizer import Floats, rooted
from serve.catalogue import Catalogue
from serve.messages import RecognizeReply
from serve.requests import Asked

log = logging.getLogger(__name__)
_SAME_VIEW = 0.9
"""Cosine of rooted embeddings from which an unknown frame is one that was kept a moment ago."""
_REMEMBERED, _WAITING = 64, 32


class UnknownFrames:
    """Keeps frames that showed nothing of the catalogue, one of a view; a shopper who agreed to no personalization leaves none."""

    def __init__(self, queue: ReviewQueue, limits: ReviewConfig, catalogue: Catalogue, image_encoder: str) -> None:
        self._queue, self._limits, self._catalogue, self._image_encoder = queue, limits, catalogue, image_encoder
        self._recent: deque[Floats] = deque(maxlen=_REMEMBERED)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="review")
        self._waiting = 0

    def take(self, asked: Asked, seen: RecognizeReply) -> None:
        """Hands one over to the thread that writes; returns at once, also where it is not kept."""
        if seen.in_catalogue is not False or not asked.fields.may_personalize or self._waiting >= _WAITING or self._is_known(seen.embedding):
            return
        self._waiting += 1
        self._thread.submit(self._write, seen, asked.frame if asked.fields.consent.frame_retention else None)

    def _is_known(self, embedding: Floats) -> bool:
        mine = rooted(embedding[None])[0]
        if any(float(mine @ other) >= _SAME_VIEW for other in self._recent):
            return True
        self._recent.append(mine)
        return False

    def _write(self, seen: RecognizeReply, frame: bytes | None) -> None:
        try:
            if len(self._queue.entries()) >= self._limits.max_entries:
                return
            items = self._catalogue.items
            guesses = tuple(
                Guess(product_id=items[row].view.product_id, confidence=float(np.clip(chance, 0, 1)))
                for row, chance in zip(seen.rows.tolist(), seen.confidences.tolist(), strict=True)
            )
            self._queue.add(
                seen.embedding,
                release=items[0].view.release,
                image_encoder=self._image_encoder,
                guesses=guesses,
                margin=seen.margin,
                keep_days=self._limits.keep_days,
                frame=frame,
                now=datetime.now(UTC),
            )
        except (GuideLensError, OSError) as error:
            log.warning("an unknown frame was not kept for review: %s", error)
        finally:
            self._waiting -= 1
