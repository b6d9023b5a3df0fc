"""What an image says of itself before a pixel is decoded: its format, size, orientation, and, of a PNG, whether its rows are all there.

Reads bytes only. Knows nothing of pixels, encoders or limits.
"""

import struct
import zlib
from typing import Literal

import simplejpeg
from PIL import Image

from guidelens.errors import UnreadableImageError

ImageType = Literal["jpeg", "png", "webp"]
DECODE_ERRORS = (OSError, ValueError, SyntaxError, EOFError, struct.error, IndexError, KeyError, OverflowError, zlib.error, Image.DecompressionBombError)
"""What decoders raise on bytes that are no image."""

_ORIENTATION_TAG = 0x0112
_START_OF_SCAN, _APP1 = 0xDA, 0xE1
_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""(first column, first row, column step, row step) of each pass of an interlaced PNG."""
_INFLATED_BLOCK = 1 << 20


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
    except DECODE_ERRORS as error:
        raise damaged(kind, str(error)) from error
    if width < 1 or height < 1:
        raise damaged(kind, f"it claims {width} x {height} pixels")
    return width, height


def damaged(kind: str, why: str) -> UnreadableImageError:
    """The refusal of bytes that a decoder could not read."""
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


def jpeg_colours(data: bytes) -> str:
    """`Gray`, `YCbCr`, `RGB`, `CMYK` or `YCCK`."""
    _, _, colours, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    return str(colours)


def jpeg_exif(data: bytes) -> bytes:
    """The first EXIF segment before the picture; empty where there is none or the segments break off."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != _START_OF_SCAN:
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] == _APP1 and data[at + 4 : at + 10] == b"Exif\0\0":
            return data[at + 4 : at + 2 + size]
        at += 2 + max(size, 2)
    return b""


def exif_orientation(exif: bytes) -> int:
    """Tag 0x0112 of the first directory (EXIF 2.3, 4.6.4); 1, upright, where there is none or the block is damaged.

    Pillow's reader warns of damage, and a warning cannot be held back in one thread alone.
    """
    block = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    try:
        if order is not None:
            (start,) = struct.unpack_from(f"{order}I", block, 4)
            (count,) = struct.unpack_from(f"{order}H", block, start)
            for entry in range(start + 2, start + 2 + 12 * count, 12):
                tag, _, _, value = struct.unpack_from(f"{order}HHIH", block, entry)
                if tag == _ORIENTATION_TAG:
                    return int(value)
    except struct.error:
        pass
    return 1


def require_all_png_rows(data: bytes) -> None:
    """Raises ValueError where the compressed rows are fewer than the header claims: Pillow would paint the missing ones black."""
    width, height, depth, colour, _, _, interlace = struct.unpack_from(">IIBBBBB", data, 16)
    bits = depth * _PNG_SAMPLES[colour]
    passes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in _ADAM7] if interlace else [(width, height)]
    missing = sum(rows * (1 + -(-columns * bits // 8)) for columns, rows in passes if columns > 0 and rows > 0)
    inflater, at = zlib.decompressobj(), 8
    while missing > 0 and at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        block = data[at + 8 : at + 8 + size] if data[at + 4 : at + 8] == b"IDAT" else b""
        while block and missing > 0 and not inflater.eof:
            missing -= len(inflater.decompress(block, _INFLATED_BLOCK))
            block = inflater.unconsumed_tail
        at += 12 + size
    if missing > 0:
        raise ValueError(f"{missing} bytes of its rows are missing")
