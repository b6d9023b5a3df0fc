"""The ranker stage of serving: candidates become a slate with interest, propensities and reasons, and the guide's next steps.

Knows nothing of HTTP, stores or the frame: what it needs of them is in the fused request.
"""

# Letters: C = candidates, K = places, N = products, H = recent visits, A = NUM_STEPS.

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from guidelens.config import ServeConfig
from guidelens.inference.guide_files import has_guide, load_items, one_thread
from guidelens.inference.messages import Floats, RankInput, RankOutput, Rows, SessionState, Source, relevance_of
from guidelens.inference.plans import Policy, next_steps, rule_policy
from guidelens.inference.rows import request_row
from guidelens.inference.scorer import GuideScorer
from guidelens.inference.words import reason, say
from guidelens.models.guide import Encoded, Looked
from guidelens.models.inputs import context_inputs
from guidelens.models.items import CATEGORICAL, REDUCED_DIM, Catalogue
from guidelens.schemas.packed import decode
from guidelens.schemas.steps import GuideStep

FIT = "fit.json"
EXACT_BONUS = 30.0
FIND_BONUS = 6.0
"""On the log scale: what was asked for by its very title comes first; other hits of the search are lifted by relevance squared."""
HABIT_VISITS = 2
_ABOUT_OTHERS = (GuideStep.COMPARE_SIMILAR, GuideStep.SHOW_BUNDLE)


class RankerModel:
    """A release's ranker stage."""

    def __init__(self, scorer: GuideScorer | None, catalogue: Catalogue, config: ServeConfig) -> None:
        self.scorer, self.catalogue, self.config = scorer, catalogue, config

    @classmethod
    def load(cls, fit_dir: Path) -> "RankerModel":
        """From a fit or a bundle."""
        one_thread()
        _, catalogue = load_items(fit_dir)
        settings = ServeConfig.model_validate(json.loads((fit_dir / FIT).read_text())["config"]["serve"])
        return cls(GuideScorer.load(fit_dir) if has_guide(fit_dir) else None, catalogue, settings)

    def rank(self, asked: RankInput) -> RankOutput:
        """The slate (at most `num` products, none of them out of stock) and the next steps; the same seed, the same answer."""
        fused = asked.fusion
        kept = np.ones(len(fused.candidate_rows), np.bool_) if asked.in_stock is None else asked.in_stock[fused.candidate_rows]
        rows, retrieval, source = fused.candidate_rows[kept], fused.candidate_scores[kept], fused.source[kept]
        encoded = self._encoded(asked)
        scores, interest = self._scores(encoded, rows, retrieval)
        scores = scores + EXACT_BONUS * ((source & Source.EXACT) > 0) + FIND_BONUS * relevance_of(source) ** 2
        rng = np.random.default_rng(asked.seed)
        order, propensities = plackett_luce(scores, self.config.explore_temperature, asked.num, rng)
        shares = np.exp(scores - scores.max(initial=-np.inf)) if len(scores) else scores
        steps = self._steps(asked, encoded, rows[order], rng)
        return RankOutput(
            rows=rows[order],
            scores=(shares / max(float(shares.sum()), 1e-12))[order].astype(np.float32),
            interest=None if interest is None else interest[order],
            propensities=propensities,
            reasons=self._reasons(asked, rows[order], source[order]),
            steps=steps,
            say=[say(GuideStep(step), asked.locale) for step, _, _ in steps],
        )

    def _encoded(self, asked: RankInput) -> Encoded | None:
        """The fused request with this shopper's history; nothing is encoded again."""
        if self.scorer is None:
            return None
        row = request_row(asked.packed, asked.device, asked.now_us, focus_row=asked.focus_row)
        context = context_inputs(row, self.catalogue, self.scorer.model.config.num_profile_buckets)
        nothing = torch.zeros(1, REDUCED_DIM)
        return Encoded(torch.from_numpy(np.array(asked.fusion.intent, dtype=np.float32))[None], context, Looked(nothing, nothing))

    def _scores(self, encoded: Encoded | None, rows: Rows, retrieval: Floats) -> tuple[NDArray[np.float64], Floats | None]:
        """(C,) ranking scores on a log scale, and interest; None where the model did not learn it, or not to recommend: what it
        knows of a pair rests on the retrieval logit."""
        if self.scorer is None or encoded is None or not self.scorer.header.learned("recommendation"):
            return 4 * retrieval.astype(np.float64), None
        if not len(rows):
            return np.zeros(0), np.zeros(0, np.float32)
        rows_1C, retrieval_1C = torch.from_numpy(rows.astype(np.int64))[None], torch.from_numpy(np.array(retrieval, dtype=np.float32))[None]
        blended = self.scorer.blended(encoded, rows_1C, retrieval_1C)[0].numpy().astype(np.float64)
        if not self.scorer.header.learned("interest"):
            return blended, None
        interest: Floats = self.scorer.chances(encoded, rows_1C, retrieval_1C)[2][0].numpy()
        return blended, interest

    def _steps(self, asked: RankInput, encoded: Encoded | None, slate: Rows, rng: np.random.Generator) -> list[tuple[str, float, int]]:
        base_A = self.catalogue.grammar_base(np.array([asked.focus_row]), np.array([asked.device], dtype=object))[0]
        chosen = next_steps(self._policy(asked, encoded), asked.session, base_A, self.config.explore_step_share, rng, self.config.plan_beam)
        about = asked.focus_row if asked.focus_row >= 0 else int(slate[0]) if len(slate) else -1
        others = [int(row) for row in slate if row != about]
        return [(step, propensity, others[0] if GuideStep(step) in _ABOUT_OTHERS and others else about) for step, propensity in chosen]

    def _policy(self, asked: RankInput, encoded: Encoded | None) -> Policy:
        scorer = self.scorer
        if scorer is None or encoded is None or not scorer.header.learned("plan"):
            return rule_policy
        with torch.no_grad():
            context_BD = scorer.model.plan_context(encoded, scorer.inputs, scorer.items_ND, torch.tensor([asked.focus_row]))

        def policy(sessions: SessionState, allowed_BA: NDArray[np.bool_]) -> NDArray[np.floating]:
            so_far = (sessions.steps, sessions.outcomes, sessions.view_ms, sessions.gestures)
            return scorer.next_step(context_BD.expand(len(allowed_BA), -1), *so_far, sessions.steps.shape[1], allowed_BA)

        return policy

    def _reasons(self, asked: RankInput, rows: Rows, source: NDArray[np.uint8]) -> list[list[str]]:
        """One to three short texts a product: what it was found by, and what of the shopper's own past speaks for it."""
        packed, _ = decode([asked.packed])
        recent = self.catalogue.rows_of_hashes(packed["recent_products"][0])
        recent = recent[(recent >= 0) & (np.arange(len(recent)) < packed["num_recent"][0])]
        low, high = self._price_range(recent)
        leaves = set(self.catalogue.fields_NC[recent, CATEGORICAL.index("category")].tolist())
        out = []
        for row, bits in zip(rows.tolist(), source.tolist(), strict=True):
            keys = [key for key, bit in (("search", Source.SEARCH), ("similar", Source.SIMILAR)) if bits & bit and row != asked.focus_row]
            keys += ["habit"] if int((recent == row).sum()) >= HABIT_VISITS else []
            keys += ["price"] if low <= self.catalogue.price_N[row] <= high else []
            keys += ["popular"] if bits & Source.POPULAR else []
            keys += ["category"] if int(self.catalogue.fields_NC[row, CATEGORICAL.index("category")]) in leaves else []
            out.append([reason(key, asked.locale) for key in (keys or ["intent"])[:3]])
        return out

    def _price_range(self, recent: NDArray[np.integer]) -> tuple[float, float]:
        """Lowest and highest price of the middle half of what was recently visited; empty where too little was."""
        prices = self.catalogue.price_N[recent]
        prices = prices[np.isfinite(prices)]
        if len(prices) < 3:
            return np.inf, -np.inf
        low, high = np.quantile(prices, [0.25, 0.75])
        return float(low), float(high)


def plackett_luce(scores: NDArray[np.float64], temperature: float, num: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], Floats]:
    """Draws `num` candidates without replacement with chances exp(score / temperature), by Gumbel noise.

    Returns:
        Their indices in drawn order, and the exact probability of each at its place given those before it. Temperature 0 is
        the order of the scores, with probability 1.
    """
    num = min(num, len(scores))
    if temperature == 0 or num == 0:
        return np.argsort(-scores, kind="stable")[:num], np.ones(num, np.float32)
    utility = (scores - scores.max()) / temperature
    order = np.argsort(-(utility + rng.gumbel(size=len(scores))), kind="stable")
    tail = np.logaddexp.accumulate(utility[order][::-1])[::-1]
    propensities = np.exp(utility[order] - tail)[:num].astype(np.float32)
    return order[:num], np.maximum(propensities, np.finfo(np.float32).tiny)
