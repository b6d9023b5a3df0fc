"""What an adapter makes of a data set: products, labelled photos, and the photos to hold back for measuring."""

import csv
from pathlib import Path

from guidelens.data.sources import IngestSources
from guidelens.schemas.base import Frozen
from guidelens.schemas.catalog import LabelledPhoto, Product


class HoldoutPhoto(Frozen):
    """A photo that must not be ingested. path: relative to the photos folder; coarse: the product's class above it."""

    path: str
    product_id: str
    coarse: str


class AdaptedSource(Frozen):
    """photos: the folder that all paths are relative to. labels: photos for training; the products' images are the catalogue's own."""

    products: tuple[Product, ...]
    photos: Path
    labels: tuple[LabelledPhoto, ...]
    holdout: tuple[HoldoutPhoto, ...]

    def write(self, folder: Path) -> IngestSources:
        """The source as files in `folder` (catalogue.jsonl, photos.csv) that ingest takes; the photos stay where they are."""
        folder.mkdir(parents=True, exist_ok=True)
        catalogue, photo_list = folder / "catalogue.jsonl", folder / "photos.csv"
        catalogue.write_text("".join(product.model_dump_json(exclude_none=True) + "\n" for product in self.products), encoding="utf-8")
        pictures = [(image, "") for product in self.products for image in product.images]
        _write_csv(photo_list, ("path", "product_id"), [*((label.path, label.product_id) for label in self.labels), *pictures])
        return IngestSources(catalogue=str(catalogue), photos=str(self.photos), photo_list=str(photo_list))

    def write_holdout(self, file: Path) -> Path:
        """The held-back photos' labels as CSV: path, product_id, coarse."""
        file.parent.mkdir(parents=True, exist_ok=True)
        _write_csv(file, ("path", "product_id", "coarse"), [(photo.path, photo.product_id, photo.coarse) for photo in self.holdout])
        return file


def _write_csv(file: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as sink:
        writer = csv.writer(sink, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
