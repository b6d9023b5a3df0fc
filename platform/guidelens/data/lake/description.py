"""What a lake holds, in numbers for people: tables, the ingests that made it, events by day, products, photos, and what was refused.

Reads the columns it counts, a file at a time, so memory does not grow with the log. Knows nothing of pages or plots.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from guidelens.data.lake.lake import Lake, Manifest
from guidelens.data.sessions import known_ts
from guidelens.schemas.base import Frozen
from guidelens.schemas.events import EventType
from guidelens.schemas.tables import SCHEMAS, Table

LATE_H = (1 / 60, 1, 24)
"""Delays above which an event is counted as late."""
_TOP_CATEGORIES = 12
_PLAIN = frozenset({"event_id", "event_ts", "created_ts", "shopper_key", "key_id", "is_anonymous", "session_id", "type"})
_FUNNEL = (EventType.IMPRESSION, EventType.CLICK, EventType.CART, EventType.PURCHASE)
_PRODUCT_FIELDS = ("description", "title_zh", "brand", "price_minor", "colour", "material", "size", "images", "stock", "width_m", "model_3d")
_SHOPPER_FIELDS = ("age_band", "gender", "region", "height_cm", "body", "skin_tone", "channel", "created_ts", "consent")


class TableDescription(Frozen):
    """partitions: days of a table partitioned by date, and dates, the first and last of them; 1 and None of any other."""

    rows: int
    files: int
    partitions: int
    size_bytes: int
    dates: tuple[str, str] | None = None


class Run(Frozen):
    """One version of the lake: what it holds, and counts by kind of the ingest that made it; none where something else did (a forget, a clean-up)."""

    version: int
    files: int
    rows: int
    counts: dict[str, dict[str, int]]


class Day(Frozen):
    """Events that happened on one day (UTC), by type."""

    date: str
    events: dict[str, int]


class EventsDescription(Frozen):
    """filled: by type, the share of its events that say a field, for the fields any of them says. late: share known more than LATE_H hours
    after it happened. unknown_products: events that name a product the catalogue does not hold."""

    events: int
    days: tuple[Day, ...]
    by_type: dict[str, int]
    by_channel: dict[str, int]
    by_device: dict[str, int]
    by_hour: tuple[int, ...]
    shoppers: int
    anonymous_share: float
    sessions: int
    late: tuple[float, ...]
    filled: dict[str, dict[str, float]]
    unknown_products: int
    products_seen: int


class CatalogueDescription(Frozen):
    """filled: share of products that say a field. photos: by number of labelled photos, how many products have them."""

    products: int
    categories: dict[str, int]
    filled: dict[str, float]
    photos: int
    labelled_photos: int
    photos_a_product: dict[str, int]


class ShoppersDescription(Frozen):
    """filled: share of shoppers of whom a field is known. declined: those who refused consent."""

    shoppers: int
    filled: dict[str, float]
    declined: int
    forgotten: int


class Refused(Frozen):
    kind: str
    rule: str
    records: int
    example: str


class LakeDescription(Frozen):
    """runs: the versions up to this one, oldest first."""

    lake: str
    manifest: int
    snapshot_sha256: str
    tables: dict[str, TableDescription]
    runs: tuple[Run, ...]


class DataDescription(LakeDescription):
    """The whole of a lake's data; a part is None where the lake has no such rows."""

    events: EventsDescription | None
    catalogue: CatalogueDescription | None
    shoppers: ShoppersDescription | None
    refused: tuple[Refused, ...]


def describe_tables(lake: Lake, manifest: Manifest) -> LakeDescription:
    """Rows, files, bytes and days of each table that has rows, and the versions before; from manifests alone."""
    tables = {}
    for table in Table:
        files = manifest.of(table)
        dates = sorted(file.date for file in files if file.date is not None)
        if files:
            tables[str(table)] = TableDescription(
                rows=manifest.rows(table),
                files=len(files),
                partitions=len(set(dates)) or 1,
                size_bytes=sum(file.size_bytes for file in files),
                dates=(dates[0], dates[-1]) if dates else None,
            )
    runs = tuple(_runs(lake, manifest))
    return LakeDescription(lake=lake.uri, manifest=manifest.version, snapshot_sha256=manifest.snapshot_sha256, tables=tables, runs=runs)


def describe_data(lake: Lake, manifest: Manifest) -> DataDescription:
    """All of it; one pass over the events."""
    products = lake.read(Table.PRODUCTS, ["product_id", "category", *_PRODUCT_FIELDS], manifest=manifest)
    return DataDescription(
        **describe_tables(lake, manifest).model_dump(),
        events=_Events(set(products["product_id"])).of(lake, manifest) if manifest.rows(Table.EVENTS) else None,
        catalogue=_catalogue(lake, manifest, products) if len(products) else None,
        shoppers=_shoppers(lake, manifest) if manifest.rows(Table.SHOPPERS) else None,
        refused=tuple(_refused(lake, manifest)),
    )


def _runs(lake: Lake, newest: Manifest) -> Iterator[Run]:
    for manifest in lake.manifests():
        if manifest.version <= newest.version:
            counts = {kind: found["total"] for kind, found in manifest.report.items() if isinstance(found, dict) and "total" in found}
            yield Run(version=manifest.version, files=len(manifest.files), rows=sum(file.rows for file in manifest.files), counts=counts)


class _Events:
    """Counts that grow file by file."""

    def __init__(self, product_ids: set[str]) -> None:
        self._known = pl.Series(sorted(product_ids), dtype=pl.String)
        self._days: dict[str, Counter[str]] = {}
        self._channels: Counter[str] = Counter()
        self._devices: Counter[str] = Counter()
        self._hours = np.zeros(24, dtype=np.int64)
        self._late = np.zeros(len(LATE_H), dtype=np.int64)
        self._filled: dict[str, Counter[str]] = {}
        self._people: set[int] = set()
        self._sessions: set[int] = set()
        self._products: set[str] = set()
        self._anonymous = self._unknown = 0

    def of(self, lake: Lake, manifest: Manifest) -> EventsDescription:
        for file in manifest.of(Table.EVENTS):
            self._count(str(file.date), lake.read_file(file))
        total = sum(sum(day.values()) for day in self._days.values())
        by_type = sum(self._days.values(), Counter())
        return EventsDescription(
            events=total,
            days=tuple(Day(date=date, events=dict(counts)) for date, counts in sorted(self._days.items())),
            by_type=dict(by_type.most_common()),
            by_channel=dict(self._channels.most_common()),
            by_device=dict(self._devices.most_common()),
            by_hour=tuple(self._hours.tolist()),
            shoppers=len(self._people),
            anonymous_share=self._anonymous / total,
            sessions=len(self._sessions),
            late=tuple((self._late / total).tolist()),
            filled={kind: {name: count / by_type[kind] for name, count in sorted(said.items())} for kind, said in sorted(self._filled.items())},
            unknown_products=self._unknown,
            products_seen=len(self._products),
        )

    def _count(self, date: str, events: pl.DataFrame) -> None:
        self._days.setdefault(date, Counter()).update(_counted(events, "type"))
        self._channels.update(_counted(events, "channel"))
        self._devices.update(_counted(events, "device"))
        self._hours += np.bincount(events["event_ts"].dt.hour().to_numpy(), minlength=24)
        delay_h = events.select((known_ts() - pl.col("event_ts")).dt.total_microseconds() / 3.6e9).to_series().to_numpy()
        self._late += np.array([(delay_h > limit).sum() for limit in LATE_H])
        # Within one process equal values hash alike, and 64 bits keep a million apart.
        self._people.update(events["shopper_key"].hash().unique().to_list())
        self._sessions.update(events.select(pl.struct("shopper_key", "session_id").hash()).to_series().unique().to_list())
        self._products.update(events["product_id"].drop_nulls().unique().to_list())
        self._anonymous += int(events["is_anonymous"].sum())
        self._unknown += int((events["product_id"].is_not_null() & ~events["product_id"].is_in(self._known.implode())).sum())
        said = events.group_by("type").agg(pl.col(name).is_not_null().sum() for name in SCHEMAS[Table.EVENTS].names if name not in _PLAIN)
        for row in said.to_dicts():
            self._filled.setdefault(row.pop("type"), Counter()).update({name: count for name, count in row.items() if count})


def _counted(rows: pl.DataFrame, column: str) -> dict[str, int]:
    return dict(rows.select(pl.col(column).fill_null("not said")).group_by(column).len().iter_rows())


def _filled(rows: pl.DataFrame, columns: tuple[str, ...]) -> dict[str, float]:
    present = [pl.col(name).list.len().fill_null(0) > 0 if rows.schema[name] == pl.List else pl.col(name).is_not_null() for name in columns]
    found: dict[str, Any] = rows.select(says.mean().alias(name) for name, says in zip(columns, present, strict=True)).row(0, named=True)
    return found


def _catalogue(lake: Lake, manifest: Manifest, products: pl.DataFrame) -> CatalogueDescription:
    photos = lake.read(Table.PHOTOS, ["product_id"], manifest=manifest)
    labelled = photos.drop_nulls().group_by("product_id").len()
    each = products.select("product_id").join(labelled, on="product_id", how="left")["len"].fill_null(0)
    bins = {"none": (0, 0), "1": (1, 1), "2-4": (2, 4), "5-19": (5, 19), "20 or more": (20, 10**9)}
    levels = products["category"].str.split("/").list.first()
    return CatalogueDescription(
        products=len(products),
        categories=dict(Counter(levels.to_list()).most_common(_TOP_CATEGORIES)),
        filled=_filled(products, _PRODUCT_FIELDS),
        photos=len(photos),
        labelled_photos=int(labelled["len"].sum()),
        photos_a_product={name: int(each.is_between(low, high).sum()) for name, (low, high) in bins.items()},
    )


def _shoppers(lake: Lake, manifest: Manifest) -> ShoppersDescription:
    rows = lake.read(Table.SHOPPERS, list(_SHOPPER_FIELDS), manifest=manifest)
    return ShoppersDescription(
        shoppers=len(rows),
        filled=_filled(rows, _SHOPPER_FIELDS),
        declined=int((~rows["consent"].fill_null(True)).sum()),
        forgotten=manifest.rows(Table.TOMBSTONES),
    )


def _refused(lake: Lake, manifest: Manifest) -> Iterator[Refused]:
    rows = lake.read(Table.QUARANTINE, ["kind", "rule", "message"], manifest=manifest)
    groups = rows.group_by("kind", "rule").agg(pl.len(), pl.col("message").min()).sort("len", "kind", "rule", descending=[True, False, False])
    for kind, rule, records, example in groups.iter_rows():
        yield Refused(kind=kind, rule=rule, records=records, example=example)


def funnel(events: EventsDescription) -> dict[str, int]:
    """Events of each stage from being shown to being bought."""
    return {str(kind): events.by_type.get(kind, 0) for kind in _FUNNEL}
