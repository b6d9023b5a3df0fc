"""What does decoding photos cost beside the bare libraries, and does Ray Data spread it over cores?

    python -m benchmarks.images [--photos DIR] [--num 600] [--out benchmarks/results]

The peer is simplejpeg's DCT-scaled decoding and one OpenCV resize, without limits, orientation or refusals, on the same bytes in the same
process, one thread, CPU time, the best of several turns taken one after the other. Then the ingest's own stage, read + decode + embed with
Ray Data, with one worker and with two. Without --photos: textured pictures of 12 megapixels, as a phone takes them.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import cv2
import numpy as np
import pyarrow as pa
import simplejpeg

from benchmarks._results import keep, machine, today
from guidelens.config import IngestConfig, S3Options
from guidelens.data.images.decoding import INPUT_SIZE_PX, decode_image
from guidelens.errors import InputError
from guidelens.schemas.base import Frozen
from pipelines.cluster import ray_session
from pipelines.entry import progress, run_command

_TURNS = 7
_WARM_UP = 32
_MADE = 24
"""Distinct pictures that are made where no folder is given; files repeat them under other bytes."""


class ImageStudy(Frozen):
    """Rates are photos a second: of one core for the decoders, of the wall clock for the stage."""

    machine: str
    date: str
    command: str
    photos: int
    megapixels: float
    bare_per_core: float
    ours_per_core: float
    ratio: float
    ratio_low: float
    ratio_high: float
    stage_one_worker: float
    stage_two_workers: float
    speedup: float


def bare(data: bytes) -> np.ndarray:
    """The two libraries alone."""
    pixels = simplejpeg.decode_jpeg(data, colorspace="RGB", min_height=INPUT_SIZE_PX, min_width=INPUT_SIZE_PX)
    side = min(pixels.shape[:2])
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    return np.asarray(cv2.resize(pixels[top : top + side, left : left + side], (INPUT_SIZE_PX, INPUT_SIZE_PX), interpolation=cv2.INTER_AREA))


def decoders(photos: Sequence[bytes]) -> tuple[list[float], list[float]]:
    """CPU seconds a photo of (bare, ours) in each of several turns, taken in turn so that a slow moment meets both."""
    cv2.setNumThreads(1)
    found: tuple[list[float], list[float]] = ([], [])
    for turn in range(_TURNS + 1):
        for times, decode in zip(found, (bare, decode_image), strict=True):
            took = _cpu_seconds(decode, photos)
            if turn:
                times.append(took)
    return found


def _cpu_seconds(decode: Callable[[bytes], object], photos: Sequence[bytes]) -> float:
    start = time.process_time()
    for data in photos:
        decode(data)
    return (time.process_time() - start) / len(photos)


def stage_rate(folder: Path, files: Sequence[Path], num_workers: int) -> float:
    """Photos a second through the ingest's own stage, once its workers run."""
    from guidelens.data.images.photos import TASK_SCHEMA
    from guidelens.data.ingest.stages import embed_photos, quiet

    rows = [{"path": file.name, "file": str(file), "size_bytes": file.stat().st_size, "is_catalogue_image": False, "wants_thumbnail": False} for file in files]
    nothing = pa.table({"sha256": pa.array([], pa.string()), "image_encoder": pa.array([], pa.string()), "has_thumbnail": pa.array([], pa.bool_())})
    seconds = []
    with ray_session():
        quiet()
        # Two sizes: their difference leaves out what starting workers and loading the encoder takes.
        for num in (_WARM_UP, len(rows), _WARM_UP, len(rows)):
            start = time.perf_counter()
            embedded = embed_photos(
                pa.Table.from_pylist(rows[:num], schema=TASK_SCHEMA), nothing, str(folder), S3Options(), IngestConfig(num_workers=num_workers)
            )
            seconds.append(time.perf_counter() - start)
            assert embedded["rule"].is_null().all(), "every photo of a benchmark is good"
    return 2 * (len(rows) - _WARM_UP) / (seconds[1] - seconds[0] + seconds[3] - seconds[2])


def made_photos(folder: Path, num: int) -> list[Path]:
    """JPEGs of 3,024 x 4,032, textured."""
    rng = np.random.default_rng(0)
    encoded = []
    for _ in range(_MADE):
        coarse = rng.integers(0, 255, (504, 378, 3), dtype=np.uint8)
        encoded.append(simplejpeg.encode_jpeg(cv2.resize(coarse, (3024, 4032), interpolation=cv2.INTER_CUBIC), quality=90))
    files = [folder / f"{number:05d}.jpg" for number in range(num)]
    for number, file in enumerate(files):
        file.write_bytes(encoded[number % _MADE])
    return files


@click.command()
@click.option("--photos", default=None, type=click.Path(exists=True, file_okay=False, path_type=Path), help="A folder of JPEGs.")
@click.option("--num", default=600, show_default=True, type=click.IntRange(100), help="How many of them.")
@click.option("--out", default=Path("benchmarks/results"), type=click.Path(file_okay=False, path_type=Path))
def command(photos: Path | None, num: int, out: Path) -> None:
    """Write benchmarks/results/images.{json,md}."""
    with tempfile.TemporaryDirectory(prefix="gl-images-") as made:
        folder = photos or Path(made)
        files = sorted(photos.rglob("*.jpg"))[:num] if photos else made_photos(folder, num)
        if len(files) < 2 * _WARM_UP:
            raise InputError(f"--photos must hold at least {2 * _WARM_UP} .jpg files, got {len(files)}")
        sample = [file.read_bytes() for file in files[:: max(1, len(files) // 100)]]
        progress(f"decoding {len(sample)} photos {_TURNS} times each way")
        theirs, ours = decoders(sample)
        rates = []
        for workers in (1, 2):
            progress(f"the stage with {workers} worker(s)")
            rates.append(stage_rate(folder, files, workers))
        megapixels = statistics.median(_megapixels(data) for data in sample)
    ratios = sorted(their / our for their, our in zip(theirs, ours, strict=True))
    found = ImageStudy(
        machine=machine(),
        date=today(),
        command=f"python -m benchmarks.images{' --photos DIR' if photos else ''} --num {num}",
        photos=len(files),
        megapixels=round(megapixels, 2),
        bare_per_core=round(1 / min(theirs), 1),
        ours_per_core=round(1 / min(ours), 1),
        ratio=round(statistics.median(ratios), 3),
        ratio_low=round(ratios[0], 3),
        ratio_high=round(ratios[-1], 3),
        stage_one_worker=round(rates[0], 1),
        stage_two_workers=round(rates[1], 1),
        speedup=round(rates[1] / rates[0], 2),
    )
    keep(found, as_markdown(found), out, "images")


def _megapixels(data: bytes) -> float:
    height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    return float(height * width) / 1e6


def as_markdown(found: ImageStudy) -> str:
    return f"""# Photos, from bytes to the encoder's input

`{found.command}`, {found.machine}, {found.date}; {found.photos} photos of {found.megapixels} megapixels (median).

| | photos a second |
|---|---|
| simplejpeg + OpenCV alone, one core | {found.bare_per_core} |
| `decode_image`, one core | {found.ours_per_core} |
| ratio, median of turns (lowest to highest) | {found.ratio} ({found.ratio_low} to {found.ratio_high}) |
| ingest's stage (read, decode, embed), one worker | {found.stage_one_worker} |
| the same, two workers | {found.stage_two_workers} ({found.speedup} x) |

The encoder bounds the stage, not the decoder.
"""


if __name__ == "__main__":
    run_command(command)
