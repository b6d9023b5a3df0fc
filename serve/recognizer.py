"""The recognizer deployment: a frame's bytes in, the products it shows out. Knows nothing of shoppers or slates.

A release that was trained without photos has no recognizer: its frames are embedded, and what they show stays unknown.
"""

import asyncio

import numpy as np

from guidelens.config import Home
from guidelens.data.images.decoding import INPUT_SIZE_PX, decode_image
from guidelens.encoders.backbones import load_image_backbone
from guidelens.errors import UnreadableImageError
from guidelens.inference.guide_files import encoders_of
from guidelens.models.recognizer import Recognition
from guidelens.models.released_recognizer import ReleasedRecognizer
from guidelens.schemas.guide import MAX_FRAME_BYTES, MAX_FRAME_PIXELS
from guidelens.schemas.tables import IMAGE_DIM
from serve.messages import Floats, FrameProblem, RecognizeCall, RecognizeReply, ReleaseMismatchError
from serve.release import open_bundle

_TOP = 5
_NO_ROWS = np.zeros(0, dtype=np.int32)
_NO_FLOATS = np.zeros(0, dtype=np.float32)


class Recognizer:
    """Decodes, embeds and recognizes one frame a call, each in a thread; several calls run side by side."""

    def __init__(self, home: Home, release: str) -> None:
        bundle, _manifest = open_bundle(home, release)
        self._release = release
        self._encoder = load_image_backbone(encoders_of(bundle).image, cache_dir=home.root / "cache")
        self._fitted = ReleasedRecognizer.load(bundle, self._encoder)
        self._fitted.recognize(np.zeros((1, IMAGE_DIM), dtype=np.float32))
        self._fitted.see(np.zeros((1, INPUT_SIZE_PX, INPUT_SIZE_PX, 3), dtype=np.uint8))

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
            lacks_photo = self._fitted.loses_without_photo and len(call.embedding) == IMAGE_DIM
            return _reply(call.embedding[:IMAGE_DIM], self._fitted.recognize(call.embedding[None], top=_TOP), lacks_photo=lacks_photo)
        assert call.frame is not None
        try:
            pixels = decode_image(call.frame, max_bytes=MAX_FRAME_BYTES, max_pixels=MAX_FRAME_PIXELS)
        except UnreadableImageError as error:
            return FrameProblem(error.code, str(error))
        seen = self._fitted.see(pixels[None], top=_TOP)
        return _reply(seen.embeddings_BD[0], seen.recognized, lacks_photo=False)


def _reply(embedding: Floats, recognized: list[Recognition] | None, *, lacks_photo: bool) -> RecognizeReply:
    own = np.ascontiguousarray(embedding, dtype=np.float32)
    if recognized is None:
        return RecognizeReply(own, None, _NO_ROWS, _NO_FLOATS)
    found = recognized[0]
    if not found.in_catalogue:
        return RecognizeReply(own, False, _NO_ROWS, _NO_FLOATS, lacks_photo=lacks_photo)
    rows, confidences = np.asarray(found.product_rows, dtype=np.int32), np.asarray(found.confidences, dtype=np.float32)
    return RecognizeReply(own, True, rows, confidences, found.family_row, found.family_confidence, lacks_photo)
