"""Serving's answers: equal to evaluation's scores, exact propensities, legal steps, honest without a guide model."""

import copy
import dataclasses
import json
import shutil
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from fit_samples import write_fit
from model_samples import NUM_PRODUCTS, START_US, packed_row, sample_catalogue, sample_examples
from numpy.typing import NDArray

from guidelens.config import RerankConfig
from guidelens.data.examples import Examples
from guidelens.errors import BundleError
from guidelens.inference.fusion import FusionModel
from guidelens.inference.guide_files import load_guide
from guidelens.inference.messages import FusionInput, FusionOutput, RankInput, RankOutput, SessionState, Source
from guidelens.inference.plans import next_steps, rule_policy
from guidelens.inference.ranker import RankerModel
from guidelens.inference.reranking import plackett_luce
from guidelens.inference.rows import request_row
from guidelens.inference.scorer import GuideScorer
from guidelens.models.plans.asked import Asked
from guidelens.retrieval import VectorIndex
from guidelens.schemas.packed import decode
from guidelens.schemas.steps import MAX_STEPS, NUM_STEPS, OUTCOME_INDEX, STEP_INDEX, UNKNOWN_OUTCOME, allowed_next
from pipelines.bundle_parts import with_index

NOW_US = START_US + 3_600_000_000
NOTHING = np.zeros(0, np.float32)


@pytest.fixture(scope="module")
def fit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fit(tmp_path_factory.mktemp("fit"))


@pytest.fixture(scope="module")
def bare_fit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fit(tmp_path_factory.mktemp("bare"), with_guide=False)


@pytest.fixture(scope="module")
def fusion(fit: Path) -> FusionModel:
    return FusionModel.load(fit)


@pytest.fixture(scope="module")
def ranker(fit: Path) -> RankerModel:
    return RankerModel.load(fit)


def with_settings(ranker: RankerModel, **settings: object) -> RankerModel:
    changed = copy.copy(ranker)
    changed.config = ranker.config.model_copy(update=settings)
    return changed


def asked(**changes: object) -> FusionInput:
    base = FusionInput(None, None, None, np.zeros(0, np.int32), NOTHING, "ar+front", "app", NOW_US, "en")
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def rank_input(fused: FusionOutput, **changes: object) -> RankInput:
    base = RankInput(fused, None, -1, SessionState(), "ar+front", 5, 7, NOW_US, "en")
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def shopper() -> bytes:
    return packed_row(np.random.default_rng(3), NOW_US - 1_000_000, [f"p-{i:02d}" for i in range(NUM_PRODUCTS)])


def test_the_served_scores_are_those_of_evaluation_on_the_same_inputs(fit: Path, fusion: FusionModel, ranker: RankerModel) -> None:
    """One request through fusion and ranker, and the same as a row of examples through GuideScorer: equal to 1e-5."""
    frame = np.random.default_rng(5).normal(0.5, 1, 1280).astype(np.float32)
    packed = shopper()
    fused = fusion.fuse(
        asked(packed=packed, frame_embedding=frame, recognized_rows=np.array([4], np.int32), recognized_confidences=np.array([0.9], np.float32))
    )
    ranker = with_settings(ranker, explore_temperature=0.0)
    ranked = ranker.rank(rank_input(fused, packed=packed, focus_row=4, num=NUM_PRODUCTS))
    row = as_examples(packed, frame, ranked.rows)
    scorer = GuideScorer.load(fit)
    slate = scorer.slate_scores(row, placed=False)
    order = np.argsort(-scorer.product_scores(row)[0])
    assert np.array_equal(ranked.rows, order)
    assert ranked.interest is not None
    assert slate.interest[0] == pytest.approx(ranked.interest, abs=1e-5)
    blended = scorer.product_scores(row)[0][ranked.rows]
    assert np.log(ranked.scores) - np.log(ranked.scores[0]) == pytest.approx(blended - blended[0], abs=1e-4)


def test_above_the_exact_size_the_index_nominates_and_the_scores_stay_those_of_the_exact_pass(fit: Path, fusion: FusionModel) -> None:
    """The sample catalogue is so small that the graph finds every neighbour, so the best candidates must be the same ones."""
    assert fusion.scorer is not None
    index = VectorIndex.build(fusion.scorer.index_vectors())
    nominated = FusionModel(fusion.scorer, fusion.content, fusion.search, fusion.encoder, 5, index)
    exact = FusionModel(fusion.scorer, fusion.content, fusion.search, fusion.encoder, 5)
    for changes in (
        {},
        {"packed": shopper()},
        {"text": "red"},
        {"packed": shopper(), "recognized_rows": np.array([4], np.int32), "recognized_confidences": np.array([0.9], np.float32)},
    ):
        found, wanted = nominated.fuse(asked(**changes)), exact.fuse(asked(**changes))
        assert np.isfinite(found.candidate_scores).all()
        assert np.array_equal(found.candidate_rows, wanted.candidate_rows)
        assert found.candidate_scores == pytest.approx(wanted.candidate_scores, abs=1e-5)


def test_the_index_orders_products_as_the_shared_part_of_the_retrieval_logit(fusion: FusionModel) -> None:
    """A stranger without frame, text or history: intent and bias are all there is."""
    assert fusion.scorer is not None
    fused = fusion.fuse(asked())
    encoded = fusion.scorer.encode(request_row(None, "ar+front", NOW_US, channel="app"))
    rows, products = VectorIndex.build(fusion.scorer.index_vectors()).search(fusion.scorer.index_query(encoded), NUM_PRODUCTS)
    logits = dict(zip(fused.candidate_rows.tolist(), fused.candidate_scores.tolist(), strict=True))
    assert products == pytest.approx(np.array([logits[int(row)] for row in rows]), abs=1e-4)


def test_a_catalogue_above_the_exact_size_needs_its_index(fit: Path, tmp_path: Path) -> None:
    folder = tmp_path / "large"
    shutil.copytree(fit, folder)
    record = json.loads((folder / "fit.json").read_text())
    record["config"]["serve"]["score_exactly_up_to"] = NUM_PRODUCTS - 1
    (folder / "fit.json").write_text(json.dumps(record))
    with pytest.raises(BundleError, match="vector index"):
        FusionModel.load(folder)
    with_index(folder)
    assert FusionModel.load(folder).index is not None


def as_examples(packed: bytes, frame: NDArray[np.float32], slate: NDArray[np.int32]) -> Examples:
    row = request_row(packed, "ar+front", NOW_US, channel="app", focus_row=4, frame_embedding=frame)
    return dataclasses.replace(
        row, **{name: np.zeros((1, len(slate)), np.float32) for name in ("click", "purchase", "interest", "propensity")}, slate_rows=slate[None]
    )


def test_a_product_out_of_stock_is_never_on_the_slate(fusion: FusionModel, ranker: RankerModel) -> None:
    in_stock = np.arange(NUM_PRODUCTS) % 2 == 0
    fused = fusion.fuse(asked(packed=shopper()))
    for seed in range(20):
        ranked = ranker.rank(rank_input(fused, seed=seed, in_stock=in_stock, num=100))
        assert in_stock[ranked.rows].all()
        assert len(ranked.rows) == len(set(ranked.rows.tolist())) == min(len(fused.candidate_rows), int(in_stock.sum()))


def test_every_product_says_why_it_is_there(fusion: FusionModel, ranker: RankerModel) -> None:
    """A stranger who shows and asks nothing: what general appeal raised says so, all others that there is something else to discover."""
    ranked = ranker.rank(rank_input(fusion.fuse(asked()), num=NUM_PRODUCTS))
    assert len(ranked.rows) == NUM_PRODUCTS
    assert {tuple(reasons) for reasons in ranked.reasons} == {("liked by many shoppers",), ("something else to discover",)}


def test_an_expert_rule_moves_a_new_shopper_s_slate_and_says_so_and_leaves_a_known_one_s(fit: Path, fusion: FusionModel, tmp_path: Path) -> None:
    """Product 7 has no price and 3 has 3 clicks' worth of popularity; the rule names brand3 at a price, for whom fewer than one visit is known."""
    rule = "{name: brand, visits_below: 1, products: {brands: [brand3], max_minor: 5000}, nats: 4.0, reason: {en: a good start}}"
    (tmp_path / "rules.yaml").write_text(f"expert: [{rule}]")
    plain = with_settings(RankerModel.load(fit), explore_temperature=0.0)
    ruled = with_settings(RankerModel.load(fit, tmp_path), explore_temperature=0.0)
    known = packed_row(np.random.default_rng(4), NOW_US - 1_000_000, [f"p-{i:02d}" for i in range(NUM_PRODUCTS)])
    assert decode([known])[0]["num_recent"][0] >= 1
    stranger, same = (rank_input(fusion.fuse(asked(packed=packed)), packed=packed, num=NUM_PRODUCTS) for packed in (None, known))
    before, after = plain.rank(stranger), ruled.rank(stranger)
    of_brand = [row for row in after.rows.tolist() if row % 4 == 3 and row % 5 and row != 7]
    places = {row: place for place, row in enumerate(before.rows.tolist())}
    assert np.mean([after.rows.tolist().index(row) for row in of_brand]) < np.mean([places[row] for row in of_brand])
    assert {row for row, reasons in zip(after.rows.tolist(), after.reasons, strict=True) if reasons[:1] == ["a good start"]} == set(of_brand)
    assert [(effect.name, effect.kind, effect.products) for effect in after.effects] == [("brand", "expert", len(of_brand))]
    assert ruled.rank(same).rows.tolist() == plain.rank(same).rows.tolist()
    assert ruled.rank(same).effects == ()


def test_served_propensities_are_frequencies_through_rules_and_diversity(fit: Path, fusion: FusionModel, ranker: RankerModel, tmp_path: Path) -> None:
    """One product pinned second, one category capped, one product out of stock, DPP: the chance of the first place, over many seeds."""
    (tmp_path / "rules.yaml").write_text(
        "pinned: [{name: pin, product: p-05, position: 2}]\ncategory_caps: [{name: cap, max_products: 2, level: 2}]\nbanned: [{name: ban, products: [p-00]}]\n"
    )
    settings = ranker.config.model_copy(update={"explore_temperature": 0.5, "rerank": RerankConfig(diversity="dpp", strength=0.3)})
    ruled = RankerModel.load(fit, tmp_path, settings)
    in_stock = np.arange(NUM_PRODUCTS) != 1
    fused = fusion.fuse(asked(packed=shopper()))
    first: dict[int, list[float]] = {}
    num = 200
    for seed in range(num):
        ranked = ruled.rank(rank_input(fused, seed=seed, in_stock=in_stock, num=5))
        assert ranked.rows[1] == 5
        assert ranked.propensities[1] == 1.0
        assert ranked.pinned_by == (None, "pin", None, None, None)
        assert not {0, 1} & set(ranked.rows.tolist())
        assert np.bincount(ranked.rows % 3).max() <= 2
        assert {effect.kind for effect in ranked.effects} >= {"stock", "banned", "pinned", "category_cap"}
        first.setdefault(int(ranked.rows[0]), []).append(float(ranked.propensities[0]))
    assert sum(chances[0] for chances in first.values()) == pytest.approx(1.0, abs=0.02)
    for chances in first.values():
        assert len(set(chances)) == 1, "the same place after the same history has one chance"
        assert len(chances) / num == pytest.approx(chances[0], abs=5 * (chances[0] * (1 - chances[0]) / num) ** 0.5 + 1e-3)


def test_a_pinned_product_that_nothing_nominated_is_shown_all_the_same(fit: Path, fusion: FusionModel, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text("pinned: [{name: pin, product: p-05, position: 1}]")
    fused = fusion.fuse(asked())
    kept = fused.candidate_rows != 5
    fewer = dataclasses.replace(fused, candidate_rows=fused.candidate_rows[kept], candidate_scores=fused.candidate_scores[kept], source=fused.source[kept])
    ranked = RankerModel.load(fit, tmp_path).rank(rank_input(fewer))
    assert (ranked.rows[0], ranked.reasons[0][0]) == (5, "chosen by the shop")


def test_show_bundle_is_planned_only_with_something_in_stock_that_goes_with_the_product_in_view(fusion: FusionModel, ranker: RankerModel) -> None:
    exploring = with_settings(ranker, explore_step_share=0.99)
    fused = dataclasses.replace(fusion.fuse(asked()), partner_rows=np.array([7, 10, 2, 4], np.int32))

    def bundles(in_stock: NDArray[np.bool_]) -> set[tuple[int, ...]]:
        ranked = [exploring.rank(rank_input(fused, focus_row=3, seed=seed, in_stock=in_stock)) for seed in range(60)]
        return {rows for each in ranked for (step, _, about), rows in zip(each.steps, each.shown_with, strict=True) if step == "show_bundle" and about == 3}

    assert bundles(np.ones(NUM_PRODUCTS, np.bool_)) == {(7, 10, 2)}
    assert bundles(np.arange(NUM_PRODUCTS) != 10) == {(7, 2, 4)}
    assert bundles(~np.isin(np.arange(NUM_PRODUCTS), [7, 10, 2, 4])) == set()


def test_chances_in_the_answer_are_the_calibrated_ones(fit: Path, fusion: FusionModel, ranker: RankerModel, tmp_path: Path) -> None:
    shutil.copytree(fit, tmp_path / "fit")
    header = json.loads((tmp_path / "fit" / "guide.json").read_text())
    header["probabilities"] = {"click": {"method": "platt", "intercept": -1.0, "slope": 0.5}}
    (tmp_path / "fit" / "guide.json").write_text(json.dumps(header))
    fused = fusion.fuse(asked())
    raw, mapped = ranker.rank(rank_input(fused)), RankerModel.load(tmp_path / "fit").rank(rank_input(fused))
    assert raw.click is not None
    assert mapped.click is not None
    assert raw.purchase is not None
    assert mapped.rows.tolist() == raw.rows.tolist(), "a map changes what a number means, not the order"
    logits = np.log(raw.click / (1 - raw.click))
    assert mapped.click == pytest.approx(1 / (1 + np.exp(1.0 - 0.5 * logits)), rel=1e-4)
    assert (raw.purchase <= raw.click).all()


def test_the_same_seed_gives_the_same_answer_and_other_seeds_explore(fusion: FusionModel, ranker: RankerModel) -> None:
    ranker = with_settings(ranker, explore_temperature=1.0, explore_step_share=0.5)
    fused = fusion.fuse(asked())
    answers = [ranker.rank(rank_input(fused, seed=seed)) for seed in (1, 1, *range(2, 12))]
    assert same(answers[0], answers[1])
    assert not all(same(answers[0], other) for other in answers[2:])


def same(one: RankOutput, other: RankOutput) -> bool:
    return np.array_equal(one.rows, other.rows) and one.steps == other.steps and np.array_equal(one.propensities, other.propensities)


def test_plackett_luce_propensities_are_exact() -> None:
    """Over all orders of the slate the products of propensities add up to 1, and draws follow them."""
    scores, temperature = np.array([0.3, 0.0, -0.2, 0.1]), 0.5
    weights = np.exp(scores / temperature)

    def chance(order: tuple[int, ...]) -> float:
        left = [weights[list(set(range(4)) - set(order[:k]))].sum() for k in range(len(order))]
        return float(np.prod([weights[item] / total for item, total in zip(order, left, strict=True)]))

    assert sum(chance(order) for order in permutations(range(4), 2)) == pytest.approx(1.0)
    counts: dict[tuple[int, ...], int] = {}
    for seed in range(2000):
        order, propensities = plackett_luce(scores, temperature, 2, np.random.default_rng(seed))
        key = tuple(order.tolist())
        counts[key] = counts.get(key, 0) + 1
        assert float(np.prod(propensities)) == pytest.approx(chance(key), rel=1e-5)
    assert counts[(0, 3)] / 2000 == pytest.approx(chance((0, 3)), abs=0.02)


def test_temperature_0_is_the_order_of_the_scores() -> None:
    order, propensities = plackett_luce(np.array([0.1, 3.0, 1.0]), 0.0, 3, np.random.default_rng(0))
    assert order.tolist() == [1, 2, 0]
    assert propensities.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("focus", [-1, 0, 1, 2])
@pytest.mark.parametrize("device", ["none", "ar", "ar+front"])
def test_planned_steps_are_legal_whatever_was_shown_before(fusion: FusionModel, ranker: RankerModel, focus: int, device: str) -> None:
    base = ranker.catalogue.grammar_base(np.array([focus]), np.array([device], dtype=object))
    fused = fusion.fuse(asked())
    rng = np.random.default_rng(focus + 10)
    steps = np.zeros(0, np.int8)
    while len(steps) < MAX_STEPS and allowed_next(base, steps[None].astype(np.int64), len(steps)).any():
        state = SessionState(steps, np.zeros(len(steps), np.int8), np.full(len(steps), 900.0), np.zeros(len(steps), np.int16))
        planned = ranker.rank(rank_input(fused, focus_row=focus, session=state, device=device, seed=int(rng.integers(99)))).steps
        so_far = steps.copy()
        for step, propensity, _row in planned:
            assert allowed_next(base, so_far[None].astype(np.int64), len(so_far))[0, STEP_INDEX[step]]
            assert 0 < propensity <= 1
            so_far = np.append(so_far, STEP_INDEX[step]).astype(np.int8)
        steps = np.append(steps, rng.choice(np.flatnonzero(allowed_next(base, steps[None].astype(np.int64), len(steps))[0]))).astype(np.int8)


@pytest.mark.parametrize("ending", ["purchase", "left"])
def test_a_session_that_has_ended_gets_no_more_steps(fusion: FusionModel, ranker: RankerModel, ending: str) -> None:
    state = SessionState(np.array([0]), np.array([OUTCOME_INDEX[ending]]), np.array([1.0]), np.array([0]))
    ranked = ranker.rank(rank_input(fusion.fuse(asked()), session=state))
    assert ranked.steps == []
    assert len(ranked.rows) == 5


def test_explored_steps_have_exact_propensities() -> None:
    base, rng, share = np.ones(NUM_STEPS, np.bool_), np.random.default_rng(0), 0.4
    first = [next_steps(rule_policy, SessionState(), base, share, rng)[0] for _ in range(2000)]
    for step, propensity in set(first):
        assert [name for name, _ in first].count(step) / 2000 == pytest.approx(propensity, abs=0.03)
    assert dict(first)["show_info"] == pytest.approx(1 - share + share / NUM_STEPS)


def test_a_title_in_words_comes_first(fusion: FusionModel, ranker: RankerModel) -> None:
    for text, row in (("物品3号", 3), ("Thing 8", 8)):
        fused = fusion.fuse(asked(text=text, locale="zh-CN"))
        assert fused.intent_label == "search"
        ranked = ranker.rank(rank_input(fused, locale="zh-CN"))
        assert ranked.rows[0] == row
        assert ranked.reasons[0][0] == "符合您的搜索"


def test_likeness_is_a_source_only_where_something_was_recognized(fusion: FusionModel) -> None:
    frame = np.zeros(1280, np.float32)
    unknown = fusion.fuse(asked(frame_embedding=frame))
    known = fusion.fuse(asked(frame_embedding=frame, recognized_rows=np.array([2], np.int32), recognized_confidences=np.array([0.8], np.float32)))
    assert not (unknown.source & Source.SIMILAR).any()
    assert (known.source & Source.SIMILAR).any()


def test_without_a_guide_model_content_ranks_and_what_is_missing_is_said(bare_fit: Path) -> None:
    fusion, ranker = FusionModel.load(bare_fit), RankerModel.load(bare_fit)
    assert (fusion.missing, fusion.degraded) == (("events",), "no_guide_model")
    fused = fusion.fuse(asked(recognized_rows=np.array([5], np.int32), recognized_confidences=np.array([0.9], np.float32)))
    ranked = ranker.rank(rank_input(fused, focus_row=5))
    assert ranked.interest is None
    assert ranked.rows[0] == 5
    assert next(step for step, _, _ in ranked.steps) in {
        step for step, index in STEP_INDEX.items() if sample_catalogue().grammar_base(np.array([5]), np.array(["ar+front"], dtype=object))[0, index]
    }
    found = ranker.rank(rank_input(fusion.fuse(asked(text="物品3号"))))
    assert found.rows[0] == 3


def left_out(fit: Path, folder: Path, *tasks: str) -> tuple[FusionModel, RankerModel]:
    """The stages of a fit whose guide model did not learn some tasks."""
    shutil.copytree(fit, folder)
    header = json.loads((folder / "guide.json").read_text())
    header["lambdas"] |= dict.fromkeys(tasks, 0.0)
    (folder / "guide.json").write_text(json.dumps(header))
    return FusionModel.load(folder), RankerModel.load(folder)


def test_a_plan_that_was_not_learned_is_the_rule_plan_and_the_rest_is_as_before(fit: Path, bare_fit: Path, tmp_path: Path) -> None:
    fusion, ranker = left_out(fit, tmp_path / "fit", "plan")
    ranker.config = RankerModel.load(bare_fit).config.model_copy(update={"explore_step_share": 0.0})
    fused = fusion.fuse(asked(packed=shopper()))
    ranked = ranker.rank(rank_input(fused, packed=shopper(), focus_row=5))
    bare = next_steps(
        rule_policy, SessionState(), sample_catalogue().grammar_base(np.array([5]), np.array(["ar+front"], dtype=object))[0], 0.0, np.random.default_rng()
    )
    assert [(step, propensity) for step, propensity, _ in ranked.steps] == bare
    assert ranked.interest is not None


def test_an_interest_that_was_not_learned_is_null(fit: Path, tmp_path: Path) -> None:
    fusion, ranker = left_out(fit, tmp_path / "fit", "interest")
    ranked = ranker.rank(rank_input(fusion.fuse(asked(packed=shopper())), packed=shopper()))
    whole = RankerModel.load(fit).rank(rank_input(FusionModel.load(fit).fuse(asked(packed=shopper())), packed=shopper()))
    assert ranked.interest is None
    assert ranked.rows.tolist() == whole.rows.tolist()


def test_without_a_learned_recommendation_content_ranks(fit: Path, bare_fit: Path, tmp_path: Path) -> None:
    fusion, ranker = left_out(fit, tmp_path / "fit", "recommendation")
    bare = FusionModel.load(bare_fit)
    bare.content = fusion.content
    scanned = asked(recognized_rows=np.array([5], np.int32), recognized_confidences=np.array([0.9], np.float32))
    fused, wanted = fusion.fuse(scanned), bare.fuse(scanned)
    assert fused.candidate_scores.tolist() == wanted.candidate_scores.tolist()
    ranked = ranker.rank(rank_input(fused, focus_row=5))
    assert ranked.rows.tolist() == RankerModel.load(bare_fit).rank(rank_input(wanted, focus_row=5)).rows.tolist()
    assert ranked.interest is None
    assert ranked.steps


def test_step_chances_are_a_policy_over_the_allowed_steps(fit: Path) -> None:
    scorer, rows = GuideScorer.load(fit), sample_examples(40)
    planned = np.flatnonzero(rows.plan_row >= 0)
    base = scorer.catalogue.grammar_base(rows.plan_row[planned], rows.device[planned])
    steps, outcomes = rows.steps[planned], np.full((len(planned), MAX_STEPS), UNKNOWN_OUTCOME, np.int8)
    for length in (0, 1):
        kept = rows.lengths[planned] >= length
        allowed = allowed_next(base[kept], steps[kept].astype(np.int64), length)
        p = scorer.step_chances(
            Asked(rows, planned[kept], steps[kept], outcomes[kept], rows.view_ms[planned][kept], rows.gestures[planned][kept], length, allowed)
        )
        assert p.shape == allowed.shape
        assert not p[~allowed].any()
        assert p[allowed.any(axis=1)].sum(axis=1) == pytest.approx(np.ones(int(allowed.any(axis=1).sum())), abs=1e-5)


def test_a_guide_model_of_another_schema_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    write_fit(tmp_path)
    path = tmp_path / "guide.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 1}))
    (tmp_path / "guide.safetensors").unlink()
    with pytest.raises(BundleError, match="train again"):
        load_guide(tmp_path)
