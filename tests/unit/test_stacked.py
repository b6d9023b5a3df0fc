"""Stacked recommenders: what is nominated, what the network sees, and that it learns what no weighted sum can say."""

import numpy as np
import pytest

from guidelens.errors import InputError
from guidelens.models.baselines.hybrid import Hybrid
from guidelens.models.baselines.recommender import AtAge, Recommender, Scores, Standing
from guidelens.models.baselines.stacked import Sources, StackConfig, Stacked
from guidelens.models.baselines.transitions import transitions
from guidelens.models.histories import Histories

NUM_PRODUCTS = 12


class ByLast:
    """Scores by the newest product: a row of a table."""

    def __init__(self, table_NN: np.ndarray) -> None:
        self.table_NN = table_NN.astype(np.float32)

    def scores(self, histories: Histories) -> Scores:
        return self.table_NN[histories.at_age(0)]


def shifted(by: int) -> ByLast:
    """Is sure of the product `by` after the newest, and gives the one after that half as much."""
    eye = np.eye(NUM_PRODUCTS)
    return ByLast(np.roll(eye, by, axis=1) + 0.5 * np.roll(eye, by + 1, axis=1))


def single(num_rows: int, seed: int = 0) -> Histories:
    drawn = np.random.default_rng(seed).integers(0, NUM_PRODUCTS, num_rows)
    return Histories.of_lists([[int(product)] for product in drawn], NUM_PRODUCTS)


def test_candidates_are_what_parts_know_and_the_history_does_not_hold() -> None:
    sources = Sources({"one": shifted(0), "two": shifted(1)}, {"tells": Standing(np.arange(NUM_PRODUCTS, dtype=np.float32))})
    asked = Histories.of_lists([[3], [11]], NUM_PRODUCTS)
    found, mean_RN = sources.candidates(asked, num_nominated=4)
    assert [sorted(products[there].tolist()) for products, there in zip(found.products_RC, found.there_RC, strict=True)] == [[4, 5], [0, 1]]
    assert found.features_RCF.shape == (2, 2, 5)
    assert found.features_RCF[0, :, 4] == pytest.approx(np.log([4, 5]))
    assert found.features_RCF[1, 0, 4] == pytest.approx(np.log(1e-3))
    places = np.exp(found.features_RCF[0, :, [1, 3]]) - 1
    assert places.tolist() == [pytest.approx([0, 8]), pytest.approx([0, 1])]
    assert found.features_RCF @ sources.even_weights == pytest.approx(np.take_along_axis(mean_RN, found.products_RC, axis=1), abs=1e-5)


def test_it_tells_when_to_trust_which_part() -> None:
    """After an even product the first part is right, after an odd one the second: a weighted sum is right half the time."""
    asked = single(800)
    newest = asked.at_age(0)
    target = (newest + np.where(newest % 2 == 0, 1, 4)) % NUM_PRODUCTS
    wanted = Histories.of_lists([[int(product)] for product in target], NUM_PRODUCTS)
    parts: dict[str, Recommender] = {"near": shifted(1), "far": shifted(4)}
    odd = {"odd": ByLast(np.tile((np.arange(NUM_PRODUCTS) % 2)[:, None], (1, NUM_PRODUCTS)))}
    new = np.arange(NUM_PRODUCTS)
    fresh = Histories.of_lists([[int(product)] for product in new], NUM_PRODUCTS)
    ours = Stacked.fit(parts, odd, asked, wanted, StackConfig(), seed=0)
    assert ours.scores(fresh).argmax(axis=1).tolist() == ((new + np.where(new % 2 == 0, 1, 4)) % NUM_PRODUCTS).tolist()
    summed = Hybrid.fit(parts, asked, wanted, num_nominated=4).scores(fresh).argmax(axis=1)
    assert (summed == (new + np.where(new % 2 == 0, 1, 4)) % NUM_PRODUCTS).mean() == 0.5
    assert ours.recall == 1 and ours.held_out_nats < 0.1
    best = ours.scores(fresh).argsort(axis=1)[:, ::-1][:, :4]
    assert (np.sort((best - new[:, None]) % NUM_PRODUCTS, axis=1) == [1, 2, 4, 5]).all()


def test_what_nobody_nominates_ranks_below_by_the_mean_of_the_parts() -> None:
    asked = single(200)
    wanted = Histories.of_lists([[int(product + 1) % NUM_PRODUCTS] for product in asked.at_age(0)], NUM_PRODUCTS)
    known = transitions(Histories.of_lists([[p, (p + 1) % NUM_PRODUCTS, (p + 2) % NUM_PRODUCTS] for p in range(NUM_PRODUCTS)], NUM_PRODUCTS))
    found = Stacked.fit({"known": known}, {}, asked, wanted, StackConfig(num_nominated=1), seed=0).scores(Histories.of_lists([[4]], NUM_PRODUCTS))[0]
    assert found.argsort()[::-1][:2].tolist() == [5, 6]
    assert np.isfinite(found).all()


def test_with_nothing_to_learn_it_stays_what_it_began_as() -> None:
    """Targets drawn at random among the candidates: held-out folds get likelier by next to nothing, and no network is far from log 4."""
    asked = single(60)
    rng = np.random.default_rng(1)
    wanted = Histories.of_lists([[int(product + rng.choice([1, 2, 4, 5])) % NUM_PRODUCTS] for product in asked.at_age(0)], NUM_PRODUCTS)
    found = Stacked.fit({"near": shifted(1), "far": shifted(4)}, {}, asked, wanted, StackConfig(), seed=0)
    assert found.held_out_nats == pytest.approx(np.log(4), abs=0.15)


def test_it_repeats_exactly_and_tells_of_its_folds() -> None:
    asked, said = single(120), list[str]()
    wanted = Histories.of_lists([[int(product + 1) % NUM_PRODUCTS] for product in asked.at_age(0)], NUM_PRODUCTS)
    one, other = (Stacked.fit({"near": shifted(1)}, {}, asked, wanted, StackConfig(epochs=2), seed=5, progress=said.append) for _ in range(2))
    assert np.array_equal(one.scores(asked), other.scores(asked))
    assert len(said) == 8 and "fold 4 of 4" in said[3]


def test_too_few_nominated_targets_are_refused() -> None:
    asked = single(3)
    with pytest.raises(InputError, match="got 0 of 3"):
        Stacked.fit({"near": shifted(1)}, {}, asked, asked, StackConfig(), seed=0)


def test_one_age_alone_is_read() -> None:
    graph = transitions(Histories.of_lists([[0, 1], [2, 3]], 4))
    asked = Histories.of_lists([[2, 0], [0]], 4)
    assert AtAge(graph, 1).scores(asked).argmax(axis=1).tolist() == [3, 0]
    assert not AtAge(graph, 1).scores(asked)[1].any()
