"""The recognizer deployment: a frame's bytes in, the products it shows out. Knows nothing of shoppers or slates.

A release that was trained without photos has no recognizer: its frames are embedded, and what they show stays unknown.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from guidelens.config import Home, ServeConfig
from guidelens.data.images.barcodes import retail_codes
from guidelens.data.images.dark import brightened
from guidelens.data.images.decoding import INPUT_SIZE_PX, decode_image
from guidelens.encoders.image import load_image_encoder
from guidelens.errors import UnreadableImageError
from guidelens.inference.barcodes import BarcodeIndex, with_barcodes
from guidelens.inference.guide_files import load_items
from guidelens.models.recognizer import Recognition
from guidelens.models.recognizer import Recognizer as FittedRecognizer
from guidelens.models.turned import NUM_TURNS, is_unsure, surest, turns
from guidelens.schemas.guide import MAX_FRAME_BYTES, MAX_FRAME_PIXELS
from guidelens.schemas.tables import IMAGE_DIM
from serve.messages import Floats, FrameProblem, RecognizeCall, RecognizeReply, ReleaseMismatchError
from serve.release import open_bundle

log = logging.getLogger(__name__)
_TOP = 5
_SLOWER = 1.2
"""Further looks may take so much longer than the first one did, and still have to fit into the call's budget."""
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
        self._turns = config is None or config.turn_unsure_frames
        self._brightens = config is None or config.brighten_dark_frames
        self._answer(RecognizeCall(release, None, np.zeros(IMAGE_DIM, dtype=np.float32)))
        self._see(np.zeros((1, INPUT_SIZE_PX, INPUT_SIZE_PX, 3), dtype=np.uint8))

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
            return _reply(call.embedding, None if self._fitted is None else self._fitted.recognize(call.embedding[None], top=_TOP)[0])
        assert call.frame is not None
        begun = time.perf_counter()
        try:
            pixels = decode_image(call.frame, max_bytes=MAX_FRAME_BYTES, max_pixels=MAX_FRAME_PIXELS)
        except UnreadableImageError as error:
            return FrameProblem(error.code, str(error))
        bright = brightened(pixels) if self._brightens else None
        pixels = pixels if bright is None else bright
        embeddings, looks = self._see(pixels[None])
        codes = retail_codes(call.frame) if len(self._barcodes) else ()
        coded = self._barcodes.rows(codes)
        if coded:
            return _with_codes(_reply(embeddings[0], looks[0] if looks else None), codes, coded)
        spent_s = time.perf_counter() - begun
        if looks and self._turns and is_unsure(looks[0]) and spent_s * (1 + NUM_TURNS) * _SLOWER <= call.budget_s:
            more, others = self._see(turns(pixels))
            place, found = surest([looks[0], *others])
            return replace(_reply([embeddings[0], *more][place], found), codes=codes)
        return replace(_reply(embeddings[0], looks[0] if looks else None), codes=codes)

    def _see(self, images: NDArray[np.uint8]) -> tuple[Floats, list[Recognition]]:
        """Embeddings of (B, side, side, 3) images, and what each shows; none where the release has no recognizer."""
        embeddings = self._encoder.embed(images)
        return embeddings, [] if self._fitted is None else self._fitted.recognize(embeddings, top=_TOP)


def _with_codes(seen: RecognizeReply, codes: tuple[str, ...], coded: Sequence[int]) -> RecognizeReply:
    """The answer where products `coded` bear a code that was read."""
    rows, confidences = with_barcodes(seen.rows, seen.confidences, coded)
    sure = max(seen.margin, CODE_MARGIN)
    return replace(seen, in_catalogue=True, rows=rows, confidences=confidences, margin=sure, codes=codes, evidence=(*seen.evidence, "barcode"))


def _reply(embedding: Floats, found: Recognition | None) -> RecognizeReply:
    """found: None where the release has no recognizer."""
    own = np.ascontiguousarray(embedding, dtype=np.float32)
    if found is None:
        return RecognizeReply(own, None, np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32))
    rows, confidences = np.asarray(found.product_rows, dtype=np.int32), np.asarray(found.confidences, dtype=np.float32)
    return RecognizeReply(own, bool(found.in_catalogue), rows, confidences, margin=found.margin)
