"""Scores of a fitted guide model for many rows at once: what evaluation, the gate and the world's closed loop ask.

The same weights, inputs and formulas as serving (inference/fusion.py, inference/ranker.py); a test holds them equal.
"""

# Letters: R = rows, N = products, K = places of a slate, B = rows of a batch, S = MAX_STEPS, A = NUM_STEPS, D = width.

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from guidelens.data.examples import Examples, empty
from guidelens.inference.guide_files import GuideHeader, load_guide, load_items
from guidelens.models.guide import Encoded, GuideModel
from guidelens.models.heads import PairLogits, log_click_and_purchase
from guidelens.models.inputs import context_inputs, plan_inputs, slate_inputs
from guidelens.models.items import Catalogue, item_inputs
from guidelens.models.plans.asked import Asked
from guidelens.schemas.steps import MAX_STEPS, NUM_STEPS

NUM_RERANKED = 256
_CHUNK = 512
BELOW = -1e6
Floats = NDArray[np.float32]
Number = TypeVar("Number", bound=np.generic)


class SlateScores(NamedTuple):
    """(R, K) calibrated probabilities of a click and a purchase at the place shown, and predicted interest; NaN at padded places."""

    click: Floats
    purchase: Floats
    interest: Floats


class ScoreParts(NamedTuple):
    """(R, N) retrieval logits (far below for products that are not reranked), log p(click) and log p(purchase) of those that are, else 0."""

    retrieval: Floats
    click: Floats
    purchase: Floats


class GuideScorer:
    """A fitted model and its catalogue."""

    def __init__(self, model: GuideModel, header: GuideHeader, catalogue: Catalogue) -> None:
        self.model, self.header, self.catalogue = model, header, catalogue
        self.inputs = item_inputs(catalogue, model.image, model.text)
        self._asked: tuple[Examples, Tensor] | None = None
        with torch.no_grad():
            self.items_ND = model.items(self.inputs)

    @classmethod
    def load(cls, fit_dir: Path, weights: str = "guide") -> Self:
        """`weights`: "guide", or a control ("recommendation", "interest", "plan").

        Raises:
            NotFoundError: the fit has no such model.
        """
        folder = fit_dir if weights == "guide" else fit_dir / "controls"
        model, header = load_guide(folder, weights)
        return cls(model, header, load_items(fit_dir)[1])

    @torch.no_grad()
    def encode(self, examples: Examples) -> Encoded:
        """Context and intent of each row."""
        context = context_inputs(examples, self.catalogue, self.model.config.num_profile_buckets)
        frames, queries = self.model.reduced(_gathered(examples.frames, examples.frame_row), _gathered(examples.queries, examples.query_row))
        return self.model.encode(context, self.model.look(frames, queries, context), self.items_ND)

    def index_vectors(self) -> Floats:
        """(N, D + 1) whose inner product with `index_query` is the part of the retrieval logit that every shopper shares: intent x product + bias."""
        with torch.no_grad():
            vectors: Floats = torch.cat([self.items_ND / self.model.config.width**0.5, self.model.bias[:, None]], dim=1).numpy()
        return vectors

    def index_query(self, encoded: Encoded) -> Floats:
        """(D + 1,) of the first request of `encoded`."""
        return np.append(encoded.intent_BD[0].numpy(), np.float32(1))

    def index_queries(self, examples: Examples) -> Floats:
        """(R, D + 1) of many requests."""
        intents = [self.encode(part).intent_BD.numpy() for part in _chunks(examples)]
        found = np.concatenate(intents) if intents else np.zeros((0, self.model.config.width), np.float32)
        return np.concatenate([found, np.ones((len(found), 1), np.float32)], axis=1)

    def product_scores(self, examples: Examples) -> Floats:
        """(R, N) ranking score of every product for every row; only the order matters.

        Retrieval orders the catalogue; its first NUM_RERANKED are ordered by the blend that validation chose (`Blend`).
        """
        return np.concatenate([self._product_scores(part) for part in _chunks(examples)]) if len(examples) else np.zeros((0, len(self.catalogue)), np.float32)

    def _product_scores(self, examples: Examples) -> Floats:
        blend = self.header.blend
        if blend.click == 0 and blend.purchase == 0:
            with torch.no_grad():
                logits_BN: Floats = self.model.retrieval(self.encode(examples), self.inputs, self.items_ND).numpy()
            return logits_BN
        parts = self.score_parts(examples)
        scores_BN: Floats = parts.retrieval + blend.click * parts.click + blend.purchase * parts.purchase
        return scores_BN

    @torch.no_grad()
    def score_parts(self, examples: Examples) -> ScoreParts:
        """What the ranking score of every product is blended of; all rows at once."""
        encoded = self.encode(examples)
        logits_BN = self.model.retrieval(encoded, self.inputs, self.items_ND)
        num = min(NUM_RERANKED, logits_BN.shape[1])
        best = logits_BN.topk(num, dim=1)
        click, purchase, _ = self.chances(encoded, best.indices, best.values)
        behind_BN = logits_BN + BELOW if num < logits_BN.shape[1] else logits_BN
        nothing_BN = torch.zeros_like(logits_BN)
        parts = (behind_BN.scatter(1, best.indices, best.values), nothing_BN.scatter(1, best.indices, click), nothing_BN.scatter(1, best.indices, purchase))
        return ScoreParts(*(part.numpy() for part in parts))

    @torch.no_grad()
    def blended(self, encoded: Encoded, rows_BC: Tensor, retrieval_BC: Tensor) -> Tensor:
        """(B, C) ranking score of candidates whose retrieval logits are given."""
        blend = self.header.blend
        if blend.click == 0 and blend.purchase == 0:
            return retrieval_BC
        click, purchase, _ = self.chances(encoded, rows_BC, retrieval_BC)
        return retrieval_BC + blend.click * click + blend.purchase * purchase

    @torch.no_grad()
    def chances(self, encoded: Encoded, rows_BC: Tensor, retrieval_BC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, C) log p(click), log p(purchase) at a mean place as the heads say them (`probabilities` makes them reliable), and interest."""
        pairs = self.model.pairs(encoded, self.inputs, self.items_ND, rows_BC, retrieval_BC)
        click, purchase = log_click_and_purchase(pairs._replace(click=pairs.click + self.header.blend.position))
        return click, purchase, torch.sigmoid(pairs.interest)

    def probabilities(self, encoded: Encoded, rows_BC: Tensor, retrieval_BC: Tensor) -> tuple[Floats, Floats, Floats]:
        """(B, C) calibrated p(click) and p(purchase) at a mean place, and interest."""
        log_click, log_purchase, interest = self.chances(encoded, rows_BC, retrieval_BC)
        click, purchase = self.header.probabilities.of(log_click.exp().numpy(), log_purchase.exp().numpy())
        return click.astype(np.float32), purchase.astype(np.float32), interest.numpy()

    def slate_scores(self, examples: Examples, *, placed: bool = True, calibrated: bool = True) -> SlateScores:
        """Scores of what each row was shown. `placed`: count the place it was shown at, else a mean place (as in serving).

        `calibrated`: through the header's maps, else as the heads say them.
        """
        parts = [self._slate_scores(part, placed) for part in _chunks(examples)]
        shape = (0, examples.slate_rows.shape[1])
        found = SlateScores(*(np.concatenate([part[k] for part in parts]) if parts else np.zeros(shape, np.float32) for k in range(3)))
        if not calibrated:
            return found
        click, purchase = self.header.probabilities.of(found.click, found.purchase)
        return found._replace(click=click.astype(np.float32), purchase=purchase.astype(np.float32))

    def extra_scores(self, examples: Examples) -> dict[str, Floats]:
        """(R, K) of each task that the config added, in [0, 1], for what each row was shown; NaN at padded places."""
        parts = [self._extra_scores(part) for part in _chunks(examples)]
        nothing = np.zeros((0, examples.slate_rows.shape[1]), np.float32)
        return {name: np.concatenate([nothing, *(part[name] for part in parts)]) for name in self.model.spec.extra_tasks}

    @torch.no_grad()
    def _extra_scores(self, examples: Examples) -> dict[str, Floats]:
        rows_BK, pairs = self._slate_pairs(examples)
        padded = (rows_BK < 0).numpy()
        return {name: np.where(padded, np.float32(np.nan), torch.sigmoid(logits_BK).numpy()) for name, logits_BK in pairs.extra.items()}

    def _slate_pairs(self, examples: Examples) -> tuple[Tensor, PairLogits]:
        """(B, K) product rows of the slates, and what the heads say of them."""
        encoded, rows_BK = self.encode(examples), slate_inputs(examples).rows_RK
        retrieval_BK = self.model.retrieval(encoded, self.inputs, self.items_ND).gather(1, rows_BK.clamp_min(0))
        return rows_BK, self.model.pairs(encoded, self.inputs, self.items_ND, rows_BK, retrieval_BK)

    @torch.no_grad()
    def _slate_scores(self, examples: Examples, placed: bool) -> tuple[Floats, Floats, Floats]:
        rows_BK, pairs = self._slate_pairs(examples)
        place = self.model.heads.positions(rows_BK.shape[1]) if placed else self.header.blend.position
        click, purchase = log_click_and_purchase(pairs._replace(click=pairs.click + place))
        padded = (rows_BK < 0).numpy()
        click_BK, purchase_BK, interest_BK = (np.where(padded, np.nan, x.numpy()) for x in (click.exp(), purchase.exp(), torch.sigmoid(pairs.interest)))
        return click_BK, purchase_BK, interest_BK

    def step_chances(self, asked: Asked) -> Floats:
        """(B, NUM_STEPS) the model's policy over the next step, 0 where not allowed. Contexts are made once for rows that are asked about again and again.

        An outcome may be UNKNOWN_OUTCOME.
        """
        if self._asked is None or self._asked[0] is not asked.examples:
            self._asked = asked.examples, self._plan_contexts(asked.examples)
        context_BD = self._asked[1][torch.from_numpy(asked.rows.astype(np.int64))]
        parts = []
        for start in range(0, len(asked.rows), 4096):
            part = slice(start, start + 4096)
            so_far = (asked.steps[part], asked.outcomes[part], asked.view_ms[part], asked.gestures[part])
            parts.append(self.next_step(context_BD[part], *so_far, asked.length, asked.allowed[part]))
        return np.concatenate(parts) if parts else np.zeros((0, NUM_STEPS), np.float32)

    @torch.no_grad()
    def _plan_contexts(self, examples: Examples) -> Tensor:
        """(R, D) what conditions the decoder for each row."""
        contexts = [
            self.model.plan_context(self.encode(part), self.inputs, self.items_ND, torch.from_numpy(part.plan_row.astype(np.int64)))
            for part in _chunks(examples)
        ]
        return torch.cat(contexts) if contexts else torch.zeros(0, self.model.config.width)

    @torch.no_grad()
    def next_step(
        self,
        context_BD: Tensor,
        steps: NDArray[np.integer],
        outcomes: NDArray[np.integer],
        view_ms: NDArray[np.floating],
        gestures: NDArray[np.integer],
        length: int,
        allowed: NDArray[np.bool_],
    ) -> Floats:
        """`step_chances` for contexts already made: (B, D) of `plan_context`."""
        plan = plan_inputs(plan_so_far(steps, outcomes, view_ms, gestures, length), self.catalogue)
        places = torch.from_numpy(allowed)[:, None].expand(-1, MAX_STEPS, -1)
        log_p_BSA = self.model.decoder(context_BD, plan, places)
        p_BA: Floats = log_p_BSA[:, min(length, MAX_STEPS - 1)].exp().numpy() * allowed
        normed: Floats = p_BA / np.maximum(p_BA.sum(axis=1, keepdims=True), 1e-12)
        return normed


def plan_so_far(
    steps: NDArray[np.integer], outcomes: NDArray[np.integer], view_ms: NDArray[np.floating], gestures: NDArray[np.integer], length: int
) -> Examples:
    """Plans of `length` steps as rows that hold nothing else."""

    def padded(values: NDArray[Any], fill: float, like: NDArray[Number]) -> NDArray[Number]:
        out = np.full((len(values), MAX_STEPS), fill, dtype=like.dtype)
        out[:, :length] = values[:, :length]
        return out

    rows = empty(len(steps))
    return dataclasses.replace(
        rows,
        steps=padded(steps, -1, rows.steps),
        outcomes=padded(outcomes, -1, rows.outcomes),
        view_ms=padded(view_ms, 0, rows.view_ms),
        gestures=padded(gestures, 0, rows.gestures),
    )


def _gathered(embeddings: Floats, rows: NDArray[np.int32]) -> Tensor:
    if len(embeddings) == 0:
        return torch.zeros(len(rows), embeddings.shape[1])
    return torch.from_numpy(embeddings[np.maximum(rows, 0)])


def _chunks(examples: Examples) -> list[Examples]:
    return [examples.take(np.arange(start, min(start + _CHUNK, len(examples)))) for start in range(0, len(examples), _CHUNK)]
