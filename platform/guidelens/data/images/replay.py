"""Refused photos, lines that label them, and 3-D models tried again: read anew where they lie, as an ingest of their folder would.

Quarantine says what was ingested: the folder and, of photos, the file of labels. What ingest would do now with a path of it is what happens
to the path's record. Knows nothing of how the good ones reach the lake.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from guidelens.config import S3Options
from guidelens.data.images.models_3d import read_models
from guidelens.data.images.photos import PhotoPlan, label_lines, label_of, labels_beside, plan_photos
from guidelens.data.records.raw_records import Problem
from guidelens.data.records.replay import Good, left_of
from guidelens.data.records.settling import record_sha256
from guidelens.data.records.sources import IngestSources, Kind, list_files
from guidelens.data.records.validation import staged_schema
from guidelens.errors import InputError

EmbedPhotos = Callable[[PhotoPlan, str], pl.DataFrame]
"""Of a plan and its folder: the photos' rows in `photos.EMBEDDED_SCHEMA`."""
_UNPLACED = Problem("folder.unknown", "a refused photo or model must say which folder it is of, got one from before that was kept; ingest its folder again")
_GONE = Problem("file.missing", "the file must be where it was, or in the list that names the folder's photos, got none; put it back, or leave it")
_LINE_CHANGED = Problem("label.changed", "a label must be the line it was, and apply, got another one; ingest the folder again")
_UNNAMED = Problem("model_3d.unnamed", "a model must be named by a product of the catalogue, got one that none names; name it as model_3d")
_CONTRADICTED = Problem(
    "path.contradicted", "a path must mean one file, got another one of that path from another folder; replay one folder at a time with --source"
)
_LABELLED_TWICE = "path.labelled_twice"


class _Records(NamedTuple):
    """Refused records of one folder by `record_sha256`: of lines of labels the offset and why it was refused, of files the path."""

    lines: dict[str, tuple[int, Problem]]
    files: dict[str, str]


class _Tried(NamedTuple):
    """rows: what is good now, staged, by distinct path. outcomes: by `record_sha256` the path it is about, where that is good, or why it stays."""

    rows: pl.DataFrame
    outcomes: dict[str, str | Problem]


def photos_again(quarantined: pl.DataFrame, products: Mapping[str, tuple[str, ...]], known: pl.DataFrame, s3: S3Options, embed: EmbedPhotos) -> Good:
    """The good ones among refused photos and label lines. A line is good where it still stands, applies, and its photo is good.

    Args:
        quarantined: rows of the quarantine table of that kind.
        products, known: as in `plan_photos`.

    Raises:
        StorageError: a store did not answer.
    """
    tried = []
    for folder, labels, records in _by_folder(quarantined):
        photo_list = None if labels == labels_beside(folder) else labels
        sources = IngestSources(photos=folder, photo_list=photo_list)
        try:
            plan = plan_photos(sources, products, known, s3)
        except InputError:
            tried.append(_Tried(_nothing(Kind.PHOTOS), dict.fromkeys([*records.lines, *records.files], _GONE)))
            continue
        lines = _lines_again(records.lines, labels, plan, products, s3, needs_product=photo_list is None)
        paths = {path for path in [*records.files.values(), *lines.values()] if isinstance(path, str)}
        wanted = plan.tasks.filter(pc.is_in(plan.tasks["path"], pa.array(sorted(paths), pa.string())))
        found = embed(plan._replace(tasks=wanted), folder)
        tried.append(_judged(found, {**records.files, **lines}))
    return _together(Kind.PHOTOS, tried, quarantined, "sha256")


def models_again(quarantined: pl.DataFrame, named: Iterable[str], known: Mapping[str, str], s3: S3Options) -> Good:
    """The good ones among refused 3-D models.

    Args:
        quarantined: rows of the quarantine table of that kind.
        named: paths that products name.
        known: as in `read_models`.
    """
    names = {path.removeprefix("./") for path in named}
    tried = []
    for folder, _, records in _by_folder(quarantined):
        wanted = set(records.files.values())
        try:
            rows = read_models(folder, wanted & names, known, s3).rows
        except InputError:
            rows = _nothing(Kind.MODELS)
        found = _judged(rows, records.files)
        unnamed = {record: _UNNAMED for record, path in records.files.items() if path not in names}
        tried.append(found._replace(outcomes={**found.outcomes, **unnamed}))
    return _together(Kind.MODELS, tried, quarantined, "row_sha256")


def _by_folder(quarantined: pl.DataFrame) -> Iterable[tuple[str, str | None, _Records]]:
    """(folder, file of labels, records), in order; those that do not say their folder are left out."""
    placed = quarantined.filter(pl.col("folder").is_not_null()).sort("folder", "labels", "source", "offset", "record_sha256")
    for (folder, labels), rows in placed.group_by("folder", "labels", maintain_order=True):
        is_line = pl.col("source").eq_missing(pl.lit(labels, pl.String))
        lines = {
            record: (offset, Problem(*why)) for record, offset, *why in rows.filter(is_line).select("record_sha256", "offset", "rule", "message").iter_rows()
        }
        root = f"{str(folder).rstrip('/')}/"
        files = {record: source.removeprefix(root) for record, source in rows.filter(~is_line).select("record_sha256", "source").iter_rows()}
        yield str(folder), labels if labels is None else str(labels), _Records(lines, files)


def _lines_again(
    lines: Mapping[str, tuple[int, Problem]], labels: str | None, plan: PhotoPlan, products: Collection[str], s3: S3Options, needs_product: bool
) -> dict[str, str | Problem]:
    """The photo's path by record of those lines that apply, as an ingest would have them; why it stays of the others."""
    found: dict[str, str | Problem] = dict.fromkeys(lines, _LINE_CHANGED)
    if not lines or labels is None:
        return found
    try:
        file = list_files(labels, s3)[0]
    except InputError:
        return found
    photos, offsets = set(plan.tasks["path"].to_pylist()), {offset for offset, _ in lines.values()}
    for line in label_lines(file, s3):
        record = record_sha256(Kind.PHOTOS, labels, line.offset, line.raw) if line.offset in offsets else ""
        if record in lines:
            said = label_of(line, photos, products, {}, needs_product)
            if lines[record][1].rule == _LABELLED_TWICE:
                found[record] = lines[record][1]
            elif isinstance(said, Problem):
                found[record] = said
            elif plan.labels.get(said[0]) == said[1]:
                found[record] = said[0]
    return found


def _judged(found: pl.DataFrame, about: Mapping[str, str | Problem]) -> _Tried:
    """Each record by what became of the path it is about."""
    problems = {
        path: Problem(rule, message) for path, rule, message in found.filter(pl.col("rule").is_not_null()).select("path", "rule", "message").iter_rows()
    }
    there = set(found["path"])

    def outcome(path: str | Problem) -> str | Problem:
        if isinstance(path, Problem):
            return path
        return problems.get(path, path) if path in there else _GONE

    return _Tried(found.filter(pl.col("rule").is_null()), {record: outcome(path) for record, path in about.items()})


def _together(kind: Kind, tried: Iterable[_Tried], quarantined: pl.DataFrame, content: str) -> Good:
    """Of one path in several folders the first is taken; the others are the same by content, or stay."""
    taken: dict[str, str] = {}
    rows, why, good = [_nothing(kind)], dict.fromkeys(quarantined["record_sha256"], _UNPLACED), []
    for one in tried:
        mine = dict(one.rows.select("path", content).iter_rows())
        differ = {path for path, sha256 in mine.items() if taken.get(path, sha256) != sha256}
        rows.append(one.rows.filter(~pl.col("path").is_in(sorted(taken))))
        taken = mine | taken
        for record, outcome in one.outcomes.items():
            if isinstance(outcome, Problem):
                why[record] = outcome
            elif outcome in differ:
                why[record] = _CONTRADICTED
            else:
                good.append(record)
                del why[record]
    return Good(tuple(good), (), pl.concat(rows), left_of(quarantined, why))


def _nothing(kind: Kind) -> pl.DataFrame:
    frame = pl.from_arrow(staged_schema(kind).empty_table())
    assert isinstance(frame, pl.DataFrame)
    return frame
