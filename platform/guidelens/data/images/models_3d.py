"""A shop's own 3-D models: the files its products name, read from the photos folder and checked to be binary glTF that stands alone."""

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa

from guidelens.config import S3Options
from guidelens.data.records.raw_records import Problem
from guidelens.data.records.sources import Kind, SourceFile, list_files
from guidelens.data.records.validation import staged_schema
from guidelens.storage import arrow_filesystem

MAX_MODEL_BYTES = 8 * 1024 * 1024
_MAGIC, _VERSION, _JSON = b"glTF", 2, b"JSON"
_HEADER = struct.Struct("<4sIII4s")
_NEEDS_DECODER = frozenset({"KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_texture_basisu"})


class ModelFiles(NamedTuple):
    """rows: one a file, in `staged_schema(Kind.MODELS)`; without the bytes where the lake holds them. missing: named, but not in the folder."""

    rows: pl.DataFrame
    missing: tuple[str, ...]


def read_models(folder: str, named: Iterable[str], known: Mapping[str, str], s3: S3Options) -> ModelFiles:
    """The models that products name, relative to the photos folder.

    Args:
        known: SHA-256 by path of the models that the lake holds.

    Raises:
        InputError: there is no such folder.
    """
    wanted = sorted({path.removeprefix("./") for path in named})
    listed = {file.uri[len(folder.rstrip("/")) + 1 :]: file for file in list_files(folder, s3)}
    filesystem, _ = arrow_filesystem(folder, s3)
    rows = [_row(path, listed[path], filesystem, known.get(path)) for path in wanted if path in listed]
    frame = pl.from_arrow(pa.Table.from_pylist(rows, schema=staged_schema(Kind.MODELS)))
    assert isinstance(frame, pl.DataFrame)
    return ModelFiles(frame, tuple(path for path in wanted if path not in listed))


def _row(path: str, file: SourceFile, filesystem: Any, known_sha256: str | None) -> dict[str, Any]:
    row: dict[str, Any] = {"path": path, "source": 0, "offset": 0}
    if file.size_bytes > MAX_MODEL_BYTES:
        return row | {"rule": "model_3d.too_large", "message": f"a model may have {MAX_MODEL_BYTES} bytes, got {file.size_bytes}; make it smaller"}
    try:
        with filesystem.open_input_file(file.path) as opened:
            data: bytes = opened.read()
    except OSError as error:
        return row | {"rule": "file.damaged", "message": f"a model must be readable, got {error}"}
    problem = glb_problem(data)
    if problem:
        return row | {"rule": problem.rule, "message": problem.message}
    digest = hashlib.sha256(data).hexdigest()
    return row | {"row_sha256": digest, "glb": None if digest == known_sha256 else data}


def glb_problem(data: bytes) -> Problem | None:
    """Why bytes are no model that the page can show by itself, or None."""
    if len(data) < _HEADER.size:
        return Problem("model_3d.format", f"a model must be binary glTF 2 (.glb), got {len(data)} bytes; export it as GLB")
    magic, version, length, json_length, json_kind = _HEADER.unpack_from(data)
    if (magic, version, json_kind) != (_MAGIC, _VERSION, _JSON):
        return Problem("model_3d.format", f"a model must be binary glTF 2 (.glb), got bytes that start with {data[:8].hex()}; export it as GLB")
    if length != len(data) or _HEADER.size + json_length > length:
        return Problem("model_3d.damaged", f"a model must be whole, got {len(data)} bytes of {length}; copy it again")
    try:
        tree = json.loads(data[_HEADER.size : _HEADER.size + json_length])
        parts = [part for name in ("buffers", "images") for part in tree.get(name, ())]
        outside = [str(part["uri"])[:60] for part in parts if not str(part.get("uri", "data:")).startswith("data:")]
        undecodable = sorted(_NEEDS_DECODER & set(tree.get("extensionsRequired", ())))
        has_meshes = bool(tree.get("meshes"))
    except (ValueError, RecursionError, AttributeError, TypeError) as error:
        return Problem("model_3d.damaged", f"a model's description must be glTF's JSON, got {error!r}; export it again")
    if outside:
        return Problem("model_3d.not_alone", f"a model must hold all its parts, got a reference to {outside[0]}; export it as one GLB file")
    if undecodable:
        return Problem("model_3d.compressed", f"a model must be shown without further decoders, got {', '.join(undecodable)}; export it without compression")
    if not has_meshes:
        return Problem("model_3d.empty", "a model must hold a mesh, got none; export it again")
    return None
