"""Policies over guide steps that a learned plan must beat, all fitted to the training part of the log: an n-gram, the nearest logged
step, and a small recurrent decoder that knows product and profile only.

Each answers like the guide model: the probability of every allowed next step of plans that are at one length.
"""

# Letters: R = rows, B = plans asked about, S = MAX_STEPS, A = NUM_STEPS, F = features, M = logged steps.

import dataclasses
from collections import defaultdict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from guidelens.config import ModelConfig
from guidelens.data.examples import Examples
from guidelens.models.inputs import PlanInputs, plan_inputs
from guidelens.models.items import CATEGORICAL, Catalogue
from guidelens.models.losses import plan_term
from guidelens.models.plans.asked import Asked
from guidelens.models.plans.history import Surroundings, history_features
from guidelens.models.strategist import PlanDecoder, allowed_at_each
from guidelens.schemas.ids import sub_seed
from guidelens.schemas.steps import MAX_STEPS, NUM_STEPS

Floats = NDArray[np.float32]
_BATCH = 512


class NGram:
    """Interpolated counts of the next step after (category, device, last two steps), backing off to ever less context.

    p(a | context) = (count(context, a) + K p(a | shorter context)) / (count(context) + K), down to a uniform draw (Jelinek and Mercer 1980).
    """

    CONTEXTS = ((True, True, 2), (True, False, 2), (True, False, 1), (False, False, 1), (False, False, 0))
    """Longest first: with category, with device, number of last steps."""
    STRENGTH = 5.0

    def __init__(self, train: Examples, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.counts: defaultdict[tuple[object, ...], NDArray[np.float64]] = defaultdict(lambda: np.zeros(NUM_STEPS))
        for length in range(MAX_STEPS):
            rows = np.flatnonzero(train.steps[:, length] >= 0)
            for key, step in zip(self._keys(train, rows, train.steps[rows], length), train.steps[rows, length].tolist(), strict=True):
                for context in key:
                    self.counts[context][step] += 1

    def _keys(self, examples: Examples, rows: NDArray[np.integer], steps_BS: NDArray[np.integer], length: int) -> list[tuple[tuple[object, ...], ...]]:
        """The contexts of each plan, longest first. A context's last steps are cut at the plan's start."""
        top = self.catalogue.fields_NC[np.maximum(examples.plan_row[rows], 0), CATEGORICAL.index("category_0")].tolist()
        lasts = [tuple(line) for line in steps_BS[:, max(0, length - 2) : length].tolist()]
        return [
            tuple((kind, category if by_category else None, device if by_device else None, *last[len(last) - min(n, len(last)) :])
                  for kind, (by_category, by_device, n) in enumerate(self.CONTEXTS))
            for category, device, last in zip(top, examples.device[rows].tolist(), lasts, strict=True)
        ]  # fmt: skip

    def step_chances(self, asked: Asked) -> Floats:
        """(B, A) of the plans asked about, 0 where not allowed."""
        out_BA = np.full((len(asked.rows), NUM_STEPS), 1 / NUM_STEPS)
        for line, key in enumerate(self._keys(asked.examples, asked.rows, asked.steps, asked.length)):
            for context in reversed(key):
                if (count := self.counts.get(context)) is not None:
                    out_BA[line] = (count + self.STRENGTH * out_BA[line]) / (count.sum() + self.STRENGTH)
        return _normed(out_BA, asked.allowed)


class NearestStep:
    """Copies the log: the step that was taken in the most alike state of the training part, at the same place, among the allowed ones."""

    def __init__(self, train: Examples, catalogue: Catalogue, num_profile_buckets: int) -> None:
        self.catalogue, self.around = catalogue, Surroundings.of(train, catalogue, num_profile_buckets)
        features_RF = self.around.features(train, catalogue)
        states_RSF = history_features(train.steps, train.outcomes, train.view_ms, train.gestures)
        self.states, self.taken = [], []
        for length in range(MAX_STEPS):
            rows = np.flatnonzero(train.steps[:, length] >= 0)
            self.states.append(np.concatenate([states_RSF[rows, length], features_RF[rows]], axis=1))
            self.taken.append(train.steps[rows, length].astype(np.int64))

    def step_chances(self, asked: Asked) -> Floats:
        """(B, A) of the plans asked about: 1 at the copied step; even over the allowed ones where none of them was ever logged at this place."""
        num, known, taken = len(asked.rows), self.states[asked.length], self.taken[asked.length]
        state_BF = np.concatenate([_state(asked), self.around.features(asked.examples.take(asked.rows), self.catalogue)], axis=1)
        nearest_BA = np.full((num, NUM_STEPS), np.inf)
        for start in range(0, num, _BATCH):
            part = state_BF[start : start + _BATCH]
            gap_BM = (part**2).sum(axis=1)[:, None] - 2 * part @ known.T + (known**2).sum(axis=1)
            for step in np.unique(taken):
                nearest_BA[start : start + _BATCH, step] = gap_BM[:, taken == step].min(axis=1)
        nearest_BA[~asked.allowed] = np.inf
        copied_BA = np.eye(NUM_STEPS)[nearest_BA.argmin(axis=1)]
        return _normed(np.where(np.isfinite(nearest_BA).any(axis=1, keepdims=True), copied_BA, 1.0), asked.allowed)


class SmallDecoder:
    """The strategist's decoder alone, on product, device and profile: no experts, no joint training. Fitted to `targets` of the training rows.

    With the logged steps as targets it is the plain imitation of the log by a GRU.
    """

    EPOCHS, RATE = 6, 3e-3

    def __init__(self, train: Examples, catalogue: Catalogue, config: ModelConfig, seed: int) -> None:
        self.catalogue, self.around = catalogue, Surroundings.of(train, catalogue, config.num_profile_buckets)
        features_RF = torch.from_numpy(self.around.features(train, catalogue))
        plans = plan_inputs(train, catalogue)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(sub_seed(seed, "small decoder"))
            self.context, self.decoder = nn.Linear(features_RF.shape[1], config.width), PlanDecoder(config)
        self._fit(features_RF, plans, np.random.default_rng(sub_seed(seed, "small decoder")))

    def _fit(self, features_RF: Tensor, plans: PlanInputs, rng: np.random.Generator) -> None:
        parameters = [*self.context.parameters(), *self.decoder.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=self.RATE)
        for _ in range(self.EPOCHS):
            for rows in np.array_split(rng.permutation(len(features_RF)), max(1, len(features_RF) // 128)):
                some = plans.take(torch.from_numpy(rows))
                term = plan_term(self.decoder(self.context(features_RF[rows]), some, allowed_at_each(some)), some.targets_RSA)
                optimizer.zero_grad()
                torch.autograd.backward(term.total / term.count.clamp_min(1))
                optimizer.step()

    @torch.no_grad()
    def step_chances(self, asked: Asked) -> Floats:
        """(B, A) of the plans asked about, 0 where not allowed."""
        part = asked.examples.take(asked.rows)
        past = plan_inputs(_with_past(part, asked), self.catalogue)
        places_BSA = torch.from_numpy(asked.allowed)[:, None].expand(-1, MAX_STEPS, -1)
        context_BD = self.context(torch.from_numpy(self.around.features(part, self.catalogue)))
        log_p_BSA = self.decoder(context_BD, past, places_BSA)
        return _normed(log_p_BSA[:, asked.length].exp().numpy().astype(np.float64), asked.allowed)


def log_baselines(examples: Examples, catalogue: Catalogue, config: ModelConfig, seed: int) -> dict[str, "NGram | NearestStep | SmallDecoder"]:
    """The three policies by name, fitted to the training rows that have a plan and a product in view; {} where there is none."""
    train = examples.of("train")
    train = train.take(np.flatnonzero((train.steps[:, 0] >= 0) & (train.plan_row >= 0)))
    if len(train) == 0:
        return {}
    return {
        "ngram": NGram(train, catalogue),
        "nearest": NearestStep(train, catalogue, config.num_profile_buckets),
        "gru": SmallDecoder(imitating(train, catalogue), catalogue, config, seed),
    }


def imitating(examples: Examples, catalogue: Catalogue) -> Examples:
    """The rows with their own logged steps as target weights, where the grammar allows them."""
    logged_RSA = examples.steps[:, :, None] == np.arange(NUM_STEPS)
    return dataclasses.replace(examples, targets=(logged_RSA & allowed_at_each(plan_inputs(examples, catalogue)).numpy()).astype(np.float32))


def _state(asked: Asked) -> Floats:
    return history_features(asked.steps, asked.outcomes, asked.view_ms, asked.gestures)[:, asked.length]


def _with_past(part: Examples, asked: Asked) -> Examples:
    """The rows asked about with what was taken and seen; what may lie past `length` is not read by a decoder at `length`."""
    return dataclasses.replace(
        part,
        steps=asked.steps.astype(np.int8),
        outcomes=asked.outcomes.astype(np.int8),
        view_ms=asked.view_ms.astype(np.float32),
        gestures=asked.gestures.astype(np.int16),
    )


def _normed(weights_BA: NDArray[np.float64], allowed_BA: NDArray[np.bool_]) -> Floats:
    kept_BA = weights_BA * allowed_BA
    found: Floats = (kept_BA / np.maximum(kept_BA.sum(axis=1, keepdims=True), 1e-12)).astype(np.float32)
    return found
