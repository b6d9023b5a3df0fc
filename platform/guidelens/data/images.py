"""Photos and camera frames, from bytes to the encoder's input: the one decoder ingest and serving share.

Scaled decoding and resize filters differ between libraries, and embeddings with them, so nobody decodes elsewhere. Limits are
checked on the header, before a pixel is decoded. Knows nothing of encoders, products or requests.
"""

import io
import struct
from typing import Literal

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from guidelens.errors import UnreadableImageError

Pixels = NDArray[np.uint8]
ImageType = Literal["jpeg", "png", "webp"]

INPUT_SIZE_PX = 224
MAX_PHOTO_BYTES = 20 * 1024 * 1024
MAX_PHOTO_PIXELS = 50_000_000
_ORIENTATION_TAG = 0x0112
_WHITE = 255
_DECODE_ERRORS = (OSError, ValueError, SyntaxError, EOFError, struct.error, IndexError, KeyError, OverflowError, Image.DecompressionBombError)


def decode_image(data: bytes, *, max_bytes: int = MAX_PHOTO_BYTES, max_pixels: int = MAX_PHOTO_PIXELS, size_px: int = INPUT_SIZE_PX) -> Pixels:
    """The centre square of an image, upright, on white where it is transparent.

    Returns:
        (size_px, size_px, 3) uint8, RGB.

    Raises:
        UnreadableImageError: `frame_type` for other formats, `frame_too_large` above a limit, `frame_unreadable` for damaged bytes.
    """
    return _resized(_centre_square(_upright_pixels(data, size_px, max_bytes, max_pixels)), size_px, size_px)


def thumbnail(data: bytes, size_px: int = 320, *, max_bytes: int = MAX_PHOTO_BYTES, max_pixels: int = MAX_PHOTO_PIXELS) -> bytes:
    """The whole image as a JPEG whose longer side is at most `size_px`; never enlarged. Raises like `decode_image`."""
    pixels = _upright_pixels(data, size_px, max_bytes, max_pixels)
    height, width = pixels.shape[:2]
    share = min(1.0, size_px / max(height, width))
    small = _resized(pixels, max(1, round(width * share)), max(1, round(height * share)))
    encoded: bytes = simplejpeg.encode_jpeg(small, quality=85, colorspace="RGB")
    return encoded


def image_type(data: bytes) -> ImageType:
    """The format the first bytes claim.

    Raises:
        UnreadableImageError: `frame_type`.
    """
    if data.startswith(b"\xff\xd8"):
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp"
    raise UnreadableImageError("frame_type", f"an image must be JPEG, PNG or WebP, got bytes that start with {data[:8].hex() or 'nothing'}; convert it")


def image_size(data: bytes) -> tuple[int, int]:
    """(width, height) in pixels as stored, from the header only; EXIF orientation is not applied.

    Raises:
        UnreadableImageError: `frame_type` or `frame_unreadable`.
    """
    kind = image_type(data)
    try:
        width, height = {"jpeg": _jpeg_size, "png": _png_size, "webp": _webp_size}[kind](data)
    except _DECODE_ERRORS as error:
        raise _damaged(kind, str(error)) from error
    if width < 1 or height < 1:
        raise _damaged(kind, f"it claims {width} x {height} pixels")
    return width, height


def _damaged(kind: str, why: str) -> UnreadableImageError:
    return UnreadableImageError("frame_unreadable", f"a {kind} image must decode, got damaged bytes ({why}); send the whole file again")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    height, width, _, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    return int(width), int(height)


def _png_size(data: bytes) -> tuple[int, int]:
    if data[12:16] != b"IHDR":
        raise ValueError("no IHDR chunk")
    width, height = struct.unpack_from(">II", data, 16)
    return int(width), int(height)


def _webp_size(data: bytes) -> tuple[int, int]:
    """RFC 9649: the canvas of VP8X, else the one frame of VP8L or VP8."""
    chunk = data[12:16]
    if chunk == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if chunk == b"VP8L" and data[20] == 0x2F:
        (packed,) = struct.unpack_from("<I", data, 21)
        return (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    if chunk == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise ValueError("no VP8 frame")


def _upright_pixels(data: bytes, size_px: int, max_bytes: int, max_pixels: int) -> Pixels:
    """(height, width, 3) uint8 RGB; a JPEG is decoded at the smallest DCT scale whose shorter side is still `size_px`."""
    if len(data) > max_bytes:
        raise UnreadableImageError("frame_too_large", f"an image may have {max_bytes} bytes, got {len(data)}; send a smaller one")
    width, height = image_size(data)
    if width * height > max_pixels:
        raise UnreadableImageError("frame_too_large", f"an image may have {max_pixels} pixels, got {width} x {height}; send a smaller one")
    kind = image_type(data)
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as header:
            orientation = int(header.getexif().get(_ORIENTATION_TAG, 1))
            pixels = _scaled_jpeg(data, size_px) if header.format == "JPEG" and header.mode in ("RGB", "L") else _on_white(header)
    except _DECODE_ERRORS as error:
        raise _damaged(kind, str(error)) from error
    return _oriented(pixels, orientation)


def _scaled_jpeg(data: bytes, size_px: int) -> Pixels:
    """Cut-off files are refused; what libjpeg merely warns of (stray bytes, odd markers) is not."""
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, colorspace="RGB", min_height=size_px, min_width=size_px, strict=True)
    except ValueError as error:
        if "premature end" in str(error).lower():
            raise
        pixels = simplejpeg.decode_jpeg(data, colorspace="RGB", min_height=size_px, min_width=size_px, strict=False)
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
    """EXIF 2.3's eight orientations: a mirroring, then quarter turns against the clock; an unknown number means upright."""
    mirrored, quarter_turns = {2: (True, 0), 3: (False, 2), 4: (True, 2), 5: (True, 1), 6: (False, 3), 7: (True, 3), 8: (False, 1)}.get(orientation, (False, 0))
    turned = np.rot90(pixels[:, ::-1] if mirrored else pixels, quarter_turns)
    return np.ascontiguousarray(turned)


def _centre_square(pixels: Pixels) -> Pixels:
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def _resized(pixels: Pixels, width: int, height: int) -> Pixels:
    if pixels.shape[:2] == (height, width):
        return np.ascontiguousarray(pixels)
    shrinks = pixels.shape[0] >= height and pixels.shape[1] >= width
    resized = cv2.resize(np.ascontiguousarray(pixels), (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.uint8)
