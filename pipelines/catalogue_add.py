"""`guidelens catalogue add` and `remove`: products join or leave the lake and, within seconds, a new version of the release. Nothing is trained."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import polars as pl

from guidelens.config import Config, Home
from guidelens.data.records.sources import IngestSources
from guidelens.errors import CommitConflictError, InputError, NotFoundError
from guidelens.registry import CHAMPION, Registry
from guidelens.schemas.base import Frozen
from guidelens.schemas.ids import stable_hash
from guidelens.schemas.tables import Table
from pipelines.amended_release import AmendedRelease, Joining, Picture, amend, amending, base_release
from pipelines.entry import emit, home_option, progress

if TYPE_CHECKING:
    from guidelens.data.lake.lake import Lake

_MAX_COMMITS = 12


class Amended(Frozen):
    """release: the new version. lake: where the products' rows are; manifest: its version after this. seconds: all of it."""

    release: AmendedRelease
    products: tuple[str, ...]
    lake: str
    manifest: int
    seconds: float


class NewProduct(Frozen):
    """A product that the lake does not know. fields: of the catalogue's contract. images: the catalogue's own; photos: as cameras see it."""

    fields: dict[str, Any]
    images: tuple[Path, ...] = ()
    photos: tuple[Path, ...] = ()


def add(home: Home, product_ids: Sequence[str], new: NewProduct | None = None, lake: str | None = None) -> Amended:
    """Makes a version of the release that knows these products too.

    Args:
        product_ids: of the lake; where `new` is given, the one id that it describes.
        lake: URI; the release's own by default.

    Raises:
        ContractError: the product or an image breaks a rule of the catalogue. Nothing was changed.
        NotFoundError: the lake does not hold a product, or there is no release to join.
        InputError: a product is in the release already.
    """
    from guidelens.data.lake.lake import Lake
    from guidelens.inference.guide_files import load_items
    from pipelines.release_copy import local_copy

    begun = time.perf_counter()
    with amending(home):
        registry = Registry(home)
        base = base_release(registry)
        bundle, manifest = local_copy(registry, base)
        there = sorted(set(product_ids) & set(load_items(bundle)[1].product_ids))
        if there:
            raise InputError(
                f"a product that joins must not be in release {base.version}, got {', '.join(map(repr, there))}; ingest what is new of it and train"
            )
        uri = lake or manifest.lake
        if new is not None:
            _take_in(home, _config_of(bundle), new, uri)
        opened = Lake(uri, home.s3)
        joining = _joining(opened, product_ids)
        _warn(bundle, joining)
        release = amend(home, base, joining, ())
    return _amended(release, product_ids, opened, begun)


def remove(home: Home, product_ids: Sequence[str], lake: str | None = None) -> Amended:
    """Takes products out of the lake's catalogue and makes a version of the release without them. Their photos and events stay in the lake.

    Raises:
        NotFoundError: a product is not in the release, or there is none.
        InputError: no product would be left.
    """
    from guidelens.data.lake.lake import Lake
    from guidelens.inference.guide_files import load_items
    from pipelines.release_copy import local_copy

    begun = time.perf_counter()
    with amending(home):
        registry = Registry(home)
        base = base_release(registry)
        bundle, manifest = local_copy(registry, base)
        if set(load_items(bundle)[1].product_ids) <= set(product_ids):
            raise InputError(f"a release must keep a product, got all {manifest.num_products} of release {base.version} to remove")
        release = amend(home, base, None, product_ids)
        opened = Lake(lake or manifest.lake, home.s3)
        _delete(opened, product_ids)
    return _amended(release, product_ids, opened, begun)


def _amended(release: AmendedRelease, product_ids: Sequence[str], lake: "Lake", begun: float) -> Amended:
    seconds = round(time.perf_counter() - begun, 2)
    return Amended(release=release, products=tuple(product_ids), lake=lake.uri, manifest=lake.manifest().version, seconds=seconds)


def _config_of(bundle: Path) -> Config:
    """The config that the release was trained with: a product that joins it is embedded by the same encoders."""
    return Config.model_validate(json.loads((bundle / "fit.json").read_bytes())["config"])


def _take_in(home: Home, config: Config, new: NewProduct, uri: str) -> None:
    """One ingest of one product, in this process; what it refuses is the caller's to mend, and is not kept in quarantine."""
    from guidelens.data.ingest.stages import EmbedHere
    from pipelines.ingest import Ingest

    folder = home.work / "adapters" / "added"
    kept = [(_kept(folder, new.fields["product_id"], path), path in new.images) for path in dict.fromkeys((*new.images, *new.photos))]
    pictures = [path for path, is_catalogue in kept if is_catalogue]
    (folder / "catalogue.jsonl").write_text(json.dumps({**new.fields, "images": pictures}, ensure_ascii=False) + "\n", encoding="utf-8")
    lines = [f'"{path}",{"" if is_catalogue else _quoted(new.fields["product_id"])}\n' for path, is_catalogue in kept]
    (folder / "photos.csv").write_text("path,product_id\n" + "".join(lines), encoding="utf-8")
    photos = {"photos": str(folder), "photo_list": str(folder / "photos.csv")} if kept else {}
    taking = Ingest(home, config, uri, embed=EmbedHere(config.ingest.encoders.text))
    taking.take(IngestSources(catalogue=str(folder / "catalogue.jsonl"), **photos), all_or_nothing=True)


def _kept(folder: Path, product_id: str, image: Path) -> str:
    """The image under a name of its own among all that were ever added, relative to the folder."""
    try:
        data = image.read_bytes()
    except OSError as error:
        raise InputError(f"an image must be a file that can be read, got {image}: {error.strerror}") from error
    name = f"{stable_hash(product_id) & (1 << 64) - 1:016x}/{hashlib.sha256(data).hexdigest()[:16]}{image.suffix.lower()}"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    return name


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _joining(lake: "Lake", product_ids: Sequence[str]) -> Joining:
    """What the lake knows of products, as a fit would have it.

    Raises:
        NotFoundError: it does not hold one.
    """
    from guidelens.data.features.products import PHOTO_COLUMNS, product_rows
    from pipelines.fit_parts import with_models_there

    manifest, ours = lake.manifest(), pl.col("product_id").is_in(list(product_ids))
    products = lake.read(Table.PRODUCTS, manifest=manifest).filter(ours)
    unknown = sorted(set(product_ids) - set(products["product_id"]))
    if unknown:
        raise NotFoundError(f"the lake must hold a product that joins, got {', '.join(map(repr, unknown))}; ingest it, or give its --title and --category")
    photos = lake.read(Table.PHOTOS, ["path", "thumbnail", *PHOTO_COLUMNS], manifest=manifest).filter(ours).sort(~pl.col("is_catalogue_image"), "path")
    items = with_models_there(product_rows(products, photos.select(PHOTO_COLUMNS)), lake, manifest)
    pictured = photos.filter(pl.col("thumbnail").is_not_null())
    pictures: dict[str, list[Picture]] = {}
    for product_id, data, is_catalogue in pictured.select("product_id", "thumbnail", "is_catalogue_image").iter_rows():
        pictures.setdefault(product_id, []).append(Picture(data, bool(is_catalogue)))
    models = dict(lake.read(Table.MODELS, ["path", "glb"], manifest=manifest).iter_rows())
    brought = {product_id: models[path] for product_id, path in items.select("product_id", "model_3d").iter_rows() if path is not None}
    return Joining(items, pictures, {product_id: images[0].data for product_id, images in pictures.items()}, brought)


def _warn(bundle: Path, joining: Joining) -> None:
    path = bundle / "recognizer.json"
    if not path.exists():
        progress("catalogue: the release has no recognizer: new products are found by text and recommended, and never recognised")
        return
    facts = json.loads(path.read_bytes())
    alone = [product_id for product_id, images in joining.pictures.items() if all(each.is_catalogue for each in images)]
    if alone and (facts["catalogue_scale"], facts["catalogue_shift"]) == (1.0, 0.0):
        progress(
            f"catalogue: {', '.join(alone)}: known by catalogue images alone, and the release never learned how far photos lie from these (fewer than five of its products "
            "have both): it will seldom be recognised; a --photo or two help"
        )
    unseen = sorted(set(joining.items["product_id"]) - set(joining.pictures))
    if unseen:
        progress(f"catalogue: {', '.join(unseen)}: without an image found by text and recommended, and never recognised")


def _delete(lake: "Lake", product_ids: Sequence[str]) -> None:
    from guidelens.data.lake.tables import delete

    for _ in range(_MAX_COMMITS):
        base = lake.manifest()
        left, number = delete(lake, base.of(Table.PRODUCTS), pl.col("product_id").is_in(list(product_ids)))
        if not number:
            return
        try:
            lake.commit(base, [*(file for file in base.files if file.table is not Table.PRODUCTS), *left], {"removed": {"products": number}})
        except CommitConflictError:
            continue
        return
    raise CommitConflictError(f"lake {lake.uri}: other writers committed first {_MAX_COMMITS} times; remove the products again")


def _settled(home: Home, done: Amended, promote: bool) -> None:
    """Promotes where that was asked for, and tells."""
    from pipelines import promote as promoting

    release = done.release
    if promote:
        promoting.run(home, release.version)
        done = done.model_copy(update={"release": release.model_copy(update={"alias": CHAMPION})})
    then = "serve it: restart `guidelens serve`" if promote else f"`guidelens promote {release.version}` makes it the champion"
    progress(f"catalogue: release {release.version}, made of {release.base} in {done.seconds} s; {then}")
    emit(done)


_lake_option = click.option("--lake", default=None, metavar="URI", help="The release's own by default.")
_promote_option = click.option("--promote", is_flag=True, help="Make the new version the champion, where its checks passed.")
_File = click.Path(exists=True, dir_okay=False, path_type=Path)


def _json_object(_context: click.Context, option: click.Parameter, text: str | None) -> dict[str, Any] | None:
    try:
        found = None if text is None else json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"must be a JSON object, got {text!r}: {error}") from error
    if found is not None and not isinstance(found, dict):
        raise click.BadParameter(f"must be a JSON object, got {text!r}")
    return found


def _field_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for name in ("title", "title-zh", "category", "description", "description-zh", "brand", "currency", "try-on"):
        function = click.option(f"--{name}", default=None)(function)
    for name in ("price-minor", "stock"):
        function = click.option(f"--{name}", type=int, default=None)(function)
    for name in ("attributes", "facts"):
        function = click.option(f"--{name}", default=None, metavar="JSON", callback=_json_object)(function)
    return function


@click.command("add")
@click.argument("product_ids", nargs=-1, required=True, metavar="PRODUCT...")
@click.option("--image", "images", multiple=True, type=_File, help="The catalogue's own image; repeatable.")
@click.option("--photo", "photos", multiple=True, type=_File, help="A photo as cameras see the product; repeatable.")
@_field_options
@_promote_option
@_lake_option
@home_option
def add_command(
    home: Home, product_ids: tuple[str, ...], images: tuple[Path, ...], photos: tuple[Path, ...], promote: bool, lake: str | None, **fields: Any
) -> None:
    """Make products known within seconds, without training: products of the lake, or a new one given by --title, --category and images."""
    given = {name: value for name, value in fields.items() if value is not None}
    if (given or images or photos) and len(product_ids) != 1:
        raise click.UsageError("--title and the other fields describe one product; ingest several from a catalogue, then `catalogue add` their ids")
    new = NewProduct(fields={"product_id": product_ids[0], **given}, images=images, photos=photos) if given or images or photos else None
    _settled(home, add(home, product_ids, new, lake), promote)


@click.command("remove")
@click.argument("product_ids", nargs=-1, required=True, metavar="PRODUCT...")
@_promote_option
@_lake_option
@home_option
def remove_command(home: Home, product_ids: tuple[str, ...], promote: bool, lake: str | None) -> None:
    """Take products out of the catalogue and make a version of the release without them. Photos and events of them stay in the lake."""
    _settled(home, remove(home, product_ids, lake), promote)
