"""What does decoding photos cost beside the bare libraries, and does Ray Data spread it over cores?

    python -m benchmarks.images [--photos DIR] [--num 448] [--out benchmarks/results]

The peer of the decoder is simplejpeg's DCT-scaled decoding and one OpenCV resize, without limits, orientation or refusals, on the same bytes in
the same process, one thread, CPU time, taken in turn. Then the ingest's own stage with one worker and with two, whole and without the encoder;
beside it the same workers as plain processes without Ray, which is what the machine's cores give at best. Rates are of the time in which all
workers worked: starting them and the last photos of the slower one are left out. Without --photos: textured pictures, as large as a phone takes
them and as a web shop has them, upright and turned by EXIF.
"""

import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import click
import cv2
import numpy as np
import pyarrow as pa
import simplejpeg
from numpy.typing import NDArray

from benchmarks._results import keep, machine, today
from guidelens.config import IngestConfig, S3Options
from guidelens.data.images.decoding import INPUT_SIZE_PX, decode_image
from guidelens.data.images.photos import TASK_SCHEMA, PhotoEmbedder
from guidelens.errors import InputError
from guidelens.schemas.base import Frozen
from pipelines.cluster import ray_session
from pipelines.entry import progress, run_command

_TURNS = 7
_MADE = 24
"""Distinct pictures of each size that are made where no folder is given; the stage takes them again and again."""
_CAMERA, _WEB = (3024, 4032), (640, 640)
_TURNED = 6
_NOTHING_KNOWN = pa.table({"sha256": pa.array([], pa.string()), "image_encoder": pa.array([], pa.string()), "has_thumbnail": pa.array([], pa.bool_())})


class DecoderRate(Frozen):
    """Photos a CPU second of one thread. ratio: of ours to bare, the median of turns, and the lowest and highest."""

    photos: str
    megapixels: float
    bare: float
    ours: float
    ratio: float
    ratio_low: float
    ratio_high: float


class StageRate(Frozen):
    """Photos a second by number of workers, and the CPU milliseconds that a photo takes of the workers. driver_ms: of the driver, with two."""

    way: str
    embeds: bool
    one_worker: float
    two_workers: float
    speedup: float
    one_worker_ms: float
    two_workers_ms: float
    driver_ms: float


class ImageStudy(Frozen):
    machine: str
    date: str
    command: str
    decoders: tuple[DecoderRate, ...]
    photos: int
    stages: tuple[StageRate, ...]


def bare(data: bytes) -> NDArray[np.uint8]:
    """The two libraries alone."""
    pixels = simplejpeg.decode_jpeg(data, colorspace="RGB", min_height=INPUT_SIZE_PX, min_width=INPUT_SIZE_PX)
    side = min(pixels.shape[:2])
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    square = pixels[top : top + side, left : left + side]
    return np.asarray(cv2.resize(square, (INPUT_SIZE_PX, INPUT_SIZE_PX), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def decoder_rate(name: str, photos: Sequence[bytes]) -> DecoderRate:
    """Both ways in each of several turns, so that a slow moment meets both."""
    cv2.setNumThreads(1)
    theirs, ours = np.array([[_cpu_seconds(decode, photos) for decode in (bare, decode_image)] for _ in range(_TURNS + 1)])[1:].T
    ratios = theirs / ours
    return DecoderRate(
        photos=name,
        megapixels=round(statistics.median(_megapixels(data) for data in photos), 2),
        bare=round(1 / theirs.min(), 1),
        ours=round(1 / ours.min(), 1),
        ratio=round(float(np.median(ratios)), 3),
        ratio_low=round(ratios.min(), 3),
        ratio_high=round(ratios.max(), 3),
    )


def _cpu_seconds(decode: Callable[[bytes], object], photos: Sequence[bytes]) -> float:
    start = time.process_time()
    for data in photos:
        decode(data)
    return (time.process_time() - start) / len(photos)


def _megapixels(data: bytes) -> float:
    height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    return float(height * width) / 1e6


class _NoEncoder:
    """Gives zeros in the place of embeddings."""

    encoder_id = "none"

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.zeros((len(images), 1280), np.float32)


def noting(log: Path, embeds: bool) -> type[PhotoEmbedder]:
    """The ingest's worker, which also notes after each batch the time, its CPU time, and the photos so far, in a file of its own in `log`."""

    class Noting(PhotoEmbedder):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self._photos = 0
            if not embeds:
                self._encoder = _NoEncoder()  # type: ignore[assignment]

        def __call__(self, tasks: pa.Table) -> pa.Table:
            found = super().__call__(tasks)
            assert found["rule"].null_count == found.num_rows, "every photo of a benchmark is good"
            self._photos += tasks.num_rows
            with (log / str(os.getpid())).open("a") as sink:
                sink.write(json.dumps([time.time(), time.process_time(), self._photos]) + "\n")
            return found

    return Noting


class Steady(NamedTuple):
    """While all workers worked: photos a second, and CPU milliseconds a photo."""

    rate: float
    cpu_ms: float


def steady(log: Path) -> Steady:
    """From the moment in which the last worker had its first batch done to the one in which the first had its last."""
    notes = [np.array([json.loads(line) for line in file.read_text().splitlines()]) for file in sorted(log.iterdir())]
    begin, end = max(note[0, 0] for note in notes), min(note[-1, 0] for note in notes)
    assert begin < end, "each worker must have had several batches; raise --num"
    done = [[np.interp([begin, end], note[:, 0], note[:, column]) for column in (1, 2)] for note in notes]
    cpu, photos = np.sum([[after - before for before, after in worker] for worker in done], axis=0)
    return Steady(float(photos / (end - begin)), float(1000 * cpu / photos))


def with_ray(tasks: pa.Table, folder: str, num_workers: int, embeds: bool, log: Path) -> None:
    from guidelens.data.ingest import stages

    stages.set_up_ray_data()
    real, stages.PhotoEmbedder = stages.PhotoEmbedder, noting(log, embeds)  # type: ignore[misc]
    try:
        found = stages.embed_photos(tasks, _NOTHING_KNOWN, folder, S3Options(), IngestConfig(num_workers=num_workers))
    finally:
        stages.PhotoEmbedder = real  # type: ignore[misc]
    assert found.height == tasks.num_rows


def as_processes(tasks: pa.Table, folder: str, num_workers: int, embeds: bool, log: Path) -> None:
    size = -(-tasks.num_rows // num_workers)
    shares = [tasks.slice(start, size) for start in range(0, tasks.num_rows, size)]
    spawned = [multiprocessing.get_context("spawn").Process(target=_work, args=(share, folder, embeds, log)) for share in shares]
    for process in spawned:
        process.start()
    for process in spawned:
        process.join()
        assert process.exitcode == 0


def _work(tasks: pa.Table, folder: str, embeds: bool, log: Path) -> None:
    config = IngestConfig()
    worker = noting(log, embeds)(folder, S3Options(), config, _NOTHING_KNOWN)
    for start in range(0, tasks.num_rows, config.photo_batch_size):
        worker(tasks.slice(start, config.photo_batch_size))


Run = Callable[[pa.Table, str, int, bool, Path], None]
_WAYS: Mapping[str, Run] = {"processes": as_processes, "Ray Data": with_ray}


def stage_rate(way: str, tasks: pa.Table, folder: str, embeds: bool) -> StageRate:
    found, driver_ms = [], 0.0
    for num_workers in (1, 2):
        progress(f"{way}, {num_workers} worker(s), {'read, decode, embed' if embeds else 'read, decode'}")
        with tempfile.TemporaryDirectory(prefix="gl-images-") as log:
            start = time.process_time()
            _WAYS[way](tasks, folder, num_workers, embeds, Path(log))
            driver_ms = 1000 * (time.process_time() - start) / tasks.num_rows
            found.append(steady(Path(log)))
    one, two = found
    return StageRate(
        way=way,
        embeds=embeds,
        one_worker=round(one.rate, 1),
        two_workers=round(two.rate, 1),
        speedup=round(two.rate / one.rate, 2),
        one_worker_ms=round(one.cpu_ms, 1),
        two_workers_ms=round(two.cpu_ms, 1),
        driver_ms=round(driver_ms, 2),
    )


def made_photos(folder: Path) -> dict[str, list[Path]]:
    """JPEGs by what they stand for."""
    found: dict[str, list[Path]] = {}
    rng = np.random.default_rng(0)
    for name, (width, height) in (("a phone's", _CAMERA), ("a web shop's", _WEB)):
        upright = [_picture(rng, width, height) for _ in range(_MADE)]
        for label, pictures in ((name, upright), (f"{name}, turned", [_with_orientation(data, _TURNED) for data in upright])):
            found[label] = [folder / f"{len(found)}-{number:03d}.jpg" for number in range(len(pictures))]
            for file, data in zip(found[label], pictures, strict=True):
                file.write_bytes(data)
    return found


def _picture(rng: np.random.Generator, width: int, height: int) -> bytes:
    coarse = rng.integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    data: bytes = simplejpeg.encode_jpeg(np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)), quality=90)
    return data


def _with_orientation(data: bytes, orientation: int) -> bytes:
    """With an EXIF segment of that one tag (EXIF 2.3, 4.5)."""
    directory = b"\x01\x00" + b"\x12\x01\x03\x00\x01\x00\x00\x00" + orientation.to_bytes(4, "little") + bytes(4)
    exif = b"Exif\0\0II*\0\x08\0\0\0" + directory
    return data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:]


@contextmanager
def _photos(given: Path | None) -> Iterator[tuple[Path, dict[str, list[Path]]]]:
    if given is not None:
        found = sorted(given.rglob("*.jpg"))
        if len(found) < _MADE:
            raise InputError(f"--photos must hold at least {_MADE} .jpg files, got {len(found)}; leave it out to have some made")
        yield given, {"given": found[:: -(-len(found) // 200)]}
        return
    with tempfile.TemporaryDirectory(prefix="gl-images-") as folder:
        yield Path(folder), made_photos(Path(folder))


@click.command()
@click.option("--photos", default=None, type=click.Path(exists=True, file_okay=False, path_type=Path), help="A folder of JPEGs.")
@click.option("--num", default=448, show_default=True, type=click.IntRange(256), help="How many the stage takes.")
@click.option("--out", default=Path("benchmarks/results"), type=click.Path(file_okay=False, path_type=Path))
def command(photos: Path | None, num: int, out: Path) -> None:
    """Write benchmarks/results/images.{json,md}."""
    with _photos(photos) as (folder, sets):
        decoders = []
        for name, files in sets.items():
            progress(f"decoding {len(files)} photos {_TURNS + 1} times each way: {name}")
            decoders.append(decoder_rate(name, [file.read_bytes() for file in files]))
        files = next(iter(sets.values()))
        rows = [{"path": f"{number}.jpg", "file": str(files[number % len(files)])} for number in range(num)]
        plain = {"is_catalogue_image": False, "wants_thumbnail": False}
        tasks = pa.Table.from_pylist([row | plain | {"size_bytes": Path(row["file"]).stat().st_size} for row in rows], schema=TASK_SCHEMA)
        stages = [stage_rate("processes", tasks, str(folder), embeds) for embeds in (False, True)]
        with ray_session():
            stages += [stage_rate("Ray Data", tasks, str(folder), embeds) for embeds in (False, True)]
    given = f"{' --photos DIR' if photos else ''} --num {num}"
    found = ImageStudy(
        machine=machine(), date=today(), command=f"python -m benchmarks.images{given}", decoders=tuple(decoders), photos=num, stages=tuple(stages)
    )
    keep(found, as_markdown(found), out, "images")


def as_markdown(found: ImageStudy) -> str:
    decoded = "".join(
        f"| {one.photos} | {one.megapixels} | {one.bare} | {one.ours} | {one.ratio} ({one.ratio_low} to {one.ratio_high}) |\n" for one in found.decoders
    )
    staged = "".join(
        f"| {one.way} | {'read, decode, embed' if one.embeds else 'read, decode'} | {one.one_worker} | {one.two_workers} | {one.speedup} x "
        f"| {one.one_worker_ms} | {one.two_workers_ms} | {one.driver_ms} |\n"
        for one in found.stages
    )
    decode_ms = 1000 / found.decoders[0].ours
    read, whole = (next(one.one_worker_ms for one in found.stages if one.way == "Ray Data" and one.embeds == embeds) for embeds in (False, True))
    parts = f"decoding and resizing {decode_ms:.1f}, reading and hashing {read - decode_ms:.1f}, embedding {whole - read:.1f}"
    return f"""# Photos, from bytes to the encoder's input

`{found.command}`, {found.machine}, {found.date}.

## Decode and resize, one thread, photos a CPU second

| photos | megapixels | simplejpeg + OpenCV alone | `decode_image` | ratio, median of turns (lowest to highest) |
|---|---|---|---|---|
{decoded}
## Ingest's stage: {found.photos} photos of the first kind, photos a second while all workers work

"Processes" are the same workers without Ray: what the cores give at best. CPU milliseconds a photo are the workers'; the driver's are with two.

| workers as | do | one worker | two workers | speed-up | CPU ms, one | CPU ms, two | driver's ms |
|---|---|---|---|---|---|---|---|
{staged}
A worker's {whole:.1f} ms a photo: {parts}.
"""


if __name__ == "__main__":
    run_command(command)
