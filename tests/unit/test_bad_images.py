"""2,400 bad images of every kind that reaches a shop's folder: none crashes, and none that is known to be bad is accepted."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from PIL import Image

from guidelens.data.images.decoding import decode_image
from guidelens.errors import UnreadableImageError

Rng = np.random.Generator
FORMS = ("JPEG", "PNG", "WEBP")
CODES = {"frame_unreadable", "frame_too_large", "frame_type"}
NUM_A_KIND = 300
PNG_TRAILER = 12


def photo(rng: Rng, form: str) -> bytes:
    """A textured picture with a size and options of its own."""
    width, height = (int(side) for side in rng.integers(40, 160, 2))
    pixels = rng.integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
    image = image.convert(str(rng.choice(["RGB", "L"])))
    options = {"JPEG": {"progressive": bool(rng.integers(2)), "quality": int(rng.integers(40, 96))}, "PNG": {}, "WEBP": {"lossless": bool(rng.integers(2))}}
    exif = Image.Exif()
    exif[0x0112] = int(rng.integers(1, 9))
    sink = io.BytesIO()
    image.save(sink, form, exif=exif, **options[form])
    return sink.getvalue()


def cut_off(rng: Rng) -> bytes:
    """Ends early. A PNG's pixels are all there before its trailer, so the cut lies before it."""
    form = str(rng.choice(FORMS))
    data = photo(rng, form)
    return data[: int(rng.integers(0, len(data) - (PNG_TRAILER + 4 if form == "PNG" else 2)))]


def cut_off_after_a_warning(rng: Rng) -> bytes:
    """Stray bytes before a marker, which libjpeg only warns of, hide that the end is missing."""
    data = photo(rng, "JPEG")
    start = data.rindex(b"\xff\xda")
    return data[:2] + b"\x00\x00" + data[2 : int(rng.integers(start, len(data) - 2))]


def of_another_type(rng: Rng) -> bytes:
    form = str(rng.choice(["GIF", "BMP", "TIFF", "ICO", "PPM"]))
    sink = io.BytesIO()
    Image.open(io.BytesIO(photo(rng, "PNG"))).save(sink, form)
    return sink.getvalue()


def bomb(rng: Rng) -> bytes:
    """A small file that claims more pixels than allowed, and holds them: they compress to nothing."""
    width, height = 30_000, int(rng.integers(2_000, 20_000))
    if rng.integers(2):
        return (
            b"RIFF\x1e\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x00\x00\x00\x00" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little") + bytes(8)
        )
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(200_000), 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks)


def lying_about_its_size(rng: Rng) -> bytes:
    """The header claims more rows than there are pixels for."""
    data = bytearray(photo(rng, "PNG"))
    height = struct.unpack_from(">I", data, 20)[0]
    struct.pack_into(">I", data, 20, height * int(rng.integers(2, 20)))
    struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
    return bytes(data)


def noise(rng: Rng) -> bytes:
    starts = (b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"RIFF\x00\x00\x00\x00WEBPVP8 ", b"RIFF\x00\x00\x00\x00WEBPVP8L")
    return starts[rng.integers(len(starts))] + rng.bytes(int(rng.integers(0, 3000)))


def flipped(rng: Rng) -> bytes:
    """Some bytes changed anywhere: what still decodes is a picture, so only crashes count."""
    data = bytearray(photo(rng, str(rng.choice(FORMS))))
    for at in rng.integers(0, len(data), int(rng.integers(1, 20))):
        data[at] = int(rng.integers(256))
    return bytes(data)


def spliced(rng: Rng) -> bytes:
    """The head of one photo and the tail of another."""
    first, second = (photo(rng, str(rng.choice(FORMS))) for _ in range(2))
    return first[: int(rng.integers(len(first)))] + second[int(rng.integers(len(second))) :]


BAD: tuple[Callable[[Rng], bytes], ...] = (cut_off, cut_off_after_a_warning, of_another_type, bomb, lying_about_its_size, noise)
DOUBTFUL: tuple[Callable[[Rng], bytes], ...] = (flipped, spliced)


def made(kind: Callable[[Rng], bytes]) -> Iterator[bytes]:
    rng = np.random.default_rng([2, len(kind.__name__)])
    return (kind(rng) for _ in range(NUM_A_KIND))


@pytest.mark.parametrize("kind", BAD, ids=lambda kind: kind.__name__)
def test_a_bad_image_is_refused_with_a_code(kind: Callable[[Rng], bytes]) -> None:
    for number, data in enumerate(made(kind)):
        with pytest.raises(UnreadableImageError) as refused:
            decode_image(data)
            pytest.fail(f"{kind.__name__} {number} was accepted")
        assert refused.value.code in CODES


@pytest.mark.parametrize("kind", DOUBTFUL, ids=lambda kind: kind.__name__)
def test_a_doubtful_image_becomes_a_picture_or_is_refused_with_a_code(kind: Callable[[Rng], bytes]) -> None:
    refused = 0
    for data in made(kind):
        try:
            assert decode_image(data).shape == (224, 224, 3)
        except UnreadableImageError as error:
            assert error.code in CODES
            refused += 1
    assert 0 < refused < NUM_A_KIND


@pytest.mark.parametrize("form", FORMS)
def test_the_photos_that_bad_ones_are_made_of_are_accepted(form: str) -> None:
    rng = np.random.default_rng(1)
    assert all(decode_image(photo(rng, form)).shape == (224, 224, 3) for _ in range(100))
