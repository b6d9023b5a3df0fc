"""The rating model: what may know what, parity with plain loops, tasks left out, seeded losses."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from adapted_folders import FORMS
from rating_samples import NUM_PRODUCTS, NUM_SHOPPERS, rerated, sample_ratings, small_recipe
from torch import Tensor
from torch.nn import functional as fn

from guidelens.data.adapters import movielens
from guidelens.data.ratings import Ratings, random_split
from guidelens.errors import ConfigError
from guidelens.evaluation.ratings import rmse
from guidelens.models.noise import Noise
from guidelens.models.rated_attention import RatedAttention
from guidelens.models.rating_baselines import Biases
from guidelens.models.rating_history import Near, Pairs, RatingHistory
from guidelens.models.ratings import RatingLogits, RatingModelConfig, level_loss, like_loss, rating_loss
from guidelens.training.ratings import RatingTrainConfig, batch_loss, fit_ratings, look, new_rating_model

GOLDEN = Path(__file__).parents[1] / "golden" / "rating_losses_first_steps.json"
ROW = 7


def said_of_own(ratings: Ratings) -> RatingLogits:
    """What a seeded model, unfitted and of one scale, says of every training pair that does not know itself."""
    history = RatingHistory(ratings, shrinkage=8.0)
    model = new_rating_model(RatingModelConfig(), sample_ratings(), seed=3)
    torch.nn.init.normal_(model.straight.weight, generator=torch.Generator().manual_seed(0))
    pairs = history.own_pairs()
    with torch.no_grad():
        return look(model, history, pairs, history.features(pairs))


def test_no_pair_sees_its_own_rating_and_others_of_its_shopper_and_product_do() -> None:
    ratings = sample_ratings()
    before, after = said_of_own(ratings), said_of_own(rerated(ratings, ROW, by=1.5))
    others = (ratings.shopper_R == ratings.shopper_R[ROW]) | (ratings.product_R == ratings.product_R[ROW])
    others[ROW] = False
    for was, now in zip(before, after, strict=True):
        moved = (now - was).abs().reshape(len(was), -1).numpy()
        assert moved[ROW].max() < 1e-5
        assert (moved[others] > 1e-4).mean() > 0.9


def test_a_window_never_holds_the_pairs_own_row() -> None:
    history = RatingHistory(sample_ratings(), shrinkage=8.0)
    history.shuffle(torch.Generator().manual_seed(1))
    pairs = history.own_pairs()
    for window in (5, 64):
        near = history.near("shopper", pairs, window, torch.Generator().manual_seed(2))
        assert not (near.there_BH & (near.other_BH == pairs.product_B[:, None])).any()
        rated_B = torch.bincount(pairs.shopper_B)[pairs.shopper_B]
        held_B = near.there_BH.sum(1)
        assert ((held_B >= torch.minimum(rated_B, torch.tensor(window)) - 1) & (held_B <= (rated_B - 1).clamp_max(window))).all()


def test_a_window_longer_than_every_history_says_what_the_whole_history_says() -> None:
    ratings = sample_ratings()
    history = RatingHistory(ratings, shrinkage=8.0)
    model, pairs = new_rating_model(RatingModelConfig(), ratings, seed=0), history.own_pairs()
    features = history.features(pairs)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        whole = look(model, history, pairs, features)
        windows = (history.near(side, pairs, 70, generator) for side in ("shopper", "product"))
        drawn = model(pairs, features, *windows, None)
    torch.testing.assert_close(drawn, whole, rtol=1e-4, atol=1e-5)


def test_a_pair_that_nobody_knows_anything_of_starts_from_the_overall_mean() -> None:
    ratings = sample_ratings()
    known = ratings.take(np.flatnonzero(ratings.shopper_R < NUM_SHOPPERS - 1))
    history = RatingHistory(known, shrinkage=8.0)
    stranger = Pairs(torch.tensor([NUM_SHOPPERS - 1]), torch.tensor([NUM_PRODUCTS - 1]), torch.tensor([20_000.0]), torch.tensor([-1]))
    assert float(history.features(stranger).base_B) == pytest.approx(float(known.rating_R.mean()), rel=1e-6)
    assert not history.near("shopper", stranger).there_BH.any()


def test_features_by_hand() -> None:
    """Shopper 0 rated products 0 and 1; shopper 1 rated product 0. Of the pair (0, 0): what is left of (0, 1) and of (1, 0)."""
    ratings = Ratings(
        shopper_R=np.array([0, 0, 1]),
        product_R=np.array([0, 1, 0]),
        rating_R=np.array([5, 3, 4], np.float32),
        time_R=np.array([10.0, 10.0, 12.0]),
        shopper_SF=np.zeros((2, 1), np.float32),
        product_PF=np.zeros((2, 1), np.float32),
    )
    history = RatingHistory(ratings, shrinkage=1.0)
    base_B, values_BF = history.features(history.own_pairs())
    left_of_second = (3 - 4) - (3 - 4) / 2
    left_of_third = (4 - 4) - 0 / 2
    assert float(base_B[0]) == pytest.approx(4 + left_of_second / 2 + left_of_third / 2)
    assert values_BF[0, :2].tolist() == pytest.approx([left_of_second / 2, left_of_third / 2])
    assert float(values_BF[0, 9]) == pytest.approx(left_of_second / 4), "rated at the same time: weight 1, shrunk by 3"


def test_attention_is_the_shrunk_weighted_mean_of_what_is_there() -> None:
    torch.manual_seed(0)
    attention = RatedAttention(num_rated=6, num_heads=2, head_size=3, vector_size=4)
    there = torch.tensor([[True, True, False]])
    near = Near(torch.tensor([[1, 2, 3]]), torch.tensor([[0.5, -1.0, 0.0]]), torch.tensor([[0.5, -2.0, 0.0]]), there)
    with torch.no_grad():
        found, vector = attention(torch.tensor([4]), near)
        for head in range(2):
            query, keys = attention.query.weight[4].view(2, 3)[head], attention.key.weight.view(6, 2, 3)[:, head]
            fading = fn.softplus(attention.fading_A[head])
            logits = [2 * float(query @ keys[k]) - float(fading) * np.log1p(24 * days) / 2 for k, days in ((1, 0.5), (2, 2.0))]
            weights = np.exp([*logits, float(attention.empty_A[head])])
            weights /= weights.sum()
            assert float(found[0, head]) == pytest.approx(0.5 * weights[0] - weights[1], abs=1e-5)
            assert float(found[0, 2 + head]) == pytest.approx(1 - weights[2], abs=1e-5)
        summed = (0.5 * attention.vector.weight[1] - attention.vector.weight[2]) / np.sqrt(3)
    torch.testing.assert_close(vector[0], summed)


def test_losses_are_torchs_own() -> None:
    ratings, logits = torch.tensor([5.0, 4.0, 3.5, 1.0]), torch.tensor([2.0, -1.0, 0.5, 0.0])
    assert float(like_loss(logits, ratings, 4.0)) == pytest.approx(float(fn.binary_cross_entropy_with_logits(logits, torch.tensor([1.0, 1, 0, 0]))))
    assert float(rating_loss(logits, ratings)) == pytest.approx(float(fn.mse_loss(logits, ratings)))


def test_the_levels_loss_is_the_mean_of_torchs_over_every_level_but_the_likes() -> None:
    ratings, levels = torch.tensor([5.0, 2.0, 3.0]), torch.tensor([2.0, 4.0, 5.0])
    logits = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    each = [fn.binary_cross_entropy_with_logits(logits[:, place], (ratings >= level).float()) for place, level in ((0, 2.0), (2, 5.0))]
    assert float(level_loss(logits, ratings, levels, but=1)) == pytest.approx(float(sum(each)) / 2)
    assert float(level_loss(logits[:, :1], ratings, levels[:1], but=0)) == 0.0


def test_the_levels_expectation_is_the_mean_of_their_distribution() -> None:
    """Of levels 1, 2 and 4: P(2 or more) = .8 and P(4) = .3, so .2 x 1 + .5 x 2 + .3 x 4."""
    ratings = dataclasses.replace(sample_ratings(), rating_R=np.resize(np.array([1, 2, 4], np.float32), len(sample_ratings())))
    model = new_rating_model(RatingModelConfig(), ratings, seed=0)
    assert model.levels_L.tolist() == [2, 4] and model.liked_level == 1
    assert float(model.expected(torch.logit(torch.tensor([[0.8, 0.3]])))) == pytest.approx(0.2 * 1 + 0.5 * 2 + 0.3 * 4)


def test_a_like_is_the_level_that_products_are_liked_from() -> None:
    said = said_of_own(sample_ratings())
    assert torch.equal(said.like, said.levels[:, 2]), "levels 2 to 5; liked from 4 on"


@pytest.mark.parametrize(("liked", "moved", "message"), [(1.0, 0.0, "part the ratings"), (5.5, 0.0, "part the ratings"), (4.0, 1.0, "100 levels or fewer")])
def test_a_scale_that_has_no_likes_or_too_many_levels_is_refused(liked: float, moved: float, message: str) -> None:
    ratings = sample_ratings()
    ratings = dataclasses.replace(ratings, rating_R=ratings.rating_R + np.linspace(0, moved, len(ratings)).astype(np.float32))
    with pytest.raises(ConfigError, match=message):
        new_rating_model(RatingModelConfig(liked=liked), ratings, seed=0)


def test_a_rating_is_read_from_what_was_fitted() -> None:
    ratings = sample_ratings()
    train, asked = (ratings.take(rows) for rows in random_split(len(ratings), (8, 2), seed=0))
    both = fit_ratings(train, small_recipe(epochs=1), seed=0)
    said = {
        name: dataclasses.replace(both, lambdas=lambdas).predict(asked).rating
        for name, lambdas in {"regression": {"rating": 1.0}, "levels": {"like": 1.0, "levels": 3.0}, "both": both.lambdas}.items()
    }
    assert np.abs(said["regression"] - said["levels"]).max() > 0.01
    inside = (said["regression"] > 1) & (said["regression"] < 5)
    assert inside.mean() > 0.8
    np.testing.assert_allclose(said["both"][inside], (said["regression"] + said["levels"])[inside] / 2, atol=1e-5)


def gradients(recipe: RatingTrainConfig) -> dict[str, Tensor | None]:
    ratings = sample_ratings()
    history = RatingHistory(ratings, recipe.shrinkage)
    model, pairs = new_rating_model(recipe.model, ratings, seed=0), history.own_pairs()
    batch_loss(model, history, pairs, history.features(pairs), recipe, None, torch.Generator().manual_seed(0)).backward()  # type: ignore[no-untyped-call]
    return {name: weight.grad for name, weight in model.named_parameters()}


def test_a_task_left_out_adds_no_gradient_and_shared_weights_get_the_sum_of_both() -> None:
    joint, like, rating = (
        gradients(small_recipe(lambdas=weights)) for weights in ({"like": 1.0, "rating": 2.0}, {"like": 1.0, "rating": 0.0}, {"rating": 2.0})
    )
    assert rating["heads.like.weight"] is None and like["heads.rating.weight"] is None
    for name in ("product.weight", "past.query.weight", "experts.first.weight"):
        parts = like[name], rating[name]
        assert parts[0] is not None and parts[1] is not None and joint[name] is not None
        assert float(parts[0].abs().max()) > 0 and float(parts[1].abs().max()) > 0
        torch.testing.assert_close(joint[name], parts[0] + parts[1], rtol=1e-3, atol=1e-6)


def test_no_task_at_all_is_refused() -> None:
    for lambdas in ({"like": 0.0}, {"levels": 1.0}):
        with pytest.raises(ValueError, match="at least one task"):
            RatingTrainConfig.model_validate({"lambdas": lambdas})


def test_the_same_seed_fits_the_same_weights_and_another_seed_others() -> None:
    ratings, recipe = sample_ratings(), small_recipe(epochs=1)
    first, again, other = (fit_ratings(ratings, recipe, seed).model.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["product.weight"], other["product.weight"])


def test_the_first_seeded_steps_have_the_golden_losses() -> None:
    ratings, recipe = sample_ratings(), small_recipe()
    history = RatingHistory(ratings, recipe.shrinkage)
    model, pairs = new_rating_model(recipe.model, ratings, seed=0), history.own_pairs()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for step in range(3):
        rows = torch.arange(step * 100, step * 100 + 100)
        some = pairs.take(rows)
        noise = Noise(step, len(rows), slice(0, len(rows)))
        loss = batch_loss(model, history, some, history.features(some), recipe, noise, torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(round(float(loss.detach()), 4))
    assert losses == pytest.approx(json.loads(GOLDEN.read_text())["losses"], abs=2e-3)


def test_a_fit_foretells_held_back_ratings_better_than_biases_whatever_is_asked_beside_them() -> None:
    ratings = sample_ratings()
    train, held_back = (ratings.take(rows) for rows in random_split(len(ratings), (8, 2), seed=0))
    fitted = fit_ratings(train, small_recipe(epochs=30, table_decay=0.1), seed=0)
    said, every = fitted.predict(held_back), np.ones(len(held_back))
    assert rmse(said.rating, held_back.rating_R)(every) < 0.9 * rmse(Biases.fit(train).predict(held_back), held_back.rating_R)(every)
    assert said.like[held_back.rating_R >= 4].mean() > said.like[held_back.rating_R < 4].mean() + 0.2
    some = np.arange(3, 20)
    for all_of_them, alone in zip(said, fitted.predict(held_back.take(some)), strict=True):
        np.testing.assert_allclose(alone, all_of_them[some], atol=1e-5)


def test_a_forms_files_do_not_matter(tmp_path: Path) -> None:
    found = []
    for form in ("100k", "recbole"):
        (tmp_path / form).mkdir()
        FORMS[form](tmp_path / form)
        found.append(Ratings.of_log(movielens.load(tmp_path / form)))
    first, second = found
    assert first.rating_R.tolist() == [4, 3, 0.5] and first.shopper_R.tolist() == [0, 0, 1] and first.product_R.tolist() == [0, 1, 0]
    assert np.diff(first.time_R) * 86_400 == pytest.approx([1, 1], abs=1e-3)
    for name in ("shopper_R", "product_R", "rating_R", "time_R", "shopper_SF"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert first.product_PF[0].any() and not first.product_PF[1].any(), "a film of no genre and no year is described by zeros"


def test_a_split_deals_each_row_once() -> None:
    parts = random_split(100, (8, 1, 1), seed=2020)
    assert [len(part) for part in parts] == [80, 10, 10]
    assert sorted(np.concatenate(parts).tolist()) == list(range(100))
    with pytest.raises(ConfigError, match="a row for each part"):
        random_split(3, (8, 1, 1), seed=2020)
