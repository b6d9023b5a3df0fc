"""The last part of an ingest: checked records meet the lake, and one commit makes what is new live.

Several ingests may run at once: who loses the race for a manifest version reads the lake again and settles anew.
"""

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from guidelens.crash_points import reach
from guidelens.data.images.photos import completed, settle_photos
from guidelens.data.inbox import draining, remove
from guidelens.data.ingest.event_intake import EventChange, EventIntake
from guidelens.data.lake.event_ids import FIRST_BYTES, KEY_OF, IdReader, hashed, is_among, joined, live_ids, merged, write_ids
from guidelens.data.lake.lake import DataFile, IdFile, Lake, Manifest
from guidelens.data.lake.tables import append, delete, to_table, upsert
from guidelens.data.lake.tombstones import forgotten_keys, sweep
from guidelens.data.privacy.consent import new_consents
from guidelens.data.privacy.rekeying import require_key
from guidelens.data.pseudonyms import Pseudonymizer
from guidelens.data.records.remarks import UNKNOWN_PRODUCT, count_remarks
from guidelens.data.records.settling import QUARANTINE_FRAME, FileCounts, KindReport, Settled, quarantine_rows, settle_rows
from guidelens.data.records.sources import Kind
from guidelens.errors import CommitConflictError, NotFoundError
from guidelens.schemas.tables import TEXT_DIM, Table

Drained = TypeVar("Drained")
Vector = NDArray[np.float32]
EmbedTexts = Callable[[Sequence[str]], tuple[dict[str, Vector], str]]
ALWAYS_KNOWN = datetime(2000, 1, 1, tzinfo=UTC)
"""`known_ts` of a product's first row: logs from before the first ingest may use it. Later versions are known from their ingest on."""
_MAX_COMMITS = 12
_KEYS = {Kind.CATALOGUE: "product_id", Kind.MODELS: "path", Kind.SHOPPERS: "shopper_key", Kind.REVIEWS: "review_id"}
_TABLES = {Kind.CATALOGUE: Table.PRODUCTS, Kind.MODELS: Table.MODELS, Kind.SHOPPERS: Table.SHOPPERS, Kind.REVIEWS: Table.REVIEWS}


class StagedKind(NamedTuple):
    """rows: checked records. uris: what counts call each source. refused_labels: of photos, the label lines that cannot be applied, if any were read."""

    rows: pl.DataFrame
    uris: Sequence[str]
    refused_labels: pl.DataFrame | None = None


class Intake(NamedTuple):
    manifest: Manifest
    reports: dict[Kind, KindReport]


def known_photos(lake: Lake, base: Manifest) -> pl.DataFrame:
    """The lake's photos: path, sha256, product_id, is_catalogue_image, image_encoder, has_thumbnail."""
    columns = ["path", "sha256", "product_id", "is_catalogue_image", "image_encoder", "thumbnail"]
    files = (pl.DataFrame(lake.read_arrow(file, columns)) for file in base.of(Table.PHOTOS))  # of all pictures, only those of a file are in memory
    known = [photos.with_columns(has_thumbnail=pl.col("thumbnail").is_not_null()).drop("thumbnail") for photos in files]
    nothing = lake.read(Table.PHOTOS, columns[:-1], manifest=Manifest()).with_columns(has_thumbnail=pl.lit(None, pl.Boolean))
    return pl.concat([nothing, *known])


def of_products(lake: Lake, column: str, catalogue: pl.DataFrame | None) -> dict[str, Any]:
    """A column by product, of the lake and of the staged catalogue that comes with it, which replaces the lake's rows."""
    values = dict(lake.read(Table.PRODUCTS, ["product_id", column]).iter_rows())
    if catalogue is not None:
        brought = catalogue.filter(pl.col("rule").is_null()).sort("source", "offset", descending=True)
        values |= dict(brought.select("product_id", column).iter_rows())
    return values


def images_of_products(lake: Lake, catalogue: pl.DataFrame | None) -> dict[str, tuple[str, ...]]:
    """As `of_products`: each product's own pictures."""
    return {product: tuple(paths or ()) for product, paths in of_products(lake, "images", catalogue).items()}


def known_models(lake: Lake) -> dict[str, str]:
    """SHA-256 by path of the lake's 3-D models."""
    return dict(lake.read(Table.MODELS, ["path", "row_sha256"]).iter_rows())


def take_in(
    lake: Lake,
    staged: Mapping[Kind, StagedKind],
    embed: EmbedTexts,
    now: datetime,
    events: EventIntake | None = None,
    released: frozenset[str] = frozenset(),
    *,
    pseudonyms: Pseudonymizer,
    passing: bool = False,
) -> Intake:
    """Settles and commits.

    Args:
        passing: one of a stream of small commits.
        released: `record_sha256` of records that leave quarantine with this commit.
        pseudonyms: what the shoppers of `staged` and `events` were named by.

    Raises:
        ConfigError: the lake is under another key, maybe only since the ingest began.
        CommitConflictError: other writers were faster twelve times in a row.
    """
    vectors = _TextVectors(embed)
    forgotten: frozenset[str] | None = None
    for attempt in range(_MAX_COMMITS):
        base = lake.manifest()
        require_key(lake, base, pseudonyms)
        change = _Change(lake, base, vectors, now)
        if forgotten is not None and change.forgotten > forgotten:
            sweep(lake, change.forgotten - forgotten)
        forgotten = change.forgotten
        try:
            if events is not None:
                events.stage(forgotten, base.events_from)
                change.take(events.settle(base))
            for kind, brought in staged.items():
                change.settle(kind, brought)
            change.remark_on_unknown_products()
            change.release(released)
            report = {str(kind): found.model_dump() for kind, found in change.reports.items()}
            files, offsets = change.files(), {} if events is None else events.offsets
            return Intake(lake.commit(base, files, report, change.live_ids(), key_id=pseudonyms.key_id, offsets=offsets, passing=passing), change.reports)
        except NotFoundError:
            if events is None or not events.restage():
                raise
        except CommitConflictError:
            time.sleep(random.uniform(0, 0.1 * 2 ** min(attempt, 5)))
    raise CommitConflictError(f"lake {lake.uri}: other writers committed first {_MAX_COMMITS} times; run the ingest again")


def drain_inbox(folder: Path, take: Callable[[Sequence[Path]], Drained]) -> Drained:
    """Hands `take` the inbox's sealed segments and deletes them once it returns: what it committed before a crash comes again, as duplicates."""
    with draining(folder) as sealed:
        reach("inbox.sealed")
        drained = take(sealed)
        reach("inbox.committed")
        remove(sealed)
        reach("inbox.removed")
    return drained


class _TextVectors:
    """Vectors by text, kept from attempt to attempt."""

    def __init__(self, embed: EmbedTexts) -> None:
        self.encoder = ""
        self._embed = embed
        self._known: dict[str, Vector] = {}

    def learn(self, texts: Sequence[str]) -> None:
        missing = [text for text in texts if text and text not in self._known]
        if missing:
            found, self.encoder = self._embed(missing)
            self._known.update(found)

    def of(self, texts: Iterable[str | None]) -> pl.Series:
        asked = list(texts)
        vectors_MD = np.zeros((len(asked), TEXT_DIM), np.float32)
        for place, text in enumerate(asked):
            if text is not None:
                vectors_MD[place] = self._known[text]
        unknown_M = pa.array([text is None for text in asked], pa.bool_())
        series = pl.from_arrow(pa.FixedSizeListArray.from_arrays(pa.array(vectors_MD.ravel(), pa.float32()), TEXT_DIM, mask=unknown_M))
        assert isinstance(series, pl.Series)
        return series


class _Change:
    """One attempt on top of one manifest: settle each kind, then write."""

    def __init__(self, lake: Lake, base: Manifest, vectors: _TextVectors, now: datetime) -> None:
        self.lake, self.base, self.now = lake, base, now
        self.reports: dict[Kind, KindReport] = {}
        self._vectors = vectors
        self.forgotten = forgotten_keys(lake, base)
        self._accepted: dict[Kind, pl.DataFrame] = {}
        self._quarantined: list[pl.DataFrame] = []
        self._events: EventChange | None = None
        self._ids: dict[Table, list[IdFile]] = {}
        self._released: frozenset[str] = frozenset()

    def take(self, events: EventChange) -> None:
        """The events, which are written already."""
        self._events = events
        self._ids |= events.ids
        self.reports[Kind.EVENTS] = events.report

    def settle(self, kind: Kind, brought: StagedKind) -> None:
        settled = self._settled(kind, brought)
        self._accepted[kind] = settled.accepted
        self._quarantined.append(quarantine_rows(kind, settled.refused, brought.uris))
        files = {uri: settled.counts.get(index, FileCounts()) for index, uri in enumerate(brought.uris)}
        rules = settled.refused.group_by("rule").len().sort("len", "rule", descending=[True, False])
        self.reports[kind] = KindReport(total=sum(files.values(), FileCounts()), files=files, rules=dict(rules.iter_rows()), remarks=_remarks(brought.rows))

    def remark_on_unknown_products(self) -> None:
        """Once all kinds are settled: logs run ahead of catalogues, so such events are taken."""
        if self._events is None or not self._events.products:
            return
        catalogue = self._new(Kind.CATALOGUE)
        known = {*self.lake.read(Table.PRODUCTS, ["product_id"], manifest=self.base)["product_id"], *(catalogue["product_id"] if catalogue.height else ())}
        number = sum(events for product, events in self._events.products.items() if product not in known)
        if number:
            report = self.reports[Kind.EVENTS]
            self.reports[Kind.EVENTS] = report.model_copy(update={"remarks": {**report.remarks, UNKNOWN_PRODUCT: number}})

    def release(self, records: frozenset[str]) -> None:
        """Takes records out of quarantine; their ids stay known, so that the same files do not bring them back."""
        self._released = records

    def _settled(self, kind: Kind, brought: StagedKind) -> Settled:
        if kind is Kind.PHOTOS:
            return settle_photos(brought.rows, brought.refused_labels, known_photos(self.lake, self.base))
        known_rows = self.lake.read(_TABLES[kind], [_KEYS[kind], "row_sha256"], manifest=self.base)
        return settle_rows(brought.rows, _KEYS[kind], known_rows, self.forgotten)

    def files(self) -> list[DataFile]:
        """Writes what was accepted and refused; the live files of all tables."""
        live: dict[Table, list[DataFile]] = {table: list(self.base.of(table)) for table in Table}
        products, queries = self._new(Kind.CATALOGUE), self._new_queries()
        self._vectors.learn([*_product_texts(products), *_product_texts_zh(products), *queries["query"]])
        live[Table.PRODUCTS] = upsert(self.lake, self.base, Table.PRODUCTS, "product_id", self._embedded_products(products))
        live[Table.QUERIES] = append(self.lake, self.base, Table.QUERIES, self._embedded_queries(queries))
        live[Table.PHOTOS] = upsert(self.lake, self.base, Table.PHOTOS, "path", self._whole_photos(self._new(Kind.PHOTOS)))
        live[Table.MODELS] = upsert(self.lake, self.base, Table.MODELS, "path", self._new(Kind.MODELS))
        live[Table.SHOPPERS] = upsert(self.lake, self.base, Table.SHOPPERS, "shopper_key", self._new(Kind.SHOPPERS))
        said = new_consents(self._new(Kind.SHOPPERS), self.lake.read(Table.CONSENTS, manifest=self.base), self.now)
        live[Table.CONSENTS] = append(self.lake, self.base, Table.CONSENTS, said)
        live[Table.REVIEWS] = upsert(self.lake, self.base, Table.REVIEWS, "review_id", self._new(Kind.REVIEWS))
        left, _ = delete(self.lake, self.base.of(Table.QUARANTINE), pl.col("record_sha256").is_in(sorted(self._released)))
        live[Table.QUARANTINE] = [*left, *self.lake.write(Table.QUARANTINE, to_table(Table.QUARANTINE, self._new_quarantined()))]
        written = [] if self._events is None else self._events.files
        return [*(file for files in live.values() for file in files), *written]

    def live_ids(self) -> list[IdFile]:
        """All id files, once `files` were written."""
        for table in KEY_OF:
            self._known_ids(table)
        return [file for files in self._ids.values() for file in files]

    def _new(self, kind: Kind) -> pl.DataFrame:
        return self._accepted.get(kind, pl.DataFrame())

    def _new_quarantined(self) -> pl.DataFrame:
        refused = pl.concat([pl.DataFrame(schema=QUARANTINE_FRAME), *self._quarantined])
        distinct = refused.unique("record_sha256", keep="first", maintain_order=True)
        return self._unseen(Table.QUARANTINE, distinct).sort("kind", "source", "offset", "record_sha256")

    def _new_queries(self) -> pl.DataFrame:
        texts = [] if self._events is None else self._events.queries
        return self._unseen(Table.QUERIES, pl.DataFrame({"query": texts}, schema={"query": pl.String}))

    def _unseen(self, table: Table, rows: pl.DataFrame) -> pl.DataFrame:
        """Rows with distinct keys whose key the table does not hold yet; it holds their ids from here on."""
        if rows.height == 0:
            return rows
        ids = hashed(rows[KEY_OF[table]].to_arrow())
        reader, known = IdReader(self.lake.store), self._known_ids(table)
        fresh = ~np.any([np.zeros(rows.height, np.bool_), *(is_among(ids, reader.known(file, 0, FIRST_BYTES)) for file in known)], axis=0)
        self._ids[table] = merged(self.lake.store, [*known, *write_ids(self.lake.store, table, joined([ids.take(fresh)]))])
        return rows.filter(pl.Series(fresh))

    def _known_ids(self, table: Table) -> list[IdFile]:
        if table not in self._ids:
            self._ids[table] = live_ids(self.lake, self.base, table)
        return self._ids[table]

    def _embedded_queries(self, queries: pl.DataFrame) -> pl.DataFrame:
        return queries.with_columns(embedding=self._vectors.of(queries["query"]), text_encoder=pl.lit(self._vectors.encoder))

    def _embedded_products(self, products: pl.DataFrame) -> pl.DataFrame:
        """Products with their text embeddings and the time from which they were known."""
        if products.height == 0:
            return products
        known = self.lake.read(Table.PRODUCTS, ["product_id"], manifest=self.base)["product_id"]
        known_ts = pl.when(pl.col("product_id").is_in(known.implode())).then(pl.lit(self.now)).otherwise(pl.lit(ALWAYS_KNOWN))
        return products.with_columns(
            text_embedding=self._vectors.of(_product_texts(products)),
            text_zh_embedding=self._vectors.of(text or None for text in _product_texts_zh(products)),
            text_encoder=pl.lit(self._vectors.encoder),
            known_ts=known_ts.cast(pl.Datetime("us", "UTC")),
        )

    def _whole_photos(self, photos: pl.DataFrame) -> pl.DataFrame:
        if not photos.height:
            return photos
        wanted = photos.filter(pl.col("embedding").is_null())["sha256"].implode()
        of_files = (self.lake.read_file(file).filter(pl.col("sha256").is_in(wanted)) for file in self.base.of(Table.PHOTOS))
        return completed(photos, pl.concat([self.lake.read(Table.PHOTOS, manifest=Manifest()), *of_files]))


def _remarks(staged: pl.DataFrame) -> dict[str, int]:
    return count_remarks(pa.chunked_array([staged["remarks"].to_arrow()])) if "remarks" in staged.columns else {}


def _product_texts(products: pl.DataFrame) -> list[str]:
    if products.height == 0:
        return []
    return [
        ". ".join(part for part in (title, description, category.replace("/", ", ")) if part)
        for title, description, category in products.select("title", "description", "category").iter_rows()
    ]


def _product_texts_zh(products: pl.DataFrame) -> list[str]:
    """Empty where a product has no Chinese text."""
    if products.height == 0:
        return []
    return ["。".join(part for part in row if part) for row in products.select("title_zh", "description_zh").iter_rows()]
