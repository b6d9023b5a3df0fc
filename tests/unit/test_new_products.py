"""Products that come after training are found by the words asked for, and content moves a little in training, so that what is learned holds for what is nearly like it."""

import dataclasses

import numpy as np
import pytest
import torch
from model_learners import alone, with_train
from model_samples import NUM_PLACES, sample_config, sample_examples, sample_items
from numpy.typing import NDArray
from torch import Tensor

from guidelens.config import Config
from guidelens.data.examples import Examples
from guidelens.data.visits import InterestMedians
from guidelens.errors import ConfigError
from guidelens.inference.guide_files import GuideHeader
from guidelens.inference.scorer import GuideScorer
from guidelens.models.guide import GuideModel, GuideSpec
from guidelens.models.items import NUM_DIRECTIONS, Catalogue, item_inputs
from guidelens.models.noise import Noise
from guidelens.presets import load
from guidelens.training.data import FitData, FitJob, Place
from guidelens.training.learner import Learner

NUM, NUM_NEW = 48, 12


def catalogue() -> Catalogue:
    """Four times the sample's products, each with its own text and image; the last NUM_NEW are new."""
    parts = [Catalogue.of_table(sample_items(seed)) for seed in range(NUM // 12)]
    first = parts[0]
    arrays = [field.name for field in dataclasses.fields(Catalogue) if isinstance(getattr(first, field.name), np.ndarray)]
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in arrays}
    ids = tuple(f"p-{row:02d}" for row in range(NUM))
    return dataclasses.replace(first, **{**joined, "hashes_N": np.arange(NUM, dtype=np.int64)}, product_ids=ids, try_on=first.try_on * (NUM // 12))


def asked(num_rows: int, wanted: NDArray[np.int64], shop: Catalogue, seed: int) -> Examples:
    """Requests that ask for a product in words near its text; it is in the slate, among known ones, and clicked."""
    rng = np.random.default_rng(seed)
    rows = sample_examples(num_rows, seed)
    target_R = rng.choice(wanted, num_rows)
    slate_RK = np.stack([rng.permutation(NUM - NUM_NEW)[:NUM_PLACES] for _ in range(num_rows)]).astype(np.int32)
    slate_RK[(slate_RK == target_R[:, None])] = -1
    slate_RK[np.arange(num_rows), rng.integers(0, NUM_PLACES, num_rows)] = target_R
    nothing = np.full(num_rows, -1, np.int32)
    return dataclasses.replace(
        rows,
        packed=np.full(num_rows, None, dtype=object),
        frame_row=nothing,
        focus_row=nothing,
        plan_row=nothing,
        query_row=np.arange(num_rows, dtype=np.int32),
        queries=(shop.text_NE[target_R] + rng.normal(0, 0.04, (num_rows, 512))).astype(np.float32),
        slate_rows=slate_RK,
        click=(slate_RK == target_R[:, None]).astype(np.float32),
        purchase=np.zeros(slate_RK.shape, np.float32),
        interest_observed=np.zeros(slate_RK.shape, np.bool_),
    )


def settings(likeness_pace: float = 32.0, **model: object) -> Config:
    return with_train(likeness_pace=likeness_pace, epochs=4, model=sample_config(**model).train.model)


def learner_of(config: Config, shop: Catalogue) -> Learner:
    rows = asked(1200, np.arange(NUM - NUM_NEW), shop, 1)
    job = FitJob(name="guide", lambdas={"recommendation": 1.0, "interest": 0.0, "plan": 0.0}, model=config.train.model)
    return Learner(job, FitData.of(rows, shop, config.train.model.num_profile_buckets), config.train, 0, Place(), alone)


def share_found_first(config: Config) -> float:
    """Of requests for new products, how many rank what they ask for first of the whole catalogue."""
    shop = catalogue()
    own = learner_of(config, shop)
    for epoch in range(config.train.epochs):
        own.epoch(epoch)
    header = GuideHeader(model=own.job.model, spec=own.model.spec, medians=InterestMedians(), lambdas={**own.job.lambdas})
    new = asked(200, np.arange(NUM - NUM_NEW, NUM), shop, 2)
    best_R = GuideScorer(own.model, header, shop).product_scores(new).argmax(axis=1)
    return float((best_R == new.slate_rows[new.click > 0]).mean())


def test_the_words_asked_for_find_a_product_that_training_never_saw() -> None:
    assert share_found_first(settings()) > 0.9
    assert share_found_first(settings(likeness_pace=1.0, content_noise=0.0)) < 0.5, "the shop does not tell the two apart"


def test_a_step_moves_likeness_as_many_times_further_as_its_pace_and_nothing_else() -> None:
    moved, shop = [], catalogue()
    for pace in (1.0, 32.0):
        own = learner_of(settings(likeness_pace=pace), shop)
        before = own.model.query.weight.clone()
        own.step(own.train_rows[:64], 0)
        moved.append((float(own.model.similarity.detach().abs().max()), own.model.query.weight.detach() - before))
    assert moved[1][0] == pytest.approx(32 * moved[0][0], rel=1e-3)
    assert torch.equal(moved[1][1], moved[0][1])


def test_a_pace_below_the_common_one_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"likeness_pace.*greater than or equal to 1, got 0.5"):
        load("tiny", ["train.likeness_pace=0.5"])


def noisy(content_noise: float, seed: int = 3, rows: Tensor | None = None) -> Tensor:
    """Product vectors of a training step, ids left in, of one tower with a given noise."""
    shop = catalogue()
    torch.manual_seed(0)
    model = GuideModel(sample_config(content_noise=content_noise, id_dropout=0.0).train.model, GuideSpec(num_products=len(shop)))
    model.image.fit(shop.image_NE[shop.has_image_N])
    model.text.fit(shop.text_NE)
    items = item_inputs(shop, model.image, model.text)
    found: Tensor = model.items(items if rows is None else items.take(rows), Noise(seed, 1, slice(0, 1))).detach()
    return found


def test_content_moves_in_training_each_product_its_own_way_and_each_step_anew() -> None:
    still = noisy(0.0)
    moved_ND = noisy(0.5) - still
    assert float(moved_ND.norm(dim=1).min()) > 0
    assert len(np.unique(moved_ND.numpy().round(5), axis=0)) == NUM
    assert not torch.equal(noisy(0.5, seed=4), noisy(0.5)), "another step, other moves"
    assert torch.equal(noisy(0.0, seed=4), still), "without noise a step draws nothing that moves content"


def test_a_part_of_the_catalogue_moves_as_it_does_in_the_whole() -> None:
    rows = torch.tensor([41, 3, 17])
    assert torch.allclose(noisy(0.5, rows=rows), noisy(0.5)[rows], atol=1e-6)


def test_a_large_catalogue_draws_no_more_than_a_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guidelens.models.items.NUM_MOVES", 8)
    drawn: list[int] = []
    shared = Noise.shared

    def counted(self: Noise, shape: tuple[int, ...]) -> Tensor:
        drawn.append(int(np.prod(shape)))
        return shared(self, shape)

    monkeypatch.setattr(Noise, "shared", counted)
    assert torch.isfinite(noisy(0.5)).all()
    assert drawn[0] == 8 * NUM_DIRECTIONS
