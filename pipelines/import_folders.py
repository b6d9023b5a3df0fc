"""`guidelens catalogue import-folders`: folders of photos, one a product, become a catalogue with labelled photos in the lake."""

from collections.abc import Mapping
from pathlib import Path

import click
import polars as pl

from guidelens.config import Config, Home
from guidelens.data.adapters import folders
from guidelens.data.adapters.source import AdaptedSource, HoldoutPhoto
from guidelens.errors import InputError
from guidelens.schemas.ids import sub_seed
from guidelens.schemas.tables import IMAGE_DIM, Table
from pipelines.cluster import ray_session
from pipelines.entry import config_options, emit, home_option, progress
from pipelines.ingest import IngestResult
from pipelines.ingest import run as ingest

_SHOWN = 5


class ImportResult(IngestResult):
    """What the ingest did, and: products and photos (labelled, for training) that the folders gave; known: products that the lake had, which keep their rows;
    held_out: photos kept from the lake and listed in `labels`; empty: folders without a photo."""

    products: int
    photos: int
    known: int
    held_out: int = 0
    labels: str | None = None
    empty: tuple[str, ...] = ()


def run(
    home: Home, config: Config, root: Path, lake: str | None = None, held_out: Path | None = None, catalogue_image: str = folders.CATALOGUE_IMAGE
) -> ImportResult:
    """Takes the folders below `root` into the lake; products that the lake has keep their rows, and get the photos.

    Args:
        held_out: a CSV to write (`path, product_id`, as `evaluate recognizer` takes it): about a quarter of the photos, which are not taken in.

    Raises:
        InputError: the folders cannot be used as a shop's, or a photo that is to be held out is in the lake already.
    """
    shop = folders.load(root, catalogue_image)
    _tell(shop)
    source, known = _without_known(home, shop.source, lake)
    with ray_session():
        if held_out is not None:
            source = _split(home, config, source, {product.product_id: product.category for product in shop.source.products}, lake)
            source.write_holdout(held_out)
            progress(f"import-folders: {len(source.holdout)} photos held out, listed in {held_out}; evaluate with --photos {source.photos} --labels {held_out}")
        done = ingest(home, config, source.write(home.work / "adapters" / "folders", progress), lake)
    return ImportResult(
        **dict(done),
        products=len(shop.source.products),
        photos=len(source.labels),
        known=known,
        held_out=len(source.holdout),
        labels=None if held_out is None else str(held_out.absolute()),
        empty=shop.empty,
    )


def _tell(shop: folders.FolderShop) -> None:
    products = shop.source.products
    without = len(products) - len({label.product_id for label in shop.source.labels})
    progress(f"import-folders: {len(products)} products, {len(shop.source.labels)} photos, {sum(len(product.images) for product in products)} catalogue images")
    remarks = (
        (len(shop.empty), f"folders hold no photo and are left out: {', '.join(shop.empty[:_SHOWN])}"),
        (shop.loose, "photos lie in no product's folder and are left out"),
        (without, "products have a catalogue image and no photo"),
        (len(shop.alike), f"times ids differ in case alone, and are products of their own: {'; '.join(', '.join(ids) for ids in shop.alike[:_SHOWN])}"),
    )
    for number, said in remarks:
        if number:
            progress(f"import-folders: {number} {said}")


def _without_known(home: Home, source: AdaptedSource, uri: str | None) -> tuple[AdaptedSource, int]:
    """The source without the rows of products that the lake has, and how many these are: a folder's name says less than a catalogue."""
    from guidelens.data.lake.lake import Lake

    have = set(Lake(uri or home.lake_uri, home.s3).read(Table.PRODUCTS, ["product_id"])["product_id"])
    new = tuple(product for product in source.products if product.product_id not in have)
    known = len(source.products) - len(new)
    if known:
        progress(f"import-folders: {known} products are in the lake already and keep their rows")
    return source.model_copy(update={"products": new}), known


def _split(home: Home, config: Config, source: AdaptedSource, category_of: Mapping[str, str], uri: str | None) -> AdaptedSource:
    """The source with the photos to hold out moved from its labels to its holdout."""
    import numpy as np

    from guidelens.data.lake.lake import Lake
    from guidelens.evaluation.hold_out import held_out

    seen = _embedded(home, config, source)
    names = sorted(set(seen["product_id"]))
    rows = np.array([names.index(name) for name in seen["product_id"]], dtype=np.int64)
    embeddings = np.ascontiguousarray(seen["embedding"].cast(pl.Array(pl.Float32, IMAGE_DIM)).to_numpy())
    chosen = seen.filter(pl.Series(held_out(embeddings, rows, seen["sha256"].to_list(), sub_seed(config.seed, "held-out"))))
    there = set(Lake(uri or home.lake_uri, home.s3).read(Table.PHOTOS, ["sha256"])["sha256"]) & set(chosen["sha256"])
    if there:
        raise InputError(f"photos to hold out must not be in the lake, got {len(there)} that are; import into a new --lake, or leave --held-out away")
    held = dict(chosen.select("path", "product_id").iter_rows())
    holdout = tuple(HoldoutPhoto(path=path, product_id=name, coarse=category_of[name]) for path, name in held.items())
    return source.model_copy(update={"labels": tuple(label for label in source.labels if label.path not in held), "holdout": holdout})


def _embedded(home: Home, config: Config, source: AdaptedSource) -> pl.DataFrame:
    """The labelled photos that can be read, by path, with their embeddings."""
    import pyarrow as pa

    from guidelens.data.images.photos import TASK_SCHEMA
    from guidelens.data.ingest.stages import embed_photos, set_up_ray_data

    set_up_ray_data()
    files = [(label, source.photos / label.path) for label in source.labels]
    tasks = [
        {
            "path": label.path,
            "file": str(file),
            "size_bytes": file.stat().st_size,
            "product_id": label.product_id,
            "is_catalogue_image": False,
            "wants_thumbnail": False,
        }
        for label, file in files
    ]
    nothing_known = pa.table({"sha256": pa.array([], pa.string()), "image_encoder": pa.array([], pa.string()), "has_thumbnail": pa.array([], pa.bool_())})
    progress(f"import-folders: looking for photos that look alike among {len(tasks)}")
    seen = embed_photos(pa.Table.from_pylist(tasks, schema=TASK_SCHEMA), nothing_known, str(source.photos), home.s3, config.ingest)
    return seen.filter(pl.col("rule").is_null()).sort("path")


@click.command("import-folders")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--lake", default=None, metavar="URI", help="Lake to write to; the home's by default.")
@click.option(
    "--held-out",
    default=None,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Keep about a quarter of the photos from the lake and list them here (CSV), for `guidelens evaluate recognizer`. Photos that look alike stay together.",
)
@click.option(
    "--catalogue-image",
    default=folders.CATALOGUE_IMAGE,
    show_default=True,
    metavar="NAME",
    help="A photo of this name (any suffix) is its product's own catalogue image.",
)
@config_options
@home_option
def import_folders_command(directory: Path, lake: str | None, held_out: Path | None, catalogue_image: str, config: Config, home: Home) -> None:
    """Take folders of photos into the lake: each folder that holds photos is a product, the folders above it are its category."""
    emit(run(home, config, directory, lake, held_out, catalogue_image))
