"""The last part of an ingest: checked records meet the lake, and one commit makes what is new live.

Several ingests may run at once: who loses the race for a manifest version reads the lake again and settles anew.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from guidelens.data.lake import DataFile, Lake, Manifest
from guidelens.data.photos import settle_photos
from guidelens.data.settling import FileCounts, Settled, quarantine_rows, settle_events, settle_rows
from guidelens.data.sources import Kind
from guidelens.data.tables import append, upsert
from guidelens.errors import CommitConflictError
from guidelens.schemas.base import Frozen
from guidelens.schemas.tables import TEXT_DIM, Table

EmbedTexts = Callable[[Sequence[str]], tuple[dict[str, NDArray[np.float32]], str]]
ALWAYS_KNOWN = datetime(2000, 1, 1, tzinfo=UTC)
"""`known_ts` of a product's first row: logs from before the first ingest may use it. Later versions are known from their ingest on."""
_MAX_COMMITS = 12
_KEYS = {Kind.CATALOGUE: "product_id", Kind.SHOPPERS: "shopper_key", Kind.REVIEWS: "review_id"}
_TABLES = {Kind.CATALOGUE: Table.PRODUCTS, Kind.SHOPPERS: Table.SHOPPERS, Kind.REVIEWS: Table.REVIEWS}


class StagedKind(NamedTuple):
    """rows: checked records. uris: what counts call each source. refused_labels: of photos, the label lines that cannot be applied."""

    rows: pl.DataFrame
    uris: Sequence[str]
    refused_labels: pl.DataFrame | None = None


class KindReport(Frozen):
    total: FileCounts
    files: dict[str, FileCounts]


class Intake(NamedTuple):
    manifest: Manifest
    reports: dict[Kind, KindReport]


def known_photos(lake: Lake, base: Manifest) -> pl.DataFrame:
    """The lake's photos: path, sha256, product_id, is_catalogue_image, image_encoder, has_thumbnail."""
    columns = ["path", "sha256", "product_id", "is_catalogue_image", "image_encoder", "thumbnail"]
    photos = lake.read(Table.PHOTOS, columns, manifest=base)
    return photos.with_columns(has_thumbnail=pl.col("thumbnail").is_not_null()).drop("thumbnail")


def forgotten_keys(lake: Lake, base: Manifest) -> frozenset[str]:
    return frozenset(lake.read(Table.TOMBSTONES, ["shopper_key"], manifest=base)["shopper_key"].to_list())


def take_in(lake: Lake, staged: Mapping[Kind, StagedKind], embed: EmbedTexts, now: datetime) -> Intake:
    """Settles and commits.

    Raises:
        CommitConflictError: other writers were faster twelve times in a row.
    """
    texts: dict[str, NDArray[np.float32]] = {}
    for attempt in range(_MAX_COMMITS):
        base = lake.manifest()
        change = _Change(lake, base, embed, texts, now)
        for kind, brought in staged.items():
            change.settle(kind, brought)
        report = {str(kind): found.model_dump() for kind, found in change.reports.items()}
        try:
            return Intake(lake.commit(base, change.files(), report), change.reports)
        except CommitConflictError:
            time.sleep(random.uniform(0, 0.1 * 2 ** min(attempt, 5)))
    raise CommitConflictError(f"lake {lake.uri}: other writers committed first {_MAX_COMMITS} times; run the ingest again")


class _Change:
    """One attempt on top of one manifest. `texts`: vectors that earlier attempts made, kept for the next."""

    def __init__(self, lake: Lake, base: Manifest, embed: EmbedTexts, texts: dict[str, NDArray[np.float32]], now: datetime) -> None:
        self.lake, self.base, self.now = lake, base, now
        self.reports: dict[Kind, KindReport] = {}
        self._embed, self._texts, self._text_encoder = embed, texts, ""
        self._live: dict[Table, list[DataFile]] = {table: list(base.of(table)) for table in Table}
        self._forgotten = forgotten_keys(lake, base)
        self._quarantined: list[pl.DataFrame] = []

    def files(self) -> list[DataFile]:
        refused = pl.concat(self._quarantined) if self._quarantined else None
        if refused is not None and refused.height:
            known = self.lake.read(Table.QUARANTINE, ["record_sha256"], manifest=self.base)
            fresh = refused.unique("record_sha256", keep="first").join(known, on="record_sha256", how="anti")
            self._live[Table.QUARANTINE] = append(self.lake, self.base, Table.QUARANTINE, fresh.sort("kind", "source", "offset", "record_sha256"))
        return [file for files in self._live.values() for file in files]

    def settle(self, kind: Kind, brought: StagedKind) -> None:
        if kind is Kind.EVENTS:
            settled = self._settle_events(brought.rows)
        elif kind is Kind.PHOTOS:
            assert brought.refused_labels is not None
            settled = self._settle_photos(brought.rows, brought.refused_labels)
        else:
            settled = self._settle_rows(kind, brought.rows)
        self._quarantined.append(quarantine_rows(kind, settled.refused, brought.uris))
        files = {uri: settled.counts.get(index, FileCounts()) for index, uri in enumerate(brought.uris)}
        self.reports[kind] = KindReport(total=sum(files.values(), FileCounts()), files=files)

    def _settle_events(self, rows: pl.DataFrame) -> Settled:
        known = self.lake.read(Table.EVENTS, ["event_id"], manifest=self.base)["event_id"]
        settled = settle_events(rows, known, self._forgotten)
        self._live[Table.EVENTS] = append(self.lake, self.base, Table.EVENTS, settled.accepted)
        queries = settled.accepted.select(pl.col("query").drop_nulls().unique().sort())
        fresh = queries.filter(pl.col("query").str.strip_chars() != "").join(
            self.lake.read(Table.QUERIES, ["query"], manifest=self.base), on="query", how="anti"
        )
        if fresh.height:
            fresh = fresh.sort("query")
            self._embed_missing(fresh["query"].to_list())
            fresh = fresh.with_columns(embedding=self._vectors(fresh["query"].to_list()), text_encoder=pl.lit(self._text_encoder))
            self._live[Table.QUERIES] = append(self.lake, self.base, Table.QUERIES, fresh)
        return settled

    def _settle_rows(self, kind: Kind, rows: pl.DataFrame) -> Settled:
        table, key = _TABLES[kind], _KEYS[kind]
        known = self.lake.read(table, [key, "row_sha256"], manifest=self.base)
        settled = settle_rows(rows, key, known, self._forgotten)
        accepted = settled.accepted
        if kind is Kind.CATALOGUE and accepted.height:
            accepted = self._with_texts(accepted, known)
        self._live[table] = upsert(self.lake, self.base, table, key, accepted)
        return settled

    def _with_texts(self, products: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
        """Products with their text embeddings (title, description, category) and the time from which they were known."""
        texts = [_text(*row) for row in products.select("title", "description", "category").iter_rows()]
        texts_zh = [_text(*row) if row[0] or row[1] else None for row in products.select("title_zh", "description_zh").iter_rows()]
        self._embed_missing([*texts, *(text for text in texts_zh if text is not None)])
        is_known = pl.col("product_id").is_in(known["product_id"].implode())
        return products.with_columns(
            text_embedding=self._vectors(texts),
            text_zh_embedding=self._vectors(texts_zh),
            text_encoder=pl.lit(self._text_encoder),
            known_ts=pl.when(is_known).then(pl.lit(self.now)).otherwise(pl.lit(ALWAYS_KNOWN)).cast(pl.Datetime("us", "UTC")),
        )

    def _settle_photos(self, rows: pl.DataFrame, refused_labels: pl.DataFrame) -> Settled:
        settled = settle_photos(rows, refused_labels, known_photos(self.lake, self.base))
        embedded = settled.accepted.filter(pl.col("embedding").is_not_null())
        relabelled = settled.accepted.filter(pl.col("embedding").is_null()).select("path", "product_id", "is_catalogue_image")
        if relabelled.height:
            before = self.lake.read(Table.PHOTOS, manifest=self.base).drop("product_id", "is_catalogue_image")
            embedded = pl.concat(
                [
                    embedded.select(name for name in embedded.columns if name in before.columns or name in relabelled.columns),
                    before.join(relabelled, on="path"),
                ],
                how="diagonal",
            )
        self._live[Table.PHOTOS] = upsert(self.lake, self.base, Table.PHOTOS, "path", embedded.sort("path"))
        return settled

    def _embed_missing(self, texts: Sequence[str]) -> None:
        missing = [text for text in texts if text not in self._texts]
        if missing or not self._text_encoder:
            found, encoder = self._embed(missing or texts[:1])
            self._texts.update(found)
            self._text_encoder = encoder

    def _vectors(self, texts: Sequence[str | None]) -> pl.Series:
        vectors = [None if text is None else self._texts[text] for text in texts]
        return pl.Series(vectors, dtype=pl.Array(pl.Float32, TEXT_DIM))


def _text(*parts: str | None) -> str:
    return ". ".join(part.replace("/", ", ") for part in parts if part)
