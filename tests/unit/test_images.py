"""Decoding: one function from bytes to the encoder's input, with limits before any pixel is decoded."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from guidelens.data.images.decoding import decode_image, thumbnail, upright_pixels
from guidelens.data.images.headers import image_size
from guidelens.errors import UnreadableImageError

RED, BLUE = (220, 20, 20), (20, 20, 220)


def halves(width: int = 400, height: int = 300) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def encoded(image: Image.Image, form: str = "JPEG", **options: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, form, **options)
    return sink.getvalue()


def close(pixel: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool(np.abs(pixel.astype(int) - colour).max() < 12)


def code_of(data: bytes, **limits: int) -> str:
    with pytest.raises(UnreadableImageError) as caught:
        decode_image(data, **limits)
    return caught.value.code


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_the_three_formats_decode_to_the_same_picture(form: str) -> None:
    pixels = decode_image(encoded(halves(), form))
    assert pixels.shape == (224, 224, 3)
    assert pixels.dtype == np.uint8
    assert close(pixels[112, 40], RED)
    assert close(pixels[112, 180], BLUE)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_the_size_is_read_from_the_header(form: str) -> None:
    assert image_size(encoded(halves(321, 123), form)) == (321, 123)
    assert image_size(encoded(halves(321, 123), form)[:700]) == (321, 123)


def test_webp_sizes_of_its_three_kinds_of_header() -> None:
    assert image_size(encoded(halves(77, 33), "WEBP", lossless=True)) == (77, 33)
    assert image_size(encoded(halves(77, 33).convert("RGBA"), "WEBP", exif=b"Exif\0\0")) == (77, 33)


def test_the_centre_is_kept_and_the_aspect_too() -> None:
    wide = Image.new("RGB", (900, 300), BLUE)
    wide.paste(RED, (300, 0, 600, 300))
    pixels = decode_image(encoded(wide, "PNG"))
    assert (pixels == RED).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_exif_orientation_is_undone_as_pillow_undoes_it(orientation: int) -> None:
    from PIL import ImageOps

    image = halves(320, 320)
    image.paste((20, 220, 20), (0, 0, 320, 80))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image, "JPEG", exif=exif, quality=95)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).resize((224, 224), Image.Resampling.BOX)).astype(int)
    assert np.abs(decode_image(data).astype(int) - expected).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_changes_no_pixel(orientation: int) -> None:
    from PIL import ImageOps

    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (224, 224, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image, "PNG", exif=exif)
    assert np.array_equal(decode_image(data), np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))))


def test_grayscale_cmyk_palette_and_sixteen_bits_become_rgb() -> None:
    gray = Image.new("L", (300, 300), 100)
    assert close(decode_image(encoded(gray))[5, 5], (100, 100, 100))
    assert close(decode_image(encoded(Image.new("CMYK", (300, 300), (0, 255, 255, 0))))[5, 5], (255, 0, 0))
    assert close(decode_image(encoded(halves().quantize(4), "PNG"))[112, 40], RED)
    deep = Image.fromarray(np.full((300, 300), 100 * 256, np.uint16))
    assert close(decode_image(encoded(deep, "PNG"))[5, 5], (100, 100, 100))


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_transparency_is_laid_on_white(form: str) -> None:
    clear = Image.new("RGBA", (300, 300), (0, 0, 0, 0))
    assert close(decode_image(encoded(clear, form))[5, 5], (255, 255, 255))


def test_other_formats_are_refused_by_type() -> None:
    assert code_of(encoded(halves(), "GIF")) == "frame_type"
    assert code_of(b"") == "frame_type"
    assert code_of(b"%PDF-1.7 hello") == "frame_type"


def test_damaged_and_cut_off_files_are_unreadable() -> None:
    assert code_of(b"\xff\xd8 this is no photo") == "frame_unreadable"
    for form in ("JPEG", "PNG", "WEBP"):
        noisy = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8))
        assert code_of(encoded(noisy, form)[:-20_000]) == "frame_unreadable"


def test_limits_hold_before_decoding() -> None:
    data = encoded(halves())
    assert code_of(data, max_bytes=len(data) - 1) == "frame_too_large"
    assert code_of(data, max_pixels=400 * 300 - 1) == "frame_too_large"
    bomb = bytearray(encoded(Image.new("RGB", (10, 10)), "PNG"))
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    assert code_of(bytes(bomb)) == "frame_too_large"


def test_a_sliver_decodes_without_growing() -> None:
    assert decode_image(encoded(Image.new("RGB", (5000, 1), RED), "PNG")).shape == (224, 224, 3)


def test_a_thumbnail_keeps_the_aspect_and_is_never_enlarged() -> None:
    assert image_size(thumbnail(upright_pixels(encoded(halves(1600, 800))), 320)) == (320, 160)
    assert image_size(thumbnail(upright_pixels(encoded(halves(100, 50))), 320)) == (100, 50)


@settings(max_examples=60)
@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x00\x00\x00\x00WEBPVP8X", b"RIFF\x00\x00\x00\x00WEBPVP8L"]))
def test_any_bytes_decode_or_are_refused_with_a_code(tail: bytes, start: bytes) -> None:
    try:
        decode_image(start + tail)
    except UnreadableImageError as error:
        assert error.code in ("frame_unreadable", "frame_too_large", "frame_type")


@settings(max_examples=60)
@given(st.integers(0, 2000), st.integers(0, 255), st.sampled_from(["JPEG", "PNG", "WEBP"]))
def test_a_flipped_byte_decodes_or_is_refused_with_a_code(at: int, value: int, form: str) -> None:
    data = bytearray(encoded(halves(60, 40), form))
    data[at % len(data)] = value
    try:
        assert decode_image(bytes(data)).shape == (224, 224, 3)
    except UnreadableImageError as error:
        assert error.code in ("frame_unreadable", "frame_too_large", "frame_type")


def test_a_photo_with_a_damaged_exif_block_is_upright_and_nothing_warns() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(halves(), exif=exif)
    start = data.index(b"Exif\0\0") + 6
    for cut in range(4, 20):
        broken = data[: start + cut] + b"\xff" * (20 - cut) + data[start + 20 :]
        assert decode_image(broken).shape == (224, 224, 3)


def test_an_interlaced_png_is_whole_and_a_cut_one_is_not() -> None:
    """Adam7 of a size at which some passes are empty, written by hand: Pillow writes none."""
    for width, height in ((1, 1), (3, 5), (9, 2), (64, 48)):
        rows = b"".join(
            (b"\0" + b"\x50" * (3 * columns)) * lines
            for columns, lines in (
                (-(-(width - x) // dx), -(-(height - y) // dy))
                for x, y, dx, dy in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
            )
            if columns > 0 and lines > 0
        )
        assert close(decode_image(png(width, height, rows))[5, 5], (0x50, 0x50, 0x50))
        assert code_of(png(width, height, rows[:-1])) == "frame_unreadable"


def png(width: int, height: int, rows: bytes) -> bytes:
    """An interlaced RGB picture."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks)
