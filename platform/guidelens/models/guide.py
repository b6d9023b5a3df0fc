"""The joint guide model: one context encoder and one item tower under three tasks.

T1: a softmax over products (retrieval), click and purchase of candidates. T2: interest of a visit. T3: the plan. Everything
a choice of `ModelConfig`. Knows nothing of workers, files of a run, or serving.
"""

# Letters: B = rows, N = products, C = candidates, D = width, H = recent visits, M = tokens, R = reduced embedding, F = features.

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from guidelens.config import Modality, ModelConfig
from guidelens.models.fusion import build_fusion
from guidelens.models.heads import PairHeads, PairInputs, PairLogits
from guidelens.models.inputs import AR_VALUES, NUM_AR, NUM_HISTORY, NUM_MOMENT, NUM_PROFILE, NUM_WINDOWS, ContextInputs, PlanInputs, habit_scores, history
from guidelens.models.items import CATEGORICAL, NUM_FIELD_BUCKETS, REDUCED_DIM, ItemInputs, ItemTower, Reducer, normalized
from guidelens.models.noise import Noise
from guidelens.models.sequence import SequenceEncoder
from guidelens.models.strategist import PlanDecoder, allowed_at_each
from guidelens.models.target_attention import TargetAttention
from guidelens.schemas.base import Frozen
from guidelens.schemas.packed import PROFILE_FIELDS
from guidelens.schemas.tables import IMAGE_DIM, TEXT_DIM

TOKENS = ("x1_windows", "x1_recent", "x3", "frame", "query", "focus", "moment")
_TOKEN_MODALITY: dict[str, Modality] = {"x1_windows": "x1", "x1_recent": "x1", "x3": "x3", "frame": "frame", "query": "query"}
NUM_SIMILARITIES = 7
_NOT_SHARED = (
    "bias",
    "tower.ids.",
    "similarity",
    "habit",
    "decoder.",
    *(f"heads.{name}" for name in ("click.", "buy.", "interest.", "position", "extra.", "gates.")),
)
_LEAF = CATEGORICAL.index("category")


class GuideSpec(Frozen):
    """What beside ModelConfig shapes the weights. extra_tasks: names of the tasks beside the three."""

    num_products: int
    extra_tasks: tuple[str, ...] = ()


class Looked(NamedTuple):
    """The frame and query of each row, reduced: (B, R) each, zeros where there is none."""

    frame_BR: Tensor
    query_BR: Tensor


class Encoded(NamedTuple):
    """A batch after the context encoder: intent (B, D), its inputs, and what was looked at."""

    intent_BD: Tensor
    context: ContextInputs
    looked: Looked


class GuideModel(nn.Module):
    """Weights of the joint model; items are passed in, because the catalogue outlives no fit."""

    reads_F: Tensor

    def __init__(self, config: ModelConfig, spec: GuideSpec) -> None:
        super().__init__()
        width, without = config.width, set(config.without)
        self.config, self.spec = config, spec
        self.modality_drop = config.modality_dropout
        self.image, self.text = Reducer(IMAGE_DIM), Reducer(TEXT_DIM)
        self.tower = ItemTower(config, spec.num_products)
        self.bias = nn.Parameter(torch.zeros(spec.num_products))
        self.profile = nn.Embedding(config.num_profile_buckets * len(PROFILE_FIELDS), width)
        nn.init.normal_(self.profile.weight, std=0.05)
        self.windows = nn.Linear(NUM_WINDOWS + NUM_PROFILE, width)
        self.recent = SequenceEncoder(config)
        self.ar = nn.Linear(NUM_AR, width)
        self.frame, self.query = nn.Linear(REDUCED_DIM, width), nn.Linear(REDUCED_DIM, width)
        self.focus, self.moment = nn.Linear(width, width), nn.Linear(NUM_MOMENT, width)
        self.fusion = build_fusion(config, len(TOKENS))
        self.similarity = nn.Parameter(torch.zeros(NUM_SIMILARITIES))
        self.habit = nn.Parameter(torch.zeros(NUM_HISTORY))
        self.heads = PairHeads(config, NUM_PROFILE + width, spec.extra_tasks)
        self.decoder = PlanDecoder(config)
        self.target = TargetAttention(width) if config.target_attention else None
        self.sees = tuple(_TOKEN_MODALITY.get(token) not in without for token in TOKENS)
        ar = [*AR_VALUES, *(NUM_HISTORY // 2 + value for value in AR_VALUES)]
        reads = [float("x1" not in without and ("x3" not in without or feature not in ar)) for feature in range(NUM_HISTORY)]
        self.register_buffer("reads_F", torch.tensor(reads), persistent=False)
        self.sees_x1, self.sees_x2, self.sees_x3 = "x1" not in without, "x2" not in without, "x3" not in without

    @property
    def device(self) -> torch.device:
        """Where the weights are; inputs must be there too."""
        return self.bias.device

    def shared_parameters(self) -> dict[str, nn.Parameter]:
        """The weights that more than one task moves, by name: what tasks can conflict over. Without the table of id vectors, of which a
        step may touch a few rows only."""
        return {name: parameter for name, parameter in self.named_parameters() if not name.startswith(_NOT_SHARED)}

    def items(self, items: ItemInputs, noise: Noise | None = None, content_ND: Tensor | None = None) -> Tensor:
        """(N, D) product vectors of the whole catalogue, or of a part of it.

        Args:
            content_ND: `tower.content` of the items, where it is known already.
        """
        vectors: Tensor = self.tower(items, noise, content_ND)
        return vectors

    def look(self, frames_BR: Tensor, queries_BR: Tensor, context: ContextInputs) -> Looked:
        """Reduced embeddings of frames and queries (`reduced`); rows without one hold anything."""
        frame = frames_BR * ((context.frame_R >= 0) & self.sees[TOKENS.index("frame")])[:, None]
        query = queries_BR * ((context.query_R >= 0) & self.sees[TOKENS.index("query")])[:, None]
        return Looked(frame, query)

    @torch.no_grad()
    def reduced(self, frames: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Encoder embeddings (F, 1280) and (Q, 512) to (F, R) and (Q, R): done once, as the reducers are not trained."""
        return self.image(frames), self.text(queries)

    def encode(self, context: ContextInputs, looked: Looked, items_ND: Tensor, noise: Noise | None = None) -> Encoded:
        """The intent vector of each row. In training whole modalities are dropped at random, so that any may be missing."""
        tokens = [
            self.windows(torch.cat([context.windows_RF, context.profile_RF], dim=1)) + self._profile(context),
            self.recent(items_ND[context.recent_rows_RH.clamp_min(0)], self._recent_values(context), context.recent_rows_RH >= 0),
            self.ar(context.ar_RF),
            self.frame(looked.frame_BR),
            self.query(looked.query_BR),
            self.focus(items_ND[context.focus_R.clamp_min(0)]),
            self.moment(context.moment_RF),
        ]
        there_BM = self._there(context, noise)
        tokens_BMD = fn.gelu(torch.stack(tokens, dim=1)) * there_BM[:, :, None]
        return Encoded(self.fusion(tokens_BMD, there_BM, noise), context, looked)

    def _profile(self, context: ContextInputs) -> Tensor:
        """(B, D) sum of the vectors of the profile's fields that are known."""
        buckets = context.profile_ids_RP + torch.arange(len(PROFILE_FIELDS), device=self.device) * self.config.num_profile_buckets
        profile_BD: Tensor = (self.profile(buckets) * (context.profile_ids_RP > 0)[:, :, None]).sum(1)
        return profile_BD

    def _recent_values(self, context: ContextInputs) -> Tensor:
        if self.sees_x3:
            return context.recent_RHF
        return context.recent_RHF.index_fill(2, torch.tensor(AR_VALUES, device=self.device), 0.0)

    def _there(self, context: ContextInputs, noise: Noise | None) -> Tensor:
        """(B, M) bool: which tokens exist, are not ablated, and were not dropped."""
        always = torch.ones_like(context.known_R)
        ar = context.known_R & (context.ar_RF.abs().sum(1) > 0)
        recent = (context.recent_rows_RH >= 0).any(1)
        there = torch.stack([context.known_R, recent, ar, context.frame_R >= 0, context.query_R >= 0, context.focus_R >= 0, always], dim=1)
        there = there & torch.tensor(self.sees, device=self.device)
        if noise is None or self.modality_drop == 0:
            return there
        kept = noise.kept((len(TOKENS),), self.modality_drop)
        kept[:, -1] = True
        return there & kept

    def retrieval(self, encoded: Encoded, items: ItemInputs, items_ND: Tensor, rows: Tensor | None = None, bias_N: Tensor | None = None) -> Tensor:
        """(B, N) or (B, C) unnormalized log-probabilities of products.

        Intent times product, a product's own bias, similarity of what is looked at, and this shopper's habit with it.

        Args:
            rows: (C,) products to score; all of them, none looked up, by default.
            bias_N: of the items, where the model has the bias of a share of the products only.
        """
        if bias_N is None:
            bias_N = self.bias[items.rows_N] if items.is_part else self.bias
        if rows is None:
            logits: Tensor = encoded.intent_BD @ items_ND.T / self.config.width**0.5 + bias_N
        else:
            logits = encoded.intent_BD @ items_ND[rows].T / self.config.width**0.5 + bias_N[rows]
        logits = logits + self._alike(encoded, items, rows) @ self.similarity
        if self.sees_x1:
            leaf_N, num_leaves = self._leaves(items)
            habit_BN = habit_scores(encoded.context, self.habit * self.reads_F, len(items), leaf_N, num_leaves)
            logits = logits + (habit_BN if rows is None else habit_BN[:, rows])
        return logits

    def _alike(self, encoded: Encoded, items: ItemInputs, rows: Tensor | None) -> Tensor:
        """(B, C, NUM_SIMILARITIES): cosines of frame, query and product in focus with each candidate, and whether it is the focus."""
        wanted = torch.arange(len(items), device=self.device) if rows is None else rows
        frame_BR, query_BR = normalized(encoded.looked.frame_BR), normalized(encoded.looked.query_BR)
        image_CR, text_CR, zh_CR = (normalized(x if rows is None else x[rows]) for x in (items.image_NR, items.text_NR, items.text_zh_NR))
        if not self.sees_x2:
            image_CR, text_CR, zh_CR = torch.zeros_like(image_CR), torch.zeros_like(text_CR), torch.zeros_like(zh_CR)
        focus_B, there_B1 = encoded.context.focus_R.clamp_min(0), (encoded.context.focus_R >= 0)[:, None]
        image_BC = frame_BR @ image_CR.T
        focus_image_BC = normalized(items.image_NR[focus_B]) @ image_CR.T * there_B1
        focus_text_BC = normalized(items.text_NR[focus_B]) @ text_CR.T * there_B1
        same_BC = (wanted[None] == encoded.context.focus_R[:, None]).float()
        text_BC = torch.maximum(query_BR @ text_CR.T, query_BR @ zh_CR.T)
        sharp = [4 * image_BC, 4 * text_BC, 4 * focus_image_BC, 4 * focus_text_BC, 4 * same_BC, image_BC.relu().square() * 8, text_BC.relu().square() * 8]
        return torch.stack(sharp, dim=2)

    def _leaves(self, items: ItemInputs) -> tuple[Tensor, int]:
        """(N,) category bucket of each product and their number; without X2 each product is its own category."""
        if self.sees_x2:
            return items.fields_NC[:, _LEAF], NUM_FIELD_BUCKETS
        return torch.arange(len(items), device=self.device), len(items)

    def pairs(self, encoded: Encoded, items: ItemInputs, items_ND: Tensor, rows_BC: Tensor, retrieval_BC: Tensor, noise: Noise | None = None) -> PairLogits:
        """Click, purchase and interest of candidates (B, C) whose retrieval logits are given."""
        logits: PairLogits = self.heads(self._pairs(encoded, items, items_ND, rows_BC, retrieval_BC), noise)
        return logits

    def _pairs(self, encoded: Encoded, items: ItemInputs, items_ND: Tensor, rows_BC: Tensor, retrieval_BC: Tensor) -> PairInputs:
        context = encoded.context
        habit_BCF = history(context, rows_BC, self._leaves(items)[0]) * self.reads_F
        prior_BP = torch.cat([context.profile_RF, self._profile(context)], dim=1) * self.sees_x1
        attended_BCD = None
        if self.target is not None:
            visited_BH = context.recent_rows_RH if self.sees_x1 else torch.full_like(context.recent_rows_RH, -1)
            attended_BCD = self.target(items_ND, rows_BC, visited_BH, self._recent_values(context))
        return PairInputs(encoded.intent_BD, items_ND, rows_BC, habit_BCF, retrieval_BC, prior_BP, attended_BCD)

    def expert_shares(self, encoded: Encoded, items: ItemInputs, items_ND: Tensor, rows_BC: Tensor) -> Tensor | None:
        """(T, E) mean gate shares over pairs, tasks as in `heads.tasks`; None where sharing has no gates."""
        nothing_BC = torch.zeros(rows_BC.shape, device=self.device)
        shares_TE: Tensor | None = self.heads.expert_shares(self._pairs(encoded, items, items_ND, rows_BC, nothing_BC))
        return shares_TE

    def plan_context(self, encoded: Encoded, items: ItemInputs, items_ND: Tensor, focus_B: Tensor) -> Tensor:
        """(B, D): what conditions the decoder, of each row and the product its plan is about (-1: none)."""
        rows_B1 = focus_B[:, None]
        return self.heads.plan_context(self._pairs(encoded, items, items_ND, rows_B1, torch.zeros_like(rows_B1, dtype=torch.float32)))

    def plan(self, encoded: Encoded, items: ItemInputs, items_ND: Tensor, plan: PlanInputs, allowed_BSA: Tensor | None = None) -> Tensor:
        """(B, S, A) log-probabilities of the next step at each place of the plans, about -1e9 where the grammar forbids it.

        Args:
            allowed_BSA: `allowed_at_each(plan)`, where it is known already.
        """
        context_BD = self.plan_context(encoded, items, items_ND, plan.focus_R)
        log_p: Tensor = self.decoder(context_BD, plan, allowed_at_each(plan) if allowed_BSA is None else allowed_BSA)
        return log_p
