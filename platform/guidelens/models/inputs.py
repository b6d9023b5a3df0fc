"""X1, X3 and the moment as tensors: what the guide model reads of a request, before any weight.

The packed shopper row is decoded here for training, evaluation and serving alike, so that they cannot disagree. No value of
the request's own visit enters: a packed row ends before the request.
"""

# Letters: R = rows, B = rows of a batch, H = recent visits, F = features, K = places of a slate, S = MAX_STEPS, A = NUM_STEPS.

import dataclasses
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from guidelens.data.examples import CHANNELS, DEVICES, Examples
from guidelens.models.items import Catalogue
from guidelens.schemas.packed import AR_FEATURES, NUM_RECENT, PROFILE_VALUES, RECENT_VALUES, WINDOW_FEATURES, decode

NUM_PROFILE = 2 * len(PROFILE_VALUES) + 2
NUM_WINDOWS = len(WINDOW_FEATURES)
NUM_AR = len(AR_FEATURES)
NUM_VALUES = len(RECENT_VALUES) + 1
NUM_MOMENT = 2 + len(DEVICES) + len(CHANNELS)
AR_VALUES = (RECENT_VALUES.index("view_ms"), RECENT_VALUES.index("gestures"))
_US_PER_HOUR = 3.6e9


@dataclass(frozen=True)
class ContextInputs:
    """A request's own inputs. `profile_ids` are buckets (0 missing); `recent_rows` product rows, -1 past the known visits.

    `frame` and `query` are encoder embeddings' rows in `Examples.frames` and `.queries`, -1 where there is none.
    """

    known_R: Tensor
    profile_ids_RP: Tensor
    profile_RF: Tensor
    windows_RF: Tensor
    ar_RF: Tensor
    recent_rows_RH: Tensor
    recent_RHF: Tensor
    focus_R: Tensor
    frame_R: Tensor
    query_R: Tensor
    moment_RF: Tensor

    def __len__(self) -> int:
        return len(self.known_R)

    def take(self, rows: Tensor) -> Self:
        return dataclasses.replace(self, **{field.name: getattr(self, field.name)[rows] for field in dataclasses.fields(self)})


def context_inputs(examples: Examples, catalogue: Catalogue, num_profile_buckets: int) -> ContextInputs:
    """All rows of `examples` at once. Counts and durations as log1p / 10; ages and staleness in log hours."""
    packed, known_R = decode(list(examples.packed))
    profile_ids = np.where(packed["profile_ids"] == 0, 0, 1 + packed["profile_ids"] % (num_profile_buckets - 1))
    inside_RH = np.arange(NUM_RECENT) < packed["num_recent"][:, None]
    recent_rows = np.where(inside_RH, catalogue.rows_of_hashes(packed["recent_products"]), -1)
    age_RH = np.maximum(examples.ts_us[:, None] - packed["recent_ts_us"], 0) / _US_PER_HOUR
    recent = np.concatenate([np.log1p(packed["recent_values"]), np.log1p(age_RH)[:, :, None]], axis=2) * (recent_rows >= 0)[:, :, None]
    return ContextInputs(
        known_R=torch.from_numpy(known_R),
        profile_ids_RP=torch.from_numpy(profile_ids.astype(np.int64)),
        profile_RF=_float(_profile(packed, known_R, examples.ts_us)),
        windows_RF=_float(np.log1p(packed["windows"]) / 10),
        ar_RF=_float(np.log1p(packed["ar"]) / 10),
        recent_rows_RH=torch.from_numpy(recent_rows.astype(np.int64)),
        recent_RHF=_float(recent / 10),
        focus_R=torch.from_numpy(examples.focus_row.astype(np.int64)),
        frame_R=torch.from_numpy(examples.frame_row.astype(np.int64)),
        query_R=torch.from_numpy(examples.query_row.astype(np.int64)),
        moment_RF=_float(_moment(examples)),
    )


def _float(values: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def _profile(packed: NDArray[np.void], known_R: NDArray[np.bool_], ts_us: NDArray[np.int64]) -> NDArray[np.float64]:
    """(R, NUM_PROFILE): values scaled to about 1, which of them are known, whether the shopper is, and the row's age."""
    values = packed["profile_values"].astype(np.float64)
    there = np.isfinite(values) & known_R[:, None]
    scaled = np.where(there, np.stack([values[:, 0] / 170 - 1, np.log1p(np.maximum(np.nan_to_num(values[:, 1]), 0)) / 5], axis=1), 0)
    stale_h = np.where(known_R, np.maximum(ts_us - packed["as_of_us"], 0) / _US_PER_HOUR, 0)
    return np.concatenate([scaled, there, known_R[:, None], np.log1p(stale_h)[:, None] / 5], axis=1)


def _moment(examples: Examples) -> NDArray[np.float64]:
    angle = examples.hour.astype(np.float64) / 24 * 2 * np.pi
    device = examples.device[:, None] == np.array(DEVICES, dtype=object)
    channel = examples.channel[:, None] == np.array(CHANNELS, dtype=object)
    return np.concatenate([np.sin(angle)[:, None], np.cos(angle)[:, None], device, channel], axis=1)


NUM_HISTORY = 2 * (NUM_VALUES + 1)


def visit_values(context: ContextInputs) -> Tensor:
    """(B, H, NUM_HISTORY / 2): each visit's values, a weight that fades with its age, and 1; zeros where there is no visit."""
    values_BHF = context.recent_RHF
    fresh_BH1 = torch.exp(-10 * values_BHF[:, :, -1:])
    return torch.cat([values_BHF[:, :, :-1], fresh_BH1, torch.ones_like(fresh_BH1)], dim=2) * (context.recent_rows_RH >= 0)[:, :, None]


def history(context: ContextInputs, candidates_BC: Tensor, leaf_N: Tensor) -> Tensor:
    """(B, C, NUM_HISTORY): sums of `visit_values` over the recent visits of each candidate, and of its category.

    Args:
        candidates_BC: product rows; -1 matches nothing.
        leaf_N: (N,) category bucket of each product.
    """
    values_BHF = visit_values(context)
    rows_B1H, wanted_BC1 = context.recent_rows_RH[:, None, :], candidates_BC[:, :, None]
    same = ((wanted_BC1 == rows_B1H) & (wanted_BC1 >= 0)).float()
    kin = ((leaf_N[wanted_BC1.clamp_min(0)] == leaf_N[rows_B1H.clamp_min(0)]) & (wanted_BC1 >= 0)).float()
    return torch.cat([same @ values_BHF, (kin @ values_BHF) / 3], dim=2)


def habit_scores(context: ContextInputs, weights_F: Tensor, num_products: int, leaf_N: Tensor, num_leaves: int) -> Tensor:
    """(B, N): `history` of every product times weights (NUM_HISTORY,), without making the features of all pairs."""
    values_BHF = visit_values(context)
    half = values_BHF.shape[2]
    rows_BH = context.recent_rows_RH.clamp_min(0)
    same_BH, kin_BH = values_BHF @ weights_F[:half], values_BHF @ weights_F[half:] / 3
    same_BN = same_BH.new_zeros(len(rows_BH), num_products).scatter_add(1, rows_BH, same_BH)
    kin_BL = kin_BH.new_zeros(len(rows_BH), num_leaves).scatter_add(1, leaf_N[rows_BH], kin_BH)
    return same_BN + kin_BL[:, leaf_N]


@dataclass(frozen=True)
class SlateInputs:
    """T1's and T2's labels: rows (-1 padded), clicks, purchases, interest where observed."""

    rows_RK: Tensor
    click_RK: Tensor
    purchase_RK: Tensor
    interest_RK: Tensor
    observed_RK: Tensor

    def take(self, rows: Tensor) -> Self:
        return dataclasses.replace(self, **{field.name: getattr(self, field.name)[rows] for field in dataclasses.fields(self)})


def slate_inputs(examples: Examples) -> SlateInputs:
    """Labels as tensors; unobserved interest as 0 beside its mask."""
    return SlateInputs(
        rows_RK=torch.from_numpy(examples.slate_rows.astype(np.int64)),
        click_RK=_float(examples.click),
        purchase_RK=_float(examples.purchase),
        interest_RK=_float(np.nan_to_num(examples.interest)),
        observed_RK=torch.from_numpy(examples.interest_observed),
    )


@dataclass(frozen=True)
class PlanInputs:
    """T3: a plan so far. Steps -1 past the end; outcomes UNKNOWN_OUTCOME where not seen; `base_RA` the grammar's base mask.

    `targets_RSA` weigh each next step in training; zeros where there is nothing to learn.
    """

    focus_R: Tensor
    steps_RS: Tensor
    outcomes_RS: Tensor
    view_RS: Tensor
    gestures_RS: Tensor
    base_RA: Tensor
    targets_RSA: Tensor

    def take(self, rows: Tensor) -> Self:
        return dataclasses.replace(self, **{field.name: getattr(self, field.name)[rows] for field in dataclasses.fields(self)})


def plan_inputs(examples: Examples, catalogue: Catalogue) -> PlanInputs:
    """Plans as tensors; view times as log1p(ms) / 10, gestures as log1p."""
    return PlanInputs(
        focus_R=torch.from_numpy(examples.plan_row.astype(np.int64)),
        steps_RS=torch.from_numpy(examples.steps.astype(np.int64)),
        outcomes_RS=torch.from_numpy(examples.outcomes.astype(np.int64)),
        view_RS=_float(np.log1p(examples.view_ms.astype(np.float64)) / 10),
        gestures_RS=_float(np.log1p(examples.gestures.astype(np.float64))),
        base_RA=torch.from_numpy(catalogue.grammar_base(examples.plan_row, examples.device)),
        targets_RSA=torch.tensor(examples.targets),
    )
