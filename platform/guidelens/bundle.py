"""A release as one directory: built from a fit, described by manifest.json, refused where anything is missing or altered.

The manifest holds SHA-256 and size of every file, so that a copy is trusted only after `verify`. No pickle anywhere: weights
are safetensors, tables Parquet, the rest JSON, JPEG, binary glTF and the vector index's own format.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Annotated

import numpy as np
import pyarrow.parquet as pq
from pydantic import Field, ValidationError

from guidelens.errors import BundleError
from guidelens.schemas.base import Frozen

BUNDLE_SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
MEDIA = "media"
NOT_SERVED = frozenset({"controls"})
SUFFIXES = frozenset({".safetensors", ".json", ".parquet", ".usearch", ".onnx", ".jpg", ".glb"})
DEVICE_ENCODER = "encoder.onnx"
"""The image encoder for shoppers' devices; bundles of before it was written have none."""
_PICKLE_STARTS = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))
_ZIP_START = b"PK\x03\x04"
_SEAL = "manifest_sha256"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class BundleFile(Frozen):
    sha256: Sha256
    size_bytes: int


class BundleManifest(Frozen):
    """What a bundle holds and where it comes from.

    parts: `trained` or `absent: reason` by part (recognizer, guide, controls). missing: inputs the training lake lacked.
    snapshot_sha256: of the lake's live files the run was trained on. metrics: the run's test metrics.
    """

    schema_version: int = BUNDLE_SCHEMA_VERSION
    run_id: str
    feature_service: str
    lake: str
    manifest_version: int
    snapshot_sha256: str
    num_products: int
    parts: dict[str, str]
    missing: tuple[str, ...]
    metrics: dict[str, float]
    files: dict[str, BundleFile]


class BundleOrigin(Frozen):
    """What the builder cannot read from the fit's files itself."""

    run_id: str
    feature_service: str
    lake: str
    manifest_version: int
    snapshot_sha256: str
    parts: dict[str, str]
    missing: tuple[str, ...] = ()
    metrics: dict[str, float] = {}


def build_bundle(
    fit_dir: Path, dest: Path, origin: BundleOrigin, thumbnails: Mapping[int, bytes], models: Mapping[int, bytes] = MappingProxyType({})
) -> BundleManifest:
    """Copies what serving needs from a fit, adds pictures and 3-D models, and writes the manifest last.

    Args:
        dest: a folder that does not exist yet or is empty.
        thumbnails: JPEG bytes by product row.
        models: binary glTF by product row.

    Raises:
        BundleError: dest holds files, or the result does not verify.
    """
    if dest.exists() and any(dest.iterdir()):
        raise BundleError(f"a bundle must be built in an empty folder, got {dest}")
    shutil.copytree(fit_dir, dest, dirs_exist_ok=True, ignore=lambda folder, names: NOT_SERVED & set(names) if Path(folder) == fit_dir else set())
    (dest / MEDIA).mkdir()
    for row, data in sorted(thumbnails.items()):
        (dest / MEDIA / f"{row}.jpg").write_bytes(data)
    for row, data in sorted(models.items()):
        (dest / MEDIA / f"{row}.glb").write_bytes(data)
    return seal(dest, origin)


def seal(dest: Path, origin: BundleOrigin) -> BundleManifest:
    """Writes the manifest of what lies in a folder, in place of one that is there, and verifies it.

    Raises:
        BundleError: the result does not verify.
    """
    (dest / MANIFEST).unlink(missing_ok=True)
    files = {name: _described(dest / name) for name in _names(dest)}
    num_products = pq.read_metadata(dest / "items.parquet").num_rows
    manifest = BundleManifest(**dict(origin), num_products=num_products, files=files)
    (dest / MANIFEST).write_bytes(_canonical(manifest))
    return verify(dest)


def verify(bundle: Path) -> BundleManifest:
    """Reads the manifest and checks every file against it: names, sizes, SHA-256, formats, finite numbers, no pickle.

    Raises:
        BundleError: naming the first file that does not hold.
    """
    manifest = read_manifest(bundle)
    names = {*_names(bundle)} - {MANIFEST}
    for name in sorted(names ^ set(manifest.files)):
        raise BundleError(f"{bundle / name}: " + ("is not in the manifest" if name in names else "is missing") + "; release again")
    for name, known in manifest.files.items():
        _check_file(bundle / name, known)
    rows = pq.read_metadata(bundle / "items.parquet").num_rows if "items.parquet" in manifest.files else -1
    if rows != manifest.num_products:
        raise BundleError(f"{bundle / 'items.parquet'}: must hold {manifest.num_products} products, got {rows}; release again")
    return manifest


def read_manifest(bundle: Path) -> BundleManifest:
    """The manifest alone, without looking at the files it names.

    Raises:
        BundleError: it is missing, not as it was written, or of another schema version.
    """
    path = bundle / MANIFEST
    try:
        raw = path.read_bytes()
        fields = dict(json.loads(raw))
        version = fields["schema_version"]
        del fields[_SEAL]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path}: cannot be read: {error!r}; release again") from error
    if version not in (BUNDLE_SCHEMA_VERSION, BUNDLE_SCHEMA_VERSION - 1):
        raise BundleError(f"{path}: has schema {version}; this GuideLens reads {BUNDLE_SCHEMA_VERSION} and the one before: release again")
    try:
        manifest = BundleManifest.model_validate(fields)
    except ValidationError as error:
        raise BundleError(f"{path}: does not follow its schema: {error.errors()[0]['msg']} at {error.errors()[0]['loc']}; release again") from error
    if raw != _canonical(manifest):
        raise BundleError(f"{path}: was altered after it was written; release again")
    return manifest


def _canonical(manifest: BundleManifest) -> bytes:
    """The manifest's bytes: JSON in one spelling, with the SHA-256 of itself without it, so that no byte can change unseen."""
    fields = manifest.model_dump(mode="json")
    seal = hashlib.sha256(_spelled(fields)).hexdigest()
    return _spelled({**fields, _SEAL: seal})


def _spelled(fields: dict[str, object]) -> bytes:
    return json.dumps(fields, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def _names(folder: Path) -> list[str]:
    """Every file below a folder, relative, in order; links are refused, as they lead out of what is checked."""
    found = sorted(folder.rglob("*"))
    for path in found:
        if path.is_symlink():
            raise BundleError(f"{path}: is a link; a bundle holds plain files only")
    return [path.relative_to(folder).as_posix() for path in found if path.is_file()]


def _described(path: Path) -> BundleFile:
    return BundleFile(sha256=_sha256(path), size_bytes=path.stat().st_size)


def _sha256(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def _check_file(path: Path, known: BundleFile) -> None:
    if path.stat().st_size != known.size_bytes or _sha256(path) != known.sha256:
        raise BundleError(f"{path}: does not have the size and SHA-256 of the manifest; release again")
    if path.suffix not in SUFFIXES:
        raise BundleError(f"{path}: a bundle may hold {', '.join(sorted(SUFFIXES))} files, got {path.suffix or 'none'}")
    with path.open("rb") as source:
        start = source.read(4)
    if start.startswith((*_PICKLE_STARTS, _ZIP_START)):
        raise BundleError(f"{path}: holds a pickle or an archive, whatever its name says; release again from safetensors")
    if path.suffix == ".safetensors":
        _check_tensors(path)
    if path.suffix == ".json":
        _check_json(path)
    if path.suffix == ".glb" and start != b"glTF":
        raise BundleError(f"{path}: is no binary glTF; release again")


def _check_tensors(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a mapping
                values = tensors.get_tensor(name)
                if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
                    raise BundleError(f"{path}: tensor {name} holds numbers that are not finite; train again")
    except SafetensorError as error:
        raise BundleError(f"{path}: is no safetensors file: {error}") from error


def _check_json(path: Path) -> None:
    try:
        json.loads(path.read_bytes())
    except ValueError as error:
        raise BundleError(f"{path}: is no JSON: {error}") from error


def media_name(row: int) -> str:
    """Where the picture of a product row lies, relative to the bundle."""
    return str(PurePosixPath(MEDIA) / f"{row}.jpg")
