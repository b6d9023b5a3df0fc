"""The recognizer deployment: a frame's bytes in, the products it shows out. Knows nothing of shoppers or slates.

A release that was trained without photos has no recognizer: its frames are embedded, and what they show stays unknown.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from guidelens.config import Home, ServeConfig
from guidelens.data.images.barcodes import retail_codes
from guidelens.data.images.dark import brightened
from guidelens.data.images.decoding import INPUT_SIZE_PX, Pixels, decode_image, encoder_input, upright_pixels
from guidelens.encoders.backbones import load_image_backbone
from guidelens.errors import UnreadableImageError
from guidelens.inference.barcodes import BarcodeIndex, with_barcodes
from guidelens.inference.guide_files import encoders_of, load_items
from guidelens.models.recognizer import Recognition
from guidelens.models.regions import CROPS, Region, RegionConfig, cropped, regions
from guidelens.models.released_recognizer import ReleasedRecognizer
from guidelens.models.turned import NUM_TURNS, is_unsure, together, turns
from guidelens.schemas.guide import MAX_FRAME_BYTES, MAX_FRAME_PIXELS
from guidelens.schemas.tables import IMAGE_DIM
from serve.frame_texts import FrameTexts
from serve.messages import Floats, FrameProblem, RecognizeCall, RecognizeReply, RegionFound, ReleaseMismatchError, with_family_of_first
from serve.release import open_bundle

log = logging.getLogger(__name__)
_TOP = 5
_SLOWER = 1.2
"""Further looks may take so much longer than the first one did, and still have to fit into the call's budget."""
CODE_MARGIN = 5.0
"""Evidence (a logit) of a code that the catalogue knows; earlier frames of the view without one do not outweigh it."""
_NO_ROWS = np.zeros(0, dtype=np.int32)
_NO_FLOATS = np.zeros(0, dtype=np.float32)


class Recognizer:
    """Decodes, embeds and recognizes one frame a call, each in a thread; several calls run side by side."""

    def __init__(self, home: Home, release: str, config: ServeConfig | None = None) -> None:
        bundle, _manifest = open_bundle(home, release)
        self._release, self._config = release, config or ServeConfig()
        items = load_items(bundle)[0]
        self._barcodes = BarcodeIndex.of_items(items) if self._config.read_barcodes else BarcodeIndex(())
        self._texts = FrameTexts(items) if self._config.read_text == "unsure" else None
        if self._barcodes.unusable:
            log.warning("release %s: %d products have bar codes that are no GTIN, which are not matched", release, len(self._barcodes.unusable))
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
            recognized = self._fitted.recognize(call.embedding[None], top=_TOP)
            return _reply(call.embedding[:IMAGE_DIM], None if recognized is None else recognized[0], lacks_photo=lacks_photo)
        assert call.frame is not None
        begun = time.perf_counter()
        try:
            pixels = decode_image(call.frame, max_bytes=MAX_FRAME_BYTES, max_pixels=MAX_FRAME_PIXELS)
        except UnreadableImageError as error:
            return FrameProblem(error.code, str(error))
        bright = brightened(pixels) if self._config.brighten_dark_frames else None
        pixels = pixels if bright is None else bright
        look_begun = time.perf_counter()
        embedding, look = self._look(pixels)
        look_s = time.perf_counter() - look_begun
        codes = retail_codes(call.frame) if len(self._barcodes) else ()
        coded = self._barcodes.rows(codes)
        if coded:
            return _with_codes(_reply(embedding, look), codes, coded)
        spent_s, apart, regions_s = time.perf_counter() - begun, None, 0.0
        asked = call.regions and self._config.find_regions
        if look is not None and asked and (2 * spent_s + len(CROPS) * look_s) * _SLOWER <= call.budget_s:
            apart = self._regions(call.frame, look)
            regions_s = time.perf_counter() - begun - spent_s
        if apart:
            found = tuple(RegionFound(each.box, each.row, each.confidence) for each in apart)
            return replace(_reply(embedding, apart[0].look), codes=codes, regions=found)
        has_room = spent_s * (1 + NUM_TURNS) * _SLOWER + regions_s <= call.budget_s
        if look is not None and self._config.turn_unsure_frames and is_unsure(look) and has_room:
            look = together([look, *(self._fitted.see(turns(pixels), top=_TOP).recognized or ())])
        seen = replace(_reply(embedding, look), codes=codes, regions=None if apart is None else ())
        if self._texts is None or look is None or not is_unsure(look):
            return seen
        return self._texts.read(seen, call.frame, call.budget_s - (time.perf_counter() - begun))

    def _regions(self, frame: bytes, whole: Recognition) -> tuple[Region, ...]:
        """The frame is decoded again, so large that its quarters are not enlarged."""
        pixels = upright_pixels(frame, max_bytes=MAX_FRAME_BYTES, max_pixels=MAX_FRAME_PIXELS, min_side_px=2 * INPUT_SIZE_PX)
        crops = [encoder_input(cropped(pixels, box)) for box in CROPS]
        if self._config.brighten_dark_frames:
            brights = [brightened(crop) for crop in crops]
            crops = [crop if bright is None else bright for crop, bright in zip(crops, brights, strict=True)]
        seen = self._fitted.see(np.stack(crops), top=_TOP)
        return regions(whole, seen.recognized or (), seen.embeddings_BD, RegionConfig())

    def _look(self, pixels: Pixels) -> tuple[Floats, Recognition | None]:
        seen = self._fitted.see(pixels[None], top=_TOP)
        return seen.embeddings_BD[0], None if seen.recognized is None else seen.recognized[0]


def _with_codes(seen: RecognizeReply, codes: tuple[str, ...], coded: Sequence[int]) -> RecognizeReply:
    """The answer where products `coded` bear a code that was read."""
    rows, confidences = with_barcodes(seen.rows, seen.confidences, coded)
    sure = max(seen.margin, CODE_MARGIN)
    evidence = (*seen.evidence, "barcode") if seen.in_catalogue is not None else ("barcode",)
    return with_family_of_first(replace(seen, in_catalogue=True, rows=rows, confidences=confidences, margin=sure, codes=codes, evidence=evidence))


def _reply(embedding: Floats, found: Recognition | None, *, lacks_photo: bool = False) -> RecognizeReply:
    """found: None where the release has no recognizer."""
    own = np.ascontiguousarray(embedding, dtype=np.float32)
    if found is None:
        return RecognizeReply(own, None, _NO_ROWS, _NO_FLOATS)
    rows, confidences = np.asarray(found.product_rows, dtype=np.int32), np.asarray(found.confidences, dtype=np.float32)
    family_row = found.family_row if found.in_catalogue else -1
    seen = RecognizeReply(own, bool(found.in_catalogue), rows, confidences, family_row, found.family_confidence, lacks_photo, found.margin)
    return seen if family_row < 0 else with_family_of_first(seen)
