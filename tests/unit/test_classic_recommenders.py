"""Classic recommenders against references: counts by hand, numpy's own correlation, conditions that an optimum must meet."""

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from guidelens.errors import BundleError, InputError, ShapeError
from guidelens.models.baselines import linear
from guidelens.models.baselines.hybrid import Hybrid, log_shares
from guidelens.models.baselines.linear import Als, common_of, ease, inverted, solved
from guidelens.models.baselines.neighbours import UserKnn, content, item_knn, largest_in_rows
from guidelens.models.baselines.neural import Ncf
from guidelens.models.baselines.popularity import Popularity
from guidelens.models.baselines.recommender import ItemToItem, Neighbours, Recommender, Scores
from guidelens.models.baselines.transitions import transition_counts, transitions
from guidelens.models.histories import Histories

NUM_PRODUCTS = 9


def histories(num_rows: int = 60, seed: int = 0) -> Histories:
    """Rows of distinct products; product p is mostly followed by p + 1."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(num_rows):
        start, length = int(rng.integers(NUM_PRODUCTS)), int(rng.integers(2, 6))
        rows.append([(start + step + int(rng.random() < 0.2)) % NUM_PRODUCTS for step in range(length)])
    return Histories.of_lists([list(dict.fromkeys(row)) for row in rows], NUM_PRODUCTS)


def taken_matrix(of: Histories) -> np.ndarray:
    return (of.matrix().toarray() > 0).astype(np.float64)


def test_histories_are_cut_by_age() -> None:
    of = Histories.of_lists([[3, 1, 2], [4], []], 5)
    assert of.newest(2).products.tolist() == [1, 2, 4]
    assert of.without_newest(1).products.tolist() == [3, 1]
    assert of.without_newest(1).lengths.tolist() == [2, 0, 0]
    assert of.at_age(1).tolist() == [1, -1, -1]
    assert of.take(np.array([1, 0, 1])).products.tolist() == [4, 3, 1, 2, 4]
    assert of.matrix(0.5).toarray()[0].tolist() == [0, 0.5, 1, 0.25, 0]


def test_a_product_outside_the_catalogue_is_refused() -> None:
    with pytest.raises(ShapeError, match="catalogue of 2"):
        Histories.of_lists([[0, 2]], 2)


def test_transitions_count_pairs_by_their_gap() -> None:
    counts = transition_counts(Histories.of_lists([[0, 1, 2], [0, 1], [2]], 3), 0.5).toarray()
    assert counts.tolist() == [[0, 2, 0.5], [0, 0, 1], [0, 0, 0]]


def test_damped_transitions_are_probabilities_at_1_and_counts_at_0() -> None:
    of = histories()
    counts = transition_counts(of, 0.8).toarray()
    assert transitions(of, damping=0.0).weights.toarray() == pytest.approx(counts, rel=1e-5)
    assert transitions(of, damping=1.0).weights.toarray().sum(axis=1) == pytest.approx(np.ones(NUM_PRODUCTS), rel=1e-5)


def test_the_newest_event_speaks_loudest() -> None:
    graph = transitions(Histories.of_lists([[0, 1], [2, 3]], 4), decay=0.5, damping=1.0)
    assert graph.scores(Histories.of_lists([[0, 2]], 4))[0].tolist() == [0, 0.5, 0, 1]


def test_item_knn_is_the_cosine_of_columns() -> None:
    of = histories()
    x = taken_matrix(of)
    expected = x.T @ x / (np.outer(np.linalg.norm(x, axis=0), np.linalg.norm(x, axis=0)) + 3)
    np.fill_diagonal(expected, 0)
    assert item_knn(of, shrinkage=3).weights.toarray() == pytest.approx(expected, rel=1e-5)


def test_pearson_is_numpys_correlation_where_it_is_positive() -> None:
    of = histories()
    expected = np.maximum(np.corrcoef(taken_matrix(of), rowvar=False), 0)
    np.fill_diagonal(expected, 0)
    assert item_knn(of, similarity="pearson").weights.toarray() == pytest.approx(expected, abs=1e-5)


def test_only_the_largest_neighbours_stay() -> None:
    kept = largest_in_rows(csr_matrix(np.array([[0.1, 0.9, 0.5], [0, 0, 0.2]])), 2).toarray()
    assert kept.tolist() == [[0, 0.9, 0.5], [0, 0, 0.2]]


def test_an_inverse_made_in_place_is_whole_and_symmetric(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "_MIRROR_ROWS", 4)
    drawn = np.random.default_rng(0).normal(size=(30, 10)).astype(np.float32)
    positive = drawn.T @ drawn + 5 * np.eye(10, dtype=np.float32)
    assert inverted(positive.copy()) @ positive == pytest.approx(np.eye(10), abs=1e-5)


def test_ease_meets_the_conditions_of_its_optimum() -> None:
    """Off the diagonal, the gradient of |X - X B|^2 + l2 |B|^2 is 0."""
    of, l2 = histories(), 5.0
    gram, weights = taken_matrix(of).T @ taken_matrix(of), np.asarray(ease(of, l2=l2).weights, dtype=np.float64)
    gradient = gram @ weights - gram + l2 * weights
    np.fill_diagonal(gradient, 0)
    assert np.abs(gradient).max() < 1e-4
    assert np.diag(weights).tolist() == [0] * NUM_PRODUCTS


def test_als_solves_each_rows_weighted_ridge_regression() -> None:
    rng = np.random.default_rng(0)
    taken, others, alpha, l2 = (rng.random((7, 6)) < 0.4).astype(np.float64), rng.normal(size=(6, 3)), 4.0, 0.7
    found = solved(csr_matrix(taken), others, alpha, common_of(others, l2))
    for x, p in zip(found, taken, strict=True):
        gradient = -((1 + alpha * p) * (p - others @ x)) @ others + l2 * x
        assert np.abs(gradient).max() < 1e-9


def test_als_lowers_its_objective_from_sweep_to_sweep() -> None:
    of = histories()
    p = taken_matrix(of)

    def objective(sweeps: int) -> float:
        model = Als.fit(of, num_factors=3, alpha=2.0, l2=0.5, sweeps=sweeps)
        shoppers = solved(of.matrix(), model.products_ND, 2.0, common_of(model.products_ND, 0.5))
        errors = (1 + 2.0 * p) * (p - shoppers @ model.products_ND.T) ** 2
        return float(errors.sum() + 0.5 * ((shoppers**2).sum() + (model.products_ND**2).sum()))

    values = [objective(sweeps) for sweeps in (1, 2, 5)]
    assert values == sorted(values, reverse=True) and values[0] > values[-1]


def test_user_knn_adds_up_the_nearest_shoppers() -> None:
    model = UserKnn.fit(Histories.of_lists([[0, 1], [0, 2], [3, 4]], 5), num_neighbours=2, rarity=0.0)
    assert model.scores(Histories.of_lists([[0, 1]], 5))[0] == pytest.approx([1.5, 1, 0.5, 0, 0], abs=1e-6)


def test_content_ignores_what_only_numbers_share() -> None:
    features = np.array([[1.0, 0, 1], [1, 0, 0], [0, 1, 0]])
    weights = content(features).weights.toarray()
    assert weights[0] == pytest.approx([0, 1 / np.sqrt(2), 0], abs=1e-6)
    assert np.diag(weights).tolist() == [0, 0, 0]


def test_neighbours_kept_whole_score_as_their_source(tmp_path: Path) -> None:
    graph, asked = transitions(histories()), histories(5, seed=1)
    graph.neighbours(NUM_PRODUCTS).save(tmp_path / "near.safetensors")
    loaded = Neighbours.load(tmp_path / "near.safetensors", NUM_PRODUCTS)
    assert loaded.scores(asked) == pytest.approx(graph.scores(asked), rel=1e-6)
    with pytest.raises(BundleError, match="neighbours of 8 products"):
        Neighbours.load(tmp_path / "near.safetensors", 8)


def test_ncf_learns_who_goes_with_whom() -> None:
    of = Histories.of_lists([[0, 1, 2]] * 30 + [[3, 4, 5]] * 30, 6)
    scores = Ncf.fit(of, epochs=30, seed=1).scores(Histories.of_lists([[0, 1], [3, 4]], 6))
    assert scores[0, 2] > scores[0, 5] and scores[1, 5] > scores[1, 2]


class Fixed:
    """A recommender that scores every history alike."""

    def __init__(self, scores_N: list[float]) -> None:
        self.scores_N = np.array(scores_N, dtype=np.float32)

    def scores(self, of: Histories) -> Scores:
        return np.tile(self.scores_N, (len(of), 1))


def test_a_hybrid_listens_to_the_part_that_knows() -> None:
    of = histories(300)
    known, target = of.without_newest(1), of.of_ages(of.ages == 0)
    parts: dict[str, Recommender] = {"knows": transitions(of.without_newest(1)), "noise": Fixed(np.random.default_rng(0).random(NUM_PRODUCTS).tolist())}
    mixed = Hybrid.fit(parts, known, target, num_nominated=5)
    assert mixed.weights_S[0] > 3 * abs(mixed.weights_S[1])


def test_a_hybrids_weights_are_those_of_a_conditional_logit() -> None:
    """Two candidates, one part: the likeliest weight makes the model's share of each that of the events."""
    part, num, num_products = Fixed([3.0, 1.0] + [0.0] * 198), 200, 200
    asked = Histories.of_lists([[]] * num, num_products)
    target = Histories.of_lists([[0]] * 150 + [[1]] * 50, num_products)
    logits = Hybrid.fit({"only": part}, asked, target, num_nominated=2).scores(asked)[0]
    assert 1 / (1 + np.exp(logits[1] - logits[0])) == pytest.approx(0.75, abs=0.01)


def test_a_hybrid_without_a_nominated_target_is_refused() -> None:
    asked = Histories.of_lists([[0]], 3)
    with pytest.raises(InputError, match="validation events"):
        Hybrid.fit({"popularity": Fixed([1, 1, 1])}, asked, Histories.of_lists([[0]], 3))


def test_log_shares_are_finite_and_keep_the_order() -> None:
    found = log_shares(Fixed([0.0, 3.0, 1.0]), Histories.of_lists([[]], 3))[0]
    assert np.isfinite(found).all() and found.argsort().tolist() == [0, 2, 1]


def test_popularity_counts_events() -> None:
    of = histories()
    assert Popularity.fit(of).scores(of)[0].tolist() == np.bincount(of.products, minlength=NUM_PRODUCTS).tolist()


def test_dense_and_sparse_weights_score_alike() -> None:
    graph, of = transitions(histories()), histories(4, seed=2)
    assert ItemToItem(graph.weights.toarray(), graph.decay).scores(of) == pytest.approx(graph.scores(of), rel=1e-6)
