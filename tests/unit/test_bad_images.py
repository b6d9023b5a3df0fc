"""2,400 bad images of every kind that reaches a shop's folder: none crashes, and none that is known to be bad is accepted."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from guidelens.config import IngestConfig, S3Options
from guidelens.data.images.decoding import decode_image
from guidelens.data.images.photos import PhotoEmbedder, PhotoPlan, completed, plan_photos, settle_photos
from guidelens.data.images.replay import photos_again
from guidelens.data.records.settling import quarantine_rows
from guidelens.data.records.sources import IngestSources, Kind
from guidelens.errors import UnreadableImageError
from guidelens.schemas.tables import SCHEMAS, Table

Rng = np.random.Generator
FORMS = ("JPEG", "PNG", "WEBP")
CODES = {"frame_unreadable", "frame_too_large", "frame_type"}
NUM_A_KIND, NUM_PHOTOS_A_KIND = 300, 60
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


def cut_off(rng: Rng, data: bytes) -> bytes:
    """Ends early. A PNG's pixels are all there before its trailer, so the cut lies before it."""
    return data[: int(rng.integers(0, len(data) - (PNG_TRAILER + 4 if data.startswith(b"\x89PNG") else 2)))]


def cut_off_after_a_warning(rng: Rng, data: bytes) -> bytes:
    """Stray bytes before a marker, which libjpeg only warns of, hide that the end is missing."""
    start = data.rindex(b"\xff\xda")
    return data[:2] + b"\x00\x00" + data[2 : int(rng.integers(start, len(data) - 2))]


def of_another_type(rng: Rng, data: bytes) -> bytes:
    form = str(rng.choice(["GIF", "BMP", "TIFF", "ICO", "PPM"]))
    sink = io.BytesIO()
    Image.open(io.BytesIO(data)).save(sink, form)
    return sink.getvalue()


def bomb(rng: Rng, _data: bytes) -> bytes:
    """A small file that claims more pixels than allowed, and holds them: they compress to nothing."""
    width, height = 30_000, int(rng.integers(2_000, 20_000))
    if rng.integers(2):
        return (
            b"RIFF\x1e\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x00\x00\x00\x00" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little") + bytes(8)
        )
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(200_000), 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks)


def lying_about_its_size(rng: Rng, data: bytes) -> bytes:
    """The header claims more rows than there are pixels for."""
    lying = bytearray(data)
    height = struct.unpack_from(">I", lying, 20)[0]
    struct.pack_into(">I", lying, 20, height * int(rng.integers(2, 20)))
    struct.pack_into(">I", lying, 29, zlib.crc32(lying[12:29]))
    return bytes(lying)


def noise(rng: Rng, _data: bytes) -> bytes:
    starts = (b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"RIFF\x00\x00\x00\x00WEBPVP8 ", b"RIFF\x00\x00\x00\x00WEBPVP8L")
    return starts[rng.integers(len(starts))] + rng.bytes(int(rng.integers(0, 3000)))


def flipped(rng: Rng, data: bytes) -> bytes:
    """Some bytes changed anywhere: what still decodes is a picture, so only crashes count."""
    changed = bytearray(data)
    for at in rng.integers(0, len(data), int(rng.integers(1, 20))):
        changed[at] = int(rng.integers(256))
    return bytes(changed)


def spliced(rng: Rng, data: bytes) -> bytes:
    """The head of one photo and the tail of another."""
    other = photo(rng, str(rng.choice(FORMS)))
    return data[: int(rng.integers(len(data)))] + other[int(rng.integers(len(other))) :]


Damage = Callable[[Rng, bytes], bytes]
BAD: tuple[Damage, ...] = (cut_off, cut_off_after_a_warning, of_another_type, bomb, lying_about_its_size, noise)
DOUBTFUL: tuple[Damage, ...] = (flipped, spliced)
ONLY = {cut_off_after_a_warning: ("JPEG",), of_another_type: ("PNG",), lying_about_its_size: ("PNG",)}


def made(kind: Damage) -> Iterator[tuple[bytes, bytes]]:
    """A bad image, and the photo that should be in its place."""
    rng = np.random.default_rng([2, len(kind.__name__)])
    originals = [photo(rng, str(rng.choice(ONLY.get(kind, FORMS)))) for _ in range(NUM_PHOTOS_A_KIND)]
    return ((kind(rng, original), original) for _ in range(NUM_A_KIND // NUM_PHOTOS_A_KIND) for original in originals)


@pytest.mark.parametrize("kind", BAD, ids=lambda kind: kind.__name__)
def test_a_bad_image_is_refused_with_a_code(kind: Damage) -> None:
    for number, (data, _) in enumerate(made(kind)):
        with pytest.raises(UnreadableImageError) as refused:
            decode_image(data)
            pytest.fail(f"{kind.__name__} {number} was accepted")
        assert refused.value.code in CODES


@pytest.mark.parametrize("kind", DOUBTFUL, ids=lambda kind: kind.__name__)
def test_a_doubtful_image_becomes_a_picture_or_is_refused_with_a_code(kind: Damage) -> None:
    refused = 0
    for data, _ in made(kind):
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


def embedded(plan: PhotoPlan, folder: str) -> pl.DataFrame:
    """As a worker of the ingest's stage does it."""
    found = pl.from_arrow(PhotoEmbedder(folder, S3Options(), IngestConfig(), plan.contents)(plan.tasks))
    assert isinstance(found, pl.DataFrame)
    return found


def in_lake(photos: pl.DataFrame) -> pl.DataFrame:
    """What a plan wants to know of the lake's photos."""
    return photos.with_columns(has_thumbnail=pl.col("thumbnail").is_not_null())


def test_each_refused_image_is_replayed_and_stays_with_its_rule_until_the_good_bytes_are_in_its_place(tmp_path: Path) -> None:
    originals: dict[str, bytes] = {}
    for kind in (*BAD, *DOUBTFUL):
        for number, (data, original) in enumerate(made(kind)):
            name = f"{kind.__name__}-{number:03d}.jpg"
            (tmp_path / name).write_bytes(data)
            originals[name] = original
    nothing = in_lake(pl.DataFrame(schema=pl.Schema(SCHEMAS[Table.PHOTOS])))
    plan = plan_photos(IngestSources(photos=str(tmp_path)), {}, nothing, S3Options())
    settled = settle_photos(embedded(plan, str(tmp_path)), plan.refused, nothing)
    quarantined = quarantine_rows(Kind.PHOTOS, settled.refused, plan.uris)
    assert quarantined.height + settled.accepted.height == len(originals) == (len(BAD) + len(DOUBTFUL)) * NUM_A_KIND
    assert quarantined["record_sha256"].n_unique() == quarantined.height > len(BAD) * NUM_A_KIND
    lake = in_lake(completed(settled.accepted, settled.accepted.head(0)))

    left = photos_again(quarantined, {}, lake, S3Options(), embedded)
    assert left.ids == () and left.rows.height == 0
    assert dict(left.left.select("source", "rule").iter_rows()) == dict(quarantined.select("source", "rule").iter_rows())

    for source in quarantined["source"]:
        Path(source).write_bytes(originals[Path(source).name])
    first_of_each_photo = quarantined.filter(pl.col("source").str.contains(r"-0[0-5].\.jpg$"))
    for records in (first_of_each_photo, quarantined.filter(~pl.col("source").is_in(first_of_each_photo["source"].implode()))):
        good = photos_again(records, {}, lake, S3Options(), embedded)
        assert (set(good.ids), good.left.height) == (set(records["record_sha256"]), 0)
        taken = settle_photos(good.rows, None, lake)
        assert taken.counts[0].accepted == records.height == taken.accepted.height
        lake = pl.concat([lake, in_lake(completed(taken.accepted, lake.drop("has_thumbnail")))])
    assert set(lake["path"]) == set(originals)
    assert lake["embedding"].null_count() == 0
