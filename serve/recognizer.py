"""The recognizer deployment: a frame's bytes in, the products it shows out. Knows nothing of shoppers or slates.

A release that was trained without photos has no recognizer: its frames are embedded, and what they show stays unknown.
"""

import asyncio
import logging
from dataclasses import replace

import numpy as np

from guidelens.config import Home, ServeConfig
from guidelens.data.images.barcodes import retail_codes
from guidelens.data.images.decoding import decode_image
from guidelens.encoders.image import load_image_encoder
from guidelens.errors import UnreadableImageError
from guidelens.inference.barcodes import BarcodeIndex, with_barcodes
from guidelens.inference.guide_files import load_items
from guidelens.models.recognizer import Recognizer as FittedRecognizer
from guidelens.schemas.guide import MAX_FRAME_BYTES, MAX_FRAME_PIXELS
from guidelens.schemas.tables import IMAGE_DIM
from serve.messages import Floats, FrameProblem, RecognizeCall, RecognizeReply, ReleaseMismatchError
from serve.release import open_bundle

log = logging.getLogger(__name__)
_TOP = 5
CODE_MARGIN = 5.0
"""Evidence (a logit) of a code that the catalogue knows; earlier frames of the view without one do not outweigh it."""


class Recognizer:
    """Decodes, embeds and recognizes one frame a call, each in a thread; several calls run side by side."""

    def __init__(self, home: Home, release: str, config: ServeConfig | None = None) -> None:
        bundle, _manifest = open_bundle(home, release)
        self._barcodes = BarcodeIndex.of_items(load_items(bundle)[0]) if config is None or config.read_barcodes else BarcodeIndex(())
        if self._barcodes.unusable:
            log.warning("release %s: %d products have bar codes that are no GTIN, which are not matched", release, len(self._barcodes.unusable))
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
        seen = self._recognize(self._encoder.embed(pixels[None])[0])
        return self._with_barcodes(call.frame, seen) if len(self._barcodes) else seen

    def _with_barcodes(self, frame: bytes, seen: RecognizeReply) -> RecognizeReply:
        codes = retail_codes(frame)
        coded = self._barcodes.rows(codes)
        if not coded:
            return replace(seen, codes=codes)
        rows, confidences = with_barcodes(seen.rows, seen.confidences, coded)
        sure = max(seen.margin, CODE_MARGIN)
        return replace(seen, in_catalogue=True, rows=rows, confidences=confidences, margin=sure, codes=codes, evidence=(*seen.evidence, "barcode"))

    def _recognize(self, embedding: Floats) -> RecognizeReply:
        if self._fitted is None:
            return RecognizeReply(np.ascontiguousarray(embedding, dtype=np.float32), None, np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32))
        found = self._fitted.recognize(embedding[None], top=_TOP)[0]
        rows, confidences = np.asarray(found.product_rows, dtype=np.int32), np.asarray(found.confidences, dtype=np.float32)
        return RecognizeReply(np.ascontiguousarray(embedding, dtype=np.float32), bool(found.in_catalogue), rows, confidences, margin=found.margin)
