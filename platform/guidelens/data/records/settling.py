"""What becomes of checked records with a natural key, given what the lake holds: accepted, duplicate or quarantined; exactly one each.

Pure functions over frames in `validation.staged_schema`; the same input gives the same answer in any order of arrival. Events
are settled by tasks of their own (event_intake.py).
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import date
from typing import NamedTuple

import polars as pl

from guidelens.data.pseudonyms import keys_in
from guidelens.data.records.sources import Kind
from guidelens.schemas.base import Frozen

ACCEPTED, DUPLICATE, QUARANTINED = "accepted", "duplicate", "quarantined"
FORGOTTEN_RULE = "forgotten"
EXPIRED_RULE = "event_ts.expired"
_FORGOTTEN = "the shopper asked to be forgotten; the record is dropped and not kept here"


class FileCounts(Frozen):
    """read = accepted + quarantined + duplicate."""

    read: int = 0
    accepted: int = 0
    quarantined: int = 0
    duplicate: int = 0

    def __add__(self, other: "FileCounts") -> "FileCounts":
        return FileCounts(
            read=self.read + other.read,
            accepted=self.accepted + other.accepted,
            quarantined=self.quarantined + other.quarantined,
            duplicate=self.duplicate + other.duplicate,
        )


class KindReport(Frozen):
    """rules: how many records broke each, the commonest first. remarks: on how many records each was made (remarks.py)."""

    total: FileCounts
    files: dict[str, FileCounts]
    rules: dict[str, int]
    remarks: dict[str, int] = {}


class Settled(NamedTuple):
    """accepted: rows to write, in the table's order. refused: rows for quarantine. counts: by index of the source file."""

    accepted: pl.DataFrame
    refused: pl.DataFrame
    counts: dict[int, FileCounts]


def settle_rows(staged: pl.DataFrame, key: str, known: pl.DataFrame, forgotten: frozenset[str] = frozenset()) -> Settled:
    """Rows with a natural key: a new or changed row is accepted (and replaces), an unchanged or repeated one is a duplicate.

    Two rows of one ingest with the same key and different contents contradict each other: the later one is refused.

    Args:
        known: the lake's `key` and `row_sha256`.
    """
    staged = refuse_forgotten(staged.sort("source", "offset"), forgotten)
    fine = pl.col("rule").is_null()
    firsts = (
        staged.filter(fine).unique(key, keep="first", maintain_order=True).select(key, first_sha256="row_sha256", first_source="source", first_offset="offset")
    )
    staged = staged.join(firsts, on=key, how="left", maintain_order="left").join(
        known.select(key, known_sha256="row_sha256"), on=key, how="left", maintain_order="left"
    )
    contradicts = fine & (pl.col("row_sha256") != pl.col("first_sha256"))
    said = pl.format(f"{key}: this ingest gave another record of the same {key} before, at {{}}; keep one", pl.col("first_offset"))
    staged = staged.with_columns(
        rule=pl.when(contradicts).then(pl.lit(f"{key}.contradicted")).otherwise(pl.col("rule")),
        message=pl.when(contradicts).then(said).otherwise(pl.col("message")),
    )
    is_first = (pl.col("source") == pl.col("first_source")) & (pl.col("offset") == pl.col("first_offset"))
    unknown = pl.col("known_sha256").is_null() | (pl.col("known_sha256") != pl.col("row_sha256"))
    verdict = pl.when(~fine).then(pl.lit(QUARANTINED)).when(is_first & unknown).then(pl.lit(ACCEPTED)).otherwise(pl.lit(DUPLICATE))
    return _settled(staged.with_columns(verdict=verdict), [key])


def refuse_forgotten(staged: pl.DataFrame, forgotten: frozenset[str]) -> pl.DataFrame:
    """Staged records, those of forgotten shoppers refused and emptied; of records that were refused already, those whose originals name one."""
    if not forgotten or "shopper_key" not in staged.columns:
        return staged
    staged = without_device(staged, forgotten)
    is_theirs = pl.col("shopper_key").is_in(list(forgotten)).fill_null(False)
    originals = pl.when(pl.col("rule").is_not_null()).then(pl.col("raw"))
    names_one = originals.map_elements(lambda raw: not forgotten.isdisjoint(keys_in(raw)), return_dtype=pl.Boolean).fill_null(False)
    return _refused_unkept(staged, is_theirs | names_one, FORGOTTEN_RULE, _FORGOTTEN)


def refuse_expired(staged: pl.DataFrame, events_from: date | None) -> pl.DataFrame:
    """Staged events, those that happened before a day (UTC) refused and emptied: their ids are not known any more, so they could come twice."""
    if events_from is None:
        return staged
    is_expired = (pl.col("event_ts").dt.date() < events_from).fill_null(False)
    return _refused_unkept(staged, is_expired, EXPIRED_RULE, f"event_ts: events are kept from {events_from} on; the record is dropped and not kept here")


def _refused_unkept(staged: pl.DataFrame, which: pl.Expr, rule: str, message: str) -> pl.DataFrame:
    staged = staged.with_columns(which.alias("is_refused"))
    emptied = [pl.when(~pl.col("is_refused")).then(pl.col(name)).alias(name) for name in staged.columns if name not in {"source", "offset", "is_refused"}]
    return (
        staged.with_columns(emptied)
        .with_columns(
            rule=pl.when("is_refused").then(pl.lit(rule)).otherwise(pl.col("rule")),
            message=pl.when("is_refused").then(pl.lit(message)).otherwise(pl.col("message")),
        )
        .drop("is_refused")
    )


def without_device(rows: pl.DataFrame, forgotten: frozenset[str]) -> pl.DataFrame:
    """Rows that name a forgotten person's device beside another shopper, without the device."""
    if "anonymous_key" not in rows.columns:
        return rows
    return rows.with_columns(anonymous_key=pl.when(~pl.col("anonymous_key").is_in(sorted(forgotten))).then(pl.col("anonymous_key")))


def _settled(judged: pl.DataFrame, order: list[str]) -> Settled:
    accepted = judged.filter(pl.col("verdict") == ACCEPTED).sort(order)
    return Settled(accepted, judged.filter(pl.col("verdict") == QUARANTINED), counts_of(judged))


def counts_of(judged: pl.DataFrame) -> dict[int, FileCounts]:
    """Counts by `source` of a frame with a `verdict`."""
    counts: dict[int, FileCounts] = {}
    for source, verdict, number in judged.group_by("source", "verdict").len().iter_rows():
        counts[source] = counts.get(source, FileCounts()) + FileCounts(**{"read": number, verdict: number})
    return counts


def quarantine_rows(kind: Kind, refused: pl.DataFrame, uris: Sequence[str] | Mapping[int, str]) -> pl.DataFrame:
    """Refused records as rows of the quarantine table; the key is a hash of place and content. The place of a photo or model is its own file.

    Args:
        uris: what counts call each source; of photos the folder and the file of labels, of models the folder.
    """
    rows = []
    columns = [name for name in ("source", "offset", "rule", "message", "raw", "path") if name in refused.columns]
    for row in refused.select(columns).iter_rows(named=True):
        folder, labels = (uris[0] if kind in (Kind.PHOTOS, Kind.MODELS) else None), (uris[1] if kind is Kind.PHOTOS else None)
        path = None if folder is None else row["path"]
        uri = uris[row["source"]] if path is None else f"{uris[row['source']].rstrip('/')}/{path}"
        raw: bytes | None = row["raw"]
        place = {"record_sha256": record_sha256(kind, uri, row["offset"], raw), "kind": str(kind), "source": uri, "offset": row["offset"]}
        rows.append(place | {"rule": row["rule"], "message": row["message"], "raw": raw, "folder": folder, "labels": labels})
    return pl.DataFrame(rows, schema=QUARANTINE_FRAME)


def record_sha256(kind: str, uri: str, offset: int, raw: bytes | None) -> str:
    """The key of a refused record: of its place and content."""
    return hashlib.sha256(f"{kind}\n{uri}\n{offset}\n".encode() + (raw or b"")).hexdigest()


QUARANTINE_FRAME = {
    "record_sha256": pl.String,
    "kind": pl.String,
    "source": pl.String,
    "offset": pl.Int64,
    "rule": pl.String,
    "message": pl.String,
    "raw": pl.Binary,
    "folder": pl.String,
    "labels": pl.String,
}
