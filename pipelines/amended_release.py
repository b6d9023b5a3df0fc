"""A new version made from a release by products that join or leave it: nothing is trained, all else is the release's own."""

import fcntl
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from guidelens.bundle import MEDIA, BundleManifest, BundleOrigin, seal
from guidelens.config import Home
from guidelens.errors import NotFoundError
from guidelens.evaluation.gate import passed
from guidelens.evaluation.report import GateCheck
from guidelens.registry import CHALLENGER, CHAMPION, ModelVersion, Registry
from guidelens.schemas.base import Frozen
from pipelines.entry import progress
from pipelines.promote import GATE_TAG
from pipelines.release_copy import BUNDLE_TAG, local_copy

AMENDS = "amends"


class AmendedRelease(Frozen):
    """version: the new one; base: what it was made of. alias: `challenger` where all checks passed, `champion` where it was promoted, else null."""

    version: str
    base: str
    gate: tuple[GateCheck, ...]
    alias: str | None
    path: str


@dataclass(frozen=True)
class Picture:
    """An image of a product: its bytes as brought, and whether it is the catalogue's own."""

    data: bytes
    is_catalogue: bool


@dataclass(frozen=True)
class Joining:
    """items: rows of the item table, as a fit has them. pictures, thumbnails (JPEG) and models (binary glTF) by product_id."""

    items: pl.DataFrame
    pictures: Mapping[str, Sequence[Picture]]
    thumbnails: Mapping[str, bytes]
    models: Mapping[str, bytes]


def base_release(registry: Registry) -> ModelVersion:
    """What the next amendment goes on from: the challenger where it amends the champion's run already, else the champion.

    Raises:
        NotFoundError: there is no champion.
    """
    champion, challenger = registry.alias(CHAMPION), registry.alias(CHALLENGER)
    if champion is None:
        raise NotFoundError("products join a release, and no release bears the alias 'champion'; run `guidelens train`, `release` and `promote` first")
    found = registry.version(champion)
    newer = None if challenger is None else registry.version(challenger)
    return newer if newer is not None and AMENDS in newer.tags and newer.run_id == found.run_id else found


@contextmanager
def amending(home: Home) -> Iterator[None]:
    """One amendment at a time: each goes on from the one before."""
    home.releases.mkdir(parents=True, exist_ok=True)
    with (home.releases / ".amending.lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def amend(home: Home, base: ModelVersion, joining: Joining | None, leaving: Sequence[str]) -> AmendedRelease:
    """Builds, registers and checks the new version; only the alias `challenger` is set.

    Raises:
        NotFoundError: a product that is to leave is not in the release.
        BundleError: the base or the result does not verify.
    """
    registry = Registry(home)
    source, origin = local_copy(registry, base)
    home.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="amended-", dir=home.work) as scratch:
        built = Path(scratch) / "bundle"
        shutil.copytree(source, built)
        added = _change(home, built, joining, leaving)
        manifest = seal(built, _origin(origin))
        artifact = _logged(registry, base.run_id, built)
        version = registry.register(base.run_id, artifact)
        registry.tag_version(version, {BUNDLE_TAG: artifact, AMENDS: base.version})
        path, manifest = local_copy(registry, registry.version(version))
    checks = _checks(home, manifest, source, path, base.version, joining if added else None)
    verdict = passed(checks)
    registry.tag_version(version, {GATE_TAG: "passed" if verdict else "failed", "checks": json.dumps([check.model_dump() for check in checks])})
    if verdict:
        registry.set_alias(CHALLENGER, version)
    for check in checks:
        progress(f"  {'skipped' if check.passed is None else 'passed ' if check.passed else 'FAILED '} {check.name}: {check.why}")
    return AmendedRelease(version=version, base=base.version, gate=checks, alias=CHALLENGER if verdict else None, path=str(path))


def _origin(manifest: BundleManifest) -> BundleOrigin:
    return BundleOrigin(**{name: getattr(manifest, name) for name in BundleOrigin.model_fields})


def _logged(registry: Registry, run_id: str, built: Path) -> str:
    number = 2
    while registry.has_artifact(run_id, f"bundle-{number}"):
        number += 1
    registry.log_folder(run_id, built, f"bundle-{number}")
    return f"bundle-{number}"


def _change(home: Home, built: Path, joining: Joining | None, leaving: Sequence[str]) -> bool:
    """Changes the copy's files to the new set of products; whether any product joins."""
    from guidelens.inference.bundle_rows import with_rows
    from guidelens.inference.guide_files import encoders_of, load_items
    from guidelens.inference.search.files import FOLDER as SEARCH
    from pipelines.bundle_parts import with_index
    from pipelines.fit_search import keep_search

    before, _ = load_items(built)
    unknown = sorted(set(leaving) - set(before["product_id"]))
    if unknown:
        raise NotFoundError(f"a product that leaves must be in the release, got {', '.join(map(repr, unknown))}; `GET /v1/products/ID` shows those that are")
    kept = before.filter(~pl.col("product_id").is_in(list(leaving)))
    items = kept if joining is None else pl.concat([kept, joining.items.select(_as(before))]).sort("product_id")
    row_of = {product_id: row for row, product_id in enumerate(before["product_id"])}
    rows = np.array([row_of.get(product_id, -1) for product_id in items["product_id"]], dtype=np.int64)
    new = {product_id: row for row, product_id in enumerate(items["product_id"]) if rows[row] < 0}
    with_rows(built, rows, items, others=frozenset({SEARCH}))
    if joining is not None:
        for product_id, row in new.items():
            for suffix, held in (("jpg", joining.thumbnails), ("glb", joining.models)):
                if product_id in held:
                    (built / MEDIA / f"{row}.{suffix}").write_bytes(held[product_id])
    _recognizers(home, built, rows, items, {row: joining.pictures.get(product_id, ()) for product_id, row in new.items()} if joining else {})
    with_index(built)
    if (built / SEARCH).is_dir():
        keep_search(home, encoders_of(built).text, items, built)
    return bool(new)


def _as(table: pl.DataFrame) -> list[pl.Expr]:
    return [pl.col(name).cast(dtype) for name, dtype in table.schema.items()]


def _recognizers(home: Home, built: Path, rows: NDArray[np.int64], items: pl.DataFrame, pictures: Mapping[int, Sequence[Picture]]) -> None:
    """The closed form on the encoder's embeddings, and the one on tuned embeddings where the release has one."""
    from guidelens.data.images.decoding import decode_image
    from guidelens.encoders.backbones import load_image_backbone
    from guidelens.encoders.image import ImageEncoder
    from guidelens.inference.guide_files import encoders_of
    from guidelens.models.recognizer_rows import ProductImages, with_rows
    from guidelens.models.released_recognizer import TUNED
    from guidelens.models.tuned import TunedRecognizer

    encoder = load_image_backbone(encoders_of(built).image, home.root / "cache")
    shown = {row: np.stack([decode_image(each.data) for each in images]) for row, images in pictures.items() if images}
    categories = items["category"].fill_null("").to_list()
    for folder in (built, built / TUNED):
        if not (folder / "recognizer.json").exists():
            continue
        # Only the default encoder is ever tuned.
        tuned = TunedRecognizer.load(folder, encoder) if folder.name == TUNED and isinstance(encoder, ImageEncoder) else None
        added = {
            row: ProductImages(
                encoder.embed(images) if tuned is None else tuned.recognize(images).tuned_BD, np.array([each.is_catalogue for each in pictures[row]], np.bool_)
            )
            for row, images in shown.items()
        }
        with_rows(folder, rows, added, categories)


def _checks(home: Home, manifest: BundleManifest, source: Path, path: Path, base: str, joining: Joining | None) -> tuple[GateCheck, ...]:
    whole = GateCheck(name="files", passed=True, why=f"{len(manifest.files)} files have their SHA-256, no pickle, finite weights")
    return (whole, _parity(source, path, base), _answers(path), *(() if joining is None else (_known_by_own_image(home, path, joining),)))


def _parity(source: Path, path: Path, base: str) -> GateCheck:
    """Products that stay have the vectors they had."""
    from guidelens.inference.guide_files import has_guide, load_items
    from guidelens.inference.scorer import GuideScorer

    (before, _), (after, _) = load_items(source), load_items(path)
    both = before.with_row_index("before").join(after.with_row_index("after"), on="product_id").select("before", "after")
    if not has_guide(path):
        return GateCheck(name="parity", passed=None, why=f"release {base} has no guide model")
    old, new = (GuideScorer.load(folder).index_vectors() for folder in (source, path))
    error = float(np.abs(old[both["before"].to_numpy()] - new[both["after"].to_numpy()]).max(initial=0.0))
    limit = _gate_limit(path)
    return GateCheck(
        name="parity", passed=error <= limit, why=f"largest difference of {both.height} products' vectors to release {base}: {error:.1e}; at most {limit:.0e}"
    )


def _gate_limit(path: Path) -> float:
    from guidelens.config import GateConfig

    return GateConfig.model_validate(json.loads((path / "fit.json").read_bytes())["config"]["gate"]).max_parity_error


def _answers(path: Path) -> GateCheck:
    """Every part of serving loads it."""
    from guidelens.config import SearchConfig
    from guidelens.inference.fusion import FusionModel
    from guidelens.inference.guide_files import load_items
    from guidelens.inference.ranker import RankerModel
    from guidelens.inference.search.shop import search_engine
    from guidelens.models.baselines.fallback import Fallback
    from guidelens.retrieval import VectorIndex

    fusion, ranker, index = FusionModel.load(path), RankerModel.load(path), VectorIndex.load(path / "index.usearch")
    Fallback.load(path, load_items(path)[1].product_ids)
    engine = search_engine(path, fusion, SearchConfig())
    fits = len(index) == len(engine.texts) == len(ranker.catalogue)
    found = f"an index of {len(index)} and a search over {len(engine.texts)}"
    return GateCheck(name="loads", passed=fits, why=f"fusion, ranker, fallback, {found} of {len(ranker.catalogue)} products load")


def _known_by_own_image(home: Home, path: Path, joining: Joining) -> GateCheck:
    """A new product's own images, asked about as frames are, must be answered by it, or by one that has the same image."""
    from guidelens.data.images.decoding import decode_image
    from guidelens.encoders.backbones import load_image_backbone
    from guidelens.inference.guide_files import encoders_of, load_items
    from guidelens.models.released_recognizer import ReleasedRecognizer

    asked = [(product_id, decode_image(each.data)) for product_id, images in joining.pictures.items() for each in images]
    if not asked or not (path / "recognizer.json").exists():
        return GateCheck(name="own_images", passed=None, why="no image, or a release without a recognizer: found by text alone")
    ids = load_items(path)[1].product_ids
    recognizer = ReleasedRecognizer.load(path, load_image_backbone(encoders_of(path).image, home.root / "cache"))
    answers = recognizer.see(np.stack([pixels for _, pixels in asked]), top=5).recognized or []
    lost = sorted({product_id for (product_id, _), answer in zip(asked, answers, strict=True) if product_id not in [ids[row] for row in answer.product_rows]})
    return GateCheck(
        name="own_images",
        passed=not lost,
        why=f"{len(asked)} images, asked about as frames, name their product among the first five" + (f" except {', '.join(lost)}" if lost else ""),
    )
