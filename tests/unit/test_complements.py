"""What goes with what: found from engagement across categories, carried to products nobody met, kept in a fit."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from model_samples import sample_catalogue

from guidelens.data.examples import Examples, empty
from guidelens.errors import BundleError
from guidelens.models.complements import ComplementModel, ComplementSettings, Lifts, Partners, fit_complements
from guidelens.models.engaged_pairs import CO_ENGAGED_WEIGHT, PURCHASE_WEIGHT, Pairs, category_numbers, engaged_pairs

NUM = 24
CATEGORIES = [f"shop/kind{i % 4}/sort{i}" for i in range(NUM)]
CATEGORY_N = category_numbers(CATEGORIES)
SETTINGS = ComplementSettings(reverse=0.0, category=1.0, pair=5.0)


def slates(focus: list[int], shown: list[list[int]], clicked: list[list[int]], ts_us: list[int] | None = None, shopper: list[str] | None = None) -> Examples:
    base = empty(len(focus), len(shown[0]))
    return dataclasses.replace(
        base,
        ts_us=np.array(ts_us or [day * 10 * 86_400_000_000 for day in range(len(focus))], dtype=np.int64),
        shopper_key=np.array(shopper or [f"k-{i}" for i in range(len(focus))], dtype=object),
        focus_row=np.array(focus, dtype=np.int32),
        slate_rows=np.array(shown, dtype=np.int32),
        click=np.array([[float(row in hit) for row in each] for each, hit in zip(shown, clicked, strict=True)], dtype=np.float32),
        purchase=np.zeros((len(focus), len(shown[0])), dtype=np.float32),
    )


def as_dict(pairs: Pairs) -> dict[tuple[int, int], float]:
    return {(int(a), int(b)): float(w) for a, b, w in zip(*pairs, strict=True)}


def test_categories_are_told_apart_down_to_the_levels_asked_for() -> None:
    assert CATEGORY_N.tolist() == [i % 4 for i in range(NUM)]
    assert len(set(category_numbers(CATEGORIES, 3).tolist())) == NUM


def test_pairs_are_what_is_clicked_while_another_category_is_in_focus_or_beside_it() -> None:
    """0, 4 are of one category; 1, 5 of another; 2 of a third."""
    found = engaged_pairs(slates([0, -1], [[4, 1, 2], [1, 2, 3]], [[4, 1], [1, 2]]), CATEGORY_N)
    assert as_dict(found) == {(0, 1): 1.0, (4, 1): 0.25, (1, 4): 0.25, (1, 2): CO_ENGAGED_WEIGHT, (2, 1): CO_ENGAGED_WEIGHT}


def test_a_purchase_counts_more_than_a_click() -> None:
    rows = slates([0], [[1, 2]], [[1]])
    bought = dataclasses.replace(rows, purchase=np.array([[1.0, 0.0]], dtype=np.float32))
    assert as_dict(engaged_pairs(bought, CATEGORY_N)) == {(0, 1): PURCHASE_WEIGHT}


def test_what_a_shopper_clicked_within_a_day_before_leads_to_what_comes_after_and_not_back() -> None:
    hour = 3_600_000_000
    rows = slates([-1, -1, -1], [[1], [2], [3]], [[1], [2], [3]], ts_us=[0, 5 * hour, 40 * hour], shopper=["k", "k", "k"])
    assert as_dict(engaged_pairs(rows, CATEGORY_N)) == {(1, 2): CO_ENGAGED_WEIGHT}
    strangers = dataclasses.replace(rows, shopper_key=np.array(["a", "b", "c"], dtype=object))
    assert as_dict(engaged_pairs(strangers, CATEGORY_N)) == {}


def pairs_of_rule(num: int, seed: int = 0) -> Pairs:
    """Kind 0 leads to kind 1 three times in four, else anywhere; the other way round nothing special happens."""
    rng = np.random.default_rng(seed)
    anchor = rng.integers(0, NUM, num)
    partner = rng.integers(0, NUM, num)
    led = (anchor % 4 == 0) & (rng.random(num) < 0.75)
    partner[led] = rng.integers(0, NUM // 4, int(led.sum())) * 4 + 1
    across = anchor % 4 != partner % 4
    return Pairs(anchor[across], partner[across], np.ones(int(across.sum())))


def test_a_direction_is_kept_and_the_reverse_counts_as_much_as_it_is_let() -> None:
    share_N = np.full(NUM, 1 / NUM)
    one_way = Lifts.of(pairs_of_rule(3000), CATEGORY_N, share_N, SETTINGS).log_category_CC
    assert one_way[0, 1] > 0.6
    assert abs(one_way[1, 0]) < 0.2
    both_ways = Lifts.of(pairs_of_rule(3000), CATEGORY_N, share_N, SETTINGS.model_copy(update={"reverse": 1.0}))
    assert both_ways.log_category_CC[1, 0] > 0.2


def test_few_engagements_are_shrunk_towards_no_lift_and_pairs_towards_their_categories() -> None:
    share_N = np.full(NUM, 1 / NUM)
    little = Pairs(np.array([0]), np.array([1]), np.ones(1))
    lifts = Lifts.of(little, CATEGORY_N, share_N, SETTINGS.model_copy(update={"category": 20.0, "pair": 20.0}))
    assert 0 < lifts.log_category_CC[0, 1] < 0.1
    lift_AN = lifts.of_anchors(np.array([0, 4]))
    assert lift_AN[0, 1] > lift_AN[0, 5] == pytest.approx(lift_AN[1, 1])


def content(seed: int = 0) -> np.ndarray:
    """Each product's style in two numbers, of unit length."""
    angle = np.random.default_rng(seed).uniform(0, 2 * np.pi, NUM)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def test_content_finds_partners_for_products_that_were_never_met() -> None:
    """Partners are those of the nearest style; products 20 to 23 are in no pair, yet near ones stand above far ones."""
    style, rng = content(), np.random.default_rng(1)
    anchor, partner = rng.integers(0, 20, 6000), rng.integers(0, 20, 6000)
    alike = (style[anchor] * style[partner]).sum(1)
    kept = (anchor % 4 != partner % 4) & (rng.random(6000) < np.exp(2 * alike - 2))
    pairs = Pairs(anchor[kept], partner[kept], np.ones(int(kept.sum())))
    with_content = ComplementModel.fit(pairs, CATEGORY_N, np.ones(NUM), style, SETTINGS.model_copy(update={"content": True, "decay": 1e-4}), 0)
    without = ComplementModel.fit(pairs, CATEGORY_N, np.ones(NUM), style, SETTINGS, 0)
    cold = np.arange(20, 24)
    across = CATEGORY_N[cold][:, None] != CATEGORY_N[None]
    likeness = style[cold] @ style.T

    def agreement(model: ComplementModel) -> float:
        return float(np.corrcoef(model.log_lift(cold)[across], likeness[across])[0, 1])

    assert agreement(with_content) > 0.6
    assert abs(agreement(without)) < 0.4


def test_partners_are_of_other_categories_lifted_and_best_first() -> None:
    model = ComplementModel.fit(pairs_of_rule(3000), CATEGORY_N, np.ones(NUM), content(), SETTINGS, 0)
    partners = model.partners(5, chunk=7)
    assert set(CATEGORY_N[partners.of(0)].tolist()) == {1}
    for row in range(NUM):
        found = partners.of(row)
        assert (CATEGORY_N[found] != CATEGORY_N[row]).all()
        scores = model.scores(np.array([row]))[0][found]
        assert (np.diff(scores) <= 1e-12).all()
        assert (model.log_lift(np.array([row]))[0][found] > 0).all()
    assert len(partners.of(-1)) == 0


def test_settings_are_chosen_on_validation_and_a_small_log_says_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    catalogue = sample_catalogue()
    categories = [f"things/kind{i % 3}" for i in range(12)]
    focus = rng.integers(0, 12, 400).tolist()
    shown = [rng.permutation(12)[:4].tolist() for _ in focus]
    clicked = [[row for row in each if row % 3 == (at + 1) % 3 and rng.random() < 0.6] for at, each in zip(focus, shown, strict=True)]
    rows = slates(focus, shown, clicked)
    split = np.where(np.arange(400) < 300, "train", "val").astype(object)
    found = fit_complements(dataclasses.replace(rows, split=split), catalogue, categories, 0)
    assert found is not None
    model, header = found
    assert header.val_pairs > 0
    assert model.log_lift(np.array([0]))[0][1] > 0.5 > model.log_lift(np.array([0]))[0][2]
    partners = model.partners()
    partners.save(tmp_path, header)
    back = Partners.load(tmp_path, 12)
    assert back is not None
    assert np.array_equal(back.rows_NK, partners.rows_NK)
    with pytest.raises(BundleError, match="13 products"):
        Partners.load(tmp_path, 13)
    assert Partners.load(tmp_path / "none", 12) is None
    few = dataclasses.replace(rows.take(np.arange(5)), split=np.full(5, "train", dtype=object))
    assert fit_complements(few, catalogue, categories, 0) is None
