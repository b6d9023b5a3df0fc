"""What an adapter makes of a data set: files that ingest takes like any shop's."""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import polars as pl
import pyarrow.parquet as pq

from guidelens.data.records.sources import IngestSources
from guidelens.schemas.base import Frozen
from guidelens.schemas.catalog import LabelledPhoto, Product

Frames = Callable[[], Iterator[pl.DataFrame]]
"""Records in batches of bounded size, each column named and typed as in its contract; each call reads the data set anew."""
_TOLD_EVERY_ROWS = 1_000_000


def _silent(_message: str) -> None:
    pass


class DataSet(Protocol):
    """A data set that was found and looks complete; its records are read when it is written."""

    def write(self, folder: Path, tell: Callable[[str], None] = _silent) -> IngestSources:
        """The data set as files in `folder` that ingest takes; `tell` hears how far it is.

        Raises:
            InputError: a record of the data set is not as its format says.
        """


class HoldoutPhoto(Frozen):
    """A photo that must not be ingested. path: relative to the photos folder; coarse: the product's class above it."""

    path: str
    product_id: str
    coarse: str


class AdaptedSource(Frozen):
    """A catalogue with photos. photos: the folder that all paths are relative to. labels: photos for training; the products' images are the catalogue's own."""

    products: tuple[Product, ...]
    photos: Path
    labels: tuple[LabelledPhoto, ...]
    holdout: tuple[HoldoutPhoto, ...]

    def write(self, folder: Path, tell: Callable[[str], None] = _silent) -> IngestSources:
        """The source as files in `folder` (catalogue.jsonl, photos.csv) that ingest takes; the photos stay where they are."""
        catalogue, photo_list = _write_catalogue(self.products, folder), folder / "photos.csv"
        pictures = [(image, "") for product in self.products for image in product.images]
        _write_csv(photo_list, ("path", "product_id"), [*((label.path, label.product_id) for label in self.labels), *pictures])
        tell(f"catalogue: {len(self.products)} products, {len(self.labels)} labelled photos")
        return IngestSources(catalogue=str(catalogue), photos=str(self.photos), photo_list=str(photo_list))

    def write_holdout(self, file: Path) -> Path:
        """The held-back photos' labels as CSV: path, product_id, coarse."""
        file.parent.mkdir(parents=True, exist_ok=True)
        _write_csv(file, ("path", "product_id", "coarse"), [(photo.path, photo.product_id, photo.coarse) for photo in self.holdout])
        return file


@dataclass(frozen=True)
class AdaptedLog:
    """A catalogue with a log and no photos."""

    products: tuple[Product, ...]
    events: Frames
    shoppers: pl.DataFrame | None = None
    reviews: Frames | None = None

    def write(self, folder: Path, tell: Callable[[str], None] = _silent) -> IngestSources:
        """catalogue.jsonl, events.parquet and, where there are any, shoppers.parquet and reviews.parquet, a batch at a time."""
        catalogue = _write_catalogue(self.products, folder)
        tell(f"catalogue: {len(self.products)} products")
        if self.shoppers is not None:
            self.shoppers.write_parquet(folder / "shoppers.parquet")
            tell(f"shoppers: {self.shoppers.height} rows")
        return IngestSources(
            catalogue=str(catalogue),
            events=(_write_parquet(self.events, folder / "events.parquet", tell),),
            shoppers=None if self.shoppers is None else str(folder / "shoppers.parquet"),
            reviews=None if self.reviews is None else _write_parquet(self.reviews, folder / "reviews.parquet", tell),
        )


def _write_catalogue(products: tuple[Product, ...], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "catalogue.jsonl"
    with file.open("w", encoding="utf-8") as sink:
        sink.writelines(product.model_dump_json(exclude_none=True) + "\n" for product in products)
    return file


def _write_parquet(frames: Frames, file: Path, tell: Callable[[str], None]) -> str:
    rows, told = 0, 0
    writer: pq.ParquetWriter | None = None
    try:
        for frame in frames():
            table = frame.to_arrow()
            writer = writer or pq.ParquetWriter(file, table.schema, compression="zstd")
            writer.write_table(table)
            rows += frame.height
            if rows - told >= _TOLD_EVERY_ROWS:
                told = rows
                tell(f"{file.stem}: {rows} rows so far")
    finally:
        if writer is not None:
            writer.close()
    tell(f"{file.stem}: {rows} rows")
    return str(file)


def _write_csv(file: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as sink:
        writer = csv.writer(sink, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
