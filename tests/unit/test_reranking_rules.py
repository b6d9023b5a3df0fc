"""A shop's rules: what they take out, pin and cap, when they hold, and which files are refused."""

import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guidelens.config import RerankConfig
from guidelens.errors import ConfigError
from guidelens.inference.reranking import Candidates, LiveRules, Reranker, RuleSet, ShopRules, Situation, read_rules

IDS = [f"p-{i}" for i in range(8)]
CATEGORIES = ["food/teas", "food/teas", "food/juices", "furniture/chairs", "furniture/chairs", "furniture/lamps", "foodware/cups", "wearables/rings"]
PRICES = np.array([100.0, 200.0, 300.0, 400.0, 500.0, 600.0, np.nan, 800.0])
SCORES = np.arange(8, 0, -1).astype(np.float64)


def micros(text: str) -> int:
    return int(datetime.fromisoformat(text).astimezone(UTC).timestamp() * 1e6)


NOW = Situation(now_us=micros("2026-03-10T12:00:00Z"), channel="web", category="furniture/chairs")


def ruled(rules: dict[str, Any], situation: Situation = NOW, num: int = 8, in_stock: np.ndarray | None = None) -> tuple[list[str], Any]:
    shop = ShopRules(RuleSet.model_validate_json(json.dumps(rules)), IDS, CATEGORIES)
    slate = Reranker(RerankConfig(), 0.0).slate(Candidates(np.arange(8), SCORES, PRICES, in_stock), shop, situation, num, np.random.default_rng(0))
    return [IDS[index] for index in slate.chosen_K], slate


def effects(slate: Any) -> dict[str, tuple[str, int]]:
    return {effect.name: (effect.kind, effect.products) for effect in slate.effects}


def test_without_rules_the_order_is_that_of_the_scores_and_nothing_is_said_to_have_acted() -> None:
    order, slate = ruled({})
    assert order == IDS
    assert slate.effects == ()


def test_products_and_whole_categories_are_banned_by_level() -> None:
    order, slate = ruled({"banned": [{"name": "no-food", "categories": ["food"], "products": ["p-7"]}]})
    assert order == ["p-3", "p-4", "p-5", "p-6"], "foodware is no food"
    assert effects(slate) == {"no-food": ("banned", 4)}


def test_a_pinned_product_stands_at_its_place_and_is_named() -> None:
    order, slate = ruled({"pinned": [{"name": "spring", "product": "p-7", "position": 2}]}, num=3)
    assert order == ["p-0", "p-7", "p-1"]
    assert slate.pinned_by == (None, "spring", None)
    assert effects(slate) == {"spring": ("pinned", 1)}


def test_what_is_out_of_stock_is_neither_shown_nor_pinned() -> None:
    in_stock = np.array([True, True, True, True, True, True, True, False])
    order, slate = ruled({"pinned": [{"name": "spring", "product": "p-7", "position": 1}]}, in_stock=in_stock)
    assert "p-7" not in order
    assert effects(slate) == {"stock": ("stock", 1)}
    order, _ = ruled({"stock": False}, in_stock=in_stock)
    assert "p-7" in order


def test_a_price_band_holds_for_its_categories_and_keeps_what_has_no_price() -> None:
    order, slate = ruled({"price_bands": [{"name": "mid", "min_minor": 200, "max_minor": 500}]})
    assert order == ["p-1", "p-2", "p-3", "p-4", "p-6"]
    assert effects(slate) == {"mid": ("price_band", 3)}
    order, _ = ruled({"price_bands": [{"name": "cheap-food", "max_minor": 100, "categories": ["food"]}]})
    assert order == ["p-0", "p-3", "p-4", "p-5", "p-6", "p-7"]


def test_a_cap_limits_each_category_and_says_how_many_it_held_back() -> None:
    order, slate = ruled({"category_caps": [{"name": "one-a-kind", "max_products": 1, "level": 2}]})
    assert order == ["p-0", "p-2", "p-3", "p-5", "p-6", "p-7"]
    assert effects(slate) == {"one-a-kind": ("category_cap", 2)}
    order, _ = ruled(
        {"category_caps": [{"name": "food", "max_products": 2, "categories": ["food"]}], "pinned": [{"name": "pin", "product": "p-2", "position": 8}]}, num=8
    )
    assert [name for name in order if name in {"p-0", "p-1", "p-2"}] == ["p-0", "p-2"], "the place of a pinned product counts from the start"


@pytest.mark.parametrize(
    ("when", "holds"),
    [
        ({"since": "2026-03-10T12:00:00Z"}, True),
        ({"since": "2026-03-10T13:00:00+00:00"}, False),
        ({"until": "2026-03-10T12:00:00Z"}, False),
        ({"until": "2026-03-10T20:00:01+08:00"}, True),
        ({"channels": ["app", "web"]}, True),
        ({"channels": ["store"]}, False),
        ({"in_view": ["furniture"]}, True),
        ({"in_view": ["furn"]}, False),
    ],
)
def test_a_rule_holds_in_its_time_channel_and_category_in_view(when: dict[str, Any], holds: bool) -> None:
    order, _ = ruled({"banned": [{"name": "one", "products": ["p-0"], "when": when}]})
    assert ("p-0" not in order) == holds


PIN = {"name": "pin", "product": "p-0", "position": 1}


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"pinned": [PIN], "banned": [{"name": "ban", "products": ["p-0"]}]}, "p-0 must not be pinned by pin and banned by ban"),
        ({"pinned": [PIN], "banned": [{"name": "ban", "categories": ["food"]}]}, "while ban bans its category"),
        ({"pinned": [PIN, {"name": "other", "product": "p-1", "position": 1}]}, "pin place 1 at one time"),
        ({"pinned": [PIN, {"name": "other", "product": "p-0", "position": 2}]}, "pin p-0 at one time"),
        (
            {"pinned": [PIN, {"name": "b", "product": "p-1", "position": 2}], "category_caps": [{"name": "cap", "max_products": 1}]},
            "cap allows 1 products of a category, got 2",
        ),
        ({"pinned": [PIN], "banned": [{"name": "pin", "products": ["p-1"]}]}, "different names, got pin"),
        ({"price_bands": [{"name": "band"}]}, "min_minor or max_minor"),
        ({"price_bands": [{"name": "band", "min_minor": 5, "max_minor": 4}]}, "must not exceed"),
        ({"banned": [{"name": "ban"}]}, "products or categories"),
        ({"banned": [{"name": "ban", "products": ["p-1"], "when": {"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}}]}, "must lie before"),
        ({"banned": [{"name": "ban", "products": ["p-1"], "when": {"since": "2026-01-02"}}]}, "since"),
        ({"pined": [PIN]}, "pined"),
        ({"schema_version": 2}, "schema_version"),
    ],
)
def test_rules_that_contradict_themselves_are_refused_at_load(tmp_path: Path, rules: dict[str, Any], words: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(json.dumps(rules))
    with pytest.raises(ConfigError, match=words):
        ShopRules(read_rules(path), IDS, CATEGORIES)


def test_a_pin_and_a_ban_of_different_times_or_channels_are_no_conflict() -> None:
    apart = [
        ({"until": "2026-03-01T00:00:00Z"}, {"since": "2026-03-01T00:00:00Z"}),
        ({"channels": ["app"]}, {"channels": ["web"]}),
        ({"in_view": ["food"]}, {"in_view": ["furniture"]}),
    ]
    for pin, ban in apart:
        rules = {"pinned": [{**PIN, "when": pin}], "banned": [{"name": "ban", "products": ["p-0"], "when": ban}]}
        ShopRules(RuleSet.model_validate_json(json.dumps(rules)), IDS, CATEGORIES)


def test_yaml_is_read_as_people_write_it(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text("banned:\n  - name: recall\n    products: [p-1]\n    when: {since: 2026-03-01T00:00:00Z}\n")
    assert read_rules(path).banned[0].when.since == datetime(2026, 3, 1, tzinfo=UTC)
    path.write_text("")
    assert read_rules(path) == RuleSet()
    path.write_text("banned: [")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_rules(path)


def write(path: Path, rules: dict[str, Any], mtime_s: int) -> None:
    path.write_text(json.dumps(rules))
    os.utime(path, (mtime_s, mtime_s))


def test_rules_of_the_home_replace_the_releases_and_a_broken_change_leaves_those_before_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    home, bundled = tmp_path / "rules.yaml", tmp_path / "rules.json"
    write(bundled, {"banned": [{"name": "bundled", "products": ["p-1"]}]}, 1)
    live = LiveRules([home, bundled], IDS, CATEGORIES)
    assert live.current().rules.banned[0].name == "bundled"
    write(home, {"banned": [{"name": "of-the-home", "products": ["p-2", "gone"]}]}, 2)
    assert live.current().rules.banned[0].name == "of-the-home"
    assert live.current().unknown == ("gone",)
    write(home, {"banned": [{"name": "broken"}]}, 3)
    with caplog.at_level(logging.ERROR):
        assert live.current().rules.banned[0].name == "of-the-home"
    assert live.problem is not None
    assert "products or categories" in live.problem
    assert "stay in force" in caplog.text
    write(home, {}, 4)
    assert live.current().rules == RuleSet()
    assert live.problem is None


def test_serving_does_not_start_with_rules_that_cannot_be_used(tmp_path: Path) -> None:
    write(tmp_path / "rules.yaml", {"banned": [{"name": "broken"}]}, 1)
    with pytest.raises(ConfigError):
        LiveRules([tmp_path / "rules.yaml"], IDS, CATEGORIES)
