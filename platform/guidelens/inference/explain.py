"""Why a product is recommended: by how much its lead falls when an input, or one past visit, is taken away.

Exact occlusion: the request is scored again without the input, through the masks by which the model knows missing inputs from
training. A lead is a product's ranking score less the mean score of a fixed sample of the catalogue, so that an input which
lifts everything alike explains nothing. Knows nothing of words.
"""

# Letters: V = variants of the request, C = products asked about, F = reference products, H = recent visits, I = inputs that are there.

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from guidelens.data.examples import Examples
from guidelens.inference.scorer import GuideScorer
from guidelens.models.guide import TOKENS, Encoded
from guidelens.models.inputs import AR_VALUES, ContextInputs, context_inputs
from guidelens.schemas.ids import sub_seed
from guidelens.schemas.packed import PROFILE_VALUES

Floats = NDArray[np.float32]
NUM_REFERENCE = 24
INPUTS = ("frame", "query", "focus", "visits", "behaviour", "ar", "profile")
"""What can be taken away: the frame, the query, the product in focus, all past visits, counts by window, AR use, the profile."""
EVERYTHING = "everything"


@dataclass(frozen=True)
class Explanation:
    """Of C products for one request, in nats of ranking score.

    lead_C: of the whole request. without_IC: the lead without each of `inputs`; direct_IC: what of that fall is the input's own
    additive term (likeness of frame, query and focus; habit), the rest went through the intent. visits_H: product rows of the visits;
    without_HC: the lead without each. stranger_C: the lead with nothing known at all: the product's general appeal.
    """

    inputs: tuple[str, ...]
    lead_C: Floats
    without_IC: Floats
    direct_IC: Floats
    visits_H: NDArray[np.int64]
    without_HC: Floats
    stranger_C: Floats

    def effects(self) -> Floats:
        """(I, C) by how much each input raised each lead; below 0 where it lowered it."""
        return self.lead_C - self.without_IC

    def visit_effects(self) -> Floats:
        """(H, C) the same of each visit by itself."""
        return self.lead_C - self.without_HC

    def with_lift(self, name: str, lift_C: Floats) -> Self:
        """With what an input adds to each score outside the model, and takes with it when it is taken away."""
        if name not in self.inputs:
            return self
        own_I1 = (np.array(self.inputs) == name)[:, None]
        return dataclasses.replace(
            self,
            lead_C=self.lead_C + lift_C,
            without_IC=self.without_IC + lift_C * ~own_I1,
            direct_IC=self.direct_IC + lift_C * own_I1,
            without_HC=self.without_HC + lift_C,
        )


class Explainer:
    """Explains what a guide model that learned to recommend does."""

    def __init__(self, scorer: GuideScorer) -> None:
        self.scorer = scorer
        num = len(scorer.catalogue)
        rng = np.random.default_rng(sub_seed(0, "explanations"))
        self.reference_F = np.sort(rng.choice(num, min(NUM_REFERENCE, num), replace=False)).astype(np.int64)

    def explain(self, request: Examples, rows_C: NDArray[np.integer]) -> Explanation:
        """Args:
        request: one row, as the request was encoded.
        rows_C: products to explain.
        """
        asked = self._asked(request)
        inputs = present(asked.context, self.scorer.model.sees)
        places = [int(place) for place in np.flatnonzero(asked.context.recent_rows_RH[0].numpy() >= 0)] if "visits" in inputs else []
        removals: list[tuple[str | int, ...]] = [*((name,) for name in inputs), *((place,) for place in places), (EVERYTHING,)]
        wanted = torch.from_numpy(np.concatenate([rows_C.astype(np.int64), self.reference_F]))
        variants = self._variants(asked, [(), *removals])
        leads_VC = self._leads(variants, wanted)
        num = len(inputs)
        direct_VC = self._direct(variants, 1 + num, wanted)
        return Explanation(
            inputs=inputs,
            lead_C=leads_VC[0],
            without_IC=leads_VC[1 : 1 + num],
            direct_IC=direct_VC[0] - direct_VC[1:],
            visits_H=asked.context.recent_rows_RH[0, places].numpy(),
            without_HC=leads_VC[1 + num : -1],
            stranger_C=leads_VC[-1],
        )

    def leads(self, request: Examples, removals: Sequence[tuple[str | int, ...]], rows_C: NDArray[np.integer]) -> Floats:
        """(V, C) leads of products with several inputs (names) or visits (places, newest first from 0) taken away at once."""
        wanted = torch.from_numpy(np.concatenate([rows_C.astype(np.int64), self.reference_F]))
        return self._leads(self._variants(self._asked(request), removals), wanted)

    def attention(self, request: Examples) -> dict[str, float]:
        """The fusion's weight of each input that is there: what attention, read as an explanation, would say.

        Windows and profile share a token, and so its weight. Empty where the fusion has no weights.
        """
        model, seen = self.scorer.model, []
        hook = model.fusion.register_forward_pre_hook(lambda _module, arguments: seen.append(arguments[:2]))
        try:
            self.scorer.encode(request)
        finally:
            hook.remove()
        weigh: Callable[[Tensor, Tensor], Tensor] | None = getattr(model.fusion, "weights", None)
        if weigh is None:
            return {}
        with torch.no_grad():
            weight_of = dict(zip(TOKENS, weigh(*seen[0])[0].tolist(), strict=True))
        return {name: weight_of[_TOKEN[name]] for name in present(self._asked(request).context, model.sees)}

    def _asked(self, request: Examples) -> Encoded:
        """The request as it stands, not encoded yet: its intent is empty."""
        model = self.scorer.model
        context = context_inputs(request, self.scorer.catalogue, model.config.num_profile_buckets)
        frames, queries = model.reduced(
            *(torch.from_numpy(_first(each, rows)) for each, rows in ((request.frames, request.frame_row), (request.queries, request.query_row)))
        )
        return Encoded(torch.zeros(1, 0), context, model.look(frames, queries, context))

    @torch.no_grad()
    def _variants(self, asked: Encoded, removals: Sequence[tuple[str | int, ...]]) -> Encoded:
        """The request without what each removal names, all of them encoded at once."""
        model, many = self.scorer.model, torch.zeros(len(removals), dtype=torch.int64)
        contexts = without(asked.context, removals)
        return model.encode(contexts, model.look(asked.looked.frame_BR[many], asked.looked.query_BR[many], contexts), self.scorer.items_ND)

    @torch.no_grad()
    def _leads(self, variants: Encoded, wanted: Tensor) -> Floats:
        scorer = self.scorer
        retrieval = scorer.model.retrieval(variants, scorer.inputs, scorer.items_ND, wanted)
        return self._over_reference(scorer.blended(variants, wanted[None].expand(len(retrieval), -1), retrieval))

    @torch.no_grad()
    def _direct(self, variants: Encoded, num: int, wanted: Tensor) -> Floats:
        """(num, C) leads at retrieval of the first variants, each with the intent of the first: only additive terms differ."""
        rows, context = torch.arange(num), variants.context
        looked = type(variants.looked)(*(each[rows] for each in variants.looked))
        same_intent = Encoded(variants.intent_BD[torch.zeros(num, dtype=torch.int64)], context.take(rows), looked)
        return self._over_reference(self.scorer.model.retrieval(same_intent, self.scorer.inputs, self.scorer.items_ND, wanted))

    def _over_reference(self, scores: Tensor) -> Floats:
        num = scores.shape[1] - len(self.reference_F)
        lead: Floats = (scores[:, :num] - scores[:, num:].mean(dim=1, keepdim=True)).numpy()
        return lead


def _first(embeddings: Floats, rows: NDArray[np.int32]) -> Floats:
    """(1, E) the embedding of a row's frame or query; zeros where it has none."""
    return embeddings[rows[:1]] if rows[0] >= 0 else np.zeros((1, embeddings.shape[1]), dtype=np.float32)


_TOKEN = {"frame": "frame", "query": "query", "focus": "focus", "visits": "x1_recent", "behaviour": "x1_windows", "ar": "x3", "profile": "x1_windows"}


def present(context: ContextInputs, sees: Sequence[bool]) -> tuple[str, ...]:
    """The inputs that one request (the first row) has and the model reads, in the order of INPUTS."""
    there = {
        "frame": bool(context.frame_R[0] >= 0),
        "query": bool(context.query_R[0] >= 0),
        "focus": bool(context.focus_R[0] >= 0),
        "visits": bool((context.recent_rows_RH[0] >= 0).any()),
        "behaviour": bool(context.known_R[0] and context.windows_RF[0].any()),
        "ar": bool(context.ar_RF[0].any() or context.recent_RHF[0][:, list(AR_VALUES)].any()),
        "profile": bool(context.profile_ids_RP[0].any() or context.profile_RF[0, : 2 * len(PROFILE_VALUES)].any()),
    }
    seen = dict(zip(TOKENS, sees, strict=True))
    return tuple(name for name in INPUTS if there[name] and seen[_TOKEN[name]])


def without(context: ContextInputs, removals: Sequence[tuple[str | int, ...]]) -> ContextInputs:
    """One request (the first row) as V rows, each without what its removal names."""
    copies = context.take(torch.zeros(len(removals), dtype=torch.int64))
    copies = dataclasses.replace(copies, **{field.name: getattr(copies, field.name).clone() for field in dataclasses.fields(copies)})
    for row, names in enumerate(removals):
        for name in names:
            _remove(copies, row, name)
    return copies


def _remove(context: ContextInputs, row: int, name: str | int) -> None:
    """Takes one input out of one row, as it looks to the model where it never was."""
    everything = name == EVERYTHING
    if isinstance(name, int):
        context.recent_rows_RH[row, name] = -1
        context.recent_RHF[row, name] = 0
    if everything or name == "frame":
        context.frame_R[row] = -1
    if everything or name == "query":
        context.query_R[row] = -1
    if everything or name == "focus":
        context.focus_R[row] = -1
    if everything or name == "visits":
        context.recent_rows_RH[row] = -1
        context.recent_RHF[row] = 0
    if everything or name == "behaviour":
        context.windows_RF[row] = 0
    if everything or name == "ar":
        context.ar_RF[row] = 0
        context.recent_RHF[row][:, list(AR_VALUES)] = 0
    if everything or name == "profile":
        context.profile_ids_RP[row] = 0
        context.profile_RF[row, : 2 * len(PROFILE_VALUES)] = 0
    if everything:
        context.known_R[row] = False
        context.profile_RF[row] = 0
