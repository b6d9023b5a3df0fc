"""Retail bar codes in a photo (EAN-13, EAN-8, UPC-A, UPC-E), as GTINs of 14 digits. Knows nothing of products."""

import io
import re

import cv2
import numpy as np
import simplejpeg
import zxingcpp
from PIL import Image

from guidelens.data.images.decoding import Pixels
from guidelens.data.images.headers import DECODE_ERRORS, image_type

LONGER_SIDE_PX = 1280
"""Larger photos are made smaller: a code that fills a tenth of one is still read, and reading takes 3 ms (ADR 0202)."""
_LEAST_SIDE_PX = 720
_SEPARATORS = re.compile(r"[\s-]")
_LENGTHS = (8, 12, 13, 14)


def gtin(text: str) -> str | None:
    """The 14 digits of a GTIN-8, -12, -13 or -14, with or without spaces and hyphens; None where it is none, or its check digit is wrong."""
    digits = _SEPARATORS.sub("", text)
    if not (digits.isascii() and digits.isdigit()) or len(digits) not in _LENGTHS:
        return None
    whole = digits.zfill(14)
    return whole if sum(int(digit) * (3, 1)[place % 2] for place, digit in enumerate(whole)) % 10 == 0 else None


def retail_codes(data: bytes) -> tuple[str, ...]:
    """The GTINs in a JPEG, PNG or WebP that was decoded before, in no particular order, each once; none where nothing can be read."""
    try:
        pixels = _gray(data)
    except DECODE_ERRORS:
        return ()
    found = (gtin(code.text) for code in zxingcpp.read_barcodes(pixels, formats=zxingcpp.BarcodeFormat.EANUPC))
    return tuple(sorted({code for code in found if code is not None}))


def _gray(data: bytes) -> Pixels:
    if image_type(data) == "jpeg":
        pixels: Pixels = simplejpeg.decode_jpeg(data, colorspace="GRAY", min_height=_LEAST_SIDE_PX, min_width=_LEAST_SIDE_PX, strict=False)[..., 0]
    else:
        with Image.open(io.BytesIO(data), formats=("PNG", "WEBP")) as opened:
            pixels = np.asarray(opened.convert("L"))
    share = LONGER_SIDE_PX / max(pixels.shape)
    if share >= 1:
        return np.ascontiguousarray(pixels)
    return np.asarray(cv2.resize(pixels, None, fx=share, fy=share, interpolation=cv2.INTER_AREA), dtype=np.uint8)
