"""Learns how words, photo, crowd and shopper are weighed in search: plain weights, gates between the modalities, and a network over all.

Each starts from the prior weights and is pulled back to them; held-back queries choose. The gain of each modality over words alone is
measured in the same run, by learning without it.
"""

# Letters: Q = queries, K = candidates, F = features, C = context, M = modalities, H = hidden.

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as fn

from guidelens.inference.search.engine import SearchEngine, answer_chance
from guidelens.inference.search.lexicon import Lexicon
from guidelens.inference.search.messages import SearchInput
from guidelens.inference.search.weighing import CONTEXT, FEATURES, MODALITIES, PRIOR, Answering, Kind, Weighing, WeighingHeader, modality_of_feature
from guidelens.schemas.search import SearchFilters
from guidelens.training.search_rows import JudgedQuery, Source, foreign_words, held_back

CHOOSE_SHARE = 0.4
_HIDDEN, _STEPS, _RATE = 16, 300, 0.03
_PULL_FEATURE, _PULL_MODALITY, _PULL_OTHER = 0.3, 0.003, 0.01
_MARGIN = 0.002
"""Of reciprocal rank, by which a larger fusion must beat plain weights."""
_MAX_PLACES = 100
_FOREIGN_SHARE = 0.05
_THRESHOLDS = (0.5, 0.7)
SUBSETS: dict[str, tuple[str, ...]] = {
    "text": ("text",),
    "text_image": ("text", "image"),
    "text_crowd": ("text", "crowd"),
    "text_shopper": ("text", "shopper"),
    "all": tuple(MODALITIES),
}


class _Padded:
    """(Q, K, F) features, (Q, C) context, (Q, K) wanted, places and what is there, (Q,) weights by which each source counts as much."""

    def __init__(self, queries: Sequence[JudgedQuery], modalities: Sequence[str] = tuple(MODALITIES)) -> None:
        num, most = len(queries), max(len(query.wanted_K) for query in queries)
        kept_F = np.isin(modality_of_feature(), [list(MODALITIES).index(name) for name in modalities])
        features, wanted = np.zeros((num, most, len(FEATURES)), np.float32), np.zeros((num, most), np.float32)
        there, places = np.zeros((num, most), np.bool_), np.zeros((num, most), np.int64)
        for at, query in enumerate(queries):
            size = len(query.wanted_K)
            features[at, :size], wanted[at, :size], there[at, :size] = query.features_KF * kept_F, query.wanted_K, True
            places[at, :size] = np.minimum(query.place_K, _MAX_PLACES - 1)
        sources = [query.source for query in queries]
        self.features, self.wanted, self.there, self.places = (torch.from_numpy(each) for each in (features, wanted, there, places))
        self.context = torch.from_numpy(np.stack([query.context_C for query in queries]))
        self.is_log = torch.tensor([source == "log" for source in sources])
        self.weight = torch.tensor([1 / sources.count(source) for source in sources])


class _Fusion(nn.Module):
    """One way to weigh; equal to the prior weights before it learns."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.kind: Kind = kind
        self.register_buffer("prior_F", torch.tensor([PRIOR[name] for name in FEATURES]))
        self.register_buffer("modality_F", torch.from_numpy(modality_of_feature()))
        self.feature_F = nn.Parameter(torch.zeros(len(FEATURES)))
        self.modality_M = nn.Parameter(torch.zeros(len(MODALITIES)))
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.place_P = nn.Parameter(torch.zeros(_MAX_PLACES))
        generator = torch.Generator().manual_seed(0)
        self.gates_CM = nn.Parameter(torch.zeros(len(CONTEXT), len(MODALITIES)))
        self.gate_bias_M = nn.Parameter(torch.zeros(len(MODALITIES)))
        self.hidden = nn.Parameter(0.3 * torch.randn(len(FEATURES) + len(CONTEXT), _HIDDEN, generator=generator))
        self.bias_H = nn.Parameter(torch.zeros(_HIDDEN))
        self.out_H = nn.Parameter(torch.zeros(_HIDDEN))

    def weights(self) -> Tensor:
        prior: Tensor = self.prior_F  # type: ignore[assignment]
        modality: Tensor = self.modality_F  # type: ignore[assignment]
        return prior * torch.exp(self.feature_F + self.modality_M[modality])

    def forward(self, features_QKF: Tensor, context_QC: Tensor) -> Tensor:
        weights_F = self.weights()
        if self.kind == "gated":
            modality: Tensor = self.modality_F  # type: ignore[assignment]
            gates_QM = torch.softmax(context_QC @ self.gates_CM + self.gate_bias_M, dim=-1) * len(MODALITIES)
            return (features_QKF * (weights_F * gates_QM[:, modality])[:, None]).sum(dim=-1)
        scores_QK = features_QKF @ weights_F
        if self.kind == "concat":
            joined = torch.cat([features_QKF, context_QC[:, None].expand(-1, features_QKF.shape[1], -1)], dim=-1)
            scores_QK = scores_QK + torch.relu(joined @ self.hidden + self.bias_H) @ self.out_H
        return scores_QK

    def pull(self) -> Tensor:
        """Back to the prior."""
        other = sum((each.square().sum() for each in (self.gates_CM, self.gate_bias_M, self.out_H, self.place_P)), torch.zeros(()))
        return _PULL_FEATURE * self.feature_F.square().sum() + _PULL_MODALITY * self.modality_M.square().sum() + _PULL_OTHER * other

    @torch.no_grad()
    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """As Weighing reads them."""
        found = {"weights": self.weights()}
        if self.kind == "concat":
            found |= {"hidden": self.hidden, "bias": self.bias_H, "out": self.out_H}
        if self.kind == "gated":
            found |= {"gates": self.gates_CM, "bias": self.gate_bias_M}
        return {name: tensor.detach().numpy().astype(np.float32) for name, tensor in found.items()}


def learn(engine: SearchEngine, queries: Sequence[JudgedQuery], reported: Sequence[JudgedQuery], lexicon: Lexicon) -> Weighing:
    """The fusion that ranks held-back queries best, with the gains of modalities on `reported` in its header, and the shop's answering threshold.

    The prior weights are kept where there is too little to learn from.
    """
    fit, chosen_by = ([query for query in queries if held_back(query, CHOOSE_SHARE) is is_held] for is_held in (False, True))
    answering = _answering(engine, lexicon)
    if not fit or not chosen_by:
        return Weighing(WeighingHeader(answering=answering))
    fitted = {kind: _fitted(kind, fit) for kind in ("weighted", "gated", "concat")}
    prior = _Fusion("weighted")
    validation = {"prior": reciprocal_rank(prior, chosen_by)} | {kind: reciprocal_rank(fusion, chosen_by) for kind, fusion in fitted.items()}
    best: Kind = "weighted"
    for kind in ("gated", "concat"):
        if validation[kind] > max(validation["weighted"] + _MARGIN, validation[best]):
            best = kind
    gains = {name: reciprocal_rank(_fitted(best, fit, modalities), reported, modalities) for name, modalities in SUBSETS.items()} if reported else {}
    chosen = prior if validation["prior"] > validation[best] else fitted[best]
    header = WeighingHeader(kind=chosen.kind, answering=answering, validation=validation, gains=gains, queries=len(queries))
    return Weighing(header, chosen.tensors())


def _fitted(kind: Kind, queries: Sequence[JudgedQuery], modalities: Sequence[str] = tuple(MODALITIES)) -> _Fusion:
    torch.manual_seed(0)
    fusion, rows = _Fusion(kind), _Padded(queries, modalities)
    optimizer = torch.optim.Adam(fusion.parameters(), lr=_RATE)
    for _ in range(_STEPS):
        scores_QK = fusion.scale.exp() * fusion(rows.features, rows.context) + fusion.place_P[rows.places] * rows.is_log[:, None]
        log_p_QK = fn.log_softmax(scores_QK.masked_fill(~rows.there, -1e9), dim=1)
        loss = -(rows.weight * (rows.wanted * log_p_QK).sum(dim=1)).sum() / rows.weight.sum() + fusion.pull()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return fusion


@torch.no_grad()
def reciprocal_rank(fusion: _Fusion, queries: Sequence[JudgedQuery], modalities: Sequence[str] = tuple(MODALITIES)) -> float:
    """Mean over sources of the mean reciprocal rank of the first product that is wanted; ties count against it."""
    rows = _Padded(queries, modalities)
    scores_QK = fusion(rows.features, rows.context).masked_fill(~rows.there, -torch.inf)
    best_Q = scores_QK.masked_fill(rows.wanted <= 0, -torch.inf).max(dim=1).values
    rank_Q = 1 + ((scores_QK >= best_Q[:, None]) & (rows.wanted <= 0)).sum(dim=1)
    of: dict[Source, list[float]] = {}
    for query, rank in zip(queries, rank_Q.tolist(), strict=True):
        of.setdefault(query.source, []).append(1 / rank)
    return float(np.mean([np.mean(each) for each in of.values()]))


def _answering(engine: SearchEngine, lexicon: Lexicon) -> Answering:
    """The threshold below which nothing is answered: so high that few names of what this shop does not have pass it, within bounds."""
    standard = Answering()
    chances = [answer_chance(standard, engine.evidence(SearchInput(word, SearchFilters(), 1, 0)).features_NF) for word in foreign_words(engine, lexicon)]
    if not chances:
        return standard
    return standard.model_copy(update={"threshold": float(np.clip(np.quantile(chances, 1 - _FOREIGN_SHARE), *_THRESHOLDS))})
