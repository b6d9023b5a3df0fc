"""Biases, neighbours and the metrics of ratings against plain loops, and the benchmark over them on a small folder."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from rating_samples import sample_ratings, write_u_data

from benchmarks import joint
from guidelens.data.ratings import Ratings, random_split
from guidelens.errors import ShapeError
from guidelens.evaluation.ranking import auc
from guidelens.evaluation.ratings import difference, interval, like_auc, mean_of, rmse
from guidelens.models.rating_baselines import Biases, RatingKnn, correlations
from guidelens.training.ratings import RatingTrainConfig


@pytest.fixture(scope="module")
def parts() -> tuple[Ratings, Ratings]:
    ratings = sample_ratings()
    train, held_back = random_split(len(ratings), (8, 2), seed=1)
    return ratings.take(train), ratings.take(held_back)


def test_biases_of_additive_ratings_are_found(parts: tuple[Ratings, Ratings]) -> None:
    rng = np.random.default_rng(0)
    train = dataclasses.replace(parts[0], rating_R=(3 + rng.normal(size=60)[parts[0].shopper_R] + rng.normal(size=40)[parts[0].product_R]).astype(np.float32))
    every = np.ones(len(train))
    assert rmse(Biases.fit(train).predict(train), train.rating_R)(every) < 0.6 * float(train.rating_R.std())


def test_correlations_by_hand(parts: tuple[Ratings, Ratings]) -> None:
    knn = RatingKnn.candidates(parts[0])[0]
    for a, b in ((0, 1), (5, 9)):
        both = knn.rated_KM[a] & knn.rated_KM[b]
        x, y = knn.left_KM[a, both], knn.left_KM[b, both]
        expected = (x @ y) / np.sqrt((x @ x) * (y @ y)) * (both.sum() - 1) / (both.sum() - 1 + 100)
        assert float(knn.correlation_KK[a, b]) == pytest.approx(float(expected), rel=1e-4)
    assert not np.diag(correlations(knn.left_KM, knn.rated_KM)).any()


@pytest.mark.parametrize("which", [0, 3])
def test_neighbours_by_hand(parts: tuple[Ratings, Ratings], which: int) -> None:
    train, held_back = parts
    knn = dataclasses.replace(RatingKnn.candidates(train)[which], num_neighbours=5)
    said, base = knn.predict(held_back), knn.biases.predict(held_back)
    for row in range(20):
        key, other = held_back.shopper_R[row], held_back.product_R[row]
        key, other = (key, other) if knn.side == "shopper" else (other, key)
        raters = sorted(np.flatnonzero(knn.rated_KM[:, other]), key=lambda n: -knn.correlation_KK[key, n])[:5]
        weights = np.array([max(knn.correlation_KK[key, n], 0) for n in raters])
        gap = weights @ knn.left_KM[raters, other] / weights.sum() if weights.sum() > 0 else 0.0
        assert said[row] == pytest.approx(base[row] + gap, abs=1e-4)


def test_metrics_by_weights_are_the_metrics_of_repeated_rows() -> None:
    rng = np.random.default_rng(0)
    scores, liked, times = np.round(rng.normal(size=50), 1), rng.random(50) < 0.4, rng.integers(0, 3, 50)
    repeated = np.repeat(np.arange(50), times)
    assert like_auc(scores, liked)(np.ones(50)) == pytest.approx(auc(scores, liked))
    assert like_auc(scores, liked)(times.astype(float)) == pytest.approx(auc(scores[repeated], liked[repeated]))
    target = rng.normal(size=50)
    assert rmse(scores, target)(times.astype(float)) == pytest.approx(float(np.sqrt(np.mean((scores - target)[repeated] ** 2))))
    with pytest.raises(ShapeError, match="both classes"):
        like_auc(scores, np.ones(50, np.bool_))


def test_a_paired_interval_is_narrower_than_that_of_either_model() -> None:
    rng = np.random.default_rng(0)
    target, shoppers = rng.normal(size=400), rng.integers(0, 40, 400)
    first = target + rng.normal(size=400)
    worse = rmse(first + 0.3 * rng.normal(size=400), target)
    gain = interval(difference(worse, rmse(first, target)), shoppers, num_bootstrap=200, seed=0)
    alone = interval(rmse(first, target), shoppers, num_bootstrap=200, seed=0)
    assert gain.low < gain.value < gain.high and gain.high - gain.low < alone.high - alone.low
    assert alone.clusters == 40 and alone == interval(rmse(first, target), shoppers, num_bootstrap=200, seed=0)
    assert mean_of([worse, worse])(np.ones(400)) == pytest.approx(worse(np.ones(400)))


def test_the_benchmark_runs_on_a_folder_and_says_what_was_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_u_data(sample_ratings(), tmp_path / "ml")
    monkeypatch.setattr(joint, "NUM_BOOTSTRAP", 20)
    arguments = ["--data", str(folder), "--seeds", "2", "--json", str(tmp_path / "own" / "found.json"), "--out", str(tmp_path / "results")]
    done = CliRunner().invoke(joint.command, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    found = joint.JointStudy.model_validate_json((tmp_path / "own" / "found.json").read_text())
    assert found == joint.JointStudy.model_validate(json.loads((tmp_path / "results" / "joint.json").read_text()))
    assert found.recipe == RatingTrainConfig() and found.ratings["for training"] == found.ratings["ratings"] * 8 // 10
    both = found.rows["joint"]
    assert both.auc is not None and both.rmse is not None and len(both.auc.by_seed) == 2
    assert found.rows["constant"].auc is None and found.rows["single task: like"].rmse is None
    gain, theirs = found.gains["single task: rating"]["rmse"], found.rows["single task: rating"].rmse
    assert theirs is not None and gain.value == pytest.approx(theirs.mean.value - both.rmse.mean.value)
    assert found.reached["RMSE below the single task's"] == (gain.value > 0)


def test_figures_over_splits_are_means_of_the_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_u_data(sample_ratings(), tmp_path / "ml")
    monkeypatch.setattr(joint, "NUM_BOOTSTRAP", 20)

    def over(splits: int, name: str) -> joint.JointStudy:
        arguments = ["--data", str(folder), "--seeds", "1", "--splits", str(splits), "--out", str(tmp_path)]
        assert CliRunner().invoke(joint.command, arguments, catch_exceptions=False).exit_code == 0
        return joint.JointStudy.model_validate_json((tmp_path / f"{name}.json").read_bytes())

    one, two = over(1, "joint"), over(2, "joint-splits")
    assert (one.splits, two.splits) == ((2020,), (2020, 2021))
    first, both = one.rows["joint"].rmse, two.rows["joint"].rmse
    assert first is not None and both is not None
    assert both.by_seed[0] == pytest.approx(first.mean.value) and both.by_seed[1] != pytest.approx(first.mean.value)
    assert both.mean.value == pytest.approx(sum(both.by_seed) / 2)
    assert both.mean.n == 2 * first.mean.n
