"""Photos and camera frames, from bytes to the encoder's input: the one decoder ingest and serving share.

Scaled decoding and resize filters differ between libraries, and embeddings with them, so nobody decodes elsewhere. Limits are
checked on the header, before a pixel is decoded. Knows nothing of encoders, products or requests.
"""

import io

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from guidelens.data.images.headers import (
    DECODE_ERRORS,
    damaged,
    exif_orientation,
    image_size,
    image_type,
    jpeg_colours,
    jpeg_exif,
    require_all_png_rows,
)
from guidelens.errors import UnreadableImageError

Pixels = NDArray[np.uint8]

INPUT_SIZE_PX = 224
MAX_PHOTO_BYTES = 20 * 1024 * 1024
MAX_PHOTO_PIXELS = 50_000_000
_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
_WHITE = 255
_ORIENTATIONS: dict[int, tuple[bool, int | None]] = {
    2: (True, None),
    3: (False, cv2.ROTATE_180),
    4: (True, cv2.ROTATE_180),
    5: (True, cv2.ROTATE_90_COUNTERCLOCKWISE),
    6: (False, cv2.ROTATE_90_CLOCKWISE),
    7: (True, cv2.ROTATE_90_CLOCKWISE),
    8: (False, cv2.ROTATE_90_COUNTERCLOCKWISE),
}
"""By EXIF's number: mirrored left to right, then turned."""


def decode_image(data: bytes, *, max_bytes: int = MAX_PHOTO_BYTES, max_pixels: int = MAX_PHOTO_PIXELS) -> Pixels:
    """The centre square of an image as the encoder takes it: `encoder_input(upright_pixels(data))`. Raises like `upright_pixels`.

    Returns:
        (INPUT_SIZE_PX, INPUT_SIZE_PX, 3) uint8, RGB.
    """
    return encoder_input(upright_pixels(data, max_bytes=max_bytes, max_pixels=max_pixels))


def upright_pixels(data: bytes, *, max_bytes: int = MAX_PHOTO_BYTES, max_pixels: int = MAX_PHOTO_PIXELS, least_side_px: int = INPUT_SIZE_PX) -> Pixels:
    """The whole image, upright, on white where it is transparent; decoded once, for every use.

    Returns:
        (height, width, 3) uint8, RGB. A JPEG comes at the smallest DCT scale whose shorter side is still least_side_px.

    Raises:
        UnreadableImageError: `frame_type` for other formats, `frame_too_large` above a limit, `frame_unreadable` for damaged bytes.
    """
    if len(data) > max_bytes:
        raise UnreadableImageError("frame_too_large", f"an image may have {max_bytes} bytes, got {len(data)}; send a smaller one")
    width, height = image_size(data)
    if width * height > max_pixels:
        raise UnreadableImageError("frame_too_large", f"an image may have {max_pixels} pixels, got {width} x {height}; send a smaller one")
    kind = image_type(data)
    try:
        if kind == "jpeg" and jpeg_colours(data) not in ("CMYK", "YCCK"):
            return _oriented(_scaled_jpeg(data, least_side_px), exif_orientation(jpeg_exif(data)))
        if kind == "png":
            require_all_png_rows(data)
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as opened:
            return _oriented(_on_white(opened), exif_orientation(opened.info.get("exif", b"")))
    except DECODE_ERRORS as error:
        raise damaged(kind, str(error)) from error


def encoder_input(pixels: Pixels) -> Pixels:
    """(INPUT_SIZE_PX, INPUT_SIZE_PX, 3): the centre square of (height, width, 3) uint8, resized."""
    return _resized(_centre_square(pixels), INPUT_SIZE_PX, INPUT_SIZE_PX)


def thumbnail(pixels: Pixels, size_px: int = 320) -> bytes:
    """(height, width, 3) uint8 RGB as a JPEG whose longer side is at most `size_px`; never enlarged.

    Its quality is what the recognizer can tell: at 92 it learns from these as from the photos themselves, at 85 a little worse (ADR 193).
    """
    height, width = pixels.shape[:2]
    share = min(1.0, size_px / max(height, width))
    small = _resized(pixels, max(1, round(width * share)), max(1, round(height * share)))
    encoded: bytes = simplejpeg.encode_jpeg(small, quality=92, colorspace="RGB")
    return encoded


def _scaled_jpeg(data: bytes, size: int) -> Pixels:
    """Cut-off files are refused; what libjpeg merely warns of (stray bytes, odd markers) is not."""
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, colorspace="RGB", min_height=size, min_width=size, strict=True)
    except ValueError as error:
        # The first warning hides the ones after it, so the end is looked for here: scan data never holds a bare marker.
        if "premature end" in str(error).lower() or data.rfind(_END_OF_IMAGE) < data.rfind(_START_OF_SCAN):
            raise
        pixels = simplejpeg.decode_jpeg(data, colorspace="RGB", min_height=size, min_width=size, strict=False)
    return pixels


def _on_white(image: Image.Image) -> Pixels:
    """Pillow's path: PNG, WebP and CMYK JPEG; the first frame of an animation."""
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, _WHITE).astype(np.uint8))
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB"))
    layer = image.convert("RGBA")
    paper = Image.new("RGBA", layer.size, (_WHITE, _WHITE, _WHITE, _WHITE))
    return np.asarray(Image.alpha_composite(paper, layer).convert("RGB"))


def _oriented(pixels: Pixels, orientation: int) -> Pixels:
    """EXIF 2.3's eight orientations: a mirroring, then a turn; an unknown number means upright. OpenCV does it in a tenth of numpy's time."""
    mirrored, turn = _ORIENTATIONS.get(orientation, (False, None))
    if mirrored:
        pixels = np.asarray(cv2.flip(pixels, 1), dtype=np.uint8)
    return pixels if turn is None else np.asarray(cv2.rotate(pixels, turn), dtype=np.uint8)


def _centre_square(pixels: Pixels) -> Pixels:
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def _resized(pixels: Pixels, width: int, height: int) -> Pixels:
    if pixels.shape[:2] == (height, width):
        return np.ascontiguousarray(pixels)
    shrinks = pixels.shape[0] >= height and pixels.shape[1] >= width
    resized = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.uint8)
