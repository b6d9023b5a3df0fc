"""Orders of a slate: logged propensities are frequencies, whatever pins, caps and diversity do; MMR and DPP do what their papers say."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from guidelens.inference.reranking import Constraints, Dpp, Mmr, diversity, draw_order

NUM_DRAWS = 6000


def unit(rng: np.random.Generator, num: int, size: int = 4) -> NDArray[np.float64]:
    vectors = rng.normal(size=(num, size))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def everyone(num: int) -> Constraints:
    return Constraints(np.ones(num, dtype=np.bool_))


@pytest.mark.parametrize("method", ["none", "mmr", "dpp"])
def test_logged_propensities_are_the_frequencies_of_what_is_drawn(method: str) -> None:
    """Over many draws of a slate with a pin, a cap, a banned product and diversity: each place's chance given those before it."""
    rng = np.random.default_rng(0)
    vectors, scores = unit(rng, 7), rng.normal(size=7) * 0.6
    left = np.array([True, True, True, True, True, False, True])
    groups = np.array([0, 0, 0, 1, 1, 1, -1])
    constraints = Constraints(left, {1: 6}, ((groups, 1),))
    counts: Counter[tuple[int, ...]] = Counter()
    stated: dict[tuple[int, ...], float] = {}
    for seed in range(NUM_DRAWS):
        order = draw_order(scores, constraints, diversity(method, 0.8, vectors), 0.7, 3, np.random.default_rng(seed))  # type: ignore[arg-type]
        chosen = tuple(order.chosen.tolist())
        assert chosen[1] == 6
        assert order.propensities[1] == 1.0
        assert 5 not in chosen
        assert len({groups[index] for index in chosen}) == 3
        for length in range(1, 4):
            counts[chosen[:length]] += 1
            stated[chosen[:length]] = float(np.prod(order.propensities[:length], dtype=np.float64))
    assert sum(chance for prefix, chance in stated.items() if len(prefix) == 3) == pytest.approx(1.0, abs=1e-5)
    for prefix, chance in stated.items():
        error = (chance * (1 - chance) / NUM_DRAWS) ** 0.5
        assert counts[prefix] / NUM_DRAWS == pytest.approx(chance, abs=5 * error + 1e-6), prefix


def test_an_inverse_propensity_estimate_of_another_order_is_unbiased_through_rules_and_diversity() -> None:
    """What the propensities are for: clicks of the first drawn place, reweighted to a uniform choice."""
    rng = np.random.default_rng(1)
    vectors, scores, click = unit(rng, 6), rng.normal(size=6), rng.random(6)
    constraints = Constraints(np.ones(6, dtype=np.bool_), {0: 2}, ((np.array([0, 0, 0, 1, 1, 2]), 2),))
    eligible = [0, 1, 3, 4, 5]
    values = []
    for seed in range(NUM_DRAWS):
        order = draw_order(scores, constraints, diversity("dpp", 0.5, vectors), 1.0, 2, np.random.default_rng(seed))
        values.append(click[order.chosen[1]] / len(eligible) / order.propensities[1])
    assert np.mean(values) == pytest.approx(click[eligible].mean(), abs=4 * float(np.std(values)) / NUM_DRAWS**0.5)


@given(st.data())
@settings(max_examples=60)
def test_a_slate_never_breaks_its_constraints(data: st.DataObject) -> None:
    num = data.draw(st.integers(1, 12))
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    left, groups, limit = rng.random(num) < 0.7, rng.integers(-1, 3, num), int(rng.integers(1, 4))
    pinned = {int(place): int(index) for place, index in zip(rng.permutation(num)[:2], np.flatnonzero(left)[:2], strict=False)}
    if np.bincount(groups[[*pinned.values()]] + 1, minlength=2)[1:].max(initial=0) > limit:
        pinned = {}
    asked = data.draw(st.integers(1, 14))
    order = draw_order(rng.normal(size=num), Constraints(left, pinned, ((groups, limit),)), None, 0.5, asked, rng)
    chosen = order.chosen.tolist()
    assert len(chosen) == len(set(chosen)) <= asked
    assert left[order.chosen].all()
    assert all(chosen.count(index) <= 1 for index in pinned.values())
    assert {index for place, index in pinned.items() if place < asked} <= set(chosen)
    assert np.bincount(groups[order.chosen] + 1, minlength=2)[1:].max(initial=0) <= limit
    assert ((order.propensities > 0) & (order.propensities <= 1)).all()


def test_greedy_dpp_takes_the_largest_determinant_at_each_step() -> None:
    """Against determinants themselves: the incremental factor is an identity, not an approximation."""
    rng = np.random.default_rng(2)
    strength, scores, vectors = 0.7, rng.normal(size=9), unit(rng, 9, 6)
    quality = np.exp(scores / (2 * strength))
    kernel = quality[:, None] * (vectors @ vectors.T) * quality[None]
    wanted: list[int] = []
    for _ in range(5):
        gains = [np.linalg.slogdet(kernel[np.ix_([*wanted, one], [*wanted, one])])[1] if one not in wanted else -np.inf for one in range(9)]
        wanted.append(int(np.argmax(gains)))
    order = draw_order(scores, everyone(9), Dpp(vectors, strength), 0.0, 5, rng)
    assert order.chosen.tolist() == wanted
    assert order.propensities.tolist() == [1.0] * 5


def test_mmr_takes_the_score_less_the_nearest_chosen_cosine() -> None:
    scores = np.array([1.0, 0.9, 0.2])
    vectors = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert draw_order(scores, everyone(3), Mmr(vectors, 0.5), 0.0, 3, np.random.default_rng(0)).chosen.tolist() == [0, 1, 2]
    assert draw_order(scores, everyone(3), Mmr(vectors, 0.8), 0.0, 3, np.random.default_rng(0)).chosen.tolist() == [0, 2, 1]


@pytest.mark.parametrize("method", ["mmr", "dpp"])
def test_more_strength_makes_a_slate_less_alike(method: str) -> None:
    rng = np.random.default_rng(3)
    centres = unit(rng, 4, 8)
    vectors = centres[np.arange(40) % 4] + 0.1 * rng.normal(size=(40, 8))
    scores = -(np.arange(40) % 4).astype(np.float64) + 0.01 * rng.normal(size=40)

    def alike(strength: float) -> float:
        chosen = draw_order(scores, everyone(40), diversity(method, strength, vectors), 0.0, 8, rng).chosen  # type: ignore[arg-type]
        near = vectors[chosen] / np.linalg.norm(vectors[chosen], axis=1, keepdims=True)
        return float((near @ near.T)[np.triu_indices(8, 1)].mean())

    assert alike(0.0) > alike(1.0) > alike(4.0) - 1e-9


def test_pinned_products_stand_last_where_the_slate_ends_before_their_place() -> None:
    order = draw_order(np.array([0.0, 1.0, 2.0]), Constraints(np.ones(3, dtype=np.bool_), {4: 0}), None, 0.0, 5, np.random.default_rng(0))
    assert order.chosen.tolist() == [2, 1, 0]
    assert draw_order(np.array([0.0, 1.0, 2.0]), Constraints(np.ones(3, dtype=np.bool_), {4: 0}), None, 0.0, 2, np.random.default_rng(0)).chosen.tolist() == [
        2,
        1,
    ]
