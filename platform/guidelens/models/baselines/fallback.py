"""A classic recommender as a release carries it: what answers a request where the model cannot. Loaded and asked without torch."""

# Letters: N = products, S = parts of a hybrid.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from guidelens.config import Baseline
from guidelens.data.examples import Examples
from guidelens.errors import BundleError
from guidelens.models.baselines.hybrid import Hybrid
from guidelens.models.baselines.linear import Als
from guidelens.models.baselines.neighbours import UserKnn
from guidelens.models.baselines.neural import Ncf
from guidelens.models.baselines.popularity import Popularity
from guidelens.models.baselines.recommender import Neighbours, Recommender
from guidelens.models.baselines.requests import OnRequests, RequestReader
from guidelens.models.histories import Histories
from guidelens.schemas.base import Frozen

FALLBACK_SCHEMA_VERSION = 1
HEADER, TENSORS = "fallback.json", "fallback.safetensors"
_POPULARITY = "popularity"


class FallbackHeader(Frozen):
    """fallback.json. parts: of a hybrid, in their order, `popularity` first; the baseline itself otherwise.

    validation_ndcg_at_10: what it ranked validation clicks with, and popularity beside it; null where there were none.
    """

    schema_version: int = FALLBACK_SCHEMA_VERSION
    baseline: Baseline
    parts: tuple[str, ...]
    clicked_only: bool
    focus_repeats: int
    center: float = 0.0
    validation_ndcg_at_10: float | None = None
    popularity_ndcg_at_10: float | None = None


class Spoken(NamedTuple):
    """(N,) scores, and of which products the product in view speaks, and of which the visits."""

    scores: NDArray[np.float32]
    by_focus: NDArray[np.bool_]
    by_visits: NDArray[np.bool_]


@runtime_checkable
class Kept(Recommender, Protocol):
    """A recommender that a file can hold."""

    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """What the file keeps."""
        ...


_WHOLE: dict[str, type[UserKnn] | type[Als] | type[Ncf]] = {"user_knn": UserKnn, "als": Als, "ncf": Ncf}


@dataclass(frozen=True)
class Fallback:
    """A fitted baseline over one catalogue; those of products by products are cut to a few neighbours each."""

    header: FallbackHeader
    scorer: OnRequests

    @property
    def _parts(self) -> dict[str, Kept]:
        """What speaks of products, by name; popularity says the same to everybody."""
        found = self.scorer.recommender
        parts: Mapping[str, Recommender] = found.parts if isinstance(found, Hybrid) else {self.header.baseline: found}
        return {name: part for name, part in parts.items() if isinstance(part, Kept)}

    def answer(self, request: Examples) -> Spoken | None:
        """Scores of one request; None where nothing is known of it, or nothing that any product is known to go with."""
        past = self.scorer.reader.histories(request)
        focus = int(request.focus_row[0])
        visits = past.products[past.products != focus]
        by_focus, by_visits = self._spoken_of([focus] if focus >= 0 else []), self._spoken_of(np.unique(visits).tolist())
        if not by_focus.any() and not by_visits.any():
            return None
        return Spoken(self.scorer.product_scores(request)[0].astype(np.float32), by_focus, by_visits)

    def _spoken_of(self, products: Sequence[int]) -> NDArray[np.bool_]:
        spoken_N = np.zeros(len(self.scorer.popularity_N), dtype=np.bool_)
        for part in self._parts.values():
            if isinstance(part, Neighbours):
                rows_HK = part.products_NK[products]
                spoken_N[rows_HK[part.weights_NK[products] > 0]] = True
            else:
                spoken_N |= self._raised_by(part, products)
        return spoken_N

    def _raised_by(self, part: Recommender, products: Sequence[int]) -> NDArray[np.bool_]:
        """Products that score higher for these products than for nothing. One that nobody took in training says nothing: its weights are as they were drawn."""
        known = [product for product in products if self.scorer.popularity_N[product] > 0]
        asked, nothing = part.scores(Histories.of_lists([known, []], len(self.scorer.popularity_N)))
        raised_N: NDArray[np.bool_] = (asked > nothing) & (self.scorer.popularity_N > 0)
        raised_N[known] = False
        return raised_N

    def save(self, folder: Path) -> None:
        """Writes fallback.json and fallback.safetensors."""
        found = self.scorer.recommender
        tensors: dict[str, NDArray[Any]] = {"popularity": self.scorer.popularity_N.astype(np.float32)}
        for name, part in self._parts.items():
            tensors |= {f"{name}.{key}": value for key, value in part.tensors().items()}
        if isinstance(found, Hybrid):
            tensors |= {"weights": found.weights_S, "slopes": found.slopes_S, "counts": np.asarray(_counts(found), dtype=np.float32)}
        save_file(tensors, folder / TENSORS)
        (folder / HEADER).write_text(self.header.model_dump_json(indent=1))

    @classmethod
    def load(cls, folder: Path, product_ids: Sequence[str]) -> Self | None:
        """What `save` wrote; None where the folder holds none: of a shop without a log, or of a release that was made without one.

        Raises:
            BundleError: it cannot be read, or is of another catalogue.
        """
        path = folder / HEADER
        if not path.exists():
            return None
        try:
            header = FallbackHeader.model_validate_json(path.read_bytes())
            tensors = load_file(folder / TENSORS)
            recommender = _recommender(header, tensors, len(product_ids))
            popularity_N = tensors["popularity"]
        except (OSError, ValidationError, SafetensorError, KeyError) as error:
            raise BundleError(f"{path}: cannot be read: {error!r}; build the release again") from error
        if header.schema_version != FALLBACK_SCHEMA_VERSION or len(popularity_N) != len(product_ids):
            got = f"schema {header.schema_version} of {len(popularity_N)} products"
            raise BundleError(f"{path}: must be of schema {FALLBACK_SCHEMA_VERSION} and {len(product_ids)} products, got {got}; build the release again")
        reader = RequestReader.of(list(product_ids), clicked_only=header.clicked_only, focus_repeats=header.focus_repeats)
        return cls(header, OnRequests(recommender, reader, popularity_N))


def _counts(hybrid: Hybrid) -> NDArray[np.floating]:
    part = hybrid.parts[_POPULARITY]
    assert isinstance(part, Popularity), "a hybrid of requests has popularity among its parts"
    return part.counts_N


def _recommender(header: FallbackHeader, tensors: Mapping[str, NDArray[Any]], num_products: int) -> Recommender:
    def neighbours(name: str) -> Neighbours:
        return Neighbours.of_tensors({key: tensors[f"{name}.{key}"] for key in ("products", "weights", "decay")}, num_products, TENSORS)

    if header.baseline in _WHOLE:
        prefix = f"{header.baseline}."
        return _WHOLE[header.baseline].of_tensors({name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)})
    if header.baseline != "hybrid":
        return neighbours(header.baseline)
    parts: dict[str, Recommender] = {name: Popularity(tensors["counts"]) if name == _POPULARITY else neighbours(name) for name in header.parts}
    return Hybrid(parts, tensors["weights"], tensors["slopes"], header.center)
