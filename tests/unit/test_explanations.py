"""Reasons: an input is named only where taking it away lowers the product's lead, and taking it away is exact."""

import dataclasses

import numpy as np
import pytest
from fit_samples import write_fit
from model_samples import NUM_PRODUCTS, START_US, packed_row, sample_catalogue, sample_config

from guidelens.data.examples import Examples
from guidelens.data.visits import InterestMedians
from guidelens.inference.explain import EVERYTHING, Explainer, Explanation
from guidelens.inference.guide_files import GuideHeader
from guidelens.inference.messages import Source
from guidelens.inference.reasons import MIN_EFFECT, reasons_of, reasons_of_sources
from guidelens.inference.rows import request_row
from guidelens.inference.scorer import GuideScorer
from guidelens.inference.words import REASONS, reason
from guidelens.models.guide import GuideModel, GuideSpec
from guidelens.schemas.packed import PACKED_DTYPE

NOW_US = START_US + 3_600_000_000
ROWS = np.array([4, 1, 9])


@pytest.fixture(scope="module")
def explainer(tmp_path_factory: pytest.TempPathFactory) -> Explainer:
    return Explainer(GuideScorer.load(write_fit(tmp_path_factory.mktemp("fit"))))


def request(**changes: object) -> Examples:
    rng = np.random.default_rng(5)
    known: dict[str, object] = {
        "packed": packed_row(np.random.default_rng(3), NOW_US - 1_000_000, [f"p-{i:02d}" for i in range(NUM_PRODUCTS)]),
        "focus_row": 4,
        "frame_embedding": rng.normal(0.5, 1, 1280).astype(np.float32),
        "query_embedding": rng.normal(0, 0.05, 512).astype(np.float32),
    }
    fields = {**known, **changes}
    return request_row(fields.pop("packed"), "ar+front", NOW_US, channel="app", **fields)  # type: ignore[arg-type]


def lead(explainer: Explainer, row: Examples) -> np.ndarray:
    scores_N = explainer.scorer.product_scores(row)[0]
    return scores_N[ROWS] - scores_N[explainer.reference_F].mean()


def test_leads_are_those_of_the_ranking_scores(explainer: Explainer) -> None:
    assert explainer.explain(request(), ROWS).lead_C == pytest.approx(lead(explainer, request()), abs=1e-4)


@pytest.mark.parametrize(("name", "gone"), [("frame", {"frame_embedding": None}), ("query", {"query_embedding": None}), ("focus", {"focus_row": -1})])
def test_taking_an_input_away_equals_a_request_that_never_had_it(explainer: Explainer, name: str, gone: dict[str, object]) -> None:
    found = explainer.explain(request(), ROWS)
    assert found.without_IC[found.inputs.index(name)] == pytest.approx(lead(explainer, request(**gone)), abs=1e-4)


def test_taking_everything_away_equals_a_stranger_who_shows_and_asks_nothing(explainer: Explainer) -> None:
    stranger = request(packed=None, focus_row=-1, frame_embedding=None, query_embedding=None)
    assert explainer.explain(request(), ROWS).stranger_C == pytest.approx(lead(explainer, stranger), abs=1e-4)
    assert explainer.leads(request(), [(EVERYTHING,)], ROWS)[0] == pytest.approx(lead(explainer, stranger), abs=1e-4)


def test_taking_a_visit_away_equals_a_shopper_without_it(explainer: Explainer) -> None:
    row = request()
    packed = np.frombuffer(row.packed[0], dtype=PACKED_DTYPE).copy()
    num = int(packed["num_recent"][0])
    assert num >= 2
    packed["num_recent"] = num - 1
    fewer = dataclasses.replace(row, packed=np.array([packed.tobytes(), None], dtype=object)[:1])
    found = explainer.explain(row, ROWS)
    assert len(found.visits_H) == num
    assert found.without_HC[num - 1] == pytest.approx(lead(explainer, fewer), abs=1e-4)


def test_only_inputs_that_are_there_are_explained(explainer: Explainer) -> None:
    assert explainer.explain(request(packed=None, query_embedding=None), ROWS).inputs == ("frame", "focus")
    assert explainer.explain(request(packed=None, focus_row=-1, frame_embedding=None, query_embedding=None), ROWS).inputs == ()


def test_the_additive_share_is_what_the_likeness_adds_at_an_equal_intent(explainer: Explainer) -> None:
    """The frame's own terms of the retrieval logit, by the model's weights."""
    found, model = explainer.explain(request(), ROWS), explainer.scorer.model
    encoded = explainer.scorer.encode(request())
    gone = encoded._replace(looked=encoded.looked._replace(frame_BR=encoded.looked.frame_BR * 0))
    whole, less = (model.retrieval(one, explainer.scorer.inputs, explainer.scorer.items_ND)[0].numpy() for one in (encoded, gone))
    own = whole - less
    assert found.direct_IC[found.inputs.index("frame")] == pytest.approx(own[ROWS] - own[explainer.reference_F].mean(), abs=1e-4)


def test_attention_weighs_the_inputs_that_are_there(explainer: Explainer) -> None:
    weights = explainer.attention(request(packed=None))
    assert set(weights) == {"frame", "query", "focus"}
    assert all(0 < weight < 1 for weight in weights.values())


def explanation(**effects: float) -> Explanation:
    """Of one product, by what each input added."""
    names = tuple(name for name in effects if name not in {"visit", "stranger"})
    return Explanation(
        inputs=names,
        lead_C=np.array([2.0]),
        without_IC=np.array([[2.0 - effects[name]] for name in names]).reshape(-1, 1),
        direct_IC=np.array([[effects[name]] for name in names]).reshape(-1, 1),
        visits_H=np.array([7]) if "visits" in effects else np.zeros(0, np.int64),
        without_HC=np.array([[2.0 - effects.get("visit", 0.0)]]) if "visits" in effects else np.zeros((0, 1)),
        stranger_C=np.array([effects.get("stranger", 0.0)]),
    )


def keys(found: Explanation, row: int = 3) -> list[str]:
    return [one.key for one in reasons_of(found, np.array([row]))[0]]


def test_an_input_that_did_not_raise_the_score_is_never_named() -> None:
    assert keys(explanation(frame=-0.5, query=MIN_EFFECT / 2, profile=0.0)) == []
    assert keys(explanation(frame=-0.5, query=0.4, profile=0.2, stranger=-1.0)) == ["query", "profile"]


def test_reasons_come_by_what_they_added_and_general_appeal_comes_last() -> None:
    assert keys(explanation(profile=0.3, query=2.0, stranger=5.0)) == ["query", "profile", "popular"]
    assert keys(explanation(profile=0.3, query=2.0, ar=0.2, behaviour=0.4, stranger=5.0)) == ["query", "behaviour", "profile"]


def test_a_visit_is_named_where_it_did_most_of_what_visits_did() -> None:
    named = reasons_of(explanation(visits=1.0, visit=0.8), np.array([3]))[0][0]
    assert (named.key, named.about) == ("visit", 7)
    assert keys(explanation(visits=1.0, visit=0.8), row=7) == ["same_visit"]
    assert keys(explanation(visits=1.0, visit=0.2)) == ["visits"]


def test_likeness_is_called_one_only_where_it_is_most_of_the_effect() -> None:
    found = explanation(frame=1.0)
    assert keys(found) == ["looks_like_frame"]
    assert keys(dataclasses.replace(found, direct_IC=found.direct_IC * 0.1)) == ["frame"]


def test_a_lift_outside_the_model_counts_for_its_input() -> None:
    found = explanation(query=0.0, frame=0.5).with_lift("query", np.array([6.0]))
    assert keys(found) == ["query", "looks_like_frame"]
    assert found.lead_C[0] == pytest.approx(8.0)


def test_without_a_guide_model_reasons_are_what_the_content_score_is_made_of() -> None:
    sources = np.array([Source.SEARCH | Source.POPULAR, Source.SIMILAR, Source.RETRIEVAL], dtype=np.uint8)
    found = reasons_of_sources(sources, np.array([False, True, False]))
    assert [[one.key for one in each] for each in found] == [["query", "popular"], [], []]


def test_every_reason_has_both_languages() -> None:
    for key in REASONS:
        assert reason(key, "en", "Oak chair") != reason(key, "zh-CN", "橡木椅子")
    assert reason("visit", "zh-CN", "橡木椅子") == "因为您看过橡木椅子"


def test_examples_with_the_same_seed_explain_the_same(explainer: Explainer) -> None:
    one, other = explainer.explain(request(), ROWS), explainer.explain(request(), ROWS)
    assert np.array_equal(one.without_IC, other.without_IC)


def test_a_fusion_without_weights_has_no_attention_to_read() -> None:
    """Concatenation: nothing is made up in its place."""
    model = GuideModel(sample_config(fusion="concat").train.model, GuideSpec(num_products=NUM_PRODUCTS)).eval()
    header = GuideHeader(model=model.config, spec=model.spec, medians=InterestMedians(), lambdas={"recommendation": 1.0})
    assert Explainer(GuideScorer(model, header, sample_catalogue())).attention(request()) == {}
