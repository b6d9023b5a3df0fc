"""Several recommenders as one by stacking (Wolpert 1992): a small network orders what they nominate, learned on events none of them was fitted on.

It knows more than a weighted sum: that a graph is to be trusted where its count is high, that attributes matter more after a rare product, that
two lists agree. It is learned in folds of shoppers; each fold's network is kept as it was when its held-out fold was likeliest, and all of them
vote. With few events that is soon, near the weighted sum it begins as.
"""

# Letters: R = histories, N = products, K = products a part nominates, P = parts, C = candidates of a history, F = features, E = events,
# T = candidates of all histories.

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as fn

from guidelens.errors import InputError
from guidelens.models.baselines.hybrid import log_shares
from guidelens.models.baselines.recommender import Recommender, Scores
from guidelens.models.histories import Histories
from guidelens.schemas.base import Frozen

_BLOCK_ROWS = 128
_SIGNAL_FLOOR = 1e-3
_MOST_BATCH_EVENTS, _LEAST_BATCH_EVENTS, _FEWEST_BATCHES = 256, 16, 20
_WARMUP_SHARE = 0.2
_NO_CANDIDATE = -1e9


class StackConfig(Frozen):
    """num_nominated: products a part puts forward for a history. folds: networks that vote. An epoch is one pass over all folds but one."""

    num_nominated: Annotated[int, Field(ge=1)] = 60
    folds: Annotated[int, Field(ge=2)] = 4
    hidden: Annotated[int, Field(ge=1)] = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    epochs: Annotated[int, Field(ge=1)] = 15
    learning_rate: Annotated[float, Field(gt=0)] = 1e-2
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2


@dataclass(frozen=True)
class Candidates:
    """What the parts nominate for R histories.

    Attributes:
        products_RC: rows of the catalogue, each once where `there_RC`, anything elsewhere.
        features_RCF: of each part its log share and the log of its place, of each signal its log; 0 where not `there_RC`.
    """

    products_RC: NDArray[np.int64]
    there_RC: NDArray[np.bool_]
    features_RCF: NDArray[np.float32]


@dataclass(frozen=True)
class Sources:
    """Parts nominate and are read; signals are read only, so that what says little by itself can still tell candidates apart.

    Signals are read as the log of their score, floored at `_SIGNAL_FLOOR`: absolute, where a part's log share is relative to its other products.
    """

    parts: dict[str, Recommender]
    signals: dict[str, Recommender]

    @property
    def even_weights(self) -> NDArray[np.float32]:
        """Weights of the features that make the mean of the parts' log shares."""
        return np.array([1 / len(self.parts), 0] * len(self.parts) + [0] * len(self.signals), dtype=np.float32)

    def candidates(self, histories: Histories, num_nominated: int) -> tuple[Candidates, Scores]:
        """The candidates, none of them taken before, and the parts' mean log shares (R, N) for all that nobody nominates."""
        scores_PRN = [np.array(log_shares(part, histories)) for part in self.parts.values()]
        mean_RN = np.zeros_like(scores_PRN[0])
        for scores_RN in scores_PRN:
            mean_RN += scores_RN / np.float32(len(scores_PRN))
        least_PR1 = [scores_RN.min(axis=1, keepdims=True) for scores_RN in scores_PRN]
        for scores_RN in scores_PRN:
            scores_RN[histories.rows, histories.products] = -np.inf
        named = [_highest(scores_RN, least_R1, num_nominated) for scores_RN, least_R1 in zip(scores_PRN, least_PR1, strict=True)]
        products_RC, there_RC = _distinct(np.concatenate(named, axis=1))
        features = []
        for scores_RN, least_R1 in zip(scores_PRN, least_PR1, strict=True):
            shares_RC = np.take_along_axis(scores_RN, products_RC, axis=1)
            features += [shares_RC, _log_places(shares_RC, there_RC & (shares_RC > least_R1), num_nominated)]
        for signal in self.signals.values():
            read_RC = np.take_along_axis(signal.scores(histories), products_RC, axis=1)
            features.append(np.log(np.maximum(read_RC, _SIGNAL_FLOOR)))
        features_RCF = np.stack(features, axis=2, dtype=np.float32)
        features_RCF[~there_RC] = 0
        return Candidates(products_RC, there_RC, features_RCF), mean_RN


def _highest(scores_RN: Scores, least_R1: Scores, num: int) -> NDArray[np.int64]:
    """(R, K) products with the highest scores, -1 for those that score no more than what the part knows nothing of."""
    num = min(num, scores_RN.shape[1])
    top_RK = np.argpartition(-scores_RN, num - 1, axis=1)[:, :num]
    return np.where(np.take_along_axis(scores_RN, top_RK, axis=1) > least_R1, top_RK, -1)


def _distinct(named: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Each row's products but -1, once each and in order, at its start; and which places hold one."""
    named = np.sort(named, axis=1)
    there = named >= 0
    there[:, 1:] &= named[:, 1:] != named[:, :-1]
    width = max(1, int(there.sum(axis=1).max(initial=0)))
    first = np.argsort(~there, axis=1, kind="stable")[:, :width]
    return np.maximum(np.take_along_axis(named, first, axis=1), 0), np.take_along_axis(there, first, axis=1)


def _log_places(scores_RC: Scores, known_RC: NDArray[np.bool_], num_nominated: int) -> Scores:
    """log1p of each candidate's place among those the part knows; that of twice `num_nominated` for places past it and for the unknown."""
    order_RC = np.argsort(np.where(known_RC, -scores_RC, np.inf), axis=1, kind="stable")
    places_RC = np.empty(order_RC.shape, dtype=np.float32)
    np.put_along_axis(places_RC, order_RC, np.arange(order_RC.shape[1], dtype=np.float32)[None, :], axis=1)
    return np.log1p(np.where(known_RC & (places_RC < num_nominated), places_RC, 2.0 * num_nominated)).astype(np.float32)


class CandidateNetwork(nn.Module):
    """A score for each candidate from its features and the length of the history: a weighted sum, plus what two hidden layers make of them."""

    mean_F: Tensor
    deviation_F: Tensor

    def __init__(self, features_EF: NDArray[np.float32], begin_F: NDArray[np.float32], config: StackConfig) -> None:
        """Begins as the features weighed by `begin_F`."""
        super().__init__()
        num = features_EF.shape[1]
        self.register_buffer("mean_F", torch.from_numpy(features_EF.mean(axis=0)))
        self.register_buffer("deviation_F", torch.from_numpy(features_EF.std(axis=0)).clamp_min(1e-3))
        self.weights_F, self.slopes_F = nn.Parameter(torch.from_numpy(begin_F) * self.deviation_F), nn.Parameter(torch.zeros(num))
        last = nn.Linear(config.hidden, 1)
        nn.init.zeros_(last.weight)
        self.hidden = nn.Sequential(
            nn.Linear(num + 1, config.hidden), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(config.hidden, config.hidden), nn.GELU(), last
        )

    def forward(self, features_RCF: Tensor, there_RC: Tensor, tilt_R: Tensor) -> Tensor:
        """(R, C) scores, a large negative one where there is no candidate."""
        x_TF = (features_RCF[there_RC].float() - self.mean_F) / self.deviation_F
        tilt_T1 = tilt_R[:, None].expand_as(there_RC)[there_RC][:, None]
        summed_T = x_TF @ self.weights_F + tilt_T1[:, 0] * (x_TF @ self.slopes_F)
        scores_T = summed_T + self.hidden(torch.cat([x_TF, tilt_T1], dim=1))[:, 0]
        return torch.full(there_RC.shape, _NO_CANDIDATE).masked_scatter(there_RC, scores_T)


@dataclass(frozen=True)
class _Events:
    """Validation events whose product was nominated: candidates, which one was taken, and the history's length."""

    features_ECF: Tensor
    there_EC: Tensor
    chosen_E: Tensor
    tilt_E: Tensor

    def take(self, rows: Tensor) -> "_Events":
        return _Events(self.features_ECF[rows], self.there_EC[rows], self.chosen_E[rows], self.tilt_E[rows])

    def __len__(self) -> int:
        return len(self.chosen_E)


@dataclass(frozen=True)
class Stacked:
    """Fitted sources and the networks that order their candidates.

    Attributes:
        center: mean log1p(length) of the validation histories.
        recall: share of the validation targets that some part nominated.
        held_out_nats: mean log-loss among the candidates, of targets nominated, each by the network that did not learn from it.
        epochs_kept: at which each network was likeliest on its held-out fold.
    """

    sources: Sources
    networks: tuple[CandidateNetwork, ...]
    num_nominated: int
    center: float
    recall: float
    held_out_nats: float
    epochs_kept: tuple[int, ...]

    @classmethod
    def fit(
        cls,
        parts: Mapping[str, Recommender],
        signals: Mapping[str, Recommender],
        histories: Histories,
        targets: Histories,
        config: StackConfig,
        *,
        seed: int,
        progress: Callable[[str], None] = lambda _: None,
    ) -> Self:
        """Networks for the parts as they are.

        Args:
            histories: (R,) what was known before.
            targets: (R,) what was taken next, one each; must not be among what parts and signals were fitted on.

        Raises:
            InputError: fewer targets than folds are nominated by any part.
        """
        sources, center = Sources(dict(parts), dict(signals)), float(np.log1p(histories.lengths).mean())
        events = _nominated_events(sources, histories, targets, config.num_nominated, center)
        if len(events) < config.folds:
            raise InputError(
                f"stacking {sorted(parts)} in {config.folds} folds needs as many validation events whose product a part nominates, "
                f"got {len(events)} of {len(histories)}; give more shoppers"
            )
        rng = np.random.Generator(np.random.Philox(key=seed))
        fold_E = torch.from_numpy(rng.permutation(np.arange(len(events)) % config.folds))
        fitted = []
        for fold in range(config.folds):
            apart = torch.nonzero(fold_E == fold).squeeze(1), torch.nonzero(fold_E != fold).squeeze(1)
            network, nats, epoch = _fitted(events.take(apart[1]), events.take(apart[0]), sources.even_weights, config, seed * config.folds + fold)
            progress(f"stacking, fold {fold + 1} of {config.folds}: {nats:.3f} nats an event held out, at epoch {epoch} of {config.epochs}")
            fitted.append((network, nats, epoch))
        networks, nats_of_folds, epochs = zip(*fitted, strict=True)
        recall = len(events) / max(1, len(targets.products))
        return cls(sources, networks, config.num_nominated, center, recall, float(np.mean(nats_of_folds)), epochs)

    @torch.no_grad()
    def scores(self, histories: Histories) -> Scores:
        """(R, N) mean of the networks' scores for candidates; below them all other products, by the parts' mean log share."""
        found = np.empty((len(histories), histories.num_products), dtype=np.float32)
        for rows in _blocks(len(histories)):
            asked = histories.take(rows)
            candidates, found[rows] = self.sources.candidates(asked, self.num_nominated)
            features_RCF, there_RC = torch.from_numpy(candidates.features_RCF), torch.from_numpy(candidates.there_RC)
            tilt_R = torch.from_numpy(np.log1p(asked.lengths) - self.center).float()
            voted_RC = torch.stack([network(features_RCF, there_RC, tilt_R) for network in self.networks]).mean(dim=0).numpy()
            lowest_R = np.where(candidates.there_RC, voted_RC, np.inf).min(axis=1)
            lowest_R[~candidates.there_RC.any(axis=1)] = 0
            found[rows] += (lowest_R - 1 - found[rows].max(axis=1))[:, None]
            r, c = np.nonzero(candidates.there_RC)
            found[rows[r], candidates.products_RC[r, c]] = voted_RC[r, c]
        return found


def _blocks(num_rows: int) -> list[NDArray[np.int64]]:
    return [np.arange(start, min(start + _BLOCK_ROWS, num_rows)) for start in range(0, num_rows, _BLOCK_ROWS)]


def _nominated_events(sources: Sources, histories: Histories, targets: Histories, num_nominated: int, center: float) -> _Events:
    """Candidates depend on the history alone, so that the likelihood within them is that of the whole catalogue conditioned, unbiased."""
    blocks = []
    for rows in _blocks(len(histories)):
        asked, wanted_R = histories.take(rows), targets.take(rows).products
        candidates, _ = sources.candidates(asked, num_nominated)
        hit_RC = candidates.there_RC & (candidates.products_RC == wanted_R[:, None])
        r, chosen = np.nonzero(hit_RC)
        tilt = np.log1p(asked.lengths[r]) - center
        blocks.append((candidates.features_RCF[r].astype(np.float16), candidates.there_RC[r], chosen, tilt.astype(np.float32)))
    width = max(there.shape[1] for _, there, _, _ in blocks)
    wide = [[np.pad(part, ((0, 0), (0, width - part.shape[1])) + ((0, 0),) * (part.ndim - 2)) for part in block[:2]] for block in blocks]
    features_ECF, there_EC = (np.concatenate(part) for part in zip(*wide, strict=True))
    chosen_E, tilt_E = (np.concatenate(part) for part in zip(*(block[2:] for block in blocks), strict=True))
    return _Events(*(torch.from_numpy(part) for part in (features_ECF, there_EC, chosen_E, tilt_E)))


def _fitted(learn: _Events, held: _Events, begin_F: NDArray[np.float32], config: StackConfig, seed: int) -> tuple[CandidateNetwork, float, int]:
    """The network as likely as it became on `held`, its nats an event there, and after which epoch (0: as it began)."""
    torch.manual_seed(seed)
    network = CandidateNetwork(learn.features_ECF[learn.there_EC].float().numpy(), begin_F, config)
    batch = min(_MOST_BATCH_EVENTS, max(_LEAST_BATCH_EVENTS, len(learn) // _FEWEST_BATCHES))
    num_steps = config.epochs * -(-len(learn) // batch)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total_steps=num_steps + 1, pct_start=_WARMUP_SHARE)
    best = (_nats(network, held), 0, {name: value.clone() for name, value in network.state_dict().items()})
    for epoch in range(1, config.epochs + 1):
        network.train()
        for rows in torch.split(torch.randperm(len(learn)), batch):
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(_loss(network, learn.take(rows)))
            optimizer.step()
            schedule.step()
        nats = _nats(network, held)
        if nats < best[0]:
            best = (nats, epoch, {name: value.clone() for name, value in network.state_dict().items()})
    network.load_state_dict(best[2])
    return network.eval(), best[0], best[1]


def _loss(network: CandidateNetwork, events: _Events) -> Tensor:
    return fn.cross_entropy(network(events.features_ECF, events.there_EC, events.tilt_E), events.chosen_E)


@torch.no_grad()
def _nats(network: CandidateNetwork, events: _Events) -> float:
    network.eval()
    batches = torch.split(torch.arange(len(events)), _MOST_BATCH_EVENTS)
    return sum(float(_loss(network, events.take(rows))) * len(rows) for rows in batches) / len(events)
