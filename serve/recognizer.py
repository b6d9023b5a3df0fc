"""The recognizer deployment: a frame's bytes in, the products it shows out. Knows nothing of shoppers or slates.

A release that was trained without photos has no recognizer: its frames are embedded, and what they show stays unknown.
"""

import asyncio

import numpy as np

from guidelens.config import Home
from guidelens.data.images.decoding import decode_image
from guidelens.encoders.image import load_image_encoder
from guidelens.errors import UnreadableImageError
from guidelens.models.recognizer import Recognizer as FittedRecognizer
from guidelens.schemas.guide import MAX_FRAME_BYTES, MAX_FRAME_PIXELS
from guidelens.schemas.tables import IMAGE_DIM
from serve.messages import Floats, FrameProblem, RecognizeCall, RecognizeReply, ReleaseMismatchError
from serve.release import open_bundle

_TOP = 5


class Recognizer:
    """Decodes, embeds and recognizes one frame a call, each in a thread; several calls run side by side."""

    def __init__(self, home: Home, release: str) -> None:
        bundle, _manifest = open_bundle(home, release)
        self._release = release
        self._encoder = load_image_encoder(cache_dir=home.root / "cache")
        self._fitted = FittedRecognizer.load(bundle) if (bundle / "recognizer.json").exists() else None
        self._recognize(np.zeros(IMAGE_DIM, dtype=np.float32))
        self._encoder.embed(np.zeros((1, 224, 224, 3), dtype=np.uint8))

    async def handle(self, call: RecognizeCall) -> RecognizeReply | FrameProblem:
        """The products in the frame.

        Raises:
            ReleaseMismatchError: this replica holds another release.
        """
        if call.release != self._release:
            raise ReleaseMismatchError(f"recognizer holds release {self._release}, asked for {call.release}")
        return await asyncio.to_thread(self._answer, call)

    def _answer(self, call: RecognizeCall) -> RecognizeReply | FrameProblem:
        if call.embedding is not None:
            return self._recognize(call.embedding)
        assert call.frame is not None
        try:
            pixels = decode_image(call.frame, max_bytes=MAX_FRAME_BYTES, max_pixels=MAX_FRAME_PIXELS)
        except UnreadableImageError as error:
            return FrameProblem(error.code, str(error))
        return self._recognize(self._encoder.embed(pixels[None])[0])

    def _recognize(self, embedding: Floats) -> RecognizeReply:
        if self._fitted is None:
            return RecognizeReply(np.ascontiguousarray(embedding, dtype=np.float32), None, np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32))
        found = self._fitted.recognize(embedding[None], top=_TOP)[0]
        rows = np.asarray(found.product_rows, dtype=np.int32) if found.in_catalogue else np.zeros(0, dtype=np.int32)
        confidences = np.asarray(found.confidences, dtype=np.float32)[: len(rows)]
        return RecognizeReply(np.ascontiguousarray(embedding, dtype=np.float32), bool(found.in_catalogue), rows, confidences)
