"""The ranker stage of serving: candidates become a slate with interest, propensities and reasons, and the guide's next steps.

Knows nothing of HTTP, stores or the frame: what it needs of them is in the fused request.
"""

# Letters: C = candidates, K = places, N = products, A = NUM_STEPS.

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from guidelens.config import ServeConfig
from guidelens.inference.content import Content
from guidelens.inference.explain import Explainer
from guidelens.inference.facts import product_facts
from guidelens.inference.guide_files import FIT, has_guide, load_items, one_thread
from guidelens.inference.messages import Floats, RankInput, RankOutput, Rows, SessionState, Source, relevance_of
from guidelens.inference.plans import Policy, next_steps, rule_policy
from guidelens.inference.popularity import read_popularity
from guidelens.inference.reasons import DISCOVER, reasons_of, reasons_of_sources
from guidelens.inference.reranking import BUNDLED, Candidates, ExpertRule, LiveRules, Reranked, Reranker, ShopRules, Situation
from guidelens.inference.rows import request_row
from guidelens.inference.scorer import GuideScorer
from guidelens.inference.words import MAX_REASONS, is_chinese, reason, say, with_rules
from guidelens.models.guide import Encoded, Looked
from guidelens.models.inputs import context_inputs
from guidelens.models.items import REDUCED_DIM, Catalogue
from guidelens.schemas.steps import STEP_INDEX, GuideStep

EXACT_BONUS = 30.0
FIND_BONUS = 6.0
"""On the log scale: what was asked for by its very title comes first; other hits of the search are lifted by relevance squared."""
NUM_SHOWN_WITH = 3
"""Products that one show_bundle step shows beside the one in view."""


class Scored(NamedTuple):
    """(C,) ranking scores on a log scale, and calibrated chances and interest; None where no model learned them."""

    scores: NDArray[np.float64]
    click: Floats | None = None
    purchase: Floats | None = None
    interest: Floats | None = None


class RankerModel:
    """A release's ranker stage. `config` may be changed between requests."""

    def __init__(
        self, scorer: GuideScorer | None, catalogue: Catalogue, config: ServeConfig, items: pl.DataFrame, vectors_ND: Floats, rules: LiveRules
    ) -> None:
        """Args:
        items: the item table, for titles and categories.
        vectors_ND: what diversity compares.
        """
        self.scorer, self.catalogue, self.config, self.rules = scorer, catalogue, config, rules
        self.categories: list[str] = items["category"].fill_null("").to_list()
        titles = items["title"].to_list()
        self._titles = titles, [zh or en for zh, en in zip(items["title_zh"].to_list(), titles, strict=True)]
        self._vectors_ND = vectors_ND
        self.recommends = scorer is not None and scorer.header.learned("recommendation")
        self._explainer = Explainer(scorer) if scorer is not None and self.recommends else None

    @classmethod
    def load(cls, fit_dir: Path, home: Path | None = None, config: ServeConfig | None = None) -> "RankerModel":
        """From a fit or a bundle; settings given, and rules of the home, take the place of those inside it.

        Raises:
            ConfigError: the rules cannot be used.
        """
        one_thread()
        items, catalogue = load_items(fit_dir)
        settings = config or ServeConfig.model_validate(json.loads((fit_dir / FIT).read_text())["config"]["serve"])
        scorer = GuideScorer.load(fit_dir) if has_guide(fit_dir) else None
        content = Content.load(fit_dir, catalogue)
        vectors_ND = np.concatenate([content.image_NE, content.text_NE], axis=1) if scorer is None else scorer.items_ND.numpy()
        paths = [*([] if home is None else [home / settings.rerank.rules]), fit_dir / BUNDLED]
        facts = product_facts(items, read_popularity(fit_dir, len(items)).clicks_N)
        rules = LiveRules(paths, catalogue.product_ids, facts.categories, facts)
        return cls(scorer, catalogue, settings, items, vectors_ND, rules)

    def rank(self, asked: RankInput) -> RankOutput:
        """The slate (at most `num` products, none of them out of stock) and the next steps; the same seed, the same answer."""
        rules, situation = self.rules.current(), self._situation(asked)
        rows, retrieval, source = self._candidates(asked, rules, situation)
        encoded = self._encoded(asked)
        found = self._scored(encoded, rows, retrieval)
        lift = EXACT_BONUS * ((source & Source.EXACT) > 0) + FIND_BONUS * relevance_of(source) ** 2
        boosts = rules.boosts(rows, situation, self._prices(asked)[rows])
        scores, rng = found.scores + lift + boosts.nats_C, np.random.default_rng(asked.seed)
        slate = self._reranked(asked, rows, scores, rules, situation, rng)
        order = slate.chosen_K
        shares = np.exp(scores - scores.max(initial=-np.inf)) if len(scores) else scores
        click, purchase, interest = (None if each is None else each[order] for each in (found.click, found.purchase, found.interest))
        partners = self._partners(asked, rules, situation)
        steps = self._steps(asked, encoded, rows[order], partners, rng)
        return RankOutput(
            rows=rows[order],
            scores=(shares / max(float(shares.sum()), 1e-12))[order].astype(np.float32),
            interest=interest,
            propensities=slate.propensities_K,
            reasons=self._reasons(
                asked, rows[order], source[order], lift[order].astype(np.float32), slate, [boosts.rules_C[place] for place in order.tolist()]
            ),
            steps=steps,
            say=[say(GuideStep(step), asked.locale) for step, _, _ in steps],
            shown_with=[tuple(partners.tolist()) if step == GuideStep.SHOW_BUNDLE and partners is not None else () for step, _, _ in steps],
            click=click,
            purchase=purchase,
            pinned_by=slate.pinned_by,
            effects=(*slate.effects, *boosts.effects),
        )

    def _situation(self, asked: RankInput) -> Situation:
        category = self.categories[asked.focus_row] if asked.focus_row >= 0 else ""
        return Situation.of(asked.now_us, asked.channel, category, asked.device, asked.text, asked.packed)

    def _candidates(self, asked: RankInput, rules: ShopRules, situation: Situation) -> tuple[Rows, Floats, NDArray[np.uint8]]:
        """Rows, retrieval logits and sources; a pinned product that was not nominated stands behind all that were."""
        fused, pinned = asked.fusion, rules.pinned_rows(situation)
        added = pinned[~np.isin(pinned, fused.candidate_rows)].astype(np.int32)
        last = fused.candidate_scores.min(initial=0.0)
        return (
            np.concatenate([fused.candidate_rows, added]),
            np.concatenate([fused.candidate_scores, np.full(len(added), last, np.float32)]),
            np.concatenate([fused.source, np.zeros(len(added), np.uint8)]),
        )

    def _reranked(
        self, asked: RankInput, rows: Rows, scores: NDArray[np.float64], rules: ShopRules, situation: Situation, rng: np.random.Generator
    ) -> Reranked:
        candidates = Candidates(rows, scores, self._prices(asked)[rows], self._in_stock(asked, rows), self._vectors_ND[rows])
        return Reranker(self.config.rerank, self.config.explore_temperature).slate(candidates, rules, situation, asked.num, rng)

    def _prices(self, asked: RankInput) -> NDArray[np.floating]:
        return self.catalogue.price_N if asked.price_minor is None else asked.price_minor

    @staticmethod
    def _in_stock(asked: RankInput, rows: Rows) -> NDArray[np.bool_] | None:
        return None if asked.in_stock is None else asked.in_stock[rows]

    def _encoded(self, asked: RankInput) -> Encoded | None:
        """The fused request with this shopper's history; nothing is encoded again."""
        if self.scorer is None:
            return None
        row = request_row(asked.packed, asked.device, asked.now_us, focus_row=asked.focus_row)
        context = context_inputs(row, self.catalogue, self.scorer.model.config.num_profile_buckets)
        nothing = torch.zeros(1, REDUCED_DIM)
        return Encoded(torch.from_numpy(np.array(asked.fusion.intent, dtype=np.float32))[None], context, Looked(nothing, nothing))

    def _scored(self, encoded: Encoded | None, rows: Rows, retrieval: Floats) -> Scored:
        """Chances and interest are None where the model did not learn to recommend: what it knows of a pair rests on the retrieval logit."""
        if self.scorer is None or encoded is None or not self.recommends:
            return Scored(4 * retrieval.astype(np.float64))
        if not len(rows):
            return Scored(np.zeros(0), *(np.zeros(0, np.float32) for _ in range(3)))
        rows_1C, retrieval_1C = torch.from_numpy(rows.astype(np.int64))[None], torch.from_numpy(np.array(retrieval, dtype=np.float32))[None]
        blended = self.scorer.blended(encoded, rows_1C, retrieval_1C)[0].numpy().astype(np.float64)
        click, purchase, interest = (each[0] for each in self.scorer.probabilities(encoded, rows_1C, retrieval_1C))
        return Scored(blended, click, purchase, interest if self.scorer.header.learned("interest") else None)

    def _steps(self, asked: RankInput, encoded: Encoded | None, slate: Rows, partners: Rows | None, rng: np.random.Generator) -> list[tuple[str, float, int]]:
        """The next steps; show_bundle is one of them only where something in stock goes with the product in view."""
        base_A = self.catalogue.grammar_base(np.array([asked.focus_row]), np.array([asked.device], dtype=object))[0].copy()
        if partners is not None and not len(partners):
            base_A[STEP_INDEX[GuideStep.SHOW_BUNDLE]] = False
        chosen = next_steps(self._policy(asked, encoded), asked.session, base_A, self.config.explore_step_share, rng, self.config.plan_beam)
        about = asked.focus_row if asked.focus_row >= 0 else int(slate[0]) if len(slate) else -1
        others = [int(row) for row in slate if row != about]
        return [(step, propensity, others[0] if step == GuideStep.COMPARE_SIMILAR and others else about) for step, propensity in chosen]

    def _partners(self, asked: RankInput, rules: ShopRules, situation: Situation) -> Rows | None:
        """Products that go with the one in view, by the rules of the slate; None where this release does not know what goes with what."""
        rows = asked.fusion.partner_rows
        if rows is None:
            return None
        left_C = rules.over(rows, situation, self._prices(asked)[rows], self._in_stock(asked, rows)).constraints.left_C
        return rows[left_C][:NUM_SHOWN_WITH]

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

    def _reasons(
        self, asked: RankInput, rows: Rows, source: NDArray[np.uint8], lift: Floats, slate: Reranked, experts: Sequence[Sequence[ExpertRule]]
    ) -> list[list[str]]:
        """At most three short texts a product: the shop's rules that put it there, then the inputs that raised its score, strongest first
        (inference/explain.py). Where none did: what nominated it, or that nothing known speaks for it."""
        found = reasons_of_sources(source, rows == asked.focus_row)
        if self._explainer is not None and len(rows):
            row = request_row(
                asked.packed,
                asked.device,
                asked.now_us,
                channel=asked.channel,
                focus_row=asked.recognized_row,
                frame_embedding=asked.frame_embedding,
                query_embedding=asked.fusion.query_embedding,
            )
            raised = reasons_of(self._explainer.explain(row, rows).with_lift("query", lift), rows)
            found = [mine or nominated or [DISCOVER] for mine, nominated in zip(raised, found, strict=True)]
        titles = self._titles[is_chinese(asked.locale)]
        by_rules = with_rules(experts, slate.pinned_by, asked.locale)
        learned = [[reason(one.key, asked.locale, titles[one.about] if one.about >= 0 else "") for one in each] for each in found]
        return [[*ruled, *others][:MAX_REASONS] for ruled, others in zip(by_rules, learned, strict=True)]
