"""What goes with what: complements and outfits across categories, from what shoppers engage with beside a product.

The log of how much more often b is engaged with beside a than its popularity says, between categories and between products,
each shrunk towards the wider one (shrunken pointwise mutual information), and a low-rank compatibility of content for what the
counts leave open, so that products nobody has met yet find partners. Directed: what follows a chair need not lead to one.
A ranker that likes to show lamps beside chairs leaves its mark in these counts, as in any co-purchase statistic.
"""

# Letters: N = products, P = pairs, C = categories, A = anchors, X = size of content, R = rank, K = partners kept.

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor

from guidelens.data.examples import Examples
from guidelens.errors import BundleError
from guidelens.models.engaged_pairs import Floats, Ints, Pairs, category_numbers, engaged_pairs
from guidelens.models.items import Catalogue, Reducer, normalized
from guidelens.schemas.base import Frozen
from guidelens.schemas.ids import sub_seed

COMPLEMENTS, COMPLEMENTS_HEADER = "complements.safetensors", "complements.json"
NUM_PARTNERS = 20
MIN_PAIRS = 20
"""Fewer engagements beside a product of another category than this say nothing about what goes with what."""
POPULARITY_SHARE = 0.1
"""Partners are ordered by log lift and this much of log popularity: of two that go as well, the one people like."""
RANK = 8
MAX_COLUMNS = 4096
_PASSES = 60


class ComplementSettings(Frozen):
    """reverse: what a pair engaged with the other way round counts. category, pair: engagements that evidence must outweigh.

    content: whether likeness of content counts. decay: penalty of the low-rank part's weights; None leaves that part out.
    """

    reverse: float
    category: float
    pair: float
    content: bool = False
    decay: float | None = None


class ComplementsHeader(Frozen):
    """complements.json: what was chosen on validation, and how many pairs were counted in training and validation."""

    schema_version: int = 1
    settings: ComplementSettings
    train_pairs: int
    val_pairs: int


@dataclass(frozen=True)
class Lifts:
    """log_category_CC: log lift of one category beside another. anchor_P, partner_P, log_pair_P: what pairs lift beyond their categories."""

    category_N: Ints
    log_category_CC: Floats
    anchor_P: Ints
    partner_P: Ints
    log_pair_P: Floats

    @classmethod
    def of(cls, pairs: Pairs, category_N: Ints, popularity_N: Floats, settings: ComplementSettings) -> Self:
        """Args:
        popularity_N: shares of engagement, summing to 1.
        """
        num, num_categories = len(category_N), int(category_N.max(initial=0)) + 1
        share_C = np.bincount(category_N, weights=popularity_N, minlength=num_categories)
        anchored_N = np.bincount(pairs.anchor, weights=pairs.weight, minlength=num)
        anchored_C = np.bincount(category_N, weights=anchored_N, minlength=num_categories)
        got_CC = np.zeros((num_categories, num_categories))
        np.add.at(got_CC, (category_N[pairs.anchor], category_N[pairs.partner]), pairs.weight)
        due_CC = anchored_C[:, None] * share_C[None] / np.maximum(1 - share_C[:, None], 1e-9)
        both = got_CC + settings.reverse * got_CC.T, due_CC + settings.reverse * due_CC.T
        log_category_CC = np.log((both[0] + settings.category) / (both[1] + settings.category))
        keys_P, pair_of = np.unique(pairs.anchor * num + pairs.partner, return_inverse=True)
        anchor_P, partner_P = keys_P // num, keys_P % num
        got_P = np.bincount(pair_of, weights=pairs.weight, minlength=len(keys_P))
        due_P = anchored_N[anchor_P] * popularity_N[partner_P] / np.maximum(1 - share_C[category_N[anchor_P]], 1e-9)
        due_P = due_P * np.exp(log_category_CC[category_N[anchor_P], category_N[partner_P]])
        return cls(category_N, log_category_CC, anchor_P, partner_P, np.log((got_P + settings.pair) / (due_P + settings.pair)))

    def of_anchors(self, anchors: Ints) -> Floats:
        """(A, N) log lift of every product beside each of some different anchors; a pair never seen has its categories'."""
        lift_AN: Floats = self.log_category_CC[self.category_N[anchors]][:, self.category_N]
        place_N = np.full(len(self.category_N), -1)
        place_N[anchors] = np.arange(len(anchors))
        mine = place_N[self.anchor_P] >= 0
        lift_AN[place_N[self.anchor_P[mine]], self.partner_P[mine]] += self.log_pair_P[mine]
        return lift_AN


class Compatibility(NamedTuple):
    """(N, X + R) each: a product's side as an anchor and as a partner; their inner product is a log lift."""

    lead_NR: NDArray[np.float32]
    follow_NR: NDArray[np.float32]

    def of_anchors(self, anchors: Ints) -> Floats:
        """(A, N)"""
        lifts: Floats = (self.lead_NR[anchors] @ self.follow_NR.T).astype(np.float64)
        return lifts


def fit_compatibility(pairs: Pairs, lifts: Lifts, log_popularity_N: Floats, content_NX: NDArray[np.float32], decay: float | None, seed: int) -> Compatibility:
    """What of content makes the partners of `pairs` likeliest among products of other categories, around what `lifts` says.

    A weight for the likeness of images and one for that of texts (the halves of `content_NX`), and with a decay two low-rank maps
    that start equal and may grow apart (a direction). A fixed number of full passes of Adam; above MAX_COLUMNS products each
    pass holds the partners against a sample of them.
    """
    rng = np.random.default_rng(sub_seed(seed, "complements"))
    anchors, anchor_of = np.unique(pairs.anchor, return_inverse=True)
    content, weight = torch.from_numpy(content_NX), torch.from_numpy((pairs.weight / pairs.weight.sum()).astype(np.float32))
    maps = _Maps.start(content_NX.shape[1], 0 if decay is None else RANK, rng)
    optimizer = torch.optim.Adam(maps, lr=0.02)
    for _ in range(_PASSES):
        columns = _columns(pairs.partner, len(content), rng)
        place = torch.from_numpy(np.searchsorted(columns, pairs.partner))
        offset_AC = lifts.of_anchors(anchors)[:, columns] + log_popularity_N[columns]
        offset_AC[lifts.category_N[anchors][:, None] == lifts.category_N[columns][None]] = -np.inf
        lead, follow = maps.lead(content[torch.from_numpy(anchors)]), maps.follow(content[torch.from_numpy(columns)])
        log_p_AC = torch.log_softmax(torch.from_numpy(offset_AC.astype(np.float32)) + lead @ follow.T, dim=1)
        loss = -(weight * log_p_AC[torch.from_numpy(anchor_of), place]).sum() + (decay or 0.0) * maps.size()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        return Compatibility(maps.lead(content).numpy(), maps.follow(content).numpy())


class _Maps(NamedTuple):
    """alike_2: roots of the weights of the likeness of images and texts. shared_XR, apart_XR: the low-rank maps' sum and difference."""

    alike_2: Tensor
    shared_XR: Tensor
    apart_XR: Tensor

    @classmethod
    def start(cls, size: int, rank: int, rng: np.random.Generator) -> Self:
        shared = torch.from_numpy(rng.normal(scale=0.1 / size**0.5, size=(size, rank)).astype(np.float32))
        return cls(torch.full((2,), 0.3).requires_grad_(), shared.requires_grad_(), torch.zeros(size, rank).requires_grad_())

    def lead(self, content: Tensor) -> Tensor:
        return torch.cat([self._alike(content), content @ (self.shared_XR + self.apart_XR)], dim=1)

    def follow(self, content: Tensor) -> Tensor:
        return torch.cat([self._alike(content), content @ (self.shared_XR - self.apart_XR)], dim=1)

    def _alike(self, content: Tensor) -> Tensor:
        return content * self.alike_2.repeat_interleave(content.shape[1] // 2)

    def size(self) -> Tensor:
        return self.shared_XR.square().sum() + 2 * self.apart_XR.square().sum()


def _columns(partners: Ints, num: int, rng: np.random.Generator) -> Ints:
    """Sorted products that a pass compares: all, or the partners and a sample."""
    if num <= MAX_COLUMNS:
        return np.arange(num)
    return np.unique(np.concatenate([partners, rng.choice(num, MAX_COLUMNS, replace=False)]))


def content_of(catalogue: Catalogue) -> NDArray[np.float32]:
    """(N, X) image and text side by side, each along the catalogue's own principal axes and of unit length; zeros without an image."""
    parts: list[Tensor] = []
    for embeddings_NE, there_N in ((catalogue.image_NE, catalogue.has_image_N), (catalogue.text_NE, np.ones(len(catalogue), dtype=np.bool_))):
        reducer = Reducer(embeddings_NE.shape[1])
        reducer.fit(embeddings_NE[there_N])
        parts.append(normalized(reducer(torch.from_numpy(embeddings_NE))) * torch.from_numpy(there_N)[:, None])
    side_by_side: NDArray[np.float32] = torch.cat(parts, dim=1).numpy()
    return side_by_side


@dataclass(frozen=True)
class ComplementModel:
    """Scores what goes with what; `partners` is what a bundle keeps of it."""

    lifts: Lifts
    compatibility: Compatibility | None
    log_popularity_N: Floats

    @classmethod
    def fit(cls, pairs: Pairs, category_N: Ints, popularity_N: Floats, content_NX: NDArray[np.float32], settings: ComplementSettings, seed: int) -> Self:
        """popularity_N: engagements of each product, by itself."""
        share_N = (popularity_N + settings.pair) / (popularity_N + settings.pair).sum()
        lifts, log_share_N = Lifts.of(pairs, category_N, share_N, settings), np.log(share_N)
        content = fit_compatibility(pairs, lifts, log_share_N, content_NX, settings.decay, seed) if settings.content else None
        return cls(lifts, content, log_share_N)

    def log_lift(self, anchors: Ints) -> Floats:
        """(A, N) log of how much likelier each product is beside each (different) anchor; -inf within its category."""
        lift_AN = self.lifts.of_anchors(anchors)
        if self.compatibility is not None:
            lift_AN = lift_AN + self.compatibility.of_anchors(anchors)
        category_N = self.lifts.category_N
        return np.where(category_N[anchors][:, None] == category_N[None], -np.inf, lift_AN)

    def log_likelihoods(self, pairs: Pairs) -> Floats:
        """(P,) log chance of each pair's partner among all products of other categories."""
        anchors, anchor_of = np.unique(pairs.anchor, return_inverse=True)
        logits_AN = self.log_lift(anchors) + self.log_popularity_N
        top_A1 = logits_AN.max(axis=1, keepdims=True)
        log_p_AN: Floats = logits_AN - top_A1 - np.log(np.exp(logits_AN - top_A1).sum(axis=1, keepdims=True))
        return log_p_AN[anchor_of, pairs.partner]

    def scores(self, anchors: Ints) -> Floats:
        """(A, N) what partners are ordered by."""
        return self.log_lift(anchors) + POPULARITY_SHARE * self.log_popularity_N

    def partners(self, num: int = NUM_PARTNERS, chunk: int = 512) -> "Partners":
        """The best partners of every product; only those whose lift is above 1."""
        num_products = len(self.log_popularity_N)
        rows_NK, lifts_NK = np.full((num_products, num), -1, dtype=np.int32), np.zeros((num_products, num), dtype=np.float32)
        for start in range(0, num_products, chunk):
            anchors = np.arange(start, min(start + chunk, num_products))
            lift_AN = self.log_lift(anchors)
            score_AN = np.where(lift_AN > 0, lift_AN + POPULARITY_SHARE * self.log_popularity_N, -np.inf)
            best_AK = np.argsort(-score_AN, axis=1, kind="stable")[:, :num]
            kept_AK = np.isfinite(np.take_along_axis(score_AN, best_AK, axis=1))
            width = best_AK.shape[1]
            rows_NK[anchors, :width] = np.where(kept_AK, best_AK, -1)
            lifts_NK[anchors, :width] = np.where(kept_AK, np.take_along_axis(lift_AN, best_AK, axis=1), 0.0)
        return Partners(rows_NK, lifts_NK)


@dataclass(frozen=True)
class Partners:
    """rows_NK: product rows that go with each product, best first, -1 past the end; log_lift_NK: how well, above 0."""

    rows_NK: NDArray[np.int32]
    log_lift_NK: NDArray[np.float32]

    def of(self, row: int) -> NDArray[np.int32]:
        """Rows that go with one product; none for -1."""
        found = self.rows_NK[row] if row >= 0 else np.zeros(0, dtype=np.int32)
        return found[found >= 0]

    def save(self, folder: Path, header: ComplementsHeader) -> None:
        save_file({"rows": self.rows_NK, "log_lift": self.log_lift_NK}, folder / COMPLEMENTS)
        (folder / COMPLEMENTS_HEADER).write_text(header.model_dump_json(indent=1))

    @classmethod
    def load(cls, folder: Path, num_products: int) -> Self | None:
        """From a fit or a bundle; None where it has none.

        Raises:
            BundleError: it is of another catalogue.
        """
        path = folder / COMPLEMENTS
        if not path.exists():
            return None
        found = load_file(path)
        rows_NK = found["rows"]
        if len(rows_NK) != num_products or rows_NK.max(initial=-1) >= num_products:
            raise BundleError(f"{path}: must be of the {num_products} products of the item table, got {len(rows_NK)}; build the release again")
        return cls(rows_NK, found["log_lift"])


def fit_complements(examples: Examples, catalogue: Catalogue, categories: Sequence[str], seed: int) -> tuple[ComplementModel, ComplementsHeader] | None:
    """The settings whose fit to the training rows makes the validation rows' pairs likeliest; None where there are too few pairs.

    The counts are chosen first; content joins them where it gains more than the gain's standard error. Without validation pairs
    the strongest shrinkage is kept.
    """
    train, val = examples.of("train"), examples.of("val")
    category_N = category_numbers(categories)
    pairs, held_out = engaged_pairs(train, category_N), engaged_pairs(val, category_N, co_engaged=0.0)
    if len(pairs.anchor) < MIN_PAIRS:
        return None
    popularity_N = np.bincount(train.slate_rows[(train.click > 0) & (train.slate_rows >= 0)], minlength=len(catalogue)).astype(np.float64)
    content_NX = content_of(catalogue)

    def fitted(option: ComplementSettings) -> tuple[ComplementModel, Floats]:
        model = ComplementModel.fit(pairs, category_N, popularity_N, content_NX, option, seed)
        return model, model.log_likelihoods(held_out)

    counts = [ComplementSettings(reverse=r, category=c, pair=p) for c, p, r in product((20.0, 5.0, 1.0), (20.0, 5.0), (1.0, 0.5, 0.0))]
    tried = [fitted(option) for option in counts]
    best = int(np.argmax([likely.sum() for _, likely in tried]))
    chosen, (model, likely) = counts[best], tried[best]
    for decay in (None, 0.1, 0.03, 0.01):
        richer = chosen.model_copy(update={"content": True, "decay": decay})
        other, other_likely = fitted(richer)
        if _surely_more(other_likely, likely):
            chosen, model, likely = richer, other, other_likely
    return model, ComplementsHeader(settings=chosen, train_pairs=len(pairs.anchor), val_pairs=len(held_out.anchor))


def _surely_more(ours_P: Floats, theirs_P: Floats) -> bool:
    """Whether the mean gain exceeds its own standard error."""
    gain_P = ours_P - theirs_P
    return len(gain_P) > 1 and float(gain_P.mean()) > float(gain_P.std(ddof=1)) / len(gain_P) ** 0.5
