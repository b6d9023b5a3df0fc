"""A fit's or bundle's files for another set of products: every table that has a row a product gets its rows taken, and new ones neutral entries.

A new product scores by its content alone, as products do that no training slate showed: no id vector, no bias, no popularity, no neighbours.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from guidelens.errors import BundleError
from guidelens.inference.guide_files import HEADER, ITEMS
from guidelens.inference.popularity import POPULARITY
from guidelens.inference.search_texts import build_text_index
from guidelens.models.baselines.fallback import TENSORS as FALLBACK
from guidelens.models.complements import COMPLEMENTS

# Letters: P = products of the new set, K = entries a product.

Rows = NDArray[np.int64]
_MEDIA = "media"
_GUIDE = "guide.safetensors"
_BY_PRODUCT = ("tower.ids.weight", "bias")
_KNOWN = frozenset(
    {
        *(ITEMS, POPULARITY, HEADER, COMPLEMENTS, FALLBACK, _GUIDE, _MEDIA, "fit.json", "text_index"),
        *("complements.json", "fallback.json", "rules.json", "held_back.parquet", "manifest.json", "encoder.onnx"),
        *("recognizer.json", "recognizer.safetensors", "tuned", "index.usearch", "index.json"),
    }
)
"""What a bundle may hold beside what callers say they change: files with a row a product that nobody changes would answer with other products."""


def with_rows(folder: Path, rows_P: Rows, items: pl.DataFrame, others: frozenset[str] = frozenset()) -> None:
    """Rewrites all of a folder's files but the recognizer's and the vector index.

    Args:
        rows_P: of each product its row until now, -1 for one that is new.
        items: the item table of the new set, in its order.
        others: names in the folder that the caller changes.

    Raises:
        BundleError: the folder holds what neither this nor the caller knows.
    """
    unknown = sorted({path.name for path in folder.iterdir()} - _KNOWN - others)
    if unknown:
        raise BundleError(f"{folder} holds {', '.join(unknown)}, whose products this GuideLens cannot change; train and release again")
    items.write_parquet(folder / ITEMS)
    build_text_index(items).save(folder / "text_index")
    _json_file(folder / "fit.json", lambda facts: facts | {"num_products": len(rows_P)})
    _json_file(folder / POPULARITY, lambda counts: {name: _taken(np.array(values), rows_P, 0).tolist() for name, values in counts.items()})
    _json_file(folder / HEADER, lambda header: header | {"spec": header["spec"] | {"num_products": len(rows_P)}})
    _tensors(folder / _GUIDE, lambda name, tensor: _taken(tensor, rows_P, 0) if name in _BY_PRODUCT else tensor)
    _partners(folder / COMPLEMENTS, rows_P)
    _fallback(folder / FALLBACK, rows_P)
    _media(folder / _MEDIA, rows_P)


def _taken(values: NDArray[Any], rows_P: Rows, new: float | NDArray[Any]) -> NDArray[Any]:
    """The values of each product, `new` for new ones."""
    taken = values[rows_P]
    taken[rows_P < 0] = new
    return taken


def _renumbered(numbers: NDArray[Any], rows_P: Rows, num_before: int) -> NDArray[np.int32]:
    """Rows that entries name, as they are numbered in the new set; -1 for products that left, and for -1."""
    new_of = np.full(num_before + 1, -1, dtype=np.int32)
    kept = np.flatnonzero(rows_P >= 0)
    new_of[rows_P[kept]] = kept
    renumbered: NDArray[np.int32] = new_of[numbers]
    return renumbered


def _json_file(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    if path.exists():
        path.write_text(json.dumps(change(json.loads(path.read_bytes())), indent=1) + "\n")


def _tensors(path: Path, change: Callable[[str, NDArray[Any]], NDArray[Any]]) -> None:
    if path.exists():
        save_file({name: np.ascontiguousarray(change(name, tensor)) for name, tensor in load_file(path).items()}, path)


def _partners(path: Path, rows_P: Rows) -> None:
    """What goes with what: partners that left leave a gap that readers skip."""
    if not path.exists():
        return
    found = load_file(path)
    rows_PK = _renumbered(_taken(found["rows"], rows_P, -1), rows_P, len(found["rows"]))
    lifts_PK = np.where(rows_PK >= 0, _taken(found["log_lift"], rows_P, 0), 0).astype(np.float32)
    save_file({**found, "rows": rows_PK, "log_lift": lifts_PK}, path)


def _fallback(path: Path, rows_P: Rows) -> None:
    """Neighbours that left become product 0 at weight 0, as the end of a short list is. What is learned of no new product is that of an average one, or nothing."""
    if not path.exists():
        return
    found = load_file(path)
    num_before = len(found["popularity"])
    for name in [name.removesuffix(".products") for name in found if name.endswith(".products")]:
        products_PK = _renumbered(_taken(found[f"{name}.products"], rows_P, 0), rows_P, num_before)
        weights_PK = np.where(products_PK >= 0, _taken(found[f"{name}.weights"], rows_P, 0), 0)
        found |= {f"{name}.products": np.maximum(products_PK, 0), f"{name}.weights": weights_PK.astype(np.float32)}
    found |= {name: _taken(found[name], rows_P, 0) for name in ("popularity", "counts", "als.vectors", "ncf.taken") if name in found}
    if "ncf.offered" in found:
        found["ncf.offered"] = _taken(found["ncf.offered"], rows_P, found["ncf.offered"].mean(axis=0))
    if "user_knn.columns" in found:
        columns = _renumbered(found["user_knn.columns"], rows_P, num_before)
        found |= {f"user_knn.{name}": found[f"user_knn.{name}"][columns >= 0] for name in ("rows", "weights")}
        found |= {"user_knn.columns": columns[columns >= 0], "user_knn.rarity": _taken(found["user_knn.rarity"], rows_P, 1)}
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in found.items()}, path)


def _media(folder: Path, rows_P: Rows) -> None:
    """Pictures and models are named by row."""
    if not folder.exists():
        return
    before = folder.rename(folder.with_name(f".{_MEDIA}-before"))
    folder.mkdir()
    for row, old in enumerate(rows_P.tolist()):
        for suffix in (".jpg", ".glb"):
            if old >= 0 and (before / f"{old}{suffix}").exists():
                (before / f"{old}{suffix}").rename(folder / f"{row}{suffix}")
    shutil.rmtree(before)
