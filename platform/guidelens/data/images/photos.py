"""Photos: which ones a folder holds and what they show, then each one read, decoded and embedded once, on any worker."""

import hashlib
from collections import deque
from collections.abc import Container, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from guidelens.config import IngestConfig, S3Options
from guidelens.data.images.decoding import Pixels, encoder_input, thumbnail, upright_pixels
from guidelens.data.images.headers import image_size
from guidelens.data.records.raw_records import MAX_RECORD_BYTES, Problem, RawRecord
from guidelens.data.records.reading import read_chunk
from guidelens.data.records.settling import ACCEPTED, DUPLICATE, QUARANTINED, Settled, counts_of
from guidelens.data.records.sources import IngestSources, Kind, SourceFile, chunks_of, list_files
from guidelens.data.records.validation import problem_of, staged_schema
from guidelens.errors import InputError, StorageError, UnreadableImageError
from guidelens.schemas.catalog import LabelledPhoto
from guidelens.schemas.tables import SCHEMAS, Table
from guidelens.storage import arrow_filesystem

LABELS_FILE = "photos.csv"
PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif"})
"""What a shop means as a photo. Formats that cannot be read are quarantined, not passed over."""
_NUM_READERS = 8
_PHOTO_SOURCE, _LABEL_SOURCE = 0, 1

TASK_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("file", pa.string()),
        ("size_bytes", pa.int64()),
        ("product_id", pa.string()),
        ("is_catalogue_image", pa.bool_()),
        ("wants_thumbnail", pa.bool_()),
    ]
)
EMBEDDED_SCHEMA = staged_schema(Kind.PHOTOS)
_OF_THE_CONTENT = ("width", "height", "embedding", "thumbnail")


class PhotoPlan(NamedTuple):
    """tasks: one row a photo (TASK_SCHEMA), sorted by path. contents: what the lake knows by content (sha256, image_encoder,
    has_thumbnail). refused: label lines that cannot be applied. uris: what counts call the photos and the label file. missing: paths
    that products name as images and the folder does not hold. labels: the product by path that a line says, None where it says none."""

    tasks: pa.Table
    contents: pa.Table
    refused: pl.DataFrame
    uris: tuple[str, str]
    missing: tuple[str, ...]
    labels: Mapping[str, str | None]


class Labels(NamedTuple):
    by_path: dict[str, str | None]
    refused: pl.DataFrame
    uri: str


def plan_photos(sources: IngestSources, products: Mapping[str, tuple[str, ...]], known: pl.DataFrame, s3: S3Options) -> PhotoPlan:
    """What to do with each photo.

    A label of photos.csv says what a photo shows (nothing, where it is left empty); else the product that names it among its images does; else
    an earlier label. The line of an unknown product, of a missing photo, or against an earlier line is a refused record; a line that applies belongs to its photo.

    Args:
        products: images by product_id, of the lake and this ingest.
        known: the lake's photos: path, sha256, product_id, is_catalogue_image, image_encoder, has_thumbnail.

    Raises:
        InputError: there is no photo.
    """
    assert sources.photos is not None
    root = sources.photos
    listed = {file.uri[len(root.rstrip("/")) + 1 :]: file for file in list_files(root, s3) if file.uri != root}
    photos = {path: file for path, file in listed.items() if _suffix(path) in PHOTO_SUFFIXES}
    labels = _labels(sources, listed, set(photos), set(products), s3)
    if sources.photo_list is not None:
        photos = {path: photos[path] for path in labels.by_path}
    if not photos:
        raise InputError(f"photos must be a folder or s3:// prefix with JPEG, PNG or WebP files, got {root} with {len(listed)} other files")
    shown = {image: product for product in sorted(products, reverse=True) for image in products[product]}
    missing = tuple(sorted(set(shown) - set(photos)))
    tasks = _tasks(photos, labels.by_path, shown, known)
    contents = known.select("sha256", "image_encoder", "has_thumbnail").unique().to_arrow()
    return PhotoPlan(tasks, contents, labels.refused, (root, labels.uri), missing, labels.by_path)


def _suffix(path: str) -> str:
    return "." + path.rsplit(".", 1)[-1].lower() if "." in path else ""


def _labels(sources: IngestSources, listed: Mapping[str, SourceFile], photos: set[str], products: set[str], s3: S3Options) -> Labels:
    assert sources.photos is not None
    file = list_files(sources.photo_list, s3)[0] if sources.photo_list else listed.get(LABELS_FILE)
    if file is None:
        return Labels({}, _refusals([]), labels_beside(sources.photos))
    by_path: dict[str, str | None] = {}
    refused: list[tuple[int, bytes, Problem]] = []
    for record in label_lines(file, s3):
        found = label_of(record, photos, products, by_path, needs_product=sources.photo_list is None)
        if isinstance(found, Problem):
            refused.append((record.offset, record.raw, found))
        else:
            by_path[found[0]] = found[1]
    return Labels(by_path, _refusals(refused), file.uri)


def labels_beside(folder: str) -> str:
    """The file of labels that lies in a folder of photos, if any does."""
    return f"{folder.rstrip('/')}/{LABELS_FILE}"


def label_lines(file: SourceFile, s3: S3Options) -> Iterator[RawRecord]:
    for chunk in chunks_of([file], file.size_bytes or 1, s3):
        for batch in read_chunk(chunk, s3):
            yield from batch


def label_of(
    record: RawRecord, photos: Container[str], products: Container[str], by_path: Mapping[str, str | None], needs_product: bool
) -> tuple[str, str | None] | Problem:
    """The photo's path and the product that a line says it shows (None where it says none), or why the line cannot be applied.

    Args:
        by_path: what the lines before it said.
    """
    if record.problem:
        return record.problem
    cells = {name: value for name, value in (record.cells or {}).items() if value is not None}
    is_left_empty = "product_id" in (record.cells or {}) and "product_id" not in cells
    if "path" in cells and "product_id" not in cells and (is_left_empty or not needs_product):
        path, product = str(cells["path"]), None
    else:
        try:
            line = LabelledPhoto.model_validate(cells)
        except ValidationError as error:
            return problem_of(error)
        path, product = line.path.removeprefix("./"), line.product_id
    if path not in photos:
        return Problem("path.missing_photo", f"a label must name a photo of the folder, got {path[:200]!r}")
    if product is not None and product not in products:
        return Problem("product_id.unknown", f"a label must name a product of the catalogue, got {product!r} for {path[:200]!r}; ingest the catalogue first")
    if path in by_path:
        return Problem("path.labelled_twice", f"a photo must be labelled once, got a second line for {path[:200]!r}")
    return path, product


def _refusals(found: list[tuple[int, bytes, Problem]]) -> pl.DataFrame:
    rows = [{"source": _LABEL_SOURCE, "offset": offset, "rule": problem.rule, "message": problem.message, "raw": raw} for offset, raw, problem in found]
    return pl.DataFrame(rows, schema={"source": pl.Int32, "offset": pl.Int64, "rule": pl.String, "message": pl.String, "raw": pl.Binary})


def _tasks(photos: Mapping[str, SourceFile], labels: Mapping[str, str | None], shown: Mapping[str, str], known: pl.DataFrame) -> pa.Table:
    labelled = dict(known.filter(~pl.col("is_catalogue_image")).select("path", "product_id").iter_rows())
    rows: list[dict[str, Any]] = []
    for path, file in sorted(photos.items()):
        product = labels.get(path) or shown.get(path) if path in labels else shown.get(path) or labelled.get(path)
        rows.append(
            {
                "path": path,
                "file": file.path,
                "size_bytes": file.size_bytes,
                "product_id": product,
                "is_catalogue_image": path in shown and shown[path] == product,
                "wants_thumbnail": product is not None,
            }
        )
    return pa.Table.from_pylist(rows, schema=TASK_SCHEMA)


class PhotoEmbedder:
    """Reads, decodes and embeds batches of photos; holds the encoder, so keep one a worker.

    Bytes whose embedding (and thumbnail, where one is wanted) the lake has, under whatever path, are read and not decoded. Threads only wait
    for files; one thread decodes and embeds, so that a worker takes one core and as many workers as cores take them all.
    """

    def __init__(self, root: str, s3: S3Options, config: IngestConfig, contents: pa.Table) -> None:
        from guidelens.encoders.backbones import load_image_backbone

        self._filesystem, _ = arrow_filesystem(root, s3)
        self._limits = config
        self._readers = ThreadPoolExecutor(_NUM_READERS)
        self._encoder = load_image_backbone(config.encoders.image)
        known = contents.filter(pc.equal(contents["image_encoder"], self._encoder.encoder_id))
        self._known = set(known["sha256"].to_pylist())
        self._pictured = set(known.filter(known["has_thumbnail"])["sha256"].to_pylist())

    def __call__(self, tasks: pa.Table) -> pa.Table:
        """(TASK_SCHEMA) to (EMBEDDED_SCHEMA), in order: `rule` says why a photo is refused; known ones have no embedding."""
        found = [self._judged(task, read) for task, read in self._read_ahead(tasks.to_pylist())]
        fresh = [row for row, (_, pixels) in zip(found, found, strict=True) if pixels is not None]
        if fresh:
            embeddings = self._encoder.embed(np.stack([pixels for _, pixels in found if pixels is not None]))
            for (row, _), embedding in zip(fresh, embeddings, strict=True):
                row["embedding"] = embedding
        return pa.Table.from_pylist([{**row, "source": _PHOTO_SOURCE, "offset": 0} for row, _ in found], schema=EMBEDDED_SCHEMA)

    def _read_ahead(self, tasks: Iterable[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], bytes | Problem]]:
        """Each task with its photo's bytes, or why there are none; a few photos are read while one is worked on."""
        ahead: deque[tuple[dict[str, Any], Future[bytes | Problem]]] = deque()
        for task in tasks:
            ahead.append((task, self._readers.submit(self._read, task)))
            if len(ahead) > _NUM_READERS:
                first, reading = ahead.popleft()
                yield first, reading.result()
        for first, reading in ahead:
            yield first, reading.result()

    def _read(self, task: dict[str, Any]) -> bytes | Problem:
        limit = self._limits.max_photo_bytes
        if task["size_bytes"] > limit:
            return Problem("frame_too_large", f"a photo may have {limit} bytes, got {task['size_bytes']}; make it smaller")
        try:
            with self._filesystem.open_input_file(task["file"]) as opened:
                data: bytes = opened.read()
        except OSError as error:
            return Problem("file.damaged", f"a photo must be readable, got {error}")
        return data

    def _judged(self, task: dict[str, Any], data: bytes | Problem) -> tuple[dict[str, Any], Pixels | None]:
        """The photo's row, and what the encoder takes where it is to be embedded."""
        row: dict[str, Any] = {name: task[name] for name in ("path", "product_id", "is_catalogue_image")}
        if isinstance(data, Problem):
            return row | data._asdict(), None
        row["sha256"] = hashlib.sha256(data).hexdigest()
        row["image_encoder"] = self._encoder.encoder_id
        if row["sha256"] in (self._pictured if task["wants_thumbnail"] else self._known):
            return row, None
        try:
            row["width"], row["height"] = image_size(data)
            pixels = upright_pixels(data, max_bytes=self._limits.max_photo_bytes, max_pixels=self._limits.max_photo_pixels)
        except UnreadableImageError as error:
            return row | {"rule": error.code, "message": str(error), "raw": data[:MAX_RECORD_BYTES]}, None
        if task["wants_thumbnail"]:
            row["thumbnail"] = thumbnail(pixels)
        return row, encoder_input(pixels)


def settle_photos(embedded: pl.DataFrame, refused_labels: pl.DataFrame | None, known: pl.DataFrame) -> Settled:
    """Photos by path: new bytes, new labels and another encoder are accepted, the rest is a duplicate. Rows without an embedding have a known content.

    Args:
        embedded: EMBEDDED_SCHEMA.
        known: as in `plan_photos`.
    """
    before = known.select(
        "path",
        known_sha256="sha256",
        known_product="product_id",
        known_catalogue="is_catalogue_image",
        known_encoder="image_encoder",
        known_thumbnail="has_thumbnail",
    )
    judged = embedded.join(before, on="path", how="left", maintain_order="left")
    same_label = pl.col("product_id").eq_missing(pl.col("known_product")) & pl.col("is_catalogue_image").eq_missing(pl.col("known_catalogue"))
    same_content = (pl.col("sha256") == pl.col("known_sha256")) & (pl.col("image_encoder") == pl.col("known_encoder"))
    is_complete = pl.col("thumbnail").is_null() | pl.col("known_thumbnail")
    verdict = (
        pl.when(pl.col("rule").is_not_null())
        .then(pl.lit(QUARANTINED))
        .when((same_label & same_content & is_complete).fill_null(False))
        .then(pl.lit(DUPLICATE))
        .otherwise(pl.lit(ACCEPTED))
    )
    judged = judged.with_columns(verdict=verdict)
    bad_lines = (_refusals([]) if refused_labels is None else refused_labels).with_columns(verdict=pl.lit(QUARANTINED))
    counts = counts_of(pl.concat([judged.select("source", "verdict"), bad_lines.select("source", "verdict")]))
    photos = judged.filter(pl.col("verdict") == QUARANTINED).sort("path")
    columns = ["source", "offset", "rule", "message", "raw", "path"]
    refused = pl.concat([photos.select(columns), bad_lines.with_columns(path=pl.lit(None, pl.String)).select(columns)])
    return Settled(judged.filter(pl.col("verdict") == ACCEPTED).sort("path"), refused, counts)


def completed(accepted: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """Accepted photos in the columns of the table; those of known content with what the lake's photos (`known`) have of it. One that shows no
    product any more keeps no picture.

    Raises:
        StorageError: the lake lost a content since it was read: another ingest replaced those photos.
    """
    columns = SCHEMAS[Table.PHOTOS].names
    is_known = pl.col("embedding").is_null()
    of_content = [name for name in columns if name not in _OF_THE_CONTENT]
    contents = known.sort(pl.col("thumbnail").is_null(), "path").unique(["sha256", "image_encoder"], keep="first", maintain_order=True)
    again = accepted.filter(is_known).select(of_content).join(contents.select("sha256", "image_encoder", *_OF_THE_CONTENT), on=["sha256", "image_encoder"])
    if again.height < accepted.select(is_known.sum()).item():
        raise StorageError("photos: another ingest replaced photos this one knew by content; run this ingest again")
    whole = pl.concat([accepted.filter(~is_known).select(columns), again.select(columns)]).sort("path")
    return whole.with_columns(thumbnail=pl.when(pl.col("product_id").is_not_null()).then("thumbnail"))
