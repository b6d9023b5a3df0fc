"""Expert rules: whom they hold for, which products they move, and that they end where evidence begins."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guidelens.config import RerankConfig
from guidelens.errors import ConfigError
from guidelens.inference.reranking import Candidates, ExpertRule, ProductFacts, Reranker, RuleSet, ShopRules, Situation, read_rules
from guidelens.inference.reranking.expert import ProfileSigns
from guidelens.inference.words import with_rules
from guidelens.schemas.ids import stable_hash
from guidelens.schemas.packed import PACKED_DTYPE, PACKED_SCHEMA_VERSION, PROFILE_FIELDS

IDS = [f"p-{i}" for i in range(4)]
FACTS = ProductFacts(
    categories=["food/teas", "furniture/chairs", "furniture/lamps", "foodware/cups"],
    brands=["Oak", "Oak", "", "Elm"],
    attributes=[{"colour": "green"}, {"colour": "red", "use": ["office", "home"]}, {"colour": "red"}, {}],
    clicks_N=np.array([0, 3, 40, 12]),
)
PRICES = np.array([500.0, 9000.0, np.nan, 700.0])
ALL = np.arange(4)
STRANGER = Situation(now_us=0, channel="web")


def shop(*rules: dict[str, Any], facts: ProductFacts | None = FACTS) -> ShopRules:
    return ShopRules(RuleSet.model_validate_json(json.dumps({"expert": rules})), IDS, FACTS.categories, facts)


def moved(situation: Situation = STRANGER, **rule: Any) -> list[float]:
    given = {"name": "one", "nats": 1.0, "visits_below": 3} | rule
    return shop({name: value for name, value in given.items() if value is not None}).boosts(ALL, situation, PRICES).nats_C.tolist()


def packed(num_visits: int = 0, **profile: str) -> bytes:
    row = np.zeros(1, dtype=PACKED_DTYPE)
    row["version"], row["num_recent"] = PACKED_SCHEMA_VERSION, num_visits
    row["profile_ids"][0] = [stable_hash(profile[name]) if name in profile else 0 for name in PROFILE_FIELDS]
    return row.tobytes()


def asking(row: bytes | None, device: str = "ar", text: str | None = None) -> Situation:
    return Situation.of(0, "web", "", device, text, row)


@pytest.mark.parametrize(
    ("products", "expected"),
    [
        ({"categories": ["furniture"]}, [0, 1, 1, 0]),
        ({"categories": ["food"]}, [1, 0, 0, 0]),
        ({"brands": ["Oak"]}, [1, 1, 0, 0]),
        ({"attributes": {"colour": ["red", "blue"]}}, [0, 1, 1, 0]),
        ({"attributes": {"use": ["home"]}}, [0, 1, 0, 0]),
        ({"attributes": {"colour": ["red"], "use": ["home"]}, "brands": ["Oak"]}, [0, 1, 0, 0]),
        ({"max_minor": 700}, [1, 0, 0, 1]),
        ({"min_minor": 600, "categories": ["furniture", "foodware"]}, [0, 1, 0, 1]),
    ],
)
def test_products_are_found_by_what_they_are_and_cost(products: dict[str, Any], expected: list[float]) -> None:
    assert moved(products=products) == expected


def test_a_rule_ends_where_the_shopper_s_evidence_begins() -> None:
    chairs = {"products": {"categories": ["furniture"]}}
    assert [sum(moved(asking(packed(visits)), **chairs)) for visits in (0, 2, 3, 20)] == [2, 2, 0, 0]
    assert sum(moved(asking(None), **chairs)) == 2, "nobody knows a stranger's visits"


def test_a_rule_ends_where_the_product_s_evidence_begins() -> None:
    assert moved(asking(packed(20)), visits_below=None, clicks_below=12) == [1, 1, 0, 0]
    assert moved(asking(packed(20)), visits_below=1, clicks_below=12) == [0, 0, 0, 0]


def test_the_profile_must_hold_in_every_field_and_an_unknown_field_holds_nothing() -> None:
    rule = {"products": {"brands": ["Elm"]}, "shopper": {"age_band": ["18-24", "25-34"], "region": ["north"]}}
    assert sum(moved(asking(packed(age_band="25-34", region="north")), **rule)) == 1
    assert sum(moved(asking(packed(age_band="25-34", region="south")), **rule)) == 0
    assert sum(moved(asking(packed(age_band="25-34")), **rule)) == 0
    assert sum(moved(asking(None), **rule)) == 0
    assert set(ProfileSigns.model_fields) == set(PROFILE_FIELDS)


@pytest.mark.parametrize(("text", "holds"), [("a Gift for mum", 1), ("gifted", 0), ("想买个礼物送妈妈", 1), ("买gift送人", 1), (None, 0), ("lamp", 0)])
def test_words_are_found_whole_in_latin_and_anywhere_in_chinese(text: str | None, holds: int) -> None:
    assert sum(moved(asking(None, text=text), products={"brands": ["Elm"]}, session={"words": ["gift", "礼物"]})) == holds


def test_the_device_and_the_time_must_hold_too() -> None:
    rule = {"products": {"brands": ["Elm"]}, "session": {"devices": ["ar", "ar+front"]}}
    assert [sum(moved(asking(None, device=device), **rule)) for device in ("ar", "none")] == [1, 0]
    assert sum(moved(STRANGER, products={"brands": ["Elm"]}, when={"channels": ["store"]})) == 0


def test_rules_add_up_act_before_the_order_and_are_named() -> None:
    rules = shop(
        {"name": "up", "visits_below": 3, "products": {"categories": ["furniture"]}, "nats": 2.0, "reason": {"en": "new homes like it"}},
        {"name": "red", "visits_below": 3, "products": {"attributes": {"colour": ["red"]}, "max_minor": 10_000}, "nats": 1.0},
        {"name": "down", "visits_below": 3, "products": {"brands": ["Oak"]}, "nats": -0.5},
    )
    boosts = rules.boosts(ALL, STRANGER, PRICES)
    assert boosts.nats_C.tolist() == [-0.5, 2.5, 2.0, 0.0]
    assert {effect.name: (effect.kind, effect.products) for effect in boosts.effects} == {"up": ("expert", 2), "red": ("expert", 1), "down": ("expert", 2)}
    scores = np.array([3.0, 1.0, 0.5, 0.0])
    slate = Reranker(RerankConfig(), 0.0).slate(Candidates(ALL, scores + boosts.nats_C, PRICES), rules, STRANGER, 4, np.random.default_rng(0))
    assert slate.chosen_K.tolist() == [1, 0, 2, 3]
    said = with_rules([boosts.rules_C[place] for place in slate.chosen_K], [None, "pin", None, None], "en")
    assert said == [["new homes like it", "suggested by the shop's experts"], ["chosen by the shop"], ["new homes like it"], []]
    assert with_rules([boosts.rules_C[1]], [None], "zh-CN") == [["店内专家推荐"]], "no Chinese words of its own: the general ones, once"


def test_draws_by_moved_scores_have_their_exact_propensities() -> None:
    boosts = shop({"name": "up", "visits_below": 1, "products": {"brands": ["Elm"]}, "nats": 1.5}).boosts(ALL, STRANGER, PRICES)
    reranker, firsts = Reranker(RerankConfig(), 1.0), np.zeros(4)
    stated = np.full(4, np.nan)
    for seed in range(4000):
        slate = reranker.slate(Candidates(ALL, boosts.nats_C, PRICES), shop(), STRANGER, 1, np.random.default_rng(seed))
        firsts[slate.chosen_K[0]] += 1
        stated[slate.chosen_K[0]] = slate.propensities_K[0]
    assert stated == pytest.approx(np.exp(boosts.nats_C) / np.exp(boosts.nats_C).sum(), abs=1e-6)
    assert firsts / 4000 == pytest.approx(stated, abs=0.03)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"visits_below": None}, "visits_below or clicks_below"),
        ({"visits_below": 21}, "less than or equal to 20"),
        ({"nats": 0}, "nats 0"),
        ({"nats": 50}, "less than or equal to 5"),
        ({"products": {}}, "moving all alike"),
        ({"products": {"min_minor": 5, "max_minor": 4}}, "must not exceed"),
        ({"products": {"attributes": {"colour": []}}}, "at least 1"),
        ({"shopper": {"star_sign": ["leo"]}}, "expert.0.shopper.star_sign"),
        ({"session": {"devices": ["telescope"]}}, "expert.0.session.devices"),
        ({"name": "Not a name"}, "expert.0.name"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_place(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    rule = {"name": "one", "visits_below": 3, "products": {"brands": ["Oak"]}, "nats": 1.0} | change
    path = tmp_path / "rules.yaml"
    path.write_text(json.dumps({"expert": [{name: value for name, value in rule.items() if value is not None}]}))
    with pytest.raises(ConfigError, match=words):
        read_rules(path)


def test_names_are_shared_with_the_other_rules(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text("banned: [{name: x, products: [p]}]\nexpert: [{name: x, clicks_below: 2, nats: 1}]")
    with pytest.raises(ConfigError, match="x more than once"):
        read_rules(path)


def test_a_release_that_did_not_count_clicks_cannot_hold_a_rule_that_asks_for_them() -> None:
    uncounted = ProductFacts(FACTS.categories, FACTS.brands, FACTS.attributes, None)
    with pytest.raises(ConfigError, match="build the release again"):
        shop({"name": "new", "clicks_below": 2, "nats": 1.0}, facts=uncounted)
    with pytest.raises(ConfigError, match="what the products are"):
        shop({"name": "new", "clicks_below": 2, "nats": 1.0}, facts=None)
    assert shop(facts=None).boosts(ALL, STRANGER, PRICES).effects == ()


def test_rules_about_products_that_are_not_there_are_told() -> None:
    found = shop({"name": "ghosts", "visits_below": 2, "products": {"brands": ["Ghost"]}, "nats": 1.0})
    assert found.idle == ("ghosts",)


def test_the_example_file_is_one() -> None:
    found = read_rules(Path(__file__).parents[2] / "docs" / "examples" / "rules.yaml")
    assert [rule.name for rule in found.expert] == ["young-and-colourful", "presents-are-no-groceries", "newcomers"]
    assert all(isinstance(rule, ExpertRule) for rule in found.expert)


def test_without_rules_nothing_is_moved() -> None:
    assert RuleSet().expert == ()
    assert shop().boosts(ALL, STRANGER, PRICES).nats_C.tolist() == [0, 0, 0, 0]
